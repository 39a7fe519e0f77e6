//! Executes Genesys Cloud Data Actions **once per request key**.
//!
//! A data action calls another system: it refunds an order, books a seat, changes a
//! customer's record. The platform answers 504, the caller retries, and the refund is
//! paid twice. This crate is an engine for services that execute such actions
//! (`POST …/dataactions/{id}/execute`). Identical requests, in any formatting, from any
//! number of tasks, processes and machines, become one call to the platform. Every
//! caller gets the platform's answer, or an error that says what is known.
//!
//! # The promise
//!
//! > For one key, within its retention window and as long as the store keeps
//! > what it acknowledged: no second request is put on the wire unless the first
//! > is **proven not to have been executed**, or an operator or a policy said so.
//! > Every caller is answered.
//!
//! # Getting started
//!
//! ```no_run
//! # #[cfg(all(feature = "genesys", feature = "redis"))]
//! # mod program {
//! use std::time::Duration;
//!
//! use genesys_once::{
//!     Credentials, DataActionRequest, Engine, Environment, GenesysCloud, RedisStore, RetryHint,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize)]
//! struct Refund {
//!     order: u64,
//!     cents: u64,
//! }
//!
//! #[derive(Deserialize)]
//! struct Refunded {
//!     receipt: String,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let platform = GenesysCloud::new(
//!         Environment::from_domain("mypurecloud.ie")?,
//!         Credentials::new(std::env::var("CLIENT_ID")?, std::env::var("CLIENT_SECRET")?),
//!     );
//!     let store = RedisStore::connect(&std::env::var("REDIS_URL")?).await?;
//!     // One engine for the process; clone it into every task.
//!     let engine = Engine::builder(platform).store(store).start().await?;
//!
//!     let refund = Refund { order: 42, cents: 1990 };
//!     let request = DataActionRequest::from_serialize("custom_-_refund", &refund)?;
//!     match engine.execute(request).await {
//!         Ok(reply) if reply.is_success() => {
//!             let refunded: Refunded = reply.json()?;
//!             println!("{}, served from {}", refunded.receipt, reply.served());
//!         }
//!         Ok(reply) => println!("the action answered {}", reply.status()),
//!         Err(error) => match error.hint() {
//!             RetryHint::After(wait) => println!("{error}: safe to retry in {wait:?}"),
//!             RetryHint::Resolve => println!("{error}: find out, then call Engine::resolve"),
//!             _ => println!("{error}: a retry has the same result"),
//!         },
//!     }
//!     engine.shutdown(Duration::from_secs(30)).await;
//!     Ok(())
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! # The picture
//!
//! ```text
//! caller ─ Engine::execute(request)         DataActionRequest::new has made the key
//!    │  recent outcome?   ─ yes ─► Reply (served: Memory)
//!    │  flight under way? ─ yes ─► wait for it (Joined)
//!    └─ first of its key ─► an idle actor, or one that the supervisor spawns
//!                              │
//!         Supervisor ── owns ──┼── TokenActor        one OAuth token, renewed in time
//!                              └── FlightActor    one per key in flight, then idle
//!
//! Hashed ──lock──► Locked ──execute──► Executed ──cache──► Cached ─► every waiter answered
//!    │ store          │ upstream           │ store
//!    ├► Cached (another process's outcome)
//!    ├► another holder: wait, or fail fast
//!    └► Indeterminate: reported, not repeated
//! ```
//!
//! # The invariants
//!
//! Each invariant says what never happens, and each has a test that turns red without
//! the code that holds it. [*Design*](guide::design) names the code and the tests.
//!
//! - **I1** A request leaves the process only while its lease is live and in phase
//!   `Dispatched`. The holder's own clock decides, and counts from when the holder
//!   *sent* its last successful store command.
//! - **I2** A caller that drops its future or times out never cancels, repeats or leaks
//!   an execution.
//! - **I3** Every waiter is answered, also after a panic, a kill, a store outage, a lost
//!   lease, overload, shutdown, or the end of a supervisor above the engine.
//! - **I4** A stale holder overwrites nothing: every transition is an atomic
//!   compare-and-set in the store.
//! - **I5** A live lease is not taken over. The *store's* clock decides that a lease has
//!   expired, or a waiter that has seen one revision of the record for a whole lease. A
//!   lease that expired in phase `Dispatched` does not become executable by itself while
//!   its record lives.
//! - **I6** Two different requests never share an answer or a refusal. One
//!   request in two formattings never has two keys. Two replies with
//!   `recorded() == true` for one record never differ.
//! - **I7** No secret or token appears in `Debug`, `Display`, logs, spans, metrics,
//!   errors or the store.
//! - **I8** Two namespaces (platform host and OAuth client) share no record.
//! - **I9** Nothing grows without a bound: payloads, responses, executions in flight,
//!   waiters, recent outcomes.
//!
//! # Where to read on
//!
//! The [`guide`] has [getting started](guide::getting_started),
//! [guarantees and their limits](guide::guarantees),
//! [choosing policies](guide::policies), [operating](guide::operating),
//! [testing your service](guide::testing_your_service),
//! [writing a store](guide::writing_a_store), [design](guide::design) and
//! [contributing](guide::contributing).
//!
//! | for | see |
//! |---|---|
//! | embedding, settings | [`Engine`], [`EngineBuilder`], [`engine`] |
//! | how a key is made | [`DataActionRequest`], [`IdempotencyKey::of`], [`request`] |
//! | what can fail | [`Error`], [`error`] |
//! | what an answer proves | [`genesys::classify`], [`outcome`] |
//! | the stores | [`store`] |
//! | the protocol, and a store of your own | [`record`], [`Store`] |
//! | another platform than the client's | [`Upstream`], [`upstream`] |
//! | one execution, driven by hand | [`execution`] |
//! | spans and metrics | [`telemetry`] |
//! | tests of your service | `testing`, with the feature of that name |
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `genesys` | yes | `GenesysCloud`: the platform over reqwest and rustls |
//! | `redis` | yes | `RedisStore`: the store of several processes |
//! | `file` | yes | `FileStore`: the durable store of one machine, without a server |
//! | `encrypted` | yes | `Encrypted`: recorded answers encrypted, in any store |
//! | `cli` | no | the command line `genesys-once`: see [operating](guide::operating) |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade: see [`telemetry`] |
//! | `tower` | no | `tower::Service<DataActionRequest>` for [`Engine`], so that tower's layers apply |
//! | `testing` | no | `simulator`, store conformance, proptest strategies, clocks that a test sets |
//! | `simulator` | no | the part of `testing` without proptest: simulated platform, scripted upstream, ledger |
//! | `ractor-cluster`, `ractor-async-trait` | no | forward ractor's features of that name, which are not additive: needed where another crate of the build enables them |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod canonical;
pub mod engine;
pub mod error;
pub mod execution;
pub mod genesys;
// Its examples and links use all of these; without them it is still to be read.
#[cfg_attr(
    not(all(
        feature = "testing",
        feature = "genesys",
        feature = "redis",
        feature = "encrypted"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
#[cfg(any(
    not(doctest),
    all(
        feature = "testing",
        feature = "genesys",
        feature = "redis",
        feature = "encrypted"
    )
))]
pub mod guide;
pub mod outcome;
pub mod record;
pub mod request;
pub mod store;
pub mod telemetry;
#[cfg(feature = "simulator")]
pub mod testing;
pub mod upstream;

