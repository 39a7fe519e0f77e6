//! The spans as a subscriber sees them: names, fields and parents, and no secret in them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use genesys_once::error::SendError;
use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{Engine, EngineMessage, IdempotencyKey, MemoryStore, Outcome, Upstream};
use tracing::Instrument as _;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use super::{SECOND, ask, builder, request, until};

type Fields = BTreeMap<&'static str, String>;

/// A span of this crate.
#[derive(Clone, Debug, Default)]
struct SpanRecord {
    name: &'static str,
    parent: Option<&'static str>,
    follows: Option<&'static str>,
    fields: Fields,
    closed: bool,
}

/// The spans in the order in which they began, and the indexes of open ones.
type Collected = (Vec<SpanRecord>, HashMap<u64, usize>);

/// Collects every span of this crate.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Collected>>);

struct Text<'a>(&'a mut Fields);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Spans {
    fn listen(&self) -> DefaultGuard {
        crate::subscriber::listen(Registry::default().with(self.clone()))
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut SpanRecord)) {
        let mut spans = self.0.lock().unwrap();
        let (seen, places) = &mut *spans;
        if let Some(place) = places.get(&id.into_u64()) {
            change(&mut seen[*place]);
        }
    }

    fn name(&self, id: &Id) -> Option<&'static str> {
        let spans = self.0.lock().unwrap();
        Some(spans.0[*spans.1.get(&id.into_u64())?].name)
    }

    /// The closed spans of this name.
    fn over(&self, name: &str) -> Vec<SpanRecord> {
        let spans = self.0.lock().unwrap();
        let of_name = spans.0.iter().filter(|span| span.name == name);
        of_name.filter(|span| span.closed).cloned().collect()
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let name = attributes.metadata().name();
        if !name.starts_with("genesys_once.") {
            return;
        }
        assert_eq!(attributes.metadata().target(), "genesys_once");
        assert_eq!(*attributes.metadata().level(), tracing::Level::INFO);
        let parent = context
            .span(id)
            .and_then(|span| Some(span.parent()?.name()));
        let mut seen = SpanRecord {
            name,
            parent,
            ..SpanRecord::default()
        };
        attributes.record(&mut Text(&mut seen.fields));
        let mut spans = self.0.lock().unwrap();
        let place = spans.0.len();
        spans.1.insert(id.into_u64(), place);
        spans.0.push(seen);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |seen| record.record(&mut Text(&mut seen.fields)));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        let name = self.name(follows);
        self.change(id, |seen| seen.follows = name);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.change(&id, |seen| seen.closed = true);
        self.0.lock().unwrap().1.remove(&id.into_u64());
    }
}

/// The fields of a span, without the fields that all spans of one request share.
fn own(seen: &SpanRecord) -> Vec<(&str, &str)> {
    let shared = ["namespace", "key", "action_id"];
    let fields = seen.fields.iter();
    fields
        .filter(|(name, _)| !shared.contains(name))
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

/// A platform whose `send` has its own span, as an HTTP client might.
struct Traced(ScriptedUpstream);

impl Upstream for Traced {
    fn namespace(&self) -> Namespace {
        self.0.namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async move {
            let span = tracing::info_span!(target: "genesys_once", "genesys_once.test.send");
            self.0.send(call, token).instrument(span).await
        })
    }
}

/// Red if `send` does not run in its attempt's span.
#[tokio::test(start_paused = true)]
async fn upstream_span_is_a_child_of_its_attempt() {
    let spans = Spans::default();
    let _here = spans.listen();
    let upstream = Traced(ScriptedUpstream::new(|_| Step::ok("{}")));
    let engine = Engine::builder(upstream).start().await.unwrap();
    engine.execute(request("1")).await.unwrap();
    let sends = spans.over("genesys_once.test.send");
    assert_eq!(sends[0].parent, Some("genesys_once.attempt"));
}

