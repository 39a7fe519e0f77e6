//! The true effect of a request, from the platform's ledger: for the workers' `reconcile`
//! hooks, and for an operator that resolves indeterminate keys. It gives an answer only if
//! that can no longer change.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use genesys_once::record::{RecordState, Version};
use genesys_once::testing::Ledger;
use genesys_once::{Engine, Error, Outcome, Resolution};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::history::History;
use super::platform::{Calls, Tally};
use super::roles::Policy;
use super::worker::{digest, key};

/// A call that arrived this long ago has been answered, or never will be.
const ANSWERED: Duration = Duration::from_secs(4);
/// A lease that was lost this long ago sends nothing, and nothing that it sent is still in
/// transit: a stop lasts 2.5 s at most, a silence 1.8 s, an attempt 3 s.
const QUIET: Duration = Duration::from_secs(12);

/// The true effect of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    NotApplied,
    Applied(u16, String),
}

impl From<Truth> for Resolution {
    fn from(truth: Truth) -> Self {
        match truth {
            Truth::NotApplied => Self::not_applied(),
            Truth::Applied(status, body) => {
                let status = StatusCode::from_u16(status).unwrap();
                Self::applied(Outcome::new(status, HeaderMap::new(), body))
            }
        }
    }
}

/// A resolution of a key, by the operator or by a hook.
#[derive(Clone, Debug)]
pub struct Said {
    pub at: Duration,
    pub number: u64,
    pub what: String,
    /// The digest of the platform's answer.
    pub digest: Option<String>,
}

pub struct Oracle {
    /// By a worker's place.
    pub policies: &'static [Policy],
    pub history: Arc<History>,
    pub calls: Calls,
    pub ledger: Ledger,
    /// How many keys there are now.
    pub numbers: AtomicU64,
    /// How often each answer and action occurred.
    pub tally: Tally,
    said: Mutex<Vec<Said>>,
}

impl Oracle {
    pub fn new(
        policies: &'static [Policy],
        history: Arc<History>,
        calls: Calls,
        ledger: Ledger,
    ) -> Self {
        Self {
            policies,
            history,
            calls,
            ledger,
            numbers: AtomicU64::new(0),
            tally: Tally::default(),
            said: Mutex::default(),
        }
    }

    /// The effect of the request of a key that has been indeterminate for `age`, if that is
    /// certain by now.
    pub fn truth(&self, number: u64, age: Duration) -> Option<Truth> {
        let key = key(number);
        let executions = self.ledger.executions(&key);
        let now = self.history.now();
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = calls.get(&key).map_or(&[][..], Vec::as_slice);
        if seen.iter().any(|call| call.at + ANSWERED > now) {
            return None;
        }
        let is_quiet = age >= QUIET;
        // The last execution: with several attempts, the caller got that attempt's answer.
        let Some(last) = executions.last() else {
            return is_quiet.then_some(Truth::NotApplied);
        };
        // A retrying holder might be about to get another answer.
        let policy = |ask| self.policies[self.history.process(ask).0];
        let retried = seen.iter().any(|call| policy(call.by.0) == Policy::Retry);
        let call = seen.iter().find(|call| call.nth == *last)?;
        let (status, body) = call.answer.clone();
        (is_quiet || !retried).then_some(Truth::Applied(status, body))
    }

    pub fn said(&self) -> Vec<Said> {
        self.book().clone()
    }

    fn say(&self, role: &'static str, number: u64, truth: &Truth) {
        let (what, digest) = match truth {
            Truth::NotApplied => (format!("{role} says: not applied"), None),
            Truth::Applied(status, body) => {
                let digest = digest(body.as_bytes());
                let what = format!("{role} says: applied, {status} {digest}");
                (what, Some(digest))
            }
        };
        let at = self.history.now();
        self.book().push(Said {
            at,
            number,
            what,
            digest,
        });
    }

    /// Answers the hooks of the workers, until it is aborted.
    pub async fn serve(self: Arc<Self>) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    let answering = self.clone().answer(stream);
                    // A stopped worker must not block the oracle.
                    tokio::spawn(tokio::time::timeout(ANSWERED, answering));
                }
            }
        });
        (address, serving)
    }

    async fn answer(self: Arc<Self>, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let (number, age) = line.trim().split_once(' ')?;
        let (number, age) = (number.parse().ok()?, age.parse().ok()?);
        let truth = self.truth(number, Duration::from_millis(age));
        let line = match &truth {
            None => "unknown".to_owned(),
            Some(Truth::NotApplied) => "not-applied".to_owned(),
            Some(Truth::Applied(status, body)) => format!("applied {status} {body}"),
        };
        self.tally.count(match &truth {
            None => "hooks answered: not certain",
            Some(Truth::NotApplied) => "hooks answered: not applied",
            Some(Truth::Applied(..)) => "hooks answered: applied",
        });
        if let Some(truth) = &truth {
            self.say("a hook", number, truth);
        }
        let stream = stream.get_mut();
        stream.write_all(line.as_bytes()).await.ok()
    }

    /// Resolves two of three indeterminate keys with a certain answer, until it is aborted.
    /// `engine` is the operator's own.
    pub async fn operate(self: Arc<Self>, engine: Engine) {
        let mut numbers = HashMap::new();
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            for number in numbers.len() as u64..self.numbers.load(Ordering::Relaxed) {
                numbers.insert(key(number), number);
            }
            let Ok(listed) = engine.indeterminate(500).await else {
                self.tally.count("operator: found the store down");
                continue;
            };
            for (key, state) in listed.keys {
                let RecordState::Indeterminate { age, .. } = state else {
                    panic!("not indeterminate: {state:?}");
                };
                let age = age.expect("the time to live is as it was written");
                let number = numbers.get(&key).copied();
                let Some(number) = number.filter(|number| number % 3 != 0) else {
                    continue;
                };
                if let Some(truth) = self.truth(number, age) {
                    self.resolve(&engine, number, state.version(), truth).await;
                }
            }
        }
    }

    async fn resolve(&self, engine: &Engine, number: u64, version: Version, truth: Truth) {
        let resolved = match &truth {
            Truth::NotApplied => "operator: not applied",
            Truth::Applied(..) => "operator: applied",
        };
        self.say("the operator", number, &truth);
        self.tally.count(
            match engine.resolve(&key(number), version, truth.into()).await {
                Ok(()) => resolved,
                Err(Error::NotIndeterminate { .. }) => "operator: came too late",
                Err(Error::TooEarly { .. }) => "operator: came too early",
                Err(_) => "operator: was not answered",
            },
        );
    }

    fn book(&self) -> MutexGuard<'_, Vec<Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the oracle as a worker does.
pub async fn ask(oracle: &str, number: u64, age: Duration) -> Option<Resolution> {
    let mut stream = TcpStream::connect(oracle).await.ok()?;
    let question = format!("{number} {}\n", age.as_millis());
    stream.write_all(question.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let truth = match answer.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["not-applied"] => Truth::NotApplied,
        ["applied", status, body] => Truth::Applied(status.parse().ok()?, body.to_owned()),
        _ => return None,
    };
    Some(truth.into())
}
