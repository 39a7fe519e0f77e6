//! A TCP server that runs a test's script for each connection and records the requests. All
//! it knows of HTTP is where a request ends.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Listens on loopback until dropped. A script that panics fails the test.
pub struct Server {
    address: SocketAddr,
    seen: Arc<Received>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Received {
    connections: AtomicUsize,
    running: watch::Sender<usize>,
    requests: Mutex<Vec<String>>,
    panicked: AtomicBool,
}

impl Server {
    /// Runs `script` for each connection.
    pub async fn start<F, Done>(script: F) -> Self
    where
        F: Fn(Connection<TcpStream>) -> Done + Send + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self::serve(listener, script)
    }

    /// As `start`, with small socket buffers.
    pub async fn narrow<F, Done>(script: F) -> Self
    where
        F: Fn(Connection<TcpStream>) -> Done + Send + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self::serve(socket.listen(64).unwrap(), script)
    }

    fn serve<F, Done>(listener: TcpListener, script: F) -> Self
    where
        F: Fn(Connection<TcpStream>) -> Done + Send + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Received::default());
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                log.connections.fetch_add(1, Ordering::SeqCst);
                let connection = Connection {
                    stream,
                    seen: Arc::clone(&log),
                };
                log.running.send_modify(|running| *running += 1);
                let guard = Guard(Arc::clone(&log));
                let script = script(connection);
                running.spawn(async move {
                    let _guard = guard;
                    script.await;
                });
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    /// Answers every request on every connection with these bytes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut connection| {
            let answer = Arc::clone(&answer);
            async move {
                while connection.request().await.is_some() {
                    connection.write(&answer).await;
                }
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn https_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits until no script runs.
    pub async fn idle(&self) {
        let mut running = self.seen.running.subscribe();
        let _ = running.wait_for(|running| *running == 0).await;
    }

    /// The whole requests so far: head and body as they arrived.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            assert!(
                !self.seen.panicked.load(Ordering::SeqCst),
                "a script panicked"
            );
        }
    }
}

struct Guard(Arc<Received>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.store(true, Ordering::SeqCst);
        }
        self.0.running.send_modify(|running| *running -= 1);
    }
}

/// One accepted connection, plain or under TLS.
pub struct Connection<S> {
    stream: S,
    seen: Arc<Received>,
}

impl Connection<TcpStream> {
    /// Makes the close at the end of the script a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// The same connection with another stream on top of it.
    pub async fn upgrade<T, Done>(
        self,
        upgrade: impl FnOnce(TcpStream) -> Done,
    ) -> std::io::Result<Connection<T>>
    where
        Done: Future<Output = std::io::Result<T>>,
    {
        Ok(Connection {
            stream: upgrade(self.stream).await?,
            seen: self.seen,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads and records one whole request; `None` if the connection ends before or within
    /// it.
    pub async fn request(&mut self) -> Option<String> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(self.stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(text.clone()).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let start = text.len();
        text.resize(start + length, 0);
        self.stream.read_exact(&mut text[start..]).await.ok()?;
        let text = String::from_utf8(text).unwrap();
        self.seen.requests.lock().unwrap().push(text.clone());
        Some(text)
    }

    /// Reads this many bytes, whatever they are.
    pub async fn skip(&mut self, bytes: usize) {
        let mut buffer = vec![0; bytes];
        self.stream.read_exact(&mut buffer).await.unwrap();
    }

    /// Writes; `false` if the client has left.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Waits until the client closes the connection.
    pub async fn until_closed(&mut self) {
        let mut rest = [0; 1024];
        while matches!(self.stream.read(&mut rest).await, Ok(1..)) {}
    }

    /// Ends the connection normally.
    pub async fn close(mut self) {
        self.end().await;
    }

    /// Closes the sending half; the connection can still read.
    pub async fn end(&mut self) {
        let _ = self.stream.shutdown().await;
    }
}

/// An answer with this status line and body.
pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}
