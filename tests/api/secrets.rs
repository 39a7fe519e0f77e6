//! I7: no secret, token or payload in any output, including the log of each package at TRACE.

use std::error::Error as _;
use std::fmt::Debug;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use genesys_once::record::RecordName;
use genesys_once::testing::{GenesysSimulator, Step};
use genesys_once::upstream::AccessToken;
use genesys_once::{
    Credentials, DataActionRequest, Engine, Error, GenesysCloud, IdempotencyKey, MemoryStore,
    Store as _,
};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::own_process::{own_process, pass_alone};

/// Texts that no output may contain; each of the simulator's tokens begins like this.
const TOKEN: &str = "simulated-token-";
const PAYLOAD: &str = "card-4929-1234-payload";
const ANSWER: &str = "answer-of-a-customer";
const WRONG_SECRET: &str = "wrong-secret-0123456789";
/// The password of Redis and of a proxy, both in a URL.
const PASSWORD: &str = "password-5551234";
const WRONG_PASSWORD: &str = "wrong-password-5551234";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// All output, each with its source.
#[derive(Default)]
struct Collected(Vec<(String, String)>);

impl Collected {
    fn debug(&mut self, what: &str, value: &impl Debug) {
        self.0
            .push((what.to_owned(), format!("{value:?} {value:#?}")));
    }

    fn error(&mut self, what: &str, error: &Error) {
        self.debug(what, error);
        let mut text = format!("{error} {error:#}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(&format!(" {error} {error:#} {error:?} {error:#?}"));
            cause = error.source();
        }
        self.0.push((what.to_owned(), text));
    }

    fn assert_free_of(&self, secrets: &[String]) {
        for (what, text) in &self.0 {
            for secret in secrets {
                if let Some(at) = text.find(secret.as_str()) {
                    let near = text.as_bytes()[at.saturating_sub(200)..].iter().take(260);
                    let near =
                        String::from_utf8_lossy(&near.copied().collect::<Vec<_>>()).into_owned();
                    panic!("{what} shows {secret:?}: …{near}…");
                }
            }
        }
    }
}

/// I7. Red if `Debug` of a token or of an outcome shows its content, and if a span's field or
/// a metric's label has the payload.
#[test]
fn no_output_shows_a_secret() {
    // The log and the recorder of metrics belong to a whole process.
    pass_alone(&mut own_process(
        module_path!(),
        "with_the_log_of_a_process",
    ));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by another test, in a process of its own"]
async fn with_the_log_of_a_process() {
    #[cfg(feature = "metrics")]
    let exporter = metrics_exporter_prometheus::PrometheusBuilder::new()
        .install_recorder()
        .unwrap();
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        // Every span with all its fields, when it closes.
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();

    let mut seen = Collected::default();
    let simulator = GenesysSimulator::start().await;
    simulator.script(|call| match call.attempt() {
        1 => Step::status(401, "{}"),
        2 => Step::RateLimited(Duration::ZERO),
        _ => Step::ok(format!("{{\"a\":\"{ANSWER}\"}}")),
    });
    let upstream = || GenesysCloud::new(simulator.environment(), simulator.credentials());
    let request = || {
        DataActionRequest::new("custom_-_refund", format!("{{\"card\":\"{PAYLOAD}\"}}")).unwrap()
    };

    // All steps: token, refusal, limit, answer, replay, record.
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream()).store(store.clone());
    seen.debug("builder", &builder);
    let engine = builder.start().await.unwrap();
    let reply = engine.execute(request()).await.unwrap();
    assert_eq!(
        reply.body().as_ref(),
        format!("{{\"a\":\"{ANSWER}\"}}").as_bytes()
    );
    seen.debug("reply", &reply);
    seen.debug("outcome", reply.outcome());
    seen.debug("engine", &engine);
    seen.debug("stats", &engine.stats());
    seen.debug("request", &request());
    seen.debug("payload", request().payload());
    seen.0.pop(); // the caller's own bytes: theirs to print
    seen.debug("credentials", &simulator.credentials());
    seen.debug("upstream", &upstream());
    seen.debug("token", &AccessToken::new(format!("{TOKEN}1"), None));
    let key = IdempotencyKey::of(&request());
    seen.debug("state", &engine.inspect(&key).await.unwrap());
    let name = RecordName::new(engine.namespace().clone(), key);
    seen.debug("record", &store.look(&name).await.unwrap());
    seen.debug("message", &format!("{:?}", engine.actor()));

    // Failures of each part.
    let wrong = Credentials::new(simulator.client_id(), WRONG_SECRET);
    seen.debug("wrong credentials", &wrong);
    let refused = Engine::builder(GenesysCloud::new(simulator.environment(), wrong));
    let error = refused
        .start()
        .await
        .unwrap()
        .execute(request())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "token");
    seen.error("a refused client", &error);

