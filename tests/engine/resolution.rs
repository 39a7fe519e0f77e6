//! Resolving an indeterminate key: only the execution that was seen, not while the lost
//! attempt might still be running, and with replies that are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use genesys_once::record::{Event, RecordState, Version};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{Engine, Error, MemoryStore, Resolution, RetryHint};
use tokio::time::{Instant, sleep};

use super::SECOND;
use super::ownership::{AlteredStore, FIRST, SECOND_ONE, answer, ask, key, order};

/// Red if the hook's answer goes to whichever execution is indeterminate under the key by
/// then: the second request's caller was given the answer to the first request.
#[tokio::test(start_paused = true)]
async fn late_hook_resolves_no_other_request() {
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let store = MemoryStore::new();
    let slow = Engine::builder(upstream.clone())
        .store(store.clone())
        .reconcile(|_, _| async {
            sleep(50 * SECOND).await;
            Some(Resolution::applied(answer("from the first hook")))
        });
    let slow = slow.start().await.unwrap();
    let quick = Engine::builder(upstream.clone())
        .store(store)
        .lease(SECOND)
        .store_timeout(SECOND / 2);
    let quick = quick.start().await.unwrap();
    let first = ask(&slow, order(FIRST));
    upstream.ledger().wait_for(1).await;
    sleep(SECOND).await;
    // Meanwhile an operator resolves the key, and another request takes it.
    let state = quick.inspect(&key()).await.unwrap().unwrap();
    let resolution = Resolution::not_applied().despite_clocks();
    quick.resolve(&key(), &state, resolution).await.unwrap();
    let second = quick.execute(order(SECOND_ONE)).await.unwrap_err();
    assert!(matches!(second, Error::Indeterminate { .. }), "{second}");
    let error = first.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    let again = quick.execute(order(SECOND_ONE)).await.unwrap_err();
    assert!(matches!(again, Error::Indeterminate { .. }), "{again}");
    // An operator that names the version it saw reaches no other execution either.
    let late = quick
        .resolve(&key(), &state, Resolution::applied(answer("?")))
        .await;
    assert!(
        matches!(late, Err(Error::NotIndeterminate { .. })),
        "{late:?}"
    );
}

/// The attempt time-out and the lease of the lost holder count. Red with those of the
/// engine that resolves.
#[tokio::test(start_paused = true)]
async fn lost_attempt_keeps_its_own_timeout() {
    let slow = ScriptedUpstream::new(|_| Step::Silent).with_attempt_timeout(600 * SECOND);
    let store = MemoryStore::new();
    let holder = Engine::builder(slow.clone())
        .store(store.clone())
        .lease(60 * SECOND);
    let holder = holder.start().await.unwrap();
    let _asked = ask(&holder, order(FIRST));
    slow.ledger().wait_for(1).await;
    holder.actor().kill();
    let other = ScriptedUpstream::new(|_| Step::ok("{}")).with_attempt_timeout(5 * SECOND);
    let other = Engine::builder(other)
        .store(store)
        .namespace(holder.namespace().clone());
    let other = other.start().await.unwrap();
    sleep(61 * SECOND).await;
    let state = other.indeterminate(1).await.unwrap().keys.remove(0).1;
    let not_applied = async || {
        let resolution = Resolution::not_applied();
        other.resolve(&key(), &state, resolution).await
    };
    let Err(Error::TooEarly { wait, .. }) = not_applied().await else {
        panic!("not refused as too early");
    };
    assert_eq!(wait, 661 * SECOND);
    sleep(660 * SECOND).await;
    let error = not_applied().await.unwrap_err();
    assert_eq!(error.hint(), RetryHint::After(SECOND));
    sleep(SECOND).await;
    not_applied().await.unwrap();
}