mod actors;
mod ambient;
mod flights;
mod key;
#[cfg(any(feature = "genesys", feature = "redis"))]
mod lookup;
mod policy;

// What a service names. Everything else is in the module that it belongs to.
#[doc(inline)]
pub use self::engine::{Engine, EngineBuilder, EngineMessage, ScopedEngine};
#[doc(inline)]
pub use self::error::{Error, RetryHint};
#[cfg(feature = "genesys")]
#[doc(inline)]
pub use self::genesys::{Credentials, Environment, GenesysCloud};
pub use self::key::IdempotencyKey;
#[doc(inline)]
pub use self::outcome::{Outcome, Reply, Served};
pub use self::policy::{OnDuplicate, OnUnknown, RetryPolicy};
#[doc(inline)]
pub use self::record::Resolution;
#[doc(inline)]
pub use self::request::DataActionRequest;
#[cfg(feature = "file")]
#[doc(inline)]
pub use self::store::FileStore;
#[cfg(feature = "redis")]
#[doc(inline)]
pub use self::store::RedisStore;
#[cfg(feature = "encrypted")]
#[doc(inline)]
pub use self::store::{Encrypted, EncryptionKeys};
#[doc(inline)]
pub use self::store::{MemoryStore, Store};
#[doc(inline)]
pub use self::upstream::Upstream;
/// The actor framework whose types `Engine::actor` and `EngineMessage` use.
pub use ractor;

/// The README's examples are compiled and run with the doc tests.
#[cfg(all(doctest, feature = "genesys", feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
