//! The suite that each store passes, of this crate or custom. It needs only the [`Store`]
//! trait and a way to advance the store's clock.

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

/// Tests that a store follows the protocol: each line of the transition table with repeats
/// and expired leases, outcomes byte for byte, concurrent commands, and random sequences of
/// events. Each answer is compared with that of [`record::apply`](crate::record::apply).
///
/// `elapse` advances **the store's clock**: `tokio::time::advance` for a store on tokio's
/// paused clock, and a real sleep for another store. Short leases last 20 ms and get 60 ms
/// to expire, so that a store with a clock coarser than 10 ms fails. A run takes about 20 s,
/// most of it asleep. The suite uses two new namespaces, changes no other record, and leaves
/// a few hundred records that expire within a day.
///
/// A store without notifications or lists passes. A store with wrong ones fails.
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
/// With the failed case, the events so far and both answers. A random sequence is shortened
/// before.
///
/// # Cancel safety
///
/// If it is dropped, its records stay until they expire.
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

/// What the cases share.
struct Suite<'a> {
    store: &'a dyn Store,
    elapse: Elapse<'a>,
    /// Two new namespaces.
    namespaces: [Namespace; 2],
}

type Elapse<'a> = &'a dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

impl<'a> Suite<'a> {
    /// A trial over a new key.
    fn trial(&self) -> Trial<'a> {
        Trial::new(self.store, self.elapse, self.name())
    }

    fn name(&self) -> RecordName {
        RecordName::new(self.namespaces[0].clone(), key())
    }
}

/// A new key.
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
