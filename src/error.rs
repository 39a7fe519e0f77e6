//! What can fail, sorted by what the caller may do about it. A message never holds a
//! secret, a token or a payload, and never repeats its cause: that is `source()`.
//!
//! A constructor or a `with_…` method of a request returns [`Error::InvalidRequest`].
//! A builder accepts each setting, and its `start` or `connect` returns
//! [`Error::InvalidConfig`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::key::{IdempotencyKey, Version};

mod causes;
mod key_state;
mod status;

pub use self::causes::{RefusalKind, SendError, StoreError, TokenError, UnknownOutcome};
pub use self::key_state::KeyState;

/// A boxed error, or a text, that explains another error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request has no answer.
///
/// [`hint`](Self::hint) says what to do now, [`code`](Self::code) is a stable label, and
/// [`status`](Self::status) an HTTP status for the caller's own client. Match
/// on a variant only to treat it differently.
///
/// Each variant says what is *known*. If a request might have been executed, the error
/// is [`Indeterminate`](Self::Indeterminate). While its execution goes on, the error might
/// also be [`DeadlineExceeded`](Self::DeadlineExceeded), [`Crashed`](Self::Crashed) or
/// [`Stopped`](Self::Stopped). To execute the same request again is safe after each of
/// them, because the record decides.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the request is invalid. Nothing was sent.
    #[error("invalid {field}: {reason}")]
    #[non_exhaustive]
    InvalidRequest {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The key belongs to another request, whose answer is not given: with another payload, or
    /// to another platform or route. A simulator on another port is another platform, unless the
    /// client names one.
    #[error("key {key} belongs to a request with another payload, platform or route")]
    #[non_exhaustive]
    PayloadMismatch {
        /// The key that both requests carry.
        key: IdempotencyKey,
    },
    /// Another caller's execution of this key is under way, and the policy is to fail
    /// fast.
    #[error("key {key} is being executed")]
    #[non_exhaustive]
    InProgress {
        /// The key under way.
        key: IdempotencyKey,
    },
    /// The request was sent, and its outcome is unknown. It is not sent again until an
    /// operator or a policy resolves the key.
    #[error("key {key} might have been executed")]
    #[non_exhaustive]
    Indeterminate {
        /// The indeterminate key.
        key: IdempotencyKey,
        /// The execution and its request: what `Engine::resolve` takes.
        version: Version,
        /// When the request was sent, by the wall clock of the process that sent it.
        since: SystemTime,
        /// Why the outcome is unknown: the error's `source()`.
        #[source]
        cause: UnknownOutcome,
    },
    /// `resolve` was called for a key that is not indeterminate, or that is indeterminate
    /// in another version.
    #[error("key {key} is not indeterminate in the given version: {state}")]
    #[non_exhaustive]
    NotIndeterminate {
        /// The key asked for.
        key: IdempotencyKey,
        /// What is recorded of the key.
        state: KeyState,
    },
    /// `resolve` was called for a key without a record: the key was never executed in
    /// this namespace, or its record has expired.
    #[error("key {key} has no record in this namespace")]
    #[non_exhaustive]
    UnknownKey {
        /// The key asked for.
        key: IdempotencyKey,
    },
    /// `resolve` was called with "not executed" while the lost attempt might still be
    /// running.
    #[error("the lost attempt of key {key} might run for another {} s", wait.as_secs_f64().ceil())]
    #[non_exhaustive]
    TooEarly {
        /// The key asked for.
        key: IdempotencyKey,
        /// When the attempt has ended for certain, by the resolver's wall clock.
        until: SystemTime,
        /// The time from now to `until`.
        wait: Duration,
    },
    /// The store's reply to a resolution was lost, and the key has changed since. The
    /// resolution might have been applied.
    #[error("the resolution of key {key} might have been applied: the key has changed since")]
    #[non_exhaustive]
    ResolutionUnknown {
        /// The key asked for.
        key: IdempotencyKey,
    },
    /// The platform limits its rate, and the retry policy allows no further attempt:
    /// the wait, the sum of all waits or the number of attempts would exceed it.
    /// Nothing was executed.
    #[error("rate limited for another {} s", retry_after.as_secs_f64().ceil())]
    #[non_exhaustive]
    RateLimited {
        /// The wait that the platform asked for: at least the engine's own backoff, at
        /// most an hour.
        retry_after: Duration,
    },
    /// The platform refused the token, then a fresh token. Nothing was executed.
    #[error("the platform refused a fresh token: check the client's role and the action")]
    #[non_exhaustive]
    Unauthorized {
        /// The platform's id of its answer, which its support asks for.
        correlation_id: Option<Arc<str>>,
    },
    /// The request's time for sending is over
    /// ([`start_within`](crate::DataActionRequest::start_within)). Nothing was executed.
    #[error("key {key} was not sent in time, and not executed")]
    #[non_exhaustive]
    Expired {
        /// The key asked for.
        key: IdempotencyKey,
    },
    /// No request left this process whole. Nothing was executed.
    #[error("could not reach the platform")]
    #[non_exhaustive]
    Unreachable {
        /// Why.
        source: SendError,
    },
    /// There is no access token. Nothing was sent.
    #[error("could not obtain an access token")]
    #[non_exhaustive]
    Token {
        /// Why.
        source: TokenError,
    },
    /// The store did not answer, or refused the command. This caller's execution sent
    /// nothing; one in another process might go on.
    #[error("the store is unavailable")]
    #[non_exhaustive]
    StoreUnavailable {
        /// Why.
        source: StoreError,
    },
    /// The key's record is damaged, or a newer release wrote it. It does not count as
    /// absent, so nothing was sent.
    #[error("the record of key {key} cannot be read")]
    #[non_exhaustive]
    RecordUnreadable {
        /// The key whose record it is.
        key: IdempotencyKey,
        /// What is wrong with the record.
        source: StoreError,
    },
    /// A limit of the engine is reached. Nothing was sent.
    #[error("overloaded: {limit} is reached: retry later, or raise it")]
    #[non_exhaustive]
    Overloaded {
        /// The setting that holds the limit.
        limit: &'static str,
    },
    /// The caller's deadline has passed, and the execution goes on. Execute the same
    /// request again to get its outcome.
    #[error("key {key} has no answer within the deadline: its execution goes on")]
    #[non_exhaustive]
    DeadlineExceeded {
        /// The key under way.
        key: IdempotencyKey,
        /// When to retry: after the rest of the platform's cooldown, at least 1 s.
        retry_after: Duration,
    },
    /// The actor that executed this key failed. Execute the same request again: the
    /// record says what is known.
    #[error("the execution of key {key} crashed")]
    #[non_exhaustive]
    Crashed {
        /// The key whose execution failed.
        key: IdempotencyKey,
    },
    /// The engine has shut down, or is shutting down. If it was cut off, a request might be on
    /// the wire: the record says what is known. So [`hint`](Self::hint) is `Never` for this
    /// engine, and to execute the same request with another engine is safe.
    #[error("the engine has stopped: execute the same request with another engine")]
    Stopped,
    /// The call was made outside of a tokio runtime, or `start` in a runtime without
    /// timers. Nothing was sent.
    #[error("no tokio runtime with timers: call this within one")]
    NoRuntime,
    /// A setting is impossible. `start`, constructors and, for `Terms` made by hand,
    /// `Execution::lock` return it.
    #[error("invalid setting {setting}: {reason}")]
    #[non_exhaustive]
    InvalidConfig {
        /// The setting at fault.
        setting: &'static str,
        /// What is wrong with it.
        reason: Arc<str>,
    },
}

