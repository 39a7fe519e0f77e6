//! The token endpoint.

use std::time::Duration;

use genesys_once::testing::GenesysSimulator;

use super::client::{Client, basic};

const GRANT: &str = "grant_type=client_credentials";

#[tokio::test]
async fn token_is_issued_for_both_authentications() {
    let platform = GenesysSimulator::start().await;
    let (id, secret) = (platform.client_id(), platform.client_secret());
    let mut client = Client::connect(&platform).await.unwrap();
    let in_body = format!("{GRANT}&client_id={id}&client_secret={secret}");
    // In RFC 6749 both parts are form encoded, and even a hyphen may be encoded.
    let encoded = basic(&id.replace('-', "%2D"), &secret.replace('-', "%2d"));
    let plain = basic(id, secret);
    let mut tokens = Vec::new();
    for (headers, form) in [
        (vec![&*plain], GRANT),
        (vec![&*encoded], GRANT),
        (vec![], in_body.as_str()),
    ] {
        let answer = client.token_request(&headers, form).await;
        assert_eq!(answer.status, 200);
        let body = answer.json();
        assert_eq!(
            (&body["token_type"], &body["expires_in"]),
            (&"bearer".into(), &86_400.into())
        );
        tokens.push(body["access_token"].as_str().unwrap().to_owned());
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 3);
    assert_eq!(platform.token_requests(), 3);
}

#[tokio::test]
async fn unknown_client_or_grant_is_refused() {
    let platform = GenesysSimulator::start().await;
    let (id, secret) = (platform.client_id(), platform.client_secret());
    let mut client = Client::connect(&platform).await.unwrap();
    let known = basic(id, secret);
    let in_body = format!("{GRANT}&client_id={id}&client_secret=wrong");
    let cases: [(&[&str], &str, u16, &str); 8] = [
        (&[&basic(id, "wrong")], GRANT, 401, "invalid_client"),
        (&[&basic("wrong", secret)], GRANT, 401, "invalid_client"),
        (&["authorization: Basic %%%"], GRANT, 401, "invalid_client"),
        (&[], &in_body, 400, "invalid_client"),
        (&[], GRANT, 400, "invalid_client"),
        (
            &[&known],
            "grant_type=password",
            400,
            "unsupported_grant_type",
        ),
        (&[&known], "", 400, "invalid_request"),
        (&[&known], "a=%zz", 400, "invalid_request"),
    ];
    for (headers, form, status, error) in cases {
        let answer = client.token_request(headers, form).await;
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["error"]),
            (status, &error.into()),
            "{headers:?} {form}"
        );
        assert_eq!(body["description"], body["error_description"]);
        assert_eq!(answer.header("www-authenticate").is_empty(), status != 401);
    }
    let answer = client
        .request("GET", "/oauth/token", &[], b"")
        .await
        .unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    assert_eq!(platform.token_requests(), 8);
}

#[tokio::test]
async fn token_limit_answers_with_a_400() {
    let platform = GenesysSimulator::start().await;
    platform.token_limit(2);
    let mut client = Client::connect(&platform).await.unwrap();
    for status in [200, 200, 400] {
        let answer = client.ask_token(&platform).await;
        assert_eq!(answer.status, status);
        if status == 400 {
            let body = answer.json();
            assert_eq!(body["error"], "invalid_request");
            assert!(
                body["description"]
                    .as_str()
                    .unwrap()
                    .starts_with("rate limit exceeded;")
            );
        }
    }
}

#[tokio::test]
async fn token_requests_fail_as_often_as_set() {
    let platform = GenesysSimulator::start().await;
    platform.fail_tokens(2, 503);
    let mut client = Client::connect(&platform).await.unwrap();
    for status in [503, 503, 200] {
        assert_eq!(client.ask_token(&platform).await.status, status);
    }
    platform.wait_for_token_requests(3).await;
}

#[tokio::test]
async fn token_ends_by_lifetime_or_revocation() {
    let platform = GenesysSimulator::start().await;
    // First longer than the test takes, then zero: neither depends on the machine's speed.
    platform.token_lifetime(Duration::from_millis(3_600_900));
    let mut client = Client::connect(&platform).await.unwrap();
    assert_eq!(
        client.ask_token(&platform).await.json()["expires_in"],
        3_600
    );
    let mut lasting = Client::with_token(&platform).await;
    platform.token_lifetime(Duration::ZERO);
    let mut expired = Client::with_token(&platform).await;
    assert_eq!(lasting.execute().await.unwrap().status, 200);
    assert_eq!(expired.execute().await.unwrap().status, 401);
    platform.revoke_tokens();
    assert_eq!(lasting.execute().await.unwrap().status, 401);
    platform.token_lifetime(Duration::from_secs(60));
    let mut fresh = Client::with_token(&platform).await;
    assert_eq!(fresh.execute().await.unwrap().status, 200);
}
