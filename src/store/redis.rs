//! Records in Redis or Valkey: what several processes agree on. It composes no
//! record and decides nothing itself: the scripts beside it mirror
//! `record::apply`, and the conformance suite holds them to it.
//!
//! ```text
//! RedisStore ── commands ── scripts ──► Routes ─┬─ Node ── Link ── Place ─┬─ Server      one shared connection, remade on demand
//!           └── copies ── commands ──► a few    │                         └─ Sentinels   who is the primary now?
//!                                   connections └─ Cluster ── Map ── Nodes               who has which key?
//!                                                  └─ survey ── charts                   and is that still the same cluster?
//! RedisStore ── watch ── durability, markers ──► Routes                                  how lasting are they, and do they still hold what they held?
//! Node ── notices ◄── listener ◄── a Link of its own                                     who waits for which channel
//! ```

mod builder;
mod connect;
mod connection;
mod durability;
mod emptied;
mod monitor;
mod permissions;
mod protocol;
mod report;
mod server_mode;
mod topology;

use std::sync::Arc;
use std::time::Duration;

pub use self::builder::RedisStoreBuilder;
use self::connect::Connected;
use self::connection::transport::Transport as _;
pub use self::durability::{Durability, Persistence};
pub use self::emptied::WhenEmptied;
use self::protocol::bodies::{BodyStore, BodyTransfers};
use self::protocol::replica_acks::{ReplicaAcks, needs_acks};
use self::protocol::{commands, list, read, unreadable};
pub use self::report::ServerReport;
use super::{BoxFuture, ListQuery, Page, Store, UnreadableRecord};
use crate::error::{Error, StoreError};
use crate::key::{Namespace, RecordName};
use crate::record::{Answer, Event, RecordState};

/// The store of **several processes**: Redis, version 7.0 or later, or Valkey.
///
/// | servers | made by | when a primary fails |
/// |---|---|---|
/// | one server | [`connect`](Self::connect) | commands fail until it is back |
/// | a primary and replicas, watched by sentinels | [`sentinel`](Self::sentinel) | commands fail until the sentinels have promoted a replica, then go there |
/// | a cluster | [`cluster`](Self::cluster) | commands for its keys fail until its replica has taken over, then go there; all others go on |
///
/// A clone is the same store, over the same connections: one for commands to each
/// server, and from the first wait on another one for notices. They belong to the
/// runtime on which the store was made, whichever runtime its callers are on, and
/// to a caller's only once that one has ended or stands still. A connection is
/// remade when it fails, by the next command; while a server is away, commands for it fail at once or within 2 s,
/// a new connection included, and never hang. No command is repeated behind the
/// caller's back unless a server said that it had not run it (`MOVED`, `ASK`),
/// or there was no connection to send it on: one whose reply was lost is
/// [`StoreError::unavailable`], and its fate is for the caller to find out.
///
/// # What is kept
///
/// Its clock is the server's. Records lie under `genesys-once:NAMESPACE:KEY`
/// and expire by themselves; each change is published on a channel of the same
/// name, in a cluster to the shard only.
///
/// A record has at most 64 KiB; the body of a larger outcome is a key beside it,
/// `genesys-once:{genesys-once:NAMESPACE:KEY}:LEASE`: written before the record that
/// names it, read after, gone with it, on connections on which nothing else waits.
/// Where it is gone alone (evicted, say), the outcome is replayed without its body, as
/// one that was too large: it is never executed again. Bodies over 32 MiB are not kept,
/// nor those that were sent three times and not taken. A larger value in a record's
/// place is [`Error::RecordUnreadable`].
///
/// # What is forgotten
///
/// What [`durability`](Self::durability) says, and this: **replication is
/// asynchronous.** A fail-over forgets what the promoted replica had not been
/// told, the last moments before a crash and everything since a network split.
/// A lock that is forgotten can be taken, and its request sent, a second time.
/// [`replicas`](Self::replicas) closes that for locks; `min-replicas-to-write` on
/// the servers bounds it for everything. A promoted replica counts leases by its
/// own clock, so keep the servers' in step: a lease that seems to have lapsed
/// makes its key indeterminate, which is no second call, but somebody's work.
///
/// A server that has lost its records (a flush, a restart without them, another
/// database) is noticed as well as it can be, and refused where
/// [`when_emptied`](Self::when_emptied) says so.
///
/// # What the user needs
///
/// The user named in the URL needs `SET`, `GET`, `GETRANGE`, `SETRANGE`,
/// `STRLEN`, `PTTL`, `PEXPIRE`, `EXISTS`, `DEL`, `EVAL` and `EVALSHA` on those keys, and `SCAN` to
/// list records; `PUBLISH`, `SUBSCRIBE` and `UNSUBSCRIBE` on those channels,
/// without which those who wait learn of an outcome only by polling. In a cluster
/// `SPUBLISH`, `SSUBSCRIBE` and `SUNSUBSCRIBE` instead, `CLUSTER SLOTS`, `ASKING`,
/// `CLUSTER INFO` to tell an old map from a new one, `CLUSTER MYID` to tell a node
/// from another one at its address, and `CLUSTER NODES` to notice slots that move
/// under a list. With sentinels also `ROLE`, to tell a primary from a replica, and on
/// the sentinels `SENTINEL`, and `SUBSCRIBE` on `+switch-master`. `HELLO` says
/// what kind of server it is, `INFO` and `CONFIG GET` how lasting: without them that
/// is not known.
///
/// On a server that is out of memory (`maxmemory` with `noeviction`), acquiring
/// and writing large outcomes is [`StoreError::refused`]; replays go on, and so
/// do the small writes that settle a key which is already held. A server that takes
/// no writes at the moment (`READONLY`, `NOREPLICAS`, `MISCONF`), or no commands
/// (`LOADING`, `BUSY`, `CLUSTERDOWN`), is [`NotNow`](crate::RefusalKind::NotNow), and one that
/// forbids them [`NotAllowed`](crate::RefusalKind::NotAllowed): neither costs an outcome its body.
///
/// # Who is a server of this store
///
/// A cluster's map is followed only if it is of the same cluster: with most of the
/// nodes, by their ids, of the map before, or confirmed by most of those. The map of
/// another cluster is refused with an `ERROR` in the log, whatever its epoch, and the
/// store goes on with the one that it has; the map is looked at every 10 s, so that
/// a cluster whose nodes are replaced one after the other stays known. A node that
/// has another id than the map says is not used.
#[derive(Clone)]
pub struct RedisStore {
    connected: Arc<Connected>,
    replica_acks: Option<ReplicaAcks>,
    bodies: Arc<BodyTransfers>,
}

