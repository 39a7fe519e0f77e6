//! What the platform's error body says about who refused and for how long. It
//! is read in one pass without building a tree, and never decides anything.

use std::fmt;
use std::iter;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::body::without_mark;

/// The codes by which the platform says that the remote end was reached.
const REMOTE: [&str; 2] = ["ACTION.REMOTE_ENDPOINT", "ACTION.PROCESSING"];

/// The facts in an error body that decisions rest on.
///
/// The shape is the vendor's `ErrorBody`: `message`, `details[]` with
/// `errorCode`, and `errors[]`, which holds further error bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    /// The remote end or the action's own processing is at fault
    /// (`ACTION.REMOTE_ENDPOINT`, `ACTION.PROCESSING`): the remote may have
    /// done its work.
    pub(super) remote: bool,
    /// A detail says `ACTION.AUTHENTICATION`: the remote was never asked.
    pub(super) authentication: bool,
    /// The body's own `code`, of those that say what was executed.
    pub(super) code: Code,
    /// The whole seconds of "Retry the request in [42] seconds".
    pub(super) retry_seconds: Option<u64>,
}

/// Codes of the vendor's public API definition (`x-inin-error-codes`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Code {
    #[default]
    None,
    /// `client.failed.request`: the platform never had the whole request.
    FailedRequest,
    /// `authentication.request.timeout`: it ended before the dispatch.
    AuthenticationTimeout,
    /// Another one, or more than one.
    Other,
}

