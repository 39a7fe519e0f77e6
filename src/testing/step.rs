//! The steps of a simulated platform's script, one for each call. `ScriptedUpstream` and
//! `GenesysSimulator` both follow them; their documentation says how.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::answers;
use crate::outcome::Outcome;
use crate::upstream::Call;

/// The platform's reaction to one call.
///
/// ```
/// use std::time::Duration;
///
/// use genesys_once::testing::Step;
///
/// let moved = Step::status(307, "").header("location", "/elsewhere");
/// let slow = Step::ok(r#"{"refund":"R-1"}"#).after(Duration::from_secs(20));
/// # let _ = (moved, slow);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// This answer, byte for byte.
    Answer(Outcome),
    /// The platform's 429, with this long as its `Retry-After`, in whole
    /// seconds, rounded up.
    RateLimited(Duration),
    /// The connection is refused: no byte of the request leaves, and the ledger
    /// counts no call.
    Refused,
    /// The connection is reset after the request was read.
    Reset,
    /// An answer that ends in the middle of its body.
    Cut,
    /// No answer, ever.
    Silent,
    /// A panic inside `send`.
    Panic,
    /// This step, after so long.
    After(Duration, Box<Step>),
}

impl Step {
    /// 200 with a JSON body.
    pub fn ok(json: impl Into<Bytes>) -> Self {
        Self::status(200, json)
    }

    /// Any status, with a JSON body.
    ///
    /// # Panics
    ///
    /// If `status` is not 100–999.
    #[track_caller]
    pub fn status(status: u16, json: impl Into<Bytes>) -> Self {
        Self::Answer(answers::json(status, json))
    }

    /// Adds a header to an answer; the other steps have none.
    ///
    /// # Panics
    ///
    /// If this is not an `Answer`, or name or value is not a header's.
    #[track_caller]
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match &mut self {
            Self::Answer(outcome) => {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
                let value = HeaderValue::from_str(value).expect("a header's value");
                outcome.headers_mut().append(name, value);
            }
            other => panic!("only an answer has headers, not {other:?}"),
        }
        self
    }

    /// This step, `delay` later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }

    /// The step that remains when all delays have passed, and their sum.
    pub(super) fn flatten(self) -> (Duration, Self) {
        let (mut delay, mut step) = (Duration::ZERO, self);
        while let Self::After(more, next) = step {
            delay = delay.saturating_add(more);
            step = *next;
        }
        (delay, step)
    }
}

/// Decides, call by call, what the platform does.
#[derive(Clone)]
pub(super) struct Script(Arc<dyn Fn(&Call) -> Step + Send + Sync>);

impl Script {
    pub(super) fn new(script: impl Fn(&Call) -> Step + Send + Sync + 'static) -> Self {
        Self(Arc::new(script))
    }

    pub(super) fn step(&self, call: &Call) -> Step {
        (self.0)(call)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_delays_are_summed() {
        let step = Step::Reset
            .after(Duration::from_secs(1))
            .after(Duration::from_secs(2));
        let (delay, step) = step.flatten();
        assert_eq!(delay, Duration::from_secs(3));
        assert!(matches!(step, Step::Reset));
    }

    #[test]
    #[should_panic(expected = "only an answer has headers")]
    fn reset_has_no_headers() {
        let _ = Step::Reset.header("a", "b");
    }
}
