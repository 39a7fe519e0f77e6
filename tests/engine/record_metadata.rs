//! What a record shows: its request, its holder, and where its outcome comes from.

use genesys_once::record::RecordState;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{
    DataActionRequest, Engine, Error, IdempotencyKey, MemoryStore, Outcome, Resolution,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::SECOND;

fn order() -> DataActionRequest {
    let request = DataActionRequest::new("custom_-_refund", r#"{"order":42}"#).unwrap();
    let request = request
        .with_key("order 42")
        .unwrap()
        .with_scope("eu")
        .unwrap();
    request.with_label("refund order 42").unwrap()
}

/// An answer that proves nothing, with a correlation id of the platform.
fn unknown() -> Step {
    let mut headers = HeaderMap::new();
    headers.insert("inin-correlation-id", HeaderValue::from_static("1b2c"));
    Step::Answer(Outcome::new(StatusCode::BAD_GATEWAY, headers, "?"))
}

async fn engines(upstream: &ScriptedUpstream) -> [Engine; 2] {
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone()).store(store);
    [
        builder.clone().start().await.unwrap(),
        builder.start().await.unwrap(),
    ]
}

/// Red without any of these members: the operator found only a digest as the key, and could
/// not reverse it.
#[tokio::test(start_paused = true)]
async fn locked_and_indeterminate_records_name_their_request() {
    let upstream = ScriptedUpstream::new(|_| unknown().after(SECOND));
    let [holder, other] = engines(&upstream).await;
    let key = IdempotencyKey::of(&order());
    let asked = tokio::spawn(async move { holder.execute(order()).await });
    upstream.ledger().wait_for(1).await;
    let held = other.inspect(&key).await.unwrap().unwrap();
    let Error::Indeterminate { .. } = asked.await.unwrap().unwrap_err() else {
        panic!("the key is not indeterminate");
    };
    let open = other.inspect(&key).await.unwrap().unwrap();
    let RecordState::Locked {
        about, attempts, ..
    } = held
    else {
        panic!("{held:?}");
    };
    assert_eq!(attempts.count, 1);
    assert_eq!(about.action.as_ref().unwrap().as_str(), "custom_-_refund");
    assert_eq!(about.caller.own_key.as_deref(), Some("order 42"));
    assert_eq!(about.caller.scope.as_deref(), Some("eu"));
    assert_eq!(about.caller.label.as_deref(), Some("refund order 42"));
    let holder = about.holder.as_ref().unwrap();
    assert_eq!(holder.process, std::process::id());
    assert!(!holder.host.is_empty());
    match open {
        RecordState::Indeterminate {
            about: still,
            attempts: same,
            since,
            correlation_id,
            ..
        } => {
            assert_eq!((still, same), (about, attempts));
            assert_eq!(Some(since), attempts.sent);
            assert_eq!(correlation_id.as_deref(), Some("1b2c"));
        }
        state => panic!("{state:?}"),
    }
}

/// Red if the option of a joined caller does not count.
#[tokio::test(start_paused = true)]
async fn sensitive_record_omits_callers_names() {
    for joined in [false, true] {
        let upstream = ScriptedUpstream::new(|_| unknown().after(SECOND));
        let [holder, other] = engines(&upstream).await;
        let first = match joined {
            true => order(),
            false => order().sensitive(),
        };
        let asked = tokio::spawn({
            let holder = holder.clone();
            async move { holder.execute(first).await }
        });
        upstream.ledger().wait_for(1).await;
        let second = holder.execute(order().sensitive()).await;
        assert!(second.is_err() && asked.await.unwrap().is_err());
        let key = IdempotencyKey::of(&order());
        let state = other.inspect(&key).await.unwrap().unwrap();
        let RecordState::Indeterminate { about, .. } = state else {
            panic!("{state:?}");
        };
        assert_eq!(about.caller, Default::default());
        assert!(about.action.is_some() && about.holder.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn outcome_names_its_answer_and_resolver() {
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::RateLimited(SECOND),
        _ => Step::ok("{}"),
    });
    let [engine, _] = engines(&upstream).await;
    let key = engine.execute(order()).await.unwrap().key();
    let state = engine.inspect(&key).await.unwrap().unwrap();
    let RecordState::Cached { origin, .. } = state else {
        panic!("{state:?}");
    };
    assert_eq!(origin.attempts, 2);
    assert!(origin.answered.is_some() && origin.resolved.is_none());

    let upstream = ScriptedUpstream::new(|_| unknown());
    let [engine, _] = engines(&upstream).await;
    engine.execute(order()).await.unwrap_err();
    let state = engine.inspect(&key).await.unwrap().unwrap();
    let found = Outcome::new(StatusCode::OK, HeaderMap::new(), "found");
    let resolution = Resolution::applied(found).by("ticket 4711");
    engine.resolve(&key, &state, resolution).await.unwrap();
    let state = engine.inspect(&key).await.unwrap().unwrap();
    let shown = serde_json::to_value(&state).unwrap();
    assert_eq!(shown["resolved"]["by"], "ticket 4711");
    assert_eq!(shown["action"], "custom_-_refund");
    assert_eq!(
        (&shown["attempts"], &shown["answered_ms"]),
        (&1.into(), &serde_json::Value::Null)
    );
    let RecordState::Cached { origin, .. } = state else {
        panic!("{state:?}");
    };
    assert!(origin.resolved.unwrap().at > std::time::UNIX_EPOCH);
}
