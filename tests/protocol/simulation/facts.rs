//! What is known of a run from outside, as plain data: calls, records, faults and callers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use genesys_once::Engine;
use genesys_once::record::{Fingerprint, RecordName};
use tokio::time::Instant;

use super::oracle::Violation;
use super::schedule::{Answer, Command, Fault, HookSays, Ms};

/// A call at the platform.
#[derive(Clone, Debug)]
pub struct Sent {
    pub engine: usize,
    pub life: usize,
    pub name: RecordName,
    pub label: String,
    pub attempt: u32,
    pub arrived: Instant,
    pub executes_at: Option<Instant>,
    pub end: Option<(Instant, Ended)>,
    /// The lease in the record when the call arrived.
    pub lease: Option<String>,
    /// Until when its outcome, or an operator's resolution of it, is recorded.
    pub recorded_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The answer proves that nothing was executed.
    Refused,
    /// The answer is the outcome.
    Final,
    /// The answer, or its absence, proves nothing.
    Unknown,
    /// The engine gave up the call.
    Dropped,
}

/// What allows a call after a call that might have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clearing {
    NotApplied,
    Forget,
    Loss,
}

/// The engine that has one place now.
#[derive(Clone)]
pub struct Seat {
    pub engine: Engine,
    pub life: usize,
    /// An actor in it was killed, or panicked by the script.
    pub hurt: bool,
    /// The system's clock, relative to this run's clock.
    pub clock: i64,
}

/// Engine and life, record, label, since when, and the caller's number.
pub type Waiting = (usize, usize, RecordName, String, Instant, usize);

/// Where an answer turns out to come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Call(usize),
    Operator(usize),
}

#[derive(Default)]
pub struct State {
    pub trace: Vec<String>,
    pub hash: u64,
    pub violations: Vec<Violation>,
    pub answers: BTreeMap<u8, VecDeque<Answer>>,
    pub hook: VecDeque<(Ms, HookSays)>,
    pub blips: Vec<(Instant, usize, Command, Fault, u8)>,
    pub commands: BTreeMap<(usize, RecordName), u64>,
    pub total_commands: usize,
    pub sent: Vec<Sent>,
    pub cleared: Vec<(RecordName, Instant, Clearing)>,
    pub seats: Vec<Seat>,
    pub ended: BTreeSet<(usize, usize)>,
    /// All moments at which a command of an engine failed.
    pub faults: BTreeMap<usize, Vec<Instant>>,
    /// When a command of an engine was last answered.
    pub well: BTreeMap<usize, Instant>,
    /// Which request the record belonged to from which moment on; `None` for no request.
    pub history: BTreeMap<RecordName, Vec<(Instant, Option<Fingerprint>)>>,
    /// A live lease that an engine sees: when it saw the lease, and when the lease expires.
    pub expires: BTreeMap<(usize, usize, RecordName), (Vec<Instant>, Instant)>,
    /// Leases that an engine created.
    pub own: BTreeSet<(usize, usize, String)>,
    /// Leases that a flight of an engine saw.
    pub seen: BTreeSet<(usize, usize, RecordName, String)>,
    /// When an answer was first given to a caller of an engine.
    pub given: BTreeMap<(usize, usize, Source), Instant>,
    /// What a record held, and since when it last held it.
    pub recorded: BTreeMap<(RecordName, Source), Instant>,
    /// Which outcome has which status.
    pub statuses: BTreeMap<u16, (String, Source)>,
    pub successes: usize,
    pub refusals: usize,
    /// The resolutions of operators and the hook: when, and until when they are recorded.
    pub operators: Vec<(Instant, Option<Instant>)>,
    /// Waiting callers.
    pub asked: BTreeSet<Waiting>,
    /// When an engine got a `forget` of a key, with any result.
    pub forget_events: Vec<(RecordName, usize, Instant)>,
    pub forgotten: Vec<(RecordName, usize, Instant, Instant)>,
    pub replies: Vec<Recorded>,
    pub callers: usize,
    /// Records of calls that were given up before they left.
    pub connecting: BTreeSet<RecordName>,
}

/// A reply that says that it is recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub name: RecordName,
    pub source: Source,
}

impl State {
    /// Whether one answer had expired when another one was recorded.
    pub fn expired_before(&self, name: &RecordName, first: &Source, second: &Source) -> bool {
        let until = match first {
            Source::Call(id) => self.sent[*id].recorded_until,
            Source::Operator(number) => self.operators[*number].1,
        };
        let since = self.recorded.get(&(name.clone(), second.clone()));
        until.is_some_and(|until| since.is_some_and(|since| until <= *since))
    }
}
