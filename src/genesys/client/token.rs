//! The token endpoint: one request yields one token, or the reason for none. It schedules
//! and shares nothing. Its errors repeat nothing of request or answer but an OAuth error
//! code.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Request, Url};
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::clients::Clients;
use super::credentials::{ClientAuth, Credentials, is_token};
use super::execute::body_end;
use super::transport::{contained, read_body};
use crate::error::{Error, TokenError};
use crate::genesys::retry_after;
use crate::outcome::Outcome;
use crate::policy::body_fault;
use crate::store::BoxFuture;
use crate::upstream::{AccessToken, TokenSource};

/// For connecting, asking and reading the answer together.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// A token is a few hundred bytes.
const MAX_TOKEN_ANSWER_BYTES: usize = 64 * 1024;
/// The platform limits by the minute, and most often names no wait.
const RATE_LIMIT_WAIT: Duration = Duration::from_secs(60);
/// A longer lifetime is an error: the platform's tokens live at most two days.
const MAX_LIFETIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// `POST {login}/oauth/token` with the grant "client credentials" (RFC 6749
/// §4.4).
pub(super) struct TokenEndpoint {
    clients: Result<Arc<Clients>, Error>,
    url: Url,
    credentials: Arc<Credentials>,
    auth: ClientAuth,
}

impl TokenEndpoint {
    pub(super) fn new(
        clients: Result<Arc<Clients>, Error>,
        login: &Url,
        credentials: Arc<Credentials>,
        auth: ClientAuth,
    ) -> Self {
        let mut url = login.clone();
        url.set_path("/oauth/token");
        Self {
            clients,
            url,
            credentials,
            auth,
        }
    }

    fn request(&self) -> Result<Request, TokenError> {
        let mut request = Request::new(Method::POST, self.url.clone());
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
        let body = match self.auth {
            ClientAuth::Basic => {
                let basic = self.credentials.basic();
                let basic = basic
                    .ok_or_else(|| TokenError::new("the credentials are not a header value"))?;
                request.headers_mut().insert(AUTHORIZATION, basic);
                Bytes::from_static(b"grant_type=client_credentials")
            }
            ClientAuth::RequestBody => self.credentials.form(),
        };
        *request.body_mut() = Some(body.into());
        Ok(request)
    }

    async fn fetch_one(&self) -> Result<AccessToken, TokenError> {
        let clients = self.clients.as_ref().map_err(Error::clone);
        let client = clients.and_then(|clients| clients.of_this_runtime());
        let client = client.map_err(TokenError::new)?;
        let request = self.request()?;
        let answer = async {
            let response = client.execute(request).await;
            let response = response.map_err(reqwest::Error::without_url)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = Zeroizing::new(read_body(response, MAX_TOKEN_ANSWER_BYTES).await?);
            Ok((status, headers, body))
        };
        let answer = contained(TIME_LIMIT, answer, || false).await;
        let (status, headers, body) = answer.map_err(TokenError::new)?;
        if status == StatusCode::OK {
            read_token(&body)
        } else {
            let end = body_end(status, &headers);
            let refusal = Outcome::new(status, headers, Bytes::copy_from_slice(&body));
            let refusal = refusal.with_body_end(end);
            Err(self.explain(&refusal))
        }
    }

    /// What a status other than 200 means.
    fn explain(&self, refusal: &Outcome) -> TokenError {
        let status = refusal.status();
        let words: TokenRefusal = serde_json::from_slice(refusal.body()).unwrap_or_default();
        if status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::BAD_REQUEST && words.names_a_rate_limit())
        {
            let wait = retry_after(refusal, SystemTime::now());
            return TokenError::rate_limited(wait.unwrap_or(RATE_LIMIT_WAIT));
        }
        if status.is_server_error()
            && let Some(wait) = retry_after(refusal, SystemTime::now())
        {
            return TokenError::rate_limited(wait);
        }
        let mut reason = format!("http status {}", status.as_u16());
        if let Some(code) = words
            .error
            .as_deref()
            .filter(|code| self.may_be_shown(code))
        {
            reason.push_str(", ");
            reason.push_str(code);
        }
        match status {
            // An unreadable body might report a rate limit.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
                if body_fault(refusal).is_none() =>
            {
                TokenError::rejected(reason)
            }
            _ => TokenError::new(reason),
        }
    }

    /// Whether a text from the endpoint is an OAuth error code such as `invalid_client`,
    /// and not an echo of the request.
    fn may_be_shown(&self, code: &str) -> bool {
        (1..=40).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            && !self.credentials.secret_contains(code)
    }
}

