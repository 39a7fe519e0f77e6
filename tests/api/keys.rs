//! The basis of the key: each value has exactly one canonical form. `vectors` compares it
//! with RFC 8785's files, `numbers` with the layout of doubles, `reference` with another
//! implementation, and `arbitrary_bytes` reads bytes that are not JSON.

use std::time::Duration;

use genesys_once::canonical::canonicalize;
use genesys_once::testing::strategies::{Decimal, Json, choices, json, requests, respellings};
use genesys_once::{DataActionRequest, IdempotencyKey};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

mod arbitrary_bytes;
mod numbers;
mod reference;
mod vectors;

fn config() -> ProptestConfig {
    let regressions = FileFailurePersistence::Direct("proptest-regressions/tests/keys.txt");
    ProptestConfig {
        failure_persistence: Some(Box::new(regressions)),
        ..ProptestConfig::with_cases(1024)
    }
}

fn key(payload: &str) -> IdempotencyKey {
    let request = DataActionRequest::new("action", payload);
    let request = request.unwrap_or_else(|error| panic!("{payload}: {error}"));
    IdempotencyKey::of(&request)
}

/// Changes the value at one position, most often by the smallest change. The result might
/// be equal to the original.
fn edit(value: &mut Json, choices: &[u8]) {
    let Some((&choice, rest)) = choices.split_first() else {
        return;
    };
    let at = usize::from(choice);
    match value {
        Json::Null => *value = Json::Bool(false),
        Json::Bool(truth) => *truth = !*truth,
        Json::Number(number) => {
            let mut text = Json::Number(number.clone()).render(&[]);
            let digit = text.bytes().position(|b| b.is_ascii_digit()).unwrap();
            match at % 4 {
                0 if text.starts_with('-') => text = text[1..].to_owned(),
                0 => text.insert(0, '-'),
                1 if !text.contains('e') => text += "e1",
                2 if !text.contains(['e', '.']) => text += ".0000000000000000000000000000000001",
                _ => text.replace_range(digit..=digit, ["1", "2", "7"][at % 3]),
            }
            *number = Decimal::read(&text);
        }
        Json::String(string) => match at % 4 {
            0 => string.push('\0'),
            1 => *string = string.replace('é', "e\u{301}"),
            2 => drop(string.pop()),
            _ => string.insert(0, '\\'),
        },
        Json::Array(elements) if !elements.is_empty() && at % 5 > 1 => {
            let index = at % elements.len();
            edit(&mut elements[index], rest);
        }
        Json::Array(elements) if at % 5 == 1 => elements.reverse(),
        Json::Array(elements) => elements.push(Json::Array(Vec::new())),
        Json::Object(members) if !members.is_empty() && at % 5 > 0 => {
            let name = members.keys().nth(at % members.len()).unwrap().clone();
            if at % 5 == 1 {
                let value = members.remove(&name).unwrap();
                members.insert(name + "\0", value);
            } else {
                edit(members.get_mut(&name).unwrap(), rest);
            }
        }
        Json::Object(members) => drop(members.insert(String::new(), Json::Null)),
    }
}

