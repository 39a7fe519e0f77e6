//! The watcher warns of each indeterminate key and recovers the record of a dead holder. The
//! list answers from the watcher's walk.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use genesys_once::error::StoreError;
use genesys_once::record::{Namespace, RecordName, RecordState};
use genesys_once::store::{BoxFuture, ListQuery, Page};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{Engine, Error, IdempotencyKey, MemoryStore, Resolution, Store};
use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Metadata, Subscriber};

use super::{SECOND, request, until};

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Keeps each warning.
#[derive(Clone, Default)]
pub(super) struct Warnings(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Warnings {
    pub fn listen(&self) -> DefaultGuard {
        crate::subscriber::listen(self.clone())
    }

    /// The warnings that contain this text.
    pub fn of(&self, said: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter()
            .filter(|text| text.contains(said))
            .cloned()
            .collect()
    }

    /// The number of warnings about an indeterminate key.
    pub fn count(&self) -> usize {
        self.of("a key is indeterminate").len()
    }
}

pub(super) async fn watching(upstream: &ScriptedUpstream, store: impl Store) -> Engine {
    let engine = Engine::builder(upstream.clone()).store(store);
    engine.watch_indeterminate(MINUTE).start().await.unwrap()
}

/// Red without the warning, if each walk repeats it, and if it leaves out what an operator
/// needs at night.
#[tokio::test(start_paused = true)]
async fn indeterminate_key_is_warned_of_once() {
    let warnings = Warnings::default();
    let _here = warnings.listen();
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let engine = watching(&upstream, MemoryStore::new()).await;
    let lost = request("{}").with_key("order 42").unwrap();
    let lost = lost.with_label("refund of order 42").unwrap();
    let key = IdempotencyKey::of(&lost);
    engine.execute(lost).await.unwrap_err();
    assert_eq!(warnings.count(), 0);
    sleep(MINUTE + SECOND).await;
    assert_eq!(warnings.count(), 1);
    let text = &warnings.of("a key is indeterminate")[0];
    let version = engine.inspect(&key).await.unwrap().unwrap().version();
    for needed in [
        &key.to_string(),
        "custom_-_refund",
        "refund of order 42",
        "order 42",
        "cause=",
        "GMT",
        "genesys-once resolve",
        &version.to_string(),
    ] {
        assert!(text.contains(needed), "{needed}: {text}");
    }
    sleep(10 * MINUTE).await;
    assert_eq!(warnings.count(), 1);
    // Another execution of the key is another incident.
    let not_applied = Resolution::not_applied();
    engine.resolve(&key, version, not_applied).await.unwrap();
    let again = request("{}").with_key("order 42").unwrap();
    engine.execute(again).await.unwrap_err();
    sleep(MINUTE + SECOND).await;
    assert_eq!(warnings.count(), 2);
}

/// Without any request for the key, the walk alone makes the record say what is known.
///
/// Red without `recover` in the walk.
#[tokio::test(start_paused = true)]
async fn walk_recovers_record_of_dead_holder() {
    let store = MemoryStore::new();
    let silent = ScriptedUpstream::new(|_| Step::Silent);
    let holder = Engine::builder(silent.clone()).store(store.clone());
    let holder = holder.start().await.unwrap();
    let asked = tokio::spawn({
        let holder = holder.clone();
        async move { holder.execute(request("{}")).await }
    });
    silent.ledger().wait_for(1).await;
    holder.actor().kill();
    asked.await.unwrap().unwrap_err();
    let other = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(other.clone())
        .store(store.clone())
        .namespace(holder.namespace().clone())
        .watch_indeterminate(MINUTE);
    let engine = engine.start().await.unwrap();
    let name = RecordName::new(
        holder.namespace().clone(),
        IdempotencyKey::of(&request("{}")),
    );
    let is_locked = matches!(
        store.look(&name).await.unwrap(),
        Some(RecordState::Locked { .. })
    );
    assert!(is_locked, "the dead root has finished no record");
    sleep(3 * MINUTE).await;
    let state = store.look(&name).await.unwrap();
    assert!(
        matches!(state, Some(RecordState::Indeterminate { .. })),
        "{state:?}"
    );
    assert_eq!(other.ledger().total(), 0);
    drop(engine);
}

/// A store whose list takes this long, and that counts the pages.
pub(super) struct Slow(pub MemoryStore, pub Arc<Mutex<usize>>, pub Duration);

impl Store for Slow {
    delegate!(0: apply, look);

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            *self.1.lock().unwrap() += 1;
            sleep(self.2).await;
            let query = query.clone().with_limit(1);
            self.0.list(namespace, &query).await
        })
    }
}

