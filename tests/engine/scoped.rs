//! Tenants: an engine that is narrowed to a scope, which its callers cannot leave.

use genesys_once::error::KeyState;
use genesys_once::record::RecordState;
use genesys_once::request::Scope;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, Error, IdempotencyKey, Resolution, Served};
use sha2::{Digest as _, Sha256};

use super::{SECOND, request};

fn scope(word: &str) -> Scope {
    word.parse().unwrap()
}

async fn engine() -> (Engine, ScriptedUpstream) {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    (engine, upstream)
}

/// Golden: the key is computed from the documented form, and the key of a plain scope has
/// not changed.
#[tokio::test(start_paused = true)]
async fn scoped_keys_match_documentation() {
    let (engine, _) = engine().await;
    let plain = request("{}");
    let own = request("{}").with_key("order \"42\"").unwrap();
    let tenant = engine.scoped(&scope("tenant é"));
    let of = |text: &str| IdempotencyKey::from_bytes(Sha256::digest(text).into());
    let scoped = |request: &DataActionRequest| request.clone().with_scope("eu").unwrap();
    for (key, text) in [
        (
            IdempotencyKey::of(&scoped(&plain)),
            "custom_-_refund:{}\neu",
        ),
        (tenant.key_of(&plain), "custom_-_refund:{}\n\n9:tenant é"),
        (
            tenant.key_of(&scoped(&plain)),
            "custom_-_refund:{}\n\n9:tenant é\neu",
        ),
        (
            tenant.key_of(&own),
            "custom_-_refund::\"order \\\"42\\\"\"\n\n9:tenant é",
        ),
        (
            tenant.key_of(&scoped(&own)),
            "custom_-_refund::\"order \\\"42\\\"\"\n\n9:tenant é\neu",
        ),
    ] {
        assert_eq!(key, of(text), "{text:?}");
    }
}

/// Seen red: the request's own scope replaced the tenant's scope, and one tenant got the
/// other's answer.
///
/// Red if the last scope wins.
#[tokio::test(start_paused = true)]
async fn request_scope_stays_inside_engine_scope() {
    let (engine, upstream) = engine().await;
    let (one, two) = (engine.scoped(&scope("1")), engine.scoped(&scope("2")));
    let requests = ["1", "2", "1 / 2", "1:2", "\"1\""]
        .map(|word| request("{}").with_scope(word).unwrap())
        .into_iter()
        .chain([request("{}")]);
    for (number, request) in requests.enumerate() {
        for tenant in [&one, &two] {
            let reply = tenant.execute(request.clone()).await.unwrap();
            assert_eq!(reply.served(), Served::Upstream);
            assert_eq!(reply.key(), tenant.key_of(&request));
        }
        let reply = engine.execute(request).await.unwrap();
        assert_eq!(reply.served(), Served::Upstream);
        assert_eq!(upstream.ledger().total(), 3 * (number + 1));
    }
    let again = one.execute_within(request("{}"), SECOND).await.unwrap();
    assert_eq!(again.served(), Served::Memory);
    assert_eq!(one.scope().as_str(), "1");
}

/// Red if the second scope replaces the first.
#[test]
fn second_scope_of_a_request_is_refused() {
    let scoped = request("{}").with_scope("tenant 1").unwrap();
    match scoped.with_scope("tenant 2") {
        Err(Error::InvalidRequest { field, .. }) => assert_eq!(field, "scope"),
        other => panic!("{other:?}"),
    }
    for bad in ["", "a\nb", &"x".repeat(256)] {
        assert!(bad.parse::<Scope>().is_err(), "{bad:?}");
    }
}

/// An operator that finds a tenant's key sees its scope.
#[tokio::test(start_paused = true)]
async fn record_names_both_scopes() {
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let engine = Engine::builder(upstream).start().await.unwrap();
    let tenant = engine.scoped(&scope("tenant 7"));
    let lost = request("{}").with_scope("monday").unwrap();
    tenant.execute(lost.clone()).await.unwrap_err();
    let state = tenant.inspect(&lost).await.unwrap().unwrap();
    let RecordState::Indeterminate { about, .. } = &state else {
        panic!("{state:?}");
    };
    assert_eq!(about.caller.scope.as_deref(), Some("tenant 7 / monday"));
    let other = engine.scoped(&scope("tenant 8"));
    assert_eq!(other.inspect(&lost).await.unwrap(), None);
}

/// Red if the refusal says only that the key is not indeterminate.
#[tokio::test(start_paused = true)]
async fn resolution_error_says_recorded_state() {
    let upstream = ScriptedUpstream::new(|call| match &call.body()[..] {
        b"1" => Step::Reset,
        _ => Step::ok("{}"),
    });
    let engine = Engine::builder(upstream).start().await.unwrap();
    let key = IdempotencyKey::of(&request("1"));
    engine.execute(request("1")).await.unwrap_err();
    let state = engine.inspect(&key).await.unwrap().unwrap();
    let resolve = async |key: &IdempotencyKey, resolution| {
        let error = engine.resolve(key, &state, resolution).await.unwrap_err();
        assert_eq!(error.key(), Some(*key));
        error
    };
    let unknown = IdempotencyKey::of(&request("7"));
    let error = resolve(&unknown, Resolution::not_applied()).await;
    assert!(matches!(error, Error::UnknownKey { .. }), "{error}");
    assert_eq!(error.code(), "unknown_key");

    let error = resolve(&key, Resolution::not_applied()).await;
    let Error::TooEarly { until, wait, .. } = error else {
        panic!("{error}");
    };
    assert!(wait > SECOND && until > std::time::SystemTime::UNIX_EPOCH);

    engine.execute(request("2")).await.unwrap();
    let recorded = IdempotencyKey::of(&request("2"));
    let error = resolve(&recorded, Resolution::not_applied()).await;
    let Error::NotIndeterminate { state: cached, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*cached, KeyState::Cached);

    let outcome = genesys_once::Outcome::new(http::StatusCode::OK, Default::default(), "{}");
    let applied = Resolution::applied(outcome.clone()).by("ticket 4711");
    engine.resolve(&key, &state, applied).await.unwrap();
    let error = resolve(&key, Resolution::applied(outcome)).await;
    assert!(
        error.to_string().ends_with("resolved by ticket 4711"),
        "{error}"
    );
}
