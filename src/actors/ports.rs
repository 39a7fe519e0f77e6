//! The answers on their way to reply ports: one task for each caller who asked
//! by message. It waits for no longer than the caller does.

use std::sync::Arc;
use std::time::Duration;

use ractor::RpcReplyPort;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, Span};

use super::shared::Shared;
use crate::IdempotencyKey;
use crate::error::Error;
use crate::flights::Waiter;
use crate::outcome::Reply;

/// A reply port gives no notice when its caller has gone: it is asked this
/// often.
const ASK: Duration = Duration::from_secs(1);
/// How long the last answers may take to their ports when the engine ends.
const DELIVERY: Duration = Duration::from_secs(1);

/// The callers who wait by message; dropping it drops their ports.
#[derive(Default)]
pub(super) struct Ports(JoinSet<()>);

impl Ports {
    /// Answers a port with the flight's answer, within `limit`. A caller who
    /// has gone frees its place.
    pub(super) fn answer(
        &mut self,
        shared: &Arc<Shared>,
        waiter: Waiter,
        key: IdempotencyKey,
        limit: Duration,
        port: RpcReplyPort<Result<Reply, Error>>,
        span: Span,
    ) {
        let shared = shared.clone();
        let progress = waiter.progress().clone();
        self.0.spawn(async move {
            let answer = tokio::select! {
                biased;
                answer = timeout(limit, waiter.answer()).instrument(span.clone()) => answer,
                () = gone(&port) => return,
            };
            let answer = answer.unwrap_or(Err(Error::DeadlineExceeded { key }));
            shared.answered(&span, Some(progress.trail()), &answer);
            let _ = port.send(answer);
        });
    }

    /// Forgets those who were answered.
    pub(super) fn reap(&mut self) {
        while self.0.try_join_next().is_some() {}
    }

    /// Lets the answers that were given reach their ports.
    pub(super) async fn deliver(&mut self) {
        let delivered = async { while self.0.join_next().await.is_some() {} };
        let _ = timeout(DELIVERY, delivered).await;
        self.0.abort_all();
    }
}

async fn gone(port: &RpcReplyPort<Result<Reply, Error>>) {
    while !port.is_closed() {
        sleep(ASK).await;
    }
}
