//! An engine that is older than its namespace's minimum version acquires no new keys, and
//! finishes the keys that it has.

use genesys_once::record::WRITER;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{Engine, Error, MemoryStore, Served, Store};
use tokio::time::sleep;

use super::{SECOND, request};

/// Red if the version is checked only once, at the start, or not at all.
#[tokio::test(start_paused = true)]
async fn older_engine_replays_but_takes_no_keys() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(50 * SECOND));
    let store = MemoryStore::new();
    let engine = Engine::builder(upstream.clone()).store(store.clone());
    let engine = engine.recent(0, SECOND).start().await.unwrap();
    let held = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("1")).await }
    });
    upstream.ledger().wait_for(1).await;
    // A newer engine starts.
    let newer = store.least_writer(engine.namespace(), WRITER + 1).await;
    assert_eq!(newer.unwrap(), WRITER + 1);
    assert!(held.await.unwrap().unwrap().recorded());
    sleep(11 * SECOND).await;
    let error = engine.execute(request("2")).await.unwrap_err();
    let answer = std::error::Error::source(&error).map(ToString::to_string);
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
    let why = format!("{error}: {answer:?} {error:?}");
    let wanted = format!("writers of version {} or later", WRITER + 1);
    assert!(why.contains(&wanted), "{why}");
    // A recorded outcome is replayed all the same.
    let replay = engine.execute(request("1")).await.unwrap();
    assert_eq!((replay.served(), replay.body().len()), (Served::Store, 2));
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if an engine does not raise the minimum version to its own.
#[tokio::test(start_paused = true)]
async fn executing_engine_raises_minimum_version() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let store = MemoryStore::new();
    let engine = Engine::builder(upstream).store(store.clone());
    let engine = engine.start().await.unwrap();
    engine.execute(request("1")).await.unwrap();
    let least = store.least_writer(engine.namespace(), 1).await.unwrap();
    assert_eq!(least, WRITER);
}
