//! Records in Redis or Valkey, shared by several processes. It composes no record and
//! decides nothing: its scripts mirror `record::apply`, which the conformance suite checks.
//!
//! ```text
//! RedisStore ── protocol: commands, scripts ──► topology: Routes ─┬─ Node                 one server, or the primary that sentinels name
//!           └── ServerMonitor: durability, shard markers ──►      └─ Cluster ── SlotMap   the node that has a key
//! Node ─┬─ SharedConnection ── Connector     connection: one for all commands, replaced on demand
//!       ├─ ConnectionPool                    large bodies, and commands that wait for replicas
//!       └─ Subscriber ── Subscriptions       notifications for waiters
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
/// A clone is the same store, over the same connections: one to each server for
/// commands, and from the first wait on another one for notifications. They run on the
/// runtime on which the store was made, whichever runtime its callers use. They move to
/// a caller's runtime when the first one has ended or is no longer driven.
///
/// When a connection fails, the next command replaces it. While a server is away,
/// commands for it fail at once or within 2 s, a new connection included; none hangs.
/// The store repeats a command only where the server reports that it did not run it
/// (`MOVED`, `ASK`), or where there was no connection to send it on. A command whose
/// reply was lost is [`StoreError::unavailable`]: the caller has to find out its effect.
///
/// # What it stores
///
/// The clock is the server's. Records have the keys `genesys-once:NAMESPACE:KEY` and
/// expire by themselves. Each change is published on a channel of the same name, in a
/// cluster to the shard only.
///
/// A record has at most 64 KiB. The body of a larger outcome has a key of its own,
/// `genesys-once:{genesys-once:NAMESPACE:KEY}:LEASE`: written before the record that
/// names it, read after it, and removed with it, on separate connections. Where only the
/// body is gone (evicted, for example), the outcome is replayed without it, like one
/// that was too large: it is never executed again. Bodies over 32 MiB are not stored,
/// nor those that a server did not accept in three attempts. A larger value under a
/// record's key is [`Error::RecordUnreadable`].
///
/// # What it can lose
///
/// What [`durability`](Self::durability) reports, and this: **replication is
/// asynchronous.** A fail-over loses the writes that the promoted replica had not
/// received: the last moments before a crash, and everything since a network split.
/// After a lock is lost, another caller can acquire it and send its request a second
/// time. [`replicas`](Self::replicas) prevents that for locks; `min-replicas-to-write`
/// on the servers bounds it for all writes. A promoted replica measures leases by its
/// own clock, so keep the servers' clocks in step: a lease that seems to have expired
/// makes its key indeterminate. That is no second call, but work for an operator.
///
/// A server that has lost its records (a flush, a restart without them, another
/// database) is detected on a best-effort basis, and refused where
/// [`when_emptied`](Self::when_emptied) says so.
///
/// # What the user needs
///
/// The user named in the URL needs `SET`, `GET`, `GETRANGE`, `SETRANGE`,
/// `STRLEN`, `PTTL`, `PEXPIRE`, `EXISTS`, `DEL`, `EVAL` and `EVALSHA` on those keys, and `SCAN` to
/// list records; `PUBLISH`, `SUBSCRIBE` and `UNSUBSCRIBE` on those channels: without
/// them, waiters learn of an outcome only by polling. In a cluster it needs `SPUBLISH`,
/// `SSUBSCRIBE` and `SUNSUBSCRIBE` instead, `CLUSTER SLOTS`, `ASKING`, `CLUSTER INFO` to
/// compare the age of maps, `CLUSTER MYID` to verify that a node is still at its
/// address, and `CLUSTER NODES` to detect slots that move during a list. With sentinels
/// it also needs `ROLE`, to distinguish a primary from a replica, and on the sentinels
/// `SENTINEL`, and `SUBSCRIBE` on `+switch-master`. `HELLO` returns the kind of server,
/// `INFO` and `CONFIG GET` its durability: without them these are unknown.
///
/// On a server that is out of memory (`maxmemory` with `noeviction`), acquiring and
/// writing large outcomes is [`StoreError::refused`]. Replays go on, and so do the small
/// writes that finish a key which is already locked. A server that accepts no writes
/// for now (`READONLY`, `NOREPLICAS`, `MISCONF`), or no commands (`LOADING`, `BUSY`,
/// `CLUSTERDOWN`), is [`NotNow`](crate::error::RefusalKind::NotNow). One that forbids them is
/// [`NotAllowed`](crate::error::RefusalKind::NotAllowed). Neither costs an outcome its body.
///
/// # Identity of a cluster
///
/// The store adopts a new map only if it is of the same cluster: it has most of the
/// nodes of the map before, by their ids, or most of those confirm it. The map of
/// another cluster is refused with an `ERROR` in the log, whatever its epoch, and the
/// store keeps the map that it has. It reads the map every 10 s, so that a cluster whose
/// nodes are replaced one by one stays known. It does not use a node that has another
/// id than in the map.
#[derive(Clone)]
pub struct RedisStore {
    connected: Arc<Connected>,
    replica_acks: Option<ReplicaAcks>,
    bodies: Arc<BodyTransfers>,
}

