//! The requests and results of all callers. It records everything in order and judges
//! nothing.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A worker process: its place, and its number among the processes of that place.
pub type Process = (usize, u32);

/// Several callers of one process with the same request at one time.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: u64,
    pub number: u64,
    pub process: Process,
    pub limit: Duration,
    pub at: Duration,
    pub answers: Vec<Option<CallerResult>>,
}

/// The result of one caller.
#[derive(Clone, Debug)]
pub struct CallerResult {
    pub at: Duration,
    /// `ok`, or the error's code.
    pub kind: String,
    pub status: u16,
    pub digest: String,
    pub recorded: bool,
    pub served: String,
    /// The error's message.
    pub text: String,
}

impl fmt::Display for CallerResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            status,
            digest,
            served,
            text,
            ..
        } = self;
        match self.is_ok() {
            true if self.recorded => write!(f, "{status} {digest} from {served}"),
            true => write!(f, "{status} {digest} from {served}, not recorded"),
            false => write!(f, "{kind}: {text}"),
        }
    }
}

impl CallerResult {
    pub fn is_ok(&self) -> bool {
        self.kind == "ok"
    }

    fn parse(at: Duration, words: &str) -> Option<Self> {
        let mut words = words.splitn(6, ' ');
        Some(Self {
            at,
            kind: words.next()?.to_owned(),
            status: words.next()?.parse().ok()?,
            digest: words.next()?.to_owned(),
            recorded: words.next()? == "true",
            served: words.next()?.to_owned(),
            text: words.next().unwrap_or_default().to_owned(),
        })
    }
}

#[derive(Default)]
struct Book {
    asks: BTreeMap<u64, Ask>,
    killed: HashSet<Process>,
    /// Kills, stops and outages, in the order in which they were done.
    events: Vec<(Duration, String)>,
    returns: Vec<Duration>,
}

/// The history of one run.
pub struct History {
    begun: Instant,
    book: Mutex<Book>,
}

impl History {
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            book: Mutex::default(),
        }
    }

    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Notes that callers are about to ask; the number names them.
    pub fn asking(&self, number: u64, process: Process, callers: usize, limit: Duration) -> u64 {
        let at = self.now();
        let mut book = self.book();
        let id = book.asks.len() as u64;
        let ask = Ask {
            id,
            number,
            process,
            limit,
            at,
            answers: vec![None; callers],
        };
        book.asks.insert(id, ask);
        id
    }

    /// Notes an answer of a worker: a line `ID CALLER …`.
    pub fn answered(&self, line: &str) {
        let at = self.now();
        let parsed = (|| {
            let mut words = line.splitn(3, ' ');
            let id: u64 = words.next()?.parse().ok()?;
            let caller: usize = words.next()?.parse().ok()?;
            Some((id, caller, CallerResult::parse(at, words.next()?)?))
        })();
        let (id, caller, result) = parsed.unwrap_or_else(|| panic!("no answer: {line:?}"));
        let mut book = self.book();
        let ask = book.asks.get_mut(&id).expect("an ask that was made");
        let before = ask.answers[caller].replace(result);
        assert!(before.is_none(), "answered twice: {line:?}");
    }

    /// A process was killed: its callers died with it.
    pub fn killed(&self, process: Process) {
        self.book().killed.insert(process);
    }

    pub fn event(&self, what: impl Into<String>) {
        let at = self.now();
        self.book().events.push((at, what.into()));
    }

    /// Notes that Redis accepts connections again.
    pub fn redis_returned(&self) {
        let at = self.now();
        self.book().returns.push(at);
    }

    pub fn asks(&self) -> Vec<Ask> {
        self.book().asks.values().cloned().collect()
    }

    /// The process that got an ask.
    pub fn process(&self, ask: u64) -> Process {
        self.book().asks[&ask].process
    }

    pub fn was_killed(&self, process: Process) -> bool {
        self.book().killed.contains(&process)
    }

    pub fn events(&self) -> Vec<(Duration, String)> {
        self.book().events.clone()
    }

    /// Callers that still wait, without those in killed processes.
    pub fn waiting(&self) -> usize {
        let book = self.book();
        let open = book.asks.values();
        open.filter(|ask| !book.killed.contains(&ask.process))
            .flat_map(|ask| &ask.answers)
            .filter(|result| result.is_none())
            .count()
    }

    /// The keys whose last caller got one of these kinds of result.
    pub fn last_result(&self, kinds: &[&str]) -> HashSet<u64> {
        let book = self.book();
        let last: BTreeMap<u64, &Ask> = book.asks.values().map(|ask| (ask.number, ask)).collect();
        last.into_values()
            .filter(|ask| {
                ask.answers
                    .iter()
                    .flatten()
                    .any(|result| kinds.contains(&&*result.kind))
            })
            .map(|ask| ask.number)
            .collect()
    }

    /// The times from each return of Redis to the first success that needed the store;
    /// `None` if there was none before the next outage.
    pub fn recoveries(&self) -> Vec<Option<Duration>> {
        let book = self.book();
        let mut successes: Vec<Duration> = book
            .asks
            .values()
            .flat_map(|ask| ask.answers.iter().flatten())
            .filter(|result| result.is_ok() && result.recorded && result.served != "memory")
            .map(|result| result.at)
            .collect();
        successes.sort();
        let ends = book.returns.iter().skip(1).copied();
        let ends = ends.chain([Duration::MAX]);
        let first = |(&back, end)| {
            let at = successes.iter().find(|at| **at > back)?;
            (*at < end).then(|| *at - back)
        };
        book.returns.iter().zip(ends).map(first).collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
