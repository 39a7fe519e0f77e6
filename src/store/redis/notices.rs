//! Notices of changed records: who waits for which, and the one task that keeps
//! the server's subscriptions in line with them. It never blocks whoever drops
//! a waiter, and it misses no change without waking those who may have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::failure::Failure;
use super::link::Link;

/// How often channels without waiters are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a channel stays subscribed after its last waiter, who often comes
/// back: a new subscription costs a round trip and an extra look.
const LINGER: Duration = Duration::from_secs(2);

/// How long to leave a server alone that did not take a subscription.
const BACKOFF: Duration = Duration::from_millis(250);

/// Channels in one `SUBSCRIBE`.
const BATCH: usize = 512;

/// Who waits for which channel. As large as there are waiters, and those of the
/// last [`LINGER`].
#[derive(Default)]
pub(super) struct Notices {
    table: Mutex<Table>,
    wake: Notify,
}

#[derive(Default)]
struct Table {
    channels: HashMap<String, Channel>,
    /// Channels to be subscribed on the connection at hand.
    new: Vec<String>,
}

struct Channel {
    changes: watch::Sender<()>,
    idle_since: Option<Instant>,
}

impl Notices {
    /// Waits for the next notice on `channel`, and for the moment when the
    /// server has confirmed a new subscription: what happened before went
    /// unnoticed, so the waiter looks again.
    pub(super) fn wait_for(&self, channel: String) -> watch::Receiver<()> {
        let mut table = self.lock();
        if let Some(known) = table.channels.get_mut(&channel) {
            known.idle_since = None;
            return known.changes.subscribe();
        }
        let (changes, receiver) = watch::channel(());
        table.new.push(channel.clone());
        table.channels.insert(
            channel,
            Channel {
                changes,
                idle_since: None,
            },
        );
        drop(table);
        self.wake();
        receiver
    }

    /// A notice came in.
    pub(super) fn published(&self, channel: &[u8]) {
        let known = std::str::from_utf8(channel).ok();
        if let Some(channel) = known.and_then(|name| self.lock().channels.get(name).map(sender)) {
            channel.send_replace(());
        }
    }

    /// Whether anybody wants to hear of `channel`.
    pub(super) fn wants(&self, channel: &[u8]) -> bool {
        let known = std::str::from_utf8(channel).ok();
        known.is_some_and(|name| self.lock().channels.contains_key(name))
    }

    /// Makes the task look at the connection and the table.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.lock().channels.is_empty()
    }

    /// The next channels to subscribe, those that are still wanted.
    fn next_new(&self) -> Vec<String> {
        let mut table = self.lock();
        let from = table.new.len().saturating_sub(BATCH);
        let mut batch = table.new.split_off(from);
        batch.retain(|name| table.channels.contains_key(name));
        batch
    }

    fn put_back(&self, batch: Vec<String>) {
        self.lock().new.extend(batch);
    }

    /// After a reconnect none of the old subscriptions is left.
    fn all_are_new(&self) {
        let mut table = self.lock();
        table.new = table.channels.keys().cloned().collect();
    }

    fn confirmed(&self, batch: &[String]) {
        let table = self.lock();
        for channel in batch.iter().filter_map(|name| table.channels.get(name)) {
            channel.changes.send_replace(());
        }
    }

    /// Removes the channels that nobody has waited for in a while.
    fn sweep(&self, now: Instant) -> Vec<String> {
        let mut gone = Vec::new();
        self.lock().channels.retain(|name, channel| {
            if channel.changes.receiver_count() > 0 {
                channel.idle_since = None;
                return true;
            }
            let since = *channel.idle_since.get_or_insert(now);
            let keep = now.duration_since(since) < LINGER;
            if !keep {
                gone.push(name.clone());
            }
            keep
        });
        gone
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under this lock can panic half way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sender(channel: &Channel) -> watch::Sender<()> {
    channel.changes.clone()
}

/// Which channels a server publishes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    /// Those that every server has.
    Ordinary,
    /// Those of the shards of a cluster, each on the server that has it.
    OfShards,
}

/// Keeps the subscriptions in line with the table, for as long as the store
/// lives. With nobody waiting it does nothing, not even connect.
pub(super) async fn listen(link: Link, notices: Arc<Notices>, channels: Channels) {
    let mut listener = Listener {
        link,
        notices,
        channels,
        generation: None,
        swept: Instant::now(),
    };
    loop {
        if listener.notices.is_empty() {
            listener.notices.wake.notified().await;
        }
        match listener.round().await {
            Ok(()) => {
                // Either way there may be something to do.
                let _ = timeout(SWEEP, listener.notices.wake.notified()).await;
            }
            Err(failure) => {
                tracing::debug!(?failure, "redis subscriptions wait for the server");
                sleep(BACKOFF).await;
            }
        }
    }
}

struct Listener {
    link: Link,
    notices: Arc<Notices>,
    channels: Channels,
    /// The connection that the subscriptions were made on.
    generation: Option<u64>,
    swept: Instant,
}

impl Listener {
    async fn round(&mut self) -> Result<(), Failure> {
        let generation = self.link.generation().await?;
        if self.generation.replace(generation) != Some(generation) {
            self.notices.all_are_new();
        }
        loop {
            let batch = self.notices.next_new();
            if batch.is_empty() {
                break;
            }
            match self.channels {
                Channels::Ordinary => self.subscribe(generation, batch).await?,
                Channels::OfShards => self.subscribe_in_shard(generation, batch).await?,
            }
        }
        let now = Instant::now();
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            for batch in self.notices.sweep(now).chunks(BATCH) {
                match self.channels {
                    Channels::Ordinary => self.link.unsubscribe(generation, batch).await?,
                    Channels::OfShards => {
                        let sent = self.link.shard_channels(generation, "SUNSUBSCRIBE", batch);
                        sent.await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn subscribe(&self, generation: u64, batch: Vec<String>) -> Result<(), Failure> {
        match self.link.subscribe(generation, &batch).await {
            Ok(()) => self.notices.confirmed(&batch),
            // The user may not listen: polling is all that is left.
            Err(failure) if failure.code().is_some() => {
                tracing::debug!(?failure, "redis refuses a subscription");
            }
            Err(failure) => {
                self.notices.put_back(batch);
                return Err(failure);
            }
        }
        Ok(())
    }

    async fn subscribe_in_shard(&self, generation: u64, batch: Vec<String>) -> Result<(), Failure> {
        let replies = match self
            .link
            .shard_channels(generation, "SSUBSCRIBE", &batch)
            .await
        {
            Ok(replies) => replies,
            Err(failure) => {
                self.notices.put_back(batch);
                return Err(failure);
            }
        };
        let (mut confirmed, mut again) = (Vec::new(), Vec::new());
        let mut moved = None;
        for (channel, reply) in batch.into_iter().zip(&replies) {
            match Failure::in_reply(reply) {
                None => confirmed.push(channel),
                Some(failure) if failure.code() == Some("NOPERM") => {
                    tracing::debug!(?failure, "redis refuses a subscription");
                }
                // The map of the cluster is about to change, and with it who
                // waits here; until then the channel is asked for again.
                Some(failure) => {
                    again.push(channel);
                    moved = Some(failure);
                }
            }
        }
        self.notices.confirmed(&confirmed);
        self.notices.put_back(again);
        moved.map_or(Ok(()), Err)
    }
}
