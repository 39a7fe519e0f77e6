//! The store's operations as commands of Redis: `SET … NX GET` for an acquire, one
//! script each for the other events and for a look. What a record holds is
//! always taken from `record`, never composed here.

use std::time::Duration;

use redis::{Value, cmd};

use super::failure::Failure;
use super::link::Carrier;
use super::scripts::{self, MAX_RECORD_BYTES, Script};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{
    self, Answer, Claim, Content, Event, Phase, RELEASED_FOR, Record, RecordState, Seen,
};

/// For ever, in practice: what lies beyond it could overflow Redis's clock.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How often an acquire starts over when the record that it met expires before
/// it is read: twice in a row is next to impossible.
const ACQUIRES: usize = 3;

/// Room for the first line of a record, which the scripts compose.
const LINE: usize = 256;

/// Of a record beyond [`MAX_RECORD_BYTES`].
const TOO_LARGE: &str = "the record is larger than 32 MiB";

/// Applies one event.
pub(super) async fn apply(
    link: &impl Carrier,
    name: &RecordName,
    event: Event,
) -> Result<Answer, StoreError> {
    let key = name.to_string();
    let (script, args): (&Script, _) = match event {
        Event::Acquire { claim } => return acquire(link, &key, whole(claim)).await,
        Event::TakeOver { claim, seen, now } => {
            let claim = whole(claim);
            let lost = lost_holder(claim, seen, now);
            let seen = [text(seen.lease), text(seen.rev)];
            (
                &scripts::TAKE_OVER,
                terms(&claim, seen.into_iter().chain([lost])),
            )
        }
        Event::Extend { claim, dispatched } => {
            let step = dispatched.map(text).unwrap_or_default();
            (&scripts::EXTEND, terms(&whole(claim), [step]))
        }
        Event::Enter { claim, step, phase } => {
            let phase = match phase {
                Phase::Claimed => "claimed",
                Phase::Dispatched => "dispatched",
            };
            (
                &scripts::ENTER,
                terms(&whole(claim), [text(step), text(phase)]),
            )
        }
        Event::Complete {
            claim,
            step,
            outcome,
            kept,
            ttl,
        } => {
            let content = Content::Cached { outcome, kept }.encode();
            (
                &scripts::COMPLETE,
                terms(&whole(claim), [text(step), text(millis(ttl)), content]),
            )
        }
        Event::Release {
            claim,
            step,
            verdict,
        } => {
            let content = Content::Released { verdict }.encode();
            let ttl = text(millis(RELEASED_FOR));
            (
                &scripts::RELEASE,
                terms(&whole(claim), [text(step), ttl, content]),
            )
        }
        Event::Abandon {
            claim,
            step,
            since,
            cause,
        } => {
            let content = Content::Indeterminate { since, cause }.encode();
            (
                &scripts::ABANDON,
                terms(&whole(claim), [text(step), content]),
            )
        }
        Event::Resolve {
            seen,
            resolution,
            ttl,
        } => {
            let (word, content, ttl) = match resolution.into_outcome() {
                None => (
                    "released",
                    Content::Released { verdict: None },
                    RELEASED_FOR,
                ),
                Some((outcome, kept)) => {
                    let outcome = outcome.into();
                    ("cached", Content::Cached { outcome, kept }, ttl)
                }
            };
            let (rev, next) = (seen.rev, seen.rev.saturating_add(1));
            let seen = [text(seen.lease), text(rev), text(next)];
            let new = [text(word), text(millis(ttl)), content.encode()];
            (&scripts::RESOLVE, seen.into_iter().chain(new).collect())
        }
        Event::Forget => (&scripts::FORGET, Vec::new()),
    };
    let bytes: usize = args.iter().map(Vec::len).sum();
    if bytes + LINE > MAX_RECORD_BYTES {
        // The holder completes without the body then.
        return Err(StoreError::refused(TOO_LARGE));
    }
    let reply = script.run(link, &key, &args).await?;
    read_answer(reply)
}

/// The record, read together with the time that it lives on.
pub(super) async fn look(
    link: &impl Carrier,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    let Value::Array(both) = scripts::LOOK.read(link, key).await? else {
        return Err(unexpected());
    };
    match both.as_slice() {
        [Value::Int(_)] => Err(StoreError::unreadable(TOO_LARGE)),
        [Value::Nil, _] => Ok(None),
        [Value::BulkString(bytes), Value::Int(left)] => read_state(bytes, *left).map(Some),
        _ => Err(unexpected()),
    }
}

/// What an acquire would answer without writing; `None` where it would write.
pub(super) async fn found(
    link: &impl Carrier,
    name: &RecordName,
    claim: &Claim,
) -> Result<Option<Answer>, StoreError> {
    let state = look(link, &name.to_string()).await?;
    Ok(state.map(|state| found_by(claim, state)))
}

