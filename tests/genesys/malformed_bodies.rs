//! An engine and answers with malformed or unusual bodies: how often the engine sends, and
//! what the caller gets. The tests run over real sockets, byte for byte.

use std::time::Duration;

use genesys_once::genesys::classify;
use genesys_once::outcome::{StoredBody, Verdict};
use genesys_once::{
    DataActionRequest, Engine, EngineBuilder, Error, OnUnknown, Reply, RetryPolicy, Served,
};

use super::cloud;
use super::server::Server;

const JSON: &str = "content-type: application/json\r\n";
const GZIP: &str = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
/// The remote endpoint has answered.
const REMOTE: &str = r#"{"message":"no","details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#;
/// `REMOTE`, compressed.
const REMOTE_GZIP: &str = "1f8b0800000000000203ab56ca4d2d2e4e4c4f55b252cacb57d2514a492d49cccc2956b28aae564a2d2aca2f72ce4f01493a3a8778fafbe905b9fafa87b8c6bbfab904f87bfa8528d5c6d602002865c2db43000000";

/// Answers each execution with `answer`, and closes the connection after it if `close`.
async fn platform(answer: impl Into<Vec<u8>>, close: bool) -> Server {
    let answer = answer.into();
    Server::start(move |mut connection| {
        let answer = answer.clone();
        async move {
            while let Some(request) = connection.request().await {
                if request.starts_with("POST /oauth/token") {
                    let token = r#"{"access_token":"t","token_type":"bearer","expires_in":3600}"#;
                    let token = super::server::answer("200 OK", JSON, token);
                    connection.write(token.as_bytes()).await;
                    continue;
                }
                connection.write(&answer).await;
                if close {
                    return connection.close().await;
                }
            }
        }
    })
    .await
}

