//! `resolve` and `forget`: what they write, and that they write nothing unless confirmed.

use genesys_once::Served;
use genesys_once::store::WhenEmptied;
use genesys_once::testing::Step;

use super::process::{Cli, NAMESPACE, resolve};
use super::records::{abandoned, engine, labelled, lose, record, request, slow_engine, store};
use crate::support::eventually;
use crate::support::redis::RedisServer;

const ANSWER: &str = r#"{"refund":"R-1"}"#;

#[tokio::test]
async fn applied_answer_is_replayed_and_not_sent() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, upstream) = slow_engine(store(&server).await).await;
    let (key, version) = lose(&losing, labelled(1)).await;
    let key = key.to_string();
    let words = [
        "resolve",
        &key,
        "--version",
        &version,
        "--by",
        "ticket 4711",
        "--applied",
        "200",
        ANSWER,
        "--ttl",
        "2h",
        "--yes",
    ];
    let said = cli.run(&words).await.expect(0);
    // The output shows the change before the write, and the result after it.
    for needed in [
        "will become    executed: 200 OK, 16 bytes",
        "by             ticket 4711",
    ] {
        assert!(said.err.contains(needed), "{needed}: {}", said.err);
    }
    assert!(
        said.err.contains("label          refund order 1"),
        "{}",
        said.err
    );
    assert!(
        said.out.starts_with(&format!("resolved {key}: executed")),
        "{}",
        said.out
    );

    let shown = cli.run(&["show", &key]).await.expect(0).out;
    assert!(shown.contains("state          cached"), "{shown}");
    assert!(shown.contains("ago) by ticket 4711"), "{shown}");
    assert!(
        shown.contains("replayed for   2h") || shown.contains("replayed for   1h 59m"),
        "{shown}"
    );
    let reply = losing.execute(labelled(1)).await.unwrap();
    assert_eq!(
        (reply.served(), &reply.body()[..]),
        (Served::Store, ANSWER.as_bytes())
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(upstream.ledger().total(), 1);

    // The second time, the error shows the record's current state.
    let said = cli.run(&words).await.expect(4);
    assert!(
        said.err.contains("it is not in the version that you named"),
        "{}",
        said.err
    );
    assert!(said.err.contains("by ticket 4711"), "{}", said.err);
}

#[tokio::test]
async fn body_comes_from_a_file_or_standard_input() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    let (key, version) = lose(&losing, request(1)).await;
    let key = key.to_string();
    let words = resolve(&key, &version, &["--applied", "200", "-", "--yes"]);
    cli.run_with(&words, ANSWER).await.expect(0);
    let said = cli.run(&["show", &key, "--body"]).await.expect(0);
    assert_eq!(said.out, ANSWER);
}

#[tokio::test]
async fn sensitive_answer_is_recorded_without_its_body() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    let (key, version) = lose(&losing, request(1)).await;
    let key = key.to_string();
    let words = resolve(
        &key,
        &version,
        &["--applied", "200", ANSWER, "--sensitive", "--yes"],
    );
    cli.run(&words).await.expect(0);
    let record: String = server.command(&["GET", &format!("genesys-once:{NAMESPACE}:{key}")]);
    assert!(!record.contains("R-1"), "{record}");
}

#[tokio::test]
async fn not_applied_is_too_early_then_frees_key() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, upstream) = slow_engine(store(&server).await).await;
    let (key, version) = lose(&losing, request(1)).await;
    let key = key.to_string();
    let words = resolve(&key, &version, &["--not-applied", "--yes"]);
    let said = cli.run(&words).await.expect(5);
    assert!(said.err.contains("wait until 20"), "{}", said.err);
    assert!(said.err.contains("--despite-clocks"), "{}", said.err);
    assert_eq!(upstream.ledger().total(), 1);

    let despite = [&words[..], &["--despite-clocks"]].concat();
    let said = cli.run(&despite).await.expect(0);
    assert!(
        said.err.contains("THE NEXT REQUEST IS SENT"),
        "{}",
        said.err
    );
    cli.run(&["show", &key]).await.expect(3);
    lose(&losing, request(1)).await;
    assert_eq!(upstream.ledger().total(), 2);
}

#[tokio::test]
async fn key_of_a_lost_holder_can_be_resolved() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let name = abandoned(&store(&server).await, 1).await;
    let key = name.key.to_string();
    let version = version(&cli, &key).await;
    let words = resolve(&key, &version, &["--applied", "200", ANSWER, "--yes"]);
    eventually("the lease has expired", async || {
        match cli.run(&words).await {
            said if said.code == 4 => {
                assert!(said.err.contains("it is not indeterminate"), "{}", said.err);
                false
            }
            said => said.expect(0).code == 0,
        }
    })
    .await;
    let said = cli.run(&["show", &key]).await.expect(0).out;
    assert!(said.contains("state          cached"), "{said}");
}

