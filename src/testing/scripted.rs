//! A platform without sockets: it follows its script and waits on tokio's clock alone, so
//! that hours pass at once in paused time. It never repeats or decides anything itself.

use std::sync::Arc;
use std::time::Duration;

use super::answers;
use super::ledger::Ledger;
use super::step::{Script, Step};
use super::tokens::ScriptedTokens;
use crate::error::SendError;
use crate::key::Namespace;
use crate::outcome::Outcome;
use crate::store::BoxFuture;
use crate::upstream::{AccessToken, Call, TokenSource, Upstream};

/// An [`Upstream`] that follows a script; a clone is the same platform.
///
/// The script is called once per call, when the call is made. Its steps have these results:
///
/// | step | `send` returns | the ledger has |
/// |---|---|---|
/// | `Answer` | the outcome | executed, unless the answer proves otherwise |
/// | `RateLimited` | the platform's 429 | not executed |
/// | `Refused` | `SendError::before_sending` | nothing: it never arrived |
/// | `Reset`, `Cut` | `SendError::after_sending` | might be executed |
/// | `Silent` | nothing, ever | might be executed |
/// | `Panic` | a panic | might be executed |
/// | `After` | the step, later; the call arrives now | as that step |
///
/// ```
/// use genesys_once::testing::{ScriptedUpstream, Step};
/// use genesys_once::upstream::Call;
/// use genesys_once::{DataActionRequest, Upstream};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let upstream = ScriptedUpstream::new(|_| Step::ok(r#"{"refund":"R-1"}"#));
/// let call = Call::new(DataActionRequest::new("refund", r#"{"id":1}"#)?, 1);
/// let outcome = upstream.send(&call, None).await?;
/// assert_eq!(outcome.status(), 200);
/// upstream.ledger().assert_exactly_once(&[call.key()]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ScriptedUpstream {
    script: Script,
    ledger: Ledger,
    namespace: Namespace,
    attempt_timeout: Duration,
    tokens: Option<ScriptedTokens>,
}

impl ScriptedUpstream {
    /// A platform that follows `script` for each call. Its namespace is `scripted`; it needs
    /// no token, and its attempt time-out is 65 s.
    pub fn new(script: impl Fn(&Call) -> Step + Send + Sync + 'static) -> Self {
        Self {
            script: Script::new(script),
            ledger: Ledger::new(),
            namespace: "scripted".parse().expect("a namespace by its alphabet"),
            attempt_timeout: Duration::from_secs(65),
            tokens: None,
        }
    }

    /// Sets the namespace, as of another organisation.
    #[must_use]
    pub fn with_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Sets the attempt time-out.
    #[must_use]
    pub fn with_attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = limit;
        self
    }

    /// Requires a token: a call without a valid one gets 401, and the script is not called.
    #[must_use]
    pub fn with_tokens(mut self, tokens: ScriptedTokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// What reached this platform.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    async fn follow(&self, call: &Call, token: Option<&AccessToken>) -> Result<Outcome, SendError> {
        let admitted = self
            .tokens
            .as_ref()
            .is_none_or(|tokens| tokens.admits(token));
        let step = if admitted {
            self.script.step(call)
        } else {
            Step::Answer(answers::unauthorized())
        };
        let (delay, step) = step.flatten();
        if let Step::Refused = step {
            tokio::time::sleep(delay).await;
            self.ledger.refuse(call.key());
            return Err(SendError::before_sending("connection refused"));
        }
        let arrival = self.ledger.arrive(call.key());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let outcome = match step {
            Step::Answer(outcome) => outcome,
            Step::RateLimited(wait) => answers::rate_limited(wait),
            Step::Reset => {
                arrival.unanswered("connection reset");
                return Err(SendError::after_sending("connection reset"));
            }
            Step::Cut => {
                arrival.unanswered("answer cut short");
                return Err(SendError::after_sending("the answer ended in its body"));
            }
            Step::Silent => std::future::pending().await,
            Step::Panic => {
                arrival.unanswered("panic in send");
                panic!("the script says so");
            }
            Step::Refused | Step::After(..) => unreachable!("refused above, delays flattened"),
        };
        arrival.answered(&outcome);
        Ok(outcome)
    }
}

