//! Recent outcomes, what they weigh and which of them stay. It answers nobody:
//! the table decides whether an outcome may still be given.

use std::hash::BuildHasherDefault;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use crate::key::{DigestHasher, Fingerprint, IdempotencyKey};
use crate::outcome::Reply;

/// An outcome that was answered lately.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    pub(super) reply: Reply,
    pub(super) fingerprint: Fingerprint,
    /// By tokio's clock: never past what the store would say.
    pub(super) until: Instant,
}

/// By key.
pub(super) type Recents = Cache<IdempotencyKey, Recent, BuildHasherDefault<DigestHasher>>;

/// Room for outcomes of so many bytes, each for `ttl` at most.
pub(super) fn cache(bytes: u64, ttl: Duration) -> Recents {
    Cache::builder()
        .max_capacity(bytes)
        .weigher(|_, recent: &Recent| weight(&recent.reply))
        // By default a full cache keeps what was asked for often and turns
        // newcomers away; here the latest outcomes are the ones asked for.
        .eviction_policy(EvictionPolicy::lru())
        // The entry itself says when it is too old, by tokio's clock; this frees
        // the memory of those that nobody asks for again.
        .time_to_live(ttl.max(Duration::from_millis(1)))
        .build_with_hasher(BuildHasherDefault::default())
}

/// What a recent outcome weighs in memory, in bytes.
pub(super) fn weight(reply: &Reply) -> u32 {
    const ENTRY: usize = 512;
    u32::try_from(ENTRY + reply.outcome().weight()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Outcome, Served};

    /// Without `EvictionPolicy::lru()` moka turns the latest away, which was seen
    /// red.
    #[tokio::test]
    async fn of_more_outcomes_than_fit_the_latest_are_remembered() {
        let recents = cache(10 * 1024, Duration::from_secs(60));
        let key = |n: u8| IdempotencyKey::from_bytes([n; 32]);
        for n in 0..200 {
            assert!(recents.get(&key(n)).is_none(), "{n} is no new key");
            let outcome = Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), "{}");
            let recent = Recent {
                reply: Reply::new(key(n), outcome.into(), Served::Upstream),
                fingerprint: Fingerprint::from_bytes([0; 32]),
                until: Instant::now() + Duration::from_secs(60),
            };
            recents.insert(key(n), recent);
            recents.run_pending_tasks();
        }
        assert!(recents.weighted_size() <= 10 * 1024);
        let remembered = |n| recents.contains_key(&key(n));
        assert!(remembered(199) && remembered(190) && !remembered(0));
    }
}
