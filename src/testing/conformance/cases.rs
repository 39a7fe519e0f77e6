//! The transition table, line by line, with repeats and late commands. The reference of each
//! trial compares the rest of the record; nothing here does.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::trial::{LONG, Move, SHORT, Version, Wanted, holder, origin, resolved, whichever};
use crate::outcome::Outcome;
use crate::record::Phase::{Claimed, Dispatched};
use crate::record::{
    Attempts, Cause, Claim, Event, LeaseId, Phase, Refusal, Resolution, Revision, StoredOutcome,
};

use Wanted::{
    Absent, Cached, Done, Expired, Held, Indeterminate, Mismatch, NotHolder, Released, StaleStep,
};

/// A name and its events, each with what is to come of it.
pub(super) type Case = (&'static str, Vec<(Move, Wanted)>);

#[rustfmt::skip]
pub(super) fn all() -> Vec<Case> {
    let (a, b, x) = (&holder(b'A'), &holder(b'B'), &holder(b'X'));
    let refused = || Some(Refusal::Refused(outcome("no").into()));
    let limited = Some(Refusal::RateLimited { retry_after: Duration::from_millis(1500) });
    vec![
        ("an absent key is acquired, and held",
            vec![(acquire(a), Done), (acquire(b), Held(Dispatched)), (acquire(a), Held(Dispatched))]),
        ("an expired lease is seen, not acquired",
            vec![(acquire(short(a)), Done), (acquire(b), Expired(Dispatched)), (acquire(a), Expired(Dispatched))]),
        ("a record is gone after its retention",
            vec![(acquire(fleeting(a)), Done), (acquire(b), Done)]),
        ("another request under the same key is refused unless the key is free",
            vec![(acquire(a), Done), (acquire(x), Mismatch), (take_over(x), Mismatch),
                (enter(a, 1, Claimed), Done), (acquire(x), Mismatch), (take_over(x), Mismatch),
                (abandon(a, 2), Done), (acquire(x), Mismatch), (take_over(x), Mismatch),
                (complete(a, 2), Done), (acquire(x), Mismatch), (take_over(x), Mismatch)]),
        ("another request is refused also after the lease expired in Dispatched, and changes nothing",
            vec![(acquire(short(a)), Done), (acquire(x), Mismatch), (take_over(x), Mismatch), (acquire(b), Expired(Dispatched))]),
        ("a lease that expired in Claimed leaves the key free for anything",
            vec![(acquire(a), Done), (enter(short(a), 1, Claimed), Done), (acquire(x), Expired(Claimed)), (take_over(x), Done),
                (enter(a, 2, Dispatched), NotHolder), (acquire(a), Mismatch)]),
        ("a lease takes nothing that it gave back",
            vec![(acquire(a), Done), (release(a, 1, None), Done), (take_over(a), Released), (take_over(b), Done)]),
        ("a released key may be asked for anything",
            vec![(acquire(a), Done), (release(a, 1, None), Done), (acquire(x), Released), (take_over(x), Done)]),

        ("an absent key is not taken over", vec![(take_over(b), Absent), (acquire(a), Done)]),
        ("a live lease is not taken over",
            vec![(acquire(a), Done), (take_over(b), Held(Dispatched)),
                (enter(a, 1, Claimed), Done), (take_over(b), Held(Claimed))]),
        ("a live lease is taken over by a waiter that has seen its version for the whole lease",
            vec![(acquire(a), Done), (enter(a, 1, Claimed), Done), (watched(foreign(take_over(b))), Held(Claimed)),
                (watched(again(take_over(b))), Held(Claimed)), (watched(take_over(b)), Done), (extend(a, None), NotHolder)]),
        ("a live lease in Dispatched becomes indeterminate for a waiter that has seen its version for the whole lease",
            vec![(acquire(a), Done), (watched(take_over(x)), Mismatch), (watched(take_over(b)), Indeterminate), (complete(a, 0), Done)]),
        ("extend and enter raise the revision, so that no live lease is taken for an expired one",
            vec![(acquire(a), Done), (extend(a, Some(0)), Done), (watched(again(take_over(b))), Held(Dispatched)),
                (enter(a, 1, Claimed), Done), (enter(a, 1, Claimed), Done), (watched(again(take_over(b))), Held(Claimed)),
                (extend(a, None), Done), (watched(again(take_over(b))), Held(Claimed)), (watched(take_over(b)), Done)]),
        ("a lease that expired in Claimed is taken over, and its holder is out",
            vec![(acquire(a), Done), (enter(short(a), 1, Claimed), Done), (take_over(b), Done),
                (extend(a, None), NotHolder), (extend(a, Some(1)), NotHolder), (enter(a, 2, Dispatched), NotHolder),
                (complete(a, 1), NotHolder), (release(a, 2, None), NotHolder), (abandon(a, 2), NotHolder),
                (enter(b, 1, Dispatched), Done), (complete(b, 1), Done)]),
        ("a lease that expired in Dispatched becomes indeterminate, for good",
            vec![(acquire(short(a)), Done), (take_over(b), Indeterminate), (take_over(b), Indeterminate),
                (again(take_over(b)), Indeterminate), (acquire(b), Indeterminate), (acquire(a), Indeterminate)]),
        ("a released key is taken over once",
            vec![(acquire(a), Done), (release(a, 1, None), Done), (take_over(b), Done),
                (again(take_over(a)), Held(Claimed)), (take_over(a), Held(Claimed))]),
        ("a take-over sent again finds its own lease, until that has moved on",
            vec![(release(a, 1, None), Done), (take_over(b), Done), (again(take_over(b)), Done),
                (enter(b, 1, Claimed), Done), (again(take_over(b)), Held(Claimed)),
                (enter(b, 2, Dispatched), Done), (again(take_over(b)), Held(Dispatched))]),
        ("a take-over of a version that is gone does nothing",
            vec![(release(a, 1, None), Done), (release(b, 1, None), Done), (again(take_over(b)), Released),
                (foreign(take_over(b)), Released), (take_over(a), Done)]),
        ("a recorded outcome is not taken over",
            vec![(acquire(a), Done), (complete(a, 0), Done), (take_over(b), Cached)]),

        ("extend keeps a lease alive, its own only",
            vec![(acquire(a), Done), (extend(b, Some(0)), NotHolder), (extend(short(a), None), Done),
                (acquire(b), Expired(Dispatched)), (extend(a, None), Done), (take_over(b), Held(Dispatched))]),
        ("extend changes no phase and no step",
            vec![(acquire(a), Done), (enter(a, 3, Claimed), Done), (extend(a, Some(9)), Done),
                (acquire(b), Held(Claimed)), (enter(a, 3, Dispatched), StaleStep), (enter(a, 4, Dispatched), Done)]),
        ("extend keeps the retention that the record was written with",
            vec![(acquire(a), Done), (extend(Claim { retention: SHORT, ..short(a) }, None), Done),
                (acquire(b), Expired(Dispatched))]),
        ("extend puts an absent record back in Dispatched",
            vec![(extend(a, None), NotHolder), (extend(a, Some(3)), Done), (acquire(b), Held(Dispatched)),
                (enter(a, 3, Dispatched), Done), (enter(a, 2, Claimed), StaleStep), (enter(a, 4, Claimed), Done)]),
        ("extend revives no finished record",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (extend(a, Some(1)), NotHolder),
                (release(a, 2, None), Done), (extend(a, Some(2)), NotHolder),
                (complete(a, 2), Done), (extend(a, Some(2)), NotHolder)]),

        ("enter never puts an absent record back",
            vec![(enter(a, 1, Claimed), NotHolder), (enter(a, 1, Dispatched), NotHolder), (acquire(b), Done)]),
        ("only a higher step changes the phase",
            vec![(acquire(a), Done), (enter(a, 0, Claimed), StaleStep), (enter(a, 2, Claimed), Done),
                (enter(a, 2, Claimed), Done), (enter(a, 2, Dispatched), StaleStep), (enter(a, 1, Dispatched), StaleStep),
                (enter(a, 10, Dispatched), Done), (enter(a, 9, Claimed), StaleStep), (enter(a, 4_294_967_295, Claimed), Done)]),
        ("enter begins the lease again",
            vec![(acquire(short(a)), Done), (enter(a, 1, Claimed), Done), (take_over(b), Held(Claimed)),
                (enter(short(a), 1, Claimed), Done), (acquire(b), Expired(Claimed))]),
        ("enter is the holder's alone, while it holds",
            vec![(acquire(a), Done), (enter(b, 9, Claimed), NotHolder), (abandon(a, 1), Done), (enter(a, 9, Claimed), NotHolder),
                (release(a, 2, None), Done), (enter(a, 9, Claimed), NotHolder),
                (complete(a, 2), Done), (enter(a, 9, Claimed), NotHolder)]),

        ("an outcome is recorded once and replayed",
            vec![(acquire(a), Done), (complete(a, 0), Done), (acquire(b), Cached), (acquire(a), Cached),
                (complete(a, 0), Done), (complete_with(a, 5, outcome("another").into()), Done), (acquire(b), Cached),
                (complete(b, 0), NotHolder), (abandon(a, 9), NotHolder), (release(a, 9, None), NotHolder)]),
        ("an outcome is kept for its time",
            vec![(acquire(a), Done), (complete_for(a, 0, SHORT), Done), (acquire(b), Done)]),
        ("a late outcome of an expired lease is recorded",
            vec![(acquire(short(a)), Done), (complete(a, 0), Done), (acquire(b), Cached)]),
        ("an outcome is recorded where the record has gone",
            vec![(complete(a, 2), Done), (acquire(b), Cached)]),
        ("a late outcome heals an indeterminate key",
            vec![(acquire(short(a)), Done), (take_over(b), Indeterminate), (complete(b, 0), NotHolder),
                (complete(a, 0), Done), (acquire(b), Cached)]),
        ("a late outcome heals a key that its own lease released",
            vec![(acquire(a), Done), (release(a, 1, None), Done), (complete(b, 0), NotHolder), (complete(a, 0), Done)]),

        ("release needs a higher step",
            vec![(acquire(a), Done), (enter(a, 1, Claimed), Done), (release(a, 1, None), StaleStep),
                (release(a, 0, None), StaleStep), (release(a, 2, None), Done), (release(a, 2, None), Done)]),
        ("release leaves a mark where there is no record, and a late acquire finds it",
            vec![(release(a, 1, None), Done), (acquire(a), Released)]),
        ("release of what is released raises the revision and keeps the refusal that is there",
            vec![(acquire(a), Done), (release(a, 1, refused()), Done), (release(b, 1, None), Done), (acquire(b), Released),
                (release(a, 2, limited.clone()), Done), (acquire(b), Released), (release(b, 3, None), Done),
                (again(take_over(b)), Released), (take_over(a), Done)]),
        ("a refusal stays that of its own request, whichever holder releases",
            vec![(acquire(a), Done), (release(a, 1, refused()), Done), (release(x, 1, None), Done), (acquire(b), Released),
                (release(x, 2, limited.clone()), Done), (acquire(b), Released), (release(a, 3, None), Done), (take_over(b), Done)]),
        ("release is the holder's alone",
            vec![(acquire(a), Done), (release(b, 9, None), NotHolder), (abandon(a, 1), Done),
                (release(b, 9, None), NotHolder), (complete(a, 1), Done), (release(b, 9, None), NotHolder)]),
        ("a late proof that nothing was executed heals an indeterminate key",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (release(a, 1, None), StaleStep),
                (release(a, 2, limited), Done), (acquire(b), Released)]),

        ("abandon holds the key",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (abandon(a, 1), Done), (abandon(a, 0), Done),
                (abandon(b, 9), NotHolder), (acquire(b), Indeterminate), (take_over(b), Indeterminate)]),
        ("abandon needs a higher step",
            vec![(acquire(a), Done), (enter(a, 2, Dispatched), Done), (abandon(a, 2), StaleStep), (abandon(a, 3), Done)]),
        ("abandon puts an absent record back", vec![(abandon(a, 1), Done), (acquire(b), Indeterminate)]),
        ("abandon overrides no proof",
            vec![(acquire(a), Done), (release(a, 1, None), Done), (abandon(a, 2), NotHolder),
                (complete(a, 2), Done), (abandon(a, 3), NotHolder)]),
        ("an indeterminate key is kept as long as its record said, not as the asker says",
            vec![(acquire(Claim { retention: SHORT, ..a.clone() }), Done), (abandon(a, 1), Done), (acquire(b), Done)]),

        ("resolve finds nothing to resolve",
            vec![(resolve(None), Absent), (acquire(a), Done), (resolve(None), Held(Dispatched)),
                (release(a, 1, None), Done), (resolve(Some("yes")), Released),
                (complete(a, 1), Done), (resolve(Some("no")), Cached)]),
        ("resolve as not applied frees the key, once",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (resolve(None), Done), (again(resolve(None)), Done),
                (again(resolve(Some("late"))), Released), (take_over(b), Done), (again(resolve(None)), Held(Claimed))]),
        ("resolve as applied records the outcome, once",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (resolve(Some("done")), Done), (again(resolve(Some("done"))), Done),
                (again(resolve(None)), Cached), (acquire(b), Cached)]),
        ("a key resolved as applied is no longer its holder's",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (resolve(Some("done")), Done), (complete(a, 1), NotHolder),
                (release(a, 2, None), NotHolder), (abandon(a, 2), NotHolder), (extend(a, Some(1)), NotHolder), (acquire(b), Cached)]),
        ("a key resolved as not applied is healed by its holder's late outcome",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (resolve(None), Done), (complete(a, 1), Done), (acquire(b), Cached)]),
        ("resolve reaches no other request under the same key",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (resolve_another(x), Indeterminate), (resolve(None), Done)]),
        ("resolve as applied records what may be kept of the outcome",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (reduced_resolve(), Done), (again(reduced_resolve()), Done), (acquire(b), Cached)]),
        ("resolve applies only to the version that was seen",
            vec![(acquire(a), Done), (abandon(a, 1), Done), (again(resolve(None)), Indeterminate),
                (foreign(resolve(None)), Indeterminate), (resolve(None), Done)]),
        ("a resolved outcome is kept for its time",
            vec![(abandon(a, 1), Done),
                (resolve_for(SHORT), Done),
                (acquire(b), Done)]),

        ("forget releases an outcome and nothing else, once",
            vec![(forget(), Absent), (acquire(a), Done), (forget(), Held(Dispatched)), (abandon(a, 1), Done),
                (forget(), Indeterminate), (release(a, 2, None), Done), (forget(), Released),
                (complete(a, 2), Done), (forget(), Done), (forget(), Done), (acquire(b), Released), (take_over(b), Done),
                (forget(), Held(Claimed))]),
        ("no late command of its holder brings a forgotten outcome back",
            vec![(acquire(a), Done), (complete(a, 0), Done), (forget(), Done), (complete(a, 0), NotHolder),
                (abandon(a, 9), NotHolder), (extend(a, Some(9)), NotHolder), (release(a, 9, None), Done), (complete(b, 0), NotHolder),
                (acquire(b), Released)]),
        ("what is left of a forgotten outcome lasts as long as that would have",
            vec![(acquire(a), Done), (complete_for(a, 0, SHORT), Done), (complete_for(b, 0, LONG), Done), (forget(), Done),
                (acquire(a), Released)]),
    ]
}

