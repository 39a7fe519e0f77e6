//! The listening port and its tasks: it accepts and refuses connections, and closes them all
//! at its end. It knows no route.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::routes::Platform;
use super::socket::{ResetSwitch, Socket};
use crate::testing::ledger::lock;

/// Connections served at one time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// The number of connections that may wait there.
const BACKLOG: i32 = 1024;

pub(super) struct Server {
    address: SocketAddr,
    acceptor: Acceptor,
    door: tokio::sync::Mutex<Door>,
}

enum Door {
    Open(Accepting),
    /// The port is bound without a listener: the kernel refuses connections, and gives the
    /// port to no other socket.
    Shut(socket2::Socket),
    /// Between the two, for the time of one call.
    Moving,
}

/// The task that accepts; a drop aborts it.
struct Accepting(JoinHandle<()>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What accepting needs, and what every connection gets.
#[derive(Clone)]
struct Acceptor {
    platform: Arc<Platform>,
    /// Dropped by the last of server and accepting task, which ends them all.
    connections: Arc<Mutex<JoinSet<()>>>,
    room: Arc<Semaphore>,
    load: watch::Sender<Load>,
    /// Raised to close the present connections.
    closing: watch::Sender<usize>,
}

/// Connections that are open, and those of them with a request under way.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    open: usize,
    busy: usize,
}

impl Server {
    pub(super) fn start(platform: Arc<Platform>) -> io::Result<Self> {
        let socket = bind(0)?;
        let acceptor = Acceptor {
            platform,
            connections: Arc::default(),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            load: watch::Sender::default(),
            closing: watch::Sender::default(),
        };
        let listener = listen(socket)?;
        let address = listener.local_addr()?;
        let door = tokio::sync::Mutex::new(Door::Open(acceptor.clone().spawn(listener)));
        Ok(Self {
            address,
            acceptor,
            door,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the door, or opens it again; each may be repeated.
    pub(super) async fn refuse(&self, refuse: bool) -> io::Result<()> {
        let mut door = self.door.lock().await;
        *door = match (std::mem::replace(&mut *door, Door::Moving), refuse) {
            (Door::Open(accepting), true) => {
                end(accepting).await;
                let reserved = bind(self.address.port())?;
                self.close_idle().await;
                Door::Shut(reserved)
            }
            (Door::Shut(reserved), false) => {
                Door::Open(self.acceptor.clone().spawn(listen(reserved)?))
            }
            // An earlier call was dropped halfway: the port is closed.
            (Door::Moving, true) => Door::Shut(bind(self.address.port())?),
            (Door::Moving, false) => {
                let listener = listen(bind(self.address.port())?)?;
                Door::Open(self.acceptor.clone().spawn(listener))
            }
            (same, _) => same,
        };
        Ok(())
    }

    pub(super) async fn stop(&self) {
        let mut door = self.door.lock().await;
        if let Door::Open(accepting) = std::mem::replace(&mut *door, Door::Moving) {
            end(accepting).await;
        }
        let mut connections = std::mem::take(&mut *lock(&self.acceptor.connections));
        connections.shutdown().await;
    }

    /// Closes connections that carry no request, and returns when they are
    /// closed; the others close after their answer.
    async fn close_idle(&self) {
        self.acceptor.closing.send_modify(|round| *round += 1);
        let mut load = self.acceptor.load.subscribe();
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = load.wait_for(|load| load.open <= load.busy).await;
    }
}

/// Ends the task and waits for it: its listener is closed then.
async fn end(mut accepting: Accepting) {
    accepting.0.abort();
    // Only ever the cancellation that was just asked for.
    let _ = (&mut accepting.0).await;
}

fn bind(port: u16) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Connections of a moment ago linger in TIME_WAIT and would hold the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

fn listen(socket: socket2::Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Acceptor {
    fn spawn(self, listener: TcpListener) -> Accepting {
        Accepting(tokio::spawn(self.accept(listener)))
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            let Ok(room) = self.room.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of file descriptors, or the client is gone already.
                    // The first would make this a busy loop.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let open = Counted::new(&self.load, |load| &mut load.open);
            let connection = serve(
                stream,
                self.platform.clone(),
                self.load.clone(),
                self.closing.subscribe(),
            );
            let mut connections = lock(&self.connections);
            // Removes ended tasks: a set keeps their results until they are taken.
            while connections.try_join_next().is_some() {}
            connections.spawn(async move {
                connection.await;
                drop((open, room));
            });
        }
    }
}

async fn serve(
    stream: TcpStream,
    platform: Arc<Platform>,
    load: watch::Sender<Load>,
    mut closing: watch::Receiver<usize>,
) {
    let reset = ResetSwitch::default();
    let socket = TokioIo::new(Socket::new(stream, reset.clone()));
    let service = service_fn(|request| {
        let busy = Counted::new(&load, |load| &mut load.busy);
        let answering = platform.answer(request);
        let reset = &reset;
        async move {
            let answer = answering.await;
            drop(busy);
            answer.ok_or_else(|| {
                reset.throw();
                // hyper ends a connection whose service fails, without a word.
                io::Error::from(io::ErrorKind::ConnectionReset)
            })
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(socket, service);
    tokio::pin!(connection);
    // The script or the client ended the connection: its result is not an error.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// One more of something for as long as this lives.
struct Counted {
    load: watch::Sender<Load>,
    field: fn(&mut Load) -> &mut usize,
}

impl Counted {
    fn new(load: &watch::Sender<Load>, field: fn(&mut Load) -> &mut usize) -> Self {
        load.send_modify(|load| *field(load) += 1);
        Self {
            load: load.clone(),
            field,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.send_modify(|load| *(self.field)(load) -= 1);
    }
}
