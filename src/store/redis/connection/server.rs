//! One server's address and login, read from a URL, and how to open a connection to it. No
//! message ever contains the user's password.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, PushInfo, PushKind,
    TlsCertificates, Value,
};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connect_error::{ConnectError, invalid};
use super::login::{self, ConnectOptions, CredentialsProvider};
use super::monitored_stream::{Activity, Traffic};
use super::open::{RawConnection, client, install_tls_provider, open};
use super::runtime::{AbortOnDrop, StoreRuntime};
use super::subscriptions::Subscriptions;
use super::url::check_unused_parts;
use crate::error::Error;

/// How much longer to wait before the runtime counts as stopped.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

/// Commands in the queue of a connection before callers wait.
const MAX_QUEUED_COMMANDS: usize = 1024;

/// The address of one server and how to log in there.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) client: Arc<Client>,
    /// Returns user and password at each connect.
    pub(crate) provider: Option<CredentialsProvider>,
    tls: Option<Arc<TlsCertificates>>,
    connect_timeout: Duration,
    runtime: StoreRuntime,
}

/// A new connection, after the handshake.
pub(crate) struct OpenedConnection {
    /// Its server.
    pub(crate) server: Server,
    /// Clones share it.
    pub(crate) connection: MultiplexedConnection,
    /// Set once the connection has ended.
    pub(crate) closed: Arc<AtomicBool>,
    /// When it last transferred bytes.
    pub(crate) activity: Arc<Activity>,
    /// Aborted on drop.
    pub(crate) driver: AbortOnDrop,
}

