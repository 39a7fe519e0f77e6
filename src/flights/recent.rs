//! A recent outcome, what it weighs and how its key is hashed. It answers
//! nobody: the table decides whether an outcome may still be given.

use std::hash::Hasher;

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
    u32::try_from(ENTRY + reply.outcome().weight()).unwrap_or(u32::MAX)
}

/// A key is a SHA-256 already: its first bytes are as good as any hash of it.
#[derive(Default)]
pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_ne_bytes(*first);
        }
    }

    // An array writes its length first; it says nothing.
    fn write_usize(&mut self, _: usize) {}
}
