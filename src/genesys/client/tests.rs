//! `GenesysCloud` without a socket; `tests/genesys.rs` has the rest.

use std::sync::atomic::AtomicUsize;

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
    // Red if loopback needs no TLS also through a proxy.
    let proxied = || cloud("http://localhost:1").proxy("http://127.0.0.1:2");
    assert_eq!(refused(&proxied()), "environment");
    proxied().allow_insecure().check().unwrap();
    good().environment_proxy(true).check().unwrap();
    assert_eq!(refused(&good().rate_limit(0)), "rate_limit");
    let secure = cloud("https://127.0.0.1:9");
    assert_eq!(refused(&secure.proxy("nonsense")), "proxy");
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
    let idle = good().idle_timeout(Duration::from_secs(100_000));
    assert_eq!(refused(&idle), "idle_timeout");
    good().idle_timeout(Duration::ZERO).check().unwrap();
    assert_eq!(refused(&good().user_agent("é\n")), "user_agent");
    let environment = Environment::from_domain("mypurecloud.ie").unwrap();
    let unnamed = GenesysCloud::new(environment, Credentials::new("", ""));
    assert_eq!(refused(&unnamed), "client_id");
}

#[test]
fn setting_after_check_applies() {
    let cloud = cloud("https://127.0.0.1:9");
    cloud.check().unwrap();
    assert_eq!(refused(&cloud.proxy("nonsense")), "proxy");
}

#[tokio::test]
async fn refused_setting_is_never_used() {
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
async fn call_without_usable_token_is_unsent() {
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
async fn rate_permit_waits_only_with_a_limit() {
    let start = tokio::time::Instant::now();
    let free = Arc::new(cloud("http://127.0.0.1:9"));
    for _ in 0..1000 {
        free.acquire_rate_permit().await.spend();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    let limited = Arc::new(cloud("http://127.0.0.1:9").rate_limit(2));
    for _ in 0..3 {
        limited.acquire_rate_permit().await.spend();
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
    assert_eq!(
        cloud.route_label(),
        "https://example.com:443\nactions?flatten=true"
    );
    assert_eq!(
        crate::upstream::Upstream::attempt_timeout(&cloud),
        Duration::from_secs(65)
    );
}

/// Counts the warnings of one thread; nothing else of `tracing` is needed.
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if *event.metadata().level() == tracing::Level::WARN {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn not_found_names_the_other_route_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let warnings = || count.load(Ordering::Relaxed);
    let answer = |status| Outcome::new(status, http::HeaderMap::new(), "");
    telemetry::with_default(Warnings(Arc::clone(&count)), || {
        let other = cloud("http://127.0.0.1:9").route(Route::Actions { flatten: true });
        other.hint_at_the_other_route(&answer(http::StatusCode::NOT_FOUND));
        let default = cloud("http://127.0.0.1:9");
        default.hint_at_the_other_route(&answer(http::StatusCode::OK));
        assert_eq!(warnings(), 0);
        for _ in 0..3 {
            default.hint_at_the_other_route(&answer(http::StatusCode::NOT_FOUND));
        }
        assert_eq!(warnings(), 1);
    });
}

/// Red without the warning, and with one for a known domain in another spelling.
#[test]
fn domain_of_no_known_region_is_logged() {
    let count = Arc::new(AtomicUsize::new(0));
    telemetry::with_default(Warnings(Arc::clone(&count)), || {
        Environment::from_domain("MyPureCloud.ie.").unwrap();
        Environment::from_domain("apne3.pure.cloud").unwrap();
        Environment::from_domain("not a domain").unwrap_err();
        assert_eq!(count.load(Ordering::Relaxed), 0);
        Environment::from_domain("mypurecloud.fr").unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1);
    });
}
