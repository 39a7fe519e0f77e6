//! Gauges: correct while their items exist, and correct again after every kind of end.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use genesys_once::record::{Attempts, Claim, Event, LeaseId, RecordName};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{Engine, IdempotencyKey, MemoryStore, Store as _};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{SECOND, ask, builder, exporter, request, until, value};

/// Waiting, executions, in flight.
fn now(recorder: &PrometheusRecorder) -> [f64; 3] {
    [
        "genesys_once_callers_waiting",
        "genesys_once_executions",
        "genesys_once_calls_in_flight",
    ]
    .map(|name| value(recorder, name))
}

fn slow() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok("{}").after(10 * SECOND))
}

/// Red without `Meters::waiting` in a waiter, `execution` in a guard or `in_flight` beside
/// a permit.
#[tokio::test(start_paused = true)]
async fn gauges_rise_and_fall_with_what_they_count() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = slow();
    let engine = builder(&upstream).max_in_flight(1).start().await.unwrap();
    let callers = [ask(&engine, "1"), ask(&engine, "1"), ask(&engine, "2")];
    upstream.ledger().wait_for(1).await;
    until("all are admitted", || engine.stats().waiting == 3).await;
    assert_eq!(now(&recorder), [3.0, 2.0, 1.0]);
    let stats = engine.stats();
    assert_eq!(
        (stats.waiting, stats.executions, stats.in_flight),
        (3, 2, 1)
    );

    // A caller that gives up no longer waits; its execution continues.
    callers[1].abort();
    until("the caller is gone", || engine.stats().waiting == 2).await;
    assert_eq!(now(&recorder), [2.0, 2.0, 1.0]);
    let [first, _, second] = callers;
    first.await.unwrap().unwrap();
    upstream.ledger().wait_for(2).await;
    until("the first is finished", || engine.stats().executions == 1).await;
    assert_eq!(now(&recorder), [1.0; 3]);
    second.await.unwrap().unwrap();
    until("all is finished", || engine.stats().executions == 0).await;
    assert_eq!(now(&recorder), [0.0; 3]);
}

/// Red without `Meters::waiting` in a follower, whose flight does not know the fingerprint
/// in the store yet.
#[tokio::test(start_paused = true)]
async fn follower_of_another_request_is_counted() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let store = FaultyStore::new(MemoryStore::new(), |_| Fault::Late(SECOND));
    let engine = builder(&slow()).store(store).start().await.unwrap();
    let callers = ["1", "2"].map(|payload| {
        let request = request(payload).with_key("order-42").unwrap();
        let engine = engine.clone();
        tokio::spawn(async move { engine.execute(request).await })
    });
    until("both are admitted", || engine.stats().waiting == 2).await;
    assert_eq!(now(&recorder)[..2], [2.0, 1.0]);
    let [first, second] = callers;
    assert_eq!(
        second.await.unwrap().unwrap_err().code(),
        "payload_mismatch"
    );
    assert_eq!(now(&recorder)[0], 1.0);
    first.await.unwrap().unwrap();
    assert_eq!(now(&recorder)[0], 0.0);
}

/// Red if a gauge does not fall in the `Drop` of the item that raised it.
#[tokio::test(start_paused = true)]
async fn gauges_fall_after_a_kill() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    for root in [false, true] {
        let upstream = slow();
        let engine = builder(&upstream).start().await.unwrap();
        let callers = [ask(&engine, "1"), ask(&engine, "1")];
        upstream.ledger().wait_for(1).await;
        until("both are admitted", || engine.stats().waiting == 2).await;
        assert_eq!(now(&recorder), [2.0, 1.0, 1.0]);
        match root {
            true => engine.actor().get_cell().kill(),
            false => engine.actor().get_cell().get_children()[0].kill(),
        }
        for caller in callers {
            caller.await.unwrap().unwrap_err();
        }
        until("nothing is left", || now(&recorder) == [0.0; 3]).await;
    }
}

/// An item that is older than the recorder does not lower its gauges.
#[tokio::test(start_paused = true)]
async fn late_recorder_never_sees_negative_gauges() {
    let recorder = exporter();
    let upstream = slow();
    let engine = builder(&upstream).start().await.unwrap();
    let early = ask(&engine, "1");
    upstream.ledger().wait_for(1).await;
    let _here = metrics::set_default_local_recorder(&recorder);
    let late = ask(&engine, "2");
    upstream.ledger().wait_for(2).await;
    assert_eq!(now(&recorder), [1.0; 3]);
    early.await.unwrap().unwrap();
    late.await.unwrap().unwrap();
    until("all is finished", || engine.stats().executions == 0).await;
    assert_eq!(now(&recorder), [0.0; 3]);
    // The recorder counts later items.
    engine.execute(request("1")).await.unwrap();
    assert_eq!(
        value(
            &recorder,
            "genesys_once_requests_total{served=\"memory\",recorded=\"true\"}"
        ),
        1.0
    );
}

/// Sends a request for the same key whenever a gauge is registered.
struct Asking(RefCell<Option<Engine>>);

impl metrics::Recorder for Asking {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        if let Some(engine) = self.0.take() {
            // The request waits, and is dropped.
            assert!(engine.execute(request("1")).now_or_never().is_none());
            self.0.replace(Some(engine));
        }
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// A recorder is foreign code. Red (the test hangs) if a gauge rises under the table's
/// lock.
#[test]
fn recorder_may_call_the_engine() {
    let (reported, ends) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let engine = builder(&slow()).start().await.unwrap();
            let asking = Asking(RefCell::new(Some(engine.clone())));
            let _here = metrics::set_default_local_recorder(&asking);
            let callers = [ask(&engine, "1"), ask(&engine, "1")];
            for caller in callers {
                caller.await.unwrap().unwrap();
            }
        });
        reported.send(()).unwrap();
    });
    ends.recv_timeout(Duration::from_secs(60))
        .expect("the recorder's call hangs");
}

/// Red if a walk ends at the record that cannot be recovered: no key was counted.
#[tokio::test(start_paused = true)]
async fn watcher_counts_despite_an_unrecoverable_record() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let tried = Arc::new(AtomicUsize::new(0));
    let store = FaultyStore::new(MemoryStore::new(), {
        let tried = tried.clone();
        move |operation| match operation.event {
            Some(Event::TakeOver { .. }) => {
                tried.fetch_add(1, Ordering::SeqCst);
                Fault::Refuse
            }
            _ => Fault::Pass,
        }
    });
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let engine = builder(&upstream).store(store.clone());
    let engine = engine.watch_indeterminate(60 * SECOND);
    let engine = engine.start().await.unwrap();
    for payload in ["1", "2", "3"] {
        ask(&engine, payload).await.unwrap().unwrap_err();
    }
    // The holder of this record is lost, with its request under way.
    let left = request("4");
    let claim = Claim {
        lease: LeaseId::random(),
        fingerprint: left.fingerprint(""),
        lease_ttl: SECOND,
        retention: 3600 * SECOND,
        attempts: Attempts::default(),
        about: Default::default(),
    };
    let name = RecordName::new(engine.namespace().clone(), IdempotencyKey::of(&left));
    store.apply(&name, Event::Acquire { claim }).await.unwrap();
    tokio::time::sleep(61 * SECOND).await;
    assert!(tried.load(Ordering::SeqCst) > 0);
    let counted = value(&recorder, "genesys_once_indeterminate_keys");
    assert_eq!(counted, 3.0);
}
