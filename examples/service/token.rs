//! Secrets that operators and callers send as `Authorization: Bearer`. Only their digests are
//! kept, so that a comparison takes the same time for tokens of any length. No token is ever
//! printed.

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Shorter tokens can be guessed.
const MIN_LENGTH: usize = 16;

/// The digest of a token.
#[derive(Clone, Copy)]
pub struct Token([u8; 32]);

impl Token {
    /// Reads a token from a setting, without the white space around it: files and
    /// secret stores often add a line break, which no header can carry.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() < MIN_LENGTH {
            return Err(format!("has fewer than {MIN_LENGTH} characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has a character that is not visible ASCII".into());
        }
        Ok(Self::digest(text))
    }

    fn digest(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Whether the token that was sent is this token.
    pub fn is(&self, shown: &str) -> bool {
        bool::from(self.0.ct_eq(&Self::digest(shown.trim()).0))
    }

    /// Whether a request has this token.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        self.is(bearer(headers).unwrap_or_default())
    }

    /// A key for signatures, which changes with the token.
    pub fn as_key(&self) -> &[u8] {
        &self.0
    }
}

/// The token of an `Authorization: Bearer` header that occurs exactly once.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
