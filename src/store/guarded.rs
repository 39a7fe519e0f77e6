//! Puts every call to a store under a deadline and a circuit breaker, one for
//! each part, so that no execution hangs on one and nobody waits for one that is
//! known to be down.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{BoxFuture, Store};
use crate::error::StoreError;
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::policy::{Breakers, Pass};
use crate::record::{Answer, Event, RecordState};
use crate::telemetry::{self, Raised};

/// A store whose every call ends within `limit`, and at once while the breaker
/// is open. A call that is given up may still be applied, so it is
/// [`StoreError::unavailable`]; one that the breaker stopped was not sent.
pub(crate) struct Guarded {
    store: Arc<dyn Store>,
    limit: Duration,
    breakers: Mutex<Breakers>,
    origin: Instant,
    namespace: Namespace,
    /// Kept while the breaker is open; changed under its lock only.
    open: Mutex<Option<Raised>>,
}

impl Guarded {
    pub(crate) fn new(store: Arc<dyn Store>, limit: Duration, namespace: Namespace) -> Self {
        Self {
            store,
            limit,
            breakers: Mutex::default(),
            origin: Instant::now(),
            namespace,
            open: Mutex::default(),
        }
    }

    /// Whether every part of the store answers, as far as the last commands tell.
    pub(crate) fn is_up(&self) -> bool {
        self.breakers().are_closed()
    }

    async fn within<T>(
        &self,
        command: &'static str,
        name: &RecordName,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let sent = self.origin.elapsed();
        let part = self.store.part(name);
        let mut turn = match self.breakers().pass(part, sent) {
            Pass::Stop => {
                telemetry::store_stopped(&self.namespace, command);
                let why = "the breaker is open: the last commands were not answered";
                return Err(StoreError::unsent(why));
            }
            Pass::Go => Turn {
                guarded: self,
                part,
                probe: false,
            },
            Pass::Probe => Turn {
                guarded: self,
                part,
                probe: true,
            },
        };
        let answer = timeout(self.limit, call).await;
        let failed = !matches!(answer, Ok(Ok(_)));
        let now = self.origin.elapsed();
        telemetry::store_command(&self.namespace, command, now - sent, failed);
        let Ok(answer) = answer else {
            turn.end(End::Silent, now);
            let limit = self.limit.as_secs_f64();
            return Err(StoreError::unavailable(format!(
                "no answer within {limit} s"
            )));
        };
        let end = match &answer {
            // It answered, if only to refuse.
            Err(error) if !error.is_definite() => End::Failed { sent },
            _ => End::Answered,
        };
        turn.end(end, now);
        answer
    }

    fn breakers(&self) -> MutexGuard<'_, Breakers> {
        // Plain numbers: no critical section leaves them half changed.
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Option<Raised>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One command that goes on. A probe that is dropped in mid-way leaves its turn
/// to the next one.
struct Turn<'a> {
    guarded: &'a Guarded,
    part: u64,
    probe: bool,
}

/// How a command ended.
enum End {
    Answered,
    /// Without an answer, before its time was over.
    Failed {
        sent: Duration,
    },
    Silent,
}

impl Turn<'_> {
    fn end(&mut self, end: End, now: Duration) {
        let mut breakers = self.guarded.breakers();
        let was_closed = breakers.are_closed();
        match end {
            End::Answered => breakers.answered(self.part, now),
            End::Failed { sent } => breakers.failed(self.part, sent, now, self.probe),
            End::Silent => breakers.silent(self.part, now, self.probe),
        }
        self.probe = false;
        let mut open = self.guarded.open();
        match (was_closed, breakers.are_closed()) {
            (true, false) => {
                *open = Some(telemetry::breaker_open(&self.guarded.namespace));
                tracing::warn!("the store does not answer; failing at once, and probing")
            }
            (false, true) => {
                *open = None;
                tracing::info!("the store answers again");
            }
            _ => {}
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.guarded.breakers().dropped(self.part);
        }
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("limit", &self.limit)
            .field("up", &self.is_up())
            .finish_non_exhaustive()
    }
}

impl Store for Guarded {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        let command = telemetry::command(&event);
        Box::pin(self.within(command, name, self.store.apply(name, event)))
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        let look = async {
            let state = self.store.look(name).await?;
            state.map(RecordState::readable).transpose()
        };
        Box::pin(self.within("look", name, look))
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        self.store.changed(name)
    }

    fn part(&self, name: &RecordName) -> u64 {
        self.store.part(name)
    }

    fn unresolved<'a>(
        &'a self,
        namespace: &'a Namespace,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(IdempotencyKey, RecordState)>, StoreError>> {
        // Listing walks the whole store: it has no fixed time.
        self.store.unresolved(namespace, limit)
    }
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    /// Takes every event, and makes sure of none.
    struct WithoutCopies;

    impl Store for WithoutCopies {
        fn apply<'a>(
            &'a self,
            _: &'a RecordName,
            _: Event,
        ) -> BoxFuture<'a, Result<Answer, StoreError>> {
            Box::pin(async { Err(StoreError::undurable("1 of 2 replicas have it")) })
        }

        fn look<'a>(
            &'a self,
            _: &'a RecordName,
        ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
            Box::pin(async { Ok(None) })
        }
    }

    /// Red when missing replicas keep everybody from replaying.
    #[tokio::test(start_paused = true)]
    async fn a_store_that_lacks_copies_is_up() {
        let guarded = Guarded::new(
            Arc::new(WithoutCopies),
            Duration::from_secs(2),
            "test".parse().unwrap(),
        );
        let key = IdempotencyKey::from_bytes([1; 32]);
        let name = RecordName::new("test".parse().unwrap(), key);
        for _ in 0..10 {
            let error = guarded.apply(&name, Event::Forget).await.unwrap_err();
            assert!(error.is_undurable(), "{error:?}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(guarded.is_up());
        assert!(guarded.look(&name).await.is_ok());
    }
}
