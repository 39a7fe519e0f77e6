//! `list` and `show`: what an operator reads.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use genesys_once::testing::Step;
use serde_json::Value;

use super::process::{Cli, NAMESPACE, resolve};
use super::records::{
    ACTION, abandoned, engine, labelled, lose, record, request, slow_engine, store, taken,
};
use crate::support::redis::RedisServer;

fn lines(json: &str) -> Vec<Value> {
    let lines = json.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn list_shows_what_needs_a_person() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let said = cli.run(&["list"]).await.expect(0).out;
    assert_eq!(
        said,
        format!("no indeterminate key in namespace {NAMESPACE}\n")
    );

    let (losing, _) = engine(store(&server).await, || Step::Reset).await;
    let (answering, _) = engine(store(&server).await, || Step::ok("{}")).await;
    let (first, _) = lose(&losing, labelled(1)).await;
    let (second, version) = lose(&losing, request(2)).await;
    let recorded = record(&answering, request(3)).await;

    let said = cli.run(&["list"]).await.expect(0).out;
    let rows: Vec<_> = said.lines().collect();
    assert!(rows[0].starts_with("KEY "), "{said}");
    // The oldest key first, with the caller's names for it.
    for part in [
        &first.to_string(),
        "indeterminate",
        ACTION,
        "order-1",
        "refund order 1",
    ] {
        assert!(rows[1].contains(part), "{part}: {said}");
    }
    assert!(
        rows[1].contains("Z (") && rows[1].contains(" ago)"),
        "{said}"
    );
    assert!(rows[2].starts_with(&second.to_string()), "{said}");
    assert!(
        rows[3].starts_with("2 indeterminate keys, the oldest since 20"),
        "{said}"
    );
    assert!(!said.contains(&recorded.to_string()), "{said}");

    let said = cli.run(&["list", "--json"]).await.expect(0).out;
    let found = lines(&said);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["own_key"], "order-1");
    assert_eq!(found[1]["version"], Value::from(version));
    assert_eq!(found[1]["namespace"], NAMESPACE);

    let said = cli
        .run(&["list", "--all-states", "--json"])
        .await
        .expect(0)
        .out;
    let states: Vec<_> = lines(&said)
        .iter()
        .map(|found| found["state"].clone())
        .collect();
    assert_eq!(states.iter().filter(|state| *state == "cached").count(), 1);
    assert_eq!(states.len(), 3);

    let other = ["list", "--action", "another"];
    assert!(
        cli.run(&other)
            .await
            .expect(0)
            .out
            .starts_with("no indeterminate key")
    );
    let same = ["list", "--action", ACTION, "--limit", "1"];
    let said = cli.run(&same).await.expect(0).out;
    assert!(
        said.contains("there might be more than 1: raise --limit"),
        "{said}"
    );
}

/// Red if an expired lock in `Dispatched` shows as executing: no operator would resolve it.
/// Also red if a look writes.
#[tokio::test]
async fn lost_holder_is_listed_and_not_written() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let name = abandoned(&store(&server).await, 5).await;
    crate::support::eventually("its lease has expired", async || {
        let said = cli.run(&["list"]).await.expect(0).out;
        said.contains(&name.key.to_string())
    })
    .await;
    let said = cli.run(&["show", &name.to_string()]).await.expect(0).out;
    assert!(said.contains("state          indeterminate"), "{said}");
    assert!(
        said.contains("holder was lost with a request under way"),
        "{said}"
    );
    // The record does not say when the request was sent. Red if `show` offers the resolution
    // without that limit.
    assert!(!said.contains("1970"), "{said}");
    assert!(
        said.contains(" from the first try, which records"),
        "{said}"
    );
    let record: String = server.command(&["GET", &name.to_string()]);
    assert!(record.contains(" locked "), "{record}");
}

/// Red without the check of the state before a resolution.
#[tokio::test]
async fn key_in_execution_is_left_alone() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let name = taken(&store(&server).await, 5, Duration::from_secs(600)).await;
    let said = cli.run(&["show", &name.to_string()]).await.expect(0).out;
    assert!(said.contains("state          locked"), "{said}");
    assert!(
        said.contains("left; a request might be on the wire"),
        "{said}"
    );
    let version = said.lines().find_map(|line| line.strip_prefix("version"));
    let key = name.key.to_string();
    let version = version.unwrap().trim();
    let words = resolve(&key, version, &["--not-applied", "--yes"]);
    let said = cli.run(&words).await.expect(4);
    assert!(said.err.contains("it is not indeterminate"), "{}", said.err);
    let said = cli.run(&["list"]).await.expect(0).out;
    assert!(said.starts_with("no indeterminate key"), "{said}");
}

#[tokio::test]
async fn show_prints_state_and_next_step() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    let (key, version) = lose(&losing, labelled(4)).await;
    let digits = key.to_string();
    let said = cli.run(&["show", &digits]).await.expect(0).out;
    for needed in [
        format!("key            {key}"),
        format!("namespace      {NAMESPACE}"),
        "state          indeterminate".into(),
        format!("action         {ACTION}"),
        "own key        order-4".into(),
        "scope          eu".into(),
        "label          refund order 4".into(),
        "holder         ".into(),
        format!("process {}", std::process::id()),
        "since          20".into(),
        "attempts       1, the last one sent 20".into(),
        "cause          ".into(),
        format!("version        {version}"),
        format!("genesys-once resolve {key} --version {version} --by NAME --not-applied"),
        "not before 20".into(),
    ] {
        assert!(said.contains(&needed), "show lacks {needed:?}:\n{said}");
    }
    // By the record's name as a log shows it, and by the caller's own key.
    let name = format!("genesys-once:{NAMESPACE}:{key}");
    let by_name = cli
        .clone()
        .unset("SERVICE_NAMESPACE")
        .run(&["show", &name])
        .await;
    assert!(by_name.expect(0).out.contains(&version));
    let own = [
        "show",
        "--own-key",
        "order-4",
        "--action",
        ACTION,
        "--scope",
        "eu",
    ];
    assert!(cli.run(&own).await.expect(0).out.contains(&version));
    let said = cli.run(&["show", &digits, "--json"]).await.expect(0).out;
    let shown: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(shown["label"], "refund order 4");
    assert_eq!(shown["indeterminate"], true);
}

