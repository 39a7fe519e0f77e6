//! The transition function. A rule that looks superfluous closes a path to a
//! second call, or to a key held for a request that was never sent;
//! `tests/protocol.rs` searches this very function for both, exhaustively.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Answer, Claim, Content, Event, Phase, RELEASED_FOR, Record, Refusal, Resolution, Seen,
};

/// A record and the time that it lives on, by the store's clock.
type Stored = (Record, Duration);

/// Applies one event to the record that a store holds for a key.
///
/// `current` is the record and the time that it still lives by the store's
/// clock, `None` where there is none or it has expired. The result is what the
/// store must hold afterwards, with the time that it then lives on, and the
/// answer for whoever asked. A store must do the reading, this call and the
/// writing as one atomic step.
pub fn apply(current: Option<(&Record, Duration)>, event: &Event) -> (Option<Stored>, Answer) {
    let next = match event {
        Event::Acquire { claim } => acquire(current, claim),
        Event::TakeOver { claim, seen, now } => {
            let since = *now;
            take_over(current, claim, *seen, |record| Content::Indeterminate {
                since,
                cause: Arc::from(format!(
                    "its holder (lease {}) was lost with a request under way",
                    record.lease
                )),
            })
        }
        Event::Extend { claim, dispatched } => extend(current, claim, *dispatched),
        Event::Enter { claim, step, phase } => enter(current, claim, *step, *phase),
        Event::Complete {
            claim,
            step,
            outcome,
            kept,
            ttl,
        } => {
            let content = Content::Cached {
                outcome: outcome.clone(),
                kept: *kept,
            };
            complete(current, claim, *step, content, *ttl)
        }
        Event::Release {
            claim,
            step,
            verdict,
        } => release(current, claim, *step, verdict),
        Event::Abandon {
            claim,
            step,
            since,
            cause,
        } => {
            let content = Content::Indeterminate {
                since: *since,
                cause: cause.clone(),
            };
            abandon(current, claim, *step, content)
        }
        Event::Resolve {
            seen,
            resolution,
            ttl,
        } => resolve(current, *seen, resolution, *ttl),
        Event::Forget => forget(current),
    };
    match next {
        Next::Keep(answer) => (current.map(|(record, left)| (record.clone(), left)), answer),
        Next::Write(record, left, answer) => (Some((record, left)), answer),
        Next::Remove => (None, Answer::Done),
    }
}

enum Next {
    Keep(Answer),
    Write(Record, Duration, Answer),
    Remove,
}

fn acquire(current: Option<(&Record, Duration)>, claim: &Claim) -> Next {
    match current {
        None => locked(claim, 0, 1, Phase::Dispatched),
        Some((record, _)) if differs(record, claim) => Next::Keep(Answer::Mismatch),
        Some(_) => Next::Keep(is(current)),
    }
}