/// In the place of the version that a trial fills in.
fn unseen() -> Revision {
    let lease = LeaseId::from_bytes([0; 16]);
    Revision { rev: 0, lease }
}

/// The same holder with a lease that expires at once.
pub(super) fn short(claim: impl Borrow<Claim>) -> Claim {
    Claim {
        lease_ttl: SHORT,
        ..claim.borrow().clone()
    }
}

/// The same holder with a record that is soon gone altogether.
fn fleeting(claim: impl Borrow<Claim>) -> Claim {
    Claim {
        retention: SHORT,
        ..short(claim)
    }
}

pub(super) fn current(event: Event) -> Move {
    let revision = Version::Current;
    Move { event, revision }
}

/// A command sent again, or late: with the version of its time.
fn again(step: Move) -> Move {
    let revision = Version::Before;
    Move { revision, ..step }
}

fn foreign(step: Move) -> Move {
    let revision = Version::Foreign;
    Move { revision, ..step }
}

pub(super) fn acquire(claim: impl Borrow<Claim>) -> Move {
    let claim = claim.borrow().clone();
    current(Event::Acquire { claim })
}

pub(super) fn take_over(claim: impl Borrow<Claim>) -> Move {
    let mut claim = claim.borrow().clone();
    // What was sent under the lease before is not the new holder's.
    claim.attempts = Attempts {
        sent: None,
        count: 0,
        ..claim.attempts
    };
    current(Event::TakeOver {
        claim,
        revision: unseen(),
        watched: false,
    })
}

