use genesys_once::execution::{Execution, Hashed};
use genesys_once::{MemoryStore, Upstream};

async fn wrong(hashed: Execution<Hashed>, store: MemoryStore, upstream: &dyn Upstream) {
    let _ = hashed.execute(&store, upstream, None).await;
}

fn main() {}
