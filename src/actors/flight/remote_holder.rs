//! Waits while another process holds the lease: subscribes to the record, also polls it,
//! and answers from what it says. It never sends a command that writes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::backlog::WaitFor;
use super::super::shared::Shared;
use crate::error::{Error, StoreError};
use crate::execution::{Execution, Hashed, Lock};
use crate::key::{IdempotencyKey, RecordName};
use crate::outcome::{Reply, Served};
use crate::record::{RecordState, Refusal, Revision};
use crate::store::{BoxFuture, BreakerStore, Store};
use crate::telemetry;

/// The first wait between two polls without a notification; doubled up to [`MAX_POLL`].
const FIRST_POLL: Duration = Duration::from_millis(25);
const MAX_POLL: Duration = Duration::from_secs(1);

/// The shortest time between two looks, also at the end of a lease or with many
/// notifications.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// How the wait for another holder ended.
pub(super) enum RemoteEnd {
    /// The key may be acquired.
    Free(Execution<Hashed>),
    /// The other holder's outcome or refusal.
    Reply(Reply, Duration),
    /// The other holder was lost during its call, or has an unknown outcome.
    Indeterminate(Execution<Hashed>, Error),
}

/// Waits until the record says how the other execution ended.
pub(super) async fn wait(
    shared: &Arc<Shared>,
    mut hashed: Execution<Hashed>,
    mut state: RecordState,
) -> Result<RemoteEnd, Error> {
    let name = shared.name(hashed.key());
    let _waiting = shared.backlog.wait(WaitFor::RemoteHolder);
    let mut watch = RecordWatch::new(&shared.store, &name);
    // Whether this wait has seen a lease. Only then a refusal in a released record
    // answers this request.
    let mut waited = false;
    loop {
        let lease_left = match state {
            RecordState::Locked { lease_left, .. } if lease_left.is_zero() => {
                return Ok(RemoteEnd::Free(hashed));
            }
            RecordState::Locked {
                lease_left,
                lease,
                revision,
                ..
            } => match watch.left_of(revision, lease) {
                // By the store's clock the lease still lives.
                Duration::ZERO => return Ok(RemoteEnd::Free(hashed.having_watched(revision))),
                left => lease_left.min(left),
            },
            RecordState::Released {
                refusal: Some(refusal),
                ..
            } if waited => {
                return refused(hashed.key(), refusal);
            }
            RecordState::Released { .. } => return Ok(RemoteEnd::Free(hashed)),
            RecordState::Indeterminate {
                since, ref cause, ..
            } => {
                let error = Error::Indeterminate {
                    key: name.key,
                    version: state.version(),
                    since,
                    cause: cause.clone().into(),
                };
                return Ok(RemoteEnd::Indeterminate(hashed, error));
            }
            // `seen` has read an outcome as such; locking finds it again.
            RecordState::Cached { .. } => return Ok(RemoteEnd::Free(hashed)),
        };
        waited = true;
        let next = watch.next(lease_left).await?;
        let Some(next) = next else {
            // No transition leads from a live lease to no record. The store lost the
            // record, or an outcome expired while this engine could not look. The
            // request might have been executed.
            let why = "the record of another holder has disappeared";
            let source = StoreError::unavailable(why);
            return Err(Error::StoreUnavailable { source });
        };
        match hashed.seen(next, &shared.terms)? {
            Lock::Taken(same, next) => (hashed, state) = (same, next),
            Lock::Cached(cached) => {
                let left = cached.left();
                return Ok(RemoteEnd::Reply(cached.into_reply(), left));
            }
            Lock::Locked(_) => unreachable!("looking takes nothing"),
        }
    }
}

/// Looks at a record after each notification, and polls without one.
struct RecordWatch<'a> {
    store: &'a BreakerStore,
    name: &'a RecordName,
    notice: BoxFuture<'a, ()>,
    poll: Duration,
    /// When the last look ended.
    looked: Instant,
    /// The revision of the last look, and since when it is seen by this process's clock.
    seen: Option<(Revision, Instant)>,
}

impl<'a> RecordWatch<'a> {
    fn new(store: &'a BreakerStore, name: &'a RecordName) -> Self {
        let mut watch = Self {
            store,
            name,
            notice: store.changed(name),
            poll: FIRST_POLL,
            looked: Instant::now(),
            seen: None,
        };
        watch.listen();
        watch
    }

    /// What is left of a lease by this process's own clock. A live holder raises the
    /// revision before the lease ends.
    fn left_of(&mut self, seen: Revision, lease: Duration) -> Duration {
        let since = match self.seen {
            Some((version, since)) if version == seen => since,
            _ => Instant::now(),
        };
        self.seen = Some((seen, since));
        lease.saturating_sub(since.elapsed())
    }

    /// Subscribes before the look, so that no change is missed between the two.
    fn listen(&mut self) {
        if self.notice.as_mut().now_or_never().is_some() {
            self.notice = self.store.changed(self.name);
        }
    }

    /// The record after a notification, a poll, or the expiry of the lease.
    ///
    /// A failed look says nothing about the holder. Looks are repeated until `lease_left`
    /// and the time of one more look have passed; only then the error is returned.
    async fn next(&mut self, lease_left: Duration) -> Result<Option<RecordState>, Error> {
        let poll = self.poll.min(lease_left).max(MIN_PAUSE);
        let end = Instant::now() + lease_left + self.store.limit();
        tokio::select! {
            biased;
            () = self.notice.as_mut() => {
                self.notice = self.store.changed(self.name);
                sleep_until(self.looked + MIN_PAUSE).await;
            }
            () = sleep(poll) => self.poll = (self.poll * 2).min(MAX_POLL),
        }
        loop {
            self.listen();
            let look = self.store.look(self.name).await;
            self.looked = Instant::now();
            let error = match look {
                Ok(state) => return Ok(state),
                Err(error) => error,
            };
            if error.is_unreadable() || Instant::now() >= end {
                return Err(Error::of_store(self.name.key, error));
            }
            telemetry::contained(|| {
                tracing::debug!(name = %self.name, "a look at a record failed");
            });
            tokio::select! {
                biased;
                () = self.store.look_again(self.name, self.poll) => {}
                () = sleep_until(end) => {}
            }
            self.poll = (self.poll * 2).min(MAX_POLL);
        }
    }
}

/// The refusal that the other holder got: nothing was executed.
fn refused(key: IdempotencyKey, refusal: Refusal) -> Result<RemoteEnd, Error> {
    match refusal {
        Refusal::Refused(stored) => {
            let reply = Reply::new(key, stored.outcome, Served::Store).with_recorded(false);
            let reply = reply.with_stored_body(stored.body);
            Ok(RemoteEnd::Reply(reply, Duration::ZERO))
        }
        Refusal::RateLimited { retry_after } => Err(Error::RateLimited { retry_after }),
    }
}
