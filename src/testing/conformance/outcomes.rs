//! Outcomes and verdicts that a store must return byte for byte. They have no header that no
//! store keeps (cookies, hop-by-hop headers).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::cases::{Case, acquire, complete_with, release, take_over};
use super::trial::{Wanted, holder};
use crate::outcome::{Outcome, StoredBody};
use crate::record::{MAX_REFUSAL_BYTES, Refusal, StoredOutcome};

pub(super) fn all() -> Vec<Case> {
    let (a, b) = (&holder(b'A'), &holder(b'B'));
    let replayed = |name, outcome: Arc<Outcome>, body| {
        let stored = StoredOutcome { outcome, body };
        let steps = vec![
            (acquire(a), Wanted::Done),
            (complete_with(a, 0, stored), Wanted::Done),
            (acquire(b), Wanted::Cached),
            (take_over(b), Wanted::Cached),
        ];
        (name, steps)
    };
    let handed_on = |name, refusal: Refusal| {
        let steps = vec![
            (acquire(a), Wanted::Done),
            (release(a, 1, Some(refusal)), Wanted::Done),
            (acquire(b), Wanted::Released),
            (release(b, 7, None), Wanted::Done),
            (acquire(b), Wanted::Released),
        ];
        (name, steps)
    };
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let large_text = format!("{{\"text\":\"{}\"}}", "\\u00e9é\u{1f600}\t".repeat(90_000));
    let large_bytes: Vec<u8> = every_byte.iter().copied().cycle().take(1 << 20).collect();
    vec![
        replayed(
            "an empty body is replayed",
            outcome(204, "", &[]),
            StoredBody::Full,
        ),
        replayed(
            "JSON that a decoder would change is replayed as it came",
            outcome(
                200,
                " {\"a\":[],\"b\":{},\"n\":9007199254740993,\"n\":1e400,\"s\":\"\\ud83d\\ude00\\u0000\"}\n",
                &[("content-type", b"application/json")],
            ),
            StoredBody::Full,
        ),
        replayed(
            "what looks like the end of a record is replayed",
            outcome(
                200,
                "\ngenesys-once/3 locked\n\r\n\0{\"base64\":\"AA\"}",
                &[],
            ),
            StoredBody::Full,
        ),
        replayed(
            "every byte is replayed",
            outcome(200, every_byte.clone(), &[]),
            StoredBody::Full,
        ),
        replayed(
            "repeated headers and headers that are no text are replayed",
            outcome(
                409,
                "{}",
                &[
                    ("x-a", b"1"),
                    ("x-b", b""),
                    ("x-a", b"2, 3"),
                    ("x-a", b"caf\xe9"),
                    ("x-a", b"1"),
                ],
            ),
            StoredBody::Full,
        ),
        replayed(
            "1 MiB of text is replayed",
            outcome(200, large_text, &[]),
            StoredBody::Full,
        ),
        replayed(
            "1 MiB of bytes is replayed",
            outcome(200, large_bytes, &[]),
            StoredBody::Full,
        ),
        replayed(
            "an outcome too large to keep is known to be executed",
            outcome(200, "", &[("content-type", b"text/plain")]),
            StoredBody::OmittedTooLarge,
        ),
        replayed(
            "a sensitive outcome is known to be executed",
            outcome(200, "", &[]),
            StoredBody::OmittedSensitive,
        ),
        handed_on(
            "a refusal is returned to the waiters",
            refused(outcome(403, "{\"no\":1}", &[("x-a", b"1")])),
        ),
        handed_on(
            "what may be kept of a refusal is returned to the waiters, as just that",
            refused(outcome(403, "{\"no\":1}", &[("x-a", b"1")])).sensitive(),
        ),
        handed_on(
            "the largest refusal is returned to the waiters",
            refused(outcome(403, vec![0xff; MAX_REFUSAL_BYTES], &[])),
        ),
    ]
}

fn refused(outcome: Arc<Outcome>) -> Refusal {
    Refusal::Refused(StoredOutcome::full(outcome))
}

fn outcome(status: u16, body: impl Into<Bytes>, headers: &[(&'static str, &[u8])]) -> Arc<Outcome> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            *name,
            HeaderValue::from_bytes(value).expect("no control characters"),
        );
    }
    let status = StatusCode::from_u16(status).expect("a valid status");
    Arc::new(Outcome::new(status, map, body))
}