/// The same by one whose own clock says that the lease has expired.
pub(super) fn watched(mut step: Move) -> Move {
    if let Event::TakeOver { watched, .. } = &mut step.event {
        *watched = true;
    }
    step
}

pub(super) fn extend(claim: impl Borrow<Claim>, dispatched: Option<u32>) -> Move {
    let claim = claim.borrow().clone();
    current(Event::Extend { claim, dispatched })
}

pub(super) fn enter(claim: impl Borrow<Claim>, step: u32, phase: Phase) -> Move {
    let claim = claim.borrow().clone();
    current(Event::Enter { claim, step, phase })
}

fn complete(claim: impl Borrow<Claim>, step: u32) -> Move {
    complete_for(claim, step, LONG)
}

pub(super) fn complete_for(claim: impl Borrow<Claim>, step: u32, ttl: Duration) -> Move {
    let claim = claim.borrow().clone();
    let outcome = outcome("{\"done\":[]}");
    current(Event::Complete {
        claim,
        step,
        stored: outcome.into(),
        origin: origin(),
        ttl,
    })
}

pub(super) fn complete_with(claim: impl Borrow<Claim>, step: u32, stored: StoredOutcome) -> Move {
    let claim = claim.borrow().clone();
    current(Event::Complete {
        claim,
        step,
        stored,
        origin: origin(),
        ttl: LONG,
    })
}

