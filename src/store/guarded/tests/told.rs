//! Subscribers and recorders, which are foreign code, are told of an outage with no
//! lock held.

use std::sync::OnceLock;

use super::*;

/// A subscriber and a recorder that ask for the state of the store, as
/// `Engine::stats` does.
struct Curious(Arc<OnceLock<Arc<Guarded>>>, AtomicUsize);

impl Curious {
    fn ask(&self) {
        if let Some(guarded) = self.0.get() {
            let _ = guarded.is_up();
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl tracing::Subscriber for Curious {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.ask();
    }
}

#[cfg(feature = "metrics")]
mod recorder {
    use metrics::{
        Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;

    pub(super) struct Asks(pub(super) Arc<Curious>);

    impl GaugeFn for Curious {
        fn increment(&self, _: f64) {
            self.ask();
        }
        fn decrement(&self, _: f64) {
            self.ask();
        }
        fn set(&self, _: f64) {
            self.ask();
        }
    }

    impl Recorder for Asks {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            self.0.ask();
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.0.clone())
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            self.0.ask();
            Histogram::noop()
        }
    }
}

/// Seen red: events and gauges were told under the lock of the breakers, and
/// the thread never came back.
#[test]
fn subscriber_and_recorder_may_ask_for_the_state() {
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let asked = Arc::new(OnceLock::new());
        let subscriber = Curious(asked.clone(), AtomicUsize::new(0));
        let subscriber = Arc::new(subscriber);
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                let (store, guarded) = guarded(Does::Fail);
                assert!(asked.set(guarded.clone()).is_ok());
                open(&guarded).await;
                store.set(Does::Answer);
                advance(5 * SECOND).await;
                guarded.look(&name()).await.unwrap();
                assert!(guarded.is_up());
            });
        };
        tracing::subscriber::with_default(subscriber.clone(), || {
            #[cfg(feature = "metrics")]
            metrics::with_local_recorder(&recorder::Asks(subscriber.clone()), run);
            #[cfg(not(feature = "metrics"))]
            run();
        });
        let _ = sender.send(subscriber.1.load(Ordering::SeqCst));
    });
    let asked = done.recv_timeout(Duration::from_secs(60));
    let asked = asked.expect("a deadlock, or a panic above");
    assert!(asked >= 2, "told of the outage and of its end: {asked}");
}