impl OpenedConnection {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Server {
    /// Reads `redis://[user][:password]@host[:port][/db]`, or `rediss://` for TLS.
    pub(crate) fn parse(url: &str, options: &ConnectOptions) -> Result<Self, Error> {
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("redis" | "rediss" | "valkey" | "valkeys") => {}
            // Not shown: it might be a password.
            Some(_) => return Err(invalid("its scheme is neither redis:// nor rediss://")),
            None => {
                return Err(invalid(
                    "it has no scheme: expected redis://host or rediss://host",
                ));
            }
        }
        check_unused_parts(url)?;
        // redis-rs names no part of the URL in these errors.
        let info = url.into_connection_info().map_err(|error| {
            let text = error.to_string();
            let reason = text.split(" - ").next().unwrap_or_default();
            invalid(match reason {
                "Invalid database number" => "its path is not a database number".into(),
                _ => format!("it cannot be read: {}", reason.to_lowercase()),
            })
        })?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            install_tls_provider();
        }
        let (info, provider) = options.applied_to(info)?;
        Ok(Self {
            client: Arc::new(client(info)?),
            provider,
            tls: options.tls.clone().map(Arc::new),
            connect_timeout: options.connect_timeout,
            runtime: StoreRuntime::current(),
        })
    }

    /// Host and port, for messages.
    pub(crate) fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// Another server with the same login and TLS settings.
    pub(crate) fn at(&self, host: &str, port: u16) -> Result<Self, Error> {
        let info = self.client.get_connection_info();
        let host = host.to_owned();
        let addr = match info.addr() {
            ConnectionAddr::TcpTls { tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let client = Arc::new(client(info.clone().set_addr(addr))?);
        Ok(Self {
            client,
            ..self.clone()
        })
    }

    /// Where background work for this server runs.
    pub(crate) fn runtime(&self) -> &StoreRuntime {
        &self.runtime
    }

    /// The host without the port.
    pub(crate) fn host(&self) -> &str {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "",
        }
    }

    /// The number of the database.
    pub(crate) fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// Whether it logs in with a password.
    pub(crate) fn has_password(&self) -> bool {
        let login = self.client.get_connection_info().redis_settings();
        self.provider.is_some() || login.password().is_some()
    }

    /// Whether its password is sent to another machine without TLS.
    pub(crate) fn is_exposed(&self) -> bool {
        let host = self.host().trim_matches(['[', ']']);
        let address = host.parse::<IpAddr>();
        let is_local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        let is_plain = matches!(
            self.client.get_connection_info().addr(),
            ConnectionAddr::Tcp(..)
        );
        self.has_password() && is_plain && !is_local
    }

    /// Logs a warning if the password [is exposed](Self::is_exposed).
    pub(crate) fn warn_if_exposed(&self) {
        if self.is_exposed() {
            tracing::warn!(
                server = self.address(),
                "the redis password is sent without TLS to another machine: use rediss://"
            );
        }
    }

    /// Whether both have the same login, and both or neither use TLS.
    pub(crate) fn logs_in_like(&self, other: &Self) -> bool {
        let [one, two] = [self, other].map(|server| {
            let info = server.client.get_connection_info();
            let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
            let login = info.redis_settings();
            let words = (login.username(), login.password());
            (tls, words.0.map(str::to_owned), words.1.map(str::to_owned))
        });
        one == two
    }

    /// Connects and logs in. The server's push messages go to `subscriptions`.
    pub(crate) async fn open(
        &self,
        subscriptions: &Arc<Subscriptions>,
    ) -> Result<OpenedConnection, ConnectError> {
        self.open_for(Traffic::Commands, subscriptions).await
    }

    /// The same, for either kind of traffic.
    pub(crate) async fn open_for(
        &self,
        traffic: Traffic,
        subscriptions: &Arc<Subscriptions>,
    ) -> Result<OpenedConnection, ConnectError> {
        let closed = Arc::new(AtomicBool::new(false));
        let push = {
            let (subscriptions, closed) = (subscriptions.clone(), closed.clone());
            move |info: PushInfo| {
                match info.kind {
                    PushKind::Message | PushKind::SMessage => {
                        if let Some(Value::BulkString(channel)) = info.data.first() {
                            subscriptions.notify(channel);
                        }
                    }
                    // Unrequested: the shard has moved to another server. redis-rs takes
                    // it for the reply to the current command, so the connection must
                    // be replaced.
                    PushKind::SUnsubscribe => {
                        if let Some(Value::BulkString(channel)) = info.data.first()
                            && subscriptions.contains(channel)
                        {
                            closed.store(true, Ordering::Release);
                            subscriptions.wake();
                        }
                    }
                    PushKind::Disconnection => {
                        closed.store(true, Ordering::Release);
                        subscriptions.wake();
                    }
                    _ => {}
                }
                Ok::<(), SendError>(())
            }
        };
        // The shared connection has deadlines; those of redis-rs do not cover everything.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(MAX_QUEUED_COMMANDS)
            .set_push_sender(push);
        let raw = self.open_on_runtime(config, traffic).await?;
        let server = self.clone();
        Ok(OpenedConnection {
            server,
            connection: raw.connection,
            closed,
            activity: raw.activity,
            driver: raw.driver,
        })
    }

    /// On the store's runtime, since redis-rs spawns the task that drives the connection.
    async fn open_on_runtime(
        &self,
        config: AsyncConnectionConfig,
        traffic: Traffic,
    ) -> Result<RawConnection, ConnectError> {
        let (done, opened) = oneshot::channel();
        let (client, provider) = (self.client.clone(), self.provider.clone());
        let (tls, limit) = (self.tls.clone(), self.connect_timeout);
        let task = self.runtime.spawn(async move {
            let opened = async {
                let tls = tls.as_deref();
                match provider {
                    None => open(&client, tls, config, limit, traffic).await,
                    Some(provider) => {
                        let client = login::with_credentials(&client, &provider).await?;
                        open(&client, tls, config, limit, traffic).await
                    }
                }
            };
            let opened = timeout(limit, opened).await;
            let _ = done.send(opened.unwrap_or(Err(ConnectError::Deadline(limit))));
        });
        let opened = timeout(limit + RUNTIME_GRACE, opened).await;
        drop(task);
        opened
            .unwrap_or_else(|_| {
                // The task has a deadline of its own.
                self.runtime.adopt_current_runtime();
                Ok(Err(ConnectError::Deadline(limit)))
            })
            .unwrap_or_else(|_| {
                Err(ConnectError::NoPrimary(
                    "the runtime of the store has ended".into(),
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red when only the scheme is checked, or only the password.
    #[test]
    fn password_without_tls_is_exposed() {
        let is_exposed = |url: &str| {
            Server::parse(url, &ConnectOptions::default())
                .unwrap()
                .is_exposed()
        };
        for safe in [
            "redis://redis.internal",
            "rediss://:pw@redis.internal",
            "redis://:pw@127.0.0.9",
            "redis://:pw@[::1]:7000",
            "redis://:pw@localhost",
        ] {
            assert!(!is_exposed(safe), "{safe}");
        }
        for exposed in ["redis://:pw@redis.internal", "redis://u:pw@10.0.0.1/2"] {
            assert!(is_exposed(exposed), "{exposed}");
        }
        // Also under an address from a cluster or a sentinel.
        let local = Server::parse("redis://:pw@localhost", &ConnectOptions::default()).unwrap();
        assert!(local.at("10.0.0.2", 7000).unwrap().is_exposed());
    }
}