/// Both clocks must agree, and a clock whose reading makes no sense does not count. If
/// neither clock counts, the engine's own monotonic clock counts from its first look. Red
/// without either comparison.
#[tokio::test(start_paused = true)]
async fn not_applied_waits_for_every_clock() {
    // The age that the store reports, and by how much the resolver's wall clock is ahead of
    // the holder's; then how long `not_applied` must wait.
    type See = fn(&mut RecordState);
    let as_it_is: See = |_| ();
    let old: See = |state| {
        if let RecordState::Indeterminate { age, .. } = state {
            *age = Some(1000 * SECOND);
        }
    };
    let none: See = |state| {
        if let RecordState::Indeterminate { age, .. } = state {
            *age = None;
        }
    };
    let hour = 3600;
    for (what, see, ahead, wait) in [
        ("both make sense", as_it_is, 0, 96),
        ("the store's clock was stepped forward", old, 0, 96),
        ("the wall clock is an hour ahead", as_it_is, hour, 96),
        ("the wall clock is an hour behind", as_it_is, -hour, 96),
        ("the time to live makes no sense", none, 0, 96),
        ("both are ahead", old, hour, 0),
        ("neither makes sense", none, -hour, 96),
    ] {
        let upstream = ScriptedUpstream::new(|_| Step::Reset);
        let store = MemoryStore::new();
        let wall = SystemTime::UNIX_EPOCH + 1_000_000 * SECOND;
        let holder = Engine::builder(upstream.clone())
            .store(store.clone())
            .deterministic(1, wall);
        let holder = holder.start().await.unwrap();
        holder.execute(order(FIRST)).await.unwrap_err();
        let ahead: i64 = ahead;
        let wall = match u64::try_from(ahead) {
            Ok(ahead) => wall + Duration::from_secs(ahead),
            Err(_) => wall - Duration::from_secs(ahead.unsigned_abs()),
        };
        let other = Engine::builder(upstream)
            .store(AlteredStore(store, see))
            .deterministic(2, wall);
        let other = other.start().await.unwrap();
        let state = other.inspect(&key()).await.unwrap().unwrap();
        let began = Instant::now();
        loop {
            match other
                .resolve(&key(), &state, Resolution::not_applied())
                .await
            {
                Ok(()) => break,
                Err(Error::TooEarly { wait, .. }) => sleep(wait).await,
                Err(error) => panic!("{what}: {error}"),
            }
        }
        assert_eq!(began.elapsed(), wait * SECOND, "{what}");
    }
}

/// A resolution recognises itself after a lost reply. If another holder took the key
/// meanwhile, the error says that the resolution might have been applied. Red without
/// `lost_reply`: `NotIndeterminate`.
#[tokio::test(start_paused = true)]
async fn resolution_with_a_lost_reply_recognises_itself() {
    for taken in [false, true] {
        let upstream = ScriptedUpstream::new(|call| match call.request().payload().len() {
            20.. => Step::Reset,
            _ => Step::ok("{}"),
        });
        let store = MemoryStore::new();
        let lost = Arc::new(AtomicUsize::new(0));
        let faulty = FaultyStore::new(store.clone(), {
            let lost = lost.clone();
            move |operation| match operation.event {
                Some(Event::Resolve { .. }) if lost.fetch_add(1, Ordering::SeqCst) == 0 => {
                    Fault::LoseReply
                }
                Some(Event::Resolve { .. }) => Fault::After(SECOND, Box::new(Fault::Pass)),
                _ => Fault::Pass,
            }
        });
        let engine = Engine::builder(upstream.clone()).store(faulty);
        let engine = engine.start().await.unwrap();
        let other = Engine::builder(upstream.clone()).store(store);
        let other = other.start().await.unwrap();
        engine.execute(order(SECOND_ONE)).await.unwrap_err();
        let state = engine.inspect(&key()).await.unwrap().unwrap();
        let resolution = Resolution::not_applied().despite_clocks();
        let resolving = tokio::spawn({
            let engine = engine.clone();
            async move { engine.resolve(&key(), &state, resolution).await }
        });
        if taken {
            while lost.load(Ordering::SeqCst) < 2 {
                sleep(SECOND / 100).await;
            }
            other.execute(order("{}")).await.unwrap();
        }
        let resolved = resolving.await.unwrap();
        match taken {
            false => resolved.unwrap(),
            true => assert!(
                matches!(resolved, Err(Error::ResolutionUnknown { .. })),
                "{resolved:?}"
            ),
        }
        assert_eq!(lost.load(Ordering::SeqCst), 2);
    }
}

/// Red without the comparison: the record was gone while the lost request ran.
#[tokio::test(start_paused = true)]
async fn indeterminate_ttl_covers_lease_and_attempt() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let build = |ttl| {
        Engine::builder(upstream.clone())
            .indeterminate_ttl(ttl)
            .start()
    };
    match build(94 * SECOND).await {
        Err(Error::InvalidConfig { setting, .. }) => assert_eq!(setting, "indeterminate_ttl"),
        other => panic!("{other:?}"),
    }
    build(96 * SECOND).await.unwrap();
}

/// The version that an operator sees and sends back.
#[tokio::test(start_paused = true)]
async fn version_survives_text_and_recovery() {
    let upstream = ScriptedUpstream::new(|_| Step::Silent);
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone()).store(store);
    let holder = builder.clone().start().await.unwrap();
    let _asked = ask(&holder, order(FIRST));
    upstream.ledger().wait_for(1).await;
    let locked = holder.inspect(&key()).await.unwrap().unwrap();
    holder.actor().kill();
    sleep(31 * SECOND).await;
    let other = builder.start().await.unwrap();
    let lost = other.indeterminate(1).await.unwrap().keys.remove(0).1;
    assert_ne!(lost.revision(), locked.revision());
    assert_eq!(lost.version(), locked.version());
    let text = locked.version().to_string();
    let version: Version = text.parse().unwrap();
    let resolution = Resolution::applied(answer("{}"));
    other.resolve(&key(), version, resolution).await.unwrap();
    assert_eq!(other.execute(order(FIRST)).await.unwrap().body(), "{}");
}
