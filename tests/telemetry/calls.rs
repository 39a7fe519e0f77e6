//! Calls at the platform: their verdicts and durations, keys that become indeterminate, and
//! token renewals.

use genesys_once::MemoryStore;
use genesys_once::error::TokenError;
use genesys_once::record::Event;
use genesys_once::testing::{
    Fault, FaultyStore, ScriptedTokens, ScriptedUpstream, Step, TokenStep,
};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{SECOND, ask, builder, exporter, request, until, value};

const VERDICTS: [&str; 3] = ["final", "not_executed", "unknown"];

fn calls(recorder: &PrometheusRecorder) -> [f64; 3] {
    VERDICTS.map(|verdict| {
        let series = format!("genesys_once_upstream_calls_total{{verdict=\"{verdict}\"}}");
        value(recorder, &series)
    })
}

/// Red without either line of `ObservedCall`'s `Drop`, and without `ended`.
#[tokio::test(start_paused = true)]
async fn calls_are_counted_and_timed_by_verdict() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|call| match (&call.body()[..], call.attempt()) {
        (b"1", 1) => Step::RateLimited(SECOND).after(2 * SECOND),
        (b"1", _) => Step::ok("{}").after(3 * SECOND),
        _ => Step::Reset.after(5 * SECOND),
    });
    let engine = builder(&upstream).start().await.unwrap();
    engine.execute(request("1")).await.unwrap();
    engine.execute(request("2")).await.unwrap_err();
    assert_eq!(calls(&recorder), [1.0, 1.0, 1.0]);
    let seconds = VERDICTS.map(|verdict| {
        let name = "genesys_once_upstream_call_duration_seconds_sum";
        value(&recorder, &format!("{name}{{verdict=\"{verdict}\"}}"))
    });
    assert_eq!(seconds, [3.0, 2.0, 5.0]);
}

/// Red if a call is counted at its verdict instead of in `Drop`.
#[tokio::test(start_paused = true)]
async fn killed_call_is_unknown() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|_| Step::Silent);
    let engine = builder(&upstream).start().await.unwrap();
    let caller = ask(&engine, "1");
    upstream.ledger().wait_for(1).await;
    engine.actor().get_cell().get_children()[0].kill();
    caller.await.unwrap().unwrap_err();
    until("the call is counted", || {
        calls(&recorder) == [0.0, 0.0, 1.0]
    })
    .await;
}

/// Red without `telemetry::indeterminate` in `Progress::finish`; for the last key, red
/// without it in `take_over`.
#[tokio::test(start_paused = true)]
async fn keys_that_become_indeterminate_are_counted_once() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let count = || value(&recorder, "genesys_once_indeterminate_total");
    let upstream = ScriptedUpstream::new(|call| match &call.body()[..] {
        b"0" => Step::status(403, "{}"),
        b"1" => Step::Reset,
        _ => Step::Silent,
    });
    let builder = builder(&upstream).store(MemoryStore::new());
    let engine = builder.clone().start().await.unwrap();
    // A released key does not count.
    assert_eq!(engine.execute(request("0")).await.unwrap().status(), 403);
    assert_eq!(count(), 0.0);
    // Its own execution makes this key indeterminate; another request gets the error, and
    // changes nothing.
    for _ in 0..2 {
        engine.execute(request("1")).await.unwrap_err();
        assert_eq!(count(), 1.0);
    }
    // The supervisor of a killed execution makes this key indeterminate.
    let caller = ask(&engine, "2");
    upstream.ledger().wait_for(3).await;
    engine.actor().get_cell().get_children()[0].kill();
    caller.await.unwrap().unwrap_err();
    until("the record is finished", || count() == 2.0).await;
    // The process that finds a lost holder's expired lease makes this key indeterminate.
    let caller = ask(&engine, "3");
    upstream.ledger().wait_for(4).await;
    engine.actor().get_cell().kill();
    caller.await.unwrap().unwrap_err();
    let next = builder.start().await.unwrap();
    for _ in 0..2 {
        next.execute(request("3")).await.unwrap_err();
        assert_eq!(count(), 3.0);
    }
}

/// Two processes find the same expired lease, and one of them makes its key indeterminate.
/// Red if the other process counts the key as well.
#[tokio::test(start_paused = true)]
async fn expired_lease_is_counted_by_one_process() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|_| Step::Silent);
    let store = FaultyStore::new(MemoryStore::new(), |operation| match operation.event {
        // No take-over is applied before both are sent.
        Some(Event::TakeOver { .. }) => Fault::After(SECOND, Box::new(Fault::Pass)),
        _ => Fault::Pass,
    });
    let builder = builder(&upstream).store(store);
    let engine = builder.clone().start().await.unwrap();
    let caller = ask(&engine, "1");
    upstream.ledger().wait_for(1).await;
    engine.actor().get_cell().kill();
    caller.await.unwrap().unwrap_err();
    tokio::time::advance(31 * SECOND).await;
    let (one, two) = (builder.clone().start().await, builder.start().await);
    let callers = [ask(&one.unwrap(), "1"), ask(&two.unwrap(), "1")];
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap_err().code(), "indeterminate");
    }
    assert_eq!(value(&recorder, "genesys_once_indeterminate_total"), 1.0);
}

/// Red without `telemetry::token_renewal` in `State::fetch`.
#[tokio::test(start_paused = true)]
async fn token_renewals_are_counted_by_result() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let tokens = ScriptedTokens::new(|number| match number {
        1 => TokenStep::Fail(TokenError::new("down")),
        _ => TokenStep::Issue(3600 * SECOND),
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens);
    let engine = builder(&upstream).start().await.unwrap();
    engine.execute(request("1")).await.unwrap();
    let results = ["ok", "error"].map(|result| {
        let name = "genesys_once_token_renewals_total";
        value(&recorder, &format!("{name}{{result=\"{result}\"}}"))
    });
    assert_eq!(results, [1.0, 1.0]);
}
