//! The store: the duration of its commands, their failures, the breaker's gauge, and lost
//! leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use genesys_once::error::StoreError;
use genesys_once::record::{Answer, Event, Phase, RecordName, RecordState};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{MemoryStore, Store};

use super::{SECOND, builder, exporter, request, value};

fn seconds(part: &str, command: &str) -> String {
    format!("genesys_once_store_command_duration_seconds_{part}{{command=\"{command}\"}}")
}

/// Red without `telemetry::store_command` in `BreakerStore::within`.
#[tokio::test(start_paused = true)]
async fn commands_are_timed_by_name() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let store = FaultyStore::new(MemoryStore::new(), |operation| match operation.event {
        Some(Event::Complete { .. }) => Fault::Late(SECOND / 2),
        None => Fault::Late(SECOND),
        _ => Fault::Pass,
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(25 * SECOND));
    let engine = builder(&upstream).store(store).start().await.unwrap();
    let reply = engine.execute(request("1")).await.unwrap();
    engine.inspect(&reply.key()).await.unwrap();
    assert_eq!(
        engine.forget(&reply.key()).await.unwrap(),
        genesys_once::engine::Forgotten::Outcome
    );
    for (command, count, sum) in [
        ("acquire", 1.0, 0.0),
        ("extend", 2.0, 0.0),
        ("complete", 1.0, 0.5),
        // The look of the inspection, and the look of `forget`.
        ("look", 2.0, 2.0),
        ("forget", 1.0, 0.0),
        ("release", 0.0, 0.0),
    ] {
        assert_eq!(
            value(&recorder, &seconds("count", command)),
            count,
            "{command}"
        );
        assert_eq!(value(&recorder, &seconds("sum", command)), sum, "{command}");
    }
}

/// Red without `store_command`'s count, without `store_stopped`, without `breaker_open`,
/// and if the gauge stays up after the store answers again.
#[tokio::test(start_paused = true)]
async fn failures_are_counted_and_open_the_breaker() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let store = FaultyStore::new(MemoryStore::new(), move |_| {
        match is_down.load(Ordering::SeqCst) {
            true => Fault::Silent,
            false => Fault::Pass,
        }
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = builder(&upstream)
        .store(store.clone())
        .start()
        .await
        .unwrap();
    let failures = || {
        value(
            &recorder,
            "genesys_once_store_failures_total{command=\"look\"}",
        )
    };
    let open = || value(&recorder, "genesys_once_store_breaker_open");
    let key = genesys_once::IdempotencyKey::of(&request("1"));
    for made in 1..=3 {
        assert_eq!(open(), 0.0);
        engine.inspect(&key).await.unwrap_err();
        assert_eq!(failures(), f64::from(made));
    }
    // Time-outs are timed as well: 2 s each.
    assert_eq!(value(&recorder, &seconds("sum", "look")), 6.0);
    assert_eq!(open(), 1.0);
    engine.inspect(&key).await.unwrap_err();
    assert_eq!((failures(), store.commands()), (4.0, 3));
    assert_eq!(value(&recorder, &seconds("count", "look")), 3.0);

    down.store(false, Ordering::SeqCst);
    tokio::time::advance(SECOND).await;
    engine.inspect(&key).await.unwrap();
    assert_eq!((failures(), open()), (4.0, 0.0));
}

/// The gauge falls with an engine that ends while its breaker is open.
#[tokio::test(start_paused = true)]
async fn breaker_gauge_falls_with_its_engine() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let store = FaultyStore::new(MemoryStore::new(), |_| Fault::Silent);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = builder(&upstream).store(store).start().await.unwrap();
    let open = || value(&recorder, "genesys_once_store_breaker_open");
    let key = genesys_once::IdempotencyKey::of(&request("1"));
    for _ in 0..3 {
        engine.inspect(&key).await.unwrap_err();
    }
    assert_eq!(open(), 1.0);
    let root = engine.actor().get_cell();
    drop(engine);
    root.wait(None).await.unwrap();
    drop(root);
    super::until("the engine is gone", || open() == 0.0).await;
}

/// A store that answers the chosen events as if another holder had the record.
struct Stolen {
    store: MemoryStore,
    when: fn(&Event) -> bool,
}

impl Store for Stolen {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        if (self.when)(&event) {
            return Box::pin(async { Ok(Answer::NotHolder) });
        }
        self.store.apply(name, event)
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        self.store.look(name)
    }
}

/// The number of leases lost in an execution of which the chosen events are answered as if
/// another holder had its record.
async fn lost(step: fn(u32) -> Step, when: fn(&Event) -> bool) -> f64 {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let store = Stolen {
        store: MemoryStore::new(),
        when,
    };
    let upstream = ScriptedUpstream::new(move |call| step(call.attempt()));
    let engine = builder(&upstream).store(store).start().await.unwrap();
    let _ = engine.execute_within(request("1"), 100 * SECOND).await;
    engine.shutdown(SECOND).await;
    value(&recorder, "genesys_once_leases_lost_total")
}

/// Each case is red without its call of `telemetry::lease_lost`: in the heartbeat, in
/// `cache`, in `renew` and in `Progress::finish`. The first, whose loss is detected twice,
/// is also red without `lose_lease`.
#[tokio::test(start_paused = true)]
async fn lost_lease_is_counted_once() {
    let slow = |_| Step::ok("{}").after(25 * SECOND);
    assert_eq!(
        lost(slow, |event| matches!(event, Event::Extend { .. })).await,
        1.0
    );
    assert_eq!(
        lost(slow, |event| matches!(event, Event::Complete { .. })).await,
        1.0
    );
    let limited = |attempt| match attempt {
        1 => Step::RateLimited(SECOND),
        _ => Step::ok("{}"),
    };
    let dispatch = |event: &Event| {
        let Event::Enter { phase, step, .. } = event else {
            return false;
        };
        *phase == Phase::Dispatched && *step == 2
    };
    assert_eq!(lost(limited, dispatch).await, 1.0);
    let reset = |_| Step::Reset;
    assert_eq!(
        lost(reset, |event| matches!(event, Event::Abandon { .. })).await,
        1.0
    );
    // A completed or released lease is not lost.
    assert_eq!(lost(slow, |_| false).await, 0.0);
    assert_eq!(lost(limited, |_| false).await, 0.0);
}
