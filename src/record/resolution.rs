//! What a person or a policy found out about an indeterminate key. It decides no
//! transition: `transition::resolution` applies it.

use std::sync::Arc;

use super::StoredOutcome;
use crate::outcome::StoredBody;

/// The longest name of a resolver, in bytes.
const MAX_BY: usize = 256;

/// What a person or a policy found out about an indeterminate key.
///
/// ```
/// use genesys_once::{Outcome, Resolution};
/// use http::{HeaderMap, StatusCode};
///
/// // The refund is not in the books: the next request may execute it.
/// let not_applied = Resolution::not_applied();
/// // It is: this is the answer to replay.
/// let found = Outcome::new(StatusCode::OK, HeaderMap::new(), r#"{"refund": "R-1"}"#);
/// let applied = Resolution::applied(found);
/// # assert_ne!(not_applied, applied);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Resolution {
    outcome: Option<StoredOutcome>,
    despite_clocks: bool,
    by: Option<Arc<str>>,
}

impl Resolution {
    /// The request was not executed: the next one may execute it.
    ///
    /// Refused ([`Error::TooEarly`](crate::Error::TooEarly)) while the lost
    /// attempt might still be running; see
    /// [`despite_clocks`](Self::despite_clocks).
    pub fn not_applied() -> Self {
        Self::new(None)
    }

    /// The request was executed, and this is the outcome to replay.
    pub fn applied(outcome: impl Into<StoredOutcome>) -> Self {
        Self::new(Some(outcome.into()))
    }

    fn new(outcome: Option<StoredOutcome>) -> Self {
        Self {
            outcome,
            despite_clocks: false,
            by: None,
        }
    }

    /// The same with the name of the resolver: a person, a ticket. The record of an applied
    /// outcome holds it beside the time ([`Resolved`](super::Resolved)), cut after 256
    /// bytes.
    ///
    /// ```
    /// use genesys_once::{Outcome, Resolution};
    /// use http::{HeaderMap, StatusCode};
    ///
    /// let found = Outcome::new(StatusCode::OK, HeaderMap::new(), "{}");
    /// let resolution = Resolution::applied(found).by("ticket 4711");
    /// ```
    pub fn by(mut self, name: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        let mut end = name.len().min(MAX_BY);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        self.by = Some(name[..end].into());
        self
    }

    /// The same, without the comparison of clocks: for an operator with proof that the lost
    /// attempt has ended. Otherwise two calls might run at once.
    pub fn despite_clocks(mut self) -> Self {
        self.despite_clocks = true;
        self
    }

    /// The same, with nothing of the outcome but its status: for a request that was
    /// marked
    /// [`sensitive`](crate::DataActionRequest::sensitive).
    ///
    /// The engine does this itself with what a `reconcile` hook returns for such a request.
    /// The record of an indeterminate key does not say whether its request is sensitive, so
    /// the caller of `Engine::resolve` must.
    ///
    /// ```
    /// use genesys_once::outcome::StoredBody;
    /// use genesys_once::{Outcome, Resolution};
    /// use http::{HeaderMap, StatusCode};
    ///
    /// let found = Outcome::new(StatusCode::OK, HeaderMap::new(), r#"{"card": "4929…"}"#);
    /// let resolution = Resolution::applied(found).sensitive();
    /// let stored = resolution.outcome().unwrap();
    /// assert_eq!((stored.outcome.status(), stored.body), (StatusCode::OK, StoredBody::OmittedSensitive));
    /// assert!(stored.outcome.body().is_empty());
    /// ```
    pub fn sensitive(mut self) -> Self {
        let outcome = self.outcome.take();
        self.outcome = outcome.map(|stored| stored.reduced(StoredBody::OmittedSensitive));
        self
    }

    /// The outcome to replay; `None` where the request was not executed.
    pub fn outcome(&self) -> Option<&StoredOutcome> {
        self.outcome.as_ref()
    }

    /// The name of the resolver.
    pub(crate) fn resolver(&self) -> Option<&Arc<str>> {
        self.by.as_ref()
    }

    /// Whether the clocks are not compared.
    pub(crate) fn is_despite_clocks(&self) -> bool {
        self.despite_clocks
    }
}
