//! Acquiring a key while other processes change it, and while replies are lost.

use std::sync::Mutex;
use std::time::Duration;

use genesys_once::error::StoreError;
use genesys_once::execution::{Attempt, Lock, Terms};
use genesys_once::record::{
    Answer, Attempts, Claim, Event, Fingerprint, LeaseId, Phase, RecordName, RecordState, Revision,
};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{Fault, FaultyStore};
use genesys_once::{Error, MemoryStore, Store};
use tokio::time::{Instant, sleep};

use super::{SECOND, hashed, locked, ok, state, terms};

/// A store in which other events come before a command is applied, or after a command whose
/// reply is then lost.
struct Meanwhile<F> {
    store: MemoryStore,
    script: Mutex<F>,
}

/// What happens around one command.
#[derive(Default)]
struct Around {
    before: Vec<Event>,
    /// The reply is lost: these events follow after this time.
    lost: Option<(Duration, Vec<Event>)>,
}

impl<F: FnMut(&Event) -> Around + Send + 'static> Meanwhile<F> {
    fn new(script: F) -> Self {
        Self {
            store: MemoryStore::new(),
            script: Mutex::new(script),
        }
    }
}

impl<F: FnMut(&Event) -> Around + Send + 'static> Store for Meanwhile<F> {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        let Around { before, lost } = (self.script.lock().unwrap())(&event);
        Box::pin(async move {
            for event in before {
                self.store.apply(name, event).await?;
            }
            let answer = self.store.apply(name, event).await?;
            let Some((after, events)) = lost else {
                return Ok(answer);
            };
            sleep(after).await;
            for event in events {
                self.store.apply(name, event).await?;
            }
            Err(StoreError::unavailable("the connection broke"))
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        self.store.look(name)
    }
}

/// Another holder; of the same request if the fingerprint is the same.
fn another(lease: u8, fingerprint: Fingerprint) -> Claim {
    Claim {
        lease: LeaseId::from_bytes([lease; 16]),
        fingerprint,
        lease_ttl: SECOND,
        retention: 3600 * SECOND,
        attempts: Attempts::default(),
        about: Default::default(),
    }
}

/// A release by a lease of its own: it raises the revision of a released record.
fn passing_by(number: u8, fingerprint: Fingerprint) -> Event {
    Event::Release {
        claim: another(number, fingerprint),
        step: 1,
        refusal: None,
    }
}

/// Other holders release between the look and the take-over, this many times.
async fn contended(times: u8) -> Lock {
    let mut passed = 0;
    let store = Meanwhile::new(move |event| {
        let mut around = Around::default();
        match event {
            Event::TakeOver { claim, .. } if passed < times => {
                passed += 1;
                around.before = vec![passing_by(passed, claim.fingerprint)];
            }
            Event::Acquire { claim } if passed == 0 => {
                around.before = vec![passing_by(200, claim.fingerprint)];
            }
            _ => {}
        }
        around
    });
    hashed().lock(&store, &terms()).await.unwrap()
}

/// Red if the acquire gives up a key that changed once, and if it asks without end for a
/// key that changes each time.
#[tokio::test(start_paused = true)]
async fn changing_key_is_acquired_again() {
    let begun = Instant::now();
    for times in [0, 1, 3] {
        let lock = contended(times).await;
        assert!(matches!(lock, Lock::Locked(_)), "{times}: {lock:?}");
    }
    let lock = contended(100).await;
    assert!(
        matches!(lock, Lock::Taken(_, RecordState::Released { .. })),
        "{lock:?}"
    );
    assert!(begun.elapsed() < SECOND);
}

/// A caller that only waits, or gets a replay, costs the store one command.
#[tokio::test(start_paused = true)]
async fn known_key_costs_one_command() {
    let store = MemoryStore::new();
    let holder = locked(&store).await;
    let counting = FaultyStore::new(store.clone(), |_| Fault::Pass);
    let lock = hashed().lock(&counting, &terms()).await.unwrap();
    assert!(matches!(lock, Lock::Taken(..)), "{lock:?}");
    assert_eq!(counting.commands(), 1);

    let Attempt::Executed(executed) = holder.execute(&store, &ok(), None).await.unwrap() else {
        panic!("not executed");
    };
    let _ = executed.cache(&store).await.unwrap();
    let counting = FaultyStore::new(store, |_| Fault::Pass);
    let lock = hashed().lock(&counting, &terms()).await.unwrap();
    assert!(matches!(lock, Lock::Cached(_)), "{lock:?}");
    assert_eq!(counting.commands(), 1);
}

