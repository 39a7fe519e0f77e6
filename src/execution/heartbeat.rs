//! Keeps the lease of an execution while its request is under way, or its next
//! attempt is waited for. It decides nothing, and no failure of the store ends it.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Execution, Locked, once};
use crate::error::chain;
use crate::record::{Answer, Event, Phase};
use crate::store::Store;
use crate::telemetry;
use crate::upstream::Lease;

/// The longest time from one extension that failed to the next. The engine puts a
/// store under a time-out, which is the pace of one that is down.
const LONGEST_PACE: Duration = Duration::from_secs(2);
/// Between two of them at least.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// From one extension that failed to the next: several fit into what is left of
/// the lease.
fn retry_pace(lease: Duration) -> Duration {
    (lease / 15).min(LONGEST_PACE)
}

impl Execution<Locked> {
    /// Extends the lease every third of it, for ever. A request on the wire cannot
    /// be called back; one that has not left yet does not leave under a lease that
    /// the store says is lost.
    ///
    /// An extension that failed is sent again soon, and past the lapse as well:
    /// until somebody notices the lapse, the lease may still be extended.
    pub(super) async fn heartbeat(&self, store: &dyn Store, lease: &Lease) -> Infallible {
        let held = &*self.state.held;
        let lease_ttl = held.claim.lease_ttl;
        let mut failing = false;
        loop {
            if !failing {
                sleep(lease_ttl / 3).await;
            }
            let sent = Instant::now();
            let extend = async {
                let (claim, step) = (held.claim.clone(), held.step);
                let dispatched = (held.phase == Phase::Dispatched).then_some(step);
                once(store, &self.core.name, &Event::Extend { claim, dispatched }).await
            };
            let answer = Box::pin(extend).await;
            let failed_before = std::mem::replace(&mut failing, answer.is_err());
            match answer {
                Ok(Answer::Done) => lease.extend(sent + lease_ttl),
                Ok(_) => {
                    lease.extend(sent);
                    telemetry::lease_lost(&self.core.name, self.core.progress.span_summary());
                }
                Err(error) => {
                    if !failed_before {
                        telemetry::contained(|| {
                            tracing::warn!(
                                name = %self.core.name,
                                error = chain(&error),
                                "could not extend a lease; trying again"
                            );
                        });
                    }
                    // From one sending to the next, and never a busy loop.
                    let pause = retry_pace(lease_ttl).saturating_sub(sent.elapsed());
                    store.again(&self.core.name, pause.max(LEAST_PAUSE)).await;
                }
            }
        }
    }
}
