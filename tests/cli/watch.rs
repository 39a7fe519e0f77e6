//! `watch`: its rounds, and its marks for new and gone keys.

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;
use tokio::time::{Duration, timeout};

use super::process::{Cli, resolve};
use super::records::{labelled, lose, slow_engine, store};
use crate::support::redis::RedisServer;

/// Reads lines up to the first that contains this text.
async fn until(lines: &mut Lines<BufReader<ChildStdout>>, text: &str) -> String {
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("`watch` ended without {text:?}");
    };
    timeout(Duration::from_secs(60), found).await.expect(text)
}

/// Red if a store that is unavailable for a while ends `watch`.
#[tokio::test]
async fn lines_mark_new_and_resolved_keys() {
    let mut server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    let (first, version) = lose(&losing, labelled(1)).await;
    let mut watch = cli.command(&["watch", "--every", "100ms"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    until(&mut lines, "  1 indeterminate key, the oldest since 20").await;
    let line = until(&mut lines, &format!("  + {first}  indeterminate")).await;
    assert!(line.contains("refund order 1"), "{line}");
    let (second, _) = lose(&losing, labelled(2)).await;
    until(&mut lines, &format!("  + {second}")).await;
    let first = first.to_string();
    let words = resolve(&first, &version, &["--applied", "200", "{}", "--yes"]);
    cli.run(&words).await.expect(0);
    until(&mut lines, &format!("  - {first}")).await;
    // An unavailable store does not end `watch`.
    server.kill();
    until(&mut lines, "the store is unavailable").await;
    server.restart();
    until(&mut lines, "  0 indeterminate keys").await;
    watch.kill().await.unwrap();
}

#[tokio::test]
async fn rounds_end_watch_and_terminal_gets_a_table() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    let (key, _) = lose(&losing, labelled(1)).await;
    let said = cli
        .run(&["watch", "--rounds", "2", "--every", "100ms"])
        .await
        .expect(0)
        .out;
    assert_eq!(said.matches("1 indeterminate key,").count(), 2, "{said}");
    assert_eq!(said.matches("  + ").count(), 1, "new once: {said}");
    let said = cli
        .on_terminal(&["watch", "--rounds", "1"], "")
        .await
        .expect(0)
        .out;
    assert!(said.contains("\u{1b}[H\u{1b}[2J"), "{said}");
    for needed in ["namespace night, 20", "every 10s", "KEY ", &key.to_string()] {
        assert!(said.contains(needed), "{needed}: {said}");
    }
    cli.run(&["watch", "--every", "10ms"]).await.expect(2);
}

/// Red if `watch` does not end with its reader: `watch | head` would walk the store without
/// end.
#[tokio::test]
async fn watch_ends_with_its_reader() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let mut watch = cli.command(&["watch", "--every", "100ms"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    until(&mut lines, "  0 indeterminate keys").await;
    drop(lines);
    let ended = timeout(Duration::from_secs(60), watch.wait()).await;
    assert_eq!(ended.expect("its end").unwrap().code(), Some(0));
}
