//! The API host and the login host of an organisation, checked when made. It connects to
//! neither.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;
use sha2::{Digest, Sha256};

use super::region::warn_of_unknown;
use crate::error::Error;
use crate::key::Namespace;

/// The hosts of a Genesys Cloud region.
///
/// ```
/// use genesys_once::Environment;
///
/// let ireland = Environment::from_domain("mypurecloud.ie")?;
/// assert_eq!(ireland.api_url(), "https://api.mypurecloud.ie/");
/// assert_eq!(ireland.login_url(), "https://login.mypurecloud.ie/");
/// # Ok::<(), genesys_once::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Environment {
    api: Url,
    login: Url,
}

impl Environment {
    /// The region with this domain, such as `mypurecloud.ie` or
    /// `usw2.pure.cloud`: `https://api.{domain}` and `https://login.{domain}`.
    /// Upper case and one dot at the end are normalised. A domain of no known region is
    /// logged at `WARN`, because a newer region might have it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for `domain` if it is not a domain name: a URL, a host of
    /// the domain (`api.…`, `login.…`, `apps.…`), an address.
    pub fn from_domain(domain: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Err(Error::invalid_config("domain", reason));
        if domain.contains(['/', ':', '@', '?', '#']) {
            return refuse(
                "it must be a domain such as mypurecloud.ie; \
                 for a URL, use Environment::from_base_url",
            );
        }
        let lower = domain.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        if !is_domain(name) {
            return refuse("it is not a domain name such as mypurecloud.ie");
        }
        if ["api.", "login.", "apps."]
            .iter()
            .any(|host| name.starts_with(host))
        {
            return refuse(
                "it must be without api., login. or apps. in front, such as mypurecloud.ie",
            );
        }
        match (
            Url::parse(&format!("https://api.{name}")),
            Url::parse(&format!("https://login.{name}")),
        ) {
            (Ok(api), Ok(login)) => {
                warn_of_unknown(name);
                Ok(Self { api, login })
            }
            // The URL standard refuses further names, such as malformed punycode.
            _ => refuse("it is not a domain name such as mypurecloud.ie"),
        }
    }

    /// One host for API and login: a gateway, or a simulator. The URL has scheme, host
    /// and port only. Plain `http://` works for loopback hosts without a
    /// [`proxy`](super::GenesysCloud::proxy). Elsewhere the engine refuses to start
    /// without [`allow_insecure`](super::GenesysCloud::allow_insecure).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for `base_url` if it is not such a URL. The message does
    /// not repeat the URL, which might hold a password.
    pub fn from_base_url(url: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Err(Error::invalid_config("base_url", reason));
        let Ok(mut url) = Url::parse(url) else {
            return refuse("it is not a URL such as https://gateway.example.com");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("it must begin with https:// or http://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it must not hold a user name or password");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return refuse("it must end after host and port, without path, query or fragment");
        }
        // With a dot at the end it is the same host, and must be the same namespace.
        if let Some(host) = url
            .host_str()
            .and_then(|host| host.strip_suffix('.'))
            .map(str::to_owned)
            && url.set_host(Some(&host)).is_err()
        {
            return refuse("its host is not a host name");
        }
        Ok(Self {
            api: url.clone(),
            login: url,
        })
    }

    /// The API's base URL.
    pub fn api_url(&self) -> &str {
        self.api.as_str()
    }

    /// The login service's base URL.
    pub fn login_url(&self) -> &str {
        self.login.as_str()
    }

    pub(super) fn api(&self) -> &Url {
        &self.api
    }

    pub(super) fn login(&self) -> &Url {
        &self.login
    }

    /// Whether no request of this environment needs TLS.
    pub(super) fn is_plain(&self) -> bool {
        [&self.api, &self.login]
            .iter()
            .all(|url| url.scheme() == "http")
    }

    /// Whether no request of this environment leaves the machine.
    pub(super) fn is_loopback(&self) -> bool {
        [&self.api, &self.login].into_iter().all(is_loopback)
    }

    /// Refuses plain HTTP that leaves the machine: to another host, or to a proxy.
    pub(super) fn check(&self, proxied: bool) -> Result<(), Error> {
        let exposed = |url: &Url| url.scheme() == "http" && (proxied || !is_loopback(url));
        if exposed(&self.api) || exposed(&self.login) {
            return Err(Error::invalid_config(
                "environment",
                "plain http to a host that is not loopback, or through a proxy, would expose \
                 credentials; use https, leave out the proxy, or call allow_insecure()",
            ));
        }
        Ok(())
    }

    /// Scheme, host and port of the API.
    pub(super) fn origin(&self) -> String {
        let port = self.api.port_or_known_default().unwrap_or_default();
        let host = self.api.host_str().unwrap_or_default();
        format!("{}://{host}:{port}", self.api.scheme())
    }

    /// The default namespace of a client: a digest, because a host and a client
    /// id together are longer than a namespace may be.
    pub(super) fn namespace(&self, client_id: &str) -> Namespace {
        // A host has no line break, so that two pairs never have the same text.
        let text = format!("{}\n{client_id}", self.origin());
        let digest = Sha256::digest(text);
        let hex: String = digest
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("go-{hex}")
            .parse()
            .expect("35 characters of a-z, 0-9 and '-'")
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("api", &self.api.as_str())
            .field("login", &self.login.as_str())
            .finish()
    }
}

