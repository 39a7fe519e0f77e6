//! Further attempts under one lease, the causes that the holder reports, and how often the
//! finishing command is sent.

use std::time::Duration;

use futures_util::FutureExt as _;
use genesys_once::error::SendError;
use genesys_once::execution::{Attempt, Execution, Lock, Locked};
use genesys_once::outcome::{Recovery, StoredBody};
use genesys_once::record::{Event, Namespace, RecordName, RecordState};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{Error, IdempotencyKey, MemoryStore, OnUnknown, Outcome, Upstream};
use tokio::time::{Instant, advance};

use super::{SECOND, hashed, locked, namespace, ok, request, state, terms};

const MS: Duration = Duration::from_millis(1);

/// A store in which each command that enters a phase has this fault.
fn enters(store: &MemoryStore, fault: Fault) -> FaultyStore {
    FaultyStore::new(store.clone(), move |operation| match operation.event {
        Some(Event::Enter { .. }) => fault.clone(),
        _ => Fault::Pass,
    })
}

/// A holder that has made one attempt, with this answer.
async fn tried(store: &MemoryStore, step: Step) -> Execution<Locked> {
    let mut terms = terms();
    terms.on_unknown = OnUnknown::Retry;
    let Lock::Locked(holder) = hashed().lock(store, &terms).await.unwrap() else {
        panic!("not locked");
    };
    let upstream = ScriptedUpstream::new(move |_| step.clone());
    match holder.execute(store, &upstream, None).await.unwrap() {
        Attempt::UnknownOutcome(holder, _) | Attempt::NotExecuted(holder, Recovery::Retry, _) => {
            holder
        }
        other => panic!("{other:?}"),
    }
}

/// A process that is stopped just before it sends: the time passes while the upstream is
/// asked for its attempt time-out, after the lease was verified.
struct Stopped(ScriptedUpstream);

impl Upstream for Stopped {
    fn namespace(&self) -> Namespace {
        namespace()
    }

    fn attempt_timeout(&self) -> Duration {
        let _ = advance(2 * SECOND).now_or_never();
        self.0.attempt_timeout()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        self.0.send(call, token)
    }
}

/// I1. Red if the lease is not checked again right before the request goes to the upstream.
#[tokio::test(start_paused = true)]
async fn holder_stopped_before_send_sends_nothing() {
    let (store, upstream) = (MemoryStore::new(), Stopped(ok()));
    let attempt = locked(&store).await.execute(&store, &upstream, None);
    let attempt = attempt.await.unwrap();
    assert!(
        matches!(attempt, Attempt::NotExecuted(_, Recovery::Retry, Err(_))),
        "{attempt:?}"
    );
    assert_eq!(upstream.0.ledger().total(), 0);
}

