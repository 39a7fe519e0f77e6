//! What servers can lose because of their configuration. It only reports, and changes no
//! setting and no decision.

use std::collections::HashMap;
use std::fmt;

use redis::{Value, cmd};

use super::RedisStore;
use super::connection::command_error::CommandError;
use super::connection::shared::SharedConnection;

/// In which ways a Redis server can lose a lock or an outcome that it has acknowledged;
/// `None` where that is unknown. For a cluster, the worst of its primaries.
///
/// Read from `INFO` and `CONFIG GET` when a [`RedisStore`](crate::RedisStore)
/// connects, at each new connection after that, and once a minute. A user without the
/// right to both commands gets `None` throughout. Each risk is also a warning in the log,
/// for each server, when it is first seen and when it changes. What a server loses can
/// be executed a second time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Durability {
    /// Whether the server drops records when its memory is full: any
    /// `maxmemory-policy` but `noeviction`, with a `maxmemory` set.
    pub evicts: Option<bool>,
    /// What survives a restart.
    pub persistence: Option<Persistence>,
    /// How many replicas copy from this server. Replication is asynchronous: a promoted
    /// replica might lack the last writes.
    pub replicas: Option<u32>,
}

/// What a Redis server keeps across a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Persistence {
    /// Nothing.
    None,
    /// The last snapshot (`save`); everything since is lost.
    Snapshots,
    /// The append-only file. With `appendfsync everysec`, the default, a machine that
    /// fails loses its last second.
    AppendOnly,
}

impl Durability {
    /// Asks the server. A refusal is no error: the setting stays unknown.
    ///
    /// # Errors
    ///
    /// Where the server does not answer.
    pub(super) async fn ask(connection: &SharedConnection) -> Result<Self, CommandError> {
        let mut info = cmd("INFO");
        info.arg("memory").arg("persistence").arg("replication");
        let mut known = match connection.command(&info).await {
            Ok(Value::BulkString(bytes)) => pairs(&String::from_utf8_lossy(&bytes)),
            Ok(Value::VerbatimString { text, .. }) => pairs(&text),
            Ok(_) | Err(CommandError::Server { .. }) => HashMap::new(),
            Err(failure) => return Err(failure),
        };
        let mut save = cmd("CONFIG");
        save.arg("GET").arg("save");
        match connection.command(&save).await {
            Ok(reply) => {
                let answer = redis::from_redis_value::<HashMap<String, String>>(reply);
                known.extend(answer.unwrap_or_default());
            }
            Err(CommandError::Server { .. }) => {}
            Err(failure) => return Err(failure),
        }
        Ok(Self::of(&known))
    }

    fn of(known: &HashMap<String, String>) -> Self {
        let get = |name| known.get(name).map(String::as_str);
        let evicts = match (get("maxmemory"), get("maxmemory_policy")) {
            // Without a limit memory is never full.
            (Some("0"), _) | (_, Some("noeviction")) => Some(false),
            (_, Some(_)) => Some(true),
            _ => None,
        };
        let persistence = match (get("aof_enabled"), get("save")) {
            (Some("1"), _) => Some(Persistence::AppendOnly),
            (Some(_), Some("")) => Some(Persistence::None),
            (Some(_), Some(_)) => Some(Persistence::Snapshots),
            _ => None,
        };
        let replicas = get("connected_slaves").and_then(|number| number.parse().ok());
        Self {
            evicts,
            persistence,
            replicas,
        }
    }

