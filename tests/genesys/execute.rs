//! The bytes of an execute call, and of its answer.

use bytes::Bytes;
use genesys_once::genesys::Route;
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{DataActionRequest, Upstream};
use http::StatusCode;

use super::server::{Server, answer};
use super::{TOKEN, call, cloud, send};

/// Request line, sorted header lines and body: headers have no order.
fn parts(request: &str) -> (String, Vec<String>, String) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let mut headers: Vec<_> = headers.split("\r\n").map(str::to_owned).collect();
    headers.sort();
    (line.to_owned(), headers, body.to_owned())
}

#[tokio::test]
async fn call_has_expected_bytes() {
    for (route, path) in [
        (Route::DataActions, "dataactions/custom_-_a.b~c-D_9/execute"),
        (
            Route::Actions { flatten: true },
            "actions/custom_-_a.b~c-D_9/execute?flatten=true",
        ),
        (
            Route::Actions { flatten: false },
            "actions/custom_-_a.b~c-D_9/execute?flatten=false",
        ),
    ] {
        let server = Server::answering(answer("200 OK", "", "{}")).await;
        let cloud = cloud(&server.url()).route(route);
        // The caller's white space and member order are kept.
        let payload = "{ \"b\": 1.0,\n \"a\": \"é\" }";
        let request = DataActionRequest::new("custom_-_a.b~c-D_9", payload).unwrap();
        let call = Call::new(request, 1);
        send(&cloud, &call).await.unwrap();

        let requests = server.requests();
        assert_eq!(requests.len(), 1);
        let (line, headers, body) = parts(&requests[0]);
        assert_eq!(line, format!("POST /api/v2/integrations/{path} HTTP/1.1"));
        assert_eq!(
            headers,
            [
                "accept-encoding: identity".to_owned(),
                "accept: application/json".to_owned(),
                format!("authorization: Bearer {TOKEN}"),
                format!("content-length: {}", payload.len()),
                "content-type: application/json".to_owned(),
                format!("host: {}", server.host()),
                format!("idempotency-key: {}", call.key()),
                format!("user-agent: genesys-once/{}", env!("CARGO_PKG_VERSION")),
            ]
        );
        assert_eq!(body, payload);
    }
}

/// Red if the caller's bytes are sent without the member.
#[tokio::test]
async fn forwarded_key_is_in_body_and_header() {
    let server = Server::answering(answer("200 OK", "", "{}")).await;
    let payload = "{ \"order\": [ {\"id\": 1.0}, {} ] }";
    let request = DataActionRequest::new("custom_-_refund", payload).unwrap();
    let request = request.forward_key("/order/1/idempotencyKey").unwrap();
    let call = Call::new(
        request
            .with_key("order-42")
            .unwrap()
            .with_scope("again")
            .unwrap(),
        1,
    );
    send(&cloud(&server.url()), &call).await.unwrap();
    let (_, headers, body) = parts(&server.requests()[0]);
    let key = call.key();
    assert_eq!(
        body,
        format!("{{ \"order\": [ {{\"id\": 1.0}}, {{\"idempotencyKey\":\"{key}\"}} ] }}")
    );
    assert!(headers.contains(&format!("idempotency-key: {key}")));
    assert!(headers.contains(&format!("content-length: {}", body.len())));
}

#[tokio::test]
async fn user_agent_names_the_service() {
    let server = Server::answering(answer("200 OK", "", "")).await;
    let cloud = cloud(&server.url()).user_agent("billing/2.1");
    send(&cloud, &call("{}")).await.unwrap();
    let expected = format!(
        "user-agent: genesys-once/{} billing/2.1\r\n",
        env!("CARGO_PKG_VERSION")
    );
    assert!(server.requests()[0].contains(&expected));
}

#[tokio::test]
async fn answer_is_returned_byte_for_byte() {
    let mut text = b"HTTP/1.1 418 Whatever\r\nset-cookie: a\r\nset-cookie: b\r\nx-raw: caf\xe9\r\n\
        content-encoding: gzip\r\nININ-Correlation-Id: c-1\r\ncontent-length: 5\r\n\r\n"
        .to_vec();
    text.extend([0x1f, 0x8b, 0x00, 0xff, 0x0a]);
    let server = Server::answering(text).await;
    let outcome = send(&cloud(&server.url()), &call("{}")).await.unwrap();
    assert_eq!(outcome.status(), StatusCode::IM_A_TEAPOT);
    let cookies: Vec<_> = outcome.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a", "b"]);
    assert_eq!(outcome.headers()["x-raw"].as_bytes(), b"caf\xe9");
    assert_eq!(outcome.header("inin-correlation-id"), Some("c-1"));
    // Compressed bodies stay as they are.
    assert_eq!(
        *outcome.body(),
        Bytes::from_static(&[0x1f, 0x8b, 0x00, 0xff, 0x0a])
    );
}

#[tokio::test]
async fn chunks_are_joined_and_interim_answers_skipped() {
    let text = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\
        transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let server = Server::answering(text).await;
    let outcome = send(&cloud(&server.url()), &call("{}")).await.unwrap();
    assert_eq!(
        (outcome.status(), &outcome.body()[..]),
        (StatusCode::OK, &b"abcde"[..])
    );
}

#[tokio::test]
async fn redirect_is_not_followed() {
    for status in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary",
        "308 Permanent",
    ] {
        let server = Server::answering(answer(status, "location: /elsewhere\r\n", "")).await;
        let outcome = send(&cloud(&server.url()), &call("{}")).await.unwrap();
        assert_eq!(outcome.status().as_str(), &status[..3]);
        assert_eq!(
            (server.connections(), server.requests().len()),
            (1, 1),
            "{status}"
        );
    }
}

#[tokio::test]
async fn no_status_is_retried_by_the_client() {
    for status in [
        "408 Request Timeout",
        "421 Misdirected",
        "425 Early",
        "429 Wait",
        "503 Busy",
    ] {
        let headers = "retry-after: 0\r\nconnection: close\r\n";
        let server = Server::answering(answer(status, headers, "")).await;
        send(&cloud(&server.url()), &call("{}")).await.unwrap();
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn configured_proxy_is_used() {
    let proxy = Server::answering(answer("200 OK", "", "{}")).await;
    let cloud = cloud("http://127.0.0.1:9").proxy(proxy.url());
    let cloud = cloud.allow_insecure();
    send(&cloud, &call("{}")).await.unwrap();
    let expected = "POST http://127.0.0.1:9/api/v2/integrations/dataactions/custom_-_1/execute ";
    assert!(
        proxy.requests()[0].starts_with(expected),
        "{}",
        proxy.requests()[0]
    );
}

#[tokio::test]
async fn answer_of_maximal_size_is_accepted() {
    let server = Server::answering(answer("200 OK", "", "12345678")).await;
    let call = call("{}").with_max_response_bytes(8);
    let outcome = send(&cloud(&server.url()), &call).await.unwrap();
    assert_eq!(outcome.body(), "12345678");
}

#[tokio::test]
async fn malformed_token_is_never_sent() {
    let server = Server::answering(answer("200 OK", "", "")).await;
    let token = AccessToken::new("hunter2\r\nX-Smuggled: 1", None);
    let error = cloud(&server.url())
        .send(&call("{}"), Some(&token))
        .await
        .unwrap_err();
    assert!(!error.may_have_left());
    super::assert_no_secret(&error);
    assert_eq!(server.connections(), 0);
}