/// Red if `indeterminate` walks although there was a walk, and if it lists a resolved key.
#[tokio::test(start_paused = true)]
async fn list_answers_from_the_last_walk() {
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let pages = Arc::new(Mutex::new(0));
    let store = Slow(MemoryStore::new(), pages.clone(), SECOND);
    let engine = watching(&upstream, store).await;
    for payload in ["1", "2"] {
        engine.execute(request(payload)).await.unwrap_err();
    }
    sleep(MINUTE + 10 * SECOND).await;
    let walked = *pages.lock().unwrap();
    assert!(walked >= 3, "{walked}");
    let begun = Instant::now();
    let listed = engine.indeterminate(10).await.unwrap();
    assert_eq!((listed.keys.len(), listed.next), (2, None));
    assert_eq!((begun.elapsed(), listed.age), (Duration::ZERO, 10 * SECOND));
    assert_eq!(*pages.lock().unwrap(), walked);
    // Fewer keys than there are: only a walk of its own has a cursor.
    let one = engine.indeterminate(1).await.unwrap();
    assert_eq!((one.keys.len(), one.age), (1, Duration::ZERO));
    assert!(one.next.is_some());

    sleep(MINUTE).await;
    let (key, state) = &listed.keys[0];
    let resolution = Resolution::not_applied().despite_clocks();
    engine.resolve(key, state, resolution).await.unwrap();
    let listed = engine.indeterminate(10).await.unwrap();
    assert_eq!(listed.keys.len(), 1);
    assert_ne!(listed.keys[0].0, *key);
}

/// Seen red: the list ended with the callers' deadline.
///
/// Red with the engine's deadline around the walk.
#[tokio::test(start_paused = true)]
async fn walk_has_a_limit_of_its_own() {
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let pages = Arc::new(Mutex::new(0));
    let slow = Slow(MemoryStore::new(), pages, 8 * SECOND);
    let engine = Engine::builder(upstream).store(slow).deadline(SECOND);
    let engine = engine.start().await.unwrap();
    for payload in ["1", "2", "3", "4", "5", "6"] {
        engine.execute(request(payload)).await.unwrap_err();
    }
    // 30 s are enough for four pages; the cursor leads to the rest.
    let first = engine.indeterminate(10).await.unwrap();
    assert_eq!(first.keys.len(), 4);
    let rest = ListQuery::indeterminate().after(first.next.unwrap());
    let rest = engine.list(&rest).await.unwrap();
    assert_eq!(rest.records.len(), 1);
    assert!(first.keys.iter().all(|(key, _)| *key != rest.records[0].0));
}

/// Red if the watcher is not started again, or if the engine ends with it.
#[tokio::test(start_paused = true)]
async fn watcher_that_dies_is_started_again() {
    let warnings = Warnings::default();
    let _here = warnings.listen();
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let engine = watching(&upstream, MemoryStore::new()).await;
    sleep(SECOND).await;
    let watcher = super::child(&engine, 1);
    watcher.kill();
    until("the watcher is started again", || {
        let children = engine.actor().get_cell().get_children();
        children.len() == 1 && children[0].get_id() != watcher.get_id()
    })
    .await;
    engine.execute(request("{}")).await.unwrap_err();
    sleep(2 * MINUTE).await;
    assert_eq!(warnings.count(), 1);
    assert!(engine.shutdown(SECOND).await.is_clean());
}

/// A store that gives the turn to one engine in each period.
#[derive(Clone)]
struct Turns(FaultyStore, Arc<Mutex<Option<Instant>>>, Arc<Mutex<usize>>);

impl Store for Turns {
    delegate!(0: apply, look);

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        *self.2.lock().unwrap() += 1;
        self.0.list(namespace, query)
    }

    fn walk_turn<'a>(
        &'a self,
        _: &'a Namespace,
        period: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let mut taken = self.1.lock().unwrap();
        let is_free = taken.is_none_or(|until| until <= Instant::now());
        if is_free {
            *taken = Some(Instant::now() + period);
        }
        Box::pin(async move { Ok(is_free) })
    }
}

/// Red if each engine walks.
#[tokio::test(start_paused = true)]
async fn one_process_walks_in_each_period() {
    let store = FaultyStore::new(MemoryStore::new(), |_| Fault::Pass);
    let turns = Turns(store, Arc::default(), Arc::default());
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let mut engines = Vec::new();
    for _ in 0..5 {
        engines.push(watching(&upstream, turns.clone()).await);
    }
    sleep(10 * MINUTE + SECOND).await;
    let walks = *turns.2.lock().unwrap();
    assert!((10..=12).contains(&walks), "{walks}");
}

#[tokio::test]
async fn impossible_period_is_refused() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    for every in [Duration::ZERO, SECOND / 2, Duration::MAX] {
        let engine = Engine::builder(upstream.clone()).watch_indeterminate(every);
        match engine.start().await {
            Err(Error::InvalidConfig { setting, .. }) => {
                assert_eq!(setting, "watch_indeterminate");
            }
            other => panic!("{other:?}"),
        }
    }
}