impl RedisStore {
    /// Connects to one server: `redis://[user][:password]@host[:port][/db]`, or
    /// `rediss://` for TLS. Port 6379 and database 0 are the defaults, and
    /// special characters in user and password are percent-encoded. A user has a
    /// password, and there are no query parameters and no fragment: nothing in a URL
    /// is ignored. A password that goes to another machine than this one without TLS
    /// is a warning in the log.
    ///
    /// TLS verifies the server's certificate against the system's roots;
    /// `SSL_CERT_FILE` names others. A process without a rustls provider gets
    /// ring's. [`builder`](Self::builder) takes logins and certificates that do not
    /// stand in a URL.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] where trying again cannot help: a URL that
    /// cannot be read, a wrong user, password or database, TLS on the wrong
    /// side, a certificate that is not trusted, a server older than 7.0, a node
    /// of a cluster or a sentinel, a server without scripts, a right that is
    /// missing. [`Error::StoreUnavailable`] where it may: nobody there, no answer
    /// within a few seconds, or a replica. Neither shows the password.
    /// [`Error::NoRuntime`] outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection that it was making.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder([url]).connect().await
    }

    /// Connects to a cluster, by the URLs of any of its nodes: one that answers is
    /// enough to find the others, several are better. Each URL is as
    /// [`connect`](Self::connect) has it, without a database.
    ///
    /// All nodes are logged in to with the user, the password and the scheme of
    /// these URLs, which must be the same in each; with `rediss://` the nodes'
    /// certificates must hold for the names or addresses that the cluster gives
    /// out (`cluster-announce-hostname`). Those must be reachable from here.
    ///
    /// Set `cluster-require-full-coverage no`: otherwise one shard that is down
    /// takes all others along until it is back.
    ///
    /// A node that hangs delays nobody but commands for its own keys, which fail
    /// after 2 s. When its replica has taken over, they go there.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect), of the node that they are about;
    /// [`Error::InvalidConfig`] also for no URL at all, URLs that differ, a
    /// database other than 0, and a server that is no node of a cluster.
    /// [`Error::StoreUnavailable`] also where no primary can be reached under the
    /// address that the cluster gives out, and where the URLs lead to different
    /// clusters and not most of them to one. Where one URL can be used, the others'
    /// faults are warnings in the log.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connections that it was making.
    pub async fn cluster<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<Self, Error> {
        Self::builder(urls).cluster().await
    }

    /// Connects to the primary that these sentinels watch under that name. The
    /// URLs are the **sentinels'**, as [`connect`](Self::connect) has them but with
    /// port 26379 by custom (it must be said) and without a database.
    ///
    /// A plain name, `"orders"`, means data servers that are logged in to like the
    /// sentinels: with user, password and scheme of the first URL. Where they
    /// differ, the primary is named by a URL whose host is the name,
    /// `"redis://user:password@orders/2"` or `"rediss://orders"`: then nothing is
    /// taken from the sentinels' URLs, and the database may be another than 0.
    /// With `rediss://` the servers' certificates must hold for the names or
    /// addresses that the sentinels give out.
    ///
    /// All sentinels are asked at once, and the server that **most of those given**
    /// name is the primary, if it says itself that it is one (`ROLE`). Fewer are
    /// enough for the server that most named last, and, for servers without a
    /// password, for the first one: no password ever goes to a server that one of
    /// several sentinels names alone. They are asked again when a connection fails,
    /// when a server says that it is a replica, when one of them tells that it has
    /// another primary (`+switch-master`), and once a second: so long, and
    /// the time of one answer longer, a primary that was cut off from them, but
    /// not from here, may go on being written to. `min-replicas-to-write` on it,
    /// or [`replicas`](Self::replicas), keeps it from being believed.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect), of the sentinel or the primary;
    /// [`Error::InvalidConfig`] also for no URL at all, a database in a sentinel's
    /// URL, a name that the sentinels do not know, and a data server's URL.
    /// [`Error::StoreUnavailable`] also where too few of them agree. Where
    /// the primary is found, faults of single sentinels are warnings in the log.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connections that it was making.
    pub async fn sentinel<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
        primary: &str,
    ) -> Result<Self, Error> {
        Self::builder(urls).sentinel(primary).await
    }

    /// Sends nothing to the platform before `count` replicas have the lock: each
    /// transition that allows sending waits up to `timeout` for their word
    /// (`WAIT`). With fewer the lock is given back and the caller gets
    /// [`Error::StoreUnavailable`], which says how many have it: `1 of 2
    /// replicas have it`. Zero, the default, waits for none.
    ///
    /// Redis replicates after it has answered, so that a fail-over may forget
    /// the last moments. With this, a lock is known to every replica that may be
    /// promoted if `count` is the number of all of them (in a cluster, of each
    /// shard); with fewer, one without it may be. Outcomes are not waited for: a
    /// fail-over that forgets one finds the lock in its place, and the key is
    /// held, not executed again.
    ///
    /// Replays never wait for replicas. A fresh execution takes one more round
    /// trip, since it looks the key up before it takes it, and extending a lease
    /// waits, too; both on a few connections of their own (16 to each server at most), made on
    /// demand, since `WAIT` holds up whatever comes after it. Keep `timeout` well
    /// below the engine's `store_timeout`, which includes it. The user in the
    /// URL needs `WAIT` besides.
    pub fn replicas(self, count: u32, timeout: Duration) -> Self {
        let replica_acks = (count > 0).then(|| ReplicaAcks::new(count, timeout));
        Self {
            replica_acks,
            ..self
        }
    }

    /// How many bytes of bodies over 64 KiB may be on their way to and from the servers
    /// at once, for this store and its clones: 64 MiB unless set. Further ones wait, in
    /// the order of asking; one that is larger than all goes alone. Each server has up
    /// to 4 connections for them, made on demand and closed after 10 s without use.
    pub fn max_replay_bytes(self, bytes: usize) -> Self {
        let bodies = Arc::new(BodyTransfers::new(bytes));
        Self { bodies, ..self }
    }

    fn send<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        let body_store = self.body_store();
        match &self.replica_acks {
            Some(replica_acks) if needs_acks(&event) => {
                Box::pin(replica_acks.apply(body_store, name, event))
            }
            _ => Box::pin(commands::apply(body_store.routes, body_store, name, event)),
        }
    }

    fn body_store(&self) -> BodyStore<'_> {
        BodyStore {
            routes: &self.connected.monitor.routes,
            bodies: &self.bodies,
        }
    }

    fn new(connected: Connected) -> Self {
        connected.monitor.start();
        Self {
            connected: Arc::new(connected),
            replica_acks: None,
            bodies: Arc::default(),
        }
    }
}

