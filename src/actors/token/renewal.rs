//! Renews the current token in the background: before it expires, or under suspicion. It
//! never decides whether a token is at fault.

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
    /// Schedules the renewal of a suspected token: the first at once, repeated ones at a
    /// growing pace.
    pub(super) fn suspect(&mut self, myself: &ActorRef<Message>, id: usize) {
        if std::mem::replace(&mut self.suspected, id) != id {
            // Not before the time that the endpoint named.
            let named = self.tokens.state.read().failing_for(Instant::now());
            let wait = self.pace.wait().max(named);
            self.renew_after(myself, id, wait);
        }
    }

    /// Renews a suspected token at once.
    pub(super) fn again(&mut self, myself: &ActorRef<Message>) {
        let suspect = self.tokens.state.read().suspect(Instant::now());
        if let Some(id) = suspect.filter(|id| *id == self.suspected) {
            self.renew_after(myself, id, Duration::ZERO);
        }
    }

    /// Renews a token that may still be used. A failure affects only actions for which it
    /// was refused.
    pub(super) async fn renew(&mut self, myself: &ActorRef<Message>, id: usize) {
        let now = Instant::now();
        let (usable, suspect) = {
            let state = self.tokens.state.read();
            (state.usable(now), state.suspect(now))
        };
        match usable {
            Some(current) if current.id == id => {
                let is_due = current.renew.is_some_and(|at| at <= now);
                if !is_due && suspect.is_none() {
                    // A success has cleared it meanwhile.
                    self.suspected = 0;
                    if let Some(at) = current.renew {
                        self.renew_after(myself, id, at - now);
                    }
                    return;
                }
            }
            Some(_) => return,
            // It has expired. Only waiters need a successor.
            None if self.tokens.waiting.load(Ordering::SeqCst) > 0 => {
                return self.need(myself).await;
            }
            None => return,
        }
        if let Err(error) = self.fetch(myself).await {
            let asked = error.retry_after();
            let wait = bounded_wait(asked, self.backoff());
            self.renew_after(myself, id, wait);
            let is_clear = error.is_rejected() || asked.is_some();
            if self.suspected == id && (is_clear || self.failures >= TRIES) {
                return self.fail(error, wait);
            }
            if asked.is_some() {
                // Also for callers that find the token expired meanwhile.
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
