//! The execute call: its path, its request, its answer, and whether a failure
//! came before the first byte. It sends once and decides nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::{Body, Client, Request, Url};

use super::credentials::bearer;
use super::gate::{GatedBody, Handed};
use super::transport::{TooLarge, contained, read_body};
use crate::error::SendError;
use crate::outcome::{BodyEnd, Outcome};
use crate::request::ActionId;
use crate::upstream::{AccessToken, Call};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Which of the platform's execute paths is called. The route is a part of
/// every record's fingerprint, because it decides what the answer looks like.
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

    /// The URL that executes `action`, whose id is one path segment as it is.
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

/// The URLs of one API's actions. Actions are few and calls are many, and half
/// of what it took to make a request was to make its URL.
#[derive(Default)]
pub(super) struct Urls(Mutex<HashMap<(Route, ActionId), Url>>);

impl Urls {
    /// More than an organisation calls at a time. Beyond it all are forgotten,
    /// and made again when they are asked for.
    const MOST: usize = 256;

    /// The URL that executes `action`.
    pub(super) fn of(&self, api: &Url, route: Route, action: &ActionId) -> Url {
        // A panic leaves no half of an entry.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (route, action.clone());
        if let Some(url) = known.get(&place) {
            return url.clone();
        }
        let url = route.url(api, action);
        if known.len() == Self::MOST {
            known.clear();
        }
        known.insert(place, url.clone());
        url
    }
}

/// The request of one call.
///
/// # Errors
///
/// [`SendError::before_sending`] where the token or the key cannot be put into a
/// request.
pub(super) fn request(
    urls: &Urls,
    api: &Url,
    route: Route,
    call: &Call,
    token: Option<&AccessToken>,
) -> Result<(Request, Handed), SendError> {
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
    let (body, handed) = GatedBody::new(call);
    *request.body_mut() = Some(Body::wrap(body));
    Ok((request, handed))
}

/// Sends a request and reads its answer, in `limit` at most. The status of a success
/// stands whatever the size of its body, which is then not read.
///
/// # Errors
///
/// [`SendError::before_sending`] where the end of the body was not handed over to a
/// connection, which proves that nothing was executed, whatever went wrong, a
/// panic included; after that always [`SendError::after_sending`].
pub(super) async fn send(
    client: &Client,
    (request, handed): (Request, Handed),
    limit: Duration,
) -> Result<Outcome, SendError> {
    let answer = async {
        let response = client.execute(request).await;
        let response = response.map_err(reqwest::Error::without_url)?;
        let status = response.status();
        if !status.is_client_error() {
            handed.acted_on();
        }
        let headers = detached(response.headers());
        let end = body_end(status, &headers);
        match read_body(response, handed.max_response_bytes()).await {
            Ok(body) => Ok(Outcome::new(status, headers, Bytes::from(body)).with_body_end(end)),
            Err(cause) if status.is_success() && cause.is::<TooLarge>() => {
                Ok(Outcome::new(status, headers, "").with_body_end(BodyEnd::Unread))
            }
            Err(cause) => Err(cause),
        }
    };
    // From the end of its time on nothing leaves, also where the answer is waited
    // for a little longer.
    let answer = contained(limit, answer, || handed.nothing()).await;
    // No connection came about (name resolution, TCP, the proxy, TLS), or it died
    // before the end of the body was handed over to it. After that a failure proves
    // nothing, on a new connection or one from the pool. An answer that came before
    // it leaves nothing to hand over either.
    let nothing = handed.nothing();
    answer.map_err(|cause| SendError::by(nothing, cause))
}

/// What ended a body that was read without an error (RFC 9112 section 6.3): without
/// a length and chunks it is the end of the connection, wherever that came.
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

/// The headers in memory of their own: as they come they are slices of the
/// connection's buffer, and an outcome that is kept would keep all of it.
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
    fn a_known_url_is_its_action_s_and_its_route_s() {
        let api = Url::parse("https://api.mypurecloud.ie").unwrap();
        let urls = Urls::default();
        for n in 0..Urls::MOST {
            let id: ActionId = format!("custom_-_{n}").parse().unwrap();
            for route in [Route::DataActions, Route::Actions { flatten: true }] {
                let meant = route.url(&api, &id);
                // Made, then known.
                assert_eq!(urls.of(&api, route, &id), meant);
                assert_eq!(urls.of(&api, route, &id), meant);
            }
            assert!(urls.0.lock().unwrap().len() <= Urls::MOST);
        }
    }

    /// What an id may hold is safe in a path as it is.
    #[test]
    fn an_id_is_one_path_segment_as_it_is() {
        let every: String = (' '..='~')
            .filter(|c| c.to_string().parse::<ActionId>().is_ok() || *c == '.')
            .collect();
        assert_eq!(every.len(), 26 + 26 + 10 + 4);
        for id in [every.as_str(), "...", "..a", "custom_-_refund"] {
            let expected = format!("/api/v2/integrations/dataactions/{id}/execute");
            assert_eq!(path(Route::DataActions, id), expected);
        }
    }

    /// Red when a body that the connection ended counts as one that was marked.
    #[test]
    fn end_of_a_body_is_what_the_client_went_by() {
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
