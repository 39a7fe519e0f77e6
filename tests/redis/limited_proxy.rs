//! A proxy with limits between store and server: connections that stop after this many bytes
//! from the server, are slow, or are cut after this many bytes to the server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

struct Limits {
    /// How many bytes a connection delivers from the server before it stops.
    bring: watch::Sender<usize>,
    /// How many bytes a connection accepts for the server before it is cut.
    take: AtomicUsize,
    /// The pause after each 16 KiB, in milliseconds.
    pause: AtomicUsize,
    stopped: AtomicUsize,
    cut: AtomicUsize,
    server: u16,
    lost: Mutex<Option<String>>,
}

impl Limits {
    /// Removes the key that should be absent, before a script runs.
    async fn lose(&self, piece: &[u8]) {
        const SCRIPT: &[u8] = b"EVALSHA";
        let lost = self.lost.lock().unwrap().clone();
        let Some(key) = lost.filter(|_| piece.windows(SCRIPT.len()).any(|at| at == SCRIPT)) else {
            return;
        };
        let mut server = TcpStream::connect(("127.0.0.1", self.server))
            .await
            .unwrap();
        let command = format!("DEL {key}\r\n");
        server.write_all(command.as_bytes()).await.unwrap();
        // The reply is `:0` or `:1`: the key is gone.
        server.read_exact(&mut [0; 4]).await.unwrap();
    }

    async fn pace(&self, bytes: usize) {
        let pause = self.pause.load(Ordering::SeqCst) * bytes / (16 << 10);
        if pause > 0 {
            sleep(Duration::from_millis(pause as u64)).await;
        }
    }
}

/// The proxy; it ends with the test.
pub struct Narrow {
    port: u16,
    limits: Arc<Limits>,
    task: JoinHandle<()>,
}

impl Narrow {
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let limits = Arc::new(Limits {
            bring: watch::Sender::new(usize::MAX),
            take: AtomicUsize::new(usize::MAX),
            pause: AtomicUsize::new(0),
            stopped: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            server,
            lost: Mutex::new(None),
        });
        let task = tokio::spawn({
            let limits = limits.clone();
            async move {
                let mut ways = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                        continue;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let limits = limits.clone();
                    ways.spawn(async move {
                        tokio::select! {
                            () = bring(from_server, to_client, &limits) => {}
                            () = take(from_client, to_server, &limits) => {}
                        }
                    });
                }
            }
        });
        Self { port, limits, task }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Each connection stops once it has delivered this many bytes.
    pub fn bring_at_most(&self, bytes: usize) {
        self.limits.bring.send_replace(bytes);
    }

    /// Each connection is cut once it has accepted more than this many bytes.
    pub fn cut_after(&self, bytes: usize) {
        self.limits.take.store(bytes, Ordering::SeqCst);
    }

    /// Each 16 KiB takes this long, in either direction.
    pub fn slow_down(&self, pause: Duration) {
        let pause = pause.as_millis() as usize;
        self.limits.pause.store(pause, Ordering::SeqCst);
    }

    /// Removes this key each time a script is about to run.
    pub fn lose(&self, key: Option<&str>) {
        *self.limits.lost.lock().unwrap() = key.map(str::to_owned);
    }

    /// How many connections have stopped.
    pub fn stopped(&self) -> usize {
        self.limits.stopped.load(Ordering::SeqCst)
    }

    /// How many connections were cut.
    pub fn cut(&self) -> usize {
        self.limits.cut.load(Ordering::SeqCst)
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bring(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, limits: &Limits) {
    let (mut most, mut brought, mut buffer) = (limits.bring.subscribe(), 0, vec![0; 16 << 10]);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        brought += count;
        if brought > *most.borrow() {
            limits.stopped.fetch_add(1, Ordering::SeqCst);
            if most.wait_for(|most| brought <= *most).await.is_err() {
                return;
            }
        }
        limits.pace(count).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn take(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, limits: &Limits) {
    let (mut taken, mut buffer) = (0, vec![0; 16 << 10]);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        taken += count;
        if taken > limits.take.load(Ordering::SeqCst) {
            limits.cut.fetch_add(1, Ordering::SeqCst);
            return;
        }
        limits.lose(&buffer[..count]).await;
        limits.pace(count).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
