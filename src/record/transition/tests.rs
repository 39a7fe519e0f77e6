//! Properties of every record and every event, and rules about time and verdicts, which the
//! exhaustive search does not cover.

use super::*;
use crate::key::Fingerprint;
use crate::record::Attempts;
use crate::record::LeaseId;
use crate::{Outcome, Resolution};

mod every;

/// Red with `RELEASED_FOR` alone: ten minutes after a second holder's release, a late
/// command of the first could write the outcome again.
#[test]
fn mark_of_a_forgotten_outcome_lasts_through_releases() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let claim = |lease| Claim {
        lease: LeaseId::from_bytes([lease; 16]),
        fingerprint: Fingerprint::from_bytes([9; 32]),
        lease_ttl: Duration::from_secs(30),
        retention: DAY,
        attempts: Attempts::default(),
        about: Default::default(),
    };
    let mut stored: Option<Written> = None;
    let mut send = |event: Event| {
        let current = stored.as_ref().map(|(record, left)| (record, *left));
        let (next, answer) = apply(current, &event);
        stored = next;
        (answer, stored.as_ref().map(|(_, left)| *left))
    };
    let outcome = crate::Outcome::new(Default::default(), Default::default(), "{}");
    let complete = Event::Complete {
        claim: claim(1),
        step: 0,
        stored: outcome.into(),
        origin: Default::default(),
        ttl: DAY,
    };
    assert_eq!(send(complete.clone()), (Answer::Done, Some(DAY)));
    let lease = LeaseId::from_bytes([7; 16]);
    assert_eq!(send(Event::Forget { lease }), (Answer::Done, Some(DAY)));
    let release = Event::Release {
        claim: claim(2),
        step: 1,
        refusal: None,
    };
    assert_eq!(send(release), (Answer::Done, Some(DAY)));
    assert_eq!(send(complete), (Answer::NotHolder, Some(DAY)));
}
