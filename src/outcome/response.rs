//! Outcomes and replies as `http::Response`, for services that pass them to their own
//! clients.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::{Outcome, Reply, is_kept};

/// Status, headers and body, without the headers of one connection: `Content-Length`,
/// `Set-Cookie` and the hop-by-hop headers. A caller's first reply and each replay thus
/// are equal responses.
///
/// ```
/// use bytes::Bytes;
/// use genesys_once::Outcome;
/// use http::{HeaderMap, Response, StatusCode};
///
/// let outcome = Outcome::new(StatusCode::OK, HeaderMap::new(), "{}");
/// let response: Response<Bytes> = outcome.into();
/// assert_eq!(response.body(), "{}");
/// ```
impl From<Outcome> for Response<Bytes> {
    fn from(outcome: Outcome) -> Self {
        let mut response = Self::new(outcome.body);
        *response.status_mut() = outcome.status;
        let headers = outcome.headers.iter();
        let kept = headers.filter(|(name, _)| is_kept(name));
        let kept = kept.map(|(name, value)| (name.clone(), value.clone()));
        response.headers_mut().extend(kept);
        response
    }
}

/// The response of the reply's [`Outcome`]. A reply that holds the status only
/// ([`Reply::stored_body`]) has an empty body.
impl From<Reply> for Response<Bytes> {
    fn from(reply: Reply) -> Self {
        Arc::unwrap_or_clone(reply.outcome).into()
    }
}
