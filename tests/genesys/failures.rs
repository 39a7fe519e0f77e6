//! Failures of a call over plain TCP: which of them prove that the request was not sent, and
//! that the client never retries.

use std::collections::HashSet;
use std::time::Duration;

use genesys_once::outcome::BodyEnd;
use genesys_once::{GenesysCloud, Upstream};

use super::server::{Server, answer};
use super::{call, cloud, may_have_left, printed, send};

/// A time limit for a server that never answers; nothing is measured.
const SOON: Duration = Duration::from_millis(300);

/// A platform behind this proxy.
fn proxied(proxy: String) -> GenesysCloud {
    cloud("http://127.0.0.1:9").allow_insecure().proxy(proxy)
}

/// The URL of a loopback port without a listener.
async fn unused_port() -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn unreachable_host_proves_unsent() {
    assert!(!may_have_left(&cloud(&unused_port().await)).await);
    let unknown = cloud("http://genesys-once.invalid").allow_insecure();
    assert!(!may_have_left(&unknown).await);
    // An unreachable proxy means no connection either.
    assert!(!may_have_left(&proxied(unused_port().await)).await);
}

#[tokio::test]
async fn failure_after_sending_proves_nothing() {
    // The body begins after a head of some hundred bytes.
    let large = || call(format!("\"{}\"", "x".repeat(10_000)));
    let reset = Server::start(|mut connection| async {
        connection.skip(1_000).await;
        connection.reset();
    })
    .await;
    let error = send(&cloud(&reset.url()), &large()).await.unwrap_err();
    assert!(error.may_have_left());

    let closed = Server::start(|mut connection| async {
        connection.skip(1_000).await;
        connection.close().await;
    })
    .await;
    let error = send(&cloud(&closed.url()), &large()).await.unwrap_err();
    assert!(error.may_have_left());

    let reset_after = Server::start(|mut connection| async {
        connection.request().await;
        connection.reset();
    })
    .await;
    assert!(may_have_left(&cloud(&reset_after.url())).await);
    assert_eq!(reset_after.requests().len(), 1);

    let closed_after = Server::start(|mut connection| async {
        connection.request().await;
        connection.close().await;
    })
    .await;
    assert!(may_have_left(&cloud(&closed_after.url())).await);
    assert_eq!(closed_after.requests().len(), 1);
}

#[tokio::test]
async fn timed_out_attempt_proves_nothing() {
    let silent = Server::start(|mut connection| async move {
        connection.request().await;
        connection.until_closed().await;
    })
    .await;
    assert!(may_have_left(&cloud(&silent.url()).attempt_timeout(SOON)).await);
    assert_eq!(silent.requests().len(), 1);

    let stuck = Server::start(|mut connection| async move {
        connection.request().await;
        connection
            .write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
            .await;
        connection.until_closed().await;
    })
    .await;
    assert!(may_have_left(&cloud(&stuck.url()).attempt_timeout(SOON)).await);
}

#[tokio::test]
async fn broken_answer_proves_nothing() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "\u{0}\u{0}\u{0}",
    ] {
        let server = Server::start(move |mut connection| async move {
            connection.request().await;
            connection.write(text.as_bytes()).await;
            connection.close().await;
        })
        .await;
        assert!(may_have_left(&cloud(&server.url())).await, "{text}");
        assert_eq!(server.requests().len(), 1, "{text}");
    }
}

