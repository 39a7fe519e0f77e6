//! The OAuth client's id and secret, and how they and a token are sent. It never shows a
//! secret.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::transport::percent_encode;
use crate::error::Error;

/// The id and secret of an OAuth client with the grant "client credentials".
/// The secret is zeroised when dropped and `Debug` shows none of it.
#[derive(Clone)]
pub struct Credentials {
    client_id: String,
    client_secret: SecretString,
}

impl Credentials {
    /// A client's id and secret, as the platform's OAuth page shows them.
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            client_secret: SecretString::from(client_secret.into()),
        }
    }

    /// The client's id, which is no secret.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Whether `text` is a part of the secret.
    pub(super) fn secret_contains(&self, text: &str) -> bool {
        self.client_secret.expose_secret().contains(text)
    }

    pub(super) fn check(&self, auth: ClientAuth) -> Result<(), Error> {
        let unprintable = |text: &str| text.chars().any(|c| c.is_control() || c.is_whitespace());
        let values = [
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.client_secret.expose_secret()),
        ];
        for (setting, value) in values {
            if value.is_empty() {
                return Err(Error::invalid_config(setting, "must not be empty"));
            }
            // Most often the line break of the file that holds it.
            if unprintable(value) {
                return Err(Error::invalid_config(
                    setting,
                    "must not contain white space, line breaks or control characters",
                ));
            }
        }
        if auth == ClientAuth::Basic && self.client_id.contains(':') {
            return Err(Error::invalid_config(
                "client_id",
                "must not contain a colon under ClientAuth::Basic",
            ));
        }
        Ok(())
    }

    /// The value of `Authorization` for HTTP Basic.
    ///
    /// Id and secret are not encoded, as in the vendor's SDKs. RFC 6749 section 2.3.1
    /// requires form-encoding, which leaves the characters of the platform's ids and
    /// secrets unchanged.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let pair = SecretString::from(format!(
            "{}:{}",
            self.client_id,
            self.client_secret.expose_secret()
        ));
        let encoded = SecretString::from(BASE64_STANDARD.encode(pair.expose_secret()));
        authorization("Basic ", encoded.expose_secret())
    }

    /// The body of a token request with the credentials in it.
    pub(super) fn form(&self) -> Bytes {
        let id = percent_encode(&self.client_id);
        let secret = SecretString::from(percent_encode(self.client_secret.expose_secret()));
        wiped(format!(
            "grant_type=client_credentials&client_id={id}&client_secret={}",
            secret.expose_secret()
        ))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("client_secret", &"[redacted]")
            .finish()
    }
}

/// How the client authenticates at the token endpoint (RFC 6749 section 2.3.1).
///
/// Its values in text (`Display`, `FromStr`, serde): `basic` and `request_body`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientAuth {
    /// In an `Authorization: Basic` header.
    #[default]
    Basic,
    /// As `client_id` and `client_secret` in the form body, for gateways that remove the
    /// header.
    RequestBody,
}

crate::policy::named_values!(
    ClientAuth,
    "client_auth",
    Basic = "basic",
    RequestBody = "request_body"
);

/// The value of `Authorization` for an access token; `None` if the token is not a header
/// value, so that it cannot add another header.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    authorization("Bearer ", token)
}

/// Whether RFC 6749's appendix A.12 allows `text` as an access token.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn authorization(scheme: &str, secret: &str) -> Option<HeaderValue> {
    if !is_token(secret) {
        return None;
    }
    let mut value = HeaderValue::from_maybe_shared(wiped([scheme, secret].concat())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Bytes that are zeroised when the last reference to them is dropped.
fn wiped(text: String) -> Bytes {
    struct Wiped(SecretString);
    impl AsRef<[u8]> for Wiped {
        fn as_ref(&self) -> &[u8] {
            self.0.expose_secret().as_bytes()
        }
    }
    Bytes::from_owner(Wiped(SecretString::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_secret() {
        let credentials = Credentials::new("id", "hunter2");
        let shown = format!(
            "{credentials:?} {credentials:#?} {:?} {:?}",
            credentials.basic(),
            bearer("hunter2")
        );
        assert!(
            shown.contains("[redacted]") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert!(
            !shown.contains(&BASE64_STANDARD.encode("id:hunter2")),
            "{shown}"
        );
    }

    #[test]
    fn credentials_are_encoded_for_each_form() {
        let credentials = Credentials::new("id", "s:e&c=r é");
        assert_eq!(
            credentials.basic().unwrap().to_str().unwrap(),
            format!("Basic {}", BASE64_STANDARD.encode("id:s:e&c=r é"))
        );
        assert_eq!(
            credentials.form(),
            "grant_type=client_credentials&client_id=id&client_secret=s%3Ae%26c%3Dr%20%C3%A9"
        );
    }

    #[test]
    fn token_cannot_add_a_header() {
        assert_eq!(bearer("abc.DEF-_~+/=").unwrap(), "Bearer abc.DEF-_~+/=");
        for token in ["", "a\r\nX: y", "a\n", "a\tb", "\u{7f}", "é", "\u{0}"] {
            assert!(bearer(token).is_none(), "{token:?}");
        }
    }

    #[test]
    fn invalid_credentials_name_the_setting() {
        let setting = |id: &str, secret: &str, auth| match Credentials::new(id, secret).check(auth)
        {
            Err(Error::InvalidConfig { setting, .. }) => setting,
            other => panic!("{other:?}"),
        };
        assert_eq!(setting("", "s", ClientAuth::Basic), "client_id");
        assert_eq!(setting("a b", "s", ClientAuth::Basic), "client_id");
        assert_eq!(setting("a:b", "s", ClientAuth::Basic), "client_id");
        assert_eq!(setting("id", "", ClientAuth::RequestBody), "client_secret");
        assert_eq!(
            setting("id", "secret\n", ClientAuth::Basic),
            "client_secret"
        );
        assert!(
            Credentials::new("a:b", "s")
                .check(ClientAuth::RequestBody)
                .is_ok()
        );
    }
}