    simulator.script(|_| Step::Reset);
    let other = || request().with_scope("another").unwrap();
    let error = engine.execute(other()).await.unwrap_err();
    assert_eq!(error.code(), "indeterminate");
    seen.error("a reset connection", &error);

    simulator.script(|_| Step::status(401, "{}"));
    let error = engine
        .execute(request().with_scope("third").unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "unauthorized");
    seen.error("a refused token", &error);

    simulator.refuse_connections(true).await;
    let closed = Engine::builder(upstream()).start().await.unwrap();
    let error = closed.execute(request()).await.unwrap_err();
    seen.error("a closed port", &error);
    for error in genesys_once::testing::every_error() {
        seen.error("every error", &error);
    }
    engine.shutdown(Duration::ZERO).await;
    #[cfg(feature = "redis")]
    with_redis(&mut seen, &simulator).await;
    with_proxy(&mut seen, &simulator).await;
    other_types(&mut seen).await;

    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(
        text.contains("TRACE"),
        "the log has no TRACE: it proves nothing"
    );
    for field in [
        "genesys_once.execute{",
        "correlation_id=",
        "verdict=\"final\"",
    ] {
        assert!(text.contains(field), "the log has no {field}");
    }
    seen.0.push(("the log at TRACE".to_owned(), text));
    #[cfg(feature = "metrics")]
    {
        let text = exporter.render();
        let label = "code=\"unauthorized\"} 1";
        assert!(text.contains(label), "the metrics have nothing: {text}");
        seen.0.push(("the metrics".to_owned(), text));
    }

    let basic = |secret: &str| basic_of(simulator.client_id(), secret);
    seen.assert_free_of(&[
        simulator.client_secret().to_owned(),
        basic(simulator.client_secret()),
        basic(WRONG_SECRET),
        WRONG_SECRET.to_owned(),
        PASSWORD.to_owned(),
        WRONG_PASSWORD.to_owned(),
        basic_of("proxy-user", PASSWORD),
        TOKEN.to_owned(),
        PAYLOAD.to_owned(),
        ANSWER.to_owned(),
    ]);
}

fn basic_of(user: &str, secret: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{secret}"))
}

/// Redis with a password in its URL: connected, refusing and unreachable. The records are
/// searched too.
#[cfg(feature = "redis")]
async fn with_redis(seen: &mut Collected, simulator: &GenesysSimulator) {
    use genesys_once::RedisStore;

    let mut server = crate::support::redis::Options::default()
        .password(PASSWORD)
        .start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    seen.debug("redis store", &store);
    seen.debug("durability", &store.durability());
    simulator.refuse_connections(false).await;
    simulator.script(|_| Step::status(400, "{}"));
    let upstream = GenesysCloud::new(simulator.environment(), simulator.credentials());
    let engine = Engine::builder(upstream).store(store);
    seen.debug("builder over redis", &engine);
    let engine = engine.start().await.unwrap();
    let payload = format!("{{\"card\":\"{PAYLOAD}\"}}");
    let request = DataActionRequest::new("custom_-_refund", payload).unwrap();
    engine.execute(request.clone()).await.unwrap();
    simulator.script(|_| Step::ok(format!("{{\"a\":\"{ANSWER}\"}}")));
    let sensitive = request.clone().with_scope("sensitive").unwrap().sensitive();
    engine.execute(sensitive).await.unwrap();
    let mut keys: Vec<String> = server.command(&["KEYS", "*"]);
    // The marker of the shard is no record.
    keys.retain(|key| !key.contains(":shard:"));
    assert_eq!(keys.len(), 2);
    for key in keys {
        let record: Vec<u8> = server.command(&["GET", &key]);
        let text = String::from_utf8_lossy(&record).into_owned();
        assert!(text.starts_with("genesys-once/3 cached"), "{text}");
        seen.0.push((format!("the record {key}"), text));
    }

    let wrong = server.url().replace(PASSWORD, WRONG_PASSWORD);
    assert_ne!(wrong, server.url());
    let error = RedisStore::connect(&wrong).await.unwrap_err();
    seen.error("a wrong password", &error);
    let url = server.url();
    server.kill();
    let later = request.with_scope("later").unwrap();
    let error = engine.execute(later).await.unwrap_err();
    assert_eq!(error.code(), "store_unavailable");
    seen.error("a dead server", &error);
    let error = RedisStore::connect(&url).await.unwrap_err();
    seen.error("an unreachable server", &error);
    let error = RedisStore::connect(&format!("redis://:{PASSWORD}@[")).await;
    seen.error("a broken url", &error.unwrap_err());
}

