//! The store that all engines of a run share, and each engine's way to it, on which commands
//! and replies are lost as the schedule says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use genesys_once::error::StoreError;
use genesys_once::record::{self, Answer, Event, Namespace, Record, RecordName, RecordState};
use genesys_once::store::{BoxFuture, ListQuery, Page};
use genesys_once::{MemoryStore, Store};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::schedule::{Command, Fault};
use super::world::World;

/// What holds the records: `MemoryStore`, or, if the schedule loses records, a store that
/// can lose them.
#[derive(Clone)]
pub enum Backend {
    Memory(MemoryStore),
    Disk(Arc<Disk>),
}

impl Backend {
    fn store(&self) -> &dyn Store {
        match self {
            Self::Memory(store) => store,
            Self::Disk(store) => store,
        }
    }

    /// The current state of a record; both backends answer at once.
    pub fn state(&self, name: &RecordName) -> Option<RecordState> {
        let look = self.store().look(name).now_or_never();
        look.expect("answers at once").expect("never fails")
    }

    fn apply(&self, name: &RecordName, event: Event) -> Answer {
        let applied = self.store().apply(name, event).now_or_never();
        applied.expect("answers at once").expect("never fails")
    }
}

/// A store that remembers its earlier content, so that it can lose later writes.
#[derive(Default)]
pub struct Disk {
    records: Mutex<BTreeMap<RecordName, Vec<Version>>>,
    notices: Mutex<BTreeMap<RecordName, Arc<Notify>>>,
}

/// What a record held from a moment on, and when that expires.
type Version = (Instant, Option<(Record, Instant)>);

impl Disk {
    fn current(&self, name: &RecordName) -> Option<(Record, Duration)> {
        let records = self.records.lock().unwrap();
        let (_, version) = records.get(name)?.last()?;
        let (record, expires) = version.clone()?;
        let left = expires.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some((record, left))
    }

    fn put(&self, name: &RecordName, next: Option<(Record, Instant)>) {
        let mut records = self.records.lock().unwrap();
        let versions = records.entry(name.clone()).or_default();
        versions.push((Instant::now(), next));
        drop(records);
        if let Some(notify) = self.notices.lock().unwrap().get(name) {
            notify.notify_waiters();
        }
    }

    /// Drops one record.
    pub fn evict(&self, name: &RecordName) {
        self.put(name, None);
    }

    /// Goes back to the content of that moment, or to nothing; returns the records that
    /// lost something.
    pub fn restart(&self, back_to: Option<Instant>) -> Vec<RecordName> {
        let mut lost = Vec::new();
        for (name, versions) in &mut *self.records.lock().unwrap() {
            let before = back_to.and_then(|at| versions.iter().rfind(|(since, _)| *since <= at));
            let before = before.and_then(|(_, version)| version.clone());
            if versions.last().map(|(_, last)| last) != Some(&before) {
                versions.push((Instant::now(), before));
                lost.push(name.clone());
            }
        }
        lost
    }
}

impl Store for Disk {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            let current = self.current(name);
            let seen = current.as_ref().map(|(record, left)| (record, *left));
            let (next, answer) = record::apply(seen, &event);
            let key = |record: &Option<(Record, Duration)>| {
                record.as_ref().map(|(record, left)| (record.rev, *left))
            };
            if key(&current) != key(&next) {
                self.put(
                    name,
                    next.map(|(record, left)| (record, Instant::now() + left)),
                );
            }
            Ok(answer)
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move { Ok(self.current(name).map(|(record, left)| record.state(left))) })
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        let notify = self
            .notices
            .lock()
            .unwrap()
            .entry(name.clone())
            .or_default()
            .clone();
        Box::pin(async move { notify.notified().await })
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let names: Vec<_> = self.records.lock().unwrap().keys().cloned().collect();
            let open = names
                .into_iter()
                .filter(|name| name.namespace == *namespace);
            let open = open.filter_map(|name| {
                let (record, left) = self.current(&name)?;
                Some((name.key, record.state(left)))
            });
            let mut page = Page::default();
            for (key, state) in open {
                page.add(query, key, state);
            }
            Ok(page)
        })
    }
}

/// One engine's way to the store.
#[derive(Clone)]
pub struct Way {
    pub world: Arc<World>,
    pub engine: usize,
    pub life: usize,
}

