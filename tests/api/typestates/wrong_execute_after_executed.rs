use genesys_once::execution::{Executed, Execution};
use genesys_once::{MemoryStore, Upstream};

async fn wrong(executed: Execution<Executed>, store: MemoryStore, upstream: &dyn Upstream) {
    let _ = executed.execute(&store, upstream, None).await;
}

fn main() {}
