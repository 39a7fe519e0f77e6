//! JSON values that are equal exactly if their meaning is. It shares no code with
//! `canonical`, so that tests can compare the two.

use std::collections::BTreeMap;

/// A JSON value. Equality ignores the order of members and the spelling of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are JSON's own")]
pub enum Json {
    Null,
    Bool(bool),
    Number(Decimal),
    String(String),
    Array(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

/// An exact decimal number: `digits` times ten to the power of `exponent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// Never for zero.
    pub(super) negative: bool,
    /// Without zeros at either end; empty for zero.
    pub(super) digits: String,
    /// 0 for zero.
    pub(super) exponent: i64,
}

impl Decimal {
    /// Reads a JSON number whose exponent fits an `i64`.
    ///
    /// # Panics
    ///
    /// If the text is not such a number.
    pub fn read(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = whole.trim_start_matches('-').to_owned() + fraction;
        let significant = all.trim_end_matches('0');
        let digits = significant.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Self {
                negative: false,
                digits,
                exponent: 0,
            };
        }
        assert!(
            digits.bytes().all(|b| b.is_ascii_digit()),
            "no number: {text}"
        );
        let exponent: i64 = exponent.parse().expect("the exponent is an integer");
        let dropped = all.len() - significant.len();
        Self {
            negative: text.starts_with('-'),
            digits,
            exponent: exponent + dropped as i64 - fraction.len() as i64,
        }
    }
}

impl Json {
    /// Reads a JSON text.
    ///
    /// # Panics
    ///
    /// If the text is not JSON.
    pub fn read(text: &[u8]) -> Self {
        let text = std::str::from_utf8(text).expect("JSON is UTF-8");
        let mut rest = text;
        let value = value(&mut rest);
        assert!(rest.trim_ascii().is_empty(), "text after the value");
        value
    }
}

fn value(rest: &mut &str) -> Json {
    *rest = rest.trim_ascii_start();
    if take(rest, "null") {
        Json::Null
    } else if take(rest, "true") {
        Json::Bool(true)
    } else if take(rest, "false") {
        Json::Bool(false)
    } else if rest.starts_with('"') {
        Json::String(string(rest))
    } else if take(rest, "[") {
        let mut elements = Vec::new();
        while !take(rest, "]") {
            elements.push(value(rest));
            take(rest, ",");
        }
        Json::Array(elements)
    } else if take(rest, "{") {
        let mut members = BTreeMap::new();
        while !take(rest, "}") {
            let name = string(rest);
            assert!(take(rest, ":"), "no colon");
            members.insert(name, value(rest));
            take(rest, ",");
        }
        Json::Object(members)
    } else {
        let part_of_number = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let end = rest.find(|c| !part_of_number(c)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        *rest = after;
        Json::Number(Decimal::read(number))
    }
}

/// Skips `token` and the white space around it, if it is next.
fn take(rest: &mut &str, token: &str) -> bool {
    match rest.trim_ascii_start().strip_prefix(token) {
        Some(after) => {
            *rest = after.trim_ascii_start();
            true
        }
        None => false,
    }
}

fn string(rest: &mut &str) -> String {
    let mut escaped = false;
    let end = rest.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    let (literal, after) = rest.split_at(end.expect("strings end") + 2);
    *rest = after;
    serde_json::from_str(literal).expect("strings are valid")
}