impl TokenSource for TokenEndpoint {
    fn fetch(&self) -> BoxFuture<'_, Result<AccessToken, TokenError>> {
        Box::pin(self.fetch_one())
    }
}

/// RFC 6749 §5.1.
#[derive(Deserialize)]
struct TokenGrant {
    access_token: String,
    token_type: Option<serde_json::Value>,
    expires_in: Option<serde_json::Value>,
}

/// RFC 6749 §5.2, and the platform's own error body.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenRefusal {
    error: Option<String>,
    error_description: Option<String>,
    description: Option<String>,
    message: Option<String>,
}

impl TokenRefusal {
    /// The platform throttles token requests with HTTP 400 `invalid_request`, and only the
    /// text distinguishes that from a refused client.
    fn names_a_rate_limit(&self) -> bool {
        const WORDS: &[u8] = b"rate limit exceeded";
        [&self.error_description, &self.description, &self.message]
            .into_iter()
            .flatten()
            .filter_map(|text| text.trim_start().as_bytes().get(..WORDS.len()))
            .any(|start| start.eq_ignore_ascii_case(WORDS))
    }
}

fn read_token(body: &[u8]) -> Result<AccessToken, TokenError> {
    // The parser's error would quote the token.
    let granted: TokenGrant =
        serde_json::from_slice(body).map_err(|_| TokenError::new("the answer holds no token"))?;
    let token = Zeroizing::new(granted.access_token);
    let kind = granted.token_type.as_ref().and_then(|kind| kind.as_str());
    if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(TokenError::new("the token is not a bearer token"));
    }
    if !is_token(&token) {
        return Err(TokenError::new(
            "malformed token: expected one or more of the characters from space to ~",
        ));
    }
    let expires_in = granted.expires_in.as_ref().and_then(lifetime);
    Ok(AccessToken::new(token.as_str(), expires_in))
}

/// Whole seconds, as a number or in quotes; `None` for anything else.
fn lifetime(value: &serde_json::Value) -> Option<Duration> {
    let seconds = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    let life = Duration::from_secs(seconds);
    (!life.is_zero() && life <= MAX_LIFETIME).then_some(life)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_lifetime_is_ignored() {
        let life = |expires_in: &str| {
            let body = format!(
                r#"{{"access_token":"t","token_type":"bearer","expires_in":{expires_in}}}"#
            );
            read_token(body.as_bytes())
                .unwrap()
                .expires_in()
                .map(|life| life.as_secs())
        };
        assert_eq!(life("86400"), Some(86_400));
        assert_eq!(life("\"300\""), Some(300));
        for odd in [
            "0",
            "-1",
            "1.5",
            "null",
            "\"soon\"",
            "[]",
            "{}",
            "true",
            "18446744073709551615",
            "1e300",
        ] {
            assert_eq!(life(odd), None, "{odd}");
        }
        assert_eq!(
            read_token(br#"{"access_token":"t"}"#).unwrap().expires_in(),
            None
        );
    }

    #[test]
    fn malformed_token_is_refused_and_not_quoted() {
        for body in [
            "",
            "hunter2",
            r#"["hunter2"]"#,
            r#"{"access_token":["hunter2"]}"#,
            r#"{"access_token":{"hunter2":1}}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":"hunter2\r\nX: y"}"#,
            r#"{"access_token":"hunter2é"}"#,
            r#"{"access_token":"hunter2","token_type":"mac"}"#,
            r#"{"access_token":"hunter2""#,
        ] {
            let error = read_token(body.as_bytes()).unwrap_err();
            let shown = format!("{error} {error:?} {}", crate::error::chain(&error));
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(!error.is_rejected());
        }
    }

    #[test]
    fn rate_limit_is_found_by_its_first_words() {
        let limited = |body: &str| {
            serde_json::from_str::<TokenRefusal>(body)
                .unwrap_or_default()
                .names_a_rate_limit()
        };
        assert!(limited(
            r#"{"error":"invalid_request","error_description":"rate limit exceeded; wait"}"#
        ));
        assert!(limited(r#"{"description":"Rate limit exceeded"}"#));
        assert!(limited(r#"{"message":" rate limit exceeded"}"#));
        assert!(!limited(
            r#"{"error_description":"no rate limit exceeded"}"#
        ));
        assert!(!limited(r#"{"error_description":"rate limit"}"#));
        assert!(!limited(r#"{"error_description":"rate limit éxceeded"}"#));
        assert!(!limited("rate limit exceeded"));
    }
}
