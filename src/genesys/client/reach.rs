//! Whether the API host answers and accepts a token. It executes no action.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use reqwest::Request;

use super::GenesysCloud;
use super::credentials::bearer;
use super::transport::contained;
use crate::error::SendError;
use crate::upstream::AccessToken;

/// For connecting, asking and the answer's head together.
const TIME_LIMIT: Duration = Duration::from_secs(10);

impl GenesysCloud {
    /// Sends `HEAD /api/v2/tokens/me` with this token to the API host, and returns the
    /// status of the answer, for a health check. The platform verifies the token, and
    /// executes no action. Any status shows that the host is reachable; 401 shows that it
    /// refuses the token.
    ///
    /// # Errors
    ///
    /// [`SendError`] if there is no answer within 10 s, or a setting is impossible.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn reach(&self, token: &AccessToken) -> Result<StatusCode, SendError> {
        let clients = self.clients();
        let client = clients.and_then(|clients| clients.of_this_runtime());
        let client = client.map_err(SendError::before_sending)?;
        let refuse = || SendError::before_sending("the access token is not a header value");
        let authorization = bearer(token.expose()).ok_or_else(refuse)?;
        let mut url = self.environment.api().clone();
        url.set_path("/api/v2/tokens/me");
        let mut request = Request::new(Method::HEAD, url);
        request.headers_mut().insert(AUTHORIZATION, authorization);
        let answer = async {
            let answer = client.execute(request).await;
            Ok(answer.map_err(reqwest::Error::without_url)?.status())
        };
        let answer = contained(TIME_LIMIT, answer, || true).await;
        answer.map_err(SendError::after_sending)
    }
}
