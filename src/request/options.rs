//! The options of a request: how long its outcome is kept, when it may be sent, and
//! whether the answer is stored. None of them changes key or fingerprint.

use std::time::Duration;

use super::DataActionRequest;
use crate::error::Error;

/// A store's clock counts milliseconds, and must not overflow.
const MIN_TTL: Duration = Duration::from_millis(1);
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl DataActionRequest {
    /// Sets how long the outcome is kept, instead of the engine's `result_ttl`:
    /// 1 ms to ten years. The engine keeps it for at least 5 s, so that waiters in
    /// other processes find it. The time counts from the answer.
    ///
    /// Among callers that joined one execution, the longest time applies. A caller that
    /// sets none counts with the engine's `result_ttl`: otherwise its repeat within that
    /// time would be a second call. A caller counts if it joins before the outcome goes
    /// to the store. The time does not reach an execution in another process, and does
    /// not prolong an existing record.
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
        Ok(self.set(|parts| parts.ttl = Some(ttl)))
    }

    /// Limits when the request may be sent: not later than this after the call of
    /// [`execute`](crate::Engine::execute), also if its callers have given up by then.
    /// There is no limit by default.
    ///
    /// Among callers that joined one execution, the latest limit applies; a caller that
    /// sets none removes it. If the time is over before a request was executed, the
    /// callers get [`Error::Expired`]. A recorded outcome is still replayed, and the
    /// outcome of an execution in another process is still waited for.
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

    /// As [`start_within`](Self::start_within), for the rest of a limit that was checked.
    pub(crate) fn starting_within(self, limit: Duration) -> Self {
        self.set(|parts| parts.start_within = Some(limit))
    }

    /// Stores only the status of the answer. [`Reply::stored_body`](crate::Reply::stored_body)
    /// of a replay is [`StoredBody::OmittedSensitive`](crate::outcome::StoredBody::OmittedSensitive).
    /// Callers that joined the execution get the whole answer, and this process keeps
    /// nothing of it. The same holds for a refusal, and for the answer of a `reconcile`
    /// hook. The caller's [`key`](Self::with_key), [`scope`](Self::with_scope) and
    /// [`label`](Self::with_label) are not stored either.
    ///
    /// Among callers that joined one execution, one sensitive caller is enough, if it
    /// joins before the outcome goes to the store. It does not reach an execution in
    /// another process, and does not change an existing record: mark all requests of an
    /// action, or none.
    ///
    /// No digest of the answer is stored. Digests of the **request**, key and
    /// fingerprint, are: a reader of the store that knows the form of a payload finds a
    /// short one by trial. The `cause` of an indeterminate key is the text of the
    /// [`Upstream`](crate::Upstream)'s error.
    pub fn sensitive(self) -> Self {
        self.set(|parts| parts.sensitive = true)
    }

    /// The limit of [`start_within`](Self::start_within), if there is one.
    pub(crate) fn sent_within(&self) -> Option<Duration> {
        self.0.start_within
    }

    /// The time to live that the caller asked for, if it did.
    pub(crate) fn requested_ttl(&self) -> Option<Duration> {
        self.0.ttl
    }

    pub(crate) fn is_sensitive(&self) -> bool {
        self.0.sensitive
    }
}
