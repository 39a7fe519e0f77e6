//! Key derivation, compared with the crates that do the same in steps, and with only reading
//! and hashing. All on one thread: nothing here waits.

use std::fmt::Write as _;
use std::hint::black_box;

use bytes::Bytes;
use genesys_once::{DataActionRequest, IdempotencyKey};
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use crate::measure::{Measured, in_turns, rate};
use crate::world::{ACTION, World, payload_of};

pub fn small(_: &World) -> Measured {
    against_crates(&payload_of(100_042), 20_000)
}

pub fn large(_: &World) -> Measured {
    against_crates(&nested(), 40)
}

/// The least possible work on the whole text: no tree, no order, no output.
pub fn against_reading(_: &World) -> Measured {
    let payload = nested();
    let derive = || drop(black_box(derive(black_box(&payload))));
    let read_and_hash = || {
        let read: IgnoredAny = serde_json::from_slice(black_box(&payload)).expect("JSON");
        black_box((read, Sha256::digest(black_box(&payload))));
    };
    in_turns(
        41,
        "a second",
        || rate(200, derive),
        || rate(200, read_and_hash),
    )
}

fn against_crates(payload: &Bytes, calls: usize) -> Measured {
    assert_eq!(
        IdempotencyKey::of(&derive(payload)),
        IdempotencyKey::from_bytes(in_steps(payload))
    );
    let derive = || drop(black_box(derive(black_box(payload))));
    let in_steps = || {
        black_box(in_steps(black_box(payload)));
    };
    in_turns(
        31,
        "a second",
        || rate(calls, derive),
        || rate(calls, in_steps),
    )
}

/// The engine's way: the whole request is made, not only the key.
pub fn derive(payload: &Bytes) -> DataActionRequest {
    DataActionRequest::new(ACTION, payload.clone()).expect("a payload of ours")
}

/// The baseline: the usual crates for the same key.
fn in_steps(payload: &[u8]) -> [u8; 32] {
    let value: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
    let canonical = serde_json_canonicalizer::to_vec(&value).expect("a value");
    let hash = Sha256::new().chain_update(ACTION).chain_update(":");
    hash.chain_update(canonical).finalize().into()
}

/// 50 kB of orders within customers: compact, with members in the order of a typical
/// program, and some strings with escapes and non-ASCII characters.
pub fn nested() -> Bytes {
    let mut text = String::from(r#"{"version":2,"customers":["#);
    for customer in 0_u32.. {
        if customer > 0 {
            text.push(',');
        }
        write!(
            text,
            r#"{{"name":"Customer {customer}","id":"C-{:06}","vip":{},"address":{{"street":"Hauptstraße {customer}","zip":"{:05}","city":"München","geo":{{"lon":11.{},"lat":48.{}}}}},"note":"first line\nsecond \"quoted\" line","orders":["#,
            customer * 7919,
            customer % 3 == 0,
            80_000 + customer,
            5_001 + 2 * customer,
            1_003 + 2 * customer,
        )
        .expect("writing to a String succeeds");
        for order in 0..4 {
            let comma = if order > 0 { "," } else { "" };
            write!(
                text,
                r#"{comma}{{"sku":"SKU-{customer}-{order}","quantity":{},"price":{}.50,"options":{{"gift":false,"colour":"blue","size":null}}}}"#,
                order + 1,
                10 * order + 9,
            )
            .expect("writing to a String succeeds");
        }
        text.push_str("]}");
        if text.len() > 49_500 {
            break;
        }
    }
    text.push_str("]}");
    text.into()
}
