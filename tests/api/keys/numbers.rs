//! If a number is the shortest form of a double, its canonical text is that of RFC 8785,
//! which is that of ECMAScript's `Number::toString`. The expected digits come from
//! serde_json, whose shortest form is ECMAScript's: of two equally near forms, the even one
//! (Rust's own formatting may choose the other). The expected layout comes from a second
//! implementation here.

use genesys_once::canonical::canonicalize;
use proptest::prelude::*;

use super::config;

/// ECMA-262, `Number::toString`, for the shortest digits of a double in any spelling.
fn ecmascript(shortest: &str) -> String {
    if let Some(positive) = shortest.strip_prefix('-') {
        let text = ecmascript(positive);
        return if text == "0" {
            text
        } else {
            format!("-{text}")
        };
    }
    let (mantissa, exponent) = shortest.split_once(['e', 'E']).unwrap_or((shortest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let leading = (all.len() - digits.len()) as i32;
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return "0".to_owned();
    }
    // The letters `k` and `n` are those of the specification.
    let k = digits.len() as i32;
    let n = exponent.parse::<i32>().unwrap() + whole.len() as i32 - leading;
    if k <= n && n <= 21 {
        format!("{digits:0<width$}", width = n as usize)
    } else if 0 < n && n <= 21 {
        let (whole, fraction) = digits.split_at(n as usize);
        format!("{whole}.{fraction}")
    } else if -6 < n && n <= 0 {
        format!("0.{}{digits}", "0".repeat(-n as usize))
    } else if k == 1 {
        format!("{digits}e{:+}", n - 1)
    } else {
        let (first, others) = digits.split_at(1);
        format!("{first}.{others}e{:+}", n - 1)
    }
}

#[track_caller]
fn assert_written(spelling: &str, expected: &str) {
    let canonical = canonicalize(spelling.as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8(canonical).unwrap(),
        expected,
        "{spelling}"
    );
}

/// Asserts the text for each spelling of the shortest digits.
fn assert_like_ecmascript(double: f64) {
    for spelling in [
        serde_json::to_string(&double).unwrap(),
        format!("{double:e}"),
        format!("{double:E}"),
        format!("{double}"),
        format!("{double:?}"),
    ] {
        assert_written(&spelling, &ecmascript(&spelling));
    }
}

#[test]
fn border_doubles_have_their_layout() {
    for (double, expected) in [
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        (f64::from_bits(1), "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::MIN, "-1.7976931348623157e+308"),
        (2f64.powi(53), "9007199254740992"),
        (2f64.powi(63), "9223372036854776000"),
        (2f64.powi(69), "590295810358705700000"),
        (2f64.powi(70), "1.1805916207174113e+21"),
        (1e21, "1e+21"),
        (1e21_f64.next_down(), "999999999999999900000"),
        (1e-6, "0.000001"),
        (1e-6_f64.next_down(), "9.999999999999997e-7"),
        (-0.0, "0"),
        (1.0 / 3.0, "0.3333333333333333"),
        (-1e-7, "-1e-7"),
        (123e-20, "1.23e-18"),
        // Halfway between .2 and .3; both read back as this double.
        (1_125_900_000_000_000.0 + 0.25, "1125900000000000.2"),
    ] {
        assert_written(&serde_json::to_string(&double).unwrap(), expected);
        assert_like_ecmascript(double);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn double_has_its_layout(double in prop::num::f64::ANY) {
        if double.is_finite() {
            assert_like_ecmascript(double);
        }
    }

    #[test]
    fn layout_changes_at_its_thresholds(digits in 1..10_000_000_u64, exponent in -32..32_i32) {
        let double: f64 = format!("{digits}e{exponent}").parse().unwrap();
        assert_like_ecmascript(double);
        assert_like_ecmascript(-double);
        assert_like_ecmascript(double.next_up());
        assert_like_ecmascript(double.next_down());
    }
}