    /// The worse of both, setting by setting. Where one is unknown, the result is known
    /// only if the other is the worst possible.
    pub(super) fn and(self, other: Self) -> Self {
        fn worst<T: Ord>(one: Option<T>, two: Option<T>, worst: T) -> Option<T> {
            match (one, two) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (Some(known), None) | (None, Some(known)) => (known == worst).then_some(known),
                (None, None) => None,
            }
        }
        let keeps = worst(
            self.evicts.map(|evicts| !evicts),
            other.evicts.map(|evicts| !evicts),
            false,
        );
        Self {
            evicts: keeps.map(|keeps| !keeps),
            persistence: worst(self.persistence, other.persistence, Persistence::None),
            replicas: worst(self.replicas, other.replicas, 0),
        }
    }

    /// Logs one line for each risk.
    pub(super) fn warn(&self, server: &str) {
        if self.evicts == Some(true) {
            tracing::warn!(
                server,
                "redis can evict locks and outcomes: set maxmemory-policy noeviction"
            );
        }
        match self.persistence {
            Some(Persistence::None) => {
                tracing::warn!(
                    server,
                    "redis loses locks and outcomes when it restarts: set appendonly yes"
                );
            }
            Some(Persistence::Snapshots) => tracing::warn!(
                server,
                "redis loses all writes since its last snapshot when it restarts: set appendonly yes"
            ),
            Some(Persistence::AppendOnly) | None => {}
        }
        if let Some(replicas @ 1..) = self.replicas {
            tracing::warn!(
                server,
                replicas,
                "redis replicates asynchronously: a fail-over can lose the last writes"
            );
        }
        if self.evicts.is_none() || self.persistence.is_none() || self.replicas.is_none() {
            tracing::info!(server, durability = ?self, "redis does not report all of its durability settings");
        }
    }
}

/// The `name:value` lines of an `INFO`.
fn pairs(info: &str) -> HashMap<String, String> {
    let pairs = info.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

impl RedisStore {
    /// In which ways this server can lose what it acknowledged, as of its last report: at
    /// the last connection, or at most a minute ago. For a cluster, the worst of its
    /// primaries.
    pub fn durability(&self) -> Durability {
        self.connected.monitor.durability()
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("address", &self.connected.address)
            .field("monitor", &self.connected.monitor)
            .field("replica_acks", &self.replica_acks)
            .field("bodies", &self.bodies)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(known: &[(&str, &str)]) -> Durability {
        Durability::of(
            &known
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        )
    }

    #[test]
    fn silent_server_has_unknown_durability() {
        assert_eq!(of(&[]), Durability::default());
    }

    #[test]
    fn each_risk_is_reported() {
        let policy =
            |limit, policy| of(&[("maxmemory", limit), ("maxmemory_policy", policy)]).evicts;
        assert_eq!(policy("0", "allkeys-lru"), Some(false));
        assert_eq!(policy("1000", "allkeys-lru"), Some(true));
        assert_eq!(policy("1000", "volatile-ttl"), Some(true));
        assert_eq!(policy("1000", "noeviction"), Some(false));
        let persistence = |aof, save| of(&[("aof_enabled", aof), ("save", save)]).persistence;
        assert_eq!(persistence("1", ""), Some(Persistence::AppendOnly));
        assert_eq!(persistence("0", ""), Some(Persistence::None));
        assert_eq!(persistence("0", "3600 1"), Some(Persistence::Snapshots));
        assert_eq!(of(&[("aof_enabled", "0")]).persistence, None);
        assert_eq!(of(&[("connected_slaves", "2")]).replicas, Some(2));
    }

    #[test]
    fn worst_of_several_servers_is_reported() {
        let of = |evicts, persistence, replicas| Durability {
            evicts,
            persistence,
            replicas,
        };
        let good = of(Some(false), Some(Persistence::AppendOnly), Some(2));
        let bad = of(Some(true), Some(Persistence::None), Some(0));
        let unknown = Durability::default();
        assert_eq!(good.clone().and(good.clone()), good);
        assert_eq!(good.clone().and(bad.clone()), bad);
        assert_eq!(bad.clone().and(unknown.clone()), bad);
        assert_eq!(unknown.clone().and(bad.clone()), bad);
        assert_eq!(good.clone().and(unknown.clone()), unknown);
        let middling = of(Some(false), Some(Persistence::Snapshots), Some(1));
        assert_eq!(good.and(middling.clone()), middling);
        assert_eq!(middling.and(unknown.clone()), unknown);
    }
}
