//! Which answers prove that an action was not executed: the ledger's own rule. It shares no
//! code with `genesys::classify`, so that tests can compare the two.

use serde::Deserialize;

use crate::outcome::{BodyEnd, Outcome};

/// Whether this answer proves that the action was not executed. A remote end's code counts
/// at any position.
pub(super) fn proves_unexecuted(outcome: &Outcome) -> bool {
    let body = String::from_utf8_lossy(outcome.body()).to_ascii_uppercase();
    let names = |code: &str| body.contains(code);
    let unread = outcome.body_end() != BodyEnd::Marked
        || outcome.headers().contains_key("content-encoding")
        || names("\0");
    if unread || names("ACTION.REMOTE_ENDPOINT") || names("ACTION.PROCESSING") {
        return false;
    }
    let (codes, code) = error_codes(outcome.body());
    match outcome.status().as_u16() {
        300..=399 | 401 | 403..=408 | 411 | 413..=415 | 417 => true,
        421 | 425 | 426 | 429 | 431 => true,
        400 => {
            code == "client.failed.request" || codes.iter().any(|c| c == "ACTION.AUTHENTICATION")
        }
        504 => code == "authentication.request.timeout",
        _ => false,
    }
}

/// The `details[].errorCode`s and the `code` of an error body; none where it is
/// another text.
fn error_codes(body: &[u8]) -> (Vec<String>, String) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        details: Vec<Detail>,
        code: Option<String>,
    }
    #[derive(Deserialize)]
    struct Detail {
        #[serde(rename = "errorCode")]
        error_code: Option<String>,
    }
    let body = serde_json::from_slice::<Body>(body).unwrap_or_default();
    let codes = body.details.into_iter().filter_map(|d| d.error_code);
    (codes.collect(), body.code.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::answers;

    #[test]
    fn only_a_proof_counts_as_unexecuted() {
        let refusals = [
            401, 403, 404, 405, 406, 407, 408, 411, 413, 414, 415, 417, 421, 425, 426, 429, 431,
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
