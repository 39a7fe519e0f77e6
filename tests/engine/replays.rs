//! The cost of a replay: no permit, and no write once most executions are replays.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{Engine, MemoryStore, Served};
use tokio::time::{Instant, sleep};

use super::{SECOND, request};

/// Seen red: each execution took a permit before it knew whether anything would be sent, so
/// that replays held both permits.
#[tokio::test(start_paused = true)]
async fn replays_take_no_permit_and_write_nothing() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let (slow, writes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let store = FaultyStore::new(MemoryStore::new(), {
        let (slow, writes) = (slow.clone(), writes.clone());
        move |operation| {
            writes.fetch_add(usize::from(operation.event.is_some()), Ordering::SeqCst);
            match slow.load(Ordering::SeqCst) {
                true => Fault::After(SECOND, Box::new(Fault::Pass)),
                false => Fault::Pass,
            }
        }
    });
    let engine = Engine::builder(upstream.clone()).store(store);
    let engine = engine.max_in_flight(2).recent(0, SECOND);
    let engine = engine.start().await.unwrap();
    for n in 0..60 {
        let reply = engine.execute(request("[1]")).await.unwrap();
        let served = if n == 0 {
            Served::Upstream
        } else {
            Served::Store
        };
        assert_eq!(reply.served(), served);
    }
    // Ten other keys, each with an execution of its own.
    for n in 0..10 {
        engine.execute(request(&n.to_string())).await.unwrap();
    }
    for _ in 0..60 {
        engine.execute(request("[1]")).await.unwrap();
    }
    slow.store(true, Ordering::SeqCst);
    writes.store(0, Ordering::SeqCst);
    let replays: Vec<_> = (0..10)
        .map(|n| {
            let (engine, request) = (engine.clone(), request(&n.to_string()));
            tokio::spawn(async move { engine.execute(request).await.unwrap() })
        })
        .collect();
    sleep(SECOND / 2).await;
    let stats = engine.stats();
    assert_eq!((stats.executions, stats.in_flight), (10, 0));
    // A look, then the acquire and the outcome.
    let begun = Instant::now();
    let fresh = engine.execute(request("[2]")).await.unwrap();
    assert_eq!(fresh.served(), Served::Upstream);
    assert_eq!(begun.elapsed(), 3 * SECOND);
    for replay in replays {
        assert_eq!(replay.await.unwrap().served(), Served::Store);
    }
    assert_eq!(
        writes.load(Ordering::SeqCst),
        2,
        "only the fresh execution writes"
    );
    assert_eq!(upstream.ledger().total(), 12);
}

/// If most executions are replays, the first look might meet a broken connection: the look
/// is sent again, unless its time has passed.
///
/// Red without the second `peek`: the store is unavailable. Red without the time limit: the
/// last request is a replay, too.
#[tokio::test(start_paused = true)]
async fn quick_failed_peek_is_repeated() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let next = Arc::new(Mutex::new(Fault::Pass));
    let store = FaultyStore::new(MemoryStore::new(), {
        let next = next.clone();
        move |operation| match operation.event {
            None => std::mem::replace(&mut *next.lock().unwrap(), Fault::Pass),
            Some(_) => Fault::Pass,
        }
    });
    let engine = Engine::builder(upstream.clone()).store(store.clone());
    let engine = engine.recent(0, SECOND).start().await.unwrap();
    for _ in 0..60 {
        engine.execute(request("[1]")).await.unwrap();
    }
    let fail = |fault| {
        *next.lock().unwrap() = fault;
        engine.execute(request("[1]"))
    };
    let before = store.commands();
    let reply = fail(Fault::Fail).await.unwrap();
    assert_eq!(reply.served(), Served::Store);
    assert_eq!(store.commands(), before + 2);
    let late = Fault::After(SECOND, Box::new(Fault::Fail));
    assert_eq!(fail(late).await.unwrap_err().code(), "store_unavailable");
    assert_eq!(upstream.ledger().total(), 1);
}
