//! What the servers of a Redis store may lose, what they allow, and what time it is
//! there.

use std::time::{Duration, SystemTime};

use genesys_once::RedisStore;
use genesys_once::store::{Persistence, ServerReport};

use super::Report;
use crate::exit::{Failure, chain};
use crate::text::length;

/// Clocks that differ by more make times in records doubtful; a lease is 30 s.
const DIFFERS: Duration = Duration::from_secs(1);
const DIFFERS_MUCH: Duration = Duration::from_secs(30);

/// Commands that a store can do without, and what goes without them.
const OPTIONAL: [(&str, &str); 8] = [
    ("PUBLISH", "waiters in other processes poll"),
    ("SPUBLISH", "waiters in other processes poll"),
    (
        "SCAN",
        "no lists: `list`, `watch` and Engine::indeterminate",
    ),
    ("ROLE", "a replica cannot be distinguished from its primary"),
    ("INFO", "durability and version are not known"),
    ("CONFIG GET", "durability is not known"),
    ("TIME", "the server's clock is not known"),
    ("WAIT", "RedisStore::replicas cannot be used"),
];

pub async fn check(report: &mut Report, redis: &RedisStore) -> Result<(), Failure> {
    for (address, answer) in redis.report().await {
        match answer {
            Ok(server) => examine(report, &address, &server)?,
            Err(error) => report.fail(
                "server",
                format!("{address}: {}", chain(&error)),
                "keys of this server cannot be executed: start it, or look at its log",
            )?,
        }
    }
    Ok(())
}

fn examine(report: &mut Report, address: &str, server: &ServerReport) -> Result<(), Failure> {
    let version = server.version.as_deref().unwrap_or("of unknown version");
    report.ok("server", format!("{address} {version}"))?;
    durability(report, address, server)?;
    rights(report, address, &server.forbidden)?;
    clock(report, address, server)
}

fn durability(report: &mut Report, address: &str, server: &ServerReport) -> Result<(), Failure> {
    const WHAT: &str = "durability";
    let durability = &server.durability;
    match durability.evicts {
        Some(false) => report.ok(WHAT, format!("{address} evicts no record"))?,
        Some(true) => report.fail(
            WHAT,
            format!("{address} evicts records when its memory is full: second calls"),
            "CONFIG SET maxmemory-policy noeviction, in its configuration file too",
        )?,
        None => report.warn(
            WHAT,
            format!("{address} does not say whether it evicts records"),
            "give the user +info",
        )?,
    }
    match durability.persistence {
        Some(Persistence::AppendOnly) => {
            report.ok(WHAT, format!("{address} has an append-only file"))?;
        }
        Some(Persistence::Snapshots) => report.warn(
            WHAT,
            format!("{address} forgets everything since its last snapshot when it restarts"),
            "CONFIG SET appendonly yes, in its configuration file too",
        )?,
        Some(_) => report.fail(
            WHAT,
            format!("{address} forgets everything when it restarts: second calls"),
            "CONFIG SET appendonly yes, in its configuration file too",
        )?,
        None => report.warn(
            WHAT,
            format!("{address} does not say what survives a restart"),
            "give the user +info +config|get",
        )?,
    }
    if let Some(replicas @ 1..) = durability.replicas {
        let found = format!(
            "{address} has {replicas} replicas, which lag: a fail-over may forget the last \
             moments without RedisStore::replicas"
        );
        report.ok(WHAT, found)?;
    }
    Ok(())
}

fn rights(report: &mut Report, address: &str, forbidden: &[String]) -> Result<(), Failure> {
    const WHAT: &str = "rights";
    if forbidden.is_empty() {
        return report.ok(WHAT, format!("{address} allows every command"));
    }
    for command in forbidden {
        let grant = command.to_lowercase().replace(' ', "|");
        let grant = format!("ACL SETUSER … +{grant}");
        let optional = OPTIONAL.iter().find(|(name, _)| name == command);
        match optional {
            Some((_, without)) => {
                report.warn(
                    WHAT,
                    format!("{address} forbids {command}: {without}"),
                    &grant,
                )?;
            }
            None => report.fail(WHAT, format!("{address} forbids {command}"), &grant)?,
        }
    }
    Ok(())
}

fn clock(report: &mut Report, address: &str, server: &ServerReport) -> Result<(), Failure> {
    const WHAT: &str = "clock";
    let Some(clock) = server.clock else {
        // Its absence is a line of `rights`.
        return Ok(());
    };
    let (apart, word) = apart(clock, server.asked_at);
    let apart = apart.saturating_sub(server.round_trip / 2);
    let found = format!("{address} {word} this machine by {}", length(apart));
    let todo = "run NTP on both: leases and the times of records go by these clocks";
    match () {
        () if apart > DIFFERS_MUCH => report.fail(WHAT, found, todo),
        () if apart > DIFFERS => report.warn(WHAT, found, todo),
        () => report.ok(WHAT, format!("{address} agrees with this machine")),
    }
}

fn apart(there: SystemTime, here: SystemTime) -> (Duration, &'static str) {
    match there.duration_since(here) {
        Ok(ahead) => (ahead, "is ahead of"),
        Err(behind) => (behind.duration(), "is behind"),
    }
}
