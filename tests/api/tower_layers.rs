//! The engine as a service under tower's own layers.

use std::time::Duration;

use futures_util::future::join_all;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, Error, Reply, Served};
use tokio::time::{Instant, sleep};
use tower::timeout::error::Elapsed;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};

const SECOND: Duration = Duration::from_secs(1);

/// A platform that answers after this long, and an engine over it.
async fn engine(delay: Duration) -> (ScriptedUpstream, Engine) {
    let upstream = ScriptedUpstream::new(move |_| Step::ok("{}").after(delay));
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    (upstream, engine)
}

fn order(number: u32) -> DataActionRequest {
    DataActionRequest::new("refund", format!(r#"{{"order":{number}}}"#)).unwrap()
}

/// Red without the layer: all six calls are at the platform at once.
#[tokio::test(start_paused = true)]
async fn concurrency_limit_bounds_calls_at_the_platform() {
    let (upstream, engine) = engine(SECOND).await;
    let service = ServiceBuilder::new().concurrency_limit(2).service(engine);
    let begun = Instant::now();
    let calls = (0..6).map(|number| service.clone().oneshot(order(number)));
    for reply in join_all(calls).await {
        assert_eq!(reply.unwrap().served(), Served::Upstream);
    }
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(upstream.ledger().max_concurrent(), 2);
}

/// Red if the layer's timeout cancels the execution: the platform is called twice.
#[tokio::test(start_paused = true)]
async fn timeout_ends_the_wait_and_not_the_execution() {
    let (upstream, engine) = engine(5 * SECOND).await;
    let mut service = ServiceBuilder::new()
        .timeout(SECOND)
        .service(engine.clone());
    let late: Result<Reply, BoxError> = service.ready().await.unwrap().call(order(1)).await;
    assert!(late.unwrap_err().is::<Elapsed>());
    sleep(5 * SECOND).await;
    let reply = service.ready().await.unwrap().call(order(1)).await.unwrap();
    assert_eq!(reply.served(), Served::Memory);
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if an engine without free places is not ready: a layer would give up the service.
#[tokio::test(start_paused = true)]
async fn full_engine_is_ready_and_refuses_the_call() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(SECOND));
    let builder = Engine::builder(upstream).max_waiting(2);
    let mut engine = builder.start().await.unwrap();
    let first = tokio::spawn(engine.ready().await.unwrap().call(order(1)));
    sleep(SECOND / 2).await;
    let refused = engine.ready().await.unwrap().call(order(2)).await;
    assert!(
        matches!(refused, Err(Error::Overloaded { .. })),
        "{refused:?}"
    );
    first.await.unwrap().unwrap();
    let replay = engine.ready().await.unwrap().call(order(1)).await.unwrap();
    assert_eq!(replay.served(), Served::Memory);
}

/// Red without the check in `poll_ready`.
#[tokio::test(start_paused = true)]
async fn engine_that_shuts_down_is_not_ready() {
    let (_, mut engine) = engine(10 * SECOND).await;
    let last = tokio::spawn(engine.ready().await.unwrap().call(order(1)));
    sleep(SECOND).await;
    let stopping = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown(60 * SECOND).await }
    });
    sleep(SECOND).await;
    assert!(matches!(engine.ready().await, Err(Error::Stopped)));
    // The execution under way still answers.
    assert!(last.await.unwrap().unwrap().is_success());
    stopping.await.unwrap();
    assert!(matches!(engine.ready().await, Err(Error::Stopped)));
}
