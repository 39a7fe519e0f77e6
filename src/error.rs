//! What can go wrong, sorted by what the caller may do about it. Messages are
//! short and lower-case; the cause stands behind `source()`; none ever holds a
//! secret, a token or a payload.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::key::{IdempotencyKey, Version};

mod causes;
mod key_state;

pub use self::causes::{RefusalKind, SendError, StoreError, TokenError};
pub use self::key_state::KeyState;

/// Any error, text or boxed error that explains another one.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request has no answer.
///
/// Ask [`hint`](Self::hint) what to do now and [`code`](Self::code) for a
/// stable label; match on the variants only where a caller treats one
/// differently. Every variant says what is *known*: where a request may have
/// been executed, the error is [`Indeterminate`](Self::Indeterminate) or, while
/// it is still under way, [`DeadlineExceeded`](Self::DeadlineExceeded),
/// [`Crashed`](Self::Crashed) or [`Stopped`](Self::Stopped); asking again with
/// the same request is safe after each of them, because the record decides.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the request is unusable; nothing was sent.
    #[error("invalid {field}: {reason}")]
    #[non_exhaustive]
    InvalidRequest {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The key is known for another payload; nobody else's answer is given.
    #[error("key {key} belongs to a request with another payload; use another key for this one")]
    #[non_exhaustive]
    PayloadMismatch {
        /// The key that both requests carry.
        key: IdempotencyKey,
    },
    /// Somebody else is executing this key, and the policy is to fail fast.
    #[error("key {key} is being executed")]
    #[non_exhaustive]
    InProgress {
        /// The key under way.
        key: IdempotencyKey,
    },
    /// A request was sent and its fate is unknown. It is not repeated until a
    /// person or a policy resolves it.
    #[error("key {key} may have been executed: {cause}")]
    #[non_exhaustive]
    Indeterminate {
        /// The key whose fate is unknown.
        key: IdempotencyKey,
        /// Which execution of which request it is: what `Engine::resolve` takes.
        version: Version,
        /// Since when: the time of sending, by the wall clock of the process that
        /// sent it.
        since: SystemTime,
        /// What happened.
        cause: Arc<str>,
    },
    /// `resolve` was asked for a key that is not indeterminate, or no longer in
    /// the version that was seen.
    #[error("key {key} is not indeterminate in the version that was seen: {state}")]
    #[non_exhaustive]
    NotIndeterminate {
        /// The key asked for.
        key: IdempotencyKey,
        /// What is recorded of it.
        state: KeyState,
    },
    /// `resolve` was asked for a key of which nothing is recorded: it was never
    /// executed in this namespace, or its record has expired.
    #[error("nothing is recorded of key {key} in this namespace")]
    #[non_exhaustive]
    UnknownKey {
        /// The key asked for.
        key: IdempotencyKey,
    },
    /// `resolve` was told that the request was not executed, while the lost
    /// attempt might still be running.
    #[error("the lost attempt of key {key} might run for another {} s", wait.as_secs_f64().ceil())]
    #[non_exhaustive]
    TooEarly {
        /// The key asked for.
        key: IdempotencyKey,
        /// When it can no longer be running, by the resolver's wall clock.
        until: SystemTime,
        /// How long that is from now.
        wait: Duration,
    },
    /// A resolution was sent, its reply was lost, and the key has changed since:
    /// the resolution might have been applied.
    #[error("the resolution of key {key} might have been applied: the key has changed since")]
    #[non_exhaustive]
    ResolutionUnknown {
        /// The key asked for.
        key: IdempotencyKey,
    },
    /// The platform refuses for now and its waiting time, the sum of all waits, or
    /// the number of attempts is beyond what the retry policy allows. Nothing was
    /// executed.
    #[error("rate limited for another {} s", retry_after.as_secs_f64().ceil())]
    #[non_exhaustive]
    RateLimited {
        /// How long the platform asked to wait: at least the engine's own backoff, at
        /// most an hour.
        retry_after: Duration,
    },
    /// The platform refused the token, and a fresh one too. Nothing was executed.
    #[error("the platform refused a fresh token, too: check the client's role and the action")]
    #[non_exhaustive]
    Unauthorized {
        /// The platform's id of its answer, which its support asks for.
        correlation_id: Option<Arc<str>>,
    },
    /// The time in which the request was to be sent is over
    /// ([`start_within`](crate::DataActionRequest::start_within)). Nothing was executed.
    #[error("key {key} was not sent in time; nothing was executed")]
    #[non_exhaustive]
    Expired {
        /// The key asked for.
        key: IdempotencyKey,
    },
    /// The platform could not be reached; no byte of the request left.
    #[error("the platform could not be reached")]
    #[non_exhaustive]
    Unreachable {
        /// Why.
        source: SendError,
    },
    /// No OAuth token could be had. Nothing was sent.
    #[error("no access token could be had")]
    #[non_exhaustive]
    Token {
        /// Why.
        source: TokenError,
    },
    /// The store did not answer, so nothing was sent.
    #[error("the store is unavailable")]
    #[non_exhaustive]
    StoreUnavailable {
        /// Why.
        source: StoreError,
    },
    /// The key's record was written by a newer version or is damaged. It is
    /// never taken for absent, so nothing was sent.
    #[error("the record of key {key} cannot be read")]
    #[non_exhaustive]
    RecordUnreadable {
        /// The key whose record it is.
        key: IdempotencyKey,
        /// What is wrong with the record.
        source: StoreError,
    },
    /// A bound of the engine is reached; nothing was sent.
    #[error("overloaded: {limit} is reached; ask again later, or raise it")]
    #[non_exhaustive]
    Overloaded {
        /// The setting that names the bound.
        limit: &'static str,
    },
    /// The caller's time is over; the execution goes on. Ask again for its
    /// outcome.
    #[error("key {key} had no answer within the deadline; its execution goes on")]
    #[non_exhaustive]
    DeadlineExceeded {
        /// The key under way.
        key: IdempotencyKey,
        /// How long to leave it alone: what is left of the platform's cooldown, and 1 s
        /// where there is none.
        retry_after: Duration,
    },
    /// The actor that executed this key died. Ask again: the record says what
    /// is known.
    #[error("the execution of key {key} crashed")]
    #[non_exhaustive]
    Crashed {
        /// The key whose execution died.
        key: IdempotencyKey,
    },
    /// The engine is shut down, or is about to be.
    #[error("the engine has stopped")]
    Stopped,
    /// Called outside of a tokio runtime, or `start` in one without timers. Nothing
    /// was sent.
    #[error("called outside of a tokio runtime, or in one without timers")]
    NoRuntime,
    /// A setting is impossible; reported by `start`, by constructors, and by
    /// `Execution::lock` where `Terms` are made by hand.
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
    /// The same request will fail again until something else is changed.
    Never,
    /// The same request may be asked for again, best after this long, which is never
    /// zero. It is safe: the record decides whether anything is sent.
    After(Duration),
    /// Find out whether the request was executed, then `Engine::resolve`.
    Resolve,
}

