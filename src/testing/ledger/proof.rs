//! Which answers prove that an action was not executed: the ledger's own rule,
//! written down apart from `policy` so that each can be held against the other.

use serde::Deserialize;

use crate::outcome::Outcome;

/// Whether this answer proves that the action was not executed.
pub(super) fn proves_unexecuted(outcome: &Outcome) -> bool {
    let codes = error_codes(&outcome.body);
    let says = |code: &str| codes.iter().any(|found| found == code);
    if says("ACTION.REMOTE_ENDPOINT") || says("ACTION.PROCESSING") {
        return false;
    }
    match outcome.status_code.as_u16() {
        300..=399 | 401 | 403..=406 | 408 | 411 | 413..=415 | 417 => true,
        421 | 425 | 426 | 429 | 431 => true,
        400 => says("ACTION.AUTHENTICATION"),
        _ => false,
    }
}

/// The `details[].errorCode`s of an error body; none where it is another text.
fn error_codes(body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        details: Vec<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        #[serde(rename = "errorCode")]
        error_code: Option<String>,
    }
    let details = serde_json::from_slice::<Body>(body).map_or_else(|_| Vec::new(), |b| b.details);
    details
        .into_iter()
        .filter_map(|detail| detail.error_code)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::answers;

    #[test]
    fn only_a_proof_makes_a_call_unexecuted() {
        let refusals = [
            401, 403, 404, 405, 406, 408, 411, 413, 414, 415, 417, 421, 425, 426, 429, 431,
        ];
        for status in 200..=599 {
            let plain = answers::platform_error(status, "code", "message");
            let expected = (300..400).contains(&status) || refusals.contains(&status);
            assert_eq!(proves_unexecuted(&plain), expected, "{status}");
            for remote in ["ACTION.REMOTE_ENDPOINT", "ACTION.PROCESSING"] {
                let answer = answers::remote_error(status, remote, "message");
                assert!(!proves_unexecuted(&answer), "{status} {remote}");
            }
        }
        assert!(proves_unexecuted(&answers::remote_error(
            400,
            "ACTION.AUTHENTICATION",
            "no"
        )));
        assert!(!proves_unexecuted(&answers::remote_error(
            500,
            "ACTION.AUTHENTICATION",
            "no"
        )));
    }
}
