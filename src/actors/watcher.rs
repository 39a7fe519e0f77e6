//! The watcher: walks through a namespace's indeterminate keys periodically, and reports
//! each key that needs an operator. It recovers the records of lost holders and counts
//! keys; it never resolves one.

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

/// How many keys one walk counts and remembers.
const MAX_KEYS: usize = 10_000;

/// How many unreadable records one walk warns of.
const MAX_WARNED: usize = 10;

/// The pause between two pages of a walk.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a walk may take to its end. If it ended earlier, later keys would never be
/// reported.
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

    /// The last walk of this process, unless it is older than two periods.
    pub(crate) fn last(&self) -> Option<Arc<Last>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |last: &&Arc<Last>| last.begun.elapsed() <= self.every * 2;
        last.as_ref().filter(is_fresh).cloned()
    }

    fn set_last(&self, last: Option<Arc<Last>>) {
        // The old value is dropped without the lock.
        let mut current = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let _before = std::mem::replace(&mut *current, last);
        drop(current);
    }
}

/// Spawns the watcher, linked to its supervisor; `None` if the setting is off.
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

/// A watcher gets no messages.
#[derive(Debug)]
enum Nothing {}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Nothing {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Watcher {
    type Msg = Nothing;
    /// Taken by the hook that walks, so that the store is dropped with its future.
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
                reported: HashSet::new(),
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
    /// The executions of the last walk, each logged once.
    reported: HashSet<(IdempotencyKey, LeaseId)>,
    /// The unreadable records of the last walk that were logged, each with its reason.
    unreadable: HashSet<(IdempotencyKey, String)>,
    watched: Watched,
}

impl Rounds<'_> {
    async fn round(&mut self) {
        let Self { shared, watch, .. } = self;
        // Less than the time between two walks, so that this process's own turn has
        // expired by then.
        let period = watch.every.mul_f64(0.9);
        let turn = shared.store.walk_turn(&shared.namespace, period);
        match timeout(shared.store.limit(), turn).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                // Another process has the turn, and counts.
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
        let mut reported = HashSet::new();
        for (key, state) in &found.keys {
            let execution = (*key, state.revision().lease);
            if !self.reported.contains(&execution) {
                warn(key, state);
            }
            reported.insert(execution);
            if let RecordState::Indeterminate { since, .. } = state {
                oldest = oldest.max(now.duration_since(*since).unwrap_or_default());
            }
        }
        let (mut unreadable, mut warned) = (HashSet::new(), 0);
        for record in &found.unreadable {
            let known = (record.key(), record.reason().to_owned());
            if !self.unreadable.contains(&known) {
                if warned == MAX_WARNED {
                    // The next walk logs it.
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
        self.reported = reported;
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

/// A time as an HTTP date; impossible dates are shown as the epoch.
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

    /// Red if a date reaches `httpdate` for which it panics.
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
