//! A report on each primary for operators. It changes no record and no setting, and
//! decides nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use redis::{Cmd, Value, cmd};
use tokio::time::Instant;

use super::RedisStore;
use super::connection::command_error::CommandError;
use super::connection::shared::SharedConnection;
use super::durability::Durability;
use super::permissions;
use crate::error::StoreError;

/// The report of one primary of a [`RedisStore`]: see [`RedisStore::report`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerReport {
    /// `redis` or `valkey` and its version; `None` where the user may not ask (`INFO`).
    pub version: Option<String>,
    /// How long one command took on an open connection.
    pub round_trip: Duration,
    /// The server's clock; `None` where the user may not ask (`TIME`).
    pub clock: Option<SystemTime>,
    /// This process's wall clock at that moment, with an error of at most half of
    /// `round_trip`.
    pub asked_at: SystemTime,
    /// In which ways it can lose what it acknowledged.
    pub durability: Durability,
    /// The commands of the store that the user may not run; commands that subscribe are
    /// not checked.
    pub forbidden: Vec<String>,
}

impl RedisStore {
    /// Asks each primary for a report, by its address: for a health check or an operator.
    /// It takes a few round trips on the connections of the store, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`] for a primary that does not answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn report(&self) -> Vec<(String, Result<ServerReport, StoreError>)> {
        let routes = &self.connected.monitor.routes;
        let keys = permissions::keys(routes);
        let primaries = routes.primaries().into_iter().map(|(address, connection)| {
            let key = keys.get(&connection.address()).cloned();
            async move {
                let missing = async {
                    match key {
                        Some(key) => permissions::missing(routes, &key).await,
                        None => Ok(Vec::new()),
                    }
                };
                let report = of_server(&connection, missing).await;
                (address, report.map_err(StoreError::from))
            }
        });
        join_all(primaries).await
    }
}

async fn of_server(
    connection: &SharedConnection,
    missing: impl Future<Output = Result<Vec<String>, CommandError>>,
) -> Result<ServerReport, CommandError> {
    // The first command might have to connect.
    let mut forbidden = missing.await?;
    let (begun, before) = (Instant::now(), SystemTime::now());
    let time = answer(connection, &cmd("TIME")).await?;
    let round_trip = begun.elapsed();
    for command in probes() {
        if answer(connection, &command.0).await?.is_none() {
            forbidden.push(command.1.into());
        }
    }
    if time.is_none() {
        forbidden.push("TIME".into());
    }
    let mut info = cmd("INFO");
    info.arg("server");
    Ok(ServerReport {
        version: answer(connection, &info).await?.and_then(version),
        round_trip,
        clock: time.and_then(moment),
        asked_at: before + round_trip / 2,
        durability: Durability::ask(connection).await?,
        forbidden,
    })
}

/// Commands that change nothing, each with the name of the right that it needs.
fn probes() -> Vec<(Cmd, &'static str)> {
    let with = |words: &[&str]| {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        command
    };
    vec![
        (with(&["SCAN", "0", "COUNT", "1"]), "SCAN"),
        (with(&["ROLE"]), "ROLE"),
        (with(&["INFO", "server"]), "INFO"),
        (with(&["CONFIG", "GET", "save"]), "CONFIG GET"),
        // Answered at once: it waits for no replica.
        (with(&["WAIT", "0", "1"]), "WAIT"),
    ]
}

/// The reply; `None` where the user may not ask, or the server has no such command.
async fn answer(
    connection: &SharedConnection,
    command: &Cmd,
) -> Result<Option<Value>, CommandError> {
    match connection.command(command).await {
        Ok(reply) => Ok(Some(reply)),
        Err(failure) if failure.code() == Some("NOPERM") => Ok(None),
        // Another error (the key of another server, for example) is no missing right.
        Err(CommandError::Server { text, .. }) if text.contains("unknown command") => Ok(None),
        Err(CommandError::Server { .. }) => Ok(Some(Value::Nil)),
        Err(failure) => Err(failure),
    }
}

/// The reply to `TIME`: seconds and microseconds.
fn moment(reply: Value) -> Option<SystemTime> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value(reply).ok()?;
    let since = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?;
    UNIX_EPOCH.checked_add(since)
}

/// Program and version from an `INFO server`.
fn version(info: Value) -> Option<String> {
    let info: String = redis::from_redis_value(info).ok()?;
    let find = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    // Valkey also reports the Redis version that it is compatible with.
    let valkey = find("valkey_version:").map(|version| ("valkey", version));
    let (name, version) = valkey.or_else(|| Some(("redis", find("redis_version:")?)))?;
    Some(format!("{name} {}", version.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valkey_reports_its_own_version() {
        let info = |text: &str| version(Value::BulkString(text.into()));
        let redis = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n";
        assert_eq!(info(redis).as_deref(), Some("redis 7.0.15"));
        let valkey = "redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n";
        assert_eq!(info(valkey).as_deref(), Some("valkey 9.1.2"));
        assert_eq!(info("nothing"), None);
    }
}