/// Red if a body is shown unrequested: answers contain customer records.
#[tokio::test]
async fn bodies_are_shown_only_on_request() {
    const BODY: &str = r#"{"iban":"DE02-SECRET"}"#;
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (answering, _) = engine(store(&server).await, || Step::ok(BODY)).await;
    let key = record(&answering, request(6)).await.to_string();
    let said = cli.run(&["show", &key]).await.expect(0).out;
    assert!(
        said.contains("answer         200 OK, body of 22 bytes"),
        "{said}"
    );
    let json = cli.run(&["show", &key, "--json"]).await.expect(0).out;
    let list = cli
        .run(&["list", "--all-states", "--json"])
        .await
        .expect(0)
        .out;
    let shown: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(shown["outcome"]["body_bytes"], BODY.len());
    for said in [&said, &json, &list] {
        assert!(!said.contains("SECRET"), "{said}");
    }
    let said = cli.run(&["show", &key, "--body"]).await.expect(0).out;
    assert_eq!(said, BODY);

    let private = answering.execute(request(7).sensitive()).await.unwrap();
    assert!(private.recorded());
    let key = genesys_once::IdempotencyKey::of(&request(7)).to_string();
    cli.run(&["show", &key, "--body"]).await.expect(4);
}

/// Red without `text::clean`: a label that moves the cursor overwrites what an operator
/// reads.
#[tokio::test]
async fn foreign_text_cannot_move_the_cursor() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    let (key, _) = lose(&losing, request(8).with_label("\u{202e}gnp.exe").unwrap()).await;
    for words in [&["list"][..], &["show", &key.to_string()]] {
        let said = cli.run(words).await.expect(0).out;
        assert!(!said.contains('\u{202e}'), "{said}");
        assert!(said.contains(r"\u{202e}gnp.exe"), "{said}");
    }
}

/// Red if a list ends with its first page.
#[tokio::test]
async fn list_has_the_records_of_every_page() {
    const RECORDS: u32 = 2_500;
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let store = store(&server).await;
    let taken = (0..RECORDS).map(|order| taken(&store, order, Duration::from_secs(600)));
    // A few at a time, since each command must end within two seconds.
    let names: Vec<_> = stream::iter(taken).buffer_unordered(50).collect().await;
    let words = ["list", "--all-states", "--json", "--limit", "3000"];
    let said = cli.run(&words).await.expect(0);
    assert_eq!(said.err, "");
    let found = lines(&said.out).into_iter();
    let found: BTreeSet<_> = found
        .map(|found| found["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        found,
        names.iter().map(|name| name.key.to_string()).collect()
    );
    let said = cli.run(&words[..3]).await.expect(0);
    assert_eq!(said.out.lines().count(), 1000);
    assert!(
        said.err.contains("there might be more than 1000"),
        "{}",
        said.err
    );
}

/// A list with a limit has the oldest keys, wherever the store has them.
///
/// Red if the walk ends once it has found enough keys: those of its first page.
#[tokio::test]
async fn limited_list_has_the_oldest_keys() {
    const RECORDS: u64 = 3_000;
    const LIMIT: usize = 100;
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    let (key, _) = lose(&losing, request(1)).await;
    // The same record under other keys, with sending times one second apart, long ago.
    let copies = format!(
        "local prefix, key = 'genesys-once:{NAMESPACE}:', '{key}' \
         local text = redis.call('GET', prefix .. key) local oldest = {{}} \
         for i = 1, {RECORDS} do \
             local hex = redis.sha1hex(i) .. string.sub(redis.sha1hex(i), 1, 24) \
             local copy = string.gsub(text, key, hex) \
             local sent = '\"sent_ms\":' .. 1700000000 + i .. '000' \
             copy = string.gsub(copy, '\"sent_ms\":%d+', sent) \
             redis.call('SET', prefix .. hex, copy) \
             if i <= {LIMIT} then oldest[i] = hex end \
         end \
         return oldest"
    );
    let oldest: Vec<String> = server.command(&["EVAL", &copies, "0"]);
    let limit = LIMIT.to_string();
    let said = cli.run(&["list", "--json", "--limit", &limit]).await;
    let said = said.expect(0);
    let found = lines(&said.out).into_iter();
    let found: Vec<_> = found
        .map(|found| found["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, oldest);
    assert!(said.err.contains("there might be more"), "{}", said.err);
}

#[tokio::test]
async fn long_walks_report_progress_on_a_terminal() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    lose(&losing, request(9)).await;
    let said = cli.on_terminal(&["list"], "").await.expect(0).out;
    assert!(said.contains("walked 1 records, found 1"), "{said}");
    let said = cli.run(&["list"]).await.expect(0);
    assert!(!said.said().contains("walked"), "{}", said.said());
}
