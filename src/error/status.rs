//! The HTTP status with which a service answers for an error. It is the engine's view of a
//! service in front of it: no status of the platform passes through here.

use http::StatusCode;

use super::{Error, RetryHint};

impl Error {
    /// The status with which a service that embeds the engine answers its client.
    ///
    /// | status | errors | the client |
    /// |---|---|---|
    /// | 400 | `InvalidRequest` | corrects the request |
    /// | 404 | `UnknownKey` | |
    /// | 409 | `InProgress`, `NotIndeterminate`, `ResolutionUnknown`, `TooEarly` | reads the key's state first |
    /// | 422 | `PayloadMismatch` | uses another key |
    /// | 429 | `RateLimited` | retries later |
    /// | 500 | `RecordUnreadable`, `NoRuntime`, `InvalidConfig` | does not retry: an operator repairs the service |
    /// | 502 | `Indeterminate`, `Unauthorized`, `Token` where the platform refused the credentials | does not retry: an operator acts first |
    /// | 503 | `Overloaded`, `Crashed`, `Stopped`, `StoreUnavailable`, `Unreachable`, `Token` otherwise | retries later |
    /// | 504 | `DeadlineExceeded`, `Expired` | retries later |
    ///
    /// 429, 503 and 504 invite a client to retry. An error has one of them only if
    /// [`hint`](Self::hint) is [`RetryHint::After`], the value of `Retry-After`, or if
    /// another instance might answer (`Stopped`). To retry after another status is safe,
    /// because the record decides, but of these only `InProgress` and `TooEarly` pass by
    /// themselves in a short time.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InvalidRequest { .. } => StatusCode::BAD_REQUEST,
            Self::UnknownKey { .. } => StatusCode::NOT_FOUND,
            Self::InProgress { .. }
            | Self::NotIndeterminate { .. }
            | Self::ResolutionUnknown { .. }
            | Self::TooEarly { .. } => StatusCode::CONFLICT,
            // draft-ietf-httpapi-idempotency-key-header, section 2.7.
            Self::PayloadMismatch { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::RecordUnreadable { .. } | Self::NoRuntime | Self::InvalidConfig { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Indeterminate { .. } | Self::Unauthorized { .. } => StatusCode::BAD_GATEWAY,
            Self::Token { source } if source.hint() == RetryHint::Never => StatusCode::BAD_GATEWAY,
            Self::Overloaded { .. }
            | Self::Crashed { .. }
            | Self::Stopped
            | Self::StoreUnavailable { .. }
            | Self::Unreachable { .. }
            | Self::Token { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded { .. } | Self::Expired { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}
