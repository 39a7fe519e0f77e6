//! How connections are opened: name lookup in the crate's own threads, TCP, TLS, and
//! redis-rs over a monitored stream. It never retries.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion,
    RedisConnectionInfo, RedisResult, TlsCertificates,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connect_error::{ConnectError, invalid};
use super::monitored_stream::{Activity, MonitoredStream, Stream, Traffic};
use super::runtime::AbortOnDrop;
use crate::error::Error;
use crate::lookup;

/// How long the kernel waits for an acknowledgement before it closes a connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection, the task that drives it, and its activity.
pub(crate) struct RawConnection {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) driver: AbortOnDrop,
    pub(crate) activity: Arc<Activity>,
}

/// Connects and logs in.
pub(crate) async fn open(
    client: &Client,
    tls: Option<&TlsCertificates>,
    config: AsyncConnectionConfig,
    limit: Duration,
    traffic: Traffic,
) -> Result<RawConnection, ConnectError> {
    // tokio panics without an I/O driver.
    let opened = AssertUnwindSafe(connect(client, tls, config, traffic)).catch_unwind();
    let opened = timeout(limit, opened).await;
    let panicked = |_| Err((ErrorKind::Io, "the redis client panicked").into());
    let opened = opened.map_err(|_| ConnectError::Deadline(limit))?;
    opened.unwrap_or_else(panicked).map_err(ConnectError::Redis)
}

async fn connect(
    client: &Client,
    tls: Option<&TlsCertificates>,
    config: AsyncConnectionConfig,
    traffic: Traffic,
) -> RedisResult<RawConnection> {
    let info = client.get_connection_info();
    let stream = stream(info.addr(), tls, traffic).await?;
    let (stream, activity) = MonitoredStream::new(stream, traffic.bound());
    let login = info.redis_settings();
    let (connection, driver) =
        MultiplexedConnection::new_with_config(login, stream, config).await?;
    Ok(RawConnection {
        connection,
        driver: AbortOnDrop(tokio::spawn(driver)),
        activity,
    })
}

async fn stream(
    addr: &ConnectionAddr,
    certificates: Option<&TlsCertificates>,
    traffic: Traffic,
) -> RedisResult<Box<dyn Stream>> {
    match addr {
        ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port, traffic).await?)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let tls = TlsConnector::from(Arc::new(trust(certificates)?));
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let tcp = tcp(host, *port, traffic).await?;
            Ok(Box::new(tls.connect(name, tcp).await?))
        }
        _ => Err((
            ErrorKind::InvalidClientConfig,
            "unsupported kind of address",
        )
            .into()),
    }
}

/// Connects to the first of the host's addresses that answers.
async fn tcp(host: &str, port: u16, traffic: Traffic) -> RedisResult<TcpStream> {
    let found: Vec<SocketAddr> = lookup::addresses(host.to_owned(), port).await?.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address").into());
    }
    let opened = found
        .into_iter()
        .map(|addr| Box::pin(TcpStream::connect(addr)));
    let (stream, _) = select_ok(opened).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1));
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
    let keepalive = keepalive.with_retries(2);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive)?;
    // A slow receiver of a body might accept no bytes for a while; the sender monitors the
    // activity itself.
    #[cfg(target_os = "linux")]
    if traffic == Traffic::Commands {
        socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = traffic;
    Ok(stream)
}

/// Trusts the certificates of the store, or else the system's roots, or those that
/// `SSL_CERT_FILE` names.
fn trust(certificates: Option<&TlsCertificates>) -> io::Result<ClientConfig> {
    let given = certificates.and_then(|given| given.root_cert.as_deref());
    let trusted = match given {
        Some(given) => certificates_in(given)?,
        None => {
            let mut found = rustls_native_certs::load_native_certs();
            match found.errors.pop() {
                Some(error) => return Err(io::Error::other(error)),
                None => found.certs,
            }
        }
    };
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate).map_err(io::Error::other)?;
    }
    let trusting = ClientConfig::builder().with_root_certificates(roots);
    match certificates.and_then(|given| given.client_tls.as_ref()) {
        None => Ok(trusting.with_no_client_auth()),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(&own.client_key).map_err(io::Error::other)?;
            let own = trusting.with_client_auth_cert(certificates_in(&own.client_cert)?, key);
            own.map_err(io::Error::other)
        }
    }
}

fn certificates_in(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    read.map_err(io::Error::other)
}

pub(crate) fn client(info: ConnectionInfo) -> Result<Client, Error> {
    // Push messages on the same connection need RESP3.
    let redis: RedisConnectionInfo = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(redis)).map_err(|_| invalid("it cannot be used"))
}

/// redis-rs panics where a process has no rustls provider, or two to choose
/// from. One that the service has installed stays.
pub(crate) fn install_tls_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread might install one between these lines, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
