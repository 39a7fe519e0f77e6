//! While somebody else holds the key: wait for a notice, poll besides, and
//! answer from what the record says. Nothing is ever sent from here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::super::shared::Shared;
use crate::error::Error;
use crate::execution::{Execution, Hashed, Lock, follow_up};
use crate::key::{IdempotencyKey, RecordName};
use crate::outcome::{Reply, Served};
use crate::record::{Answer, Event, RecordState, Refusal, Resolution};
use crate::store::Store;

/// The first wait between two looks, without a notice; doubled up to
/// [`LONGEST_POLL`].
const FIRST_POLL: Duration = Duration::from_millis(25);
const LONGEST_POLL: Duration = Duration::from_secs(1);
/// Looks that fail in a row before those who wait are told.
const FAILED_LOOKS: u32 = 3;

/// How the wait for somebody else ended.
pub(super) enum Elsewhere {
    /// The key may be taken.
    Free(Execution<Hashed>),
    /// What the other one found out.
    Reply(Reply, Duration),
    /// The other one was lost, or does not know either.
    Unknown(Execution<Hashed>, Error),
}

/// Waits until the record that was seen says how it went.
pub(super) async fn wait(
    store: &dyn Store,
    shared: &Arc<Shared>,
    mut hashed: Execution<Hashed>,
    mut state: RecordState,
) -> Result<Elsewhere, Error> {
    let name = shared.name(hashed.key());
    let mut poll = FIRST_POLL;
    // Whether the key was held while we were waiting: only then is a verdict
    // in a released record meant for us.
    let mut waited = false;
    loop {
        let lease_left = match state {
            RecordState::Locked { lease_left, .. } if !lease_left.is_zero() => lease_left,
            RecordState::Locked { .. } => return Ok(Elsewhere::Free(hashed)),
            RecordState::Released {
                verdict: Some(verdict),
                ..
            } if waited => {
                return refused(hashed.key(), verdict);
            }
            RecordState::Released { .. } => return Ok(Elsewhere::Free(hashed)),
            RecordState::Indeterminate { since, cause, .. } => {
                let error = Error::Indeterminate {
                    key: name.key,
                    since,
                    cause,
                };
                return Ok(Elsewhere::Unknown(hashed, error));
            }
            RecordState::Cached { .. } => match hashed.seen(state, &shared.terms)? {
                Lock::Cached(cached) => {
                    let left = cached.left();
                    return Ok(Elsewhere::Reply(cached.into_reply(), left));
                }
                Lock::Locked(_) | Lock::Taken(..) => {
                    unreachable!("a cached record reads as cached")
                }
            },
        };
        waited = true;
        let next = next_state(store, &name, poll.min(lease_left)).await?;
        poll = (poll * 2).min(LONGEST_POLL);
        let Some(next) = next else {
            return Ok(Elsewhere::Free(hashed));
        };
        match hashed.seen(next, &shared.terms)? {
            Lock::Taken(same, next) => (hashed, state) = (same, next),
            Lock::Cached(cached) => {
                let left = cached.left();
                return Ok(Elsewhere::Reply(cached.into_reply(), left));
            }
            Lock::Locked(_) => unreachable!("looking takes nothing"),
        }
    }
}

/// The record after a notice or the poll's time, whichever is first.
async fn next_state(
    store: &dyn Store,
    name: &RecordName,
    poll: Duration,
) -> Result<Option<RecordState>, Error> {
    let mut failed = 0;
    loop {
        tokio::select! {
            () = store.changed(name) => {}
            // Never a busy loop, however little is left of a lease.
            () = sleep(poll.max(Duration::from_millis(5))) => {}
        }
        match store.look(name).await {
            Ok(state) => return Ok(state),
            Err(error) if error.is_unreadable() => return Err(Error::of_store(name.key, error)),
            Err(error) => {
                failed += 1;
                if failed == FAILED_LOOKS {
                    return Err(Error::of_store(name.key, error));
                }
                tracing::debug!(%name, "a look at a record failed");
            }
        }
    }
}

/// What the other one was told: nothing was executed.
fn refused(key: IdempotencyKey, verdict: Refusal) -> Result<Elsewhere, Error> {
    match verdict {
        Refusal::Refused(outcome) => {
            let reply = Reply::new(key, outcome, Served::Store).with_recorded(false);
            Ok(Elsewhere::Reply(reply, Duration::ZERO))
        }
        Refusal::RateLimited { retry_after } => Err(Error::RateLimited { retry_after }),
    }
}

/// Settles an indeterminate key.
///
/// # Errors
///
/// [`Error::NotIndeterminate`] where it is not, or where `NotApplied` is said
/// while the lost attempt may still be running.
pub(crate) async fn resolve(
    shared: &Shared,
    key: IdempotencyKey,
    resolution: Resolution,
) -> Result<(), Error> {
    let name = shared.name(key);
    let of_store = |source| Error::of_store(key, source);
    let Some(RecordState::Indeterminate { seen, age, .. }) =
        shared.store.look(&name).await.map_err(of_store)?
    else {
        return Err(Error::NotIndeterminate { key });
    };
    if resolution == Resolution::NotApplied && age < shared.may_still_run() {
        return Err(Error::NotIndeterminate { key });
    }
    let ttl = shared.terms.result_ttl;
    let event = Event::Resolve {
        seen,
        resolution,
        ttl,
    };
    match follow_up(&*shared.store, &name, &event, 2)
        .await
        .map_err(of_store)?
    {
        Answer::Done => Ok(()),
        _ => Err(Error::NotIndeterminate { key }),
    }
}
