//! How redis-rs is made to connect: its options, its names looked up in threads of
//! the crate's own, its panics caught.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, ProtocolVersion, RedisConnectionInfo,
    RedisFuture,
};
use tokio::time::timeout;

use super::server::{DialError, invalid};
use crate::error::Error;
use crate::lookup;

/// After this long without an acknowledgement the kernel gives a connection up.
const SILENCE: Duration = Duration::from_secs(2);

pub(super) async fn dial(
    client: &Client,
    config: AsyncConnectionConfig,
    limit: Duration,
) -> Result<MultiplexedConnection, DialError> {
    let config = config.set_dns_resolver(Resolver);
    let dialled = client.get_multiplexed_async_connection_with_config(&config);
    // tokio panics for want of a driver.
    let dialled = timeout(limit, AssertUnwindSafe(dialled).catch_unwind()).await;
    let panicked = |_| Err((ErrorKind::Io, "the redis client panicked").into());
    let dialled = dialled.map_err(|_| DialError::Deadline(limit))?;
    dialled.unwrap_or_else(panicked).map_err(DialError::Redis)
}

/// Looks names up in threads of the crate's own.
struct Resolver;

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = lookup::addresses(host.to_owned(), port).await?;
            Ok(Box::new(found) as _)
        })
    }
}

pub(super) fn client(info: ConnectionInfo) -> Result<Client, Error> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1));
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
    let keepalive = keepalive.with_retries(2);
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(SILENCE);
    // Notices come on the same connection, which takes RESP3.
    let redis: RedisConnectionInfo = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_tcp_settings(tcp).set_redis_settings(redis))
        .map_err(|_| invalid("it cannot be used"))
}

/// redis-rs panics where a process has no rustls provider, or two to choose
/// from. One that the service has installed stays.
pub(super) fn install_tls_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may be first between these lines, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
