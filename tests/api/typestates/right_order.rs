use genesys_once::execution::{Attempt, Execution, Lock, Terms};
use genesys_once::{DataActionRequest, Error, MemoryStore, Reply, Upstream};

async fn right(
    request: DataActionRequest,
    store: MemoryStore,
    upstream: &dyn Upstream,
) -> Result<Option<Reply>, Error> {
    let hashed = Execution::new(request, upstream.namespace());
    Ok(match hashed.lock(&store, &Terms::default()).await? {
        Lock::Cached(cached) => Some(cached.into_reply()),
        Lock::Locked(locked) => match locked.execute(&store, upstream, None).await? {
            Attempt::Executed(executed) => {
                let cached = executed.cache(&store).await.map_err(|(_, error)| error)?;
                Some(cached.into_reply())
            }
            Attempt::NotExecuted(locked, ..) => {
                let _hashed = locked.release(&store).await?;
                None
            }
            _ => None,
        },
        _ => None,
    })
}

fn main() {}
