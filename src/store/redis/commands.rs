//! The store's operations as commands of Redis: `SET … NX GET` for an acquire, one
//! script each for the other events and for a look. What a record holds is
//! always taken from `record`, never composed here.

use std::time::Duration;

use redis::{Cmd, Value};

use super::carrier::Carrier;
use super::failure::Failure;
use super::scripts::{self, Args, MAX_RECORD_BYTES, Script};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{
    self, Answer, Claim, Content, Event, Phase, RELEASED_FOR, Record, RecordState,
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

/// Applies one event. What is sent is put together at once, not when it is first
/// polled: the future would carry the event along as well.
pub(super) fn apply<C: Carrier>(
    link: &C,
    name: &RecordName,
    event: Event,
) -> impl Future<Output = Result<Answer, StoreError>> + Send {
    let key = name.to_string();
    let command = Command::of(name, &key, event);
    async move {
        match &command {
            Command::Acquire(claim, Some(set)) => acquire(link, name, &key, claim, set).await,
            Command::Acquire(_, None) => Err(StoreError::refused("an absent key was not acquired")),
            Command::Script(script, args) => {
                if args.bytes() + LINE > MAX_RECORD_BYTES {
                    // The holder completes without the body then.
                    return Err(StoreError::refused(TOO_LARGE));
                }
                read_answer(name, script.run(link, &key, args).await?)
            }
        }
    }
}

/// An event as it is sent.
enum Command {
    /// Nothing where no key is ever free.
    Acquire(Claim, Option<Cmd>),
    Script(&'static Script, Args),
}

impl Command {
    fn of(name: &RecordName, key: &str, event: Event) -> Self {
        let (script, args): (&Script, Args) = match event {
            Event::Acquire { claim } => {
                let claim = whole(claim);
                let set = set_if_absent(name, key, &claim);
                return Self::Acquire(claim, set);
            }
            Event::TakeOver {
                claim,
                seen,
                watched,
            } => {
                let claim = whole(claim);
                let args = terms(&claim, 0).word(seen.lease).word(seen.rev);
                let args = args.word(if watched { "watched" } else { "" });
                let locked = locked(&claim, Phase::Claimed);
                (&scripts::TAKE_OVER, args.content(name, &locked))
            }
            Event::Extend { claim, dispatched } => {
                let claim = whole(claim);
                let args = terms(&claim, 0);
                let args = match dispatched {
                    Some(step) => args.word(step),
                    None => args.word(""),
                };
                let locked = locked(&claim, Phase::Dispatched);
                (&scripts::EXTEND, args.content(name, &locked))
            }
            Event::Enter { claim, step, phase } => {
                let claim = whole(claim);
                let args = terms(&claim, 0).word(step).word(phase.word());
                let locked = locked(&claim, phase);
                (&scripts::ENTER, args.content(name, &locked))
            }
            Event::Complete {
                claim,
                step,
                outcome,
                kept,
                origin,
                ttl,
            } => {
                let content = Content::Cached {
                    outcome,
                    kept,
                    origin,
                };
                let args = terms(&whole(claim), content.room());
                let args = args.word(step).word(millis(ttl)).content(name, &content);
                (&scripts::COMPLETE, args)
            }
            Event::Release {
                claim,
                step,
                verdict,
            } => {
                let content = Content::Released { verdict };
                let args = terms(&whole(claim), content.room());
                let args = args.word(step).word(millis(RELEASED_FOR));
                let args = args.word(content.words().1);
                (&scripts::RELEASE, args.content(name, &content))
            }
            Event::Abandon { claim, step, cause } => {
                let content = Content::Indeterminate {
                    attempts: claim.attempts,
                    about: claim.about.clone(),
                    cause: Some(cause),
                };
                let args = terms(&whole(claim), content.room());
                (&scripts::ABANDON, args.word(step).content(name, &content))
            }
            Event::Resolve {
                lease,
                seen,
                fingerprint,
                resolution,
                origin,
                ttl,
            } => {
                let (lease, content, ttl) = match resolution.outcome() {
                    None => {
                        let content = Content::Released { verdict: None };
                        (seen.lease, content, RELEASED_FOR)
                    }
                    Some((outcome, kept)) => {
                        let outcome = outcome.clone();
                        let content = Content::Cached {
                            outcome,
                            kept,
                            origin,
                        };
                        (lease, content, ttl)
                    }
                };
                let args = Args::with_room(content.room());
                let args = args.word(seen.lease).word(seen.rev).word(fingerprint);
                let args = args.word(content.words().0).word(lease).word(millis(ttl));
                (&scripts::RESOLVE, args.content(name, &content))
            }
            Event::Forget { lease } => {
                let content = Content::Released { verdict: None };
                let args = Args::with_room(content.room()).word(lease);
                (&scripts::FORGET, args.content(name, &content))
            }
        };
        Self::Script(script, args)
    }
}

/// What takes an absent key, and writes what `record` says of it.
fn set_if_absent(name: &RecordName, key: &str, claim: &Claim) -> Option<Cmd> {
    let claim = claim.clone();
    let (record, left) = record::apply(None, &Event::Acquire { claim }).0?;
    let record = record.encode(name);
    let mut set = Cmd::with_capacity(7, key.len() + record.len() + 32);
    set.arg("SET").arg(key).arg(record).arg("NX").arg("GET");
    set.arg("PX").arg(millis(left));
    Some(set)
}

/// The record, read together with the time that it lives on.
pub(super) async fn look(
    link: &impl Carrier,
    name: &RecordName,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    let Value::Array(both) = scripts::LOOK.read(link, key).await? else {
        return Err(unexpected());
    };
    match both.as_slice() {
        [Value::Int(_)] => Err(StoreError::unreadable(TOO_LARGE)),
        [Value::Nil, _] => Ok(None),
        [Value::BulkString(bytes), Value::Int(left)] => read_state(name, bytes, *left).map(Some),
        _ => Err(unexpected()),
    }
}

/// What an acquire would answer without writing; `None` where it would write.
pub(super) async fn found(
    link: &impl Carrier,
    name: &RecordName,
    claim: &Claim,
) -> Result<Option<Answer>, StoreError> {
    let state = look(link, name, &name.to_string()).await?;
    Ok(state.map(|state| found_by(claim, state)))
}

async fn acquire(
    link: &impl Carrier,
    name: &RecordName,
    key: &str,
    claim: &Claim,
    set: &Cmd,
) -> Result<Answer, StoreError> {
    for _ in 0..ACQUIRES {
        match link.command(key, set).await {
            Ok(Value::Nil) => return Ok(Answer::Done),
            Ok(Value::BulkString(bytes)) => {
                let found = decode(name, &bytes)?;
                // A replay needs no exact times: one round trip is all it costs.
                if matches!(found.content, Content::Cached { .. }) {
                    return Ok(found_by(claim, found.state(Duration::ZERO)));
                }
            }
            Ok(_) => return Err(unexpected()),
            // A full server, or one that has become a replica, still replays.
            Err(refusal) if refusal.refusal().is_some() => {
                return match Box::pin(look(link, name, key)).await? {
                    Some(state) => Ok(found_by(claim, state)),
                    None => Err(refusal.into()),
                };
            }
            Err(failure) => return Err(failure.into()),
        }
        if let Some(state) = Box::pin(look(link, name, key)).await? {
            return Ok(found_by(claim, state));
        }
    }
    Err(StoreError::unavailable(
        "the record expired again and again while it was read",
    ))
}

/// What an acquire answers that found this record.
fn found_by(claim: &Claim, state: RecordState) -> Answer {
    match state.is_free() || state.fingerprint() == claim.fingerprint {
        true => Answer::Is(Some(state)),
        false => Answer::Mismatch,
    }
}

/// The content of a holder's record, of which scripts take what stands behind the
/// first line.
fn locked(claim: &Claim, phase: Phase) -> Content {
    Content::Locked {
        phase,
        attempts: claim.attempts,
        about: claim.about.clone(),
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

/// What every event of a holder begins with, and room for as much content.
fn terms(claim: &Claim, content: usize) -> Args {
    Args::with_room(content)
        .word(claim.lease)
        .word(claim.fingerprint)
        .word(millis(claim.lease_ttl))
        .word(millis(claim.retention))
}

/// What a script says became of the event.
fn read_answer(name: &RecordName, reply: Value) -> Result<Answer, StoreError> {
    let words = match reply {
        // The usual case, in the shortest form.
        Value::BulkString(word) if word == b"done" => return Ok(Answer::Done),
        Value::Array(words) => words,
        _ => return Err(unexpected()),
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
            Ok(Answer::Is(Some(read_state(name, bytes, *left)?)))
        }
        (b"lost", [Value::BulkString(bytes), Value::Int(left)]) => {
            Ok(Answer::Lost(read_state(name, bytes, *left)?))
        }
        (b"too-large", []) => Err(StoreError::unreadable(TOO_LARGE)),
        (b"unreadable", [Value::BulkString(line)]) => Err(match Record::decode(name, line) {
            Err(reason) => reason,
            Ok(_) => StoreError::unreadable("its first line is not spelled as this version does"),
        }),
        _ => Err(unexpected()),
    }
}

fn decode(name: &RecordName, bytes: &[u8]) -> Result<Record, StoreError> {
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(StoreError::unreadable(TOO_LARGE));
    }
    Record::decode(name, bytes)
}

fn read_state(name: &RecordName, bytes: &[u8], left: i64) -> Result<RecordState, StoreError> {
    // Nothing of ours lives for ever: somebody has changed the key, and the script
    // that found it gave it its own time again.
    let left = u64::try_from(left).map_or(CENTURY, Duration::from_millis);
    Ok(decode(name, bytes)?.state(left))
}

pub(super) fn unexpected() -> StoreError {
    StoreError::unavailable(Failure::unexpected_reply())
}

mod damaged;

pub(super) use self::damaged::{discard, unreadable};
