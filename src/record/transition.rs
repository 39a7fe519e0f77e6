//! The transition function. A rule that looks redundant prevents a second call, or a key
//! that is blocked for a request that was never sent. `tests/protocol/model.rs` searches
//! this function for both, exhaustively.

use std::time::Duration;

use self::resolution::{forget, resolve};
use super::{
    Answer, Claim, Content, Event, Phase, RELEASED_FOR, Record, Refusal, Revision, Version,
};

/// A record and the time that it lives on, by the store's clock.
type Written = (Record, Duration);

/// Applies one event to the record that a store holds for a key.
///
/// `current` is the record and the rest of its time to live by the store's clock; `None`
/// where there is none or it has expired. Returns what the store must hold afterwards, with
/// its time to live, and the answer for the sender. A store must read, call this function
/// and write in one atomic step.
///
/// A time to live that is longer than any that was written is wrong: the record's own
/// counts instead.
pub fn apply(current: Option<(&Record, Duration)>, event: &Event) -> (Option<Written>, Answer) {
    let current = current.map(|(record, left)| (record, left.min(record.lifetime())));
    let next = match event {
        Event::Acquire { claim } => acquire(current, claim),
        Event::TakeOver {
            claim,
            revision,
            watched,
        } => take_over(current, claim, *revision, *watched),
        Event::Extend { claim, dispatched } => extend(current, claim, *dispatched),
        Event::Enter { claim, step, phase } => enter(current, claim, *step, *phase),
        Event::Complete {
            claim,
            step,
            stored,
            origin,
            ttl,
        } => {
            let content = Content::Cached {
                stored: stored.clone(),
                origin: origin.clone(),
            };
            complete(current, claim, *step, content, *ttl)
        }
        Event::Release {
            claim,
            step,
            refusal,
        } => release(current, claim, *step, refusal),
        Event::Abandon { claim, step, cause } => {
            let content = Content::Indeterminate {
                attempts: claim.attempts,
                about: claim.about.clone(),
                cause: Some(cause.clone()),
            };
            abandon(current, claim, *step, content)
        }
        Event::Resolve {
            lease,
            revision,
            fingerprint,
            resolution,
            origin,
            ttl,
        } => {
            let version = Version {
                lease: *lease,
                fingerprint: *fingerprint,
            };
            let found = resolution.outcome().map(|stored| Content::Cached {
                stored: stored.clone(),
                origin: origin.clone(),
            });
            resolve(current, version, *revision, found, *ttl)
        }
        Event::Forget { lease } => forget(current, *lease),
    };
    match next {
        Next::Keep(answer) => (current.map(|(record, left)| (record.clone(), left)), answer),
        Next::Write(record, left, answer) => (Some((record, left)), answer),
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "a value lives for one call, and a box would cost an allocation"
)]
enum Next {
    Keep(Answer),
    Write(Record, Duration, Answer),
}

fn acquire(current: Option<(&Record, Duration)>, claim: &Claim) -> Next {
    match current {
        None => locked(claim, 0, 1, Phase::Dispatched),
        Some((record, left)) if differs(record, left, claim) => Next::Keep(Answer::Mismatch),
        Some(_) => Next::Keep(is(current)),
    }
}

fn take_over(
    current: Option<(&Record, Duration)>,
    claim: &Claim,
    revision: Revision,
    watched: bool,
) -> Next {
    let Some((record, left)) = current else {
        return Next::Keep(Answer::Is(None));
    };
    // By the store's clock, or by the sender's, which watched this revision.
    let left = if watched && record.revision() == revision {
        left.min(record.retention)
    } else {
        left
    };
    match &record.content {
        // A repeated command: the reply to the first was lost.
        Content::Locked {
            phase: Phase::Claimed,
            ..
        } if record.lease == claim.lease && record.step == 0 => Next::Keep(Answer::Done),
        _ if differs(record, left, claim) => Next::Keep(Answer::Mismatch),
        // Another write came first: the sender must look again.
        _ if record.revision() != revision => Next::Keep(is(current)),
        // A lease belongs to one execution: it acquires no key that it released.
        Content::Released { .. } if record.lease == claim.lease => Next::Keep(is(current)),
        Content::Released { .. } => locked(claim, 0, record.rev + 1, Phase::Claimed),
        Content::Locked {
            phase,
            attempts,
            about,
        } if left <= record.retention => match phase {
            Phase::Claimed => locked(claim, 0, record.rev + 1, Phase::Claimed),
            // A request might be on the wire: the key must be resolved.
            Phase::Dispatched => {
                let content = Content::Indeterminate {
                    attempts: *attempts,
                    about: about.clone(),
                    cause: None,
                };
                let record = Record {
                    rev: record.rev + 1,
                    content,
                    ..record.clone()
                };
                let left = record.retention;
                let answer = Answer::Lost(record.state(left));
                Next::Write(record, left, answer)
            }
        },
        _ => Next::Keep(is(current)),
    }
}

fn extend(current: Option<(&Record, Duration)>, claim: &Claim, dispatched: Option<u32>) -> Next {
    match current {
        None => match dispatched {
            Some(step) => locked(claim, step, 1, Phase::Dispatched),
            None => Next::Keep(Answer::NotHolder),
        },
        Some((record, _)) => match record.content {
            Content::Locked { .. } if record.lease == claim.lease => prolonged(record, claim),
            _ => Next::Keep(Answer::NotHolder),
        },
    }
}

