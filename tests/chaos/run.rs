//! One run of the chaos, from the first process to the verdict. Whether it
//! passes is decided in `judgement`, never here.

use std::sync::Arc;
use std::time::Duration;

use genesys_once::RedisStore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::judgement::Judgement;
use super::load;
use super::schedule;
use super::world::World;

/// Of so many keys some are under way, and some have just lapsed.
const RECENT: u64 = 60;

/// Runs the chaos of one seed and says what came of it.
pub async fn run(seed: u64, length: Duration) -> Judgement {
    let world = Arc::new(World::start(seed).await);
    let scene = &world.scene;
    let operator = tokio::spawn(scene.oracle.clone().operate(world.operator().await));
    let loading = tokio::spawn({
        let world = world.clone();
        async move {
            let is_over = || world.scene.history.now() >= length;
            load::load(&world.scene, RECENT, is_over).await;
        }
    });
    let mut injected = JoinSet::new();
    for (at, fault) in schedule::draw(seed, length, scene.fleet.len()) {
        sleep(at.saturating_sub(scene.history.now())).await;
        let world = world.clone();
        injected.spawn(async move { world.inject(fault).await });
    }
    // Each ends with its own healing; a panic in one is the run's.
    while let Some(done) = injected.join_next().await {
        done.unwrap();
    }
    loading.await.unwrap();
    assert!(!operator.is_finished(), "the operator panicked");
    operator.abort();
    let store = RedisStore::connect(&world.redis_url).await.unwrap();
    load::finish(scene, store).await
}
