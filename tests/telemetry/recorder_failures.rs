//! Recorders are foreign code: a panic of a recorder has no effect, and a recorder that calls
//! the engine gets its answer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step};
use genesys_once::{Engine, Served};
use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use super::{SECOND, ask, builder, request};

/// Runs this function in every call.
struct Foreign<F>(Arc<F>);

impl<F: Fn() + Send + Sync + 'static> GaugeFn for Foreign<F> {
    fn increment(&self, _: f64) {
        (self.0)();
    }

    fn decrement(&self, _: f64) {
        (self.0)();
    }

    fn set(&self, _: f64) {}
}

impl<F: Fn() + Send + Sync + 'static> Recorder for Foreign<F> {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        (self.0)();
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        (self.0)();
    }

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        (self.0)();
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        (self.0)();
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        // The gauge's handle runs the function again when the gauge falls.
        Gauge::from_arc(Arc::new(Self(self.0.clone())))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        (self.0)();
        Histogram::noop()
    }
}

/// Red if the panic of a recorder is not contained: `start` and the callers panicked, and
/// executions crashed after the platform's answer.
#[tokio::test(start_paused = true)]
async fn panic_of_a_recorder_has_no_effect() {
    let panics = Arc::new(AtomicUsize::new(0));
    let count = panics.clone();
    let recorder = Foreign(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("the recorder"));
    }));
    let _here = metrics::set_default_local_recorder(&recorder);
    let tokens = ScriptedTokens::lasting(3600 * SECOND);
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::RateLimited(SECOND),
        _ => Step::ok("{}"),
    })
    .with_tokens(tokens);
    let engine = builder(&upstream).start().await.unwrap();
    for served in [Served::Upstream, Served::Memory] {
        let reply = ask(&engine, "1").await.unwrap().unwrap();
        assert_eq!((reply.served(), reply.recorded()), (served, true));
    }
    let stats = engine.stats();
    assert_eq!(
        (stats.executions, stats.waiting, stats.in_flight),
        (0, 0, 0)
    );
    assert!(panics.load(Ordering::SeqCst) > 10);
    assert!(engine.shutdown(SECOND).await.is_clean());
}

/// Red if a recorder is called under a lock of the engine: the recorder's call then
/// deadlocks.
#[tokio::test(start_paused = true)]
async fn recorder_gets_an_answer_from_the_engine() {
    let (engine, asking): (Arc<OnceLock<Engine>>, _) = (Arc::default(), AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let recorder = Foreign(Arc::new({
        let (engine, asked) = (engine.clone(), asked.clone());
        move || {
            // The recorder's call makes the engine call the recorder again.
            if let Some(engine) = engine.get()
                && !asking.swap(true, Ordering::SeqCst)
            {
                let _stats = engine.stats();
                let _answer = engine.execute(request("1")).now_or_never();
                asked.fetch_add(1, Ordering::SeqCst);
                asking.store(false, Ordering::SeqCst);
            }
        }
    }));
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(SECOND));
    let builder = builder(&upstream).recent(0, SECOND);
    engine.set(builder.start().await.unwrap()).unwrap();
    let engine = engine.get().unwrap();
    for _ in 0..3 {
        let callers = [ask(engine, "1"), ask(engine, "1"), ask(engine, "2")];
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
    }
    assert!(asked.load(Ordering::SeqCst) > 10);
    assert_eq!(upstream.ledger().total(), 2);
    assert!(engine.shutdown(SECOND).await.is_clean());
}
