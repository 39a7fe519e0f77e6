//! The execute call: its path, its request, its answer, and whether the whole request left
//! before a failure. It sends once and judges no answer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::{Body, Client, Request, Url};

use super::credentials::bearer;
use super::gated_body::{GatedBody, SendEvidence};
use super::transport::{BodyTooLarge, contained, read_body};
use crate::error::SendError;
use crate::outcome::{BodyEnd, Outcome};
use crate::request::ActionId;
use crate::upstream::{AccessToken, Call};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The platform's two execute paths. The route is a part of each record's fingerprint,
/// because it decides the shape of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route {
    /// `POST /api/v2/integrations/dataactions/{id}/execute`.
    #[default]
    DataActions,
    /// `POST /api/v2/integrations/actions/{id}/execute?flatten=…`, which the
    /// vendor's public SDKs call.
    Actions {
        /// Whether the platform flattens the action's output: dotted names at
        /// one level instead of nested objects.
        flatten: bool,
    },
}

impl Route {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::DataActions => "dataactions",
            Self::Actions { flatten: false } => "actions?flatten=false",
            Self::Actions { flatten: true } => "actions?flatten=true",
        }
    }

    /// The URL that executes `action`, whose id is one path segment without encoding.
    fn url(self, api: &Url, action: &ActionId) -> Url {
        let (collection, query) = match self {
            Self::DataActions => ("dataactions", None),
            Self::Actions { flatten: false } => ("actions", Some("flatten=false")),
            Self::Actions { flatten: true } => ("actions", Some("flatten=true")),
        };
        let mut url = api.clone();
        url.set_path(&format!(
            "/api/v2/integrations/{collection}/{action}/execute"
        ));
        url.set_query(query);
        url
    }
}

/// The URLs of one API's actions, cached: making the URL took half the time of making a
/// request.
#[derive(Default)]
pub(super) struct Urls(Mutex<HashMap<(Route, ActionId), Url>>);

impl Urls {
    /// More actions than an organisation calls. Beyond it, the cache is cleared.
    const MAX_URLS: usize = 256;

    /// The URL that executes `action`.
    pub(super) fn of(&self, api: &Url, route: Route, action: &ActionId) -> Url {
        // A panic leaves no half of an entry.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (route, action.clone());
        if let Some(url) = known.get(&entry) {
            return url.clone();
        }
        let url = route.url(api, action);
        if known.len() == Self::MAX_URLS {
            known.clear();
        }
        known.insert(entry, url.clone());
        url
    }
}

/// The request of one call.
///
/// # Errors
///
/// [`SendError::before_sending`] if there is no token, or one that is not a header value.
pub(super) fn request(
    urls: &Urls,
    api: &Url,
    route: Route,
    call: &Call,
    token: Option<&AccessToken>,
) -> Result<(Request, SendEvidence), SendError> {
    let refuse = |reason: &str| SendError::before_sending(reason);
    let url = urls.of(api, route, call.request().action_id());
    let token = token.ok_or_else(|| refuse("there is no access token"))?;
    let authorization =
        bearer(token.expose()).ok_or_else(|| refuse("the access token is not a header value"))?;
    let key = HeaderValue::try_from(call.key().to_string()).map_err(SendError::before_sending)?;

    let mut request = Request::new(Method::POST, url);
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, authorization);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(IDEMPOTENCY_KEY, key);
    let (body, evidence) = GatedBody::new(call);
    *request.body_mut() = Some(Body::wrap(body));
    Ok((request, evidence))
}

/// Sends a request and reads its answer, within `limit`. The body of a success that is too
/// large is not read, and the outcome has the status.
///
/// # Errors
///
/// [`SendError::before_sending`] if the end of the body did not reach a connection, also
/// after a panic: that proves that nothing was executed. Otherwise
/// [`SendError::after_sending`].
pub(super) async fn send(
    client: &Client,
    (request, evidence): (Request, SendEvidence),
    limit: Duration,
) -> Result<Outcome, SendError> {
    let answer = async {
        let response = client.execute(request).await;
        let response = response.map_err(reqwest::Error::without_url)?;
        let status = response.status();
        if !status.is_client_error() {
            evidence.acted_on();
        }
        let headers = detached(response.headers());
        let end = body_end(status, &headers);
        match read_body(response, evidence.max_response_bytes()).await {
            Ok(body) => Ok(Outcome::new(status, headers, Bytes::from(body)).with_body_end(end)),
            Err(cause) if status.is_success() && cause.is::<BodyTooLarge>() => {
                Ok(Outcome::new(status, headers, "").with_body_end(BodyEnd::Unread))
            }
            Err(cause) => Err(cause),
        }
    };
    // After the time limit nothing leaves, also while a late timer leaves the answer a
    // second more.
    let answer = contained(limit, answer, || evidence.is_unsent()).await;
    // Unsent: there was no connection (name resolution, TCP, proxy, TLS), or it failed
    // before it had the end of the body. A later failure proves nothing, on a new
    // connection or on one from the pool.
    let is_unsent = evidence.is_unsent();
    answer.map_err(|cause| SendError::by(is_unsent, cause))
}