fn take_over(
    current: Option<(&Record, Duration)>,
    claim: &Claim,
    seen: Seen,
    lost: impl FnOnce(&Record) -> Content,
) -> Next {
    let Some((record, left)) = current else {
        return Next::Keep(Answer::Is(None));
    };
    match record.content {
        // This very command, applied before its reply was lost.
        Content::Locked(Phase::Claimed) if record.lease == claim.lease && record.step == 0 => {
            Next::Keep(Answer::Done)
        }
        _ if differs(record, claim) => Next::Keep(Answer::Mismatch),
        // Somebody else wrote since: the asker must look again.
        _ if record.seen() != seen => Next::Keep(is(current)),
        Content::Released { .. } => locked(claim, 0, record.rev + 1, Phase::Claimed),
        Content::Locked(phase) if left <= record.retention => match phase {
            Phase::Claimed => locked(claim, 0, record.rev + 1, Phase::Claimed),
            // A request may be on the wire: never executable by itself.
            Phase::Dispatched => {
                let record = Record {
                    rev: record.rev + 1,
                    content: lost(record),
                    ..record.clone()
                };
                let left = record.retention;
                let answer = Answer::Is(Some(record.state(left)));
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
            Content::Locked(_) if record.lease == claim.lease => Next::Write(
                record.clone(),
                claim.lease_ttl + record.retention,
                Answer::Done,
            ),
            _ => Next::Keep(Answer::NotHolder),
        },
    }
}

fn enter(current: Option<(&Record, Duration)>, claim: &Claim, step: u32, phase: Phase) -> Next {
    let Some((record, _)) = current.filter(|(record, _)| record.lease == claim.lease) else {
        return Next::Keep(Answer::NotHolder);
    };
    match record.content {
        Content::Locked(now) if step == record.step && now == phase => Next::Write(
            record.clone(),
            claim.lease_ttl + record.retention,
            Answer::Done,
        ),
        Content::Locked(_) if step > record.step => locked(claim, step, record.rev + 1, phase),
        Content::Locked(_) => Next::Keep(Answer::StaleStep),
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
        // This very command, applied before its reply was lost.
        Some((
            Record {
                content: Content::Cached { .. },
                ..
            },
            _,
        )) => Next::Keep(Answer::Done),
        // Also from Indeterminate and Released: a late proof heals the record.
        Some((record, _)) => write(claim, step.max(record.step), record.rev + 1, content, ttl),
    }
}

fn release(
    current: Option<(&Record, Duration)>,
    claim: &Claim,
    step: u32,
    verdict: &Option<Refusal>,
) -> Next {
    let released = |rev, verdict| {
        write(
            claim,
            step,
            rev,
            Content::Released { verdict },
            RELEASED_FOR,
        )
    };
    match current {
        // So that an acquire of this lease that is still under way finds it.
        None => released(1, verdict.clone()),
        Some((record, _)) => match &record.content {
            Content::Released { .. } if (record.lease, record.step) == (claim.lease, step) => {
                Next::Keep(Answer::Done)
            }
            // Raises the revision, so that a take-over of this lease that is
            // still under way comes too late.
            Content::Released { verdict: theirs } => {
                released(record.rev + 1, verdict.clone().or_else(|| theirs.clone()))
            }
            Content::Locked(_) | Content::Indeterminate { .. } if record.lease == claim.lease => {
                if step > record.step {
                    released(record.rev + 1, verdict.clone())
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
        Content::Locked(_) if step > record.step => {
            write(claim, step, record.rev + 1, content, record.retention)
        }
        Content::Locked(_) => Next::Keep(Answer::StaleStep),
        _ => Next::Keep(Answer::NotHolder),
    }
}

fn resolve(
    current: Option<(&Record, Duration)>,
    seen: Seen,
    resolution: &Resolution,
    ttl: Duration,
) -> Next {
    let Some((record, _)) = current else {
        return Next::Keep(Answer::Is(None));
    };
    let (content, ttl) = match resolution.clone().into_outcome() {
        None => (Content::Released { verdict: None }, RELEASED_FOR),
        Some((outcome, kept)) => {
            let outcome = Arc::new(outcome);
            (Content::Cached { outcome, kept }, ttl)
        }
    };
    let next = Seen {
        rev: seen.rev.saturating_add(1),
        lease: seen.lease,
    };
    match &record.content {
        Content::Indeterminate { .. } if record.seen() == seen => {
            let record = Record {
                rev: next.rev,
                retention: ttl,
                content,
                ..record.clone()
            };
            Next::Write(record, ttl, Answer::Done)
        }
        // This very command, applied before its reply was lost.
        now if record.seen() == next
            && std::mem::discriminant(now) == std::mem::discriminant(&content) =>
        {
            Next::Keep(Answer::Done)
        }
        _ => Next::Keep(is(current)),
    }
}

fn forget(current: Option<(&Record, Duration)>) -> Next {
    match current {
        Some((
            Record {
                content: Content::Cached { .. },
                ..
            },
            _,
        )) => Next::Remove,
        _ => Next::Keep(is(current)),
    }
}

/// Whether an answer from this record would be somebody else's.
fn differs(record: &Record, claim: &Claim) -> bool {
    !matches!(record.content, Content::Released { .. }) && record.fingerprint != claim.fingerprint
}

fn is(current: Option<(&Record, Duration)>) -> Answer {
    Answer::Is(current.map(|(record, left)| record.state(left)))
}

fn locked(claim: &Claim, step: u32, rev: u64, phase: Phase) -> Next {
    let record = Record {
        rev,
        lease: claim.lease,
        step,
        retention: claim.retention,
        fingerprint: claim.fingerprint,
        content: Content::Locked(phase),
    };
    Next::Write(record, claim.lease_ttl + claim.retention, Answer::Done)
}

fn write(claim: &Claim, step: u32, rev: u64, content: Content, ttl: Duration) -> Next {
    let record = Record {
        rev,
        lease: claim.lease,
        step,
        retention: ttl,
        fingerprint: claim.fingerprint,
        content,
    };
    Next::Write(record, ttl, Answer::Done)
}