/// The value without the parts whose pointers are chosen; the pointers are added to
/// `chosen`.
fn prune(
    value: &Json,
    at: &str,
    choose: &mut impl FnMut() -> bool,
    chosen: &mut Vec<String>,
) -> Json {
    let mut keep = |token: &str, part: &Json| {
        let pointer = format!("{at}/{}", token.replace('~', "~0").replace('/', "~1"));
        if choose() {
            chosen.push(pointer);
            return None;
        }
        Some(prune(part, &pointer, choose, chosen))
    };
    match value {
        Json::Array(elements) => {
            let elements = elements.iter().enumerate();
            Json::Array(
                elements
                    .filter_map(|(i, part)| keep(&i.to_string(), part))
                    .collect(),
            )
        }
        Json::Object(members) => {
            let kept = members
                .iter()
                .filter_map(|(name, part)| Some((name.clone(), keep(name, part)?)));
            Json::Object(kept.collect())
        }
        plain => plain.clone(),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn key_is_equal_in_every_spelling(value in json(), a in choices(), b in choices()) {
        let (a, b) = (value.render(&a), value.render(&b));
        prop_assert_eq!(canonicalize(a.as_bytes()), canonicalize(b.as_bytes()));
        prop_assert_eq!(key(&a), key(&b), "{}\n{}", a, b);
    }

    #[test]
    fn values_that_differ_anywhere_never_share_a_key(
        value in json(),
        edits in prop::collection::vec(any::<u8>(), 1..8),
        spelling in choices(),
    ) {
        let mut other = value.clone();
        edit(&mut other, &edits);
        let (a, b) = (value.render(&spelling), other.render(&spelling));
        prop_assert_eq!(value == other, key(&a) == key(&b), "{}\n{}", a, b);
    }

    #[test]
    fn small_values_share_a_key_exactly_if_they_are_equal(
        a in "[\\[{]?(-?[01]0?0?(\\.[01]?0?0[01])?([eE][-+]?[0-3])?|\"a?\"|\"a\":0|\"\":0)[\\]}]?",
        b in "[\\[{]?(-?[01]0?0?(\\.[01]?0?0[01])?([eE][-+]?[0-3])?|\"a?\"|\"a\":0|\"\":0)[\\]}]?",
    ) {
        let valid = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
        if valid(&a) && valid(&b) {
            let equal = Json::read(a.as_bytes()) == Json::read(b.as_bytes());
            prop_assert_eq!(equal, key(&a) == key(&b), "{}\n{}", a, b);
        }
    }

    #[test]
    fn canonical_form_keeps_the_value(value in json(), spelling in choices()) {
        let canonical = canonicalize(value.render(&spelling).as_bytes()).unwrap();
        prop_assert_eq!(Json::read(&canonical), value);
        prop_assert_eq!(canonicalize(&canonical).unwrap(), canonical);
    }

    #[test]
    fn a_respelling_keeps_key_and_fingerprint(
        pair in requests().prop_flat_map(|request| {
            // Any options, whether or not their pointers match.
            let pointers = ["/a", "/0", "/b/a", "/1/0"];
            let request = request.clone().ignoring(pointers).unwrap_or(request);
            let ignoring = request.clone();
            let own = request.clone().with_key("own").unwrap().with_ttl(Duration::from_secs(1)).unwrap().sensitive();
            let forwarding = request.clone().forward_key("/no such member").unwrap_or(request);
            let any = prop::sample::select(vec![ignoring, own, forwarding]);
            any.prop_flat_map(|of| (respellings(&of), Just(of)))
        }),
    ) {
        let (respelled, of) = pair;
        prop_assert_eq!(IdempotencyKey::of(&respelled), IdempotencyKey::of(&of));
        prop_assert_eq!(respelled.fingerprint("route"), of.fingerprint("route"));
        prop_assert_ne!(respelled.fingerprint("route"), of.fingerprint("other"));
    }

    #[test]
    fn ignoring_parts_is_the_key_of_the_value_without_them(
        value in json(),
        spelling in choices(),
        every in 1..6_usize,
    ) {
        let (mut chosen, mut count) = (Vec::new(), 0);
        let mut choose = || {
            count += 1;
            count % (every + 1) == 0
        };
        let pruned = prune(&value, "", &mut choose, &mut chosen);
        chosen.reverse();
        let whole = DataActionRequest::new("action", value.render(&spelling)).unwrap();
        let ignoring = whole.ignoring(&chosen).unwrap();
        prop_assert_eq!(IdempotencyKey::of(&ignoring), key(&pruned.render(&[])), "{:?}", chosen);
    }

    /// The four forms of a key never have the same text.
    #[test]
    fn no_two_forms_of_a_key_meet(
        payload in "[0-9]|\"[a:\"]?\"", word in "[0-9:a\"\\\\ ]{1,4}", other in "[0-9:a\"\\\\ ]{1,4}",
    ) {
        let Ok(plain) = DataActionRequest::new("a", payload.as_str()) else { return Ok(()) };
        let scoped = |r: &DataActionRequest, word| r.clone().with_scope(word).unwrap();
        let own = plain.clone().with_key(&word).unwrap();
        let mut all = vec![plain.clone(), scoped(&plain, &word), own.clone(), scoped(&own, &word)];
        if word != other {
            let own = plain.clone().with_key(&other).unwrap();
            all.extend([scoped(&plain, &other), scoped(&own, &word), own]);
        }
        let keys: std::collections::HashSet<_> = all.iter().map(IdempotencyKey::of).collect();
        prop_assert_eq!(keys.len(), all.len());
    }
}

#[test]
fn values_that_parsers_merge_stay_distinct() {
    let third = "0.3333333333333333333333333333333333333333";
    for (a, b) in [
        ("9007199254740991", "9007199254740992"),
        ("9007199254740992", "9007199254740993"),
        ("9007199254740993", "9007199254740994"),
        ("-9007199254740992", "-9007199254740993"),
        ("9007199254740993", "9007199254740992.0"),
        ("18446744073709551615", "18446744073709551616"),
        ("18446744073709551616", "18446744073709551617"),
        // Neighbouring doubles, which serde_json reads as one by default.
        ("5.4e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623155e308"),
        ("0.1", "0.10000000000000002"),
        ("0.1", "0.10000000000000000000000000000000000001"),
        (third, &third.replace("3", "6")),
        (third, &third[..third.len() - 1]),
        ("1e400", "1e401"),
        ("1e400", "2e400"),
        ("1e400", "-1e400"),
        ("1e-400", "0"),
        ("1e-400", "1e-401"),
        ("1", "\"1\""),
        ("0", "false"),
        ("null", "\"null\""),
        ("[]", "{}"),
        ("[[],[]]", "[[[]]]"),
        ("[1,2]", "[2,1]"),
        ("[12]", "[1,2]"),
        // Composed and decomposed characters, and characters that look alike.
        ("\"\u{e9}\"", "\"e\u{301}\""),
        ("{\"\u{e9}\":1}", "{\"e\u{301}\":1}"),
        ("\"K\"", "\"\u{212a}\""),
        ("\"a\"", "\"a\u{0}\"".replace('\0', "\\u0000").as_str()),
        ("\"\\\\u0061\"", "\"a\""),
        ("{\"a\":1,\"b\":2}", "{\"a\":2,\"b\":1}"),
        ("{\"a\":{\"b\":1}}", "{\"a\":1,\"b\":{}}"),
        ("{\"a\":null}", "{}"),
    ] {
        assert_ne!(key(a), key(b), "{a} {b}");
    }
}

#[test]
fn equal_values_share_a_key() {
    for same in [
        &["1", "1.0", "10e-1", "0.1e1", " 1E+0", "100e-2", "0.00001e5"][..],
        &["0", "-0", "0.0", "-0e9", "0e-5"],
        &[
            "9007199254740993",
            "9007199254740993.0",
            "9.007199254740993e15",
            "9007199254740993000e-3",
        ],
        &["1e400", "1E+400", "10e399", "0.1e401"],
        &["\"é/\"", "\"\\u00e9\\/\"", "\"\\u00E9\\u002f\""],
        &[
            "{\"a\":[],\"b\":{}}",
            "{ \"b\" : { } ,\n \"\\u0061\" : [ ] }",
        ],
    ] {
        for other in same {
            assert_eq!(key(same[0]), key(other), "{other}");
        }
    }
}
