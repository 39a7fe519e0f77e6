//! A recent outcome and what it weighs. It answers nobody: the table decides
//! whether an outcome may still be given.

use tokio::time::Instant;

use crate::key::Fingerprint;
use crate::outcome::Reply;

/// An outcome that was answered lately.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    pub(super) reply: Reply,
    pub(super) fingerprint: Fingerprint,
    /// By tokio's clock: never past what the store would say.
    pub(super) until: Instant,
}

/// What a recent outcome weighs in memory, in bytes.
pub(super) fn weight(reply: &Reply) -> u32 {
    const ENTRY: usize = 512;
    let headers: usize = reply
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 64)
        .sum();
    u32::try_from(ENTRY + headers + reply.body().len()).unwrap_or(u32::MAX)
}
