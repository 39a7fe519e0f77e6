//! A client, a call and the failures that these tests share.

use genesys_once::error::SendError;
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{Credentials, DataActionRequest, Environment, GenesysCloud, Outcome, Upstream};
use std::error::Error;
use std::fmt::Write as _;

/// Stands for every secret: no output may contain it.
pub const SECRET: &str = "hunter2-client-secret";
pub const TOKEN: &str = "hunter2-access-token";

pub fn cloud(base_url: &str) -> GenesysCloud {
    let environment = Environment::from_base_url(base_url).unwrap();
    GenesysCloud::new(environment, Credentials::new("client-id", SECRET))
}

pub fn call(payload: impl Into<genesys_once::request::Payload>) -> Call {
    Call::new(DataActionRequest::new("custom_-_1", payload).unwrap(), 1)
}

pub async fn send(cloud: &GenesysCloud, call: &Call) -> Result<Outcome, SendError> {
    let token = AccessToken::new(TOKEN, None);
    let result = cloud.send(call, Some(&token)).await;
    if let Err(error) = &result {
        assert_no_secret(error);
    }
    result
}

/// Sends a call, expects a failure, and returns whether a byte might have left.
pub async fn may_have_left(cloud: &GenesysCloud) -> bool {
    send(cloud, &call("{}"))
        .await
        .expect_err("this server answers nothing")
        .may_have_left()
}

/// Waits until `condition` holds, with a deadline that every machine meets.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !condition().await {
        assert!(std::time::Instant::now() < deadline, "not reached: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Every form in which an error is printed, its causes included.
pub fn printed(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        writeln!(text, "{error} {error:#} {error:?} {error:#?}").unwrap();
        next = error.source();
    }
    text
}

pub fn assert_no_secret(error: &dyn Error) {
    let text = printed(error);
    assert!(!text.contains("hunter2"), "{text}");
    // `client-id:SECRET` in base64 begins like this.
    assert!(!text.contains("Y2xpZW50LWlkOmh1bnRlcj"), "{text}");
}