pub(super) fn release(claim: impl Borrow<Claim>, step: u32, refusal: Option<Refusal>) -> Move {
    let claim = claim.borrow().clone();
    current(Event::Release {
        claim,
        step,
        refusal,
    })
}

pub(super) fn abandon(claim: impl Borrow<Claim>, step: u32) -> Move {
    let claim = claim.borrow().clone();
    current(Event::Abandon {
        claim,
        step,
        cause: Cause {
            text: "connection reset\nby \"peer\"".into(),
            correlation_id: Some("1b2c".into()),
        },
    })
}

pub(super) fn resolve(applied: Option<&str>) -> Move {
    resolve_with(match applied {
        Some(body) => Resolution::applied(text(body)),
        None => Resolution::not_applied(),
    })
}

fn resolve_with(resolution: Resolution) -> Move {
    current(Event::Resolve {
        lease: LeaseId::from_bytes([b'R'; 16]),
        revision: unseen(),
        fingerprint: whichever(),
        resolution,
        origin: resolved(),
        ttl: LONG,
    })
}

fn resolve_for(time: Duration) -> Move {
    let mut step = resolve(Some("x"));
    if let Event::Resolve { ttl, .. } = &mut step.event {
        *ttl = time;
    }
    step
}

/// The right version, of a request that asks for something else.
fn resolve_another(claim: impl Borrow<Claim>) -> Move {
    let mut step = resolve(None);
    if let Event::Resolve { fingerprint, .. } = &mut step.event {
        *fingerprint = claim.borrow().fingerprint;
    }
    step
}

fn reduced_resolve() -> Move {
    resolve_with(Resolution::applied(text("secret")).sensitive())
}

pub(super) fn forget() -> Move {
    current(Event::Forget {
        lease: LeaseId::from_bytes([b'F'; 16]),
    })
}

pub(super) fn text(body: &str) -> Outcome {
    Outcome::new(StatusCode::OK, HeaderMap::new(), body.to_owned())
}

pub(super) fn outcome(body: &str) -> Arc<Outcome> {
    Arc::new(text(body))
}
