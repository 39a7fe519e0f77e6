//! placeholder
pub mod canonical;
mod error;
mod key;
mod outcome;
mod policy;
pub mod record;
mod request;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod upstream;

pub use error::{Cause, Error, ParseError, RetryHint, SendError, StoreError, TokenError};
pub use key::{Fingerprint, IdempotencyKey, Namespace, ParseKeyError, ParseNamespaceError, RecordName};
pub use outcome::{Kept, Outcome, Reply, Served, Then, Verdict};
pub use request::{ActionId, DataActionRequest, Payload};
pub use store::{BoxFuture, MemoryStore, Store};
#[cfg(feature = "redis")]
pub use store::{Durability, Persistence, RedisStore};
pub use record::{RecordState, Resolution};
pub use upstream::{AccessToken, Call, TokenSource, Upstream};