/// The kind of a command, for faults.
pub fn command(event: Option<&Event>) -> Command {
    match event {
        None => Command::Look,
        Some(Event::Acquire { .. } | Event::TakeOver { .. }) => Command::Take,
        Some(Event::Extend { .. }) => Command::Extend,
        Some(Event::Enter { .. }) => Command::Enter,
        Some(Event::Complete { .. } | Event::Release { .. } | Event::Abandon { .. }) => {
            Command::Finish
        }
        Some(_) => Command::Resolve,
    }
}

impl Way {
    /// Notes that a command was answered.
    fn well(&self) {
        self.world.state().well.insert(self.engine, Instant::now());
    }

    /// Sends one command over the way: `None` is a look.
    async fn travel<T: Send + 'static>(
        &self,
        name: &RecordName,
        event: Option<&Event>,
        arrive: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let kind = command(event);
        let (fault, latency) = self.world.way(self.engine, kind, name);
        if self.world.traced {
            let what = event.map_or_else(|| "look".to_owned(), short);
            self.world.note(|| {
                let fault = fault.map_or(String::new(), |fault| format!(" -> {fault:?}"));
                format!(
                    "engine {} {} {what}{fault}",
                    self.engine,
                    self.world.short(name)
                )
            });
        }
        let failed = |why: &'static str| Err(StoreError::unavailable(why));
        match fault {
            None => {
                if !latency.is_zero() {
                    sleep(latency).await;
                }
                let answer = arrive();
                if !latency.is_zero() {
                    sleep(latency).await;
                }
                Ok(answer)
            }
            Some(Fault::Fail(after)) => {
                sleep(Duration::from_millis(after)).await;
                failed("scripted: not applied")
            }
            Some(Fault::LoseReply) => {
                arrive();
                failed("scripted: the reply is lost")
            }
            Some(Fault::Refuse) if event.is_some() => Err(StoreError::refused("scripted: refused")),
            Some(Fault::Refuse) => Ok(arrive()),
            Some(Fault::Silent(applied)) => {
                if applied {
                    arrive();
                }
                std::future::pending().await
            }
            Some(Fault::Late(after)) => {
                let answer = arrive();
                sleep(Duration::from_millis(after)).await;
                Ok(answer)
            }
            Some(Fault::Delayed(after)) => {
                // The command is on its way whether or not the caller still waits.
                let arriving = tokio::spawn(async move {
                    sleep(Duration::from_millis(after)).await;
                    arrive()
                });
                arriving
                    .await
                    .map_err(|_| StoreError::unavailable("scripted: lost"))
            }
        }
    }
}

/// An event in a few words.
fn short(event: &Event) -> String {
    let text = format!("{event:?}");
    let word = text.split([' ', '{']).next().unwrap_or_default().to_owned();
    let lease = |text: &str| {
        let at = text.find("lease: ")? + 7;
        Some(text[at..].chars().take(4).collect::<String>())
    };
    let step = text.find(", step: ").map(|at| {
        text[at + 8..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    });
    let phase = ["phase: Claimed", "phase: Dispatched"]
        .into_iter()
        .find(|p| text.contains(p));
    [
        Some(word),
        lease(&text),
        step.map(|step| format!("step {step}")),
        phase.map(str::to_owned),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(" ")
}

impl Store for Way {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            if let Event::Acquire { claim } | Event::TakeOver { claim, .. } = &event {
                let own = (self.engine, self.life, claim.lease.to_string());
                self.world.state().own.insert(own);
            }
            let (world, to, sent) = (self.world.clone(), name.clone(), event.clone());
            let engine = self.engine;
            let arrive = move || {
                let before = world.store.state(&to);
                let answer = world.store.apply(&to, sent.clone());
                let after = world.store.state(&to);
                world.observe(engine, &to, &sent, &answer, before.as_ref(), after.as_ref());
                answer
            };
            let answer = self.travel(name, Some(&event), arrive).await?;
            let seen = match &answer {
                Answer::Is(state) => state.as_ref(),
                Answer::Lost(state) => Some(state),
                _ => None,
            };
            self.world.saw(self, name, seen);
            self.well();
            Ok(answer)
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            let (world, to) = (self.world.clone(), name.clone());
            let state = self
                .travel(name, None, move || world.store.state(&to))
                .await?;
            self.world.saw(self, name, state.as_ref());
            self.well();
            Ok(state)
        })
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        if !self.world.schedule.setup.notices || self.world.outage(self.engine).is_some() {
            return Box::pin(std::future::pending());
        }
        match &self.world.store {
            Backend::Memory(store) => store.changed(name),
            Backend::Disk(store) => store.changed(name),
        }
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.world.store.store().list(namespace, query)
    }
}