/// The version that `show` gives.
async fn version(cli: &Cli, key: &str) -> String {
    let said = cli.run(&["show", key]).await.expect(0).out;
    let line = said.lines().find_map(|line| line.strip_prefix("version"));
    line.unwrap().trim().to_owned()
}

/// Red without the question: a mistyped key is resolved.
#[tokio::test]
async fn nothing_is_written_without_a_yes() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    let (answering, _) = engine(store(&server).await, || Step::ok(ANSWER)).await;
    let (lost, version) = lose(&losing, request(1)).await;
    let recorded = record(&answering, request(2)).await;
    let [lost, recorded] = [lost, recorded].map(|key| key.to_string());
    let resolve = resolve(&lost, &version, &["--applied", "200", ANSWER]);
    let forget = ["forget", &recorded];
    for words in [&resolve[..], &forget] {
        // Without a terminal, the command prints what it would do, and refuses.
        let said = cli.run_with(words, "yes\n").await.expect(8);
        assert!(said.err.contains("will become"), "{}", said.err);
        assert!(
            said.err.contains("nothing was written: pass --yes"),
            "{}",
            said.err
        );
        let said = cli.on_terminal(words, "no\n").await.expect(8).out;
        assert!(said.contains("Write this? Type yes: "), "{said}");
        assert!(said.contains("nothing was written"), "{said}");
    }
    let list = cli.run(&["list"]).await.expect(0).out;
    assert!(list.contains(&lost), "{list}");
    cli.run(&["show", &recorded, "--body"]).await.expect(0);
    for words in [&resolve[..], &forget] {
        cli.on_terminal(words, "yes\n").await.expect(0);
    }
    let said = cli.run(&["list"]).await.expect(0).out;
    assert!(said.starts_with("no indeterminate key"), "{said}");
}

#[tokio::test]
async fn forgotten_outcome_is_executed_again() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (answering, _) = engine(store(&server).await, || Step::ok(ANSWER)).await;
    let key = record(&answering, request(1)).await.to_string();
    let said = cli.run(&["forget", &key, "--yes"]).await.expect(0);
    assert!(
        said.err.contains("answer         200 OK, body of 16 bytes"),
        "{}",
        said.err
    );
    assert!(
        said.out.contains("THE NEXT REQUEST IS SENT"),
        "{}",
        said.out
    );
    cli.run(&["forget", &key, "--yes"]).await.expect(3);
    let (another, upstream) = engine(store(&server).await, || Step::ok(ANSWER)).await;
    record(&another, request(1)).await;
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if an unreadable record is removed without `--unreadable`, or stays despite it.
#[tokio::test]
async fn unreadable_record_is_removed_only_on_request() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (answering, _) = engine(store(&server).await, || Step::ok(ANSWER)).await;
    let key = record(&answering, request(1)).await.to_string();
    cli.run(&["forget", &key, "--unreadable", "--yes"])
        .await
        .expect(4);
    let name = format!("genesys-once:{NAMESPACE}:{key}");
    server.command::<()>(&["SET", &name, "damaged\u{1b}[2J"]);
    for words in [&["show", &key][..], &["forget", &key, "--yes"]] {
        let said = cli.run(words).await.expect(7);
        assert!(said.err.contains("cannot be read"), "{}", said.err);
        assert!(said.err.contains("--unreadable"), "{}", said.err);
        assert!(!said.err.contains('\u{1b}'), "{}", said.err);
    }
    let list = cli.run(&["list"]).await.expect(0).out;
    assert!(list.contains(&format!("{key}  cannot be read")), "{list}");
    cli.run(&["forget", &key, "--unreadable"]).await.expect(8);
    let said = cli
        .run(&["forget", &key, "--unreadable", "--yes"])
        .await
        .expect(0);
    assert!(said.err.contains("whatever it stood for"), "{}", said.err);
    cli.run(&["show", &key]).await.expect(3);
}

/// Red if the command does not write to the servers: the engines refuse without end.
#[tokio::test]
async fn emptied_server_is_accepted_by_an_operator() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let refusing = store(&server).await.when_emptied(WhenEmptied::Refuse);
    let (answering, _) = engine(refusing, || Step::ok(ANSWER)).await;
    record(&answering, request(0)).await;
    server.command::<()>(&["FLUSHALL"]);
    server.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    let mut order = 0;
    let mut executes = async || {
        order += 1;
        answering.execute(request(order)).await.is_ok()
    };
    eventually("the loss is noticed", async || !executes().await).await;
    let said = cli.run(&["accept-emptied"]).await.expect(8);
    assert!(
        said.err.contains("WHAT WAS EXECUTED BEFORE"),
        "{}",
        said.err
    );
    let said = cli.run(&["accept-emptied", "--yes"]).await.expect(0);
    assert!(
        said.out.starts_with("1 refused shards are accepted"),
        "{}",
        said.out
    );
    eventually("the engine goes on", executes).await;
    let said = cli.run(&["accept-emptied", "--yes"]).await.expect(0);
    assert_eq!(said.out, "no shard was refused\n");
}