#[tokio::test]
async fn answer_beyond_the_limit_is_dropped() {
    let refused = Server::answering(answer("403 Forbidden", "", "123456789")).await;
    let small = call("{}").with_max_response_bytes(8);
    let error = send(&cloud(&refused.url()), &small).await.unwrap_err();
    assert!(error.may_have_left());
    assert!(
        printed(&error).contains("the answer is larger than 8 bytes"),
        "{error:?}"
    );
    let announced = Server::answering(answer("200 OK", "", "123456789")).await;
    // No byte of the body is sent, so the header alone must be enough.
    let gigantic = Server::start(|mut connection| async move {
        connection.request().await;
        connection
            .write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000000\r\n\r\n")
            .await;
        connection.until_closed().await;
    })
    .await;
    let endless = Server::start(|mut connection| async move {
        connection.request().await;
        connection
            .write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        while connection.write(b"4\r\nabcd\r\n").await {}
    })
    .await;
    let unframed = Server::start(|mut connection| async move {
        connection.request().await;
        connection.write(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while connection.write(b"abcd").await {}
    })
    .await;
    for server in [announced, gigantic, endless, unframed] {
        let call = call("{}").with_max_response_bytes(8);
        // The status of a success is all that callers need.
        let outcome = send(&cloud(&server.url()), &call).await.unwrap();
        assert_eq!(outcome.status(), 200);
        assert_eq!(
            (outcome.body_end(), outcome.body().len()),
            (BodyEnd::Unread, 0)
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn failure_of_pooled_connection_proves_nothing() {
    let server = Server::start(|mut connection| async move {
        connection.request().await;
        connection.write(answer("200 OK", "", "").as_bytes()).await;
        connection.request().await;
        connection.reset();
    })
    .await;
    let cloud = cloud(&server.url());
    send(&cloud, &call("1")).await.unwrap();
    assert!(send(&cloud, &call("2")).await.unwrap_err().may_have_left());
    // Both requests used one connection, and the second was not sent again.
    assert_eq!((server.connections(), server.requests().len()), (1, 2));
}

#[tokio::test]
async fn closing_idle_connection_doubles_no_request() {
    // Each connection is closed right after its answer, so that requests race with the
    // close. Every request is answered, or has an unknown outcome, or is proven unsent.
    let server = Server::start(|mut connection| async move {
        connection.request().await;
        connection.write(answer("200 OK", "", "").as_bytes()).await;
        connection.close().await;
    })
    .await;
    let cloud = cloud(&server.url());
    let mut unsent = HashSet::new();
    for n in 0..200 {
        if let Err(error) = send(&cloud, &call(n.to_string())).await
            && !error.may_have_left()
        {
            unsent.insert(n.to_string());
        }
    }
    let bodies = bodies(&server);
    let once: HashSet<_> = bodies.iter().cloned().collect();
    assert_eq!(once.len(), bodies.len());
    assert!(once.is_disjoint(&unsent), "{unsent:?}");
}

/// The proof is true even if the server closes each connection at once and still reads all
/// bytes.
#[tokio::test(flavor = "multi_thread")]
async fn proof_after_immediate_close_is_true() {
    let server = Server::start(|mut connection| async move {
        connection.end().await;
        connection.request().await;
    })
    .await;
    let cloud = cloud(&server.url());
    let (mut unsent, mut unknown) = (HashSet::new(), 0);
    for n in 0..200 {
        let error = send(&cloud, &call(n.to_string())).await.unwrap_err();
        match error.may_have_left() {
            true => unknown += 1,
            false => drop(unsent.insert(n.to_string())),
        }
    }
    let came: HashSet<_> = bodies(&server).into_iter().collect();
    assert!(came.is_disjoint(&unsent), "{unsent:?}");
    println!("unsent: {}, unknown: {unknown}", unsent.len());
}

fn bodies(server: &Server) -> Vec<String> {
    let body = |text: String| text.split("\r\n\r\n").nth(1).map(str::to_owned);
    server.requests().into_iter().filter_map(body).collect()
}

/// A runtime without a driver makes the client panic, as a system without threads does. Red
/// if the panic reaches the caller.
#[test]
fn panic_of_client_proves_unsent() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    runtime.block_on(async {
        let cloud = cloud("http://127.0.0.1:9");
        let error = send(&cloud, &call("{}")).await.unwrap_err();
        assert!(!error.may_have_left());
        assert!(printed(&error).contains("the HTTP client panicked"));
        let tokens = cloud.token_source().unwrap();
        let error = tokens.fetch().await.unwrap_err();
        assert!(printed(&error).contains("the HTTP client panicked"));
    });
}

/// Red if names are resolved in the runtime's blocking threads: the attempt ends with the
/// time limit for connecting.
#[test]
fn name_is_resolved_with_busy_blocking_pool() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (free, busy) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || busy.recv());
    let answered = runtime.block_on(async {
        let server = Server::answering(answer("200 OK", "", "{}")).await;
        let cloud = cloud(&server.url().replace("127.0.0.1", "localhost"));
        send(&cloud, &call("{}")).await
    });
    drop(free);
    assert_eq!(answered.unwrap().body(), "{}");
}
