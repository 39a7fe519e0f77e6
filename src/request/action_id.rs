//! The id of a data action: the texts that are one path segment without encoding. It
//! asks no platform whether the action exists.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Error;

/// The id of a Data Action, such as `custom_-_0f6e…` or a UUID.
///
/// 1–255 ASCII letters, digits, `-`, `_`, `.` and `~`, but not `.` or `..`: the unreserved
/// characters of RFC 3986, section 2.3, which need no encoding in a path. So no gateway can
/// read another path, and two ids never name one action. The platform's ids have this form.
///
/// ```
/// use genesys_once::request::ActionId;
///
/// let id: ActionId = "custom_-_6f1c".parse()?;
/// assert_eq!(id.as_str(), "custom_-_6f1c");
/// assert!("static:lookup".parse::<ActionId>().is_err());
/// # Ok::<(), genesys_once::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActionId(Arc<str>);

impl ActionId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ActionId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ActionId {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `action_id`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let reason = if !(1..=255).contains(&text.len()) {
            "it must have 1 to 255 bytes"
        } else if !text.bytes().all(is_unreserved) {
            "it must have letters, digits, '-', '_', '.' and '~' only"
        } else if text == "." || text == ".." {
            "it must not be '.' or '..'"
        } else {
            return Ok(Self(text.into()));
        };
        Err(Error::invalid_request("action_id", reason))
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_id_is_accepted() {
        let longest = "x".repeat(255);
        for id in [
            "custom_-_0f6e7a1c-1c7d-4d0e-9a52-2f1f0a4a0b0c",
            "0f6e7a1c-1c7d-4d0e-9a52-2f1f0a4a0b0c",
            "...",
            "~-_.",
            &longest,
        ] {
            let parsed: ActionId = id.parse().unwrap();
            assert_eq!(parsed.as_str(), id);
            assert_eq!(parsed.to_string(), id);
        }
    }

    /// Red if an id may have further characters: a gateway that decodes its path then reads
    /// another path, and one action has several ids.
    #[test]
    fn ambiguous_id_is_refused() {
        let too_long = "x".repeat(256);
        for id in [
            "",
            ".",
            "..",
            ":",
            "a:b",
            "a\n",
            "\0",
            "a\u{7f}",
            "\u{85}",
            "../../users/4711",
            "./custom_-_refund",
            "x/../custom_-_refund",
            "..\\x",
            "..;",
            "%2e%2e",
            "a%2Fb",
            "a?b",
            "a#b",
            "a b",
            " a",
            "a+b",
            "a@b",
            "é",
            "custom_-_0b5f…",
            &too_long,
        ] {
            let error = id.parse::<ActionId>().unwrap_err();
            let field = matches!(
                error,
                Error::InvalidRequest {
                    field: "action_id",
                    ..
                }
            );
            assert!(field, "{id:?}: {error}");
        }
    }
}
