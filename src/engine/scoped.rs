//! An engine for one scope, for an embedder's code of one tenant. It has no lists, no
//! actor and no shutdown, and it never leaves its scope.

use std::time::Duration;

use super::Engine;
use crate::error::Error;
use crate::key::IdempotencyKey;
use crate::outcome::Reply;
use crate::record::RecordState;
use crate::request::{DataActionRequest, Scope};

/// An [`Engine`] whose requests are all in one scope. A cheap clone.
///
/// Two scopes never share a key, whatever scopes and keys their requests have. So no
/// scope gets the answers of another. All scopes of an engine share its limits and its
/// OAuth client: the platform sees one caller.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use genesys_once::testing::{ScriptedUpstream, Step};
/// use genesys_once::{DataActionRequest, Engine};
///
/// # let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
/// let engine = Engine::builder(upstream.clone()).start().await?;
/// let (one, two) = (engine.scoped(&"tenant 1".parse()?), engine.scoped(&"tenant 2".parse()?));
///
/// let request = DataActionRequest::new("custom_-_refund", r#"{"order": 42}"#)?;
/// assert_ne!(one.key_of(&request), two.key_of(&request));
/// one.execute(request.clone()).await?;
/// two.execute(request).await?;
/// assert_eq!(upstream.ledger().total(), 2);
/// # Ok::<(), genesys_once::Error>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ScopedEngine {
    engine: Engine,
    scope: Scope,
}

impl Engine {
    /// This engine for the requests of one scope, for example a tenant. Give it to code
    /// that must not reach the answers of other scopes.
    pub fn scoped(&self, scope: &Scope) -> ScopedEngine {
        ScopedEngine {
            engine: self.clone(),
            scope: scope.clone(),
        }
    }
}

impl ScopedEngine {
    /// The scope.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The key of a request in this scope. A request's own
    /// [`scope`](DataActionRequest::with_scope) is one within it.
    pub fn key_of(&self, request: &DataActionRequest) -> IdempotencyKey {
        self.scope.key_of(request)
    }

    /// [`Engine::execute`] in this scope.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::execute`].
    ///
    /// # Cancel safety
    ///
    /// That of [`Engine::execute`].
    pub async fn execute(&self, request: DataActionRequest) -> Result<Reply, Error> {
        self.engine.execute(self.narrowed(request)).await
    }

    /// [`Engine::execute_within`] in this scope.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::execute_within`].
    ///
    /// # Cancel safety
    ///
    /// That of [`Engine::execute`].
    pub async fn execute_within(
        &self,
        request: DataActionRequest,
        limit: Duration,
    ) -> Result<Reply, Error> {
        self.engine
            .execute_within(self.narrowed(request), limit)
            .await
    }

    /// The record of a request in this scope. It takes a request and not a key, since a
    /// key might belong to another scope.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::inspect`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn inspect(&self, request: &DataActionRequest) -> Result<Option<RecordState>, Error> {
        self.engine.inspect(&self.key_of(request)).await
    }

    fn narrowed(&self, request: DataActionRequest) -> DataActionRequest {
        request.within(&self.scope)
    }
}
