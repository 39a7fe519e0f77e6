//! Metrics and logs for the embedding service: calls by status and action, unrecorded
//! replies, refusals, and their log events.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use genesys_once::record::Event;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, IdempotencyKey, MemoryStore};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;

use super::{SECOND, builder, exporter, request, until, value};

/// Keeps the events of one target and level.
#[derive(Clone)]
struct Events(&'static str, Level, Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == self.0 && *metadata.level() == self.1 {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.2.lock().unwrap().push(text.0);
        }
    }
}

fn action(id: &str, payload: &str) -> DataActionRequest {
    DataActionRequest::new(id, payload).unwrap()
}

/// Red if a status is counted in another class, or if an action is missing.
#[tokio::test(start_paused = true)]
async fn calls_are_counted_by_status_and_action() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|call| match (&call.body()[..], call.attempt()) {
        (b"1", 1) => Step::RateLimited(SECOND),
        (b"2", _) => Step::status(404, "{}"),
        (b"3", _) => Step::status(500, "{}"),
        (b"4", _) => Step::Reset,
        _ => Step::ok("{}"),
    });
    let engine = builder(&upstream).start().await.unwrap();
    for payload in ["1", "2", "3", "4"] {
        let _ = engine.execute(action("business_1", payload)).await;
    }
    let count = |status, action: &str| {
        let name = "genesys_once_upstream_responses_total";
        value(
            &recorder,
            &format!("{name}{{status=\"{status}\",action=\"{action}\"}}"),
        )
    };
    for status in ["2xx", "429", "4xx", "5xx", "none"] {
        assert!(count(status, "business_1") >= 1.0, "{status}");
    }
    assert_eq!(count("429", "business_1"), 1.0);
    assert_eq!(count("2xx", "business_1"), 1.0);
    assert_eq!(count("2xx", "business_2"), 0.0);
}

/// Red if a reply that the store did not record counts as recorded, and if a refusal is not
/// counted.
#[tokio::test(start_paused = true)]
async fn unrecorded_replies_and_refusals_are_counted() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|call| match &call.body()[..] {
        b"1" => Step::status(403, "{}"),
        _ => Step::ok("{}"),
    });
    let full = FaultyStore::new(MemoryStore::new(), |operation| match operation.event {
        Some(Event::Complete { .. }) => Fault::Silent,
        _ => Fault::Pass,
    });
    let engine = builder(&upstream).store(full).start().await.unwrap();
    let unrecorded = || {
        let series = "genesys_once_requests_total{served=\"upstream\",recorded=\"false\"}";
        value(&recorder, series)
    };
    let refused = || {
        let series = "genesys_once_refusals_total{action=\"business_3\"}";
        value(&recorder, series)
    };
    let reply = engine.execute(action("business_3", "1")).await.unwrap();
    assert_eq!(
        (reply.recorded(), unrecorded(), refused()),
        (false, 1.0, 1.0)
    );
    let reply = engine.execute(action("business_3", "2")).await.unwrap();
    assert_eq!(
        (reply.recorded(), unrecorded(), refused()),
        (false, 2.0, 1.0)
    );
}

/// Red without the warning, without its limit of one a minute, and without action or
/// correlation id.
#[tokio::test(start_paused = true)]
async fn refused_access_warns_once_a_minute() {
    let warnings = Events("genesys_once", Level::WARN, Arc::default());
    let subscriber = Registry::default().with(warnings.clone());
    let _here = crate::subscriber::listen(subscriber);
    let upstream = ScriptedUpstream::new(|call| {
        let status = if &call.body()[..] == b"1" { 401 } else { 403 };
        Step::status(status, "{}").header("ININ-Correlation-Id", "c-4711")
    });
    let engine = builder(&upstream).start().await.unwrap();
    for _ in 0..3 {
        for payload in ["1", "2", "3"] {
            let _ = engine.execute(action("business_4", payload)).await;
        }
    }
    let count = || {
        let texts = warnings.2.lock().unwrap();
        let of_access = |text: &&String| text.contains("refuses access");
        texts.iter().filter(of_access).cloned().collect::<Vec<_>>()
    };
    assert_eq!(count().len(), 1, "{:?}", count());
    for needed in ["business_4", "c-4711", "401"] {
        assert!(count()[0].contains(needed), "{needed}: {:?}", count());
    }
    tokio::time::sleep(61 * SECOND).await;
    let _ = engine.execute(action("business_4", "4")).await;
    assert_eq!(count().len(), 2);
}

/// An action that the remote system refused was executed: a role of the client would change
/// nothing.
///
/// Red if an outcome of `Attempt::Executed` is logged as well: the relayed 403 was logged.
#[tokio::test(start_paused = true)]
async fn relayed_refusal_logs_no_warning() {
    let warnings = Events("genesys_once", Level::WARN, Arc::default());
    let subscriber = Registry::default().with(warnings.clone());
    let _here = crate::subscriber::listen(subscriber);
    let relayed = r#"{"details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#;
    let upstream = ScriptedUpstream::new(move |call| match &call.body()[..] {
        b"1" => Step::status(403, relayed),
        _ => Step::status(403, "{}"),
    });
    let engine = builder(&upstream).start().await.unwrap();
    let warned = || {
        let texts = warnings.2.lock().unwrap();
        let of_access = |text: &&String| text.contains("refuses access");
        texts.iter().filter(of_access).count()
    };
    for (payload, expected) in [("1", 0), ("2", 1)] {
        let reply = engine.execute(action("business_5", payload)).await.unwrap();
        assert_eq!((reply.status().as_u16(), warned()), (403, expected));
    }
}

/// Red without the event, and if it contains a sensitive label.
#[tokio::test(start_paused = true)]
async fn each_execution_is_audited() {
    let audit = Events("genesys_once::audit", Level::INFO, Arc::default());
    let subscriber = Registry::default().with(audit.clone());
    let _here = crate::subscriber::listen(subscriber);
    let upstream = ScriptedUpstream::new(|call| match &call.body()[..] {
        b"2" => Step::Reset,
        _ => Step::ok("{}").after(SECOND),
    });
    let engine = builder(&upstream).start().await.unwrap();
    let labelled = |payload| request(payload).with_label("refund 42").unwrap();
    let audited = || audit.2.lock().unwrap().clone();
    engine.execute(labelled("1")).await.unwrap();
    // Answered from memory: no execution.
    engine.execute(labelled("1")).await.unwrap();
    until("the execution is audited", || audited().len() == 1).await;
    let key = IdempotencyKey::of(&request("1")).to_string();
    let served = "served=\"upstream\"";
    for needed in [
        &*key,
        "custom_-_refund",
        "refund 42",
        served,
        "status=200",
        "attempts=1",
        "duration_ms=1000",
    ] {
        assert!(audited()[0].contains(needed), "{needed}: {:?}", audited());
    }
    engine.execute(labelled("2")).await.unwrap_err();
    engine.execute(labelled("3").sensitive()).await.unwrap();
    until("all are audited", || audited().len() == 3).await;
    assert!(audited()[1].contains("code=\"indeterminate\""));
    assert!(!audited()[2].contains("refund 42"), "{:?}", audited());
}
