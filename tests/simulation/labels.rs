//! Whose an answer is: every one that this test makes says so, and is known by its
//! digest where nothing else is left.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use genesys_once::Outcome;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::facts::Source;
use super::world::World;

impl World {
    /// Whose a body is, for where only its digest is left.
    pub fn known_body(&self, outcome: &Outcome, label: &str, id: usize) {
        self.learn(outcome, label, Source::Call(id));
    }

    fn learn(&self, outcome: &Outcome, label: &str, source: Source) {
        let digest = format!("sha-256=:{}:", BASE64.encode(Sha256::digest(&outcome.body)));
        let mut state = self.state();
        state.bodies.insert(digest, (label.to_owned(), source));
    }

    /// What an operator says was the outcome.
    pub fn operators_word(&self, label: &str) -> Outcome {
        let mut state = self.state();
        let number = state.operators.len();
        state.operators.push((Instant::now(), None));
        drop(state);
        let mut headers = http::HeaderMap::new();
        let id = format!("{label}-o{number}");
        headers.insert("inin-correlation-id", id.parse().expect("a header"));
        let body = format!(r#"{{"message":"operator {number} for {label}"}}"#);
        let outcome = Outcome::new(http::StatusCode::OK, headers, body);
        self.learn(&outcome, label, Source::Operator(number));
        outcome
    }

    /// Whose an outcome is, and where it came from.
    pub fn identify(&self, outcome: &Outcome) -> Option<(String, Source)> {
        if let Some(id) = outcome.header("inin-correlation-id") {
            return read_id(id);
        }
        let digest = outcome.header("content-digest")?;
        self.state().bodies.get(digest).cloned()
    }
}

/// Label and source of an id that this test made.
pub fn read_id(id: &str) -> Option<(String, Source)> {
    let (label, number) = id.rsplit_once('-')?;
    let source = match number.strip_prefix('o') {
        Some(number) => Source::Operator(number.parse().ok()?),
        None => Source::Call(number.parse().ok()?),
    };
    Some((label.to_owned(), source))
}
