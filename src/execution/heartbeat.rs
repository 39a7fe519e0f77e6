//! Extends the lease of an execution during its call, and during the wait for the next
//! attempt. It decides nothing, and no failure of the store ends it.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Commands, Execution, Locked, Resend};
use crate::error::chain;
use crate::record::{Answer, Event, Phase};
use crate::store::Store;
use crate::telemetry;
use crate::upstream::Lease;

/// The longest time from a failed extension to the next. The engine's store has a time-out,
/// so an unavailable store is asked at that pace.
const MAX_RETRY_PACE: Duration = Duration::from_secs(2);
/// The shortest pause between two extensions.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// The time from a failed extension to the next: several fit into the rest of the lease.
fn retry_pace(lease: Duration) -> Duration {
    (lease / 15).min(MAX_RETRY_PACE)
}

impl Execution<Locked> {
    /// Extends the lease every third of it, without end. A sent request cannot be revoked.
    /// A request that has not left yet does not leave after the store reports the lease
    /// lost.
    ///
    /// A failed extension is sent again soon, also after the expiry: the lease can still be
    /// extended until another process takes over.
    pub(super) async fn heartbeat(&self, store: &dyn Store, lease: &Lease) -> Infallible {
        let mut failing = false;
        loop {
            if !failing {
                sleep(self.state.lease.claim.lease_ttl / 3).await;
            }
            // Boxed: it is larger than the sleep, and a call spends its time there.
            failing = Box::pin(self.extend_lease(store, lease, failing)).await;
        }
    }

    /// Sends one extension, and returns whether it failed. After a failure it has waited
    /// for the next one.
    async fn extend_lease(&self, store: &dyn Store, lease: &Lease, failed_before: bool) -> bool {
        let acquired = &*self.state.lease;
        let lease_ttl = acquired.claim.lease_ttl;
        let begun = Instant::now();
        let (claim, step) = (acquired.claim.clone(), acquired.step);
        let dispatched = (acquired.phase == Phase::Dispatched).then_some(step);
        let mut commands = Commands::new(store, &self.core.name, Resend::Never);
        match commands.send(&Event::Extend { claim, dispatched }).await {
            Ok((Answer::Done, sent)) => lease.extend(sent + lease_ttl),
            Ok((_, sent)) => {
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
                // The pace counts from one sending to the next.
                let pause = retry_pace(lease_ttl).saturating_sub(begun.elapsed());
                store.again(&self.core.name, pause.max(MIN_PAUSE)).await;
                return true;
            }
        }
        false
    }
}
