//! The facts of the platform's error body: which side refused, and for how long. It reads
//! in one pass without building a tree, and decides nothing.

use std::fmt;
use std::iter;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::policy::without_byte_order_mark;

/// The codes by which the platform says that the remote end was reached.
const REMOTE: [&str; 2] = ["ACTION.REMOTE_ENDPOINT", "ACTION.PROCESSING"];

/// The facts of an error body that a verdict needs.
///
/// The shape is the vendor's `ErrorBody`: `message`, `details[]` with
/// `errorCode`, and `errors[]`, which holds further error bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    /// The remote end or the action's processing failed (`ACTION.REMOTE_ENDPOINT`,
    /// `ACTION.PROCESSING`): the remote end might have executed.
    pub(super) remote: bool,
    /// A detail says `ACTION.AUTHENTICATION`: the remote end was not called.
    pub(super) authentication: bool,
    /// The body's own `code`.
    pub(super) code: Code,
    /// The whole seconds of "Retry the request in [42] seconds".
    pub(super) retry_seconds: Option<u64>,
}

/// Codes of the vendor's public API definition (`x-inin-error-codes`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Code {
    #[default]
    None,
    /// `client.failed.request`: the platform did not receive the whole request.
    FailedRequest,
    /// `authentication.request.timeout`: the request ended before its dispatch.
    AuthenticationTimeout,
    /// Another one, or more than one.
    Other,
}

impl ErrorBody {
    /// Reads a body of any size and shape in linear time, with at most serde_json's 128
    /// levels of recursion. For JSON, no allocation grows with the body.
    ///
    /// A body that is not JSON proves nothing. Only `remote` counts in it, wherever its
    /// codes stand: `remote` can only disprove, so that garbage cannot hide it.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut found = Self::default();
        let mut json = serde_json::Deserializer::from_slice(without_byte_order_mark(body));
        let whole = FieldReader {
            position: Position::Top,
            found: &mut found,
        }
        .deserialize(&mut json)
        .is_ok()
            && json.end().is_ok();
        if whole {
            found
        } else {
            Self {
                remote: found.remote || names_remote(body),
                ..Self::default()
            }
        }
    }
}

fn is_remote(code: &str) -> bool {
    REMOTE
        .iter()
        .any(|remote| code.eq_ignore_ascii_case(remote))
}

/// Whether the text contains a code of the remote end, with escaped characters or without.
fn names_remote(text: &[u8]) -> bool {
    let mut rest = text;
    let plain: String = iter::from_fn(|| {
        let (byte, behind) = match rest {
            [b'\\', b'u', b'0', b'0', high, low, behind @ ..] => {
                let digit = |digit: &u8| char::from(*digit).to_digit(16);
                let byte = digit(high)
                    .zip(digit(low))
                    .map(|(high, low)| high << 4 | low);
                (byte.and_then(char::from_u32), behind)
            }
            [byte, behind @ ..] => (Some(char::from(*byte)), behind),
            [] => return None,
        };
        rest = behind;
        Some(byte.unwrap_or_default().to_ascii_uppercase())
    })
    .collect();
    REMOTE.iter().any(|remote| plain.contains(remote))
}

/// The position of a value in the body.
#[derive(Clone, Copy)]
enum Position {
    /// The body itself.
    Top,
    /// One of its `errors`.
    Body,
    Errors,
    Details,
    Detail,
    /// `details[].errorCode`.
    DetailCode,
    /// `code` of the body itself.
    TopCode,
    /// Another code: of an error within `errors`, or `errorCode` of the body. Only the
    /// remote end's codes count here.
    OtherCode,
    Message,
    Elsewhere,
}

impl Position {
    fn member(self, name: &str) -> Self {
        match (self, name) {
            (Self::Top | Self::Body, "details") => Self::Details,
            (Self::Top | Self::Body, "errors") => Self::Errors,
            (Self::Top | Self::Body, "message") => Self::Message,
            (Self::Top, "code") => Self::TopCode,
            (Self::Top | Self::Body, "errorCode" | "code") => Self::OtherCode,
            (Self::Detail | Self::Details, "code") => Self::OtherCode,
            // One detail instead of a list counts as well.
            (Self::Detail | Self::Details, "errorCode") => Self::DetailCode,
            _ => Self::Elsewhere,
        }
    }

    fn element(self) -> Self {
        match self {
            Self::Errors => Self::Body,
            Self::Details => Self::Detail,
            _ => Self::Elsewhere,
        }
    }
}

struct FieldReader<'f> {
    position: Position,
    found: &'f mut ErrorBody,
}

impl<'de> DeserializeSeed<'de> for FieldReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.position {
            // Skipped without recursion, and without reading numbers.
            Position::Elsewhere => IgnoredAny::deserialize(deserializer).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for FieldReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        match (self.position, text) {
            (Position::DetailCode | Position::TopCode | Position::OtherCode, code)
                if is_remote(code) =>
            {
                self.found.remote = true;
            }
            // In exact spelling, since this is proof.
            (Position::DetailCode, "ACTION.AUTHENTICATION") => self.found.authentication = true,
            (Position::TopCode, code) => {
                self.found.code = match (self.found.code, code) {
                    (Code::None, "client.failed.request") => Code::FailedRequest,
                    (Code::None, "authentication.request.timeout") => Code::AuthenticationTimeout,
                    _ => Code::Other,
                };
            }
            (Position::Message, text) => {
                self.found.retry_seconds = self.found.retry_seconds.max(seconds_in(text));
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(position) = map.next_key_seed(MemberName(self.position))? {
            map.next_value_seed(FieldReader {
                position,
                found: self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let position = self.position.element();
        while seq
            .next_element_seed(FieldReader {
                position,
                found: self.found,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a member's name into the position of its value, without a copy.
struct MemberName(Position);

impl<'de> DeserializeSeed<'de> for MemberName {
    type Value = Position;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Position, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberName {
    type Value = Position;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Position, E> {
        Ok(self.0.member(name))
    }
}

/// The number in "Retry the request in [42] seconds"; `u64::MAX` if it has more digits.
fn seconds_in(message: &str) -> Option<u64> {
    let (_, rest) = message.split_once("etry the request in [")?;
    let (digits, rest) = rest.split_once(']')?;
    let seconds = rest.trim_start().starts_with("second");
    (seconds && is_digits(digits)).then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Whether `text` is a non-empty run of ASCII digits.
pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
