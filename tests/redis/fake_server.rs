//! Servers that no package manager has: too old, silent, or hanging up. They
//! understand no more of the protocol than the handshake takes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

#[derive(Clone)]
enum Manner {
    Says(String),
    /// The epoch, and the port of the primary.
    Sentinel(u64, u16),
    /// The epoch, and the ports of the server that has all slots and of its
    /// replicas.
    ClusterNode(u64, Vec<u16>),
    /// A node of a cluster that does not answer who it is.
    Nameless,
    KnowsNoHello,
    /// Answers, and then sends for ever what nobody has asked for.
    Gushes,
    Silent,
    HangsUp,
}

/// A fake server; it ends with the test.
pub struct Fake {
    pub port: u16,
    login: &'static str,
    manner: Arc<Mutex<Manner>>,
    dialled: Arc<AtomicUsize>,
    gushed: Arc<Gushed>,
    task: JoinHandle<()>,
}

impl Fake {
    pub async fn version(version: &str) -> Self {
        Self::start(Manner::Says(version.to_owned())).await
    }

    /// A sentinel that names this primary, as of that epoch.
    pub async fn sentinel(epoch: u64, port: u16) -> Self {
        let mut fake = Self::start(Manner::Sentinel(epoch, port)).await;
        fake.login = "";
        fake
    }

    /// A node of a cluster that draws a map of one shard, as of that epoch: its
    /// primary, and then its replicas.
    pub async fn cluster_node(epoch: u64, ports: &[u16]) -> Self {
        let mut fake = Self::start(Manner::ClusterNode(epoch, ports.to_vec())).await;
        fake.login = "";
        fake
    }

    /// A node of a cluster that does not answer who it is.
    pub async fn nameless() -> Self {
        Self::start(Manner::Nameless).await
    }

    /// Draws another map from now on.
    pub fn draw(&self, epoch: u64, ports: &[u16]) {
        *self.manner.lock().unwrap() = Manner::ClusterNode(epoch, ports.to_vec());
    }

    /// Names another primary from now on.
    pub fn name_primary(&self, epoch: u64, port: u16) {
        *self.manner.lock().unwrap() = Manner::Sentinel(epoch, port);
    }

    /// Sends without end after its next answer.
    pub fn gush(&self) {
        *self.manner.lock().unwrap() = Manner::Gushes;
    }

    /// How many bytes of that it has sent, once the connection has ended.
    pub fn gushed(&self) -> Option<usize> {
        let bytes = self.gushed.bytes.load(Ordering::SeqCst);
        self.gushed.is_over.load(Ordering::SeqCst).then_some(bytes)
    }

    /// How often it was connected to.
    pub fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }

    pub async fn without_hello() -> Self {
        Self::start(Manner::KnowsNoHello).await
    }

    pub async fn silent() -> Self {
        Self::start(Manner::Silent).await
    }

    pub async fn hanging_up() -> Self {
        Self::start(Manner::HangsUp).await
    }

    pub fn url(&self) -> String {
        format!("redis://{}127.0.0.1:{}", self.login, self.port)
    }

    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let manner = Arc::new(Mutex::new(manner));
        let dialled = Arc::new(AtomicUsize::new(0));
        let gushed = Arc::new(Gushed::default());
        let task = tokio::spawn({
            let (manner, dialled) = (manner.clone(), dialled.clone());
            let gushed = gushed.clone();
            async move {
                let mut silent = Vec::new();
                // Connections end with the server.
                let mut served = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    dialled.fetch_add(1, Ordering::SeqCst);
                    let now = manner.lock().unwrap().clone();
                    match now {
                        Manner::Silent => silent.push(stream),
                        Manner::HangsUp => drop(stream),
                        _ => drop(served.spawn(serve(stream, manner.clone(), gushed.clone()))),
                    }
                }
            }
        });
        Self {
            port,
            login: ":hunter2@",
            manner,
            dialled,
            gushed,
            task,
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, manner: Arc<Mutex<Manner>>, gushed: Arc<Gushed>) {
    let mut stream = BufReader::new(stream);
    while let Some((command, subcommand)) = command(&mut stream).await {
        let manner = manner.lock().unwrap().clone();
        if let Manner::Gushes = manner {
            return gush(stream.get_mut(), &gushed).await;
        }
        let reply = match (&manner, command.as_str()) {
            (Manner::Sentinel(..), "HELLO") => "%1\r\n$4\r\nmode\r\n$8\r\nsentinel\r\n".into(),
            (Manner::Nameless, "CLUSTER") if subcommand == "MYID" => String::new(),
            (Manner::ClusterNode(..) | Manner::Nameless, "HELLO") => {
                "%1\r\n$4\r\nmode\r\n$7\r\ncluster\r\n".into()
            }
            (Manner::ClusterNode(epoch, _), "CLUSTER") if subcommand == "INFO" => bulk(&format!(
                "cluster_state:ok\r\ncluster_current_epoch:{epoch}\r\n"
            )),
            (Manner::ClusterNode(_, ports), "CLUSTER") if subcommand == "SLOTS" => {
                let server = |port: &u16| {
                    let id = bulk(&format!("id-of-{port}"));
                    format!("*3\r\n{}:{port}\r\n{id}", bulk("127.0.0.1"))
                };
                let servers: String = ports.iter().map(server).collect();
                let count = ports.len() + 2;
                format!("*1\r\n*{count}\r\n:0\r\n:16383\r\n{servers}")
            }
            (Manner::Sentinel(epoch, _), "SENTINEL") if subcommand == "MASTER" => {
                format!("%1\r\n$12\r\nconfig-epoch\r\n$1\r\n{epoch}\r\n")
            }
            (Manner::Sentinel(_, port), "SENTINEL") => {
                let port = port.to_string();
                format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
            }
            // Of no script is a command missing.
            (Manner::Says(_), "EVALSHA") => "*0\r\n".into(),
            (Manner::Says(version), "HELLO") => format!(
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
struct Gushed {
    bytes: AtomicUsize,
    is_over: AtomicBool,
}

/// To a look: there is no record. And then a string that never ends.
async fn gush(stream: &mut TcpStream, gushed: &Gushed) {
    let answer = b"*2\r\n_\r\n:-2\r\n$1000000000000\r\n";
    let mut sent = stream.write_all(answer).await;
    while sent.is_ok() {
        gushed.bytes.fetch_add(1 << 16, Ordering::SeqCst);
        sent = stream.write_all(&[b'a'; 1 << 16]).await;
    }
    gushed.is_over.store(true, Ordering::SeqCst);
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
