//! An incident as an operator sees it: from the WARN of an engine to the resolved key, each
//! command and its output. `--nocapture` prints them.

use std::io;
use std::sync::{Arc, Mutex};

use genesys_once::testing::{ScriptedUpstream, Step, answers};
use genesys_once::{Engine, Error, IdempotencyKey, Served};
use tracing_subscriber::fmt::MakeWriter;

use super::process::{Cli, NAMESPACE, Ran};
use super::records::{ACTION, labelled, store};
use crate::support::redis::{Options, RedisServer};

const ANSWER: &str = r#"{"refund": "R-1"}"#;

/// What the engine logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Runs one command as an operator types it, and prints its output.
async fn typed(cli: &Cli, words: &[&str], code: i32) -> Ran {
    let ran = cli.run(words).await.expect(code);
    let quoted = |word: &&str| match word.contains([' ', '"']) {
        true => format!("'{word}'"),
        false => (*word).to_owned(),
    };
    let line: Vec<_> = words.iter().map(quoted).collect();
    println!("$ genesys-once {}", line.join(" "));
    print!("{}{}", ran.err, ran.out);
    println!("[exit code {code}]\n");
    ran
}

#[tokio::test]
async fn incident_goes_from_warning_to_resolution() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .finish();
    let _guard = crate::subscriber::listen(subscriber);
    let options = Options::default().append_only();
    let server: RedisServer = options.set("maxmemory-policy", "noeviction").start();
    let upstream = ScriptedUpstream::new(|_| Step::Answer(bad_gateway()));
    let engine = Engine::builder(upstream.clone())
        .store(store(&server).await)
        .namespace(NAMESPACE.parse().unwrap())
        .start();
    let engine = engine.await.unwrap();

    // 03:07: a refund might have been executed.
    let lost = engine.execute(labelled(4711)).await;
    assert!(matches!(lost, Err(Error::Indeterminate { .. })), "{lost:?}");
    let key = IdempotencyKey::of(&labelled(4711)).to_string();
    let text = log.text();
    let warning = text
        .lines()
        .find(|line| line.contains(" WARN ") && line.contains(&key));
    let warning = warning.expect("a warning that names the key");
    println!("{warning}\n");
    // The record's name is copied exactly as the warning shows it.
    let mut words = warning.split(|c: char| c.is_whitespace() || "=\"".contains(c));
    let name = words.rfind(|word| word.ends_with(&key));
    let name = name.unwrap_or(&key).to_owned();

    let cli = Cli::on(&server);
    let said = typed(&cli, &["doctor", "--store-only"], 10).await.out;
    assert!(said.contains("1 indeterminate"), "{said}");
    let said = typed(&cli, &["list"], 0).await.out;
    assert!(said.contains("refund order 4711"), "{said}");
    let said = typed(&cli, &["show", &name], 0).await.out;
    for needed in [
        ACTION,
        "order-4711",
        "eu",
        "refund order 4711",
        "corr-4711",
        "502",
    ] {
        assert!(said.contains(needed), "show lacks {needed}: {said}");
    }
    let field = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    assert_eq!(field("key"), key);
    let version = field("version");

    // The remote system shows no booking; but the lost attempt might still be running.
    let by = [
        "resolve",
        &key,
        "--version",
        &version,
        "--by",
        "ticket 4711",
    ];
    let words = [&by[..], &["--not-applied", "--yes"]].concat();
    let said = typed(&cli, &words, 5).await.err;
    assert!(said.contains("wait until"), "{said}");
    // Then the remote system shows the booking.
    let words = [&by[..], &["--applied", "200", ANSWER]].concat();
    typed(&cli, &words, 8).await;
    let words = [&words[..], &["--yes"]].concat();
    typed(&cli, &words, 0).await;
    typed(&cli, &["list"], 0).await;
    let said = typed(&cli, &["show", &key], 0).await.out;
    assert!(said.contains("by ticket 4711"), "{said}");
    // The limit holds on a busy machine, too.
    typed(&cli, &["doctor", "--store-only", "--slow", "1m"], 0).await;

    // The next caller gets the answer, and no request is sent.
    let reply = engine.execute(labelled(4711)).await.unwrap();
    assert_eq!(reply.served(), Served::Store);
    assert_eq!(&reply.body()[..], ANSWER.as_bytes());
    assert_eq!(upstream.ledger().total(), 1);
}

/// A gateway's answer after it has lost the platform.
fn bad_gateway() -> genesys_once::Outcome {
    let mut outcome = answers::json(502, r#"{"message":"Bad Gateway"}"#);
    outcome
        .headers_mut()
        .insert("inin-correlation-id", "corr-4711".parse().unwrap());
    outcome
}
