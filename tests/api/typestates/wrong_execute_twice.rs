use genesys_once::execution::{Execution, Locked};
use genesys_once::{MemoryStore, Upstream};

async fn wrong(locked: Execution<Locked>, store: MemoryStore, upstream: &dyn Upstream) {
    let _ = locked.execute(&store, upstream, None).await;
    let _ = locked.execute(&store, upstream, None).await;
}

fn main() {}
