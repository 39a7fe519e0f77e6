//! When the token at hand is renewed in the background: early, or under suspicion.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::ActorRef;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Message, State, TRIES};
use crate::error::chain;
use crate::policy::bounded_wait;
use crate::telemetry;

impl State {
    /// Has a token under suspicion renewed: at once the first time, and at a pace
    /// that grows while that happens again and again.
    pub(super) fn suspect(&mut self, myself: &ActorRef<Message>, id: usize) {
        if std::mem::replace(&mut self.suspected, id) != id {
            // Not before the time that the endpoint has named.
            let named = self.tokens.state.read().failing_for(Instant::now());
            let wait = self.pace.wait().max(named);
            self.renew_after(myself, id, wait);
        }
    }

    /// The renewal of a token under suspicion waits no longer.
    pub(super) fn again(&mut self, myself: &ActorRef<Message>) {
        let suspect = self.tokens.state.read().suspect(Instant::now());
        if let Some(id) = suspect.filter(|id| *id == self.suspected) {
            self.renew_after(myself, id, Duration::ZERO);
        }
    }

    /// Renews a token that may still be used. A failure concerns only those whom
    /// it was refused.
    pub(super) async fn renew(&mut self, myself: &ActorRef<Message>, id: usize) {
        let usable = self.tokens.state.read().usable(Instant::now());
        match usable {
            Some(current) if current.id == id => {}
            Some(_) => return,
            // It has ended. Only who waits has need of another.
            None if self.tokens.waiting.load(Ordering::SeqCst) > 0 => {
                return self.need(myself).await;
            }
            None => return,
        }
        if let Err(error) = self.fetch(myself).await {
            let asked = error.retry_after();
            let wait = bounded_wait(asked, self.backoff());
            self.renew_after(myself, id, wait);
            let told = error.is_rejected() || asked.is_some();
            if self.suspected == id && (told || self.failures >= TRIES) {
                return self.fail(error, wait);
            }
            if asked.is_some() {
                // Also for those who find that token expired meanwhile.
                self.post_failure(error.clone(), wait);
            }
            telemetry::contained(|| {
                tracing::warn!(
                    error = chain(&error),
                    "could not renew the access token; trying again"
                );
            });
        }
    }

    pub(super) fn renew_after(&mut self, myself: &ActorRef<Message>, id: usize, wait: Duration) {
        let myself = myself.clone();
        self.timer = JoinSet::new();
        self.timer.spawn(async move {
            sleep(wait).await;
            let _ = myself.send_message(Message::Renew(id));
        });
    }
}
