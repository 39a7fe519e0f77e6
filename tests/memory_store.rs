//! The store of one process against the list of cases that every store passes.

use genesys_once::MemoryStore;
use genesys_once::testing::store_conformance;

#[tokio::test(start_paused = true)]
async fn it_keeps_the_protocol() {
    store_conformance(MemoryStore::new(), tokio::time::advance).await;
}
