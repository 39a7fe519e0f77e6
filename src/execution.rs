//! One execution as a typestate: `Hashed → Locked → Executed → Cached`. Each step
//! consumes the execution. So a program that executes before it locks, or that does a
//! step twice, does not compile.
//!
//! The engine drives these states for you. Drive them yourself if you need one
//! execution without actors:
//!
//! ```
//! use genesys_once::execution::{Attempt, Execution, Lock, Terms};
//! # use genesys_once::{DataActionRequest, Error, MemoryStore, Reply, Upstream};
//!
//! # async fn once(upstream: &dyn Upstream, request: DataActionRequest) -> Result<Option<Reply>, Error> {
//! let store = MemoryStore::new();
//! let hashed = Execution::new(request, upstream.namespace());
//! let reply = match hashed.lock(&store, &Terms::default()).await? {
//!     Lock::Cached(cached) => Some(cached.into_reply()),
//!     Lock::Locked(locked) => match locked.execute(&store, upstream, None).await? {
//!         Attempt::Executed(executed) => {
//!             Some(executed.cache(&store).await.map_err(|(_, error)| error)?.into_reply())
//!         }
//!         _ => None, // nothing was executed, or nothing is known
//!     },
//!     _ => None, // another process has the lease
//! };
//! # Ok(reply)
//! # }
//! ```
//!
//! The [`Progress`] of an execution keeps what is known, and outlives it. If an execution
//! is dropped during a step, [`Progress::finish`] still finishes its record.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::error::{Error, StoreError, UnknownOutcome};
use crate::key::{Fingerprint, IdempotencyKey, RecordName};
use crate::outcome::Outcome;
use crate::record::{About, Claim, Phase, Revision};
use crate::request::DataActionRequest;

mod attempt;
mod command;
mod finish;
mod heartbeat;
mod lock;
mod merged_options;
mod progress;
mod terms;

pub use self::attempt::Attempt;
pub(crate) use self::attempt::Dispatch;
pub(crate) use self::command::{Commands, QUICK, Resend};
pub use self::lock::Lock;
pub(crate) use self::progress::MIN_RESULT_TTL;
pub use self::progress::Progress;
use self::terms::ResponseRules;
pub(crate) use self::terms::TEN_YEARS;
pub use self::terms::Terms;

/// An execution in state `S`: see the [module's docs](self).
///
/// Let inference name the states; a program rarely spells this type out.
#[must_use = "a dropped execution leaves its record to expire"]
pub struct Execution<S: State> {
    /// Boxed: each step moves it several times, and its future has room for each move.
    core: Box<Core>,
    state: S,
}

impl<S: State> Execution<S> {
    /// The request's key.
    pub fn key(&self) -> IdempotencyKey {
        self.core.name.key
    }

    /// The request.
    pub fn request(&self) -> &DataActionRequest {
        &self.core.request
    }

    /// What is known of this execution; it outlives the execution.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.core.progress
    }
}

impl<S: State> fmt::Debug for Execution<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("state", &S::NAME)
            .field("name", &format_args!("{}", self.core.name))
            .field("progress", &self.core.progress)
            .finish()
    }
}

/// A state of an [`Execution`]. The trait is sealed.
///
/// ```compile_fail,E0277
/// struct Mine;
///
/// impl genesys_once::execution::State for Mine {
///     const NAME: &'static str = "Mine";
/// }
/// ```
pub trait State: sealed::Sealed {
    /// The state's name.
    const NAME: &'static str;
}

mod sealed {
    pub trait Sealed {}
}

/// The key is known; waits for `lock`.
#[derive(Debug)]
pub struct Hashed {
    /// A revision of the record whose lease has expired by this process's own clock.
    watched: Option<Revision>,
}

/// The lease is acquired; waits for `execute` or `release`.
#[derive(Debug)]
pub struct Locked {
    lease: Box<AcquiredLease>,
}

/// An acquired lease. Boxed: each step moves it, and its future has room for each move.
#[derive(Debug)]
struct AcquiredLease {
    rules: ResponseRules,
    claim: Claim,
    step: u32,
    phase: Phase,
    /// Until when the lease lives by this process's clock, counted from when
    /// its last successful store command was sent (I1).
    live_until: Instant,
    /// An attempt of this execution might have been executed.
    outcome_unknown: bool,
    attempts: u32,
}

/// The platform answered; waits for `cache`.
#[derive(Debug)]
pub struct Executed {
    lease: Box<AcquiredLease>,
    outcome: Arc<Outcome>,
}

/// The store has recorded the outcome; waits for `into_reply`.
#[derive(Debug)]
pub struct Cached {
    reply: crate::outcome::Reply,
    left: Duration,
}

macro_rules! states {
    ($($state:ident),+) => {$(
        impl sealed::Sealed for $state {}
        impl State for $state {
            const NAME: &'static str = stringify!($state);
        }
    )+};
}

states!(Hashed, Locked, Executed, Cached);

/// The data of every state.
struct Core {
    request: DataActionRequest,
    name: RecordName,
    /// The fingerprint for the engine's route, if a flight has computed it.
    fingerprint: Option<Fingerprint>,
    progress: Arc<Progress>,
}

impl Core {
    fn fingerprint(&self, terms: &Terms) -> Fingerprint {
        let fingerprint = || self.request.fingerprint(&terms.route);
        self.fingerprint.unwrap_or_else(fingerprint)
    }

    /// What the record says about this execution, with the options of all callers.
    fn about(&self, about: Arc<About>) -> Arc<About> {
        match self.progress.is_sensitive() {
            true => about.sensitive(),
            false => about,
        }
    }

    fn of_store(&self, source: StoreError) -> Error {
        Error::of_store(self.name.key, source)
    }

    /// `now` applies if the attempt's time of sending is not known.
    fn indeterminate(&self, claim: &Claim, now: SystemTime, cause: impl Into<Arc<str>>) -> Error {
        Error::Indeterminate {
            key: self.name.key,
            version: claim.version(),
            since: claim.attempts.sent.unwrap_or(now),
            cause: UnknownOutcome::from(cause),
        }
    }
}
