//! The HTTP client, which never retries, redirects or decompresses, and reading an answer
//! up to a limit. It knows neither routes nor tokens.

use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderValue};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, Proxy, Response, Url, redirect, retry};
use rustls::crypto::CryptoProvider;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::yield_now;

use super::environment::Environment;
use crate::error::{BoxError, Error, chain};
use crate::lookup;
use crate::upstream::within;

/// An action runs for at most a minute. A longer time-out is a mistake, and would keep an
/// outcome unknown for too long.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The settings of the HTTP client.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) attempt_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) proxy: Option<SecretString>,
    pub(super) environment_proxy: bool,
    pub(super) roots: Vec<Vec<u8>>,
    pub(super) allow_insecure: bool,
    pub(super) user_agent: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(65),
            connect_timeout: Duration::from_secs(5),
            // Gateways close idle connections after about a minute. A request written
            // into a closing connection is lost, and its outcome unknown.
            idle_timeout: Duration::from_secs(15),
            proxy: None,
            environment_proxy: false,
            roots: Vec::new(),
            allow_insecure: false,
            user_agent: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("attempt_timeout", &self.attempt_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("idle_timeout", &self.idle_timeout)
            // May hold the proxy's password.
            .field("proxy", &self.proxy.as_ref().map(|_| "[redacted]"))
            .field("environment_proxy", &self.environment_proxy)
            .field("root_certificates", &self.roots.len())
            .field("allow_insecure", &self.allow_insecure)
            .field("user_agent", &self.user_agent)
            .finish()
    }
}

impl Settings {
    /// Builds the client, or returns the impossible setting.
    pub(super) fn build(&self, environment: &Environment) -> Result<Client, Error> {
        if !self.allow_insecure {
            environment.check(self.proxy.is_some())?;
        }
        for (setting, limit) in [
            ("attempt_timeout", self.attempt_timeout),
            ("connect_timeout", self.connect_timeout),
            ("idle_timeout", self.idle_timeout),
        ] {
            if limit.is_zero() && setting != "idle_timeout" {
                return Err(Error::invalid_config(setting, "must not be zero"));
            }
            if limit > MAX_TIMEOUT {
                return Err(Error::invalid_config(setting, "must be at most a day"));
            }
        }
        let roots = self.root_certificates()?;
        ensure_crypto_provider();
        let mut builder = Client::builder()
            .user_agent(self.user_agent_header()?)
            // A compressed answer cannot be read, and some gateways compress by default.
            .default_headers(HeaderMap::from_iter([
                (ACCEPT, HeaderValue::from_static("application/json")),
                (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            ]))
            // Another crate of the build might enable further features of reqwest, which
            // must not change what is sent.
            .tls_backend_rustls()
            .http1_only()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .no_hickory_dns()
            .dns_resolver(Arc::new(Resolver {
                loopback: environment.is_plain() && !self.allow_insecure,
            }))
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(retry::never())
            .pool_idle_timeout(self.idle_timeout)
            .tcp_nodelay(true)
            // The client has no time limit for the whole request, since it would check it
            // before it reads an answer. Connecting must end before the attempt, or the
            // proof that nothing was sent would be lost.
            .connect_timeout(self.connect_timeout.min(self.attempt_timeout / 2));
        if self.idle_timeout.is_zero() {
            builder = builder.pool_max_idle_per_host(0);
        }
        builder = match &self.proxy {
            Some(proxy) => builder.proxy(read_proxy(proxy)?),
            // reqwest reads the variables. Loopback uses no proxy.
            None if self.environment_proxy && !environment.is_loopback() => builder,
            None => builder.no_proxy(),
        };
        builder = if environment.is_plain() && self.proxy.is_none() {
            // Without TLS, a machine needs no root certificates.
            builder.tls_certs_only(roots)
        } else {
            builder.tls_certs_merge(roots)
        };
        // Proxy and user agent were checked. TLS can fail: by a malformed root, or
        // without any root.
        builder.build().map_err(|error| {
            let reason = format!("could not build a TLS client: {}", chain(&error));
            Error::invalid_config("root_certificate", reason)
        })
    }

    fn root_certificates(&self) -> Result<Vec<Certificate>, Error> {
        let mut roots = Vec::new();
        for pem in &self.roots {
            match Certificate::from_pem_bundle(pem) {
                Ok(found) if !found.is_empty() => roots.extend(found),
                _ => {
                    let reason = "it is not a PEM text with certificates";
                    return Err(Error::invalid_config("root_certificate", reason));
                }
            }
        }
        Ok(roots)
    }

    fn user_agent_header(&self) -> Result<HeaderValue, Error> {
        let mut text = concat!("genesys-once/", env!("CARGO_PKG_VERSION")).to_owned();
        if let Some(suffix) = &self.user_agent {
            text.push(' ');
            text.push_str(suffix);
        }
        HeaderValue::from_str(&text)
            .map_err(|_| Error::invalid_config("user_agent", "must be visible ASCII characters"))
    }
}

fn read_proxy(proxy: &SecretString) -> Result<Proxy, Error> {
    let url = proxy.expose_secret();
    let known = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    match Proxy::all(url) {
        Ok(proxy) if known => Ok(proxy),
        // The URL is not repeated: it might hold a password.
        _ => Err(Error::invalid_config(
            "proxy",
            "it is not an http:// or https:// URL",
        )),
    }
}

/// Without a default provider reqwest would panic.
fn ensure_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Fails only if another thread has installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Resolves names in threads of this crate.
struct Resolver {
    /// Whether only loopback addresses count, so that plain HTTP stays on the machine.
    loopback: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let loopback = self.loopback;
        Box::pin(async move {
            // The client sets the port.
            let found = lookup::addresses(name.as_str().to_owned(), 0).await?;
            let taken = |address: &SocketAddr| !loopback || address.ip().is_loopback();
            let taken: Vec<_> = found.filter(taken).collect();
            if taken.is_empty() {
                return Err(
                    "plain http is for loopback only, and the name has no loopback address".into(),
                );
            }
            Ok(Box::new(taken.into_iter()) as Addrs)
        })
    }
}

