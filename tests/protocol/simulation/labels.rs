//! The request of an answer: every answer of this test names it, and its status identifies it
//! if nothing else is left.

use genesys_once::Outcome;
use http::StatusCode;
use tokio::time::Instant;

use super::facts::Source;
use super::world::World;

/// Statuses of refusals that are passed on; from the remote endpoint they are outcomes.
const REFUSALS: [u16; 20] = [
    403, 404, 405, 406, 411, 413, 414, 415, 417, 421, 426, 431, 300, 301, 302, 303, 305, 306, 307,
    308,
];

impl World {
    /// Gives the outcome of a call a status of its own, while there are unused statuses.
    pub fn name_by_status(&self, outcome: &mut Outcome, label: &str, id: usize) {
        *outcome.status_mut() = match outcome.status() {
            StatusCode::OK => self.success(),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                let mut state = self.state();
                state.refusals += 1;
                status(REFUSALS[(state.refusals - 1) % REFUSALS.len()])
            }
            other => other,
        };
        self.learn(outcome, label, Source::Call(id));
    }

    fn learn(&self, outcome: &Outcome, label: &str, source: Source) {
        let mut state = self.state();
        let status = outcome.status().as_u16();
        state.statuses.insert(status, (label.to_owned(), source));
    }

    /// A success status that no other outcome has, except 204 and 205, which have no body.
    fn success(&self) -> StatusCode {
        let mut state = self.state();
        let number = u16::try_from(state.successes % 98).expect("below 98");
        state.successes += 1;
        status(if number < 4 {
            200 + number
        } else {
            202 + number
        })
    }

    /// The outcome that an operator reports.
    pub fn operators_word(&self, label: &str) -> Outcome {
        let mut state = self.state();
        let number = state.operators.len();
        state.operators.push((Instant::now(), None));
        drop(state);
        let mut headers = http::HeaderMap::new();
        let id = format!("{label}-o{number}");
        headers.insert("inin-correlation-id", id.parse().expect("a header"));
        let body = format!(r#"{{"message":"operator {number} for {label}"}}"#);
        let outcome = Outcome::new(self.success(), headers, body);
        self.learn(&outcome, label, Source::Operator(number));
        outcome
    }

    /// The label and the source of an outcome.
    pub fn identify(&self, outcome: &Outcome) -> Option<(String, Source)> {
        if let Some(id) = outcome.header("inin-correlation-id") {
            return read_id(id);
        }
        let status = outcome.status().as_u16();
        self.state().statuses.get(&status).cloned()
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a status")
}

/// The label and the source in an id that this test made.
pub fn read_id(id: &str) -> Option<(String, Source)> {
    let (label, number) = id.rsplit_once('-')?;
    let source = match number.strip_prefix('o') {
        Some(number) => Source::Operator(number.parse().ok()?),
        None => Source::Call(number.parse().ok()?),
    };
    Some((label.to_owned(), source))
}
