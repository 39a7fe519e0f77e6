//! Which connections are reused, on which runtime, and what engines share.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use genesys_once::{Engine, MemoryStore, Upstream};
use tokio::time::timeout;

use super::server::{Server, answer};
use super::{call, cloud, send};

/// A limit that every machine meets; nothing is measured.
const LONG: Duration = Duration::from_secs(30);

/// An answer that is valid for a token endpoint and for an action.
const BOTH: &str = r#"{"access_token":"t","token_type":"bearer","expires_in":3600}"#;

/// A server in threads of its own, which runs while the client's runtime is blocked. It
/// runs `script` for each connection, and counts the connections.
pub fn in_threads(
    script: impl Fn(TcpStream) + Clone + Send + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::<AtomicUsize>::default();
    let count = accepted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let (stream, script) = (stream.unwrap(), script.clone());
            std::thread::spawn(move || script(stream));
        }
    });
    (url, accepted)
}

/// Reads one request and returns its head; `None` if the connection ends.
pub fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some(head)
}

/// Red unless the runtime is polled before the client sends: each request was written into
/// the closed connection, and its outcome was unknown.
#[tokio::test]
async fn closed_connection_is_not_reused_after_stall() {
    let (end, signal) = mpsc::channel::<()>();
    let (ended, has_ended) = mpsc::channel();
    let signal = Arc::new(std::sync::Mutex::new(signal));
    let (url, accepted) = in_threads(move |mut stream| {
        request(&mut stream).unwrap();
        let answer = answer("200 OK", "", "{}");
        stream.write_all(answer.as_bytes()).unwrap();
        signal.lock().unwrap().recv().unwrap();
        drop(stream);
        ended.send(()).unwrap();
    });
    let cloud = cloud(&url);
    for n in 0..10 {
        send(&cloud, &call(n.to_string())).await.unwrap();
        // The runtime's only thread is busy until the connection has ended.
        end.send(()).unwrap();
        has_ended.recv().unwrap();
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 10);
}

/// The HTTP client ensures this.
#[tokio::test]
async fn connection_with_unexpected_bytes_is_not_reused() {
    const EVIL: &str = r#"{"evil":1}"#;
    for with_the_answer in [true, false] {
        let server = Server::start(move |mut connection| async move {
            connection.request().await;
            let (answer, evil) = (answer("200 OK", "", "{}"), answer("200 OK", "", EVIL));
            if with_the_answer {
                connection.write((answer + &evil).as_bytes()).await;
            } else {
                connection.write(answer.as_bytes()).await;
                connection.write(evil.as_bytes()).await;
            }
            connection.until_closed().await;
        })
        .await;
        let cloud = cloud(&server.url());
        for n in 1..=10 {
            let outcome = send(&cloud, &call(n.to_string())).await.unwrap();
            assert_eq!(outcome.body(), "{}");
            // The client closes the connection.
            timeout(LONG, server.idle()).await.unwrap();
            assert_eq!(server.connections(), n);
        }
    }
}

/// The same while no task of the client is polled. Red unless the runtime is polled before
/// the client sends: the second call gets the unexpected bytes as its answer.
#[tokio::test]
async fn unexpected_bytes_after_stall_are_no_answer() {
    let (go, signal) = mpsc::channel::<()>();
    let (sent, was_sent) = mpsc::channel();
    let signal = Arc::new(std::sync::Mutex::new(signal));
    let (url, accepted) = in_threads(move |mut stream| {
        request(&mut stream).unwrap();
        let good = answer("200 OK", "", "{}");
        stream.write_all(good.as_bytes()).unwrap();
        signal.lock().unwrap().recv().unwrap();
        let evil = answer("200 OK", "", r#"{"evil":1}"#);
        stream.write_all(evil.as_bytes()).unwrap();
        sent.send(()).unwrap();
        // The client closes the connection, and sends no other request on it.
        assert_eq!(request(&mut stream), None);
    });
    let cloud = cloud(&url);
    for n in 0..10 {
        let outcome = send(&cloud, &call(n.to_string())).await.unwrap();
        assert_eq!(outcome.body(), "{}");
        go.send(()).unwrap();
        was_sent.recv().unwrap();
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 10);
}

/// Red if the client keeps connections.
#[tokio::test]
async fn zero_idle_timeout_opens_connection_per_call() {
    for (limit, connections) in [(None, 1), (Some(LONG), 1), (Some(Duration::ZERO), 5)] {
        let server = Server::answering(answer("200 OK", "", "{}")).await;
        let cloud = cloud(&server.url());
        let cloud = match limit {
            Some(limit) => cloud.idle_timeout(limit),
            None => cloud,
        };
        for n in 0..5 {
            send(&cloud, &call(n.to_string())).await.unwrap();
        }
        assert_eq!(server.connections(), connections, "{limit:?}");
        if limit == Some(Duration::ZERO) {
            timeout(LONG, server.idle()).await.unwrap();
        }
    }
}

/// A connection is a task of the runtime that made it. Red with one client for all runtimes:
/// the second call waits for the first runtime's connection until it times out.
#[test]
fn connection_of_idle_runtime_is_not_used() {
    let (url, accepted) = in_threads(|mut stream| {
        while request(&mut stream).is_some() {
            let answer = answer("200 OK", "", BOTH);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (side, main) = (runtime(), runtime());
    let cloud = cloud(&url).attempt_timeout(Duration::from_secs(5));
    let tokens = side.block_on(async { cloud.token_source().unwrap() });
    side.block_on(send(&cloud, &call("1"))).unwrap();
    // From here on nothing drives the side runtime.
    main.block_on(send(&cloud, &call("2"))).unwrap();
    main.block_on(tokens.fetch()).unwrap();
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
    // Each runtime continues with its own connection.
    side.block_on(send(&cloud, &call("3"))).unwrap();
    main.block_on(send(&cloud, &call("4"))).unwrap();
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

/// Red if the upstream has only the limit of the engine that started last.
#[tokio::test]
async fn engines_of_one_upstream_keep_their_limits() {
    let server = Server::answering(answer("200 OK", "", BOTH)).await;
    let cloud = Arc::new(cloud(&server.url()));
    let engine = || Engine::builder(cloud.clone()).store(MemoryStore::new());
    let large = engine().start().await.unwrap();
    let small = engine().max_response_bytes(4).start().await.unwrap();
    let request = |payload: &str| call(payload).request().clone();
    let reply = large.execute(request("1")).await.unwrap();
    assert_eq!(reply.body(), BOTH);
    let reply = small.execute(request("2")).await;
    assert!(reply.is_err() || reply.unwrap().body().is_empty());
    let reply = large.execute(request("3")).await.unwrap();
    assert_eq!(reply.body(), BOTH);
}
