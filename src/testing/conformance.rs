//! The list of cases that every store passes, the crate's own and a user's
//! alike. It asks for nothing but the [`Store`] trait and a way to let the
//! store's clock pass.

mod cases;
mod outcomes;
mod sequences;
mod trial;
mod whole;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use self::trial::Trial;
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::record::LeaseId;
use crate::store::Store;

/// Holds a store to the protocol: every line of the transition table, repeats
/// and lapses included, outcomes byte for byte, concurrent commands, and random
/// sequences of events whose every answer is compared with what
/// [`record::apply`](crate::record::apply) says.
///
/// `elapse` lets that much time pass **by the store's clock**: it is
/// `tokio::time::advance` for a store that runs on tokio's paused clock, and a
/// real sleep for one that runs elsewhere. Leases that are to lapse last 20 ms
/// and are given 60 ms, so a store whose clock is coarser than 10 ms does not
/// pass; a run takes about 20 s, most of it asleep. Whatever the store holds
/// beforehand is left alone: the suite works in two new namespaces, and leaves
/// a few hundred records behind that expire within a day.
///
/// A store without notices, or one that cannot list its records, passes; one
/// that gives wrong notices or lists does not.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use genesys_once::{MemoryStore, testing::store_conformance};
///
/// store_conformance(MemoryStore::new(), tokio::time::advance).await;
/// # }
/// ```
///
/// # Panics
///
/// With the case that failed, the events so far and both answers; a random
/// sequence is shortened first.
///
/// # Cancel safety
///
/// Dropped halfway, it leaves records behind, as it does at its end.
pub async fn store_conformance<S: Store>(store: S, elapse: impl AsyncFn(Duration)) {
    let elapse = |time| -> Pin<Box<dyn Future<Output = ()> + '_>> { Box::pin(elapse(time)) };
    let suite = Suite {
        store: &store,
        elapse: &elapse,
        namespaces: [namespace(), namespace()],
    };
    for (case, steps) in cases::all().into_iter().chain(outcomes::all()) {
        let mut trial = suite.trial();
        for (step, (event, wanted)) in steps.into_iter().enumerate() {
            if let Err(difference) = trial.step(event, Some(wanted)).await {
                panic!("case \"{case}\", step {}: {difference}", step + 1);
            }
        }
    }
    whole::all(&suite).await;
    sequences::all(&suite).await;
}

/// What all cases share.
struct Suite<'a> {
    store: &'a dyn Store,
    elapse: Elapse<'a>,
    /// Two that nobody else uses.
    namespaces: [Namespace; 2],
}

type Elapse<'a> = &'a dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

impl<'a> Suite<'a> {
    /// A trial over a key that nobody has used.
    fn trial(&self) -> Trial<'a> {
        Trial::new(self.store, self.elapse, self.name())
    }

    fn name(&self) -> RecordName {
        RecordName::new(self.namespaces[0].clone(), key())
    }
}

/// A key that nobody has used.
fn key() -> IdempotencyKey {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    IdempotencyKey::from_bytes(bytes)
}

fn namespace() -> Namespace {
    let random = LeaseId::random();
    format!("conformance-{random}")
        .parse()
        .expect("hex digits are in the alphabet")
}