/// Red if any of these fields is not recorded: each was omitted once.
#[tokio::test(start_paused = true)]
async fn spans_record_the_source_of_each_reply() {
    let spans = Spans::default();
    let _here = spans.listen();
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::RateLimited(SECOND),
        _ => Step::ok("{}")
            .header("ININ-Correlation-Id", "c-17")
            .after(SECOND),
    });
    let store = MemoryStore::new();
    let engine = builder(&upstream)
        .store(store.clone())
        .start()
        .await
        .unwrap();
    for caller in [ask(&engine, "1"), ask(&engine, "1")] {
        caller.await.unwrap().unwrap();
    }
    engine.execute(request("1")).await.unwrap();
    let another = builder(&upstream).store(store).start().await.unwrap();
    let actor = another.actor();
    let reply = ractor::call_t!(actor, EngineMessage::Execute, 60_000, request("1"));
    reply.unwrap().unwrap();
    until("all is finished", || {
        spans.over("genesys_once.flight").len() == 2
    })
    .await;

    let callers = spans.over("genesys_once.execute");
    let correlation = ("correlation_id", "c-17");
    let (made, last) = (("attempts", "2"), ("verdict", "final"));
    let none = ("attempts", "0");
    for (served, expected) in [
        (
            "upstream",
            vec![made, correlation, ("served", "upstream"), last],
        ),
        (
            "joined",
            vec![made, correlation, ("served", "joined"), last],
        ),
        ("memory", vec![none, correlation, ("served", "memory")]),
        ("store", vec![none, correlation, ("served", "store")]),
    ] {
        let of_kind = callers
            .iter()
            .filter(|span| span.fields["served"] == served);
        let [span] = of_kind.collect::<Vec<_>>()[..] else {
            panic!("{served}: {callers:?}");
        };
        assert_eq!(own(span), expected);
        let key = IdempotencyKey::of(&request("1")).to_string();
        assert_eq!(span.fields["key"], key[..12]);
        assert_eq!(span.fields["action_id"], "custom_-_refund");
        assert_eq!(span.fields["namespace"], super::NAMESPACE);
        let joined = (served == "joined").then_some("genesys_once.flight");
        assert_eq!((span.parent, span.follows), (None, joined));
    }

    let flights = spans.over("genesys_once.flight");
    assert_eq!(own(&flights[0]), [made, last]);
    assert_eq!(own(&flights[1]), [none]);
    assert_eq!(flights[0].parent, Some("genesys_once.execute"));

    let mut attempts = spans.over("genesys_once.attempt");
    // The correlation id of the script's 429.
    assert!(attempts[0].fields.remove("correlation_id").is_some());
    let kind = ("otel.kind", "client");
    let method = ("http.request.method", "POST");
    let refused = [
        ("attempt", "1"),
        ("error.type", "429"),
        method,
        ("http.response.status_code", "429"),
        kind,
        ("otel.status_code", "ERROR"),
        ("verdict", "not_executed"),
    ];
    assert_eq!(own(&attempts[0]), refused);
    let status = ("http.response.status_code", "200");
    let resent = ("http.request.resend_count", "1");
    let answered = [
        ("attempt", "2"),
        correlation,
        method,
        resent,
        status,
        kind,
        last,
    ];
    assert_eq!(own(&attempts[1]), answered);
    assert_eq!(attempts[0].parent, Some("genesys_once.flight"));
}

/// Red without the lines that record the error, in either span, and without
/// `close_flight_span` when the guard answers.
#[tokio::test(start_paused = true)]
async fn spans_record_errors_and_kills() {
    let spans = Spans::default();
    let _here = spans.listen();
    let upstream = ScriptedUpstream::new(|call| match &call.body()[..] {
        b"1" => Step::Reset,
        _ => Step::Silent,
    });
    let engine = builder(&upstream)
        .max_payload_bytes(10)
        .start()
        .await
        .unwrap();
    engine.execute(request("1")).await.unwrap_err();
    engine
        .execute(request("\"larger than that\""))
        .await
        .unwrap_err();
    let caller = ask(&engine, "2");
    upstream.ledger().wait_for(2).await;
    engine.actor().get_cell().get_children()[0].kill();
    caller.await.unwrap().unwrap_err();
    until("all is over", || {
        spans.over("genesys_once.flight").len() == 2
    })
    .await;

    let failed = |code, attempts| {
        let error = [("error.type", code), ("otel.status_code", "ERROR")];
        let mut fields = vec![("attempts", attempts)];
        fields.extend(error);
        if attempts != "0" {
            fields.push(("verdict", "unknown"));
        }
        fields
    };
    let callers = spans.over("genesys_once.execute");
    assert_eq!(own(&callers[0]), failed("indeterminate", "1"));
    assert_eq!(own(&callers[1]), failed("invalid_request", "0"));
    assert_eq!(own(&callers[2]), failed("crashed", "1"));
    let flights = spans.over("genesys_once.flight");
    assert_eq!(own(&flights[0]), failed("indeterminate", "1"));
    assert_eq!(own(&flights[1]), failed("crashed", "1"));
    let attempts = spans.over("genesys_once.attempt");
    let reset = [
        ("attempt", "1"),
        ("error.type", "no_answer"),
        ("http.request.method", "POST"),
        ("otel.kind", "client"),
        ("otel.status_code", "ERROR"),
        ("verdict", "unknown"),
    ];
    assert_eq!(own(&attempts[0]), reset);
}