/// Red if the store's silence is reported as if nothing had been sent before: the callers
/// would retry.
#[tokio::test(start_paused = true)]
async fn unknown_outcome_outweighs_store_failure() {
    let (store, upstream) = (MemoryStore::new(), ok());
    let holder = tried(&store, Step::Reset).await;
    let away = enters(&store, Fault::Fail);
    let attempt = holder.execute(&away, &upstream, None).await.unwrap();
    match attempt {
        Attempt::Indeterminate(Error::Indeterminate { cause, .. }) => {
            assert!(
                cause.contains("an attempt has an unknown outcome"),
                "{cause}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(upstream.ledger().total(), 0);
    let left = state(&store).await;
    assert!(
        matches!(left, Some(RecordState::Indeterminate { .. })),
        "{left:?}"
    );
}

/// Red if the caller may acquire the key again: an attempt of its own might have been
/// executed, whatever has happened to the record since.
#[tokio::test(start_paused = true)]
async fn unknown_outcome_outweighs_lost_lease() {
    let (store, upstream) = (MemoryStore::new(), ok());
    let holder = tried(&store, Step::Reset).await;
    // The lease expires, and another process records the request as lost.
    advance(2 * SECOND).await;
    let noticed = hashed().lock(&store, &terms()).await.unwrap();
    assert!(matches!(noticed, Lock::Taken(..)), "{noticed:?}");
    match holder.execute(&store, &upstream, None).await.unwrap() {
        Attempt::Indeterminate(Error::Indeterminate { cause, .. }) => {
            assert!(
                cause.contains("the lease was lost between attempts"),
                "{cause}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(upstream.ledger().total(), 0);
}

/// Nothing was executed, and the store failed at once. Red if the key stays locked until
/// the lease expires.
#[tokio::test(start_paused = true)]
async fn store_failure_between_attempts_releases_key() {
    let (store, upstream) = (MemoryStore::new(), ok());
    let holder = tried(&store, Step::Refused).await;
    let away = enters(&store, Fault::Fail);
    let error = holder.execute(&away, &upstream, None).await.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
    let left = state(&store).await;
    assert!(
        matches!(left, Some(RecordState::Released { .. })),
        "{left:?}"
    );
}

/// Before the first attempt a command that failed slowly is sent again once, since no
/// caller has waited for an answer yet. Later it is not sent again.
#[tokio::test(start_paused = true)]
async fn slow_failure_is_resent_before_first_attempt() {
    for tried_before in [false, true] {
        let (store, upstream) = (MemoryStore::new(), ok());
        let holder = if tried_before {
            tried(&store, Step::Refused).await
        } else {
            let holder = locked(&store).await;
            // The lease has expired, so it must be verified.
            advance(2 * SECOND).await;
            holder
        };
        let fault = Fault::After(200 * MS, Box::new(Fault::Fail));
        let first = FaultyStore::new(store.clone(), move |operation| match operation.number {
            1 => fault.clone(),
            _ => Fault::Pass,
        });
        match holder.execute(&first, &upstream, None).await {
            Ok(Attempt::Executed(_)) => assert!(!tried_before),
            Err(Error::StoreUnavailable { .. }) => assert!(tried_before),
            other => panic!("{other:?}"),
        }
    }
}

/// The bound is the largest answer that is read. A success that is one byte larger is
/// recorded as its status alone.
#[tokio::test(start_paused = true)]
async fn answer_at_size_limit_is_read() {
    for (bound, read) in [(2, true), (1, false)] {
        let (store, mut terms) = (MemoryStore::new(), terms());
        terms.max_response_bytes = bound;
        let Lock::Locked(holder) = hashed().lock(&store, &terms).await.unwrap() else {
            panic!("not locked");
        };
        match holder.execute(&store, &ok(), None).await.unwrap() {
            Attempt::Executed(executed) => {
                let reply = executed.cache(&store).await.unwrap().into_reply();
                assert_eq!(reply.stored_body() == StoredBody::Full, read);
                assert_eq!(reply.body().is_empty(), !read);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// An operator that resolves a key needs the platform's status and the id that the
/// platform's support asks for.
#[tokio::test(start_paused = true)]
async fn cause_names_the_platforms_answer() {
    for (id, said) in [
        (None, "the platform answered 502"),
        (
            Some("c-17"),
            "the platform answered 502 (correlation id c-17)",
        ),
    ] {
        let step = Step::status(502, "{}");
        let step = match id {
            Some(id) => step.header("inin-correlation-id", id),
            None => step,
        };
        let upstream = ScriptedUpstream::new(move |_| step.clone());
        let store = MemoryStore::new();
        let attempt = locked(&store).await.execute(&store, &upstream, None).await;
        match attempt.unwrap() {
            Attempt::Indeterminate(Error::Indeterminate { cause, .. }) => assert_eq!(&*cause, said),
            other => panic!("{other:?}"),
        }
    }
}

/// `Progress::finish` sends its command once, without delay, and loses nothing by a
/// failure. Red if the command is sent twice.
#[tokio::test(start_paused = true)]
async fn failed_finish_keeps_progress() {
    let name = RecordName::new(namespace(), IdempotencyKey::of(&request()));
    let store = MemoryStore::new();
    let progress = locked(&store).await.progress().clone();
    let away = FaultyStore::new(store, |_| Fault::Fail);
    let begun = Instant::now();
    progress.finish(&away, &name).await.unwrap_err();
    assert_eq!((away.commands(), begun.elapsed()), (1, Duration::ZERO));
    assert!(!progress.is_finished());
}
