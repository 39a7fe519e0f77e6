//! The callers by message: one task for each, up to `max_waiting`. The root's handler does
//! none of their work.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use ractor::{ActorRef, RpcReplyPort};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::Span;

use super::caller;
use super::shared::Shared;
use super::supervisor::EngineMessage;
use crate::error::Error;
use crate::key::IdempotencyKey;
use crate::outcome::Reply;
use crate::request::DataActionRequest;
use crate::telemetry;

/// A reply port does not notify when its caller leaves, so it is polled this often.
const ASK: Duration = Duration::from_secs(1);
/// How long the delivery of the last answers may take when the engine ends.
const DELIVERY: Duration = Duration::from_secs(1);

type Port = RpcReplyPort<Result<Reply, Error>>;

/// The callers that wait by message. A drop closes their ports.
pub(super) struct Ports {
    shared: Arc<Shared>,
    deadline: Duration,
    /// The limit of waiting callers. A mailbox has no limit, so the handler itself answers
    /// further callers.
    places: Arc<Semaphore>,
    /// Refused callers that are not counted yet.
    refused: Arc<AtomicUsize>,
    /// Each caller's task watches it.
    open: watch::Sender<()>,
}

impl Ports {
    pub(super) fn new(shared: Arc<Shared>, deadline: Duration) -> Self {
        let places = shared.flights.max_waiting().min(Semaphore::MAX_PERMITS);
        Self {
            shared,
            deadline,
            places: Arc::new(Semaphore::new(places)),
            refused: Arc::default(),
            open: watch::Sender::new(()),
        }
    }

    /// Executes a request, and answers its port within the caller's deadline. A caller that
    /// leaves frees its capacity.
    pub(super) fn execute(
        &self,
        root: &ActorRef<EngineMessage>,
        request: DataActionRequest,
        port: Port,
    ) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return self.refuse(port);
        };
        let limit = port.get_timeout().unwrap_or(self.deadline);
        let limit = limit.min(self.deadline);
        let sender = telemetry::contained(telemetry::sender).unwrap_or_else(Span::none);
        let (shared, root) = (self.shared.clone(), root.clone());
        let mut open = self.open.subscribe();
        tokio::spawn(async move {
            let _place = place;
            let key = IdempotencyKey::of(&request);
            let answer = async {
                let span = telemetry::execute_message(&shared.namespace, &request, &sender);
                drop(sender);
                caller::execute(&shared, &root, &request, limit, span).await
            };
            // The port gets an answer also if a subscriber panics in the span.
            let answer = AssertUnwindSafe(answer).catch_unwind();
            let answer = tokio::select! {
                biased;
                _ = open.changed() => return,
                answer = answer => answer.unwrap_or(Err(Error::Crashed { key })),
                () = gone(&port) => return,
            };
            // If the caller has left, there is nothing to report.
            let _ = port.send(answer);
        });
    }

    /// Constant work for the handler. One task counts all callers that are refused meanwhile,
    /// since a recorder is foreign code.
    fn refuse(&self, port: Port) {
        let error = Error::Overloaded {
            limit: "max_waiting",
        };
        let _ = port.send(Err(error.clone()));
        if self.refused.fetch_add(1, Ordering::Relaxed) == 0 {
            let (shared, refused) = (self.shared.clone(), self.refused.clone());
            tokio::spawn(async move {
                for _ in 0..refused.swap(0, Ordering::Relaxed) {
                    shared.meters.failed(&error);
                }
            });
        }
    }

    /// Waits until the answers have reached their ports.
    pub(super) async fn deliver(&self) {
        let _ = timeout(DELIVERY, self.open.closed()).await;
    }
}

async fn gone(port: &Port) {
    while !port.is_closed() {
        sleep(ASK).await;
    }
}
