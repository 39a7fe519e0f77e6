//! Ending an indeterminate key by what a person or a policy found out. It resolves
//! the execution that its caller saw and no other, and lets nothing be executed
//! again while the lost attempt might still be running.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::shared::Shared;
use crate::error::{Error, KeyState};
use crate::execution::{Commands, MIN_RESULT_TTL, Resend};
use crate::key::{IdempotencyKey, RecordName, Version};
use crate::record::{
    Answer, Attempts, Claim, Event, Origin, RecordState, Resolution, Resolved, Revision,
};
use crate::store::Store as _;
use crate::telemetry;

/// Resolves the execution `version` of a key that is indeterminate;
/// an outcome is kept for `ttl`.
///
/// # Errors
///
/// [`Error::UnknownKey`] where nothing is recorded of the key;
/// [`Error::NotIndeterminate`] where the key is not, or no longer, in that version;
/// [`Error::TooEarly`] for `not_applied` while the lost attempt might still be
/// running; [`Error::ResolutionUnknown`] where a reply was lost and the key has
/// changed since; the store's.
pub(crate) async fn resolve(
    shared: &Shared,
    key: IdempotencyKey,
    version: Version,
    resolution: Resolution,
    ttl: Duration,
) -> Result<(), Error> {
    let name = shared.name(key);
    let of_store = |source| Error::of_store(key, source);
    let Some(state) = shared.store.look(&name).await.map_err(of_store)? else {
        return Err(Error::UnknownKey { key });
    };
    if state.version() != version {
        return Err(refused(key, version, Some(&state)));
    }
    let not_applied = resolution.outcome().is_none();
    let state = match notice_loss(shared, &name, state).await? {
        Some(state @ RecordState::Indeterminate { .. }) if state.version() == version => state,
        // Asked again, after an answer that was lost: nothing is left to do.
        Some(RecordState::Released { .. }) if not_applied => return Ok(()),
        state => return Err(refused(key, version, state.as_ref())),
    };
    if not_applied && !resolution.is_despite_clocks() {
        shared.sightings.check(shared, key, &state)?;
    }
    let origin = origin(shared, &state, &resolution);
    let event = Event::Resolve {
        lease: shared.terms.ambient.lease_id(),
        revision: state.revision(),
        fingerprint: version.fingerprint,
        resolution,
        origin,
        ttl: ttl.max(MIN_RESULT_TTL),
    };
    let mut commands = Commands::new(&*shared.store, &name, Resend::Once);
    let (answer, _) = commands.send(&event).await.map_err(of_store)?;
    match answer {
        Answer::Done => {
            shared.sightings.forget(&key);
            Ok(())
        }
        _ if commands.has_lost_reply() => Err(Error::ResolutionUnknown { key }),
        Answer::Is(state) => Err(refused(key, version, state.as_ref())),
        _ => Err(other_version(key)),
    }
}

/// Why a key cannot be resolved, of which this is recorded.
fn refused(key: IdempotencyKey, version: Version, state: Option<&RecordState>) -> Error {
    let state = match state {
        None => return Error::UnknownKey { key },
        Some(RecordState::Cached { origin, .. }) => match &origin.resolved {
            Some(Resolved { at, by }) => KeyState::Resolved {
                at: *at,
                by: by.clone(),
            },
            None => KeyState::Cached,
        },
        Some(state) if state.version() != version => return other_version(key),
        Some(RecordState::Released { .. }) => KeyState::Released,
        Some(RecordState::Locked { .. }) => KeyState::Locked,
        Some(RecordState::Indeterminate { .. }) => return other_version(key),
    };
    Error::NotIndeterminate { key, state }
}

fn other_version(key: IdempotencyKey) -> Error {
    let state = KeyState::OtherVersion;
    Error::NotIndeterminate { key, state }
}

