//! One caller in the engine, by call or by message: admitted, answered, and counted. It runs
//! on the caller's task and sends nothing to platform or store.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, ActorStatus};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, Span};

use super::flight::Job;
use super::shared::Shared;
use super::supervisor::EngineMessage;
use crate::ambient::in_runtime;
use crate::error::Error;
use crate::execution::Progress;
use crate::flights::Admission;
use crate::key::IdempotencyKey;
use crate::outcome::Reply;
use crate::request::DataActionRequest;

/// Executes a request once for its key, or waits for the execution of another caller, within
/// `limit`. `span` is the caller's.
///
/// # Cancel safety
///
/// Cancel safe: dropping the future frees the caller's place (I2).
pub(crate) async fn execute(
    shared: &Arc<Shared>,
    root: &ActorRef<EngineMessage>,
    request: &DataActionRequest,
    limit: Duration,
    span: Span,
) -> Result<Reply, Error> {
    // A loop of callers with immediate answers must let other tasks run.
    consume_budget().await;
    let mut progress = None;
    let admission = in_runtime().and_then(|()| span.in_scope(|| shared.admit(request)));
    let answer = match admission {
        Ok(Admission::Recent(reply)) => Ok(reply),
        Err(error) => Err(error),
        Ok(admission) => {
            // Pinned here: it is large, and would be moved from layer to layer.
            let answer = pin!(wait(shared, root, request, admission, &mut progress));
            match timeout(limit, answer).instrument(span.clone()).await {
                // If the whole tree stopped, the execution did not crash.
                Ok(Err(Error::Crashed { .. })) if root.get_status() >= ActorStatus::Draining => {
                    Err(Error::Stopped)
                }
                Ok(answer) => answer,
                Err(_) => Err(Error::deadline_exceeded(
                    IdempotencyKey::of(request),
                    shared.cooldowns.left_for(request.action_id()),
                )),
            }
        }
    };
    let summary = progress.as_deref().map(Progress::span_summary);
    shared.answered(&span, summary, &answer);
    answer
}

/// Waits for the flight's answer, and sets `progress` to that of its execution.
async fn wait(
    shared: &Arc<Shared>,
    root: &ActorRef<EngineMessage>,
    request: &DataActionRequest,
    mut admission: Admission,
    progress: &mut Option<Arc<Progress>>,
) -> Result<Reply, Error> {
    let begun = Instant::now();
    // The start limit counts over several flights.
    let left = || {
        let limit = request.sent_within()?;
        Some(limit.saturating_sub(begun.elapsed()))
    };
    let again = || match left() {
        Some(left) => shared.admit(&request.clone().starting_within(left)),
        None => shared.admit(request),
    };
    loop {
        let waiter = match admission {
            Admission::Recent(reply) => return Ok(reply),
            Admission::Joined(waiter) => waiter,
            Admission::First(waiter, guard) => {
                let job = Job {
                    guard,
                    shared: shared.clone(),
                };
                if let Err(Job { guard, .. }) = shared.idle.run(job) {
                    // If the root has stopped, the guard is dropped, and answers.
                    let _ = root.send_message(EngineMessage::run(guard));
                }
                waiter
            }
            Admission::Follows(follower) => {
                follower.passed().await?;
                admission = again()?;
                continue;
            }
        };
        *progress = Some(waiter.progress().clone());
        match waiter.answer().await {
            // The flight ended by the start limits of other callers; this caller's own
            // limit has not passed.
            Err(Error::Expired { .. }) if left().is_none_or(|left| !left.is_zero()) => {
                admission = again()?;
            }
            answer => return answer,
        }
    }
}
