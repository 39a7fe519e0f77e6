//! A real Sentinel set-up for one test: a primary, two replicas and three sentinels that
//! watch them, in processes that the guard kills. It knows no store.

use std::collections::HashMap;
use std::time::Duration;

use super::eventually_within;
use super::redis::{Options, RedisServer};

/// Data servers; one of them is the primary.
const SERVERS: usize = 3;

/// Sentinels; two of them must agree on a fail-over.
const SENTINELS: usize = 3;

/// A server without an answer for this long counts as down, in milliseconds.
const DOWN_AFTER: &str = "1000";

/// How long a fail-over or a new attempt at one may take, in milliseconds.
const FAILOVER: &str = "5000";

/// How long sentinels and servers may take to find each other on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name that the sentinels know the primary by.
pub const PRIMARY: &str = "orders";

/// Running servers and sentinels; dropping the guard kills them all.
#[derive(Debug)]
pub struct RedisSentinel {
    /// At first the primary is 0. Kill, pause, resume and restart servers and sentinels
    /// like any server.
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl RedisSentinel {
    /// Without persistence or passwords.
    pub async fn start() -> Self {
        Self::start_with(Options::default(), Options::default(), &[]).await
    }

    /// With further options for the data servers and for the sentinels, and further
    /// settings of the sentinels for the primary (for example `auth-pass`).
    pub async fn start_with(data: Options, sentinel: Options, settings: &[(&str, &str)]) -> Self {
        let data = data.set("repl-diskless-sync-delay", "0");
        let primary = data.clone().start();
        let mut guard = Self {
            servers: vec![primary],
            sentinels: Vec::new(),
        };
        let port = guard.servers[0].port.to_string();
        for _ in 1..SERVERS {
            let replica = data.clone().replica_of(&guard.servers[0]).start();
            guard.servers.push(replica);
        }
        let mut lines = vec![
            format!("sentinel monitor {PRIMARY} 127.0.0.1 {port} 2"),
            format!("sentinel down-after-milliseconds {PRIMARY} {DOWN_AFTER}"),
            format!("sentinel failover-timeout {PRIMARY} {FAILOVER}"),
        ];
        let setting = |(name, value): &(&str, &str)| format!("sentinel {name} {PRIMARY} {value}");
        lines.extend(settings.iter().map(setting));
        for _ in 0..SENTINELS {
            let sentinel = sentinel.clone().sentinel(lines.clone()).start();
            guard.sentinels.push(sentinel);
        }
        guard.stable().await;
        guard
    }

    /// One URL for each sentinel.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::url).collect()
    }

    /// The server that most running sentinels consider the primary, whether it still runs
    /// or not.
    pub fn primary(&self) -> usize {
        let mut votes = HashMap::<usize, usize>::new();
        for sentinel in running(&self.sentinels) {
            let answer = sentinel.try_command::<(String, u16)>(&[
                "SENTINEL",
                "GET-MASTER-ADDR-BY-NAME",
                PRIMARY,
            ]);
            let index = answer.ok().and_then(|(_, port)| self.index(port));
            if let Some(index) = index {
                *votes.entry(index).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
        most.expect("a sentinel knows the primary").0
    }

    /// Waits until a running primary has all other running servers as replicas, and all
    /// running sentinels know them and each other. Stopped servers are ignored.
    pub async fn stable(&self) {
        let replicas = running(&self.servers).count() - 1;
        let others = running(&self.sentinels).count() - 1;
        let followed = |info: &str| {
            info.contains("role:master") && info.matches("state=online").count() == replicas
        };
        let stable = async || {
            let primary = &self.servers[self.primary()];
            let info = |server: &RedisServer| {
                let info = server.try_command::<String>(&["INFO", "replication"]);
                info.unwrap_or_default()
            };
            primary.is_running()
                && followed(&info(primary))
                && running(&self.sentinels).all(|sentinel| {
                    let known = sentinel
                        .try_command::<HashMap<String, String>>(&["SENTINEL", "MASTER", PRIMARY]);
                    known.is_ok_and(|known| {
                        let number = |name| known[name].parse::<usize>().unwrap_or_default();
                        known["port"] == primary.port.to_string()
                            && known["flags"] == "master"
                            && number("num-slaves") >= replicas
                            && number("num-other-sentinels") >= others
                    })
                })
        };
        eventually_within(PATIENCE, "sentinels and servers agree", stable).await;
    }

    fn index(&self, port: u16) -> Option<usize> {
        self.servers.iter().position(|server| server.port == port)
    }
}

fn running(servers: &[RedisServer]) -> impl Iterator<Item = &RedisServer> {
    servers.iter().filter(|server| server.is_running())
}
