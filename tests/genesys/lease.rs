//! I1 on real sockets: a request does not leave on a connection that took longer than the
//! lease, and that proves that the request was not sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::error::SendError;
use genesys_once::record::{Event, Namespace, RecordState};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{Fault, FaultyStore};
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{
    DataActionRequest, Engine, GenesysCloud, IdempotencyKey, MemoryStore, Outcome, RetryPolicy,
    Upstream,
};
use tokio::sync::watch;

use super::server::{Server, answer};
use super::tls::identity;
use super::{cloud, eventually};

/// Long enough that any machine begins to connect, short enough for a test.
const LEASE: Duration = Duration::from_millis(500);

/// The store is unreachable while the connection's handshake takes longer than the lease.
///
/// Red if `GatedBody` does not check the lease: the request then leaves after the handshake.
/// Red if an unsent body is no proof: the key is then indeterminate, and nothing was sent.
#[tokio::test(flavor = "multi_thread")]
async fn handshake_beyond_the_lease_sends_nothing() {
    let (acceptor, pem) = identity(false);
    let (shake, hands) = watch::channel(true);
    let server = Server::start(move |connection| {
        let (acceptor, mut hands) = (acceptor.clone(), hands.clone());
        async move {
            let connection = connection
                .upgrade(|tcp| async move {
                    let _ = hands.wait_for(|shake| *shake).await;
                    acceptor.accept(tcp).await
                })
                .await;
            let Ok(mut connection) = connection else {
                return;
            };
            while let Some(request) = connection.request().await {
                let token = r#"{"access_token":"t","token_type":"bearer","expires_in":3600}"#;
                let is_token = request.starts_with("POST /oauth/token");
                // Each request uses its own connection, so that each needs a handshake.
                let close = "connection: close\r\n";
                let text = answer("200 OK", close, if is_token { token } else { "{}" });
                connection.write(text.as_bytes()).await;
            }
        }
    })
    .await;
    let executed = || {
        let is_execute = |text: &&String| !text.starts_with("POST /oauth/token");
        server.requests().iter().filter(is_execute).count()
    };
    let (store, down) = (MemoryStore::new(), Arc::new(AtomicBool::new(false)));
    let faulty = FaultyStore::new(store, {
        let down = down.clone();
        move |operation| match operation.event {
            Some(Event::Extend { .. }) if down.load(Ordering::SeqCst) => Fault::Fail,
            _ => Fault::Pass,
        }
    });
    let engine = Engine::builder(cloud(&server.https_url()).root_certificate(pem))
        .store(faulty)
        .lease(LEASE)
        .store_timeout(LEASE)
        .start()
        .await
        .unwrap();
    let request = |payload: &str| DataActionRequest::new("custom_-_1", payload).unwrap();
    // From here on the engine has a token.
    engine.execute(request("[0]")).await.unwrap();
    assert_eq!(executed(), 1);

    down.store(true, Ordering::SeqCst);
    shake.send_replace(false);
    let before = server.connections();
    let caller = tokio::spawn({
        let (engine, request) = (engine.clone(), request("[1]"));
        async move { engine.execute(request).await }
    });
    let key = IdempotencyKey::of(&request("[1]"));
    eventually("the call connects, and its lease expires", async || {
        let state = engine.inspect(&key).await.unwrap();
        let expired =
            matches!(&state, Some(RecordState::Locked { lease_left, .. }) if lease_left.is_zero());
        expired && server.connections() > before
    })
    .await;
    shake.send_replace(true);
    // The attempt is over: nothing was executed, and the key is released or tried again.
    eventually("the attempt is over", async || {
        engine.stats().calls_not_executed > 0
    })
    .await;
    assert_eq!(executed(), 1, "the request left after its lease");
    assert_eq!(engine.stats().calls_unknown, 0);

    // When the store is back, the same execution continues, once.
    down.store(false, Ordering::SeqCst);
    let reply = tokio::time::timeout(Duration::from_secs(60), caller)
        .await
        .expect("the caller is answered")
        .unwrap()
        .unwrap();
    assert!(reply.recorded());
    assert_eq!(executed(), 2);
}

/// `GenesysCloud` with a token, whose attempts the engine ends early.
struct Impatient(GenesysCloud, Duration);

impl Upstream for Impatient {
    fn namespace(&self) -> Namespace {
        self.0.namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        _: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async { self.0.send(call, Some(&AccessToken::new("t", None))).await })
    }

    fn attempt_timeout(&self) -> Duration {
        self.1
    }
}

/// An attempt that ends while it connects was not executed, and the next attempt may be.
/// Red if only the upstream's errors are evidence: each key is then indeterminate.
#[tokio::test(flavor = "multi_thread")]
async fn attempt_ended_while_connecting_is_unsent() {
    type Ending = fn(&Engine);
    let killed: Ending = |engine| {
        let children = engine.actor().get_cell().get_children();
        assert_eq!(children.len(), 1);
        children[0].kill();
    };
    let shut_down: Ending = |engine| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.shutdown(Duration::ZERO).await });
    };
    let timed_out: Ending = |_| {};
    for (name, end, limit, code) in [
        ("killed", killed, 60, "crashed"),
        ("shut down", shut_down, 60, "stopped"),
        ("timed out", timed_out, 1, "unreachable"),
    ] {
        let (acceptor, pem) = identity(false);
        let (shake, hands) = watch::channel(false);
        let server = Server::start(move |connection| {
            let (acceptor, mut hands) = (acceptor.clone(), hands.clone());
            async move {
                let connection = connection.upgrade(|tcp| async move {
                    let _ = hands.wait_for(|shake| *shake).await;
                    acceptor.accept(tcp).await
                });
                let Ok(mut connection) = connection.await else {
                    return;
                };
                while connection.request().await.is_some() {
                    connection
                        .write(answer("200 OK", "", "{}").as_bytes())
                        .await;
                }
            }
        })
        .await;
        let store = MemoryStore::new();
        let start = async |limit| {
            let cloud = cloud(&server.https_url()).root_certificate(&pem);
            let cloud = cloud.connect_timeout(Duration::from_secs(30));
            let upstream = Impatient(cloud, Duration::from_secs(limit));
            let engine = Engine::builder(upstream).store(store.clone());
            let once = RetryPolicy::default().attempts(1);
            engine.retry(once).start().await.unwrap()
        };
        let request = DataActionRequest::new("custom_-_1", "{}").unwrap();
        let engine = start(limit).await;
        let caller = tokio::spawn({
            let (engine, request) = (engine.clone(), request.clone());
            async move { engine.execute(request).await }
        });
        eventually("the call connects", async || server.connections() == 1).await;
        end(&engine);
        let error = caller.await.unwrap().unwrap_err();
        assert_eq!(error.code(), code, "{name}");

        let engine = start(60).await;
        let key = IdempotencyKey::of(&request);
        eventually("the record has ended", async || {
            let state = engine.inspect(&key).await.unwrap();
            !matches!(state, Some(RecordState::Locked { .. }))
        })
        .await;
        shake.send_replace(true);
        let reply = engine.execute(request).await;
        assert!(reply.is_ok(), "{name}: {reply:?}");
        assert_eq!(server.requests().len(), 1, "{name}");
    }
}
