//! What a request asks for besides its outcome: how long it is kept, when the request
//! may be sent, and whether anything of the answer is stored. None of it changes key
//! or fingerprint.

use std::time::Duration;

use super::DataActionRequest;
#[cfg(doc)]
use crate::error::Error;

/// A store's clock is in milliseconds, and has to add the longest time up.
const SHORTEST_TTL: Duration = Duration::from_millis(1);
const LONGEST_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl DataActionRequest {
    /// Sets how long the outcome is kept, instead of the engine's `result_ttl`:
    /// 1 ms to ten years, and the nearest of these for what lies outside. It is kept
    /// for 5 s at least, so that waiters in other processes find it, and counts from
    /// the answer.
    ///
    /// Among callers that joined one execution, the longest applies; one that
    /// asks for nothing counts for the engine's `result_ttl`, or its repeat
    /// within that time would be a second call. Whoever joins counts up to the
    /// moment at which the outcome goes to the store. It does not reach an
    /// execution in another process, nor prolong what is recorded already.
    pub fn ttl(self, ttl: Duration) -> Self {
        let ttl = ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
        self.with(|parts| parts.ttl = Some(ttl))
    }

    /// Limits when the request may be sent: nothing is sent later than this after the
    /// call of [`execute`](crate::Engine::execute), also where its callers have given up
    /// by then. By default it is sent whenever the engine gets to it.
    ///
    /// Among callers that joined one execution, the latest limit applies; one that sets
    /// none, removes it. Where the time is over before anything was executed, they get
    /// [`Error::Expired`]. An outcome that is recorded already is replayed all the same,
    /// and one that another process executes is waited for.
    ///
    /// ```
    /// use std::time::Duration;
    /// use genesys_once::DataActionRequest;
    ///
    /// let request = DataActionRequest::new("custom_-_refund", r#"{"order":42}"#)?
    ///     .start_within(Duration::from_secs(20));
    /// # let _ = request;
    /// # Ok::<(), genesys_once::Error>(())
    /// ```
    pub fn start_within(self, limit: Duration) -> Self {
        let limit = limit.min(LONGEST_TTL);
        self.with(|parts| parts.start_within = Some(limit))
    }

    /// Keeps the answer out of the store, but for its status; a replay then says so:
    /// [`Reply::kept`](crate::Reply::kept) is
    /// [`Kept::Sensitive`](crate::Kept::Sensitive). Callers that joined the
    /// execution get all of it; nothing of it stays in this process's memory.
    /// The same is true of a refusal, and of what a `reconcile` hook says. The
    /// caller's own [`key`](Self::key), [`scope`](Self::scope) and
    /// [`label`](Self::label) stay out as well.
    ///
    /// Among callers that joined one execution, one is enough, up to the moment
    /// at which the outcome goes to the store. It does not reach an execution in
    /// another process, nor change what is recorded already: let all requests of
    /// an action say it, or none.
    ///
    /// No digest of the answer is kept. Key and fingerprint are digests of the
    /// **request**, and are stored: whoever can read the store and knows the form of a
    /// payload finds a short one by trying. The `cause` of an indeterminate key is what
    /// the [`Upstream`](crate::Upstream) says of the failure.
    pub fn sensitive(self) -> Self {
        self.with(|parts| parts.sensitive = true)
    }
}
