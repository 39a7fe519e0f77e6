//! Why a server could not be connected to. It distinguishes errors that the caller has to
//! fix from those that might pass. No message ever contains the user's password.

use std::time::Duration;

use redis::{AsyncConnectionConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError};

use super::connect_error::{ConnectError, TOO_OLD, invalid, unavailable};
use super::monitored_stream::Traffic;
use super::open::{client, install_tls_provider, open};
use super::server::Server;
use crate::error::Error;

/// How long the probe after a failed attempt may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

impl Server {
    /// The error for the caller of `connect`.
    pub(crate) async fn diagnose(&self, error: ConnectError) -> Error {
        let error = match error {
            ConnectError::Redis(error) => error,
            ConnectError::NoPrimary(reason) => return unavailable(reason),
            ConnectError::NoCredentials(_) => return unavailable(error.at(&self.address())),
            ConnectError::Deadline(_) => {
                return match self.answers_with_other_scheme().await {
                    Some(reason) => invalid(reason),
                    None => unavailable(error.at(&self.address())),
                };
            }
        };
        let text = error.to_string();
        match (error.kind(), error.code().unwrap_or_default()) {
            (ErrorKind::RESP3NotSupported, _) => invalid(TOO_OLD),
            (_, "NOPROTO") => invalid(TOO_OLD),
            // The provider might return others at the next attempt.
            (_, "WRONGPASS") if self.provider.is_some() => unavailable(format!(
                "{} refuses the credentials of the provider",
                self.address()
            )),
            (_, "WRONGPASS") => invalid("the server refuses this user name or password"),
            (_, "NOAUTH") => invalid("the server wants a password, and the url has none"),
            _ if text.starts_with("Redis server refused to switch database") => {
                let db = self.client.get_connection_info().redis_settings().db();
                invalid(format!(
                    "the server refuses database {db}: {}",
                    error.detail().unwrap_or("it gives no reason")
                ))
            }
            _ if text.contains("invalid peer certificate") => invalid(format!(
                "the server's certificate is not trusted ({text}); SSL_CERT_FILE names further roots"
            )),
            _ if text.contains("CertificateRequired") => {
                invalid("the server wants a client certificate: client_cert of the builder")
            }
            (ErrorKind::InvalidClientConfig, _) => {
                invalid(format!("certificate or key cannot be used: {text}"))
            }
            (ErrorKind::Server(_) | ErrorKind::Extension, _) => unavailable(format!(
                "{} refuses: {}",
                self.address(),
                error.detail().unwrap_or(&text)
            )),
            // Refused, or an unknown host: no server there to probe.
            _ if error.is_connection_refusal() => {
                unavailable(format!("{}: {text}", self.address()))
            }
            _ => match self.answers_with_other_scheme().await {
                Some(reason) => invalid(reason),
                None => unavailable(format!("{}: {text}", self.address())),
            },
        }
    }

    /// Whether that port speaks TLS where the URL has none, or the reverse. It sends no
    /// user and no password: they must not be sent without TLS.
    async fn answers_with_other_scheme(&self) -> Option<&'static str> {
        let (addr, reason) = match self.client.get_connection_info().addr().clone() {
            ConnectionAddr::Tcp(host, port) => {
                install_tls_provider();
                let addr = ConnectionAddr::TcpTls {
                    host,
                    port,
                    insecure: false,
                    tls_params: None,
                };
                (addr, "the server expects TLS on that port: use rediss://")
            }
            ConnectionAddr::TcpTls { host, port, .. } => (
                ConnectionAddr::Tcp(host, port),
                "the server speaks no TLS on that port: use redis://",
            ),
            _ => return None,
        };
        let info = addr.into_connection_info().ok()?;
        let config = AsyncConnectionConfig::new().set_connection_timeout(None);
        let answered = match open(
            &client(info).ok()?,
            None,
            config,
            PROBE_DEADLINE,
            Traffic::Commands,
        )
        .await
        {
            Ok(_) => true,
            Err(ConnectError::Redis(error)) => is_server_answer(&error),
            Err(_) => false,
        };
        answered.then_some(reason)
    }
}

/// Whether an error is a valid answer of a server.
fn is_server_answer(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::RESP3NotSupported
    ) || error.to_string().contains("invalid peer certificate")
}