impl RedisStore {
    /// Connects to one server: `redis://[user][:password]@host[:port][/db]`, or
    /// `rediss://` for TLS. Port 6379 and database 0 are the defaults, and
    /// special characters in user and password are percent-encoded. A user needs a
    /// password. Query parameters and fragments are errors: no part of a URL is
    /// ignored. A password that is sent to another machine without TLS is a warning in
    /// the log.
    ///
    /// TLS verifies the server's certificate against the system's roots;
    /// `SSL_CERT_FILE` names others. A process without a rustls provider gets
    /// ring's. [`builder`](Self::builder) takes logins and certificates that do not
    /// stand in a URL.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] where a retry cannot help: an invalid URL, a wrong
    /// user, password or database, TLS on the wrong side, a certificate that is not
    /// trusted, a server older than 7.0, a node of a cluster or a sentinel, a server
    /// without scripts, a missing permission. [`Error::StoreUnavailable`] where a retry
    /// might help: no server there, no answer within a few seconds, or a replica.
    /// Neither shows the password.
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
    /// A node that hangs delays only commands for its own keys, which fail after 2 s.
    /// When its replica has taken over, they go there.
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
    /// The store asks all sentinels at once. The server that **most of the given
    /// sentinels** name is the primary, if it confirms that itself (`ROLE`). Fewer
    /// sentinels are enough for the server that most named last, and, for servers
    /// without a password, for the first one: the store never sends a password to a
    /// server that only one of several sentinels names.
    ///
    /// The store asks again when a connection fails, when a server reports that it is a
    /// replica, when a sentinel announces another primary (`+switch-master`), and once a
    /// second. For that second and the time of one answer, the store might write to a
    /// primary that is cut off from the sentinels but not from this process.
    /// `min-replicas-to-write` on it, or [`replicas`](Self::replicas), prevents that
    /// such a write counts.
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
    /// transition that allows sending waits up to `timeout` for their acknowledgements
    /// (`WAIT`). With fewer, the engine releases the lock and the caller gets
    /// [`Error::StoreUnavailable`] with the number: `1 of 2 replicas have it`. Zero, the
    /// default, waits for none.
    ///
    /// Redis replicates after it has answered, so that a fail-over might lose the last
    /// writes. If `count` is the number of all replicas (in a cluster, of each shard),
    /// every replica that might be promoted knows the lock; with fewer, a replica
    /// without the lock might be promoted. The store does not wait for outcomes: after a
    /// fail-over that loses one, the lock is still there, and the key becomes
    /// indeterminate instead of being executed again.
    ///
    /// Replays never wait for replicas. A fresh execution takes one more round trip,
    /// since it reads the key before it acquires it; extending a lease waits too. Both
    /// use separate connections (at most 16 to each server), made on demand, since
    /// `WAIT` blocks the commands after it. Keep `timeout` well below the engine's
    /// `store_timeout`, which includes it. The user in the URL also needs `WAIT`.
    pub fn replicas(self, count: u32, timeout: Duration) -> Self {
        let replica_acks = (count > 0).then(|| ReplicaAcks::new(count, timeout));
        Self {
            replica_acks,
            ..self
        }
    }

    /// How many bytes of bodies over 64 KiB are transferred at once, for this store and
    /// its clones; 64 MiB by default. Further transfers wait in order. A body larger
    /// than the limit is transferred alone. Each server has up to 4 connections for
    /// bodies, made on demand and closed after 10 s without use.
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
        // The name's text costs an allocation, which one server does not need.
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
