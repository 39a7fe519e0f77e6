//! Executes Genesys Cloud Data Actions **once per request key**.
//!
//! A data action calls somebody else's system: it refunds, books, writes a
//! customer's record. `genesys-once` is an engine to embed in a service that
//! executes such actions (`POST …/dataactions/{id}/execute`) for many callers at
//! once: identical requests, in whatever formatting, from however many tasks,
//! processes and machines, are one call to the platform, and everybody gets its
//! answer or an error that says exactly what is known.
//!
//! # The promise
//!
//! > For one key, within its retention window and as long as the store keeps
//! > what it acknowledged: no second request is put on the wire unless the first
//! > is **proven not to have been executed**, or a person or policy said so.
//! > Every caller is answered.
//!
//! # Getting started
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let upstream = genesys_once::testing::ScriptedUpstream::new(|_| genesys_once::testing::Step::ok("{}"));
//! use genesys_once::{DataActionRequest, Engine, MemoryStore};
//!
//! // In production: GenesysCloud::new(Environment::from_domain("mypurecloud.ie")?,
//! // Credentials::new(id, secret)) and RedisStore::connect("rediss://…").await?
//! let engine = Engine::builder(upstream).store(MemoryStore::new()).start().await?;
//!
//! let request = DataActionRequest::new("custom_-_refund", r#"{"order": 42}"#)?;
//! match engine.execute(request).await {
//!     Ok(reply) => println!("{} from {}", reply.status(), reply.served()),
//!     Err(error) => println!("{error}; what now: {:?}", error.hint()),
//! }
//! # Ok::<(), genesys_once::Error>(())
//! # }).unwrap();
//! # }
//! ```
//!
//! # The picture
//!
//! ```text
//! caller ─ Engine::execute(request)           the key was made by DataActionRequest::new
//!    │  recent outcome?   ─ yes ─► Reply (served: Memory)
//!    │  flight under way? ─ yes ─► wait for it (Joined)
//!    └─ first of its key ─► an idle actor, or one that the supervisor spawns
//!                              │
//!         Supervisor ── owns ──┼── TokenActor            one OAuth token, renewed before it expires
//!                              └── ExecutionActor        one per key in flight, then idle until the next
//!                                    Hashed ──lock──► Locked ──execute──► Executed ──cache──► Cached
//!                                       │ store          │ upstream           │ store
//!                                       ├► Cached (somebody else's outcome)   └► every waiter answered
//!                                       ├► held elsewhere: wait, or fail fast
//!                                       └► Indeterminate: told, not repeated
//! ```
//!
//! # The invariants
//!
//! Written as absences; each has a test that turns red without the code that
//! holds it.
//!
//! - **I1** No request leaves the process unless this execution's lease is live
//!   and in phase `Dispatched`, by the holder's own clock, counted from when it
//!   *sent* its last successful store command.
//! - **I2** A caller that drops its future or times out never cancels, repeats
//!   or leaks an execution.
//! - **I3** No path leaves a waiter unanswered: panic, kill, store outage, lease
//!   loss, overload, shutdown, a foreign supervisor's end.
//! - **I4** No stale holder overwrites anything: every transition is
//!   compare-and-set, atomic in the store.
//! - **I5** No live lease is taken over (the *store's* clock decides, or that of an
//!   asker who has seen one revision for the whole lease), and no lapsed `Dispatched`
//!   lease becomes executable by itself while its record
//!   lives.
//! - **I6** No two different requests share an answer, a refusal or a verdict; the
//!   same request in another formatting never gets another key. No two replies
//!   with `recorded() == true` for one record differ.
//! - **I7** No secret or token in `Debug`, `Display`, logs, spans, metrics,
//!   errors or the store.
//! - **I8** No two namespaces (platform host and OAuth client) share a record.
//! - **I9** Nothing grows without a bound: payloads, responses, executions in
//!   flight, waiters, recent outcomes.
//!
//! # Where to read on
//!
//! The [`guide`]: [getting started](guide::getting_started),
//! [guarantees and their limits](guide::guarantees),
//! [choosing policies](guide::policies), [operating](guide::operating),
//! [writing a store](guide::writing_a_store) and
//! [testing your service](guide::testing_your_service).
//!
//! For reference: [`Engine`] and [`EngineBuilder`] for embedding and settings, [`Error`] for
//! what can go wrong, [`DataActionRequest`] and [`IdempotencyKey::of`] for how a
//! key is made, [`record`] for the protocol and [`Store`] for a store of one's
//! own, [`execution`] for the typestates, [`classify`] for what an answer means,
//! [`telemetry`] for spans and metrics, and, with the feature of its name,
//! `testing` for tests of one's own service.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `genesys` | yes | `GenesysCloud`: the platform over reqwest and rustls |
//! | `redis` | yes | `RedisStore` |
//! | `file` | yes | `FileStore`: the durable store of one machine, without a server |
//! | `encrypted` | yes | `Encrypted`: outcomes encrypted at rest, around any store |
//! | `cli` | no | the command line `genesys-once` for operators: see [operating](guide::operating) |
//! | `metrics` | no | counters, gauges and histograms through the `metrics` facade: see [`telemetry`] |
//! | `testing` | no | simulator, scripted upstream, ledger, store conformance, proptest strategies |
//! | `ractor-cluster`, `ractor-async-trait` | no | forward ractor's features of that name, which are not additive: needed where another crate of the build switches them on |

pub mod canonical;
pub mod execution;
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
pub mod record;
pub mod telemetry;

mod actors;
mod ambient;
mod engine;
mod error;
mod flights;
mod key;
#[cfg(any(feature = "genesys", feature = "redis"))]
mod lookup;
mod outcome;
mod policy;
mod request;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod upstream;

pub use self::actors::{Backlog, BacklogEntry, Drained, EngineMessage};
pub use self::engine::{Engine, EngineBuilder, Forgotten, IndeterminateKeys, ScopedEngine, Stats};
pub use self::error::{
    Cause, Error, KeyState, ParseError, RefusalKind, RetryHint, SendError, StoreError, TokenError,
};
pub use self::key::{
    Fingerprint, IdempotencyKey, Namespace, ParseKeyError, ParseNamespaceError, RecordName,
};
pub use self::outcome::{BodyEnd, Outcome, Recovery, Reply, Served, StoredBody, Verdict};
pub use self::policy::{OnDuplicate, OnUnknown, RetryPolicy, classify, retry_after};
pub use self::record::{RecordState, Resolution};
pub use self::request::{ActionId, DataActionRequest, Payload, Scope};
#[cfg(feature = "file")]
pub use self::store::FileStore;
pub use self::store::{
    BoxFuture, Cursor, ListFilter, ListQuery, MemoryStore, Page, Store, UnreadableRecord,
};
#[cfg(feature = "redis")]
pub use self::store::{
    Durability, Persistence, RedisStore, RedisStoreBuilder, ServerReport, WhenEmptied,
};
#[cfg(feature = "encrypted")]
pub use self::store::{Encrypted, EncryptionKeys};
pub use self::upstream::{AccessToken, Call, RatePermit, TokenSource, Upstream};
#[cfg(feature = "genesys")]
pub use self::upstream::{ClientAuth, Credentials, Environment, GenesysCloud, Route};
/// The actor framework whose types `Engine::actor` and `EngineMessage` use.
pub use ractor;

/// The README's examples are compiled and run with the doc tests.
#[cfg(all(doctest, feature = "genesys", feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
