//! How long a planned fail-over takes, from the command to the first write at the new
//! primary. The test prints the time (`--nocapture`), and asserts that the store follows.

use std::time::{Duration, Instant};

use genesys_once::record::RecordName;
use genesys_once::{IdempotencyKey, RedisStore, Store};

use super::acquire;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{PRIMARY, RedisSentinel};

/// Long enough for a busy machine.
const RECOVERY: Duration = Duration::from_secs(60);

/// The time at which most sentinels name another server than the one at `port`.
fn most_have_moved(urls: &[String], port: u16) -> Instant {
    let connect = |url: &String| {
        let client = redis::Client::open(url.as_str()).unwrap();
        client.get_connection().unwrap()
    };
    let mut sentinels: Vec<_> = urls.iter().map(connect).collect();
    let end = Instant::now() + RECOVERY;
    loop {
        let moved = sentinels.iter_mut().filter_map(|sentinel| {
            let mut question = redis::cmd("SENTINEL");
            question.arg(&["GET-MASTER-ADDR-BY-NAME", PRIMARY]);
            let (_, now): (String, u16) = question.query(sentinel).ok()?;
            (now != port).then_some(())
        });
        if moved.count() * 2 > urls.len() {
            return Instant::now();
        }
        assert!(Instant::now() < end, "the sentinels have a new primary");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A key of its own for each write.
fn numbered(number: u32) -> RecordName {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    RecordName::new("test".parse().unwrap(), IdempotencyKey::from_bytes(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planned_fail_over_is_followed() {
    let set_up = RedisSentinel::start().await;
    let store = RedisStore::sentinel(set_up.urls(), PRIMARY).await.unwrap();
    let (urls, port) = (set_up.urls(), set_up.servers[0].port);
    let named = tokio::task::spawn_blocking(move || most_have_moved(&urls, port));
    let begun = Instant::now();
    set_up.sentinels[0].command::<()>(&["SENTINEL", "FAILOVER", PRIMARY]);
    let (mut number, mut failed) = (0, 0);
    let there = loop {
        number += 1;
        let name = numbered(number);
        let role: Vec<redis::Value> = set_up.servers[0].command(&["ROLE"]);
        let is_demoted = role[0] != redis::Value::BulkString(b"master".into());
        let answer = store.apply(&name, acquire(1)).await;
        let at = Instant::now();
        failed += u32::from(answer.is_err());
        let has = |server: &RedisServer| server.command(&["EXISTS", &name.to_string()]);
        // The old primary gets the write first as long as it is the primary.
        let here: bool = has(&set_up.servers[0]);
        if answer.is_ok() && (is_demoted || !here && set_up.servers[1..].iter().any(has)) {
            break at;
        }
        assert!(begun.elapsed() < RECOVERY, "the store follows");
    };
    let named = named.await.unwrap();
    println!(
        "FAILOVER: most sentinels name the new primary after {:?}; the store writes there {:?} later ({failed} writes failed)",
        named - begun,
        there.saturating_duration_since(named),
    );
    // The write was answered, and the new primary has it.
    let primary = set_up.primary();
    assert_ne!(primary, 0);
    let name = numbered(number).to_string();
    let is_there: bool = set_up.servers[primary].command(&["EXISTS", &name]);
    assert!(is_there, "the new primary lacks the write");
}
