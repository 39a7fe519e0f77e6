//! Events as Redis commands: `SET … NX GET` for an acquire, and a script for each other
//! event. It composes no record: `record` does.

use std::time::Duration;

use redis::{Cmd, Value};

use super::bodies::{Body, BodyStore};
use super::read::{look_once, whole};
use super::script_reply::{ScriptReply, read_reply};
use super::scripts::{self, MAX_RECORD_BYTES, Script, ScriptArgs};
use super::stored_record::{MAX_TTL, StoredRecord, TOO_LARGE};
use crate::error::StoreError;
use crate::key::{LeaseId, Namespace, RecordName};
use crate::outcome::StoredBody;
use crate::record::{self, Answer, Claim, Content, Event, Phase, RELEASED_FOR};
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::monitored_stream::MAX_BODY_BYTES;
use crate::store::redis::connection::transport::Transport;

/// How often an acquire starts over when the record that it found expires before it is
/// read.
const MAX_ACQUIRES: usize = 3;

/// Room for the first line of a record, which the scripts write.
const HEADER_ROOM: usize = 256;

/// The error for a body over [`MAX_BODY_BYTES`].
const TOO_LONG: &str = "the body is larger than 32 MiB";

/// Applies one event. It builds the command at once, not when the future is first polled:
/// the future would contain the event as well.
pub(crate) fn apply<C: Transport>(
    transport: &C,
    body_store: BodyStore<'_>,
    name: &RecordName,
    event: Event,
) -> impl Future<Output = Result<Answer, StoreError>> + Send {
    let key = name.text();
    let command = EventCommand::of(name, &key, event);
    async move {
        match &command {
            EventCommand::Acquire(claim, Some(set)) => {
                acquire(transport, body_store, name, &key, claim, set).await
            }
            EventCommand::Acquire(_, None) => {
                Err(StoreError::refused("an absent key was not acquired"))
            }
            EventCommand::Script(script, args, body) => {
                // The holder then completes without the body.
                if args.bytes() + HEADER_ROOM > MAX_RECORD_BYTES {
                    return Err(StoreError::refused(TOO_LARGE));
                }
                let mut reply = read_reply(name, script.run(transport, &key, args).await?)?;
                // Only after this reply: an outcome that is already recorded, or of
                // another holder, needs no body.
                if let (ScriptReply::BodyMissing, Some(body)) = (&reply, body) {
                    if body.bytes() > MAX_BODY_BYTES {
                        return Err(StoreError::refused(TOO_LONG));
                    }
                    Box::pin(body_store.put(&key, body)).await?;
                    let again = Box::pin(script.run(transport, &key, args)).await?;
                    reply = read_reply(name, again)?;
                    if !matches!(reply, ScriptReply::BodyMissing) {
                        body_store.forget_sends(body);
                    }
                }
                match reply {
                    ScriptReply::Answer(answer) => Ok(answer),
                    ScriptReply::Is(found) => {
                        let whole = Box::pin(whole(found, transport, body_store, name, &key));
                        Ok(Answer::Is(whole.await?))
                    }
                    ScriptReply::BodyMissing => Err(StoreError::unavailable(
                        "the body was removed while the outcome was written",
                    )),
                }
            }
        }
    }
}