/// What ended a body that was read without an error (RFC 9112 section 6.3): its length, its
/// last chunk, or the end of the connection at any byte.
pub(super) fn body_end(status: StatusCode, headers: &HeaderMap) -> BodyEnd {
    let chunked = || {
        let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
        let codings = last.and_then(|codings| codings.to_str().ok());
        let last = codings.and_then(|codings| codings.rsplit(',').next());
        last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
    };
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let sized = headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING);
    match bodiless || sized || chunked() {
        true => BodyEnd::Marked,
        false => BodyEnd::Closed,
    }
}

/// A copy of the headers: the originals are slices of the connection's buffer, and an
/// outcome in memory would keep the whole buffer.
fn detached(headers: &HeaderMap) -> HeaderMap {
    let mut copies = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copies.append(name, copy);
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(route: Route, id: &str) -> String {
        let api = Url::parse("https://api.mypurecloud.ie").unwrap();
        let url = route.url(&api, &id.parse().unwrap());
        let path = url.as_str().strip_prefix("https://api.mypurecloud.ie");
        path.unwrap().to_owned()
    }

    #[test]
    fn each_route_has_its_path_and_label() {
        let id = "custom_-_0b4f7a1c-5a0e-4f1e-9d3c-000000000000";
        for (route, expected, label) in [
            (
                Route::DataActions,
                format!("/api/v2/integrations/dataactions/{id}/execute"),
                "dataactions",
            ),
            (
                Route::Actions { flatten: true },
                format!("/api/v2/integrations/actions/{id}/execute?flatten=true"),
                "actions?flatten=true",
            ),
            (
                Route::Actions { flatten: false },
                format!("/api/v2/integrations/actions/{id}/execute?flatten=false"),
                "actions?flatten=false",
            ),
        ] {
            assert_eq!(path(route, id), expected);
            assert_eq!(route.label(), label);
        }
    }

    #[test]
    fn cached_url_is_that_of_action_and_route() {
        let api = Url::parse("https://api.mypurecloud.ie").unwrap();
        let urls = Urls::default();
        for n in 0..Urls::MAX_URLS {
            let id: ActionId = format!("custom_-_{n}").parse().unwrap();
            for route in [Route::DataActions, Route::Actions { flatten: true }] {
                let expected = route.url(&api, &id);
                // Made, then known.
                assert_eq!(urls.of(&api, route, &id), expected);
                assert_eq!(urls.of(&api, route, &id), expected);
            }
            assert!(urls.0.lock().unwrap().len() <= Urls::MAX_URLS);
        }
    }

    /// Each character of an id is safe in a path.
    #[test]
    fn action_id_is_one_path_segment() {
        let every: String = (' '..='~')
            .filter(|c| c.to_string().parse::<ActionId>().is_ok() || *c == '.')
            .collect();
        assert_eq!(every.len(), 26 + 26 + 10 + 4);
        for id in [every.as_str(), "...", "..a", "custom_-_refund"] {
            let expected = format!("/api/v2/integrations/dataactions/{id}/execute");
            assert_eq!(path(Route::DataActions, id), expected);
        }
    }

    /// Red if a body that the connection ended counts as marked.
    #[test]
    fn body_end_follows_the_framing() {
        for (status, headers, end) in [
            (200, "content-length: 0", BodyEnd::Marked),
            (200, "transfer-encoding: chunked", BodyEnd::Marked),
            (200, "transfer-encoding: gzip, Chunked", BodyEnd::Marked),
            (200, "transfer-encoding: chunked, gzip", BodyEnd::Closed),
            (
                200,
                "transfer-encoding: gzip;content-length: 2",
                BodyEnd::Closed,
            ),
            (
                200,
                "transfer-encoding: chunked;content-length: 2",
                BodyEnd::Marked,
            ),
            (200, "x: y", BodyEnd::Closed),
            (204, "x: y", BodyEnd::Marked),
            (304, "x: y", BodyEnd::Marked),
            (205, "x: y", BodyEnd::Closed),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers.split(';').filter_map(|line| line.split_once(": ")) {
                map.append(
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                );
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(body_end(status, &map), end, "{status} {headers}");
        }
    }
}
