//! An outcome as a record holds it: all of it, or its status and the reason why that
//! is all. It decides no transition.

use std::sync::Arc;

use serde::Serialize;

use super::serialize;
use crate::outcome::{Outcome, StoredBody};

/// An outcome as a record holds it.
///
/// Made of an [`Outcome`] by `into()`: all of it, or its status alone where its body was
/// not read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredOutcome {
    /// The outcome: its status alone unless `body` is [`StoredBody::Full`].
    #[serde(serialize_with = "serialize::outcome")]
    pub outcome: Arc<Outcome>,
    /// How much of the outcome is stored.
    #[serde(rename = "stored_body", serialize_with = "serialize::stored_body")]
    pub body: StoredBody,
}

impl StoredOutcome {
    /// All of an outcome.
    pub fn full(outcome: impl Into<Arc<Outcome>>) -> Self {
        Self {
            outcome: outcome.into(),
            body: StoredBody::Full,
        }
    }

    /// The status of this outcome alone, and why that is all; unchanged where no more is
    /// stored already.
    #[must_use]
    pub fn reduced(self, why: StoredBody) -> Self {
        match self.body {
            StoredBody::Full => Self {
                outcome: Arc::new(self.outcome.status_only()),
                body: why,
            },
            StoredBody::OmittedSensitive | StoredBody::OmittedTooLarge => self,
        }
    }

    /// Without the headers of one connection, which no replay has.
    pub(crate) fn replayable(self) -> Self {
        Self {
            outcome: self.outcome.replayable(),
            ..self
        }
    }
}

impl From<Outcome> for StoredOutcome {
    fn from(outcome: Outcome) -> Self {
        Arc::new(outcome).into()
    }
}

impl From<Arc<Outcome>> for StoredOutcome {
    fn from(outcome: Arc<Outcome>) -> Self {
        let stored = Self::full(outcome);
        match stored.outcome.stored_body() {
            StoredBody::Full => stored,
            omitted => stored.reduced(omitted),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::outcome::BodyEnd;

    /// Seen red where the conversion reduced an outcome whose body is there.
    #[test]
    fn only_an_unread_body_is_omitted() {
        let outcome = Outcome::new(StatusCode::OK, HeaderMap::new(), "{}");
        let stored = StoredOutcome::from(outcome.clone());
        assert_eq!(
            (&*stored.outcome, stored.body),
            (&outcome, StoredBody::Full)
        );
        let stored = StoredOutcome::from(outcome.with_body_end(BodyEnd::Unread));
        assert_eq!(stored.body, StoredBody::OmittedTooLarge);
    }
}
