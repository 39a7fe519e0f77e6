//! Refuses encrypted outcomes to a reader that has no keys. It decrypts nothing:
//! `Encrypted` does.

use crate::error::StoreError;
use crate::record::{Answer, RecordState, Refusal};

impl RecordState {
    /// This state, unless its outcome is encrypted. An encrypted refusal is removed:
    /// nothing was executed, whatever it says.
    ///
    /// # Errors
    ///
    /// `StoreError::unreadable`: another process encrypts the outcomes in this store. Never
    /// a miss, or the request would be executed again.
    pub(crate) fn readable(mut self) -> Result<Self, StoreError> {
        match &mut self {
            Self::Cached { stored, .. } if stored.outcome.is_sealed() => {
                Err(StoreError::unreadable(
                    "its outcome is encrypted; this store is read without `Encrypted`",
                ))
            }
            Self::Released { refusal, .. } => {
                refusal.take_if(|refusal| match refusal {
                    Refusal::Refused(stored) => stored.outcome.is_sealed(),
                    Refusal::RateLimited { .. } => false,
                });
                Ok(self)
            }
            _ => Ok(self),
        }
    }
}

/// The same for the answer to an event.
///
/// # Errors
///
/// Those of [`RecordState::readable`].
pub(crate) fn readable(answer: Answer) -> Result<Answer, StoreError> {
    match answer {
        Answer::Is(Some(state)) => Ok(Answer::Is(Some(state.readable()?))),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::HeaderMap;

    use super::*;
    use crate::key::{Fingerprint, IdempotencyKey, RecordName};
    use crate::outcome::{Outcome, StoredBody};
    use crate::record::{Content, LeaseId, Record, Revision, StoredOutcome};

    fn sealed(body: StoredBody) -> StoredOutcome {
        StoredOutcome {
            outcome: Arc::new(Outcome::sealed(HeaderMap::new(), vec![0xff; 50])),
            body,
        }
    }

    fn name() -> RecordName {
        let key = IdempotencyKey::from_bytes([0; 32]);
        RecordName::new("test".parse().unwrap(), key)
    }

    fn record(content: Content) -> Record {
        let Revision { rev, lease } = Revision {
            rev: 1,
            lease: LeaseId::from_bytes([1; 16]),
        };
        Record {
            rev,
            lease,
            step: 0,
            lease_ttl: Duration::from_secs(30),
            retention: Duration::from_secs(60),
            fingerprint: Fingerprint::from_bytes([9; 32]),
            content,
        }
    }

    fn all() -> Vec<Content> {
        let cached = |body| Content::Cached {
            stored: sealed(body),
            origin: Default::default(),
        };
        let released = |refusal| Content::Released {
            refusal: Some(refusal),
        };
        vec![
            cached(StoredBody::Full),
            cached(StoredBody::OmittedSensitive),
            released(Refusal::Refused(sealed(StoredBody::Full))),
            released(Refusal::Refused(sealed(StoredBody::OmittedSensitive))),
        ]
    }

    /// Red when a sealed refusal is an error: it blocked its key for ten minutes.
    #[test]
    fn nothing_sealed_is_readable_also_after_the_round_trip_through_a_store() {
        for content in all() {
            let record = record(content);
            let read = Record::decode(&name(), &record.encode(&name())).unwrap();
            for record in [record, read] {
                let is_refusal = matches!(record.content, Content::Released { .. });
                let state = record.state(Duration::from_secs(1));
                match readable(Answer::Is(Some(state))) {
                    Ok(Answer::Is(Some(RecordState::Released { refusal: None, .. }))) => {
                        assert!(is_refusal);
                    }
                    Err(error) => assert!(error.is_unreadable() && !is_refusal, "{error:?}"),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// A release of this crate without encryption knows no such word here, and refuses the
    /// record.
    #[test]
    fn older_readers_refuse_what_is_sealed() {
        for content in all() {
            let text = String::from_utf8_lossy(&record(content).encode(&name())).into_owned();
            assert!(text.contains(r#""omitted":"sealed""#), "{text}");
        }
    }
}
