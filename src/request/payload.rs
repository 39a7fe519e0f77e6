//! The bytes of a payload, made of the types that callers have. They are neither read nor
//! changed here, and never shown.

use std::fmt;

use bytes::Bytes;

/// The JSON text of a request, whose bytes are sent unchanged.
///
/// It is made of a text, bytes or a `serde_json::Value`, and not copied from `String`,
/// `Vec<u8>` and `Bytes`. [`DataActionRequest::new`](crate::DataActionRequest::new) checks
/// that it is JSON. `Debug` shows the length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether a JSON text is an empty object or array.
    pub(super) fn is_empty_container(&self) -> bool {
        let mut rest = self.0.iter().filter(|byte| !byte.is_ascii_whitespace());
        matches!(
            (rest.next(), rest.next()),
            (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']'))
        )
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// Numbers are as exact as in the `Value`: a number that `serde_json` read from a text has
/// the precision of an `f64`.
impl From<serde_json::Value> for Payload {
    fn from(value: serde_json::Value) -> Self {
        Self::from(&value)
    }
}

/// As from a `Value`.
impl From<&serde_json::Value> for Payload {
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_has_equal_bytes_from_each_type() {
        let value: serde_json::Value = serde_json::from_str(r#"{"a":[1,"é"]}"#).unwrap();
        let text = r#"{"a":[1,"é"]}"#;
        let expected = Payload::from(text);
        for payload in [
            Payload::from(text.to_owned()),
            Payload::from(text.as_bytes()),
            Payload::from(text.as_bytes().to_vec()),
            Payload::from(Bytes::from_static(text.as_bytes())),
            Payload::from(&value),
            Payload::from(value),
        ] {
            assert_eq!(payload, expected);
        }
    }

    #[test]
    fn debug_shows_the_length_only() {
        assert_eq!(
            format!("{:?}", Payload::from("\"secret\"")),
            "Payload(8 bytes)"
        );
    }
}
