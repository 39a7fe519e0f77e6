use genesys_once::MemoryStore;
use genesys_once::execution::{Executed, Execution};

async fn wrong(executed: Execution<Executed>, store: MemoryStore) {
    let _ = executed.cache(&store).await;
    let _ = executed.cache(&store).await;
}

fn main() {}
