//! Tracing subscribers are foreign code: which calls they get, that a subscriber which panics
//! does nothing to the engine, and a subscriber that calls the engine.

use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use futures_util::FutureExt as _;
use genesys_once::error::TokenError;
use genesys_once::testing::{
    Fault, FaultyStore, ScriptedTokens, ScriptedUpstream, Step, TokenStep,
};
use genesys_once::{DataActionRequest, Engine, EngineMessage, Error, MemoryStore, Reply};
use ractor::concurrency::oneshot;
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use super::{SECOND, child, request};

/// A call of a subscriber with a span or event of this crate.
#[derive(Clone, Copy)]
enum Notified<'a> {
    Span(&'static str),
    Record,
    Enter,
    Event(Level, &'a str),
}

/// Runs this function for each call by this crate.
struct Foreign<F>(F);

impl<F: Fn(Notified<'_>) + Send + Sync + 'static> Foreign<F> {
    fn listen(react: F) -> DefaultGuard {
        crate::subscriber::listen(Self(react))
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl<F: Fn(Notified<'_>) + Send + Sync + 'static> Subscriber for Foreign<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("genesys_once")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        (self.0)(Notified::Span(span.metadata().name()));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        (self.0)(Notified::Record);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {
        (self.0)(Notified::Record);
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        (self.0)(Notified::Event(*event.metadata().level(), &text.0));
    }

    fn enter(&self, _: &Id) {
        (self.0)(Notified::Enter);
    }

    fn exit(&self, _: &Id) {}
}

/// The answer to a caller by message.
async fn ask(engine: &Engine, request: DataActionRequest) -> Result<Reply, Error> {
    let (sender, answer) = oneshot();
    let message = EngineMessage::Execute(request, sender.into());
    engine.actor().send_message(message).unwrap();
    answer.await.expect("the port is answered")
}

/// Red if admission logs each time, and if it logs nothing.
#[tokio::test(start_paused = true)]
async fn unmatched_pointer_is_logged_once_per_action() {
    let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
    let _here = Foreign::listen({
        let warnings = warnings.clone();
        move |call| {
            if let Notified::Event(Level::WARN, text) = call {
                warnings.lock().unwrap().push(text.to_owned());
            }
        }
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream).start().await.unwrap();
    for n in 0..3 {
        for action in ["refund", "notify"] {
            let payload = format!(r#"{{"order":1,"timestamp":{n}}}"#);
            let request = DataActionRequest::new(action, payload).unwrap();
            let misspelled = request.ignoring(["/timestmp", "/timestamp"]).unwrap();
            engine.execute(misspelled).await.unwrap();
        }
    }
    let warnings = warnings.lock().unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, action) in warnings.iter().zip(["refund", "notify"]) {
        assert!(warning.contains(action) && warning.contains("/timestmp"));
    }
}

/// Red if each failed extension is logged, and if the first of an outage is not logged.
#[tokio::test(start_paused = true)]
async fn outage_is_logged_once_per_lease() {
    let warnings = Arc::new(AtomicUsize::new(0));
    let _here = Foreign::listen({
        let warnings = warnings.clone();
        move |call| {
            if matches!(call, Notified::Event(Level::WARN, text) if text.contains("could not extend a lease"))
            {
                warnings.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    // Extensions are due every ten seconds.
    let start = tokio::time::Instant::now();
    let store = FaultyStore::new(MemoryStore::new(), move |_| {
        match start.elapsed().as_secs() {
            9..17 | 26..34 => Fault::Fail,
            _ => Fault::Pass,
        }
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(40 * SECOND));
    let engine = Engine::builder(upstream)
        .store(store)
        .start()
        .await
        .unwrap();
    assert!(engine.execute(request("1")).await.unwrap().recorded());
    assert_eq!(warnings.load(Ordering::SeqCst), 2);
}

/// Red if the root runs a message's span: the panic ended the engine.
#[tokio::test(start_paused = true)]
async fn message_span_panic_is_contained() {
    type Once = Arc<Mutex<Option<fn(Notified<'_>) -> bool>>>;
    let panics = Once::default();
    let _here = Foreign::listen({
        let panics = panics.clone();
        move |call| {
            let due = panics.lock().unwrap().take_if(|due| due(call));
            assert!(due.is_none(), "the subscriber");
        }
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    for n in 0..3 {
        *panics.lock().unwrap() =
            Some(|call| matches!(call, Notified::Span("genesys_once.execute")));
        assert!(ask(&engine, request(&n.to_string())).await.is_ok());
        assert!(panics.lock().unwrap().is_none(), "the subscriber panicked");
    }
    // A span that cannot be entered ends its caller, which gets an error.
    *panics.lock().unwrap() = Some(|call| matches!(call, Notified::Enter));
    let ended = ask(&engine, request("[4]")).await;
    assert!(matches!(ended, Err(Error::Crashed { .. })), "{ended:?}");
    assert!(engine.execute(request("{}")).await.is_ok());
    assert_eq!(upstream.ledger().total(), 4);
}

/// All that an engine meets: 429s, unknown outcomes, tokens that do not come, deaths, an
/// outage of the store, callers by message; each with its spans and events.
async fn everything(after_start: impl FnOnce(&Engine)) {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1..=3 | 5 => TokenStep::Fail(TokenError::new("down")),
        _ => TokenStep::Issue(60 * SECOND),
    });
    let upstream = ScriptedUpstream::new(|call| match call.request().payload().as_ref() {
        b"[429]" if call.attempt() == 1 => Step::RateLimited(SECOND),
        b"[503]" => Step::status(503, "{}"),
        b"[60]" => Step::ok("{}").after(60 * SECOND),
        _ => Step::ok("{}"),
    })
    .with_tokens(tokens);
    let down = Arc::new(AtomicBool::new(false));
    let store = FaultyStore::new(MemoryStore::new(), {
        let down = down.clone();
        move |_| match down.load(Ordering::SeqCst) {
            true => Fault::Fail,
            false => Fault::Pass,
        }
    });
    let engine = Engine::builder(upstream.clone()).store(store);
    let engine = engine.start().await.unwrap();
    after_start(&engine);
    let no_token = engine.execute(request("[0]")).await;
    assert!(matches!(no_token, Err(Error::Token { .. })));
    sleep(60 * SECOND).await;
    assert!(engine.execute(request("[1]")).await.is_ok());
    assert!(ask(&engine, request("[1]")).await.is_ok());
    assert!(ask(&engine, request("[429]")).await.is_ok());
    let unknown = engine.execute(request("[503]")).await;
    assert!(matches!(unknown, Err(Error::Indeterminate { .. })));
    // Callers that join, and a store that fails during their wait.
    let slow = || request("[60]").ignoring(["/nothing"]).unwrap();
    let (first, joined) = (engine.clone(), engine.clone());
    let first = tokio::spawn(async move { first.execute(slow()).await });
    upstream.ledger().wait_for(5).await;
    let joined = tokio::spawn(async move { joined.execute(slow()).await });
    down.store(true, Ordering::SeqCst);
    sleep(30 * SECOND).await;
    let refused = engine.execute(request("[2]")).await;
    assert!(matches!(refused, Err(Error::StoreUnavailable { .. })));
    for caller in [first, joined] {
        assert!(!caller.await.unwrap().unwrap().recorded());
    }
    down.store(false, Ordering::SeqCst);
    sleep(60 * SECOND).await;
    assert!(
        engine
            .execute(request("[60]").ignoring(["/nothing"]).unwrap())
            .await
            .is_ok()
    );
    // The token actor; the flight actors stop while there are no flights.
    sleep(60 * SECOND).await;
    child(&engine, 1).kill();
    sleep(60 * SECOND).await;
    assert!(engine.execute(request("[3]")).await.is_ok());
    let stats = engine.stats();
    assert_eq!(
        (stats.executions, stats.waiting, stats.in_flight),
        (0, 0, 0)
    );
    assert!(engine.shutdown(SECOND).await.is_clean());
}

/// Red if one of these panics is not contained: it reached `start`, callers, executions
/// with a known answer, or the root.
#[tokio::test(start_paused = true)]
async fn panicking_subscriber_changes_no_answer() {
    let panics = Arc::new(AtomicUsize::new(0));
    let _here = Foreign::listen({
        let panics = panics.clone();
        move |call| {
            if !matches!(call, Notified::Enter) {
                panics.fetch_add(1, Ordering::SeqCst);
                // A panic without the panic hook's report.
                std::panic::resume_unwind(Box::new("the subscriber"));
            }
        }
    });
    everything(|_| ()).await;
    assert!(panics.load(Ordering::SeqCst) > 20);
}

/// Red if a subscriber is called under a lock of the engine: the subscriber's call into the
/// engine then never returns.
#[tokio::test(start_paused = true)]
async fn subscriber_may_call_the_engine() {
    let (engine, asking): (Arc<OnceLock<Engine>>, _) = (Arc::default(), AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let _here = Foreign::listen({
        let (engine, asked) = (engine.clone(), asked.clone());
        move |_| {
            // The subscriber's question calls the subscriber again.
            if let Some(engine) = engine.get()
                && !asking.swap(true, Ordering::SeqCst)
            {
                let _stats = engine.stats();
                let _answer = engine.execute(request("[1]")).now_or_never();
                asked.fetch_add(1, Ordering::SeqCst);
                asking.store(false, Ordering::SeqCst);
            }
        }
    });
    everything(|started| engine.set(started.clone()).unwrap()).await;
    assert!(asked.load(Ordering::SeqCst) > 20);
}
