//! The scope of a scoped engine, checked when it is made. It derives no key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{DataActionRequest, checked};
use crate::error::Error;
use crate::key::IdempotencyKey;

/// The scope of a [`ScopedEngine`](crate::ScopedEngine), such as a tenant: 1–255 bytes
/// without control characters.
///
/// ```
/// use genesys_once::request::Scope;
///
/// let scope: Scope = "tenant 7".parse()?;
/// assert_eq!(scope.as_str(), "tenant 7");
/// assert!("".parse::<Scope>().is_err());
/// # Ok::<(), genesys_once::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(Arc<str>);

impl Scope {
    /// The scope as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of a request within this scope, as in an engine that is
    /// [`scoped`](crate::Engine::scoped) to it.
    pub fn key_of(&self, request: &DataActionRequest) -> IdempotencyKey {
        IdempotencyKey::of(&request.clone().within(self))
    }
}

impl FromStr for Scope {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `scope`.
    fn from_str(word: &str) -> Result<Self, Error> {
        checked("scope", word, 255).map(Self)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
