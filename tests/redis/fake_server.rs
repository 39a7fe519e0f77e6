//! Fake servers: too old, silent, or closing their connections. They know only the
//! commands of the handshake.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

#[derive(Clone)]
enum Behavior {
    Version(String),
    /// The epoch, and the port of the primary.
    Sentinel(u64, u16),
    /// The epoch, and the ports of the server that has all slots and of its
    /// replicas.
    ClusterNode(u64, Vec<u16>),
    /// A node of a cluster that does not answer `CLUSTER MYID`.
    WithoutId,
    WithoutHello,
    /// Answers, and then sends unrequested bytes without end.
    Floods,
    Silent,
    ClosesConnections,
}

/// A fake server; it ends with the test.
pub struct FakeServer {
    pub port: u16,
    login: &'static str,
    behavior: Arc<Mutex<Behavior>>,
    accepted: Arc<AtomicUsize>,
    flooded: Arc<Flooded>,
    task: JoinHandle<()>,
}

impl FakeServer {
    pub async fn version(version: &str) -> Self {
        Self::start(Behavior::Version(version.to_owned())).await
    }

    /// A sentinel that names this primary in that epoch.
    pub async fn sentinel(epoch: u64, port: u16) -> Self {
        let mut fake = Self::start(Behavior::Sentinel(epoch, port)).await;
        fake.login = "";
        fake
    }

    /// A node of a cluster with a map of one shard in that epoch: its primary, and then
    /// its replicas.
    pub async fn cluster_node(epoch: u64, ports: &[u16]) -> Self {
        let mut fake = Self::start(Behavior::ClusterNode(epoch, ports.to_vec())).await;
        fake.login = "";
        fake
    }

    /// A node of a cluster that does not answer `CLUSTER MYID`.
    pub async fn without_id() -> Self {
        Self::start(Behavior::WithoutId).await
    }

    /// Returns another map from now on.
    pub fn set_map(&self, epoch: u64, ports: &[u16]) {
        *self.behavior.lock().unwrap() = Behavior::ClusterNode(epoch, ports.to_vec());
    }

    /// Names another primary from now on.
    pub fn name_primary(&self, epoch: u64, port: u16) {
        *self.behavior.lock().unwrap() = Behavior::Sentinel(epoch, port);
    }

    /// Sends unrequested bytes without end after its next answer.
    pub fn flood(&self) {
        *self.behavior.lock().unwrap() = Behavior::Floods;
    }

    /// How many of these bytes it has sent, once the connection has ended.
    pub fn flooded(&self) -> Option<usize> {
        let bytes = self.flooded.bytes.load(Ordering::SeqCst);
        self.flooded.is_over.load(Ordering::SeqCst).then_some(bytes)
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub async fn without_hello() -> Self {
        Self::start(Behavior::WithoutHello).await
    }

    pub async fn silent() -> Self {
        Self::start(Behavior::Silent).await
    }

    pub async fn closing_connections() -> Self {
        Self::start(Behavior::ClosesConnections).await
    }

    pub fn url(&self) -> String {
        format!("redis://{}127.0.0.1:{}", self.login, self.port)
    }

    async fn start(behavior: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behavior = Arc::new(Mutex::new(behavior));
        let accepted = Arc::new(AtomicUsize::new(0));
        let flooded = Arc::new(Flooded::default());
        let task = tokio::spawn({
            let (behavior, accepted) = (behavior.clone(), accepted.clone());
            let flooded = flooded.clone();
            async move {
                let mut silent = Vec::new();
                // Connections end with the server.
                let mut served = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    accepted.fetch_add(1, Ordering::SeqCst);
                    let now = behavior.lock().unwrap().clone();
                    match now {
                        Behavior::Silent => silent.push(stream),
                        Behavior::ClosesConnections => drop(stream),
                        _ => drop(served.spawn(serve(stream, behavior.clone(), flooded.clone()))),
                    }
                }
            }
        });
        Self {
            port,
            login: ":hunter2@",
            behavior,
            accepted,
            flooded,
            task,
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, behavior: Arc<Mutex<Behavior>>, flooded: Arc<Flooded>) {
    let mut stream = BufReader::new(stream);
    while let Some((command, subcommand)) = command(&mut stream).await {
        let behavior = behavior.lock().unwrap().clone();
        if let Behavior::Floods = behavior {
            return flood(stream.get_mut(), &flooded).await;
        }
        let reply = match (&behavior, command.as_str()) {
            (Behavior::Sentinel(..), "HELLO") => "%1\r\n$4\r\nmode\r\n$8\r\nsentinel\r\n".into(),
            (Behavior::WithoutId, "CLUSTER") if subcommand == "MYID" => String::new(),
            (Behavior::ClusterNode(..) | Behavior::WithoutId, "HELLO") => {
                "%1\r\n$4\r\nmode\r\n$7\r\ncluster\r\n".into()
            }
            (Behavior::ClusterNode(epoch, _), "CLUSTER") if subcommand == "INFO" => bulk(&format!(
                "cluster_state:ok\r\ncluster_current_epoch:{epoch}\r\n"
            )),
            (Behavior::ClusterNode(_, ports), "CLUSTER") if subcommand == "SLOTS" => {
                let server = |port: &u16| {
                    let id = bulk(&format!("id-of-{port}"));
                    format!("*3\r\n{}:{port}\r\n{id}", bulk("127.0.0.1"))
                };
                let servers: String = ports.iter().map(server).collect();
                let count = ports.len() + 2;
                format!("*1\r\n*{count}\r\n:0\r\n:16383\r\n{servers}")
            }
            (Behavior::Sentinel(epoch, _), "SENTINEL") if subcommand == "MASTER" => {
                format!("%1\r\n$12\r\nconfig-epoch\r\n$1\r\n{epoch}\r\n")
            }
            (Behavior::Sentinel(_, port), "SENTINEL") => {
                let port = port.to_string();
                format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
            }
            // The user may run all commands.
            (Behavior::Version(_), "EVALSHA") => "*0\r\n".into(),
            (Behavior::Version(version), "HELLO") => format!(
                "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n${}\r\n{version}\r\n$5\r\nproto\r\n:3\r\n",
                version.len()
            ),
            (_, unknown) => {
                format!("-ERR unknown command `{unknown}`, with args beginning with: \r\n")
            }
        };
        if stream.get_mut().write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[derive(Default)]
struct Flooded {
    bytes: AtomicUsize,
    is_over: AtomicBool,
}

/// Answers a look with no record, and then sends a string without end.
async fn flood(stream: &mut TcpStream, flooded: &Flooded) {
    let answer = b"*2\r\n_\r\n:-2\r\n$1000000000000\r\n";
    let mut sent = stream.write_all(answer).await;
    while sent.is_ok() {
        flooded.bytes.fetch_add(1 << 16, Ordering::SeqCst);
        sent = stream.write_all(&[b'a'; 1 << 16]).await;
    }
    flooded.is_over.store(true, Ordering::SeqCst);
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// The first two words of the next command: `*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n`.
async fn command(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut words = Vec::new();
    for _ in 0..number(stream, '*').await? {
        let mut word = vec![0; number(stream, '$').await? + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word).ok()?);
    }
    let mut words = words.into_iter();
    Some((words.next()?, words.next().unwrap_or_default()))
}

async fn number(stream: &mut BufReader<TcpStream>, mark: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(mark)?.parse().ok()
}
