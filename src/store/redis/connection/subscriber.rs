//! The one task that keeps a server's subscriptions in line with the table of
//! waiters. It never connects while the table is empty.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::command_error::Failure;
use super::shared::Link;
use super::subscriptions::{BATCH, Notices};

/// How often channels without waiters are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// How long to leave a server alone that did not take a subscription.
const BACKOFF: Duration = Duration::from_millis(250);

/// Which channels a server publishes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    /// Those that every server has.
    Ordinary,
    /// Those of the shards of a cluster, each on the server that has it.
    OfShards,
}

/// Keeps the subscriptions in line with the table, for as long as the store
/// lives. With nobody waiting it does nothing, not even connect.
pub(crate) async fn listen(link: Link, notices: Arc<Notices>, channels: Channels) {
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
