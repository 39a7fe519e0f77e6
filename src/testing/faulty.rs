//! A wrapper that makes a store fail, delay and lose replies by a script. It changes no
//! transition.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::error::{RefusalKind, StoreError};
use crate::key::{Namespace, RecordName};
use crate::record::{Answer, Event, RecordState};
use crate::store::{BoxFuture, ListQuery, Page, Store, UnreadableRecord};

/// A fault of one store command.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// None: the command is applied and answered.
    Pass,
    /// The command is not applied, and the caller cannot know.
    Fail,
    /// The command is applied, and its reply is lost.
    LoseReply,
    /// The command is refused, as by a full store.
    Refuse,
    /// The command is refused, for another reason.
    RefuseAs(RefusalKind),
    /// The command is applied, and never answered.
    Silent,
    /// The command is applied at once, and answered after this long.
    Late(Duration),
    /// The inner fault, after this long.
    After(Duration, Box<Fault>),
}

/// One command to a [`FaultyStore`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Operation<'a> {
    /// The number of this command, from 1.
    pub number: usize,
    /// The record.
    pub name: &'a RecordName,
    /// The event; `None` for a look.
    pub event: Option<&'a Event>,
}

/// A [`Store`] whose commands fail by a script. A clone is the same store.
///
/// The script is called for each `apply` and `look`, in their order. Notifications and lists
/// have no faults. Delays use tokio's clock.
///
/// ```
/// use genesys_once::MemoryStore;
/// use genesys_once::record::Event;
/// use genesys_once::testing::{Fault, FaultyStore};
///
/// // Each third command is lost, and outcomes cannot be written.
/// let store = FaultyStore::new(MemoryStore::new(), |operation| match operation.event {
///     Some(Event::Complete { .. }) => Fault::Refuse,
///     _ if operation.number % 3 == 0 => Fault::Fail,
///     _ => Fault::Pass,
/// });
/// # let _ = store;
/// ```
#[derive(Clone)]
pub struct FaultyStore {
    store: Arc<dyn Store>,
    script: Arc<dyn Fn(&Operation<'_>) -> Fault + Send + Sync>,
    commands: Arc<AtomicUsize>,
}

impl FaultyStore {
    /// `store` with the faults that `script` returns for its commands.
    pub fn new(
        store: impl Store,
        script: impl Fn(&Operation<'_>) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self {
            store: Arc::new(store),
            script: Arc::new(script),
            commands: Arc::default(),
        }
    }

    /// The number of commands.
    pub fn commands(&self) -> usize {
        self.commands.load(Ordering::SeqCst)
    }

    async fn run<T>(
        &self,
        name: &RecordName,
        event: Option<&Event>,
        apply: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let number = self.commands.fetch_add(1, Ordering::SeqCst) + 1;
        let mut fault = (self.script)(&Operation {
            number,
            name,
            event,
        });
        loop {
            match fault {
                Fault::Pass => return apply.await,
                Fault::Fail => return Err(StoreError::unavailable("a scripted failure")),
                Fault::Refuse => return Err(StoreError::refused("a scripted refusal")),
                Fault::RefuseAs(kind) => {
                    return Err(StoreError::refused_as(kind, "a scripted refusal"));
                }
                Fault::LoseReply => {
                    apply.await?;
                    return Err(StoreError::unavailable("a scripted loss of the reply"));
                }
                Fault::Silent => {
                    apply.await?;
                    return std::future::pending().await;
                }
                Fault::Late(delay) => {
                    let answer = apply.await;
                    sleep(delay).await;
                    return answer;
                }
                Fault::After(delay, next) => {
                    sleep(delay).await;
                    fault = *next;
                }
            }
        }
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("commands", &self.commands())
            .finish_non_exhaustive()
    }
}

impl Store for FaultyStore {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            // Not begun before the script has spoken: a store may do its work
            // before its future is first polled.
            let applied = async { self.store.apply(name, event.clone()).await };
            self.run(name, Some(&event), applied).await
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(self.run(name, None, async { self.store.look(name).await }))
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        self.store.changed(name)
    }

    fn shard(&self, name: &RecordName) -> u64 {
        self.store.shard(name)
    }

    fn least_writer<'a>(
        &'a self,
        namespace: &'a Namespace,
        at_least: u32,
    ) -> BoxFuture<'a, Result<u32, StoreError>> {
        self.store.least_writer(namespace, at_least)
    }

    fn emptied(&self, namespace: &Namespace) -> u64 {
        self.store.emptied(namespace)
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.store.list(namespace, query)
    }

    fn walk_turn<'a>(
        &'a self,
        namespace: &'a Namespace,
        period: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.store.walk_turn(namespace, period)
    }

    fn look_unreadable<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<UnreadableRecord>, StoreError>> {
        self.store.look_unreadable(name)
    }

    fn discard<'a>(
        &'a self,
        record: &'a UnreadableRecord,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.store.discard(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::IdempotencyKey;
    use crate::record::LeaseId;

    /// Works when it is called, not when its future is polled.
    struct Eager(Arc<AtomicUsize>);

    impl Store for Eager {
        fn apply<'a>(
            &'a self,
            _: &'a RecordName,
            _: Event,
        ) -> BoxFuture<'a, Result<Answer, StoreError>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(Answer::Done) })
        }

        fn look<'a>(
            &'a self,
            _: &'a RecordName,
        ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(None) })
        }
    }

    /// Red if the store is called before the script: commands that fail were then applied.
    #[tokio::test(start_paused = true)]
    async fn failed_command_does_not_reach_the_store() {
        let applied = Arc::new(AtomicUsize::new(0));
        let store = FaultyStore::new(Eager(applied.clone()), |operation| match operation.number {
            1 | 3 => Fault::Fail,
            2 => Fault::After(Duration::from_secs(1), Box::new(Fault::Refuse)),
            _ => Fault::LoseReply,
        });
        let name = RecordName::new("n".parse().unwrap(), IdempotencyKey::from_bytes([0; 32]));
        assert!(
            store
                .apply(
                    &name,
                    Event::Forget {
                        lease: LeaseId::from_bytes([0xf0; 16]),
                    }
                )
                .await
                .is_err()
        );
        let refused = store
            .apply(
                &name,
                Event::Forget {
                    lease: LeaseId::from_bytes([0xf0; 16]),
                },
            )
            .await
            .unwrap_err();
        assert!(refused.is_refused());
        assert!(store.look(&name).await.is_err());
        assert_eq!(applied.load(Ordering::SeqCst), 0);
        assert!(
            store
                .apply(
                    &name,
                    Event::Forget {
                        lease: LeaseId::from_bytes([0xf0; 16]),
                    }
                )
                .await
                .is_err()
        );
        assert_eq!((applied.load(Ordering::SeqCst), store.commands()), (1, 4));
    }
}
