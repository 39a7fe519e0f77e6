//! The watcher: walks through a namespace's indeterminate keys from time to time, so
//! that a key which needs a person says so. It recovers the records of holders that
//! are gone, counts, and warns of each key once. It resolves nothing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::shared::Shared;
use super::walk::{Bounds, Found, walk};
use crate::error::chain;
use crate::key::{IdempotencyKey, LeaseId};
use crate::record::RecordState;
use crate::store::Store as _;
use crate::telemetry::{self, Watched};

/// Keys that one walk counts, and of which the last one is remembered.
const MAX_KEYS: usize = 10_000;

/// Records that cannot be read of which one walk warns by name.
const MAX_WARNED: usize = 10;

/// The pause between two pages of a walk.
const PAUSE: Duration = Duration::from_millis(100);

/// What a walk may take, to its end: keys behind one that is cut short would never be
/// told of.
const WALK_WITHIN: Duration = Duration::from_secs(60 * 60);

/// What an engine knows of its walks.
#[derive(Debug)]
pub(crate) struct Watch {
    every: Duration,
    last: Mutex<Option<Arc<Last>>>,
}

/// What the last walk through all keys found.
#[derive(Debug)]
pub(crate) struct Last {
    pub keys: Vec<IdempotencyKey>,
    pub begun: Instant,
}

impl Watch {
    pub(crate) fn new(every: Duration) -> Self {
        let last = Mutex::default();
        Self { every, last }
    }

    /// The last walk of this process, unless the one after it is missing.
    pub(crate) fn last(&self) -> Option<Arc<Last>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |last: &&Arc<Last>| last.begun.elapsed() <= self.every * 2;
        last.as_ref().filter(is_fresh).cloned()
    }

    fn set_last(&self, last: Option<Arc<Last>>) {
        // Dropped with the lock free.
        let mut current = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let _before = std::mem::replace(&mut *current, last);
        drop(current);
    }
}

/// Spawns the watcher, linked to its supervisor; nothing where none is wanted.
pub(super) async fn spawn(
    shared: &Arc<Shared>,
    supervisor: ActorCell,
) -> Result<Option<ActorCell>, SpawnErr> {
    if shared.watch.is_none() {
        return Ok(None);
    }
    let (actor, _) = Actor::spawn_linked(None, Watcher, shared.clone(), supervisor).await?;
    Ok(Some(actor.get_cell()))
}

struct Watcher;

/// Nothing is sent to a watcher.
#[derive(Debug)]
enum Nothing {}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Nothing {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Watcher {
    type Msg = Nothing;
    /// Taken by the hook that walks, so that the store goes with the hook's future.
    type State = Option<Arc<Shared>>;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        _: ActorRef<Nothing>,
        shared: Arc<Shared>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Some(shared))
    }

    /// Walks until the supervisor ends it.
    async fn post_start(
        &self,
        _: ActorRef<Nothing>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(shared) = state.take()
            && let Some(watch) = &shared.watch
        {
            let mut rounds = Rounds {
                shared: &shared,
                watch,
                told: HashSet::new(),
                unreadable: HashSet::new(),
                watched: Watched::new(&shared.namespace),
            };
            let mut due = interval(watch.every);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                due.tick().await;
                Box::pin(rounds.round()).await;
            }
        }
        Ok(())
    }
}

struct Rounds<'a> {
    shared: &'a Shared,
    watch: &'a Watch,
    /// Which keys were warned of, each as the execution that was lost: those that
    /// the last walk found, and no others.
    told: HashSet<(IdempotencyKey, LeaseId)>,
    /// The same of records that cannot be read, with what is wrong with each.
    unreadable: HashSet<(IdempotencyKey, String)>,
    watched: Watched,
}