impl ErrorBody {
    /// Reads a body of any size and shape: linear time, no recursion beyond
    /// serde_json's 128, and where it is JSON no allocation that grows with it.
    ///
    /// A body that is not JSON proves nothing. `remote` is the exception: it
    /// only ever takes proof away, so there it counts wherever its words stand,
    /// and nobody can hide it behind garbage.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut found = Self::default();
        let mut json = serde_json::Deserializer::from_slice(without_mark(body));
        let whole = Reader {
            place: Place::Top,
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

/// Whether the words of a remote end's code stand anywhere in the text, their
/// characters escaped or not.
fn names_remote(text: &[u8]) -> bool {
    let mut rest = text;
    let plain: Vec<u8> = iter::from_fn(|| {
        let (byte, behind) = match rest {
            [b'\\', b'u' | b'U', b'0', b'0', high, low, behind @ ..] => {
                let digit = |digit: u8| char::from(digit).to_digit(16);
                let byte = digit(*high)
                    .zip(digit(*low))
                    .map(|(high, low)| high << 4 | low);
                (
                    byte.and_then(|byte| u8::try_from(byte).ok())
                        .unwrap_or(b'?'),
                    behind,
                )
            }
            [byte, behind @ ..] => (*byte, behind),
            [] => return None,
        };
        rest = behind;
        Some(byte)
    })
    .collect();
    REMOTE.iter().any(|remote| {
        let mut windows = plain.windows(remote.len());
        windows.any(|window| window.eq_ignore_ascii_case(remote.as_bytes()))
    })
}

/// Where in the body a value stands.
#[derive(Clone, Copy)]
enum Place {
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
    /// Another code: of one of the errors, or a spelling that the platform has
    /// elsewhere (`errorCode` of the body). Only the remote end's count here.
    OtherCode,
    Message,
    Elsewhere,
}

impl Place {
    fn member(self, name: &str) -> Self {
        match (self, name) {
            (Self::Top | Self::Body, "details") => Self::Details,
            (Self::Top | Self::Body, "errors") => Self::Errors,
            (Self::Top | Self::Body, "message") => Self::Message,
            (Self::Top, "code") => Self::TopCode,
            (Self::Top | Self::Body, "errorCode" | "code") => Self::OtherCode,
            (Self::Detail | Self::Details, "code") => Self::OtherCode,
            // One detail where a list is expected says as much.
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

struct Reader<'f> {
    place: Place,
    found: &'f mut ErrorBody,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.place {
            // Skipped without recursion and without reading numbers.
            Place::Elsewhere => IgnoredAny::deserialize(deserializer).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        match (self.place, text) {
            (Place::DetailCode | Place::TopCode | Place::OtherCode, code) if is_remote(code) => {
                self.found.remote = true;
            }
            // Strict, unlike the one above: these are proofs.
            (Place::DetailCode, "ACTION.AUTHENTICATION") => self.found.authentication = true,
            (Place::TopCode, code) => {
                self.found.code = match (self.found.code, code) {
                    (Code::None, "client.failed.request") => Code::FailedRequest,
                    (Code::None, "authentication.request.timeout") => Code::AuthenticationTimeout,
                    _ => Code::Other,
                };
            }
            (Place::Message, text) => {
                self.found.retry_seconds = self.found.retry_seconds.max(seconds_in(text));
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(place) = map.next_key_seed(Member(self.place))? {
            map.next_value_seed(Reader {
                place,
                found: self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let place = self.place.element();
        while seq
            .next_element_seed(Reader {
                place,
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

/// Reads a member's name into the place of its value, without copying it.
struct Member(Place);

impl<'de> DeserializeSeed<'de> for Member {
    type Value = Place;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Member {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Place, E> {
        Ok(self.0.member(name))
    }
}

/// The number in "Retry the request in [42] seconds"; more digits than a `u64`
/// holds are its largest value.
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
mod tests {
    use super::*;

    fn remote() -> ErrorBody {
        ErrorBody {
            remote: true,
            ..ErrorBody::default()
        }
    }

    #[test]
    fn marks_are_found_where_the_platform_puts_them() {
        for body in [
            r#"{"details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#,
            r#"{"details":[{"errorCode":"x"},{"a":[1],"errorCode":"ACTION.PROCESSING"}]}"#,
            r#"{"details":{"errorCode":"ACTION.PROCESSING"}}"#,
            r#"{"errors":[{"errors":[{"details":[{"errorCode":"ACTION.PROCESSING"}]}]}]}"#,
            r#"{"errorCode":"ACTION.REMOTE_ENDPOINT","correlationId":"x"}"#,
            r#"{"det\u0061ils":[{"errorCode":"ACTION\u002eREMOTE_ENDPOINT"}]}"#,
            // A second `details` does not unsay the first.
            r#"{"details":[{"errorCode":"ACTION.PROCESSING"}],"details":[]}"#,
            r#"{"details":[{"errorCode":"Action.Processing"}]}"#,
            r#"{"details":[{"code":"ACTION.PROCESSING"}]}"#,
            r#"{"errors":[{"code":"ACTION.PROCESSING"}]}"#,
            r#"{"code":"ACTION.REMOTE_ENDPOINT"}"#,
            "\u{feff}{\"errorCode\":\"ACTION.REMOTE_ENDPOINT\"}",
        ] {
            assert_eq!(ErrorBody::read(body.as_bytes()), remote(), "{body}");
        }
    }

    #[test]
    fn the_same_words_elsewhere_say_nothing() {
        for body in [
            r#"{"message":"ACTION.REMOTE_ENDPOINT"}"#,
            r#"{"errorCode":"ACTION.AUTHENTICATION"}"#,
            r#"{"entity":{"details":[{"errorCode":"ACTION.PROCESSING"}]}}"#,
            r#"[{"details":[{"errorCode":"ACTION.PROCESSING"}]}]"#,
            r#"{"details":["ACTION.PROCESSING",1,null,true,1.5,-1,[]]}"#,
            r#"{"details":[{"errorCode":["ACTION.PROCESSING"]}]}"#,
            r#"{"details":null,"errors":7,"message":{}}"#,
            "\"ACTION.PROCESSING\"",
        ] {
            assert_eq!(
                ErrorBody::read(body.as_bytes()),
                ErrorBody::default(),
                "{body}"
            );
        }
    }

    #[test]
    fn a_broken_text_proves_nothing_and_hides_nothing() {
        let proof = r#"{"details":[{"errorCode":"ACTION.AUTHENTICATION"}],"message":"Retry the request in [4] seconds""#;
        for end in ["", "}x", ",\"a\":tru}", ",\"a\":\"\u{1}\"}"] {
            assert_eq!(
                ErrorBody::read(format!("{proof}{end}").as_bytes()),
                ErrorBody::default(),
                "{end}"
            );
        }
        for start in ["", "\u{feff}"] {
            assert!(ErrorBody::read(format!("{start}{proof}}}").as_bytes()).authentication);
        }
        assert_eq!(
            ErrorBody::read(br#"{"details":[{"errorCode":"ACTION.PROCESSING"}],"#),
            remote()
        );
        // Not JSON: wherever the words stand, in every spelling.
        for body in [
            "ACTION.REMOTE_ENDPOINT",
            "{}{\"a\":\"ACTION.PROCESSING\"}",
            "{\"message\":\"a\nb\",\"x\":\"action.remote_Endpoint\"}",
            r"x \u0041CTION\u002eREMOTE\u005FENDPOINT",
            r"\\\u0041CTION.PROCESSING\u00",
        ] {
            assert_eq!(ErrorBody::read(body.as_bytes()), remote(), "{body}");
        }
        for body in [r"ACTION\u00zzPROCESSING", r"\u00", "ACTION.PROCESSIN"] {
            assert_eq!(ErrorBody::read(body.as_bytes()), ErrorBody::default());
        }
    }

    #[test]
    fn codes_are_the_bodys_own_and_unambiguous() {
        let code = |body: &str| ErrorBody::read(body.as_bytes()).code;
        let failed = r#""code":"client.failed.request""#;
        assert_eq!(code(&format!("{{{failed}}}")), Code::FailedRequest);
        assert_eq!(
            code(r#"{"code":"authentication.request.timeout"}"#),
            Code::AuthenticationTimeout
        );
        for (body, expected) in [
            (format!(r#"{{{failed},"code":"bad.request"}}"#), Code::Other),
            (
                r#"{"code":"Client.Failed.Request"}"#.to_owned(),
                Code::Other,
            ),
            (format!(r#"{{"errors":[{{{failed}}}]}}"#), Code::None),
            (format!(r#"{{"details":[{{{failed}}}]}}"#), Code::None),
            (
                r#"{"errorCode":"client.failed.request"}"#.to_owned(),
                Code::None,
            ),
            (format!("{{{failed}}}x"), Code::None),
            (format!("[{{{failed}}}]"), Code::None),
        ] {
            assert_eq!(code(&body), expected, "{body}");
        }
    }

    #[test]
    fn hostile_bodies_are_survived() {
        let nested = |open: &str, close: &str, n: usize| open.repeat(n) + &close.repeat(n);
        for body in [
            nested("[", "]", 1_000_000),
            nested(r#"{"errors":["#, "]}", 200_000),
            nested(r#"{"x":["#, "]}", 200_000),
            format!(
                r#"{{"message":"{}"}}"#,
                "Retry the request in [".repeat(200_000)
            ),
            format!(r#"{{{}"a":1}}"#, r#""details":[{}],"#.repeat(100_000)),
            "9".repeat(1_000_000),
        ] {
            assert_eq!(ErrorBody::read(body.as_bytes()), ErrorBody::default());
        }
        assert_eq!(ErrorBody::read(&[0xff; 4096]), ErrorBody::default());
        assert_eq!(ErrorBody::read(b""), ErrorBody::default());
    }

    #[test]
    fn waiting_times_are_read_from_the_messages_words() {
        for (message, seconds) in [
            (
                "Rate limit exceeded. Retry the request in [42] seconds",
                Some(42),
            ),
            ("retry the request in [0] seconds.", Some(0)),
            (
                "Retry the request in [99999999999999999999] seconds",
                Some(u64::MAX),
            ),
            ("Retry the request in [-1] seconds", None),
            ("Retry the request in [] seconds", None),
            ("Retry the request in [4.5] seconds", None),
            ("Retry the request in [4] minutes", None),
            ("Retry the request in [4", None),
            ("Retry later", None),
        ] {
            assert_eq!(seconds_in(message), seconds, "{message}");
        }
    }
}
