//! The page's sessions: a signed cookie with its time of expiry, and a token against forged
//! forms that belongs to it. The service stores no session, so that every instance with the
//! same admin token accepts it, and a new admin token ends all sessions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::token::Token;

const COOKIE: &str = "genesys-once-session";
/// How long an operator stays logged in.
const LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);

/// Signs and checks sessions.
#[derive(Clone, Copy)]
pub struct Sessions(Token);

/// A session that is valid: the cookie's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session(String);

impl Sessions {
    pub fn new(admin: Token) -> Self {
        Self(admin)
    }

    /// Whether this is the admin token.
    pub fn admits(&self, shown: &str) -> bool {
        self.0.is(shown)
    }

    /// A new session that starts at `now`.
    pub fn open(&self, now: SystemTime) -> Result<Session, getrandom::Error> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)?;
        let expires = seconds(now).saturating_add(LIFETIME.as_secs());
        let signed = format!("{expires}.{}", URL_SAFE_NO_PAD.encode(nonce));
        let signature = self.sign("session", &signed);
        Ok(Session(format!("{signed}.{signature}")))
    }

    /// The session of a request, if it is signed and has not expired.
    pub fn of(&self, headers: &HeaderMap, now: SystemTime) -> Option<Session> {
        let cookies = headers.get_all(header::COOKIE).iter();
        let cookies = cookies.filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';'));
        let value = pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
        let (signed, signature) = value.rsplit_once('.')?;
        if !equal(signature, &self.sign("session", signed)) {
            return None;
        }
        let (expires, _) = signed.split_once('.')?;
        (seconds(now) < expires.parse().ok()?).then(|| Session(value.to_owned()))
    }

    /// The token in every form of this session: another site can neither read nor forge it.
    pub fn form_token(&self, session: &Session) -> String {
        self.sign("form", &session.0)
    }

    /// Whether a form was made for this session.
    pub fn is_form_of(&self, session: &Session, shown: &str) -> bool {
        equal(shown, &self.form_token(session))
    }

    fn sign(&self, purpose: &str, text: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(self.0.as_key());
        let mut mac = mac.expect("HMAC takes keys of any length");
        // No purpose has a colon.
        mac.update(format!("{purpose}:{text}").as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

impl Session {
    /// The `Set-Cookie` header that opens the session. No script can read the cookie, and
    /// the browser does not send it with a request that another site begins.
    pub fn cookie(&self, over_tls: bool) -> String {
        set_cookie(&self.0, LIFETIME, over_tls)
    }

    /// The `Set-Cookie` header that makes the browser forget the session.
    pub fn end(over_tls: bool) -> String {
        set_cookie("", Duration::ZERO, over_tls)
    }
}

fn set_cookie(value: &str, lifetime: Duration, over_tls: bool) -> String {
    let seconds = lifetime.as_secs();
    let secure = if over_tls { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

fn equal(one: &str, other: &str) -> bool {
    bool::from(one.as_bytes().ct_eq(other.as_bytes()))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
