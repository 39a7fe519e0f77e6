//! The execute call: its path, its request, its answer, and whether a failure
//! came before the first byte. It sends once and decides nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::{Body, Client, Request, Url};

use super::client::{contained, percent_encode, read_body};
use super::credentials::bearer;
use super::gate::{GatedBody, Handed};
use crate::error::SendError;
use crate::outcome::Outcome;
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

    /// The URL that executes `action`; `None` where a URL cannot name it.
    fn url(self, api: &Url, action: &str) -> Option<Url> {
        let (collection, query) = match self {
            Self::DataActions => ("dataactions", None),
            Self::Actions { flatten: false } => ("actions", Some("flatten=false")),
            Self::Actions { flatten: true } => ("actions", Some("flatten=true")),
        };
        let id = percent_encode(action);
        let path = format!("/api/v2/integrations/{collection}/{id}/execute");
        let mut url = api.clone();
        url.set_path(&path);
        url.set_query(query);
        // URLs resolve "." and ".." in every spelling, so the path that stands
        // there now is compared with the one that was meant.
        (url.path() == path && !id.is_empty()).then_some(url)
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

    /// The URL that executes `action`; `None` where a URL cannot name it.
    fn of(&self, api: &Url, route: Route, action: &ActionId) -> Option<Url> {
        // A panic leaves no half of an entry.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (route, action.clone());
        if let Some(url) = known.get(&place) {
            return Some(url.clone());
        }
        let url = route.url(api, action.as_str())?;
        if known.len() == Self::MOST {
            known.clear();
        }
        known.insert(place, url.clone());
        Some(url)
    }
}

/// The request of one call.
///
/// # Errors
///
/// [`SendError::before_sending`] where the action's id, the token or the key
/// cannot be put into a request.
pub(super) fn request(
    urls: &Urls,
    api: &Url,
    route: Route,
    call: &Call,
    token: Option<&AccessToken>,
) -> Result<(Request, Handed), SendError> {
    let refuse = |reason: &str| SendError::before_sending(reason);
    let url = urls
        .of(api, route, call.request().action_id())
        .ok_or_else(|| refuse("the action id is no path segment"))?;
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

/// Sends a request and reads its answer, in `limit` at most.
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
        let body = read_body(response, handed.max_response_bytes()).await?;
        Ok(Outcome::new(status, headers, Bytes::from(body)))
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

    fn path(route: Route, id: &str) -> Option<String> {
        let api = Url::parse("https://api.mypurecloud.ie").unwrap();
        let url = route.url(&api, id)?;
        Some(
            url.as_str()
                .strip_prefix("https://api.mypurecloud.ie")
                .unwrap()
                .to_owned(),
        )
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
            assert_eq!(path(route, id).as_deref(), Some(expected.as_str()));
            assert_eq!(route.label(), label);
        }
    }

    #[test]
    fn a_known_url_is_its_action_s_and_its_route_s() {
        let api = Url::parse("https://api.mypurecloud.ie").unwrap();
        let urls = Urls::default();
        for n in 0..Urls::MOST {
            let id: ActionId = format!("custom_-_{n}/").parse().unwrap();
            for route in [Route::DataActions, Route::Actions { flatten: true }] {
                let meant = route.url(&api, id.as_str());
                assert!(meant.is_some());
                // Made, then known.
                assert_eq!(urls.of(&api, route, &id), meant);
                assert_eq!(urls.of(&api, route, &id), meant);
            }
            assert!(urls.0.lock().unwrap().len() <= Urls::MOST);
        }
    }

    #[test]
    fn an_id_is_one_path_segment_whatever_it_holds() {
        for (id, segment) in [
            ("../x", "..%2Fx"),
            ("..", ""),
            (".", ""),
            ("", ""),
            ("...", "..."),
            ("%2e%2e", "%252e%252e"),
            ("%2E.", "%252E."),
            ("..%2f", "..%252f"),
            ("..\\x", "..%5Cx"),
            ("a/b", "a%2Fb"),
            ("a?b", "a%3Fb"),
            ("a#b", "a%23b"),
            ("a b", "a%20b"),
            ("a;b@c:d", "a%3Bb%40c%3Ad"),
            ("é\u{202e}", "%C3%A9%E2%80%AE"),
            ("a\r\nb\t\u{0}", "a%0D%0Ab%09%00"),
            ("//evil.example/", "%2F%2Fevil.example%2F"),
        ] {
            let expected = format!("/api/v2/integrations/dataactions/{segment}/execute");
            let expected = (!segment.is_empty()).then_some(expected);
            assert_eq!(path(Route::DataActions, id), expected, "{id:?}");
        }
    }
}
