//! The id of a Data Action: what may be one, and nothing about the path that it
//! becomes a segment of; the upstream encodes it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Error;

/// The id of a Data Action, such as `custom_-_0f6e…` or a UUID.
///
/// 1–255 bytes without `:` and control characters, and neither `.` nor `..`:
/// a colon ends the id in what a key is made of, and the dots would be other
/// places in the platform's path. Everything else may be in it; it is
/// percent-encoded as one path segment.
///
/// ```
/// use genesys_once::ActionId;
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
        } else if text.contains(':') {
            "it must not contain ':'"
        } else if has_control(text) {
            "it must not contain control characters"
        } else if text == "." || text == ".." {
            "it must not be '.' or '..'"
        } else {
            return Ok(Self(text.into()));
        };
        Err(Error::invalid_request("action_id", reason))
    }
}

/// Whether there is a control character. An id is checked for each request, and
/// seldom has a character that is not printable ASCII.
fn has_control(text: &str) -> bool {
    // All bytes without a branch: many at a time.
    let printable = |all, byte| all & matches!(byte, b' '..=b'~');
    !text.bytes().fold(true, printable) && text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_platform_and_odd_ones_are_taken() {
        let longest = "x".repeat(255);
        for id in [
            "custom_-_0f6e7a1c-1c7d-4d0e-9a52-2f1f0a4a0b0c",
            "0f6e7a1c-1c7d-4d0e-9a52-2f1f0a4a0b0c",
            "...",
            "a/b c%2F",
            "données-😂",
            &longest,
        ] {
            let parsed: ActionId = id.parse().unwrap();
            assert_eq!(parsed.as_str(), id);
            assert_eq!(parsed.to_string(), id);
        }
    }

    #[test]
    fn what_would_blur_keys_or_paths_is_refused() {
        let too_long = "x".repeat(256);
        for id in [
            "", ".", "..", ":", "a:b", "a\n", "\0", "a\u{7f}", "\u{85}", &too_long,
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
