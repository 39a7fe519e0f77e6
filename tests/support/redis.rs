//! A real `redis-server` for one test: on a free port, in its own folder, killed and awaited
//! when the guard is dropped. `REDIS_SERVER` names another binary (for example Valkey).

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take to answer its first `PING`.
const START: Duration = Duration::from_secs(10);

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    args: Vec<String>,
    password: Option<String>,
    certificate: Option<Certificate>,
    role: Role,
}

/// The role of the process among others.
#[derive(Clone, Debug, Default)]
enum Role {
    #[default]
    Alone,
    ClusterNode,
    /// With the configuration lines of the primary that it watches.
    Sentinel(Vec<String>),
}

/// A self-signed certificate for loopback.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub pem: String,
    pub key_pem: String,
}

impl Certificate {
    pub fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Self {
            pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        }
    }
}

impl Options {
    /// Any line of `redis.conf`.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.args.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// Makes a command known only by another name.
    pub fn rename(mut self, command: &str, to: &str) -> Self {
        let words = ["--rename-command", command, to];
        self.args.extend(words.map(str::to_owned));
        self
    }

    pub fn append_only(self) -> Self {
        self.set("appendonly", "yes").set("appendfsync", "always")
    }

    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.set("requirepass", password)
    }

    /// A copy of another server, which must be running.
    pub fn replica_of(mut self, primary: &RedisServer) -> Self {
        let port = primary.port.to_string();
        self.args
            .extend(["--replicaof", "127.0.0.1", &port].map(str::to_owned));
        self
    }

    /// TLS only, without a plain port.
    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.certificate = Some(certificate.clone());
        self
    }

    /// A node of a cluster, which does not know the other nodes yet.
    pub fn cluster_node(mut self) -> Self {
        self.role = Role::ClusterNode;
        self
    }

    /// A sentinel, with the configuration lines of the primary that it watches. It stores
    /// these lines, and what it learns, in its own file.
    pub fn sentinel(mut self, lines: Vec<String>) -> Self {
        self.role = Role::Sentinel(lines);
        self
    }

    pub fn start(self) -> RedisServer {
        // Another process might take the port before it is used.
        for _ in 0..5 {
            let port = free_port();
            let mut server = RedisServer {
                child: None,
                paused: AtomicBool::new(false),
                port,
                bus_port: free_port(),
                folder: folder(),
                options: self.clone(),
            };
            if server.spawn() {
                return server;
            }
        }
        panic!("redis-server found no free port");
    }
}

/// A running server; dropping the guard kills it.
#[derive(Debug)]
pub struct RedisServer {
    child: Option<Child>,
    paused: AtomicBool,
    pub port: u16,
    /// The port on which the nodes of a cluster connect to each other.
    pub bus_port: u16,
    pub folder: PathBuf,
    options: Options,
}

impl RedisServer {
    /// Without persistence, password or TLS.
    pub fn start() -> Self {
        Options::default().start()
    }

    /// The server's URL, with the password if there is one.
    pub fn url(&self) -> String {
        let scheme = match self.options.certificate {
            Some(_) => "rediss",
            None => "redis",
        };
        let user = match &self.options.password {
            Some(password) => format!(":{password}@"),
            None => String::new(),
        };
        format!("{scheme}://{user}127.0.0.1:{}", self.port)
    }

    /// Whether the process exists and is not stopped.
    pub fn is_running(&self) -> bool {
        self.child.is_some() && !self.paused.load(Ordering::Relaxed)
    }

    /// Kills the server, like a crash.
    pub fn kill(&mut self) {
        self.paused.store(false, Ordering::Relaxed);
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts the server again, on the same port and in the same folder.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + START;
        // The port might stay in use for a moment.
        while !self.spawn() {
            assert!(Instant::now() < deadline, "{}", self.log());
            sleep(Duration::from_millis(50));
        }
    }

    /// Stops the process without closing anything, like an overloaded machine.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
        self.paused.store(false, Ordering::Relaxed);
    }

    /// One command on a separate connection.
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub fn try_command<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(START)?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection)
    }

    /// The number of replicas that follow this server and have confirmed everything so far.
    pub fn replicas_in_step(&self) -> usize {
        let info: String = self.command(&["INFO", "replication"]);
        let offset = info
            .lines()
            .find_map(|line| line.strip_prefix("master_repl_offset:"));
        let in_step = format!("state=online,offset={},", offset.unwrap().trim());
        info.matches(&in_step).count()
    }

    /// How many clients wait in `WAIT` or a similar command.
    pub fn blocked_clients(&self) -> u32 {
        let info: String = self.command(&["INFO", "clients"]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("blocked_clients:"));
        line.unwrap().trim().parse().unwrap()
    }

    /// How often each command was called since `CONFIG RESETSTAT`, sorted by name, without
    /// this guard's own commands.
    pub fn calls(&self) -> Vec<(String, u64)> {
        let info: String = self.command(&["INFO", "commandstats"]);
        let mut calls: Vec<_> = info
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
            .map(|(name, rest)| {
                (
                    name.to_owned(),
                    rest.split(',').next().unwrap().parse().unwrap(),
                )
            })
            .filter(|(name, _)| !["info", "config|resetstat", "client|setinfo"].contains(&&**name))
            .collect();
        calls.sort();
        calls
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts the process; `false` if the port was taken.
    fn spawn(&mut self) -> bool {
        let binary = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let mut command = Command::new(&binary);
        let (plain, tls) = match self.options.certificate {
            Some(_) => (0, self.port),
            None => (self.port, 0),
        };
        match &self.options.role {
            Role::Sentinel(lines) => {
                let file = self.folder.join("sentinel.conf");
                // The sentinel rewrites this file itself.
                if !file.exists() {
                    fs::write(&file, lines.join("\n")).unwrap();
                }
                command.arg(&file).arg("--sentinel");
            }
            Role::ClusterNode => {
                let bus = self.bus_port.to_string();
                command.args([
                    "--save",
                    "",
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    &bus,
                ]);
            }
            Role::Alone => {
                command.args(["--save", ""]);
            }
        }
        command.args(["--bind", "127.0.0.1", "--loglevel", "notice"]);
        command.args(["--port", &plain.to_string(), "--tls-port", &tls.to_string()]);
        command.arg("--dir").arg(&self.folder);
        command.arg("--logfile").arg(self.folder.join("log"));
        if let Some(certificate) = &self.options.certificate {
            let [cert, key] = ["cert.pem", "key.pem"].map(|name| self.folder.join(name));
            fs::write(&cert, &certificate.pem).unwrap();
            fs::write(&key, &certificate.key_pem).unwrap();
            command.arg("--tls-cert-file").arg(&cert);
            command.arg("--tls-ca-cert-file").arg(&cert);
            command.arg("--tls-key-file").arg(&key);
            command.args(["--tls-auth-clients", "no"]);
        }
        command.args(&self.options.args);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("{binary}: {error}; install it with: apt-get install redis-server")
        }));
        self.is_up()
    }

    fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + START;
        loop {
            let child = self.child.as_mut().unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                let log = self.log();
                assert!(log.contains("Address already in use"), "{status}: {log}");
                return false;
            }
            if self.answers() {
                return true;
            }
            assert!(Instant::now() < deadline, "no answer: {}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        if self.options.certificate.is_some() {
            return true;
        }
        let mut answer = [0; 7];
        stream.set_read_timeout(Some(START)).unwrap();
        stream.write_all(b"PING\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && (answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process might have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> u16 {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    free.local_addr().unwrap().port()
}

fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("genesys-once-redis-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}