/// What a caller may do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryHint {
    /// Do not retry with this engine: the result would be the same. After
    /// [`Error::Stopped`], execute the same request with another engine.
    Never,
    /// Execute the same request again after this long, which is never zero. That is
    /// safe: the record decides whether a request is sent.
    After(Duration),
    /// Find out whether the request was executed, then call `Engine::resolve`.
    Resolve,
}

/// When to retry after a failure that passes by itself.
const SOON: Duration = Duration::from_secs(1);

impl Error {
    /// What the caller may do now.
    pub fn hint(&self) -> RetryHint {
        use RetryHint::{After, Never, Resolve};
        const LATER: Duration = Duration::from_secs(5);
        // A caller that retries after no time loops.
        const MIN_WAIT: Duration = Duration::from_millis(100);
        let hint = match self {
            Self::InvalidRequest { .. }
            | Self::PayloadMismatch { .. }
            | Self::NotIndeterminate { .. }
            | Self::UnknownKey { .. }
            | Self::ResolutionUnknown { .. }
            | Self::Unauthorized { .. }
            | Self::RecordUnreadable { .. }
            | Self::Stopped
            | Self::NoRuntime
            | Self::InvalidConfig { .. } => Never,
            Self::Indeterminate { .. } => Resolve,
            Self::TooEarly { wait, .. } => After(*wait),
            Self::RateLimited { retry_after } => After(*retry_after),
            Self::Token { source } => source.hint(),
            Self::DeadlineExceeded { retry_after, .. } => After(*retry_after),
            Self::InProgress { .. }
            | Self::Crashed { .. }
            | Self::Expired { .. }
            | Self::Overloaded { .. } => After(SOON),
            Self::Unreachable { .. } | Self::StoreUnavailable { .. } => After(LATER),
        };
        match hint {
            After(wait) => After(wait.max(MIN_WAIT)),
            hint => hint,
        }
    }

