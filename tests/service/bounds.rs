//! Clients that take a place and do not use it: half a head, half a body, an answer that they
//! do not read. The service serves the other clients meanwhile.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use genesys_once::testing::{GenesysSimulator, Step};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http_client::{parse, rest};
use crate::process::{Service, Settings};
use crate::support::eventually;
use crate::support::redis::RedisServer;

const EXECUTE: &str = "POST /actions/refund/execute HTTP/1.1\r\nhost: x\r\n\
                       content-type: application/json\r\n";

async fn connect(service: &Service, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&service.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// All places are taken by slow clients. Seen red without `header_read_timeout`: no client
/// was answered after that.
#[tokio::test]
async fn idle_connections_keep_no_place() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_CONNECTIONS", "4")
        .set("SERVICE_IDLE_SECONDS", "1")
        .start()
        .await;
    let mut slow = vec![
        connect(&service, "").await,
        connect(&service, EXECUTE).await,
        connect(&service, "GET /livez HTT").await,
    ];
    let mut idle = connect(&service, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    slow.push(idle);

    assert_eq!(service.get("/livez").await.status, 200);
    for mut client in slow {
        rest(&mut client).await.unwrap();
    }
    assert_eq!(platform.ledger().total(), 0);
}

/// Seen red without the time-out in `bodies::collect`: the client had no answer.
#[tokio::test]
async fn half_a_body_is_not_waited_for() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_BODY_SECONDS", "1")
        .start()
        .await;
    let text = format!("{EXECUTE}content-length: 100\r\n\r\n{{");
    let mut client = connect(&service, &text).await;
    let answer = parse(&rest(&mut client).await.unwrap()).unwrap();
    answer.problem(408, "request_timeout");
    assert_eq!(platform.ledger().total(), 0);
}

/// A client without a token uses no memory that is reserved for callers' bodies. Red if a
/// login's body counts towards the same total.
#[tokio::test]
async fn forms_take_nothing_of_the_bodies() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_BODY_LIMIT", "1000")
        .set("SERVICE_BODY_TOTAL", "1000")
        .start()
        .await;
    let form = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: 990\r\n\r\ntoken={}",
            "x".repeat(900)
        )
    };
    let mut halves = Vec::new();
    for path in ["/login", "/logout", "/end-cooldown"] {
        halves.push(connect(&service, &form(path)).await);
    }
    // The service redirects this client to the login before it reads any of the body.
    let mut resolve = connect(&service, &form("/resolve")).await;
    let mut answer = [0; 12];
    resolve.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 303");
    let payload = format!("\"{}\"", "y".repeat(298));
    assert_eq!(service.execute(&payload).await.status, 200);
    drop(halves);
}

/// Seen red if bodies are not counted: the other request was executed.
#[tokio::test]
async fn bodies_are_counted_over_all_connections() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_BODY_LIMIT", "1000")
        .set("SERVICE_BODY_TOTAL", "1000")
        .start()
        .await;
    let half = format!("{EXECUTE}content-length: 990\r\n\r\n\"{}", "x".repeat(900));
    let other = format!("\"{}\"", "y".repeat(298));
    let mut client = None;
    eventually("half a body uses up the memory", async || {
        // A new connection each time: this client is refused itself if the other request
        // comes first.
        client = Some(connect(&service, &half).await);
        let answer = service.execute(&other).await;
        if answer.status == 200 {
            return false;
        }
        let refused = answer.problem(503, "overloaded");
        refused["retryable"] == true
    })
    .await;
    drop(client);
    eventually("memory is free again", async || {
        service.execute(&other).await.status == 200
    })
    .await;
}

/// The engine might keep a body as long as its call is under way, even if no client waits
/// for the answer.
///
/// Red if the handler ends with its connection, and the body with it: the other request was
/// executed.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_body_counts_until_its_answer() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    // Dropped before the platform, so that nothing waits for it without end.
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    platform.script(move |call| {
        if call.body().starts_with(b"\"x") {
            let _ = tokio::task::block_in_place(|| held.lock().unwrap().recv());
        }
        Step::ok("{}")
    });
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_BODY_LIMIT", "1000")
        .set("SERVICE_BODY_TOTAL", "1000")
        // The next client is served only after this connection has ended.
        .set("SERVICE_CONNECTIONS", "1")
        .start()
        .await;
    let body = format!("\"{}\"", "x".repeat(898));
    let text = format!("{EXECUTE}content-length: {}\r\n\r\n{body}", body.len());
    let client = connect(&service, &text).await;
    platform.ledger().wait_for(1).await;
    drop(client);
    let other = format!("\"{}\"", "y".repeat(298));
    let refused = service.execute(&other).await;
    refused.problem(503, "overloaded");
    let_go.send(()).unwrap();
    eventually("memory is free again", async || {
        service.execute(&other).await.status == 200
    })
    .await;
    assert_eq!(platform.ledger().total(), 2);
}

/// Seen red without the time-out of writes: the only place was never free again.
#[tokio::test]
async fn unread_answer_keeps_no_place() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    // More than the system buffers for the client.
    let large = format!("\"{}\"", "x".repeat(7 << 20));
    platform.script(move |_| Step::ok(large.clone()));
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_CONNECTIONS", "1")
        .set("SERVICE_IDLE_SECONDS", "1")
        .start()
        .await;
    let text = format!("{EXECUTE}content-length: 1\r\n\r\n1");
    let _client = connect(&service, &text).await;
    platform.ledger().wait_for(1).await;
    assert_eq!(service.get("/livez").await.status, 200);
}

/// An execution may take longer than the time-outs of its connection.
#[tokio::test]
async fn answer_may_take_longer_than_a_head() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.latency(Duration::from_secs(3));
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_IDLE_SECONDS", "1")
        .set("SERVICE_BODY_SECONDS", "1")
        .start()
        .await;
    assert_eq!(service.execute("1").await.status, 200);
}
