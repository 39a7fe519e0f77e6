//! A token endpoint without sockets, for `ScriptedUpstream`: it issues, refuses and revokes
//! tokens by its script, on tokio's clock. No platform accepts its tokens.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::lock;
use crate::error::TokenError;
use crate::store::BoxFuture;
use crate::upstream::{AccessToken, TokenSource};

/// The largest number of live tokens; beyond it the oldest is removed.
const MAX_TOKENS: usize = 1024;

/// The token endpoint's result for one request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TokenStep {
    /// A token that is valid for so long, with that `expires_in`.
    Issue(Duration),
    /// This error.
    Fail(TokenError),
    /// No answer, ever.
    Silent,
    /// A panic inside `fetch`.
    Panic,
    /// This step, after so long.
    After(Duration, Box<TokenStep>),
}

/// A [`TokenSource`] that follows a script; a clone is the same endpoint.
///
/// A new token does not end the old ones: each is valid until its time is over
/// or [`revoke`](Self::revoke) is called, as on the platform.
#[derive(Clone)]
pub struct ScriptedTokens {
    shared: Arc<EndpointState>,
}

struct EndpointState {
    script: Box<dyn Fn(usize) -> TokenStep + Send + Sync>,
    live: Mutex<VecDeque<(String, Instant)>>,
    fetches: watch::Sender<usize>,
}

impl ScriptedTokens {
    /// An endpoint that calls `script` with the number of each request, from 1.
    pub fn new(script: impl Fn(usize) -> TokenStep + Send + Sync + 'static) -> Self {
        let shared = EndpointState {
            script: Box::new(script),
            live: Mutex::default(),
            fetches: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// An endpoint that always issues tokens valid for `lifetime`.
    pub fn lasting(lifetime: Duration) -> Self {
        Self::new(move |_| TokenStep::Issue(lifetime))
    }

    /// The number of token requests, with any result.
    pub fn fetches(&self) -> usize {
        *self.shared.fetches.borrow()
    }

    /// Waits until there were `fetches` token requests in all.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for(&self, fetches: usize) {
        let mut asked = self.shared.fetches.subscribe();
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = asked.wait_for(|count| *count >= fetches).await;
    }

    /// Ends every token issued so far; later ones are valid again.
    pub fn revoke(&self) {
        lock(&self.shared.live).clear();
    }

    /// Whether the platform accepts this token now.
    pub fn admits(&self, token: Option<&AccessToken>) -> bool {
        let Some(token) = token else { return false };
        let now = Instant::now();
        let live = lock(&self.shared.live);
        live.iter()
            .any(|(secret, end)| secret == token.expose() && *end > now)
    }

    async fn follow(&self) -> Result<AccessToken, TokenError> {
        let mut number = 0;
        self.shared.fetches.send_modify(|count| {
            *count += 1;
            number = *count;
        });
        let mut step = (self.shared.script)(number);
        loop {
            match step {
                TokenStep::Issue(lifetime) => return Ok(self.issue(number, lifetime)),
                TokenStep::Fail(error) => return Err(error),
                TokenStep::Silent => std::future::pending().await,
                TokenStep::Panic => panic!("the token script says so"),
                TokenStep::After(delay, next) => {
                    tokio::time::sleep(delay).await;
                    step = *next;
                }
            }
        }
    }

    fn issue(&self, number: usize, lifetime: Duration) -> AccessToken {
        let secret = format!("scripted-token-{number}");
        let now = Instant::now();
        let mut live = lock(&self.shared.live);
        live.retain(|(_, end)| *end > now);
        live.truncate(MAX_TOKENS - 1);
        live.push_front((secret.clone(), now + lifetime));
        AccessToken::new(secret, Some(lifetime))
    }
}

impl TokenSource for ScriptedTokens {
    fn fetch(&self) -> BoxFuture<'_, Result<AccessToken, TokenError>> {
        Box::pin(self.follow())
    }
}

impl fmt::Debug for ScriptedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedTokens")
            .field("fetches", &self.fetches())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn newer_token_does_not_end_an_older_one() {
        let tokens = ScriptedTokens::lasting(MINUTE);
        let first = tokens.fetch().await.unwrap();
        assert_eq!(first.expires_in(), Some(MINUTE));
        tokio::time::advance(MINUTE / 2).await;
        let second = tokens.fetch().await.unwrap();
        assert!(tokens.admits(Some(&first)) && tokens.admits(Some(&second)));
        tokio::time::advance(MINUTE / 2).await;
        assert!(!tokens.admits(Some(&first)) && tokens.admits(Some(&second)));
        tokens.revoke();
        assert!(!tokens.admits(Some(&second)) && !tokens.admits(None));
        assert_eq!(tokens.fetches(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn script_gets_the_number_of_the_request() {
        let tokens = ScriptedTokens::new(|number| match number {
            1 => TokenStep::Fail(TokenError::new("down")),
            2 => TokenStep::After(MINUTE, Box::new(TokenStep::Issue(MINUTE))),
            _ => TokenStep::Silent,
        });
        let start = Instant::now();
        tokens.fetch().await.unwrap_err();
        assert!(tokens.admits(Some(&tokens.fetch().await.unwrap())));
        assert_eq!(start.elapsed(), MINUTE);
        tokio::select! {
            _ = tokens.fetch() => panic!("the third is never answered"),
            () = tokens.wait_for(3) => {}
        }
    }
}