/// The same record with a new lease time, at another revision: an engine that watches the
/// lease sees that it lives.
fn prolonged(record: &Record, claim: &Claim) -> Next {
    let record = Record {
        rev: record.rev + 1,
        lease_ttl: claim.lease_ttl,
        ..record.clone()
    };
    let left = record.lifetime();
    Next::Write(record, left, Answer::Done)
}

fn enter(current: Option<(&Record, Duration)>, claim: &Claim, step: u32, phase: Phase) -> Next {
    let Some((record, _)) = current.filter(|(record, _)| record.lease == claim.lease) else {
        return Next::Keep(Answer::NotHolder);
    };
    match record.content {
        Content::Locked { phase: now, .. } if step == record.step && now == phase => {
            prolonged(record, claim)
        }
        Content::Locked { .. } if step > record.step => locked(claim, step, record.rev + 1, phase),
        Content::Locked { .. } => Next::Keep(Answer::StaleStep),
        _ => Next::Keep(Answer::NotHolder),
    }
}

fn complete(
    current: Option<(&Record, Duration)>,
    claim: &Claim,
    step: u32,
    content: Content,
    ttl: Duration,
) -> Next {
    match current {
        None => write(claim, step, 1, content, ttl),
        Some((record, _)) if record.lease != claim.lease => Next::Keep(Answer::NotHolder),
        // A repeated command: the reply to the first was lost.
        Some((
            Record {
                content: Content::Cached { .. },
                ..
            },
            _,
        )) => Next::Keep(Answer::Done),
        // Also from Indeterminate and Released: a late proof corrects the record.
        Some((record, _)) => write(claim, step.max(record.step), record.rev + 1, content, ttl),
    }
}

fn release(
    current: Option<(&Record, Duration)>,
    claim: &Claim,
    step: u32,
    refusal: &Option<Refusal>,
) -> Next {
    let released = |fingerprint, rev, refusal, ttl| {
        let claim = Claim {
            fingerprint,
            ..claim.clone()
        };
        write(&claim, step, rev, Content::Released { refusal }, ttl)
    };
    let mine = |rev, ttl| released(claim.fingerprint, rev, refusal.clone(), ttl);
    match current {
        // A late acquire of this lease must find it.
        None => mine(1, RELEASED_FOR),
        Some((record, left)) => match &record.content {
            Content::Released { .. } if (record.lease, record.step) == (claim.lease, step) => {
                Next::Keep(Answer::Done)
            }
            // Raises the revision, so that a late take-over of this lease does not apply. A
            // refusal that stays keeps the fingerprint of its own request. The rest of a
            // forgotten outcome's time to live is not shortened.
            Content::Released { refusal: theirs } => {
                let (rev, ttl) = (record.rev + 1, left.max(RELEASED_FOR));
                match (refusal, theirs) {
                    (None, Some(_)) => released(record.fingerprint, rev, theirs.clone(), ttl),
                    _ => mine(rev, ttl),
                }
            }
            Content::Locked { .. } | Content::Indeterminate { .. }
                if record.lease == claim.lease =>
            {
                if step > record.step {
                    mine(record.rev + 1, RELEASED_FOR)
                } else {
                    Next::Keep(Answer::StaleStep)
                }
            }
            _ => Next::Keep(Answer::NotHolder),
        },
    }
}

fn abandon(
    current: Option<(&Record, Duration)>,
    claim: &Claim,
    step: u32,
    content: Content,
) -> Next {
    let Some((record, _)) = current else {
        return write(claim, step, 1, content, claim.retention);
    };
    match record.content {
        _ if record.lease != claim.lease => Next::Keep(Answer::NotHolder),
        Content::Indeterminate { .. } => Next::Keep(Answer::Done),
        Content::Locked { .. } if step > record.step => {
            write(claim, step, record.rev + 1, content, record.retention)
        }
        Content::Locked { .. } => Next::Keep(Answer::StaleStep),
        _ => Next::Keep(Answer::NotHolder),
    }
}

/// Whether this record belongs to another request and the key is not free.
fn differs(record: &Record, left: Duration, claim: &Claim) -> bool {
    let free = match record.content {
        Content::Released { .. } => true,
        Content::Locked { phase, .. } => phase == Phase::Claimed && left <= record.retention,
        Content::Cached { .. } | Content::Indeterminate { .. } => false,
    };
    !free && record.fingerprint != claim.fingerprint
}

fn is(current: Option<(&Record, Duration)>) -> Answer {
    Answer::Is(current.map(|(record, left)| record.state(left)))
}

fn locked(claim: &Claim, step: u32, rev: u64, phase: Phase) -> Next {
    let record = Record {
        rev,
        lease: claim.lease,
        step,
        lease_ttl: claim.lease_ttl,
        retention: claim.retention,
        fingerprint: claim.fingerprint,
        content: Content::Locked {
            phase,
            attempts: claim.attempts,
            about: claim.about.clone(),
        },
    };
    Next::Write(record, claim.lease_ttl + claim.retention, Answer::Done)
}

fn write(claim: &Claim, step: u32, rev: u64, content: Content, ttl: Duration) -> Next {
    let record = Record {
        rev,
        lease: claim.lease,
        step,
        lease_ttl: claim.lease_ttl,
        retention: ttl,
        fingerprint: claim.fingerprint,
        content,
    };
    Next::Write(record, ttl, Answer::Done)
}

mod resolution;
#[cfg(test)]
mod tests;