/// The command for an event.
enum EventCommand {
    /// `None` where `record` does not acquire an absent key.
    Acquire(Claim, Option<Cmd>),
    /// With the body of an outcome that is stored separately.
    Script(&'static Script, ScriptArgs, Option<Body>),
}

impl EventCommand {
    fn of(name: &RecordName, key: &str, event: Event) -> Self {
        let mut separate_body = None;
        let (script, args): (&Script, ScriptArgs) = match event {
            Event::Acquire { claim } => {
                let claim = in_millis(claim);
                let set = set_if_absent(name, key, &claim);
                return Self::Acquire(claim, set);
            }
            Event::TakeOver {
                claim,
                revision,
                watched,
            } => {
                let claim = in_millis(claim);
                let args = terms(&claim, 0).word(revision.lease).word(revision.rev);
                let args = args.word(if watched { "watched" } else { "" });
                let locked = locked(&claim, Phase::Claimed);
                (&scripts::TAKE_OVER, args.content(name, &locked))
            }
            Event::Extend { claim, dispatched } => {
                let claim = in_millis(claim);
                let args = terms(&claim, 0);
                let args = match dispatched {
                    Some(step) => args.word(step),
                    None => args.word(""),
                };
                let locked = locked(&claim, Phase::Dispatched);
                (&scripts::EXTEND, args.content(name, &locked))
            }
            Event::Enter { claim, step, phase } => {
                let claim = in_millis(claim);
                let args = terms(&claim, 0).word(step).word(phase.word());
                let locked = locked(&claim, phase);
                (&scripts::ENTER, args.content(name, &locked))
            }
            Event::Complete {
                claim,
                step,
                stored,
                origin,
                ttl,
            } => {
                let content = Content::Cached { stored, origin };
                let (lease, args) = (claim.lease, terms(&in_millis(claim), content.room()));
                let args = args.word(step).word(millis(ttl));
                let (args, body) = outcome_args(args, name, lease, &content, ttl);
                separate_body = body;
                (&scripts::COMPLETE, args)
            }
            Event::Release {
                claim,
                step,
                refusal,
            } => {
                let content = Content::Released { refusal };
                let args = terms(&in_millis(claim), content.room());
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
                let args = terms(&in_millis(claim), content.room());
                (&scripts::ABANDON, args.word(step).content(name, &content))
            }
            Event::Resolve {
                lease,
                revision,
                fingerprint,
                resolution,
                origin,
                ttl,
            } => {
                let (lease, content, ttl) = match resolution.outcome() {
                    None => {
                        let content = Content::Released { refusal: None };
                        (revision.lease, content, RELEASED_FOR)
                    }
                    Some(stored) => {
                        let stored = stored.clone();
                        let content = Content::Cached { stored, origin };
                        (lease, content, ttl)
                    }
                };
                let args = ScriptArgs::with_room(content.room());
                let args = args
                    .word(revision.lease)
                    .word(revision.rev)
                    .word(fingerprint);
                let args = args.word(content.words().0).word(lease).word(millis(ttl));
                let (args, body) = outcome_args(args, name, lease, &content, ttl);
                separate_body = body;
                (&scripts::RESOLVE, args)
            }
            Event::Forget { lease } => {
                let content = Content::Released { refusal: None };
                let args = ScriptArgs::with_room(content.room()).word(lease);
                (&scripts::FORGET, args.content(name, &content))
            }
        };
        Self::Script(script, args, separate_body)
    }
}

/// The arguments for an outcome, and its body where that is stored separately. A reduced
/// outcome removes a separate body; a sealed outcome might be reduced.
fn outcome_args(
    args: ScriptArgs,
    name: &RecordName,
    lease: LeaseId,
    content: &Content,
    ttl: Duration,
) -> (ScriptArgs, Option<Body>) {
    let limit = MAX_RECORD_BYTES.saturating_sub(args.bytes() + 2 * HEADER_ROOM);
    let (args, body) = args.parted(name, content, limit);
    let is_reduced = matches!(
        content,
        Content::Cached { stored, .. }
            if stored.body != StoredBody::Full || stored.outcome.is_sealed()
    );
    match body.map(|body| Body::new(name, lease, body, millis(ttl))) {
        Some(body) => (args.word(body.bytes()), Some(body)),
        None if is_reduced => (args.word(0_u32), None),
        None => (args, None),
    }
}

/// The command that acquires an absent key.
fn set_if_absent(name: &RecordName, key: &str, claim: &Claim) -> Option<Cmd> {
    let claim = claim.clone();
    let (record, left) = record::apply(None, &Event::Acquire { claim }).0?;
    let record = record.encode(name);
    let mut set = Cmd::with_capacity(7, key.len() + record.len() + 32);
    set.arg("SET").arg(key).arg(record).arg("NX").arg("GET");
    set.arg("PX").arg(millis(left));
    Some(set)
}

/// Whether this process may walk through a namespace's records; no other may for `period`.
/// The key is no record's, and the same for all shards, since a walk visits all of them.
pub(crate) async fn walk_turn(
    transport: &impl Transport,
    namespace: &Namespace,
    period: Duration,
) -> Result<bool, StoreError> {
    let key = format!("genesys-once:{namespace}:walk");
    let mut set = redis::cmd("SET");
    set.arg(&key).arg(1).arg("NX").arg("PX").arg(millis(period));
    Ok(transport.command(&key, &set).await? != Value::Nil)
}

/// The answer of an acquire that writes nothing; `None` where it would write.
pub(crate) async fn found(
    transport: &impl Transport,
    body_store: BodyStore<'_>,
    name: &RecordName,
    claim: &Claim,
) -> Result<Option<Answer>, StoreError> {
    let key = name.text();
    match look_once(transport, name, &key).await? {
        Some(found) => answer_from(claim, found, transport, body_store, name, &key).await,
        None => Ok(None),
    }
}

async fn acquire(
    transport: &impl Transport,
    body_store: BodyStore<'_>,
    name: &RecordName,
    key: &str,
    claim: &Claim,
    set: &Cmd,
) -> Result<Answer, StoreError> {
    for _ in 0..MAX_ACQUIRES {
        match transport.command(key, set).await {
            Ok(Value::Nil) => return Ok(Answer::Done),
            Ok(Value::BulkString(bytes)) => {
                let found = StoredRecord::read(name, &bytes, 0)?;
                // A replay needs no exact times, so one round trip is enough.
                if found.is_cached() {
                    let answer =
                        answer_from(claim, found, transport, body_store, name, key).await?;
                    if let Some(answer) = answer {
                        return Ok(answer);
                    }
                }
            }
            Ok(_) => return Err(CommandError::unexpected().into()),
            // A full server, or a replica, still replays.
            Err(refusal) if refusal.refusal().is_some() => {
                let found = Box::pin(found(transport, body_store, name, claim)).await?;
                return found.ok_or_else(|| refusal.into());
            }
            Err(failure) => return Err(failure.into()),
        }
        if let Some(answer) = Box::pin(found(transport, body_store, name, claim)).await? {
            return Ok(answer);
        }
    }
    Err(StoreError::unavailable(
        "the record expired on each of 3 attempts to read it",
    ))
}

/// The answer of an acquire that found this record; `None` where the record is gone.
async fn answer_from(
    claim: &Claim,
    found: StoredRecord,
    transport: &impl Transport,
    body_store: BodyStore<'_>,
    name: &RecordName,
    key: &str,
) -> Result<Option<Answer>, StoreError> {
    if !found.is_for(claim) {
        return Ok(Some(Answer::Mismatch));
    }
    if !found.has_body_apart() {
        return Ok(Some(Answer::Is(Some(found.state()))));
    }
    let whole = Box::pin(whole(found, transport, body_store, name, key)).await?;
    Ok(whole.map(
        |state| match state.is_free() || state.fingerprint() == claim.fingerprint {
            true => Answer::Is(Some(state)),
            false => Answer::Mismatch,
        },
    ))
}

/// The content of a holder's record; scripts take the part after the first line.
fn locked(claim: &Claim, phase: Phase) -> Content {
    Content::Locked {
        phase,
        attempts: claim.attempts,
        about: claim.about.clone(),
    }
}

/// A claim in whole milliseconds, as Redis has them. Rounded up: a lease must not expire
/// before its holder expects it.
fn in_millis(claim: Claim) -> Claim {
    let whole = |time| Duration::from_millis(millis(time));
    Claim {
        lease_ttl: whole(claim.lease_ttl),
        retention: whole(claim.retention),
        ..claim
    }
}

fn millis(time: Duration) -> u64 {
    // At least 1: Redis refuses to expire a key at once.
    time.min(MAX_TTL).as_nanos().div_ceil(1_000_000).max(1) as u64
}

/// The first arguments of every event of a holder, with room for so much content.
fn terms(claim: &Claim, content: usize) -> ScriptArgs {
    ScriptArgs::with_room(content)
        .word(claim.lease)
        .word(claim.fingerprint)
        .word(millis(claim.lease_ttl))
        .word(millis(claim.retention))
}