/// Uses the HTTP client for at most `limit`. A panic, such as tokio's without a thread or a
/// driver, becomes an error. `is_over` is that of [`within`].
///
/// First it yields to the runtime, which polls the sockets. While tasks are busy, nothing
/// polls them, and the client would reuse a connection that the peer has closed, or on
/// which unexpected bytes arrived.
pub(super) async fn contained<T>(
    limit: Duration,
    used: impl Future<Output = Result<T, BoxError>>,
    is_over: impl FnOnce() -> bool,
) -> Result<T, BoxError> {
    let used = async {
        yield_now().await;
        used.await
    };
    let answer = AssertUnwindSafe(within(limit, used, is_over));
    match answer.catch_unwind().await {
        Ok(Some(answer)) => answer,
        Ok(None) => Err(format!("no answer within {} s", limit.as_secs_f64()).into()),
        Err(_) => Err("the HTTP client panicked".into()),
    }
}

/// A body is larger than this limit.
#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {0} bytes")]
pub(super) struct BodyTooLarge(usize);

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
///
/// The failure of the connection, or [`BodyTooLarge`]: at once if the length is announced.
pub(super) async fn read_body(mut response: Response, limit: usize) -> Result<Vec<u8>, BoxError> {
    let too_large = || BoxError::from(BodyTooLarge(limit));
    let announced = response.content_length().unwrap_or(0);
    let announced = usize::try_from(announced).map_err(|_| too_large())?;
    if announced > limit {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(announced);
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(reqwest::Error::without_url)?
    {
        if chunk.len() > limit - body.len() {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    // Bodies stay in memory for a while: drop the unused capacity.
    body.shrink_to_fit();
    Ok(body)
}

/// Percent-encodes all but RFC 3986's unreserved characters, so that any text is one form
/// value.
pub(super) fn percent_encode(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    // The largest size, so that growing leaves no copy of a secret in memory.
    let mut encoded = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
            encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Settings)) -> Error {
        let mut settings = Settings::default();
        change(&mut settings);
        let environment = Environment::from_base_url("https://127.0.0.1").unwrap();
        settings.build(&environment).unwrap_err()
    }

    fn setting(error: &Error) -> &'static str {
        match error {
            Error::InvalidConfig { setting, .. } => setting,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn impossible_setting_is_named() {
        assert_eq!(
            setting(&refused(|s| s.attempt_timeout = Duration::ZERO)),
            "attempt_timeout"
        );
        assert_eq!(
            setting(&refused(|s| s.attempt_timeout = Duration::MAX)),
            "attempt_timeout"
        );
        assert_eq!(
            setting(&refused(|s| s.connect_timeout = Duration::ZERO)),
            "connect_timeout"
        );
        assert_eq!(
            setting(&refused(|s| s.idle_timeout = Duration::MAX)),
            "idle_timeout"
        );
        assert_eq!(
            setting(&refused(|s| s.user_agent = Some("a\r\nX: y".into()))),
            "user_agent"
        );
        for pem in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let error = refused(|s| s.roots.push(pem.into()));
            assert_eq!(setting(&error), "root_certificate", "{pem}");
        }
        for url in [
            "",
            "proxy:3128",
            "socks5://u:hunter2@proxy",
            "http://",
            "http://u:hunter2@a b",
        ] {
            let error = refused(|s| s.proxy = Some(SecretString::from(url)));
            assert_eq!(setting(&error), "proxy", "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn plain_http_needs_no_root_certificates() {
        let plain = Environment::from_base_url("http://127.0.0.1:1").unwrap();
        Settings::default().build(&plain).unwrap();
        let proxied = Settings {
            allow_insecure: true,
            proxy: Some(SecretString::from("http://u:hunter2@127.0.0.1:2")),
            user_agent: Some("billing/1.0 (eu)".into()),
            ..Settings::default()
        };
        proxied.build(&plain).unwrap();
        assert!(!format!("{proxied:?} {proxied:#?}").contains("hunter2"));
    }

    /// Red if each address counts, and without a reason.
    #[tokio::test]
    async fn plain_http_resolves_to_loopback_only() {
        for (name, loopback) in [("127.0.0.1", true), ("192.0.2.1", false)] {
            let resolver = Resolver { loopback };
            let found = resolver.resolve(name.parse().unwrap()).await.unwrap();
            assert_eq!(found.count(), 1, "{name} {loopback}");
        }
        let found = Resolver { loopback: true }.resolve("192.0.2.1".parse().unwrap());
        let reason = found.await.err().unwrap().to_string();
        assert!(reason.contains("loopback"), "{reason}");
    }

    #[test]
    fn installed_provider_stays() {
        ensure_crypto_provider();
        let before = CryptoProvider::get_default().map(std::sync::Arc::as_ptr);
        ensure_crypto_provider();
        assert_eq!(
            CryptoProvider::get_default().map(std::sync::Arc::as_ptr),
            before
        );
    }

    #[test]
    fn reserved_characters_are_encoded() {
        assert_eq!(percent_encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(
            percent_encode("/?#% +&=:é\u{0}"),
            "%2F%3F%23%25%20%2B%26%3D%3A%C3%A9%00"
        );
    }
}