impl Upstream for ScriptedUpstream {
    fn namespace(&self) -> Namespace {
        self.namespace.clone()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(self.follow(call, token))
    }

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        let tokens = self.tokens.clone()?;
        Some(Arc::new(tokens))
    }

    fn attempt_timeout(&self) -> Duration {
        self.attempt_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::DataActionRequest;
    use crate::testing::TokenStep;
    use tokio::time::{Instant, timeout};

    fn call(payload: &str) -> Call {
        Call::new(DataActionRequest::new("refund", payload).unwrap(), 1)
    }

    #[tokio::test(start_paused = true)]
    async fn each_step_has_its_result() {
        let call = call("1");
        let send = async |step: Step| {
            let upstream = ScriptedUpstream::new(move |_| step.clone());
            let sent = upstream.send(&call, None).await;
            let ledger = upstream.ledger();
            (
                sent,
                ledger.calls(&call.key()),
                ledger.executed(&call.key()),
            )
        };
        let (sent, calls, executed) = send(Step::ok("{}")).await;
        assert_eq!(
            (sent.unwrap().status().as_u16(), calls, executed),
            (200, 1, 1)
        );
        let (sent, calls, executed) = send(Step::RateLimited(Duration::from_secs(3))).await;
        assert_eq!(sent.unwrap().header("retry-after"), Some("3"));
        assert_eq!((calls, executed), (1, 0));
        let (sent, calls, executed) = send(Step::Refused).await;
        assert_eq!(
            (sent.unwrap_err().may_have_left(), calls, executed),
            (false, 0, 0)
        );
        for step in [Step::Reset, Step::Cut] {
            let (sent, calls, executed) = send(step).await;
            assert_eq!(
                (sent.unwrap_err().may_have_left(), calls, executed),
                (true, 1, 1)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn call_arrives_before_its_virtual_delay() {
        let day = Duration::from_secs(86_400);
        let upstream = ScriptedUpstream::new(move |_| Step::ok("{}").after(day));
        let start = Instant::now();
        let call = call("1");
        let sending = async {
            upstream.send(&call, None).await.unwrap();
            assert_eq!(start.elapsed(), day);
        };
        let watching = async {
            upstream.ledger().wait_for(1).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
        };
        tokio::join!(sending, watching);
    }

    #[tokio::test(start_paused = true)]
    async fn silent_step_lasts_until_dropped() {
        let upstream = ScriptedUpstream::new(|_| Step::Silent);
        let call = call("1");
        timeout(Duration::from_secs(3600), upstream.send(&call, None))
            .await
            .unwrap_err();
        upstream.ledger().assert_exactly_once(&[call.key()]);
    }

    #[tokio::test(start_paused = true)]
    async fn panic_counts_as_executed() {
        let upstream = ScriptedUpstream::new(|_| Step::Panic);
        let call = call("1");
        let key = call.key();
        let sender = upstream.clone();
        let sent = tokio::spawn(async move { sender.send(&call, None).await }).await;
        assert!(sent.unwrap_err().is_panic());
        assert_eq!(upstream.ledger().executed(&key), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_valid_token_gets_401_and_no_script() {
        let tokens = ScriptedTokens::new(|_| TokenStep::Issue(Duration::from_secs(60)));
        let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens.clone());
        let call = call("1");
        let status = async |token: Option<&AccessToken>| {
            upstream.send(&call, token).await.unwrap().status().as_u16()
        };
        assert_eq!(status(None).await, 401);
        let token = upstream.token_source().unwrap().fetch().await.unwrap();
        assert_eq!(status(Some(&token)).await, 200);
        tokens.revoke();
        assert_eq!(status(Some(&token)).await, 401);
        upstream.ledger().assert_exactly_once(&[call.key()]);
        assert_eq!(upstream.ledger().total(), 3);
    }
}
