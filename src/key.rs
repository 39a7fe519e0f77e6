//! Names: the idempotency key of a request, the namespace that separates two
//! organisations, and the record name made of both. Nothing here hashes or reads a
//! payload.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod hex;
mod lease;

pub(crate) use self::hex::push_hex;
use self::hex::{hex_digits, read_hex, write_hex};
pub use self::lease::{LeaseId, Version};

/// The idempotency key of a request: 32 bytes of SHA-256.
///
/// `Debug`, `Display`, `FromStr` and serde are its 64 lower-case hex digits,
/// which are also the value of the `Idempotency-Key` header and the last part of the
/// record's name in Redis. [`IdempotencyKey::of`] says how it is derived.
///
/// ```
/// use genesys_once::IdempotencyKey;
///
/// let key: IdempotencyKey = "00".repeat(32).parse()?;
/// assert_eq!(key, IdempotencyKey::from_bytes([0; 32]));
/// assert_eq!(key.to_string().len(), 64);
/// # Ok::<(), genesys_once::record::ParseKeyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey([u8; 32]);

impl IdempotencyKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for IdempotencyKey {
    type Err = ParseKeyError;

    /// Reads 64 hex digits, upper or lower case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read_hex(text).map(Self).ok_or(ParseKeyError)
    }
}

impl Serialize for IdempotencyKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdempotencyKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A String, not a &str: formats with escapes cannot lend one.
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The text is not an idempotency key, a fingerprint, a lease or a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "malformed hex digits: expected 64 for a key, 32 for a lease, 32, `-` and 64 for a version"
)]
#[non_exhaustive]
pub struct ParseKeyError;

/// The digest of what a request asks for: a SHA-256 that each record holds, and that is
/// compared before an answer is returned. So a key that the caller chose never yields the
/// answer to another payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The fingerprint's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read_hex(text).map(Self).ok_or(ParseKeyError)
    }
}

/// Separates the records of one platform host and OAuth client from all others: 1–64
/// characters of `[a-z0-9._-]`.
///
/// ```
/// use genesys_once::record::Namespace;
///
/// let namespace: Namespace = "billing-eu".parse()?;
/// assert_eq!(namespace.as_str(), "billing-eu");
/// assert!("Billing".parse::<Namespace>().is_err());
/// # Ok::<(), genesys_once::record::ParseNamespaceError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(std::sync::Arc<str>);

impl Namespace {
    /// The namespace as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text.
    #[cfg(feature = "metrics")]
    pub(crate) fn shared(&self) -> std::sync::Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.0)
    }
}

impl FromStr for Namespace {
    type Err = ParseNamespaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(ParseNamespaceError)
        }
    }
}

/// The text is not a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed namespace: expected 1 to 64 characters of a-z, 0-9, '.', '_' and '-'")]
#[non_exhaustive]
pub struct ParseNamespaceError;

/// The name of a record in a store. Its `Display` is the name in Redis:
/// `genesys-once:NAMESPACE:HEX`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordName {
    /// The organisation and client that the record belongs to.
    pub namespace: Namespace,
    /// The request's key.
    pub key: IdempotencyKey,
}

impl RecordName {
    /// The name of `key`'s record in `namespace`.
    pub fn new(namespace: Namespace, key: IdempotencyKey) -> Self {
        Self { namespace, key }
    }

    /// The name as text.
    pub(crate) fn text(&self) -> String {
        let mut text = Vec::with_capacity(PREFIX.len() + self.namespace.as_str().len() + 65);
        text.extend_from_slice(PREFIX.as_bytes());
        text.extend_from_slice(self.namespace.as_str().as_bytes());
        text.push(b':');
        push_hex(&mut text, self.key.as_bytes());
        String::from_utf8(text).expect("a namespace is text, and digits are ASCII")
    }

    /// Whether `text` is this name.
    pub(crate) fn is(&self, text: &str) -> bool {
        let digits = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix(self.namespace.as_str()))
            .and_then(|rest| rest.strip_prefix(':'));
        let mut own = [0; 64];
        digits.is_some_and(|digits| digits.as_bytes() == hex_digits(self.key.as_bytes(), &mut own))
    }
}

/// What every record's name begins with.
const PREFIX: &str = "genesys-once:";

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Hashes a key by its first bytes: a key is a SHA-256.
#[derive(Default)]
pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_ne_bytes(*first);
        }
    }

    // An array writes its length, which is constant.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_its_hex_digits_everywhere() {
        let key = IdempotencyKey::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        let hex = key.to_string();
        assert_eq!(format!("{key:?}"), hex);
        assert_eq!(hex.parse::<IdempotencyKey>(), Ok(key));
        assert_eq!(hex.to_uppercase().parse::<IdempotencyKey>(), Ok(key));
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{hex}\""));
        assert_eq!(serde_json::from_str::<IdempotencyKey>(&json).unwrap(), key);
    }

    #[test]
    fn malformed_key_is_refused() {
        for text in [
            "",
            "0",
            &"0".repeat(63),
            &"0".repeat(65),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            assert_eq!(text.parse::<IdempotencyKey>(), Err(ParseKeyError), "{text}");
        }
    }

    #[test]
    fn namespace_outside_its_alphabet_is_refused() {
        for good in ["a", "0.a_b-c", &"x".repeat(64)] {
            assert_eq!(good.parse::<Namespace>().unwrap().to_string(), good);
        }
        for bad in ["", "A", "a b", "a:b", "a{b}", "é", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn record_name_has_no_braces() {
        let name = RecordName::new("eu".parse().unwrap(), IdempotencyKey::from_bytes([1; 32]));
        let text = format!("genesys-once:eu:{}", "01".repeat(32));
        assert_eq!(name.to_string(), text);
        // Red without either comparison.
        assert!(name.is(&text));
        for other in [
            "",
            &text[1..],
            &text[..text.len() - 1],
            &text.replace("eu", "e"),
            &text.replace("eu", "eur"),
            &text.replace("01", "02"),
            &format!("{text}0"),
        ] {
            assert!(!name.is(other), "{other:?}");
        }
        let upper = RecordName::new(name.namespace, IdempotencyKey::from_bytes([0xab; 32]));
        assert!(upper.is(&upper.to_string()) && !upper.is(&upper.to_string().replace('a', "A")));
    }
}
