//! Accepts connections, with bounds on their number and on how long each may be idle. It
//! knows HTTP/1.1 and no route.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutWriter;

/// How large a request's head may be, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// How long to wait after the system failed to give a connection, most often for lack of
/// file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections wait to be accepted, if the system allows as many. If the queue is
/// full, the system drops connections silently, and resets some of them later.
const BACKLOG: u32 = 4096;

/// Binds an address and listens on it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart does not wait for the connections of the previous process.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The bounds of a server.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Connections at once; others wait to be accepted.
    pub connections: usize,
    /// How long a connection may take for the head of its next request, and how long a
    /// client may accept no byte of its answer.
    pub idle: Duration,
}

/// A server at work.
pub struct Server {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    pub fn start(listener: TcpListener, router: Router, limits: Limits) -> Self {
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(serve(listener, router, limits, stopping));
        Self { stop, task }
    }

    /// Accepts no connection from now on, and ends those that are idle.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether all clients have read their answers within `limit` of the stop.
    pub async fn ended(self, limit: Duration) -> bool {
        timeout(limit, self.task).await.is_ok()
    }
}

async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let open = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(MAX_HEAD);
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let stopped = async {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let (place, accepted) = tokio::select! {
            () = stopped => break,
            next = next => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Otherwise an answer might wait 40 ms for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(limits.idle));
        let io = TokioIo::new(Box::pin(stream));
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(http.serve_connection(io, service));
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    open.shutdown().await;
}