impl Store for RedisStore {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        match self.connected.monitor.must_check_before(&event) {
            true => Box::pin(async move {
                self.connected.monitor.check_may_acquire(name).await?;
                self.send(name, event).await
            }),
            false => self.send(name, event),
        }
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        let body_store = self.body_store();
        Box::pin(async move { read::look(body_store.routes, body_store, name, &name.text()).await })
    }

    fn peek<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        let body_store = self.body_store();
        Box::pin(async move { read::peek(body_store.routes, body_store, name, &name.text()).await })
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(self.connected.monitor.routes.changed(name.text()))
    }

    fn shard(&self, name: &RecordName) -> u64 {
        let routes = &self.connected.monitor.routes;
        match routes.is_sharded() {
            true => routes.shard(&name.text()),
            false => 0,
        }
    }

    fn least_writer<'a>(
        &'a self,
        namespace: &'a Namespace,
        at_least: u32,
    ) -> BoxFuture<'a, Result<u32, StoreError>> {
        let monitor = &self.connected.monitor;
        monitor.start();
        Box::pin(monitor.least_writer(namespace, at_least))
    }

    fn emptied(&self, namespace: &Namespace) -> u64 {
        self.connected.monitor.emptied(namespace)
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(list::page(self.body_store(), namespace, query))
    }

    fn walk_turn<'a>(
        &'a self,
        namespace: &'a Namespace,
        period: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(commands::walk_turn(
            &self.connected.monitor.routes,
            namespace,
            period,
        ))
    }

    fn look_unreadable<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<UnreadableRecord>, StoreError>> {
        Box::pin(async move {
            unreadable::unreadable(&self.connected.monitor.routes, name, &name.text()).await
        })
    }

    fn discard<'a>(
        &'a self,
        record: &'a UnreadableRecord,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(unreadable::discard(&self.connected.monitor.routes, record))
    }
}
