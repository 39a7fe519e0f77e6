//! The service's end: SIGTERM with callers in flight, and what the next process finds.

use std::time::Duration;

use genesys_once::record::{RecordName, RecordState};
use genesys_once::testing::{GenesysSimulator, Step};
use genesys_once::{GenesysCloud, RedisStore, Store as _, Upstream as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::http_client::Answer;
use crate::key;
use crate::process::{Service, Settings, execute};
use crate::support::eventually;
use crate::support::redis::RedisServer;

const ORDERS: usize = 30;
const CALLERS: usize = 150;

/// Callers in flight; the engine has admitted all of them.
async fn callers(
    service: &Service,
    platform: &GenesysSimulator,
) -> Vec<JoinHandle<std::io::Result<Answer>>> {
    let callers = (0..CALLERS).map(|caller| {
        let payload = format!(r#"{{"order":{}}}"#, caller % ORDERS);
        let address = service.address.clone();
        tokio::spawn(async move { execute(&address, &payload, &[]).await })
    });
    let callers = callers.collect();
    platform.ledger().wait_for(ORDERS).await;
    eventually("all callers wait", async || {
        service.get("/readyz").await.json()["waiting"] == CALLERS
    })
    .await;
    callers
}

async fn record(redis: &RedisServer, platform: &GenesysSimulator, order: usize) -> RecordState {
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    let upstream = GenesysCloud::new(platform.environment(), platform.credentials());
    let name = RecordName::new(upstream.namespace(), key(order));
    store.look(&name).await.unwrap().unwrap()
}

/// Seen red without a grace period for executions, with the server aborted at the signal,
/// and with a server that does not stop.
#[tokio::test]
async fn callers_in_flight_are_answered_before_the_end() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.script(|_| Step::ok(r#"{"refund":"R"}"#).after(Duration::from_secs(5)));
    let settings = Settings::of(&platform).set("REDIS_URL", redis.url());
    let service = settings.start().await;
    let callers = callers(&service, &platform).await;

    service.terminate();
    for caller in callers {
        let answer = caller.await.unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"refund":"R"}"#)
        );
    }
    let address = service.address.clone();
    let (code, said) = service.end().await;
    assert_eq!(code, Some(0));
    assert_eq!(
        said.trim(),
        format!("drained        {ORDERS} finished, 0 cut off")
    );
    assert!(TcpStream::connect(&address).await.is_err());
    for order in 0..ORDERS {
        let record = record(&redis, &platform, order).await;
        assert!(matches!(record, RecordState::Cached { .. }), "{record:?}");
    }

    // The next process replays, and makes no call.
    let service = settings.start().await;
    let replay = service.execute(r#"{"order":0}"#).await;
    assert_eq!(replay.header("genesys-once-served"), "store");
    platform
        .ledger()
        .assert_exactly_once(&(0..ORDERS).map(key).collect::<Vec<_>>());
}

/// A platform that does not answer in time: callers get an error, and the records say that
/// nothing is known.
#[tokio::test]
async fn callers_get_what_is_known_after_the_grace() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.script(|_| Step::Silent);
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_GRACE_SECONDS", "1")
        .start()
        .await;
    let callers = callers(&service, &platform).await;
    service.terminate();
    for caller in callers {
        let document = caller.await.unwrap().unwrap().problem(503, "stopped");
        assert_eq!(document["retryable"], true);
    }
    let (code, said) = service.end().await;
    assert_eq!(code, Some(0));
    assert_eq!(
        said.trim(),
        format!("drained        0 finished, {ORDERS} cut off")
    );
    for order in 0..ORDERS {
        let record = record(&redis, &platform, order).await;
        assert!(
            matches!(record, RecordState::Indeterminate { .. }),
            "{record:?}"
        );
    }
}

/// Load balancers need time to send requests elsewhere. Seen red if `livez` uses `ready`.
#[tokio::test]
async fn readiness_ends_first_and_second_signal_ends_all() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_READY_DELAY_SECONDS", "3600")
        .start()
        .await;
    assert_eq!(service.get("/readyz").await.status, 200);
    service.terminate();
    eventually("the service is not ready", async || {
        let ready = service.get("/readyz").await;
        ready.status == 503 && ready.json()["status"] == "draining"
    })
    .await;
    assert_eq!(service.get("/livez").await.status, 200);
    assert_eq!(service.execute("1").await.status, 200);
    service.terminate();
    assert_eq!(service.end().await.0, Some(143));
}

/// Seen red with the delay after every signal.
#[tokio::test]
async fn interrupt_skips_the_ready_delay() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_READY_DELAY_SECONDS", "3600")
        .start()
        .await;
    service.signal("INT");
    assert_eq!(service.end().await.0, Some(0));
}

#[tokio::test]
async fn restart_on_the_same_file_replays() {
    let folder = std::env::temp_dir().join(format!("service-file-{}", std::process::id()));
    let platform = GenesysSimulator::start().await;
    let file = folder.join("records.redb");
    let settings = Settings::of(&platform).set("SERVICE_FILE", file.to_str().unwrap());
    let mut bodies = Vec::new();
    let service = settings.start().await;
    for order in 0..20 {
        let answer = service.execute(&format!(r#"{{"order":{order}}}"#)).await;
        assert_eq!(answer.status, 200);
        bodies.push(answer.body);
    }
    service.terminate();
    assert_eq!(service.end().await.0, Some(0));

    let service = settings.start().await;
    for (order, body) in bodies.iter().enumerate() {
        let answer = service.execute(&format!(r#"{{"order":{order}}}"#)).await;
        assert_eq!(answer.header("genesys-once-served"), "store");
        assert_eq!(answer.body, *body);
    }
    assert_eq!(platform.ledger().total(), 20);
    drop(service);
    std::fs::remove_dir_all(folder).unwrap();
}
