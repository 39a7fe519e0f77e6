//! I1 on real sockets: a request whose connection took longer than the lease
//! lived does not leave on it, and that it did not is a proof.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::record::Event;
use genesys_once::testing::{Fault, FaultyStore};
use genesys_once::{DataActionRequest, Engine, IdempotencyKey, MemoryStore, RecordState};
use tokio::sync::watch;

use crate::server::{Server, answer};
use crate::tls::identity;
use crate::{cloud, eventually};

/// Long enough for any machine to begin to connect in, short enough to wait for.
const LEASE: Duration = Duration::from_millis(500);

/// The store is out of reach while the connection's handshake takes longer than
/// the lease: a store outage here, a process that is stopped elsewhere.
///
/// Red when `GatedBody` does not ask the lease: the request then leaves as soon
/// as the handshake is over. Red too when a body that was not handed over is no
/// proof: the key is then indeterminate for a request that was never sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_slower_than_the_lease_carries_no_request() {
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
                // Each request its own connection, so that each shakes hands.
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
    // A token is at hand from here on.
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
    eventually("it connects, and its lease lapses", async || {
        let state = engine.inspect(&key).await.unwrap();
        let lapsed =
            matches!(&state, Some(RecordState::Locked { lease_left, .. }) if lease_left.is_zero());
        lapsed && server.connections() > before
    })
    .await;
    shake.send_replace(true);
    // The attempt is over: nothing was executed, and the key is given back or
    // tried again.
    eventually("the attempt is over", async || {
        engine.stats().calls_not_executed > 0
    })
    .await;
    assert_eq!(executed(), 1, "it left past its lease");
    assert_eq!(engine.stats().calls_unknown, 0);

    // With the store back the same execution goes on, once.
    down.store(false, Ordering::SeqCst);
    let reply = tokio::time::timeout(Duration::from_secs(60), caller)
        .await
        .expect("the caller is answered")
        .unwrap()
        .unwrap();
    assert!(reply.recorded());
    assert_eq!(executed(), 2);
}
