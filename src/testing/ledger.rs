//! The platform's own count of the calls for each key: the evidence of each test of
//! "exactly once". It judges answers by its own rule, never through `genesys` or `policy`,
//! so that it can find their mistakes.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use tokio::sync::watch;

use crate::key::IdempotencyKey;
use crate::outcome::Outcome;

mod proof;

/// The execute requests that reached a simulated platform, in order, each with its result.
///
/// A clone is the same ledger. A call counts as **executed** unless its answer proves that
/// it was not. Only these answers do:
///
/// - 401, 403–408, 411, 413, 414, 415, 417, 421, 425, 426, 429, 431 and every 3xx;
/// - 400 with `ACTION.AUTHENTICATION` or the code `client.failed.request`, and 504
///   with the code `authentication.request.timeout`;
///
/// They prove nothing if the body names `ACTION.REMOTE_ENDPOINT` or `ACTION.PROCESSING`,
/// since then the remote end was called, or if the body cannot be read: in a content coding,
/// in UTF-16, or cut.
///
/// A call without an answer (reset, cut, silent, under way, dropped by the caller) counts as
/// executed. A refused connection never reached the platform: the key's events list it, and
/// it is not counted.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<LedgerState>,
}

struct LedgerState {
    book: Mutex<Book>,
    /// The number of calls that arrived, for `wait_for`.
    arrived: watch::Sender<usize>,
}

#[derive(Default)]
struct Book {
    entries: Vec<Entry>,
    /// Positions in `entries`, per key.
    by_key: HashMap<IdempotencyKey, Vec<usize>>,
    running: usize,
    max_running: usize,
}

struct Entry {
    key: IdempotencyKey,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Running,
    Answered {
        status: StatusCode,
        unexecuted: bool,
    },
    Unanswered(&'static str),
    Refused,
}

impl Fate {
    fn arrived(self) -> bool {
        self != Self::Refused
    }

    fn might_be_executed(self) -> bool {
        match self {
            Self::Running | Self::Unanswered(_) => true,
            Self::Answered { unexecuted, .. } => !unexecuted,
            Self::Refused => false,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("still under way, might be executed"),
            Self::Answered {
                status,
                unexecuted: true,
            } => {
                write!(f, "answered {}, not executed", status.as_u16())
            }
            Self::Answered {
                status,
                unexecuted: false,
            } => {
                write!(f, "answered {}, executed", status.as_u16())
            }
            Self::Unanswered(how) => write!(f, "{how}, might be executed"),
            Self::Refused => f.write_str("connection refused, never arrived"),
        }
    }
}

impl Ledger {
    pub(super) fn new() -> Self {
        let shared = LedgerState {
            book: Mutex::default(),
            arrived: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The number of execute requests that reached the platform, of all keys.
    pub fn total(&self) -> usize {
        *self.shared.arrived.borrow()
    }

    /// The number of execute requests for `key` that reached the platform, including refused
    /// ones, such as by a 429.
    pub fn calls(&self, key: &IdempotencyKey) -> usize {
        self.book().count(key, Fate::arrived)
    }

    /// The number of execute requests for `key` that were, or might have been, executed.
    pub fn executed(&self, key: &IdempotencyKey) -> usize {
        self.book().count(key, Fate::might_be_executed)
    }

    /// The calls for `key` that were, or might have been, executed: their numbers among the
    /// arrivals of the key, from 1, as in [`Call::attempt`](crate::upstream::Call::attempt).
    pub fn executions(&self, key: &IdempotencyKey) -> Vec<u32> {
        let book = self.book();
        let arrivals = book.of(key).filter(|(_, fate)| fate.arrived());
        (1..)
            .zip(arrivals)
            .filter(|(_, (_, fate))| fate.might_be_executed())
            .map(|(nth, _)| nth)
            .collect()
    }

    /// The keys of the calls that arrived, in the order of their first arrival.
    pub fn keys(&self) -> Vec<IdempotencyKey> {
        let book = self.book();
        let mut seen = HashSet::new();
        let arrivals = book.entries.iter().filter(|entry| entry.fate.arrived());
        arrivals
            .map(|entry| entry.key)
            .filter(|key| seen.insert(*key))
            .collect()
    }

    /// The largest number of calls at one time, including calls that were then refused.
    pub fn max_concurrent(&self) -> usize {
        self.book().max_running
    }

    /// Waits until `calls` execute requests in all have reached the platform.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when this is dropped.
    pub async fn wait_for(&self, calls: usize) {
        let mut arrived = self.shared.arrived.subscribe();
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = arrived.wait_for(|total| *total >= calls).await;
    }

    /// Asserts that each of these keys was executed exactly once. Each call counts that is
    /// not proven unexecuted.
    ///
    /// # Panics
    ///
    /// If a key was not: the message names each such key, how often it was executed, and the
    /// result of each of its calls.
    #[track_caller]
    pub fn assert_exactly_once<'k>(&self, keys: impl IntoIterator<Item = &'k IdempotencyKey>) {
        let book = self.book();
        let mut wrong = String::new();
        for key in keys {
            let executed = book.count(key, Fate::might_be_executed);
            if executed != 1 {
                book.write_events(key, executed, &mut wrong);
            }
        }
        // Dropped before the panic, so that a failed test does not poison the lock.
        drop(book);
        assert!(wrong.is_empty(), "not executed exactly once:{wrong}");
    }

    /// Records the arrival of a call, which is under way until the `Arrival` has a result or
    /// is dropped.
    pub(super) fn arrive(&self, key: IdempotencyKey) -> Arrival {
        let mut book = self.book();
        let index = book.note(key, Fate::Running);
        let nth = book.count(&key, Fate::arrived);
        book.running += 1;
        book.max_running = book.max_running.max(book.running);
        drop(book);
        self.shared.arrived.send_modify(|total| *total += 1);
        Arrival {
            ledger: self.clone(),
            index,
            nth: u32::try_from(nth).unwrap_or(u32::MAX),
        }
    }

    /// Records a refused connection, which is listed and not counted.
    pub(super) fn refuse(&self, key: IdempotencyKey) {
        self.book().note(key, Fate::Refused);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.shared.book)
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("total", &self.total())
            .field("keys", &self.book().by_key.len())
            .finish()
    }
}

impl Book {
    fn note(&mut self, key: IdempotencyKey, fate: Fate) -> usize {
        let index = self.entries.len();
        self.entries.push(Entry { key, fate });
        self.by_key.entry(key).or_default().push(index);
        index
    }