/// When to ask again after what passes by itself.
const SOON: Duration = Duration::from_secs(1);

impl Error {
    /// What the caller may do now.
    pub fn hint(&self) -> RetryHint {
        use RetryHint::{After, Never, Resolve};
        const LATER: Duration = Duration::from_secs(5);
        // A caller who follows a hint of nothing spins.
        const LEAST: Duration = Duration::from_millis(100);
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
            After(wait) => After(wait.max(LEAST)),
            hint => hint,
        }
    }

    /// A caller's time is over, with so much left of a cooldown.
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

    /// The key that the error is about, where it is about one.
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

    /// What a failed store command means to those who wait for `key`.
    pub(crate) fn of_store(key: IdempotencyKey, source: StoreError) -> Self {
        if source.is_unreadable() {
            Self::RecordUnreadable { key, source }
        } else {
            Self::StoreUnavailable { source }
        }
    }
}

/// A JSON text that is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
#[non_exhaustive]
pub struct ParseError {
    /// Byte offset in the text, from 0.
    pub offset: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

impl ParseError {
    pub(crate) fn new(offset: usize, reason: &'static str) -> Self {
        Self { offset, reason }
    }
}

/// An error and all its causes in one line, for logs and `Indeterminate`. Causes are
/// foreign code: one that panics when it is printed loses the line, not the answer.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    catch_unwind(AssertUnwindSafe(|| chained(error)))
        .unwrap_or_else(|_| "an error that panics when it is printed".into())
}

fn chained(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Wrappers often repeat their cause; say it once.
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
