//! placeholder
mod actors;
pub mod canonical;
mod engine;
mod error;
pub mod execution;
mod flights;
mod key;
mod outcome;
mod policy;
pub mod record;
mod request;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod upstream;

pub use actors::{Drained, EngineMessage};
pub use engine::{Engine, EngineBuilder, Stats};
pub use error::{Cause, Error, ParseError, RetryHint, SendError, StoreError, TokenError};
pub use key::{
    Fingerprint, IdempotencyKey, Namespace, ParseKeyError, ParseNamespaceError, RecordName,
};
pub use outcome::{Kept, Outcome, Reply, Served, Then, Verdict};
pub use policy::{Next, OnDuplicate, OnStoreDown, OnUnknown, RetryPolicy, classify};
pub use record::{RecordState, Resolution};
pub use request::{ActionId, DataActionRequest, Payload};
pub use store::{BoxFuture, MemoryStore, Store};
pub use upstream::{AccessToken, Call, TokenSource, Upstream};
