//! A resolution whose record changes between its looks, and a resolution whose store fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use genesys_once::error::StoreError;
use genesys_once::record::{
    Answer, Attempts, Claim, Event, Fingerprint, LeaseId, Phase, RecordName, RecordState, Revision,
};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{Engine, Error, MemoryStore, Resolution, Store};
use tokio::time::advance;

use super::SECOND;
use super::ownership::{answer, key};

type Which = fn(&Event) -> bool;

/// Selects a command of the engine; the events come before that command.
type Others = (Which, Vec<Event>);

/// A store that gets the events of other holders right before the first command of a kind.
#[derive(Clone)]
struct Before {
    store: MemoryStore,
    what: Arc<Mutex<Option<Others>>>,
}

impl Store for Before {
    delegate!(store: look);

    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        let mut what = self.what.lock().unwrap();
        let now = what.take_if(|(which, _)| which(&event));
        drop(what);
        Box::pin(async move {
            for event in now.into_iter().flat_map(|(_, events)| events) {
                let answer = self.store.apply(name, event.clone()).await?;
                let expected = matches!(answer, Answer::Done | Answer::Lost(_));
                assert!(expected, "{event:?}: {answer:?}");
            }
            self.store.apply(name, event).await
        })
    }
}

/// Holders of the same request.
fn holder(lease: u8) -> Claim {
    Claim {
        lease: LeaseId::from_bytes([lease; 16]),
        fingerprint: Fingerprint::from_bytes([9; 32]),
        lease_ttl: SECOND,
        retention: 3600 * SECOND,
        attempts: Attempts::default(),
        about: Default::default(),
    }
}

fn seen(rev: u64, lease: u8) -> Revision {
    let lease = LeaseId::from_bytes([lease; 16]);
    Revision { rev, lease }
}

fn release(lease: u8) -> Event {
    Event::Release {
        claim: holder(lease),
        step: 9,
        refusal: None,
    }
}

/// Resolves the loss of the first holder, while the other events come before the commands
/// of that kind. Returns the result, and what the store then holds.
async fn resolve(
    which: Which,
    others: Vec<Event>,
    resolution: Resolution,
) -> (Result<(), Error>, RecordState) {
    let store = Before {
        store: MemoryStore::new(),
        what: Arc::default(),
    };
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let engine = Engine::builder(upstream).store(store.clone());
    let engine = engine.start().await.unwrap();
    let name = RecordName::new(engine.namespace().clone(), key());
    let claim = holder(1);
    store.apply(&name, Event::Acquire { claim }).await.unwrap();
    advance(2 * SECOND).await;
    let lost = store.look(&name).await.unwrap().unwrap();
    *store.what.lock().unwrap() = Some((which, others));
    let resolved = engine.resolve(&key(), &lost, resolution).await;
    assert!(
        store.what.lock().unwrap().is_none(),
        "no command came between"
    );
    (resolved, store.look(&name).await.unwrap().unwrap())
}

fn takes_over(event: &Event) -> bool {
    matches!(event, Event::TakeOver { .. })
}

fn resolves(event: &Event) -> bool {
    matches!(event, Event::Resolve { .. })
}

fn applied() -> Resolution {
    Resolution::applied(answer("found"))
}

/// Between the look and the command, another engine resolves the loss, executes the same
/// request again and is lost, too. Red if that second execution is resolved, which no
/// operator has examined.
#[tokio::test(start_paused = true)]
async fn later_loss_is_not_resolved() {
    let others = || {
        vec![
            Event::TakeOver {
                claim: holder(2),
                revision: seen(1, 1),
                watched: false,
            },
            Event::Resolve {
                lease: LeaseId::from_bytes([7; 16]),
                revision: seen(2, 1),
                fingerprint: holder(1).fingerprint,
                resolution: Resolution::not_applied(),
                origin: Default::default(),
                ttl: SECOND,
            },
            Event::TakeOver {
                claim: holder(3),
                revision: seen(3, 1),
                watched: false,
            },
            Event::Enter {
                claim: holder(3),
                step: 1,
                phase: Phase::Dispatched,
            },
            Event::Abandon {
                claim: holder(3),
                step: 2,
                cause: "reset".into(),
            },
        ]
    };
    let not_applied = Resolution::not_applied().despite_clocks();
    for resolution in [applied(), not_applied] {
        let (resolved, left) = resolve(takes_over, others(), resolution).await;
        assert!(
            matches!(resolved, Err(Error::NotIndeterminate { .. })),
            "{resolved:?}"
        );
        assert!(
            matches!(left, RecordState::Indeterminate { .. }),
            "{left:?}"
        );
    }
}

/// The lost holder's own proof that nothing was executed comes first. Red if `applied` is
/// reported as done: the outcome is recorded nowhere. Red if `not_applied`, which is true
/// by then, is refused.
#[tokio::test(start_paused = true)]
async fn healed_loss_is_not_applied() {
    for which in [takes_over as Which, resolves] {
        let (resolved, left) = resolve(which, vec![release(1)], applied()).await;
        assert!(
            matches!(resolved, Err(Error::NotIndeterminate { .. })),
            "{resolved:?}"
        );
        assert!(matches!(left, RecordState::Released { .. }), "{left:?}");
    }
    let not_applied = Resolution::not_applied().despite_clocks();
    let (resolved, left) = resolve(takes_over, vec![release(1)], not_applied).await;
    assert!(resolved.is_ok(), "{resolved:?}");
    assert!(matches!(left, RecordState::Released { .. }), "{left:?}");
}

/// A failed command is sent again once, a refused one is not, and both are reported.
#[tokio::test(start_paused = true)]
async fn store_failure_reaches_the_operator() {
    for (fault, tries) in [(Fault::Fail, 2), (Fault::Refuse, 1)] {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let store = FaultyStore::new(MemoryStore::new(), move |operation| match operation.event {
            Some(Event::Resolve { .. }) => {
                count.fetch_add(1, Ordering::SeqCst);
                fault.clone()
            }
            _ => Fault::Pass,
        });
        let upstream = ScriptedUpstream::new(|_| Step::Reset);
        let engine = Engine::builder(upstream).store(store.clone());
        let engine = engine.start().await.unwrap();
        let name = RecordName::new(engine.namespace().clone(), key());
        let claim = holder(1);
        store.apply(&name, Event::Acquire { claim }).await.unwrap();
        advance(2 * SECOND).await;
        let lost = store.look(&name).await.unwrap().unwrap();
        let error = engine.resolve(&key(), &lost, applied()).await.unwrap_err();
        assert!(matches!(error, Error::StoreUnavailable { .. }), "{error:?}");
        assert_eq!(sent.load(Ordering::SeqCst), tries);
    }
}