/// What an earlier lease sent does not count for the new holder, which has sent nothing
/// yet: an operator that resolves the key relies on that.
#[tokio::test(start_paused = true)]
async fn taken_over_record_says_nothing_sent() {
    let store = MemoryStore::new();
    let holder = locked(&store).await;
    let _ = holder.release(&store).await.unwrap();
    let _holder = locked(&store).await;
    match state(&store).await {
        Some(RecordState::Locked {
            phase: Phase::Claimed,
            attempts,
            ..
        }) => {
            assert_eq!((attempts.sent, attempts.count), (None, 0));
            assert_eq!(attempts.timeout, terms().attempt_timeout);
        }
        other => panic!("{other:?}"),
    }
}

/// The acquire was applied, its reply was lost, and meanwhile its lease was released (by an
/// operator, for example). Red if the acquire is sent again and again.
#[tokio::test(start_paused = true)]
async fn own_released_lease_is_not_awaited() {
    let mut first = true;
    let store = Meanwhile::new(move |event| match event {
        Event::Acquire { claim } if std::mem::take(&mut first) => Around {
            lost: Some((
                Duration::ZERO,
                vec![Event::Release {
                    claim: claim.clone(),
                    step: 1,
                    refusal: None,
                }],
            )),
            ..Around::default()
        },
        _ => Around::default(),
    });
    let begun = Instant::now();
    let lock = hashed().lock(&store, &terms()).await.unwrap();
    assert!(
        matches!(lock, Lock::Taken(_, RecordState::Released { .. })),
        "{lock:?}"
    );
    assert!(begun.elapsed() < Duration::from_millis(2));
}

/// The acquire was applied, its reply came only after the lease had expired, and another
/// process took the lease for a lost request. The holder knows that it sent nothing. Red if
/// the caller's error says that the request might have been executed.
#[tokio::test(start_paused = true)]
async fn own_expired_lease_is_not_indeterminate() {
    let mut first = true;
    let store = Meanwhile::new(move |event| match event {
        Event::Acquire { claim } if std::mem::take(&mut first) => {
            let revision = Revision {
                rev: 1,
                lease: claim.lease,
            };
            let take_over = Event::TakeOver {
                claim: another(7, claim.fingerprint),
                revision,
                watched: false,
            };
            Around {
                lost: Some((2 * SECOND, vec![take_over])),
                ..Around::default()
            }
        }
        _ => Around::default(),
    });
    let lock = hashed().lock(&store, &terms()).await.unwrap();
    let Lock::Taken(_, RecordState::Released { .. }) = lock else {
        panic!("{lock:?}");
    };
    let left = state(&store.store).await;
    assert!(
        matches!(left, Some(RecordState::Released { .. })),
        "{left:?}"
    );
}

/// Another process acquires the key between the look and the take-over. A caller of the
/// same request waits for it, a caller of another request gets a mismatch, and neither asks
/// again.
#[tokio::test(start_paused = true)]
async fn second_take_over_reports_new_holder() {
    for mine in [true, false] {
        let mut first = true;
        let store = Meanwhile::new(move |event| match event {
            Event::TakeOver {
                claim, revision, ..
            } if std::mem::take(&mut first) => {
                let theirs = if mine {
                    claim.fingerprint
                } else {
                    Fingerprint::from_bytes([1; 32])
                };
                let taken = Event::TakeOver {
                    claim: another(7, theirs),
                    revision: *revision,
                    watched: false,
                };
                Around {
                    before: vec![taken],
                    ..Around::default()
                }
            }
            _ => Around::default(),
        });
        let _ = locked(&store).await.release(&store).await.unwrap();
        let begun = Instant::now();
        match hashed().lock(&store, &terms()).await {
            Ok(Lock::Taken(_, RecordState::Locked { .. })) => assert!(mine),
            Err(Error::PayloadMismatch { .. }) => assert!(!mine),
            other => panic!("{other:?}"),
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}

/// The bounds that the documentation names are themselves allowed.
#[tokio::test(start_paused = true)]
async fn terms_at_their_bounds_are_taken() {
    let changes: [fn(&mut Terms); 5] = [
        |terms| terms.lease = Duration::from_millis(100),
        |terms| terms.lease = 3600 * SECOND,
        |terms| terms.result_ttl = Duration::from_millis(1),
        |terms| terms.result_ttl = 10 * 365 * 24 * 3600 * SECOND,
        |terms| terms.indeterminate_ttl = terms.lease + terms.attempt_timeout,
    ];
    for (number, change) in changes.iter().enumerate() {
        let (store, mut terms) = (MemoryStore::new(), Terms::default());
        change(&mut terms);
        let lock = hashed().lock(&store, &terms).await;
        assert!(matches!(lock, Ok(Lock::Locked(_))), "{number}: {lock:?}");
    }
}
