//! Messages, causes and hints of errors.

use super::*;
use crate::key::{Fingerprint, LeaseId};
use std::error::Error as _;

#[test]
fn message_leaves_the_cause_to_source() {
    let error = Error::StoreUnavailable {
        source: StoreError::unavailable("connection refused"),
    };
    assert_eq!(error.to_string(), "the store is unavailable");
    let store = error.source().unwrap();
    assert_eq!(store.to_string(), "the store did not answer");
    assert_eq!(store.source().unwrap().to_string(), "connection refused");
    assert_eq!(
        chain(&error),
        "the store is unavailable: the store did not answer: connection refused"
    );
}

/// Red with the cause in the message, and without `source()`.
#[test]
fn indeterminate_leaves_its_cause_to_source() {
    let key = IdempotencyKey::from_bytes([7; 32]);
    let error = Error::Indeterminate {
        key,
        version: Version {
            lease: LeaseId::from_bytes([1; 16]),
            fingerprint: Fingerprint::from_bytes([2; 32]),
        },
        since: SystemTime::UNIX_EPOCH,
        cause: "connection reset".into(),
    };
    let message = format!("key {key} might have been executed");
    assert_eq!(error.to_string(), message);
    assert_eq!(error.source().unwrap().to_string(), "connection reset");
    assert_eq!(chain(&error), format!("{message}: connection reset"));
}

/// Red if the panic is not caught: an attempt that failed with such an error crashed
/// its execution.
#[test]
fn cause_that_panics_when_printed_is_an_error() {
    #[derive(Debug)]
    struct Unprintable;
    impl std::fmt::Display for Unprintable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("the cause")
        }
    }
    impl std::error::Error for Unprintable {}
    let error = SendError::after_sending(Unprintable);
    assert_eq!(chain(&error), "an error that panics when it is printed");
}

#[test]
fn hints_follow_what_is_known() {
    let wait = Duration::from_secs(42);
    assert_eq!(
        Error::RateLimited { retry_after: wait }.hint(),
        RetryHint::After(wait)
    );
    let token = |source| Error::Token { source };
    assert_eq!(token(TokenError::rejected("no")).hint(), RetryHint::Never);
    assert_eq!(
        token(TokenError::rate_limited(wait)).hint(),
        RetryHint::After(wait)
    );
    assert!(matches!(
        token(TokenError::new("no")).hint(),
        RetryHint::After(_)
    ));
    assert_eq!(Error::Stopped.hint(), RetryHint::Never);
}

/// Red without the shortest hint, and if a deadline ignores the cooldown.
#[test]
fn hint_is_never_zero() {
    let zero = Duration::ZERO;
    let key = IdempotencyKey::from_bytes([7; 32]);
    let errors = [
        Error::RateLimited { retry_after: zero },
        Error::Token {
            source: TokenError::rate_limited(zero),
        },
        Error::TooEarly {
            key,
            until: SystemTime::UNIX_EPOCH,
            wait: zero,
        },
        Error::deadline_exceeded(key, zero),
    ];
    for error in errors {
        let RetryHint::After(wait) = error.hint() else {
            panic!("{error}");
        };
        assert!(wait >= Duration::from_millis(100), "{error}: {wait:?}");
    }
    let left = Duration::from_secs(99);
    let late = Error::deadline_exceeded(key, left);
    assert_eq!(late.hint(), RetryHint::After(left));
}
