//! Proptest strategies: requests, and one request in other spellings. They generate and
//! render; they assert nothing.
//!
//! ```
//! use genesys_once::IdempotencyKey;
//! use genesys_once::testing::strategies::spelled_twice;
//! use proptest::prelude::*;
//!
//! proptest!(|((request, respelled) in spelled_twice())| {
//!     prop_assert_eq!(IdempotencyKey::of(&request), IdempotencyKey::of(&respelled));
//! });
//! ```

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::request::DataActionRequest;

mod json;
mod render;

pub use json::{Decimal, Json};

/// Requests with varied action ids and payloads: nested, with Unicode, with numbers that no
/// double holds. Some have a scope.
pub fn requests() -> impl Strategy<Value = DataActionRequest> {
    (actions(), json(), choices(), scopes())
        .prop_map(|(action, payload, choices, scope)| request(action, &payload, &choices, scope))
}

/// A request and the same request in another spelling, as [`requests`] and [`respellings`]
/// give. It shrinks further than the two, since neither value depends on the other.
pub fn spelled_twice() -> impl Strategy<Value = (DataActionRequest, DataActionRequest)> {
    let cases = (actions(), json(), choices(), choices(), scopes());
    cases.prop_map(|(action, payload, one, other, scope)| {
        let first = request(action.clone(), &payload, &one, scope.clone());
        (first, request(action, &payload, &other, scope))
    })
}

fn request(
    action: String,
    payload: &Json,
    choices: &[u8],
    scope: Option<String>,
) -> DataActionRequest {
    let request = DataActionRequest::new(action, payload.render(choices))
        .expect("ids and payloads are generated valid");
    match scope {
        Some(scope) => request
            .with_scope(scope)
            .expect("scopes are generated valid"),
        None => request,
    }
}

fn actions() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "custom_-_[0-9a-f]{8}",
        2 => "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        1 => "[a-z0-9_~-][a-zA-Z0-9._~-]{0,11}",
    ]
}

fn scopes() -> impl Strategy<Value = Option<String>> {
    prop_oneof![3 => Just(None), 1 => "[ -~é]{1,16}".prop_map(Some)]
}

/// The request `of` with its payload in other white space, member order, string escapes and
/// spellings of numbers, and with all its settings. Key and fingerprint are equal.
pub fn respellings(of: &DataActionRequest) -> impl Strategy<Value = DataActionRequest> + use<> {
    let of = of.clone();
    let payload = Json::read(of.payload());
    choices().prop_map(move |choices| {
        of.with_payload(payload.render(&choices))
            .expect("valid JSON stays valid when it is spelled otherwise")
    })
}

/// Any JSON value, a few levels deep.
pub fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::Bool),
        4 => decimals().prop_map(Json::Number),
        3 => strings().prop_map(Json::String),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..6).prop_map(Json::Array),
            2 => btree_map(names(), inner, 0..6).prop_map(Json::Object),
        ]
    })
}

/// The choices of [`Json::render`]. They shrink towards the plainest spelling.
pub fn choices() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..128)
}

/// Numbers: small, at the borders of doubles and integers, and beyond.
fn decimals() -> impl Strategy<Value = Decimal> {
    let borders = prop::sample::select(vec![
        "0",
        "9007199254740991",
        "9007199254740992",
        "9007199254740993",
        "18446744073709551615",
        "18446744073709551616",
        "0.1",
        "0.000001",
        "0.0000001",
        "1e20",
        "1e21",
        "123456789012345678901.5",
        "1e400",
        "-1e-400",
    ]);
    prop_oneof![
        2 => any::<i16>().prop_map(|n| n.to_string()),
        1 => any::<u64>().prop_map(|n| n.to_string()),
        2 => prop::num::f64::ANY
            .prop_filter("JSON has finite numbers only", |n| n.is_finite())
            .prop_map(|n| format!("{n:e}")),
        1 => borders.prop_map(str::to_owned),
        1 => "-?[1-9][0-9]{0,40}(\\.[0-9]{1,40})?(e-?[0-9]{1,4})?",
    ]
    .prop_map(|text| Decimal::read(&text))
}

fn strings() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "[ -~]{0,24}",
        1 => vec(any::<char>(), 0..12).prop_map(String::from_iter),
        1 => vec(prop::char::range('\0', '/'), 0..12).prop_map(String::from_iter),
    ]
}

/// Member names, close enough to each other that their order matters.
fn names() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        'a', '\0', '"', '\\', 'é', '\u{fb33}', '\u{ffff}', '😂',
    ]);
    prop_oneof![
        2 => "[a-c]{0,3}",
        1 => "common name [a-c]{0,2}",
        2 => vec(odd, 0..11).prop_map(String::from_iter),
        1 => strings(),
    ]
}
