use genesys_once::MemoryStore;
use genesys_once::execution::{Execution, Locked};

async fn wrong(locked: Execution<Locked>, store: MemoryStore) {
    let _ = locked.cache(&store).await;
}

fn main() {}