/// Two labels or more of letters, digits and inner hyphens, the last of them
/// not a number; short enough for `login.` in front (RFC 1035 §2.3.4).
fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 - "login.".len()
        && name.contains('.')
        && name.split('.').all(label)
        && !last.bytes().all(|b| b.is_ascii_digit())
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    match address {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str) -> Environment {
        Environment::from_base_url(url).unwrap()
    }

    #[test]
    fn domain_is_two_hosts_in_any_spelling() {
        let ireland = Environment::from_domain("mypurecloud.ie").unwrap();
        assert_eq!(
            Environment::from_domain("MyPureCloud.IE.").unwrap(),
            ireland
        );
        for domain in [
            "usw2.pure.cloud",
            "mypurecloud.com.au",
            "use2.us-gov-pure.cloud",
            "edee1.eusc-pure.cloud",
        ] {
            let environment = Environment::from_domain(domain).unwrap();
            assert_eq!(environment.api_url(), format!("https://api.{domain}/"));
            assert_eq!(environment.login_url(), format!("https://login.{domain}/"));
        }
    }

    #[test]
    fn malformed_domain_is_refused() {
        for domain in [
            "",
            ".",
            "..",
            "com",
            "https://mypurecloud.ie",
            "mypurecloud.ie/",
            "mypurecloud.ie:443",
            "user@mypurecloud.ie",
            "mypurecloud.ie?x",
            "mypurecloud.ie#x",
            "my purecloud.ie",
            "mypurecloud..ie",
            ".mypurecloud.ie",
            "-a.ie",
            "a-.ie",
            "my_pure.ie",
            "münchen.de",
            "mypurecloud.ie\n",
            "mypurecloud.ie\\x",
            "127.0.0.1",
            "a.1",
            "[::1]",
            "%2e.ie",
            "xn--.ie",
            "api.mypurecloud.ie",
            "LOGIN.mypurecloud.ie",
            "apps.mypurecloud.ie",
            &format!("{}.ie", "a".repeat(64)),
            &format!("{}ie", "a.".repeat(130)),
        ] {
            let error = Environment::from_domain(domain).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::InvalidConfig {
                        setting: "domain",
                        ..
                    }
                ),
                "{domain:?}"
            );
        }
        let error = Environment::from_domain("https://mypurecloud.ie").unwrap_err();
        assert!(error.to_string().contains("from_base_url"), "{error}");
    }

    #[test]
    fn base_url_is_scheme_host_and_port() {
        assert_eq!(
            base("http://127.0.0.1:8080").api_url(),
            "http://127.0.0.1:8080/"
        );
        assert_eq!(
            base("http://127.0.0.1:8080").login_url(),
            "http://127.0.0.1:8080/"
        );
        assert_eq!(
            base("https://Gateway.Example.com./"),
            base("https://gateway.example.com:443")
        );
        for url in [
            "",
            "gateway.example.com",
            "gateway.example.com:443",
            "ftp://a.example",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://user@a",
            "https://user:hunter2@a",
            "http://a b",
            "unix:/x",
        ] {
            let error = Environment::from_base_url(url).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::InvalidConfig {
                        setting: "base_url",
                        ..
                    }
                ),
                "{url:?}"
            );
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn plain_http_is_for_loopback() {
        for url in [
            "http://127.0.0.1:1",
            "http://127.8.8.8",
            "http://[::1]:1",
            "http://localhost",
            "http://a.localhost",
        ] {
            base(url).check(false).unwrap();
            assert!(base(url).is_loopback());
            // A proxy is another host.
            assert!(base(url).check(true).is_err(), "{url}");
        }
        for url in [
            "http://example.com",
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://0.0.0.0",
            "http://[::2]",
        ] {
            assert!(base(url).check(false).is_err(), "{url}");
            assert!(!base(url).is_loopback());
        }
        base("https://example.com").check(false).unwrap();
        base("https://example.com").check(true).unwrap();
        assert!(!base("https://example.com").is_plain());
        assert!(base("http://localhost").is_plain());
    }

    #[test]
    fn namespace_depends_on_origin_and_client_alone() {
        let of = |url: &str, id: &str| base(url).namespace(id).to_string();
        let plain = of("https://api.mypurecloud.ie", "client");
        assert_eq!(
            plain,
            Environment::from_domain("MYPURECLOUD.ie.")
                .unwrap()
                .namespace("client")
                .to_string()
        );
        assert_eq!(plain, of("HTTPS://API.mypurecloud.IE.:443/", "client"));
        // Fixed: another digest would lose each existing record.
        assert_eq!(plain, "go-db01009fa78943d3b8a549b9c8847067");
        for other in [
            of("http://api.mypurecloud.ie", "client"),
            of("https://api.mypurecloud.ie:444", "client"),
            of("https://api.mypurecloud.de", "client"),
            of("https://api.mypurecloud.ie", "Client"),
            of("https://api.mypurecloud.ie", ""),
            of("https://api.mypurecloud.ie", "\nclient"),
        ] {
            assert_ne!(plain, other);
        }
    }
}
