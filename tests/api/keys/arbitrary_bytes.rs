//! Random bytes: none causes a panic, and serde_json accepts and refuses the same texts,
//! except for the stricter rules.

use genesys_once::canonical::canonicalize;
use genesys_once::testing::strategies::{choices, json};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde::de::IgnoredAny;

/// Refusals beyond the grammar of JSON.
const STRICTER: [&str; 6] = [
    "duplicate member name",
    "lone surrogate",
    "invalid UTF-8",
    "nested too deeply",
    "number out of range",
    "byte order mark",
];

#[track_caller]
fn check(bytes: &[u8]) -> bool {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let taken = serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    match canonicalize(bytes) {
        Ok(canonical) => {
            assert!(taken, "serde_json refuses {}", shown());
            assert_eq!(
                canonicalize(&canonical).as_ref(),
                Ok(&canonical),
                "{}",
                shown()
            );
        }
        Err(error) => {
            assert!(error.offset <= bytes.len(), "{error}: {}", shown());
            let stricter = STRICTER.contains(&error.reason);
            assert!(!taken || stricter, "{error}: serde_json takes {}", shown());
            // The bytes before the error are valid: the error does not report a later
            // position.
            let prefix = canonicalize(&bytes[..error.offset]).map_err(|before| before.offset);
            assert!(
                !prefix.is_err_and(|at| at < error.offset && !stricter),
                "{}",
                shown()
            );
        }
    }
    taken
}

fn random_bytes(random: &mut fastrand::Rng, alphabet: &[u8]) -> Vec<u8> {
    let length = random.usize(..40);
    let byte = |random: &mut fastrand::Rng| match alphabet {
        [] => random.u8(..),
        _ => alphabet[random.usize(..alphabet.len())],
    };
    (0..length).map(|_| byte(random)).collect()
}

#[test]
fn random_bytes_never_panic() {
    let mut random = fastrand::Rng::with_seed(8785);
    for alphabet in [
        &b""[..],
        b"{}[]\",:0 ",
        b"\"\\u0dD8cC9bnrtf/x",
        b"-+.eE0123456789",
        b"\"a\xf0\x9f\x98\x82\xc3\xa9\xed\xa0\x80",
        b"truefalsn[],",
    ] {
        for _ in 0..12_000 {
            check(&random_bytes(&mut random, alphabet));
        }
    }
}

#[test]
fn mutated_documents_never_panic() {
    let mut random = fastrand::Rng::with_seed(6901);
    let mut runner = TestRunner::deterministic();
    let documents = (json(), choices()).prop_map(|(value, choices)| value.render(&choices));
    let mut taken = 0;
    for _ in 0..600 {
        let document = documents.new_tree(&mut runner).unwrap().current();
        for _ in 0..70 {
            let mut bytes = document.clone().into_bytes();
            for _ in 0..random.usize(1..4) {
                mutate(&mut bytes, &mut random);
            }
            taken += usize::from(check(&bytes));
        }
    }
    // Both outcomes must occur often, or this test proves little.
    assert!(
        (4_000..38_000).contains(&taken),
        "{taken} of 42,000 were valid"
    );
}

fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    const TOKENS: [&[u8]; 16] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\ud800",
        b"\\u0000",
        b"-",
        b"0",
        b"1e9",
        b".",
        b"\xff",
        b"\"a\":1,",
    ];
    let at = random.usize(..=bytes.len());
    let end = (at + random.usize(..6)).min(bytes.len());
    match random.u8(..6) {
        0 => drop(bytes.drain(at..end)),
        1 => bytes.truncate(at),
        2 => bytes.extend_from_within(at..end),
        3 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
        4 if at < end => bytes.swap(at, end - 1),
        _ => {
            let token = TOKENS[random.usize(..TOKENS.len())];
            drop(bytes.splice(at..at, token.iter().copied()));
        }
    }
}

/// A document that is cut at any byte is an error at the cut.
#[test]
fn cut_documents_fail_at_the_cut() {
    let document = r#"{"a":[true,null,{"é":"\ud83d\ude02\n"}],"b":false,"a b":-0.5e-7}"#;
    assert!(check(document.as_bytes()));
    for cut in 0..document.len() {
        let error = canonicalize(&document.as_bytes()[..cut]).unwrap_err();
        // The error names the start of a surrogate or a character that is cut in two.
        let halved = ["lone surrogate", "invalid UTF-8"].contains(&error.reason);
        assert!(error.offset == cut || halved, "{cut}: {error}");
    }
}

#[test]
fn depth_limit_protects_the_stack() {
    for (open, count) in [("[", 1), ("{\"a\":", 1), ("[{\"a\":", 2)] {
        let deep = open.repeat(1_000_000);
        let error = canonicalize(deep.as_bytes()).unwrap_err();
        assert_eq!(
            (error.offset, error.reason),
            (128 / count * open.len(), "nested too deeply")
        );
    }
}
