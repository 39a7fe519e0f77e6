//! What the simulated platform does with each call, by seed, key and attempt, independent of
//! the order of calls. Every answer is unique, so that two calls are never confused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use genesys_once::IdempotencyKey;
use genesys_once::testing::{GenesysSimulator, Step, answers};
use genesys_once::upstream::Call;

use super::history::History;

/// How often each kind of fault happened.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Tally {
    pub fn count(&self, kind: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(kind).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The execution that a call belongs to: an ask, and which of its callers.
pub type Flight = (u64, usize);

/// One call as the platform saw it.
#[derive(Clone, Debug)]
pub struct ReceivedCall {
    pub at: Duration,
    /// Its number among the arrivals of its key, from 1.
    pub nth: u32,
    pub by: Flight,
    pub what: &'static str,
    /// The platform's final answer, if the platform executed the call.
    pub answer: (u16, String),
    /// Whether the whole body was sent.
    pub whole: bool,
}

/// All calls, by key.
pub type Calls = Arc<Mutex<BTreeMap<IdempotencyKey, Vec<ReceivedCall>>>>;

/// Scripts the simulator; without `faults` every call succeeds at once.
pub fn script(
    simulator: &GenesysSimulator,
    seed: u64,
    faults: Option<Tally>,
    history: Arc<History>,
    calls: Calls,
) {
    simulator.script(move |call| {
        let (what, step) = match &faults {
            Some(tally) => {
                let (what, is_fault, step) = choose(seed, call);
                if is_fault {
                    tally.count(what);
                }
                (what, step)
            }
            None => ("answers 200", Step::ok(body(call))),
        };
        let (status, whole) = match what {
            "answers 200" => (200, true),
            "answers 400" => (400, true),
            "answers 403" => (403, true),
            _ => (200, false),
        };
        let seen = ReceivedCall {
            at: history.now(),
            nth: call.attempt(),
            by: by(call),
            what,
            answer: (status, body(call)),
            whole,
        };
        let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.entry(call.key()).or_default().push(seen);
        step
    });
}

/// A unique answer: key and number of the call.
fn body(call: &Call) -> String {
    format!(r#"{{"key":"{}","call":{}}}"#, call.key(), call.attempt())
}

fn by(call: &Call) -> Flight {
    let payload: serde_json::Value = serde_json::from_slice(call.request().payload()).unwrap();
    let by = payload["by"].as_str().unwrap();
    let (ask, caller) = by.split_once('.').unwrap();
    (ask.parse().unwrap(), caller.parse().unwrap())
}

fn choose(seed: u64, call: &Call) -> (&'static str, bool, Step) {
    let key = call.key();
    let key = u64::from_le_bytes(*key.as_bytes().first_chunk().unwrap());
    let attempt = u64::from(call.attempt());
    let mut rng = Rng::with_seed(seed ^ key ^ attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Sometimes longer than a lease, so that the lease must be extended.
    let time = match rng.u32(..100) {
        0..55 => rng.u64(2..150),
        55..80 => rng.u64(150..900),
        _ => rng.u64(900..2_600),
    };
    let (what, is_fault, step) = match rng.u32(..100) {
        0..52 => ("answers 200", false, Step::ok(body(call))),
        52..55 => ("answers 400", false, Step::status(400, body(call))),
        55..59 => ("answers 403", false, Step::status(403, body(call))),
        59..63 => ("platform 500", true, Step::status(500, "{}")),
        63..68 => ("platform 503", true, Step::status(503, "{}")),
        68..71 => {
            let wait = Duration::from_secs(rng.u64(1..3));
            ("platform 429", true, Step::RateLimited(wait))
        }
        // Not executed, and without a cooldown.
        71..88 => (
            "platform 408",
            true,
            Step::Answer(answers::platform_error(408, "timeout", "not begun")),
        ),
        88..92 => ("platform cuts a body", true, Step::Cut),
        92..97 => ("platform resets", true, Step::Reset),
        _ => ("platform is silent", true, Step::Silent),
    };
    (what, is_fault, step.after(Duration::from_millis(time)))
}
