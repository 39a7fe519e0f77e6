//! The engine as a `tower::Service`, so that tower's layers apply. It executes as
//! [`Engine::execute`] does, and adds no rule of its own.

use std::task::{Context, Poll};

use tower_service::Service;

use super::Engine;
use crate::error::Error;
use crate::outcome::Reply;
use crate::request::DataActionRequest;
use crate::store::BoxFuture;

/// `call` is [`Engine::execute`] on a clone of the engine, and each clone is the same
/// service.
///
/// `poll_ready` never waits: the engine is ready until it shuts down, and then fails with
/// [`Error::Stopped`]. An engine without room (`max_waiting`) is ready, and its `call`
/// returns [`Error::Overloaded`] at once. To a layer, an error of `poll_ready` means that
/// the service never works again, and a replay from memory needs no room.
///
/// A layer that drops the future (a timeout, a hedge) never cancels or repeats the
/// execution (I2). `tower::retry` is safe, too, because the record decides; its policy
/// retries where [`Error::hint`] is `After`, and waits as long.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::time::Duration;
///
/// use genesys_once::testing::{ScriptedUpstream, Step};
/// use genesys_once::{DataActionRequest, Engine};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
/// let engine = Engine::builder(upstream).start().await?;
/// let service = ServiceBuilder::new()
///     .timeout(Duration::from_secs(10))
///     .concurrency_limit(100)
///     .service(engine);
/// let reply = service.oneshot(DataActionRequest::new("refund", "{}")?).await?;
/// assert!(reply.is_success());
/// # Ok::<(), tower::BoxError>(())
/// # }).unwrap();
/// # }
/// ```
impl Service<DataActionRequest> for Engine {
    type Response = Reply;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Reply, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let admits = self.is_running() && !self.inner.shared.flights.is_closed();
        Poll::Ready(admits.then_some(()).ok_or(Error::Stopped))
    }

    fn call(&mut self, request: DataActionRequest) -> Self::Future {
        let engine = self.clone();
        Box::pin(async move { engine.execute(request).await })
    }
}
