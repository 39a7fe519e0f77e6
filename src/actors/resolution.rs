//! Resolves an indeterminate key by the decision of an operator or a hook. It resolves only
//! the execution that the caller names, and permits no new execution while the lost attempt
//! might still be running.

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

/// Resolves the execution `version` of an indeterminate key; an outcome is kept for `ttl`.
///
/// # Errors
///
/// [`Error::UnknownKey`] if the key has no record. [`Error::NotIndeterminate`] if the key is
/// not indeterminate in that version. [`Error::TooEarly`] for `not_applied` while the lost
/// attempt might still be running. [`Error::ResolutionUnknown`] if a reply was lost and the
/// key has changed since. The store's errors.
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
        // Repeated after a lost reply: the key is resolved.
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

/// The error for a key that cannot be resolved, by its record.
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

/// The origin of an outcome from a resolution.
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

/// Makes the record indeterminate if its holder was lost during its call, as a request of the
/// key would do. Any other record stays as it is.
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
    // Two clocks can show the expiry: the store's, and this engine's since it first saw this
    // revision.
    let watched = shared.sightings.first_seen(name.key, revision).elapsed() >= lease;
    let about = about.clone();
    if !state
        .clone()
        .expired_if(watched.then_some(revision))
        .is_indeterminate()
    {
        return Ok(Some(state));
    }
    let event = Event::TakeOver {
        // A take-over of a lease in `Dispatched` never makes the caller the holder.
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

/// When this engine first saw locked records, and indeterminate records whose age no other
/// clock shows. Its own monotonic clock counts then.
#[derive(Debug, Default)]
pub(crate) struct Sightings(Mutex<HashMap<IdempotencyKey, (Revision, Instant)>>);

/// The largest number of sightings. One more clears all, and their waits begin again.
const MAX_SIGHTINGS: usize = 10_000;

impl Sightings {
    /// Checks that the lost attempt of an indeterminate record has ended by every usable
    /// clock: the store's clock since the record was written, and the wall clock since the
    /// attempt was sent. Without either, this engine's monotonic clock counts since it first
    /// saw the record.
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
        // A time of sending in the future does not count.
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