    fn of<'a>(&'a self, key: &IdempotencyKey) -> impl Iterator<Item = (usize, Fate)> + use<'a> {
        let indices = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        indices.iter().map(|&i| (i, self.entries[i].fate))
    }

    fn count(&self, key: &IdempotencyKey, which: impl Fn(Fate) -> bool) -> usize {
        self.of(key).filter(|(_, fate)| which(*fate)).count()
    }

    fn write_events(&self, key: &IdempotencyKey, executed: usize, text: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {key}: executed {executed} times");
        for (i, fate) in self.of(key) {
            let _ = write!(text, "\n    event {}: {fate}", i + 1);
        }
    }
}

/// One call at the platform. Dropped without an answer, it was dropped by the caller.
#[derive(Debug)]
pub(super) struct Arrival {
    ledger: Ledger,
    index: usize,
    nth: u32,
}

impl Arrival {
    /// The number of this arrival among those of its key, from 1.
    pub(super) fn nth(&self) -> u32 {
        self.nth
    }

    pub(super) fn answered(self, outcome: &Outcome) {
        let unexecuted = proof::proves_unexecuted(outcome);
        self.finish(Fate::Answered {
            status: outcome.status(),
            unexecuted,
        });
    }

    pub(super) fn unanswered(self, how: &'static str) {
        self.finish(Fate::Unanswered(how));
    }

    fn finish(&self, fate: Fate) {
        self.ledger.book().entries[self.index].fate = fate;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        book.running -= 1;
        let fate = &mut book.entries[self.index].fate;
        if *fate == Fate::Running {
            *fate = Fate::Unanswered("dropped by the caller");
        }
    }
}

/// The lock, also after a panic: a poisoned mutex must not hide the reason of a failed test.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::answers;

    fn keys() -> (IdempotencyKey, IdempotencyKey) {
        (
            IdempotencyKey::from_bytes([1; 32]),
            IdempotencyKey::from_bytes([2; 32]),
        )
    }

    #[test]
    fn ledger_counts_arrivals_and_executions() {
        let (a, b) = keys();
        let ledger = Ledger::new();
        ledger.refuse(b);
        ledger
            .arrive(a)
            .answered(&answers::platform_error(429, "too.many", "wait"));
        ledger.arrive(b).unanswered("reset");
        ledger.arrive(a).answered(&answers::json(200, "{}"));
        assert_eq!(
            (ledger.total(), ledger.calls(&a), ledger.calls(&b)),
            (3, 2, 1)
        );
        assert_eq!((ledger.executed(&a), ledger.executed(&b)), (1, 1));
        assert_eq!(
            (ledger.executions(&a), ledger.executions(&b)),
            (vec![2], vec![1])
        );
        assert_eq!(ledger.keys(), [a, b]);
        assert_eq!(ledger.max_concurrent(), 1);
        ledger.assert_exactly_once(&[a, b]);
    }

    #[test]
    fn failure_lists_the_events_of_each_key() {
        let (a, b) = keys();
        let ledger = Ledger::new();
        let again = ledger.clone();
        ledger.refuse(a);
        ledger.arrive(a).answered(&answers::json(200, "{}"));
        drop(ledger.arrive(a));
        let running = ledger.arrive(a);
        let asserting = std::thread::spawn(move || again.assert_exactly_once(&[a, b]));
        let panic = asserting.join().unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert_eq!(
            *message,
            format!(
                "not executed exactly once:\
                 \n  {a}: executed 3 times\
                 \n    event 1: connection refused, never arrived\
                 \n    event 2: answered 200, executed\
                 \n    event 3: dropped by the caller, might be executed\
                 \n    event 4: still under way, might be executed\
                 \n  {b}: executed 0 times"
            )
        );
        assert_eq!(running.nth(), 3);
    }

    #[test]
    fn concurrency_counts_calls_under_way() {
        let (a, b) = keys();
        let ledger = Ledger::new();
        let both = (ledger.arrive(a), ledger.arrive(b));
        drop(both);
        drop(ledger.arrive(a));
        assert_eq!(ledger.max_concurrent(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn wait_ends_with_the_last_arrival() {
        let (a, b) = keys();
        let ledger = Ledger::new();
        ledger.wait_for(0).await;
        let waiting = tokio::spawn({
            let ledger = ledger.clone();
            async move { ledger.wait_for(2).await }
        });
        drop(ledger.arrive(a));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(ledger.arrive(b));
        waiting.await.unwrap();
    }
}
