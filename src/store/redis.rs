//! Records in one Redis or Valkey server: what several processes agree on. It
//! composes no record and decides nothing itself: the scripts beside it mirror
//! `record::apply`, and the conformance suite holds them to it.
//!
//! ```text
//! RedisStore ── commands ── scripts ──► Link ── Server      one shared connection, remade on demand
//!           └── copies ── commands ──► a few connections    where replicas are waited for
//!           └── notices ◄── listener ◄──┘                  who waits for which channel
//! ```

mod commands;
mod copies;
mod durability;
mod failure;
mod link;
mod notices;
mod scripts;
mod server;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Value, cmd};

use self::copies::Copies;
pub use self::durability::{Durability, Persistence};
use self::link::{AbortOnDrop, Carrier, Link};
use self::notices::Notices;
use self::server::{Server, TOO_OLD, invalid, unavailable};
use super::{BoxFuture, Store};
use crate::error::{Error, StoreError};
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::record::{Answer, Event, RecordState};

/// The store of **several processes**: one Redis server, version 7.0 or later,
/// or a Valkey.
///
/// A clone is the same store, over the same one connection. That connection is
/// remade when it fails, by the next command; while the server is away, commands
/// fail at once or within 2 s, a new connection included, and never hang. No
/// command is repeated behind the caller's back: one whose reply was lost is
/// [`StoreError::unavailable`], and its fate is for the caller to find out.
///
/// Its clock is the server's. Records lie under `genesys-once:NAMESPACE:KEY`
/// and expire by themselves; each change is published on a channel of the same
/// name. The user named in the URL needs `SET`, `GET`, `GETRANGE`, `PTTL`,
/// `PEXPIRE`, `EXISTS`, `DEL`, `EVAL` and `EVALSHA` on those
/// keys; `SCAN` to list unresolved ones; `PUBLISH` and `SUBSCRIBE` on those
/// channels, without which those who wait learn of an outcome only by polling.
///
/// On a server that is out of memory (`maxmemory` with `noeviction`), acquiring
/// and writing large outcomes is [`StoreError::refused`]; replays go on, and so
/// do the small writes that settle a key which is already held.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
    copies: Option<Arc<Copies>>,
}

struct Inner {
    link: Link,
    notices: Arc<Notices>,
    /// Runs from the first wait on; ends with the last clone of the store.
    listener: Mutex<Option<AbortOnDrop>>,
    durability: Durability,
    address: String,
}

impl RedisStore {
    /// Connects to one server: `redis://[user][:password]@host[:port][/db]`, or
    /// `rediss://` for TLS. Port 6379 and database 0 are the defaults, and
    /// special characters in user and password are percent-encoded.
    ///
    /// TLS verifies the server's certificate against the system's roots;
    /// `SSL_CERT_FILE` names others. A process without a rustls provider gets
    /// ring's.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] where trying again cannot help: a URL that
    /// cannot be read, a wrong user, password or database, TLS on the wrong
    /// side, a certificate that is not trusted, a server older than 7.0.
    /// [`Error::StoreUnavailable`] where it may: nobody there, or no answer
    /// within a few seconds. Neither shows the password.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection that it was making.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let server = Server::parse(url)?;
        let address = server.address();
        let notices = Arc::new(Notices::default());
        let first = match server.dial(&notices).await {
            Ok(first) => first,
            Err(error) => return Err(server.explain(error).await),
        };
        let link = Link::new(server, notices.clone(), first);
        check_version(&link).await?;
        let durability = Durability::ask(&link).await;
        durability.warn(&address);
        let listener = Mutex::new(None);
        Ok(Self {
            inner: Arc::new(Inner {
                link,
                notices,
                listener,
                durability,
                address,
            }),
            copies: None,
        })
    }

    /// Sends nothing to the platform before `count` replicas have the lock: each
    /// transition that allows sending waits up to `timeout` for their word
    /// (`WAIT`). With fewer the lock is given back and the caller gets
    /// [`Error::StoreUnavailable`], which says how many have it: `1 of 2
    /// replicas have it`. Zero, the default, waits for none.
    ///
    /// Redis replicates after it has answered, so that a fail-over may forget
    /// the last moments. With this, a lock is known to every replica that may be
    /// promoted if `count` is the number of all of them; with fewer, one without
    /// it may be. Outcomes are not waited for: a fail-over that forgets one
    /// finds the lock in its place, and the key is held, not executed again.
    ///
    /// Replays never wait for replicas. A fresh execution takes one more round
    /// trip, since it looks the key up before it takes it, and extending a lease
    /// waits, too; both on a few connections of their own (16 at most), made on
    /// demand, since `WAIT` holds up whatever comes after it. Keep `timeout` well
    /// below the engine's `store_timeout`, which includes it. The user in the
    /// URL needs `WAIT` besides.
    pub fn replicas(self, count: u32, timeout: Duration) -> Self {
        let copies =
            (count > 0).then(|| Arc::new(Copies::new(self.inner.link.server(), count, timeout)));
        Self { copies, ..self }
    }

    /// In which ways this server may forget what it acknowledged, as it said
    /// when [`connect`](Self::connect) asked.
    pub fn durability(&self) -> &Durability {
        &self.inner.durability
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("address", &self.inner.address)
            .field("durability", &self.inner.durability)
            .field("copies", &self.copies)
            .finish()
    }
}

impl Inner {
    fn listen(&self) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        // Finished: the runtime that it ran on is gone.
        if listener.as_ref().is_none_or(|task| task.0.is_finished()) {
            let task = notices::listen(self.link.clone(), self.notices.clone());
            *listener = Some(AbortOnDrop(tokio::spawn(task)));
        }
    }
}

impl Store for RedisStore {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            let link = &self.inner.link;
            match &self.copies {
                Some(copies) if copies::are_needed(&event) => copies.apply(link, name, event).await,
                _ => commands::apply(link, name, event).await,
            }
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move { commands::look(&self.inner.link, &name.to_string()).await })
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut changes = self.inner.notices.wait_for(name.to_string());
            self.inner.listen();
            // An error would say that the channel is gone: reason to look, too.
            let _ = changes.changed().await;
        })
    }

    fn unresolved<'a>(
        &'a self,
        namespace: &'a Namespace,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(IdempotencyKey, RecordState)>, StoreError>> {
        Box::pin(commands::unresolved(&self.inner.link, namespace, limit))
    }
}

/// `SET … NX GET` is an error before 7.0; better to say so now.
async fn check_version(link: &Link) -> Result<(), Error> {
    let reply = link
        .command(&cmd("HELLO"))
        .await
        .map_err(|failure| match failure {
            failure::Failure::Server { text, .. } | failure::Failure::Lost(text) => {
                unavailable(text)
            }
        })?;
    let Value::Map(pairs) = reply else {
        return Ok(());
    };
    let version = pairs.into_iter().find_map(|pair| match pair {
        (Value::BulkString(name), Value::BulkString(version)) if name == b"version" => {
            String::from_utf8(version).ok()
        }
        _ => None,
    });
    let major = version
        .as_deref()
        .and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    // A server that gives no number is given the benefit of the doubt.
    match (major, version) {
        (Some(..7), Some(version)) => Err(invalid(format!("{TOO_OLD}: it says {version}"))),
        _ => Ok(()),
    }
}
