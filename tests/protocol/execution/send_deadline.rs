//! A slow upstream sends no first byte after the lease has expired, by the clock or by the
//! store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use genesys_once::error::{SendError, StoreError};
use genesys_once::execution::Attempt;
use genesys_once::outcome::Recovery;
use genesys_once::record::{Answer, Event, Namespace, RecordName, RecordState};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream};
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{MemoryStore, Outcome, Store, Upstream};
use tokio::time::sleep;

use super::{SECOND, locked, namespace, ok};

/// An upstream that takes this long before the first byte, as connecting does.
struct Connecting {
    platform: ScriptedUpstream,
    takes: Duration,
}

impl Upstream for Connecting {
    fn namespace(&self) -> Namespace {
        namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async move {
            sleep(self.takes).await;
            if !call.may_leave() {
                return Err(SendError::before_sending("past the lease"));
            }
            self.platform.send(call, token).await
        })
    }
}

/// I1. Red if the call's lease is not extended with the record's lease, and if the call
/// does not know the lease at all.
#[tokio::test(start_paused = true)]
async fn call_knows_its_send_deadline() {
    for (out_of_reach, sent) in [(false, 1), (true, 0)] {
        let store = FaultyStore::new(MemoryStore::new(), move |operation| match operation.event {
            Some(Event::Extend { .. }) if out_of_reach => Fault::Fail,
            _ => Fault::Pass,
        });
        let upstream = Connecting {
            platform: ok(),
            takes: 5 * SECOND,
        };
        let holder = locked(&store).await;
        let attempt = holder.execute(&store, &upstream, None).await.unwrap();
        match attempt {
            Attempt::Executed(_) => assert!(!out_of_reach),
            Attempt::NotExecuted(_, Recovery::Retry, Err(_)) => assert!(out_of_reach),
            other => panic!("{other:?}"),
        }
        assert_eq!(upstream.platform.ledger().total(), sent);
    }
}

/// A store that can lose all its records, like a store without persistence after a restart.
#[derive(Clone, Default)]
struct Forgetful(Arc<Mutex<MemoryStore>>);

impl Forgetful {
    fn now(&self) -> MemoryStore {
        self.0.lock().unwrap().clone()
    }

    fn forget(&self) {
        *self.0.lock().unwrap() = MemoryStore::new();
    }
}

impl Store for Forgetful {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move { self.now().apply(name, event).await })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move { self.now().look(name).await })
    }
}

/// I1. Red if a holder whose lease was reported lost continues by its own clock: both
/// requests then leave.
#[tokio::test(start_paused = true)]
async fn reported_lost_lease_sends_no_request() {
    let store = Forgetful::default();
    let upstream = Connecting {
        platform: ok(),
        // After the first extension, and within the lease.
        takes: SECOND / 2,
    };
    let first = locked(&store).await;
    store.forget();
    let second = locked(&store).await;
    let attempt = first.execute(&store, &upstream, None).await.unwrap();
    let Attempt::NotExecuted(first, Recovery::Retry, Err(_)) = attempt else {
        panic!("{attempt:?}")
    };
    let attempt = first.execute(&store, &upstream, None).await.unwrap();
    assert!(matches!(attempt, Attempt::Lost(_)), "{attempt:?}");
    let attempt = second.execute(&store, &upstream, None).await.unwrap();
    assert!(matches!(attempt, Attempt::Executed(_)), "{attempt:?}");
    assert_eq!(upstream.platform.ledger().total(), 1);
}
