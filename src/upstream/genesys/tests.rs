//! `GenesysCloud` as far as it needs no socket; `tests/genesys.rs` has the rest.

use super::*;
use crate::request::DataActionRequest;

fn cloud(url: &str) -> GenesysCloud {
    let environment = Environment::from_base_url(url).unwrap();
    GenesysCloud::new(environment, Credentials::new("client-id", "hunter2"))
}

fn refused(cloud: &GenesysCloud) -> &'static str {
    match cloud.check() {
        Err(Error::InvalidConfig { setting, .. }) => setting,
        other => panic!("{other:?}"),
    }
}

#[test]
fn check_names_the_setting_at_fault() {
    let good = || cloud("http://127.0.0.1:9");
    good().check().unwrap();
    assert_eq!(refused(&cloud("http://example.com")), "environment");
    cloud("http://example.com")
        .allow_insecure()
        .check()
        .unwrap();
    assert_eq!(refused(&good().rate_limit(0)), "rate_limit");
    assert_eq!(refused(&good().proxy("nonsense")), "proxy");
    assert_eq!(
        refused(&good().root_certificate("nonsense")),
        "root_certificate"
    );
    assert_eq!(
        refused(&good().attempt_timeout(Duration::ZERO)),
        "attempt_timeout"
    );
    assert_eq!(
        refused(&good().connect_timeout(Duration::ZERO)),
        "connect_timeout"
    );
    assert_eq!(refused(&good().user_agent("é\n")), "user_agent");
    let environment = Environment::from_domain("mypurecloud.ie").unwrap();
    let nobody = GenesysCloud::new(environment, Credentials::new("", ""));
    assert_eq!(refused(&nobody), "client_id");
}

#[test]
fn a_setting_after_a_check_is_not_lost() {
    let cloud = cloud("http://127.0.0.1:9");
    cloud.check().unwrap();
    assert_eq!(refused(&cloud.proxy("nonsense")), "proxy");
}

#[tokio::test]
async fn what_check_refuses_is_never_sent() {
    let call = Call::new(DataActionRequest::new("id", "{}").unwrap(), 1);
    let token = AccessToken::new("token", None);
    let exposed = cloud("http://192.0.2.1");
    assert!(
        !exposed
            .send(&call, Some(&token))
            .await
            .unwrap_err()
            .may_have_left()
    );
    let source = exposed.token_source().unwrap();
    let error = source.fetch().await.unwrap_err();
    assert!(
        crate::error::chain(&error).contains("environment"),
        "{error:?}"
    );
}

#[tokio::test]
async fn without_a_usable_token_nothing_is_sent() {
    let call = Call::new(DataActionRequest::new("id", "{}").unwrap(), 1);
    let cloud = cloud("http://127.0.0.1:9");
    for token in [
        None,
        Some(AccessToken::new("a\r\nX: y", None)),
        Some(AccessToken::new("", None)),
    ] {
        let error = cloud.send(&call, token.as_ref()).await.unwrap_err();
        assert!(!error.may_have_left());
        assert!(!crate::error::chain(&error).contains("X: y"));
    }
}

#[tokio::test(start_paused = true)]
async fn admission_is_at_once_without_a_limit_and_held_back_with_one() {
    let start = tokio::time::Instant::now();
    let free = Arc::new(cloud("http://127.0.0.1:9"));
    for _ in 0..1000 {
        Upstream::admit(&free).await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    let limited = Arc::new(cloud("http://127.0.0.1:9").rate_limit(2));
    for _ in 0..3 {
        Upstream::admit(&limited).await;
    }
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[test]
fn debug_shows_settings_and_no_secret() {
    let cloud = cloud("https://example.com")
        .proxy("http://user:hunter2@proxy.example")
        .route(Route::Actions { flatten: true });
    let shown = format!("{cloud:?} {cloud:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("client-id") && shown.contains("example.com"),
        "{shown}"
    );
    assert_eq!(cloud.route_label(), "actions?flatten=true");
    assert_eq!(cloud.attempt_limit(), Duration::from_secs(65));
}
