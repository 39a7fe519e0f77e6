//! How a record ends whose holder is known to have ended. It never guesses that: only a
//! store that no other process can have open may call it.

use std::time::Duration;

use super::{Content, Phase, RELEASED_FOR, Record};

/// Recovers a `Locked` record whose holder has ended, before its lease expires: for a store
/// that one process at a time opens, when that process opens it.
///
/// `Claimed` becomes `Released` (nothing was on the wire) and lives for [`RELEASED_FOR`].
/// `Dispatched` becomes `Indeterminate` and lives for the retention in the record. The
/// revision is raised, so that no command of an earlier reader still applies. Returns the
/// record and its time to live; `None` for a record in another state, which needs no
/// recovery.
pub fn recover_orphan(record: &Record) -> Option<(Record, Duration)> {
    let (content, retention) = match &record.content {
        Content::Locked {
            phase: Phase::Claimed,
            ..
        } => (Content::Released { refusal: None }, RELEASED_FOR),
        Content::Locked {
            phase: Phase::Dispatched,
            attempts,
            about,
        } => {
            let cause = format!(
                "the process that held it (lease {}) ended with the request under way",
                record.lease
            );
            let content = Content::Indeterminate {
                attempts: *attempts,
                about: about.clone(),
                cause: Some(cause.into()),
            };
            (content, record.retention)
        }
        _ => return None,
    };
    let recovered = Record {
        rev: record.rev + 1,
        retention,
        content,
        ..record.clone()
    };
    Some((recovered, retention))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::key::Fingerprint;
    use crate::outcome::Outcome;
    use crate::record::{Answer, Attempts, Claim, Event, LeaseId, apply};
    use std::time::SystemTime;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    const ATTEMPTS: Attempts = Attempts {
        sent: Some(SystemTime::UNIX_EPOCH),
        count: 1,
        timeout: Duration::from_secs(65),
    };

    fn claim(lease: u8) -> Claim {
        Claim {
            lease: LeaseId::from_bytes([lease; 16]),
            fingerprint: Fingerprint::from_bytes([9; 32]),
            lease_ttl: Duration::from_secs(30),
            retention: WEEK,
            attempts: ATTEMPTS,
            about: Default::default(),
        }
    }

    fn locked(phase: Phase) -> Record {
        let claim = claim(1);
        let acquire = Event::Acquire {
            claim: claim.clone(),
        };
        let (record, left) = apply(None, &acquire).0.unwrap();
        let enter = Event::Enter {
            claim,
            step: 1,
            phase,
        };
        apply(Some((&record, left)), &enter).0.unwrap().0
    }

    #[test]
    fn a_claim_is_released_and_may_be_taken_at_once() {
        let record = locked(Phase::Claimed);
        let (recovered, left) = recover_orphan(&record).unwrap();
        assert_eq!(recovered.content, Content::Released { refusal: None });
        assert_eq!((recovered.rev, left), (record.rev + 1, RELEASED_FOR));
        assert_eq!(recovered.retention, left);
        let take_over = |revision| Event::TakeOver {
            claim: claim(2),
            revision,
            watched: false,
        };
        let (_, answer) = apply(Some((&recovered, left)), &take_over(recovered.revision()));
        assert_eq!(answer, Answer::Done);
        // A command of a reader that saw the record before does not apply.
        let (_, answer) = apply(Some((&recovered, left)), &take_over(record.revision()));
        assert!(matches!(answer, Answer::Is(Some(_))), "{answer:?}");
    }

    #[test]
    fn a_request_under_way_becomes_indeterminate_for_its_retention() {
        let record = locked(Phase::Dispatched);
        let (recovered, left) = recover_orphan(&record).unwrap();
        let Content::Indeterminate {
            attempts,
            cause: Some(cause),
            ..
        } = &recovered.content
        else {
            panic!("{recovered:?}");
        };
        assert_eq!(*attempts, ATTEMPTS);
        assert!(
            cause.text.contains("ended with the request under way"),
            "{cause:?}"
        );
        assert_eq!((recovered.rev, left), (record.rev + 1, WEEK));
        assert_eq!(recovered.retention, left);
        assert_eq!(recovered.fingerprint, record.fingerprint);
        let acquire = Event::Acquire { claim: claim(2) };
        let (_, answer) = apply(Some((&recovered, left)), &acquire);
        assert!(matches!(answer, Answer::Is(Some(_))), "{answer:?}");
    }

    #[test]
    fn every_other_state_is_left_alone() {
        let outcome = Arc::new(Outcome::new(
            http::StatusCode::OK,
            http::HeaderMap::new(),
            "{}",
        ));
        let record = locked(Phase::Dispatched);
        for content in [
            Content::Released { refusal: None },
            Content::Cached {
                stored: outcome.into(),
                origin: Default::default(),
            },
            Content::Indeterminate {
                attempts: ATTEMPTS,
                about: Default::default(),
                cause: None,
            },
        ] {
            let record = Record {
                content,
                ..record.clone()
            };
            assert_eq!(recover_orphan(&record), None);
        }
    }
}