/// Where an outcome comes from that a person or a policy found.
fn origin(shared: &Shared, state: &RecordState, resolution: &Resolution) -> Origin {
    let (action, attempts) = match state {
        RecordState::Indeterminate {
            about, attempts, ..
        } => (about.action.clone(), attempts.count),
        _ => (None, 0),
    };
    Origin {
        action,
        answered: None,
        attempts,
        resolved: Some(Resolved {
            at: shared.terms.ambient.wall_now(),
            by: resolution.resolver().cloned(),
        }),
    }
}

/// The record of a holder that was lost with its request under way says so from
/// now on, as it would if a caller asked for the key; any other stays as it is.
pub(crate) async fn notice_loss(
    shared: &Shared,
    name: &RecordName,
    state: RecordState,
) -> Result<Option<RecordState>, Error> {
    let RecordState::Locked {
        attempts,
        lease,
        ref about,
        revision,
        ..
    } = state
    else {
        return Ok(Some(state));
    };
    // The store's clock is one witness; this engine's, since it first saw this
    // very version, is another.
    let watched = shared.sightings.first_seen(name.key, revision).elapsed() >= lease;
    let about = about.clone();
    if !state
        .clone()
        .lapsed_if(watched.then_some(revision))
        .is_indeterminate()
    {
        return Ok(Some(state));
    }
    let event = Event::TakeOver {
        // Of a lease in `Dispatched` no asker becomes the holder.
        claim: Claim {
            lease: shared.terms.ambient.lease_id(),
            fingerprint: state.fingerprint(),
            lease_ttl: shared.terms.lease,
            retention: shared.terms.indeterminate_ttl,
            attempts,
            about,
        },
        revision,
        watched,
    };
    let mut commands = Commands::new(&*shared.store, name, Resend::IfQuick);
    let answer = commands.send(&event).await;
    match answer
        .map_err(|source| Error::of_store(name.key, source))?
        .0
    {
        Answer::Lost(state) => {
            telemetry::indeterminate(name);
            Ok(Some(state))
        }
        Answer::Is(state) => Ok(state),
        _ => Ok(None),
    }
}

/// When this engine first saw held records, and indeterminate ones whose age no
/// clock tells: its own monotonic clock is a witness then.
#[derive(Debug, Default)]
pub(crate) struct Sightings(Mutex<HashMap<IdempotencyKey, (Revision, Instant)>>);

/// Sightings kept at most; one more drops all, whose waits begin anew.
const MAX_SIGHTINGS: usize = 10_000;

impl Sightings {
    /// Whether the lost attempt of an indeterminate record has ended by every
    /// clock that makes sense: the store's since the record was written, the wall
    /// clock's since the attempt was sent; where neither does, this engine's
    /// monotonic clock since it first saw the record.
    fn check(
        &self,
        shared: &Shared,
        key: IdempotencyKey,
        state: &RecordState,
    ) -> Result<(), Error> {
        let RecordState::Indeterminate {
            age,
            may_run,
            attempts: Attempts { sent, .. },
            revision,
            ..
        } = state
        else {
            return Ok(());
        };
        let now = shared.terms.ambient.wall_now();
        // A sending in the future is no witness.
        let by_wall_clock = sent.and_then(|sent| now.duration_since(sent).ok());
        let passed = match (*age, by_wall_clock) {
            (Some(store), Some(wall)) => store.min(wall),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => self.first_seen(key, *revision).elapsed(),
        };
        let wait = may_run.saturating_sub(passed);
        if wait.is_zero() {
            return Ok(());
        }
        let until = now.checked_add(wait).unwrap_or(SystemTime::UNIX_EPOCH);
        Err(Error::TooEarly { key, until, wait })
    }

    fn first_seen(&self, key: IdempotencyKey, revision: Revision) -> Instant {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SIGHTINGS && !known.contains_key(&key) {
            known.clear();
        }
        let first = known
            .entry(key)
            .or_insert_with(|| (revision, Instant::now()));
        if first.0 != revision {
            *first = (revision, Instant::now());
        }
        first.1
    }

    fn forget(&self, key: &IdempotencyKey) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(key);
    }
}

#[cfg(test)]
mod tests;
