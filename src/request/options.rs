//! What a request asks for besides its outcome: how long it is kept, when the request
//! may be sent, and whether anything of the answer is stored. None of it changes key
//! or fingerprint.

use std::time::Duration;

use super::DataActionRequest;
use crate::error::Error;

/// A store's clock is in milliseconds, and has to add the longest time up.
const MIN_TTL: Duration = Duration::from_millis(1);
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl DataActionRequest {
    /// Sets how long the outcome is kept, instead of the engine's `result_ttl`:
    /// 1 ms to ten years. The engine keeps it for at least 5 s, so that waiters in
    /// other processes find it. The time counts from the answer.
    ///
    /// Among callers that joined one execution, the longest applies; one that
    /// asks for nothing counts for the engine's `result_ttl`, or its repeat
    /// within that time would be a second call. Whoever joins counts up to the
    /// moment at which the outcome goes to the store. It does not reach an
    /// execution in another process, nor prolong what is recorded already.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `ttl` for less than 1 ms or more than
    /// ten years.
    pub fn with_ttl(self, ttl: Duration) -> Result<Self, Error> {
        if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
            let reason = "it must be 1 ms to ten years";
            return Err(Error::invalid_request("ttl", reason));
        }
        Ok(self.with(|parts| parts.ttl = Some(ttl)))
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
    ///     .start_within(Duration::from_secs(20))?;
    /// # let _ = request;
    /// # Ok::<(), genesys_once::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `start_within` for more than ten years.
    pub fn start_within(self, limit: Duration) -> Result<Self, Error> {
        if limit > MAX_TTL {
            let reason = "it must be at most ten years";
            return Err(Error::invalid_request("start_within", reason));
        }
        Ok(self.starting_within(limit))
    }

    /// The same, for a part of a limit that was checked.
    pub(crate) fn starting_within(self, limit: Duration) -> Self {
        self.with(|parts| parts.start_within = Some(limit))
    }

    /// Keeps the answer out of the store, but for its status; a replay then says so:
    /// [`Reply::stored_body`](crate::Reply::stored_body) is
    /// [`StoredBody::OmittedSensitive`](crate::StoredBody::OmittedSensitive). Callers that joined the
    /// execution get all of it; nothing of it stays in this process's memory.
    /// The same is true of a refusal, and of what a `reconcile` hook says. The
    /// caller's own [`key`](Self::with_key), [`scope`](Self::with_scope) and
    /// [`label`](Self::with_label) stay out as well.
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