/// An answer with `Content-Length`.
fn sized(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// An answer that ends only with its connection.
fn unsized_(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn engine(server: &Server) -> EngineBuilder {
    let retry = RetryPolicy::default().backoff(Duration::from_millis(10));
    Engine::builder(cloud(&server.url())).retry(retry)
}

fn request() -> DataActionRequest {
    DataActionRequest::new("custom_-_1", r#"{"order":1}"#).unwrap()
}

fn executions(server: &Server) -> usize {
    let requests = server.requests();
    requests
        .iter()
        .filter(|text| text.contains("/execute"))
        .count()
}

/// The first caller's result, the number of calls until then, and a later caller's result.
async fn twice(builder: EngineBuilder, server: &Server) -> (String, usize, String) {
    let engine = builder.start().await.unwrap();
    let first = said(&engine.execute(request()).await);
    let sent = executions(server);
    let again = said(&engine.execute(request()).await);
    (first, sent, again)
}

fn said(result: &Result<Reply, Error>) -> String {
    match result {
        Ok(reply) if reply.recorded() => format!("{} {}", reply.status().as_u16(), reply.served()),
        Ok(reply) => format!("{} unrecorded", reply.status().as_u16()),
        Err(error) => error.code().to_owned(),
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn utf_16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Red if the code is searched only in valid JSON: the request is sent again, three times
/// for 429 and 408, twice for 401, and other answers count as not executed.
#[tokio::test]
async fn remote_code_is_found_in_every_spelling() {
    let with = |message: &[u8]| {
        let end = br#"","details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#;
        [br#"{"message":""#.as_slice(), message, end].concat()
    };
    let spellings = [
        REMOTE.as_bytes().to_vec(),
        [b"\xef\xbb\xbf", REMOTE.as_bytes()].concat(),
        with(br"said \ud83d"),
        with(b"verweigert f\xfcr"),
        with(b"a\nb"),
        with(b"a\nb").iter().copied().chain(*b"trailing").collect(),
        br#"{"message":"a
b","details":[{"errorCode":"ACTION\u002EREMOTE\u005fENDPOINT"}]}"#
            .to_vec(),
        br#"{"message":"x","details":[{"errorCode":"action.remote_endpoint"}]}"#.to_vec(),
        br#"{"message":"x","code":"ACTION.PROCESSING"}"#.to_vec(),
    ];
    for body in spellings {
        for (status, expected) in [
            ("429 Too Many Requests", "indeterminate"),
            ("408 Request Timeout", "indeterminate"),
            ("401 Unauthorized", "indeterminate"),
            ("403 Forbidden", "403 upstream"),
            ("404 Not Found", "404 upstream"),
        ] {
            let server = platform(sized(status, JSON, &body), false).await;
            let (first, sent, _) = twice(engine(&server), &server).await;
            let text = String::from_utf8_lossy(&body);
            assert_eq!((&*first, sent), (expected, 1), "{status} {text}");
        }
    }
}

/// Red if a refusal counts although its body cannot be searched: its code is missed, and
/// the request is sent again. Red for the closure if only the crate's classifiers check
/// that.
#[tokio::test]
async fn unreadable_refusal_is_unknown() {
    let utf_16_header = "content-type: application/json; charset=utf-16le\r\n";
    let answers: [(&str, Vec<u8>, bool); 9] = [
        (GZIP, hex(REMOTE_GZIP), false),
        ("content-encoding: identity, br\r\n", b"x".to_vec(), false),
        (utf_16_header, utf_16(REMOTE), false),
        (JSON, utf_16(REMOTE), false),
        (JSON, [b"\xff\xfe".to_vec(), utf_16(REMOTE)].concat(), false),
        (
            "content-type: text/html; charset=\"UTF-7\"\r\n",
            b"x".to_vec(),
            false,
        ),
        // Cut by the end of the connection.
        (
            JSON,
            br#"{"message":"no","details":[{"errorCo"#.to_vec(),
            true,
        ),
        ("", b"".to_vec(), true),
        ("", b"<html>no".to_vec(), true),
    ];
    for (headers, body, close) in answers {
        for status in [
            "429 Too Many Requests",
            "408 Request Timeout",
            "401 Unauthorized",
            "403 Forbidden",
            "404 Not Found",
            "302 Found",
            "407 Proxy Authentication Required",
            "400 Bad Request",
        ] {
            let answer = match close {
                false => sized(status, headers, &body),
                true => unsized_(status, headers, &body),
            };
            let server = platform(answer, close).await;
            let (first, sent, again) = twice(engine(&server), &server).await;
            let expected = ("indeterminate", 1, "indeterminate");
            assert_eq!((&*first, sent, &*again), expected, "{status} {headers}");
            let trusting = engine(&server).classify(|outcome| match outcome.status().as_u16() {
                429 => Verdict::NotExecuted(genesys_once::outcome::Recovery::Retry),
                _ => classify::everything_final(outcome),
            });
            let before = executions(&server);
            twice(trusting, &server).await;
            assert_eq!(executions(&server) - before, 1, "{status} {headers}");
        }
    }
}

/// Red if each body of a 2xx is recorded as the action's answer.
#[tokio::test]
async fn success_without_an_answer_is_unknown() {
    let html = "content-type: text/html; charset=utf-8\r\n";
    let page = b"<html>Please log in to the network</html>".as_slice();
    let cut = br#"{"refund":{"id":"R-1","amo"#.as_slice();
    for (answer, close) in [
        (sized("200 OK", html, page), false),
        (
            sized("200 OK", "content-type: application/xhtml+xml\r\n", page),
            false,
        ),
        (sized("200 OK", JSON, page), false),
        (sized("200 OK", "", page), false),
        (sized("202 Accepted", JSON, b"{}{}"), false),
        (
            sized(
                "200 OK",
                "content-type: application/vnd.x+json\r\n",
                b"nope",
            ),
            false,
        ),
        (sized("200 OK", JSON, b" \r\n"), false),
        (unsized_("200 OK", JSON, cut), true),
        (unsized_("200 OK", "", cut), true),
        (unsized_("200 OK", JSON, b""), true),
        (unsized_("200 OK", "", b""), true),
        (unsized_("200 OK", JSON, b"12"), true),
    ] {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let server = platform(answer, close).await;
        let (first, sent, again) = twice(engine(&server), &server).await;
        let expected = ("indeterminate", 1, "indeterminate");
        assert_eq!((&*first, sent, &*again), expected, "{text}");
    }
}

/// Red if the spelling of a body matters, or if an empty answer must have a body.
#[tokio::test]
async fn success_is_final_in_every_spelling() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
    let no_content = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
    for (answer, close) in [
        (sized("200 OK", JSON, b"{\"a\":1}"), false),
        (sized("200 OK", "", b"{\"a\":1}"), false),
        (sized("200 OK", JSON, b"\xef\xbb\xbf{\"a\":1}"), false),
        (sized("200 OK", JSON, b"{\"a\":\"\xfc \xff\"}"), false),
        (sized("200 OK", JSON, b"{\"a\":\"x\ny\x01\"}"), false),
        (sized("200 OK", JSON, br#"{"a":"\ud83d"}"#), false),
        (sized("200 OK", JSON, &utf_16("{\"a\":true}")), false),
        (sized("200 OK", GZIP, &hex(REMOTE_GZIP)), false),
        (
            sized("200 OK", "content-type: text/plain\r\n", b"done"),
            false,
        ),
        (
            sized("200 OK", "content-type: application/xml\r\n", b"<a/>"),
            false,
        ),
        (sized("200 OK", JSON, b""), false),
        (sized("200 OK", "content-type: text/html\r\n", b""), false),
        (chunked, false),
        (no_content, false),
        (unsized_("200 OK", JSON, b"{\"a\":1}"), true),
        (
            unsized_("200 OK", "content-type: text/plain\r\n", b"done"),
            true,
        ),
    ] {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let server = platform(answer, close).await;
        let (first, sent, again) = twice(engine(&server), &server).await;
        assert_eq!(sent, 1, "{text}");
        assert!(first.ends_with(" upstream"), "{first}: {text}");
        assert!(again.ends_with(" memory"), "{again}: {text}");
    }
}

/// `everything_final` records a 2xx with any body.
#[tokio::test]
async fn everything_final_records_an_html_page() {
    let page = sized("200 OK", "content-type: text/html\r\n", b"<html>");
    let server = platform(page, false).await;
    let builder = engine(&server).classify(classify::everything_final);
    let (first, sent, again) = twice(builder, &server).await;
    assert_eq!((&*first, sent, &*again), ("200 upstream", 1, "200 memory"));
}

/// Red if a success over the limit is an unknown outcome: under `Retry` it is executed
/// three times. A closure that returns `NotExecuted` is not called.
#[tokio::test]
async fn oversized_success_is_final_without_body() {
    let body = format!(r#"{{"d":"{}"}}"#, "x".repeat(5_000));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\n{JSON}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let sized = sized("200 OK", JSON, body.as_bytes());
    for answer in [sized, chunked.into_bytes()] {
        let server = platform(answer, false).await;
        let engine = engine(&server)
            .max_response_bytes(1_000)
            .on_unknown(OnUnknown::Retry)
            .classify(|_| Verdict::NotExecuted(genesys_once::outcome::Recovery::Retry))
            .start()
            .await
            .unwrap();
        for served in [Served::Upstream, Served::Store] {
            let reply = engine.execute(request()).await.unwrap();
            assert_eq!(
                (reply.served(), reply.stored_body()),
                (served, StoredBody::OmittedTooLarge)
            );
            assert!(reply.recorded() && reply.body().is_empty());
            assert_eq!(reply.status(), 200);
            assert_eq!(reply.header("content-digest"), None);
        }
        assert_eq!(executions(&server), 1);
    }
}

/// Only a success is decided by its status: the content of a refusal over the limit is
/// unknown.
#[tokio::test]
async fn oversized_refusal_is_unknown() {
    let page = "x".repeat(5_000);
    for (status, headers) in [
        ("429 Too Many Requests", JSON),
        ("403 Forbidden", ""),
        ("409 Conflict", JSON),
        ("200 OK", "content-type: text/html\r\n"),
    ] {
        let server = platform(sized(status, headers, page.as_bytes()), false).await;
        let builder = engine(&server).max_response_bytes(1_000);
        let (first, sent, again) = twice(builder, &server).await;
        let expected = ("indeterminate", 1, "indeterminate");
        assert_eq!((&*first, sent, &*again), expected, "{status}");
    }
}

/// Red if these codes are not read.
#[tokio::test]
async fn vendor_code_decides_the_verdict() {
    for (status, code, first, sent, again) in [
        (
            "400 Bad Request",
            "client.failed.request",
            "rate_limited",
            3,
            "rate_limited",
        ),
        (
            "504 Gateway Timeout",
            "authentication.request.timeout",
            "rate_limited",
            3,
            "rate_limited",
        ),
        (
            "504 Gateway Timeout",
            "request.timeout",
            "indeterminate",
            1,
            "indeterminate",
        ),
        (
            "503 Service Unavailable",
            "authentication.request.timeout",
            "indeterminate",
            1,
            "indeterminate",
        ),
        (
            "400 Bad Request",
            "response.entity.too.large",
            "400 upstream",
            1,
            "400 memory",
        ),
        (
            "407 Proxy Authentication Required",
            "",
            "407 unrecorded",
            1,
            "407 unrecorded",
        ),
    ] {
        let body = format!(r#"{{"message":"x","code":"{code}","details":[],"errors":[]}}"#);
        let server = platform(sized(status, JSON, body.as_bytes()), false).await;
        let said = twice(engine(&server), &server).await;
        assert_eq!(
            (&*said.0, said.1, &*said.2),
            (first, sent, again),
            "{status} {code}"
        );
    }
}