    /// A caller's deadline has passed, with this much left of a cooldown.
    pub(crate) fn deadline_exceeded(key: IdempotencyKey, cooldown: Duration) -> Self {
        Self::DeadlineExceeded {
            key,
            retry_after: cooldown.max(SOON),
        }
    }

    /// A stable label for metrics and problem documents.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest { .. } => "invalid_request",
            Self::PayloadMismatch { .. } => "payload_mismatch",
            Self::InProgress { .. } => "in_progress",
            Self::Indeterminate { .. } => "indeterminate",
            Self::NotIndeterminate { .. } => "not_indeterminate",
            Self::UnknownKey { .. } => "unknown_key",
            Self::TooEarly { .. } => "too_early",
            Self::ResolutionUnknown { .. } => "resolution_unknown",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Expired { .. } => "expired",
            Self::Unreachable { .. } => "unreachable",
            Self::Token { .. } => "token",
            Self::StoreUnavailable { .. } => "store_unavailable",
            Self::RecordUnreadable { .. } => "record_unreadable",
            Self::Overloaded { .. } => "overloaded",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::Crashed { .. } => "crashed",
            Self::Stopped => "stopped",
            Self::NoRuntime => "no_runtime",
            Self::InvalidConfig { .. } => "invalid_config",
        }
    }

    /// The key that the error concerns, if it concerns one.
    pub fn key(&self) -> Option<IdempotencyKey> {
        match self {
            Self::PayloadMismatch { key }
            | Self::InProgress { key }
            | Self::Indeterminate { key, .. }
            | Self::NotIndeterminate { key, .. }
            | Self::UnknownKey { key }
            | Self::Expired { key }
            | Self::TooEarly { key, .. }
            | Self::ResolutionUnknown { key }
            | Self::RecordUnreadable { key, .. }
            | Self::DeadlineExceeded { key, .. }
            | Self::Crashed { key } => Some(*key),
            _ => None,
        }
    }

    pub(crate) fn invalid_request(field: &'static str, reason: impl Into<Arc<str>>) -> Self {
        Self::InvalidRequest {
            field,
            reason: reason.into(),
        }
    }

    pub(crate) fn invalid_config(setting: &'static str, reason: impl Into<Arc<str>>) -> Self {
        Self::InvalidConfig {
            setting,
            reason: reason.into(),
        }
    }

    /// What a failed store command means to the waiters of `key`.
    pub(crate) fn of_store(key: IdempotencyKey, source: StoreError) -> Self {
        if source.is_unreadable() {
            Self::RecordUnreadable { key, source }
        } else {
            Self::StoreUnavailable { source }
        }
    }
}

/// Why a JSON text is refused, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
#[non_exhaustive]
pub struct ParseError {
    /// Byte offset in the text, from 0.
    pub offset: usize,
    /// What is wrong at `offset`.
    pub reason: &'static str,
}

impl ParseError {
    pub(crate) fn new(offset: usize, reason: &'static str) -> Self {
        Self { offset, reason }
    }
}

/// An error and all its causes in one line, for logs and `Indeterminate`. A cause is
/// foreign code: if its `Display` panics, the line is lost, and the answer is not.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    catch_unwind(AssertUnwindSafe(|| chained(error)))
        .unwrap_or_else(|_| "an error that panics when it is printed".into())
}

fn chained(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Many wrappers repeat their cause.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests;
