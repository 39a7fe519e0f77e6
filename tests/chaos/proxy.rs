//! A TCP proxy that fails on demand: late bytes, lost bytes, resets and half-closed
//! connections. It never invents a byte, and never changes the order of bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Chunks in transit in one direction; beyond that the sender waits.
const ROOM: usize = 256;
/// Connections served at one time.
const MAX_CONNECTIONS: usize = 256;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the worker: commands and requests.
    Out,
    /// To the worker: replies and answers.
    Back,
}

/// How bytes are passed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// Each byte is this late.
    pub delay: Duration,
    /// The proxy accepts bytes and delivers them when the silence ends: what a worker sent
    /// arrives after the worker has given up, connected again or died.
    pub hold_out: bool,
    pub hold_back: bool,
}

impl Mode {
    fn holds(&self, way: Way) -> bool {
        match way {
            Way::Out => self.hold_out,
            Way::Back => self.hold_back,
        }
    }
}

/// A fault that hits every open connection at once.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Reset,
    /// No further byte goes this way, and the receiver sees the end of the stream.
    Shut(Way),
}

/// A proxy on a free port of loopback. Dropping it closes all connections.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    blows: broadcast::Sender<Blow>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = watch::Sender::new(Mode::default());
        let blows = broadcast::Sender::new(16);
        let line = Arc::new(Line {
            target,
            mode: mode.subscribe(),
            blows: blows.clone(),
        });
        let accepting = tokio::spawn(accept(listener, line));
        Self {
            address,
            mode,
            blows,
            accepting,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Resets every connection.
    pub fn reset(&self) {
        let _ = self.blows.send(Blow::Reset);
    }

    /// Closes one half of every connection.
    pub fn shut(&self, way: Way) {
        let _ = self.blows.send(Blow::Shut(way));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What every connection needs to know.
struct Line {
    target: SocketAddr,
    mode: watch::Receiver<Mode>,
    blows: broadcast::Sender<Blow>,
}

async fn accept(listener: TcpListener, line: Arc<Line>) {
    // All connections end when this task ends.
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        // A held connection outlives its client. There are never this many connections
        // unless a client connects without end.
        assert!(connections.len() < MAX_CONNECTIONS, "too many connections");
        let line = line.clone();
        let blows = line.blows.subscribe();
        connections.spawn(async move { connection(client, &line, blows).await });
    }
}

async fn connection(mut client: TcpStream, line: &Line, mut blows: broadcast::Receiver<Blow>) {
    let Ok(mut server) = TcpStream::connect(line.target).await else {
        return; // like a closed port: the client sees its connection end
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let was_reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let out = carry(Way::Out, from_client, to_server, line);
        let back = carry(Way::Back, from_server, to_client, line);
        let both = async { tokio::join!(out, back) };
        let reset = async {
            loop {
                match blows.recv().await {
                    Ok(Blow::Reset) | Err(_) => return,
                    Ok(Blow::Shut(_)) => {}
                }
            }
        };
        tokio::select! {
            _ = both => false,
            () = reset => true,
        }
    };
    if was_reset {
        for stream in [&client, &server] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Forwards bytes one way until the sender ends or a fault closes it.
async fn carry(
    way: Way,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    line: &Line,
) {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(ROOM);
    let mut blows = line.blows.subscribe();
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        // An error ends the stream, too: the bytes before it are still delivered.
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let chunk = (Instant::now(), buffer[..length].to_vec());
            if queue.send(chunk).await.is_err() {
                return;
            }
        }
    };
    let mut mode = line.mode.clone();
    let write = async {
        while let Some((came, chunk)) = queued.recv().await {
            let now = *mode.borrow();
            sleep_until(came + now.delay).await;
            if mode.wait_for(|mode| !mode.holds(way)).await.is_err() {
                return;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    let shut = async {
        loop {
            match blows.recv().await {
                Ok(Blow::Shut(which)) if which == way => return,
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        _ = async { tokio::join!(read, write) } => {}
        () = shut => {}
    }
    let _ = to.shutdown().await;
}
