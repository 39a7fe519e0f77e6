//! The lease of a holder: how it is extended until the answer, and what its holder may do
//! after the expiry.

use std::time::Duration;

use genesys_once::execution::{Attempt, Lock};
use genesys_once::outcome::Recovery;
use genesys_once::record::{Event, Phase, RecordState};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{Error, MemoryStore};
use tokio::time::{Instant, advance, sleep};

use super::{SECOND, hashed, locked, ok, ok_after, state, terms};

/// Over any store, without the engine's guard: seen red if an extension that failed waited
/// for another third of the lease.
#[tokio::test(start_paused = true)]
async fn failed_extension_is_repeated_within_the_lease() {
    let (store, start) = (MemoryStore::new(), Instant::now());
    let ms = Duration::from_millis(1);
    let away = FaultyStore::new(store.clone(), move |_| match start.elapsed() {
        now if now > 300 * ms && now < 850 * ms => Fault::Fail,
        _ => Fault::Pass,
    });
    let locked = locked(&away).await;
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(3 * SECOND));
    let attempt = tokio::spawn({
        let (away, upstream) = (away.clone(), upstream.clone());
        async move { locked.execute(&away, &upstream, None).await.unwrap() }
    });
    sleep(999 * ms).await;
    match state(&store).await {
        Some(RecordState::Locked { lease_left, .. }) => assert!(lease_left > 800 * ms),
        other => panic!("{other:?}"),
    }
    // One extension per fifteenth of the lease.
    assert!((8..=12).contains(&away.commands()), "{}", away.commands());
    assert!(matches!(attempt.await.unwrap(), Attempt::Executed(_)));
}

/// I1 and I5. Red if `execute` neither extends an expired lease nor checks it.
#[tokio::test(start_paused = true)]
async fn stopped_holder_sends_nothing_after_take_over() {
    let (store, upstream) = (MemoryStore::new(), ok());
    let stopped = locked(&store).await;
    advance(2 * SECOND).await;
    // Another process looks: as far as it knows, the request might have been sent.
    match hashed().lock(&store, &terms()).await.unwrap() {
        Lock::Taken(_, RecordState::Indeterminate { .. }) => {}
        other => panic!("{other:?}"),
    }
    let attempt = stopped.execute(&store, &upstream, None).await.unwrap();
    assert!(matches!(attempt, Attempt::Lost(_)), "{attempt:?}");
    assert_eq!(upstream.ledger().total(), 0);
    // The holder knows more than the other process, and records that nothing was sent.
    assert!(matches!(
        state(&store).await,
        Some(RecordState::Released { .. })
    ));
}

/// I1. Red if the lease counts from when the store's answer came, and not from when the
/// command was sent.
#[tokio::test(start_paused = true)]
async fn lease_expired_during_extension_is_unused() {
    let (store, upstream) = (MemoryStore::new(), ok());
    let holder = locked(&store).await;
    advance(2 * SECOND).await;
    let slow = FaultyStore::new(store.clone(), |operation| match operation.event {
        Some(Event::Enter { .. }) => Fault::Late(3 * SECOND),
        _ => Fault::Pass,
    });
    let error = holder.execute(&slow, &upstream, None).await.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 0);
    assert!(matches!(
        state(&store).await,
        Some(RecordState::Released { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn lease_lives_until_the_answer() {
    let (store, upstream) = (MemoryStore::new(), ok_after(20 * SECOND));
    let holder = locked(&store).await;
    let executing = tokio::spawn({
        let (store, upstream) = (store.clone(), upstream.clone());
        async move { holder.execute(&store, &upstream, None).await }
    });
    for _ in 0..19 {
        sleep(SECOND).await;
        let now = state(&store).await;
        let Some(RecordState::Locked {
            phase: Phase::Dispatched,
            lease_left,
            ..
        }) = now
        else {
            panic!("{now:?}")
        };
        assert!(lease_left > SECOND / 2, "{lease_left:?}");
    }
    assert!(matches!(
        executing.await.unwrap().unwrap(),
        Attempt::Executed(_)
    ));
}

/// I5. Red if an expired `Claimed` is not taken over, or if a live one is.
#[tokio::test(start_paused = true)]
async fn dead_waiting_holder_is_taken_over() {
    let (store, upstream) = (MemoryStore::new(), ok());
    let limited = ScriptedUpstream::new(|_| Step::RateLimited(60 * SECOND));
    let attempt = locked(&store)
        .await
        .execute(&store, &limited, None)
        .await
        .unwrap();
    let Attempt::NotExecuted(holder, Recovery::Retry, Ok(_)) = attempt else {
        panic!("{attempt:?}")
    };
    // The holder waits in `Claimed`, and its lease lives for as long as it waits.
    let (holder, ()) = holder.pause(&store, sleep(30 * SECOND)).await;
    let now = state(&store).await;
    assert!(
        matches!(
            now,
            Some(RecordState::Locked {
                phase: Phase::Claimed,
                ..
            })
        ),
        "{now:?}"
    );
    let taken = hashed().lock(&store, &terms()).await.unwrap();
    assert!(matches!(taken, Lock::Taken(..)), "{taken:?}");
    // The holder is dead: no process extends or releases the lease.
    drop(holder);
    advance(2 * SECOND).await;
    let next = locked(&store)
        .await
        .execute(&store, &upstream, None)
        .await
        .unwrap();
    assert!(matches!(next, Attempt::Executed(_)), "{next:?}");
    assert_eq!(
        (limited.ledger().total(), upstream.ledger().total()),
        (1, 1)
    );
}