impl Rounds<'_> {
    async fn round(&mut self) {
        let Self { shared, watch, .. } = self;
        // A little less than the time between two walks: this process's own turn must
        // not stand in its way.
        let period = watch.every.mul_f64(0.9);
        let turn = shared.store.walk_turn(&shared.namespace, period);
        match timeout(shared.store.limit(), turn).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                // The process whose turn it is counts.
                self.watched.set(0, Duration::ZERO);
                return self.watch.set_last(None);
            }
            Ok(Err(error)) => return failed(&error),
            Err(late) => return failed(&late),
        }
        let begun = Instant::now();
        let bounds = Bounds {
            keys: MAX_KEYS,
            until: begun + watch.every.max(WALK_WITHIN),
            pause: PAUSE,
        };
        match walk(shared, bounds).await {
            Ok(found) => self.report(found, begun),
            Err(error) => failed(&error),
        }
    }

    fn report(&mut self, found: Found, begun: Instant) {
        let now = self.shared.terms.ambient.wall_now();
        let mut oldest = Duration::ZERO;
        let mut told = HashSet::new();
        for (key, state) in &found.keys {
            let execution = (*key, state.revision().lease);
            if !self.told.contains(&execution) {
                warn(key, state);
            }
            told.insert(execution);
            if let RecordState::Indeterminate { since, .. } = state {
                oldest = oldest.max(now.duration_since(*since).unwrap_or_default());
            }
        }
        let (mut unreadable, mut warned) = (HashSet::new(), 0);
        for record in &found.unreadable {
            let known = (record.key(), record.reason().to_owned());
            if !self.unreadable.contains(&known) {
                if warned == MAX_WARNED {
                    // The next walk tells of it.
                    continue;
                }
                warned += 1;
                telemetry::contained(|| {
                    tracing::warn!(
                        name = %record.name(),
                        reason = record.reason(),
                        records = found.unreadable_count,
                        "a record cannot be read, and its key is refused; see Engine::discard_unreadable"
                    );
                });
            }
            unreadable.insert(known);
        }
        self.told = told;
        self.unreadable = unreadable;
        if let Some(error) = &found.failed {
            failed(error);
        }
        self.watched.set(found.keys.len(), oldest);
        let is_whole = found.next.is_none();
        if !is_whole {
            telemetry::contained(|| {
                tracing::warn!(
                    keys = found.keys.len(),
                    "a walk through indeterminate keys ended early: there are more"
                );
            });
        }
        let all_read = found.unreadable.len() == found.unreadable_count;
        let is_whole = is_whole && all_read && found.failed.is_none();
        let found_keys = found.keys.into_iter().map(|(key, _)| key);
        let unreadable_keys = found.unreadable.iter().map(|record| record.key());
        let keys = found_keys.chain(unreadable_keys).collect();
        let last = is_whole.then(|| Arc::new(Last { keys, begun }));
        self.watch.set_last(last);
    }
}

/// A person is needed.
fn warn(key: &IdempotencyKey, state: &RecordState) {
    let RecordState::Indeterminate {
        since,
        cause,
        correlation_id,
        about,
        ..
    } = state
    else {
        return;
    };
    let caller = &about.caller;
    telemetry::contained(|| {
        tracing::warn!(
            target: "genesys_once",
            %key,
            action_id = about.action.as_ref().map(|action| action.as_str()),
            label = caller.label.as_deref(),
            own_key = caller.own_key.as_deref(),
            scope = caller.scope.as_deref(),
            cause = &**cause,
            since = %date(*since),
            correlation_id = correlation_id.as_deref(),
            version = %state.version(),
            next = "find out whether the request was executed, then resolve the key: \
                    `genesys-once resolve`, or Engine::resolve",
            "a key is indeterminate: its request might have been executed, and is not repeated until a person resolves it"
        );
    });
}

/// A moment, for people; dates that no calendar has are the epoch.
fn date(time: SystemTime) -> String {
    let limit = SystemTime::UNIX_EPOCH + Duration::from_secs(250_000_000_000);
    let known = SystemTime::UNIX_EPOCH..limit;
    let time = known.contains(&time).then_some(time);
    httpdate::fmt_http_date(time.unwrap_or(SystemTime::UNIX_EPOCH))
}

fn failed(error: &dyn std::error::Error) {
    let error = chain(error);
    telemetry::contained(|| {
        tracing::warn!(target: "genesys_once", error, "could not walk through the indeterminate keys");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red where a date is formatted that `httpdate` panics at.
    #[test]
    fn impossible_dates_are_shown_as_the_epoch() {
        let epoch = "Thu, 01 Jan 1970 00:00:00 GMT";
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(date(before), epoch);
        assert_eq!(date(after), epoch);
        let known = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(date(known), "Fri, 02 Jan 1970 00:00:00 GMT");
    }
}