async fn acquire(link: &impl Carrier, key: &str, claim: Claim) -> Result<Answer, StoreError> {
    let (Some((record, left)), _) = record::apply(None, &Event::Acquire { claim }) else {
        return Err(StoreError::refused("an absent key was not acquired"));
    };
    let mut set = cmd("SET");
    set.arg(key).arg(record.encode()).arg("NX").arg("GET");
    set.arg("PX").arg(millis(left));
    for _ in 0..ACQUIRES {
        match link.command(key, set.clone()).await {
            Ok(Value::Nil) => return Ok(Answer::Done),
            Ok(Value::BulkString(bytes)) => {
                let found = decode(&bytes)?;
                // A replay needs no exact times: one round trip is all it costs.
                if matches!(found.content, Content::Cached { .. }) {
                    return Ok(found_by(&claim, found.state(Duration::ZERO)));
                }
            }
            Ok(_) => return Err(unexpected()),
            // A full server, or one that has become a replica, still replays.
            Err(refusal) if refusal.is_refusal() => {
                return match look(link, key).await? {
                    Some(state) => Ok(found_by(&claim, state)),
                    None => Err(refusal.into()),
                };
            }
            Err(failure) => return Err(failure.into()),
        }
        if let Some(state) = look(link, key).await? {
            return Ok(found_by(&claim, state));
        }
    }
    Err(StoreError::unavailable(
        "the record expired again and again while it was read",
    ))
}

/// What an acquire answers that found this record.
fn found_by(claim: &Claim, state: RecordState) -> Answer {
    match state.fingerprint() {
        Some(theirs) if theirs != claim.fingerprint => Answer::Mismatch,
        _ => Answer::Is(Some(state)),
    }
}

/// The content that a take-over writes where the holder was lost with a request
/// under way, as `record::apply` words it.
fn lost_holder(claim: Claim, seen: Seen, now: std::time::SystemTime) -> Vec<u8> {
    let lost = Record {
        rev: seen.rev,
        lease: seen.lease,
        step: 0,
        retention: Duration::ZERO,
        fingerprint: claim.fingerprint,
        content: Content::Locked(Phase::Dispatched),
    };
    let event = Event::TakeOver { claim, seen, now };
    match record::apply(Some((&lost, Duration::ZERO)), &event).0 {
        Some((record, _)) => record.content.encode(),
        None => Vec::new(),
    }
}

/// A claim in whole milliseconds, which are Redis's: rounded up, since a lease
/// must not lapse before its holder thinks that it does.
fn whole(claim: Claim) -> Claim {
    let whole = |time| Duration::from_millis(millis(time));
    Claim {
        lease_ttl: whole(claim.lease_ttl),
        retention: whole(claim.retention),
        ..claim
    }
}

fn millis(time: Duration) -> u64 {
    // At least 1: Redis refuses to expire a key at once.
    time.min(CENTURY).as_nanos().div_ceil(1_000_000).max(1) as u64
}

fn terms(claim: &Claim, rest: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let terms = [
        text(claim.lease),
        text(claim.fingerprint),
        text(millis(claim.lease_ttl)),
        text(millis(claim.retention)),
    ];
    terms.into_iter().chain(rest).collect()
}

fn text(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// What a script says became of the event.
fn read_answer(reply: Value) -> Result<Answer, StoreError> {
    let Value::Array(words) = reply else {
        return Err(unexpected());
    };
    let Some(Value::BulkString(word)) = words.first() else {
        return Err(unexpected());
    };
    match (word.as_slice(), &words[1..]) {
        (b"done", []) => Ok(Answer::Done),
        (b"not-holder", []) => Ok(Answer::NotHolder),
        (b"stale-step", []) => Ok(Answer::StaleStep),
        (b"mismatch", []) => Ok(Answer::Mismatch),
        (b"is", []) => Ok(Answer::Is(None)),
        (b"is", [Value::BulkString(bytes), Value::Int(left)]) => {
            Ok(Answer::Is(Some(read_state(bytes, *left)?)))
        }
        (b"too-large", []) => Err(StoreError::unreadable(TOO_LARGE)),
        (b"unreadable", [Value::BulkString(line)]) => Err(match Record::decode(line) {
            Err(reason) => reason,
            Ok(_) => StoreError::unreadable("its first line is not spelled as this version does"),
        }),
        _ => Err(unexpected()),
    }
}

fn decode(bytes: &[u8]) -> Result<Record, StoreError> {
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(StoreError::unreadable(TOO_LARGE));
    }
    Record::decode(bytes)
}

fn read_state(bytes: &[u8], left: i64) -> Result<RecordState, StoreError> {
    let record = decode(bytes)?;
    let left = match u64::try_from(left) {
        Ok(left) => Duration::from_millis(left),
        // Nothing of ours lives for ever: somebody has changed the key. A lease
        // that never lapses would hold it for good, so nobody is told it is one.
        Err(_) if matches!(record.content, Content::Locked(_)) => {
            return Err(StoreError::unreadable("its key was made to live for ever"));
        }
        Err(_) => CENTURY,
    };
    Ok(record.state(left))
}

pub(super) fn unexpected() -> StoreError {
    StoreError::unavailable(Failure::unexpected_reply())
}
