//! Counts of callers by their answers.

use std::time::Duration;

use genesys_once::telemetry::METRICS;
use genesys_once::testing::{ScriptedUpstream, Step, every_error};
use genesys_once::{EngineMessage, MemoryStore};

use super::{SECOND, ask, builder, exporter, request, until, value};

fn served(by: &str) -> String {
    format!("genesys_once_requests_total{{served=\"{by}\",recorded=\"true\"}}")
}

fn failed(code: &str) -> String {
    format!("genesys_once_errors_total{{code=\"{code}\"}}")
}

/// Red without the count of replies in `Shared::answered`, and, for callers by message, if
/// the root does not call `answered`.
#[tokio::test(start_paused = true)]
async fn replies_are_counted_by_source() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(SECOND));
    let store = MemoryStore::new();
    let engine = builder(&upstream)
        .store(store.clone())
        .start()
        .await
        .unwrap();
    let callers = [ask(&engine, "1"), ask(&engine, "1"), ask(&engine, "1")];
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    ask(&engine, "1").await.unwrap().unwrap();
    let another = builder(&upstream).store(store).start().await.unwrap();
    ask(&another, "1").await.unwrap().unwrap();
    let counted = ["upstream", "joined", "memory", "store"];
    assert_eq!(
        counted.map(|by| value(&recorder, &served(by))),
        [1.0, 2.0, 1.0, 1.0]
    );

    // The same for callers by message.
    for payload in ["1", "2"] {
        let actor = engine.actor();
        let reply = ractor::call_t!(actor, EngineMessage::Execute, 60_000, request(payload));
        reply.unwrap().unwrap();
    }
    assert_eq!(
        counted.map(|by| value(&recorder, &served(by))),
        [2.0, 2.0, 2.0, 1.0]
    );
}

/// Red without the count of errors in `Shared::answered`.
#[tokio::test(start_paused = true)]
async fn errors_are_counted_by_code() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|_| Step::Silent);
    let engine = builder(&upstream)
        .max_payload_bytes(10)
        .start()
        .await
        .unwrap();

    let large = request("\"more than ten bytes\"");
    engine.execute(large.clone()).await.unwrap_err();
    let reply = ractor::call_t!(engine.actor(), EngineMessage::Execute, 60_000, large);
    reply.unwrap().unwrap_err();
    assert_eq!(value(&recorder, &failed("invalid_request")), 2.0);

    engine
        .execute_within(request("1"), SECOND)
        .await
        .unwrap_err();
    assert_eq!(value(&recorder, &failed("deadline_exceeded")), 1.0);

    let caller = ask(&engine, "1");
    assert_eq!(caller.await.unwrap().unwrap_err().code(), "indeterminate");
    assert_eq!(value(&recorder, &failed("indeterminate")), 1.0);

    engine.shutdown(Duration::ZERO).await;
    engine.execute(request("1")).await.unwrap_err();
    assert_eq!(value(&recorder, &failed("stopped")), 1.0);
}

/// Red if the root's refusals of callers by message are not counted.
#[tokio::test(start_paused = true)]
async fn overloaded_callers_by_message_are_counted() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(SECOND));
    let engine = builder(&upstream).max_waiting(5).start().await.unwrap();
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let (answer, asked) = ractor::concurrency::oneshot();
            let message = EngineMessage::Execute(request("1"), answer.into());
            engine.actor().send_message(message).unwrap();
            asked
        })
        .collect();
    let mut answered = 0;
    for asked in asked {
        answered += usize::from(asked.await.unwrap().is_ok());
    }
    assert_eq!(answered, 4);
    let counted = || value(&recorder, &failed("overloaded"));
    until("all are counted", || counted() == 96.0).await;
}

/// An unlisted code would become a series that `start` does not introduce.
#[test]
fn every_code_is_listed() {
    let errors = METRICS
        .iter()
        .find(|metric| metric.labels.iter().any(|label| label.name == "code"))
        .unwrap();
    let mut codes: Vec<_> = every_error().iter().map(|error| error.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    let mut listed = errors.labels[0].values.to_vec();
    listed.sort_unstable();
    assert_eq!(listed, codes);
}
