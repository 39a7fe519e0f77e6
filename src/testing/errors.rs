//! One error of each variant, for services that map errors to answers. Only this crate can
//! build the variants.

use std::time::{Duration, SystemTime};

use crate::error::{Error, KeyState, SendError, StoreError, TokenError};
use crate::key::{Fingerprint, IdempotencyKey, LeaseId, Version};

/// One [`Error`] of every variant, so that a test can run an embedder's own
/// mapping (to HTTP statuses, to alerts) over all of them. A new variant shows
/// up here with the release that adds it.
///
/// ```
/// use std::collections::HashSet;
///
/// let codes: HashSet<_> =
///     genesys_once::testing::every_error().iter().map(|error| error.code()).collect();
/// assert!(codes.contains("indeterminate"));
/// ```
pub fn every_error() -> Vec<Error> {
    let key = IdempotencyKey::from_bytes(std::array::from_fn(|i| i as u8));
    vec![
        Error::InvalidRequest {
            field: "action_id",
            reason: "it is empty".into(),
        },
        Error::PayloadMismatch { key },
        Error::InProgress { key },
        Error::Indeterminate {
            key,
            version: Version {
                lease: LeaseId::from_bytes([0xab; 16]),
                fingerprint: Fingerprint::from_bytes([0xcd; 32]),
            },
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
            cause: "connection reset".into(),
        },
        Error::NotIndeterminate {
            key,
            state: KeyState::Released,
        },
        Error::UnknownKey { key },
        Error::Expired { key },
        Error::TooEarly {
            key,
            until: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_700),
            wait: Duration::from_secs(42),
        },
        Error::ResolutionUnknown { key },
        Error::RateLimited {
            retry_after: Duration::from_secs(200),
        },
        Error::Unauthorized {
            correlation_id: Some("a1b2c3".into()),
        },
        Error::Unreachable {
            source: SendError::before_sending("connection refused"),
        },
        Error::Token {
            source: TokenError::rejected("invalid_client"),
        },
        Error::StoreUnavailable {
            source: StoreError::unavailable("connection refused"),
        },
        Error::RecordUnreadable {
            key,
            source: StoreError::unreadable("version 9"),
        },
        Error::Overloaded {
            limit: "max_waiting",
        },
        Error::deadline_exceeded(key, Duration::from_secs(7)),
        Error::Crashed { key },
        Error::Stopped,
        Error::NoRuntime,
        Error::InvalidConfig {
            setting: "lease",
            reason: "is zero".into(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variant_is_missing() {
        let errors = every_error();
        let codes: std::collections::HashSet<_> = errors.iter().map(Error::code).collect();
        assert_eq!(codes.len(), errors.len(), "a variant twice");
        for error in &errors {
            // A new variant does not compile here: add it to the list above, and raise the
            // number below.
            match error {
                Error::InvalidRequest { .. }
                | Error::PayloadMismatch { .. }
                | Error::InProgress { .. }
                | Error::Indeterminate { .. }
                | Error::NotIndeterminate { .. }
                | Error::UnknownKey { .. }
                | Error::Expired { .. }
                | Error::TooEarly { .. }
                | Error::ResolutionUnknown { .. }
                | Error::RateLimited { .. }
                | Error::Unauthorized { .. }
                | Error::Unreachable { .. }
                | Error::Token { .. }
                | Error::StoreUnavailable { .. }
                | Error::RecordUnreadable { .. }
                | Error::Overloaded { .. }
                | Error::DeadlineExceeded { .. }
                | Error::Crashed { .. }
                | Error::Stopped
                | Error::NoRuntime
                | Error::InvalidConfig { .. } => {}
            }
        }
        assert_eq!(errors.len(), 21);
    }
}