/// A proxy with a password in its URL: unreachable, refusing, and malformed.
async fn with_proxy(seen: &mut Collected, simulator: &GenesysSimulator) {
    let upstream = |proxy: &str| {
        let cloud = GenesysCloud::new(simulator.environment(), simulator.credentials());
        // The platform of this test has no TLS.
        cloud.proxy(proxy).allow_insecure()
    };
    let request = DataActionRequest::new("custom_-_refund", "{}").unwrap();
    // The simulator is no proxy, and refuses the request.
    let host = simulator.base_url().trim_start_matches("http://");
    for address in ["127.0.0.1:9", host] {
        let proxy = format!("http://proxy-user:{PASSWORD}@{address}");
        let builder = Engine::builder(upstream(&proxy));
        seen.debug("builder with a proxy", &upstream(&proxy));
        let engine = builder.start().await.unwrap();
        let answer = engine.execute(request.clone()).await;
        seen.debug("the answer through a proxy", &answer);
        if let Err(error) = answer {
            seen.error("a proxy", &error);
        }
    }
    let broken = format!("socks5://proxy-user:{PASSWORD}@127.0.0.1:9");
    let error = Engine::builder(upstream(&broken)).start().await;
    seen.error("a broken proxy", &error.unwrap_err());
    let url = format!("https://user:{PASSWORD}@127.0.0.1/");
    let error = genesys_once::Environment::from_base_url(&url).unwrap_err();
    seen.error("a base url with a password", &error);
}

/// Other types with `Debug` that hold a part of a request or a token.
async fn other_types(seen: &mut Collected) {
    use genesys_once::execution::{Attempt, Execution, Lock, Terms};
    use genesys_once::testing::{ScriptedTokens, ScriptedUpstream};
    use genesys_once::upstream::Call;
    use genesys_once::{EngineMessage, Resolution, Upstream as _};

    let payload = || format!("{{\"card\":\"{PAYLOAD}\"}}");
    let request = || DataActionRequest::new("custom_-_refund", payload()).unwrap();
    seen.debug("call", &Call::new(request(), 1));
    seen.debug("payload", &genesys_once::request::Payload::from(payload()));
    let (port, _answer) = tokio::sync::oneshot::channel();
    let message = EngineMessage::Execute(request(), port.into());
    seen.debug("message with a request", &message);
    let answer = || format!("{{\"a\":\"{ANSWER}\"}}");
    let tokens = ScriptedTokens::lasting(Duration::from_secs(60));
    let upstream = ScriptedUpstream::new(move |_| Step::ok(answer())).with_tokens(tokens);
    let token = upstream.token_source().unwrap().fetch().await.unwrap();
    seen.debug("a fetched token", &token);
    let store = MemoryStore::new();
    let hashed = Execution::new(request(), upstream.namespace());
    seen.debug("hashed", &hashed);
    let Lock::Locked(locked) = hashed.lock(&store, &Terms::default()).await.unwrap() else {
        panic!("the key has no other holder");
    };
    seen.debug("locked", &locked);
    seen.debug("progress", locked.progress());
    let attempt = locked.execute(&store, &upstream, Some(&token)).await;
    let Attempt::Executed(executed) = attempt.unwrap() else {
        panic!("a 200 is final");
    };
    seen.debug("executed", &executed);
    let cached = executed.cache(&store).await.unwrap();
    seen.debug("cached", &cached);
    seen.debug("store", &store);
    let outcome = cached.into_reply().outcome().clone();
    seen.debug("resolution", &Resolution::applied((*outcome).clone()));
    let name = RecordName::new(upstream.namespace(), IdempotencyKey::of(&request()));
    seen.debug("state of a record", &store.look(&name).await.unwrap());
}
