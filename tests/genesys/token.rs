//! The token request: its bytes for both client authentications, what each answer means, and
//! that no error shows a secret or a token.

use std::time::Duration;

use genesys_once::error::TokenError;
use genesys_once::genesys::ClientAuth;
use genesys_once::upstream::AccessToken;
use genesys_once::{GenesysCloud, Upstream};

use super::server::{Server, answer};
use super::{SECRET, TOKEN, assert_no_secret, cloud, printed};

async fn fetch(cloud: &GenesysCloud) -> Result<AccessToken, TokenError> {
    let result = cloud
        .token_source()
        .expect("the platform needs tokens")
        .fetch()
        .await;
    if let Err(error) = &result {
        assert_no_secret(error);
    }
    result
}

/// The error for one answer of the token endpoint.
async fn refused(status: &str, headers: &str, body: &str) -> TokenError {
    let server = Server::answering(answer(status, headers, body)).await;
    let error = fetch(&cloud(&server.url()))
        .await
        .expect_err("this is no token");
    assert_eq!(
        (server.connections(), server.requests().len()),
        (1, 1),
        "{status}"
    );
    error
}

fn granted(expires_in: u64) -> String {
    format!(r#"{{"access_token":"{TOKEN}","token_type":"bearer","expires_in":{expires_in}}}"#)
}

#[tokio::test]
async fn basic_credentials_are_in_the_header() {
    let server = Server::answering(answer("200 OK", "", &granted(86_400))).await;
    let token = fetch(&cloud(&server.url())).await.unwrap();
    assert_eq!(token.expose(), TOKEN);
    assert_eq!(token.expires_in(), Some(Duration::from_secs(86_400)));
    assert!(!format!("{token:?} {token:#?}").contains("hunter2"));

    let request = server.requests().remove(0);
    assert!(
        request.starts_with("POST /oauth/token HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("\r\ncontent-type: application/x-www-form-urlencoded\r\n"),
        "{request}"
    );
    // printf 'client-id:hunter2-client-secret' | base64
    let basic = "\r\nauthorization: Basic Y2xpZW50LWlkOmh1bnRlcjItY2xpZW50LXNlY3JldA==\r\n";
    assert!(request.contains(basic), "{request}");
    assert!(
        request.ends_with("\r\n\r\ngrant_type=client_credentials"),
        "{request}"
    );
}

#[tokio::test]
async fn body_credentials_are_in_the_form() {
    let server = Server::answering(answer("200 OK", "", &granted(300))).await;
    fetch(&cloud(&server.url()).client_auth(ClientAuth::RequestBody))
        .await
        .unwrap();
    let request = server.requests().remove(0);
    assert!(!request.contains("authorization"), "{request}");
    let form = format!("grant_type=client_credentials&client_id=client-id&client_secret={SECRET}");
    assert!(request.ends_with(&format!("\r\n\r\n{form}")), "{request}");
}

#[tokio::test]
async fn client_refusal_shows_only_its_code() {
    let echo =
        format!(r#"{{"error":"invalid_client","error_description":"no {SECRET}","x":"{TOKEN}"}}"#);
    for status in ["400 Bad Request", "401 Unauthorized", "403 Forbidden"] {
        let error = refused(status, "", &echo).await;
        assert!(error.is_rejected(), "{status}");
        let text = printed(&error);
        assert!(
            text.contains(&status[..3]) && text.contains("invalid_client"),
            "{text}"
        );
    }
    // An "error" member that is no code is not repeated.
    for code in [SECRET, "hunter", "Invalid Client", "", &"a".repeat(41)] {
        let error = refused("401 Unauthorized", "", &format!(r#"{{"error":"{code}"}}"#)).await;
        assert!(error.is_rejected());
        assert!(code.is_empty() || !printed(&error).contains(code), "{code}");
    }
    assert!(refused("401 Unauthorized", "", SECRET).await.is_rejected());
}

#[tokio::test]
async fn throttling_is_not_a_client_refusal() {
    let throttled =
        r#"{"error":"invalid_request","error_description":"rate limit exceeded; try later"}"#;
    let wait = |error: TokenError| {
        assert!(!error.is_rejected());
        error.retry_after().map(|wait| wait.as_secs())
    };
    assert_eq!(
        wait(refused("400 Bad Request", "", throttled).await),
        Some(60)
    );
    assert_eq!(
        wait(refused("400 Bad Request", "retry-after: 7\r\n", throttled).await),
        Some(7)
    );
    assert_eq!(
        wait(refused("429 Too Many Requests", "", "").await),
        Some(60)
    );
    assert_eq!(
        wait(refused("429 Too Many Requests", "retry-after: 0\r\n", "").await),
        Some(0)
    );
    let words = r#"{"message":"Retry the request in [42] seconds"}"#;
    assert_eq!(
        wait(refused("429 Too Many Requests", "", words).await),
        Some(42)
    );
    let other = r#"{"error":"invalid_request","error_description":"not rate limit exceeded"}"#;
    assert!(refused("400 Bad Request", "", other).await.is_rejected());
}

/// A given wait counts with any status. Red if only the wait of a 429 is read.
#[tokio::test]
async fn retry_after_of_a_5xx_is_kept() {
    for status in ["503 Service Unavailable", "500 Internal Server Error"] {
        let error = refused(status, "retry-after: 7\r\n", "").await;
        assert_eq!(
            error.retry_after(),
            Some(Duration::from_secs(7)),
            "{status}"
        );
        assert!(!error.is_rejected());
    }
}

#[tokio::test]
async fn other_token_failure_is_transient() {
    let redirect = "location: http://127.0.0.1:9/\r\n";
    for (status, headers, body) in [
        ("307 Temporary Redirect", redirect, String::new()),
        ("404 Not Found", "", String::new()),
        ("500 Internal Server Error", "", SECRET.to_owned()),
        ("204 No Content", "", String::new()),
        ("200 OK", "", format!("<html>{TOKEN}")),
        ("200 OK", "", format!(r#"{{"access_token":"{TOKEN}\n"}}"#)),
        ("200 OK", "", format!(r#"{{"access_token":["{TOKEN}"]}}"#)),
        ("200 OK", "", r#"{"access_token":""}"#.to_owned()),
        (
            "200 OK",
            "",
            format!(r#"{{"access_token":"{}"}}"#, "x".repeat(64 * 1024)),
        ),
    ] {
        let error = refused(status, headers, &body).await;
        assert!(
            !error.is_rejected() && error.retry_after().is_none(),
            "{status} {error:?}"
        );
    }
}

#[tokio::test]
async fn token_without_lifetime_is_accepted() {
    let server = Server::answering(answer("200 OK", "", r#"{"access_token":"t"}"#)).await;
    assert_eq!(
        fetch(&cloud(&server.url())).await.unwrap().expires_in(),
        None
    );
}

#[tokio::test]
async fn missing_token_answer_is_transient() {
    let cut = Server::start(|mut connection| async move {
        connection.request().await;
        connection
            .write(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"access_token\":\"hunter2")
            .await;
        connection.close().await;
    })
    .await;
    assert!(!fetch(&cloud(&cut.url())).await.unwrap_err().is_rejected());
    let reset = Server::start(|connection| async { connection.reset() }).await;
    let error = fetch(&cloud(&reset.url())).await.unwrap_err();
    assert!(!error.is_rejected() && error.retry_after().is_none());
    assert_eq!(reset.connections(), 1);
}

#[test]
fn upstream_debug_hides_the_secret() {
    let cloud = cloud("https://127.0.0.1").proxy("http://user:hunter2@127.0.0.1:9");
    let text = format!("{cloud:?} {cloud:#?}");
    assert!(!text.contains("hunter2"), "{text}");
}

/// Only the text distinguishes a throttled client from a refused client, and here the text
/// is unreadable. Red if that counts as a refusal of the client, whose hint is `Never`.
#[tokio::test]
async fn unreadable_token_refusal_is_transient() {
    for (headers, body) in [
        ("content-encoding: gzip\r\n", "rate limit, compressed"),
        (
            "content-type: application/json; charset=utf-16\r\n",
            "r\0a\0t\0e\0",
        ),
    ] {
        for status in ["400 Bad Request", "401 Unauthorized", "403 Forbidden"] {
            assert!(!refused(status, headers, body).await.is_rejected());
            assert!(
                refused(status, "", body.split('\0').next().unwrap())
                    .await
                    .is_rejected()
            );
        }
    }
}
