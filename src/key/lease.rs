//! The lease that wrote a record, and the version of an indeterminate key, which is lease
//! and fingerprint. Neither says how long a lease lives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hex::{read_hex, write_hex};
use super::{Fingerprint, ParseKeyError};

/// The holder of a lease: 128 random bits, new for each execution.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId([u8; 16]);

impl LeaseId {
    /// A unique lease, from the operating system's randomness.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        // Without randomness, two holders could share a lease.
        getrandom::fill(&mut bytes).expect("the operating system has randomness");
        Self(bytes)
    }

    /// The lease with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The lease's 16 bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for LeaseId {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read_hex(text).map(Self).ok_or(ParseKeyError)
    }
}

/// The execution and the request that a record is about: the lease that wrote it and the
/// request's fingerprint.
///
/// An operator resolves a key in the version that the operator has read. So a resolution
/// never reaches another execution, or another request under the same key. A lost holder
/// does not change the version.
///
/// `Display`, `FromStr` and serde are `LEASE-FINGERPRINT`, 32 and 64 lower-case
/// hex digits: a value for `If-Match` or a command line.
///
/// ```
/// use genesys_once::record::Version;
///
/// let text = format!("{}-{}", "ab".repeat(16), "cd".repeat(32));
/// let version: Version = text.parse()?;
/// assert_eq!(version.to_string(), text);
/// # Ok::<(), genesys_once::record::ParseKeyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The lease of the execution.
    pub lease: LeaseId,
    /// The fingerprint of its request.
    pub fingerprint: Fingerprint,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lease, self.fingerprint)
    }
}

impl FromStr for Version {
    type Err = ParseKeyError;

    /// Reads both parts in upper or lower case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (lease, fingerprint) = text.split_once('-').ok_or(ParseKeyError)?;
        Ok(Self {
            lease: lease.parse()?,
            fingerprint: fingerprint.parse()?,
        })
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A String, not a &str: formats with escapes cannot lend one.
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
