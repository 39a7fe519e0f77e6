//! The task that subscribes on a server to the channels that waiters need. It never
//! connects while there are no waiters.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::command_error::CommandError;
use super::shared::SharedConnection;
use super::subscriptions::{MAX_BATCH, Subscriptions};

/// How often to look for channels without waiters.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait after a server did not accept a subscription.
const BACKOFF: Duration = Duration::from_millis(250);

/// The kind of channels that a server publishes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelKind {
    /// Channels of a single server.
    Ordinary,
    /// Sharded channels: each is on the node that has its slot.
    Sharded,
}

/// Runs for as long as the store lives. Without waiters it does not connect.
pub(crate) async fn run(
    connection: SharedConnection,
    subscriptions: Arc<Subscriptions>,
    channels: ChannelKind,
) {
    let mut subscriber = Subscriber {
        connection,
        subscriptions,
        channels,
        generation: None,
        swept: Instant::now(),
    };
    loop {
        if subscriber.subscriptions.is_empty() {
            subscriber.subscriptions.wake.notified().await;
        }
        match subscriber.round().await {
            Ok(()) => {
                // Woken or not, there might be work.
                let _ = timeout(SWEEP_INTERVAL, subscriber.subscriptions.wake.notified()).await;
            }
            Err(failure) => {
                tracing::debug!(?failure, "redis subscriptions wait for the server");
                sleep(BACKOFF).await;
            }
        }
    }
}

struct Subscriber {
    connection: SharedConnection,
    subscriptions: Arc<Subscriptions>,
    channels: ChannelKind,
    /// The connection that the subscriptions were made on.
    generation: Option<u64>,
    swept: Instant,
}

impl Subscriber {
    async fn round(&mut self) -> Result<(), CommandError> {
        let generation = self.connection.generation().await?;
        if self.generation.replace(generation) != Some(generation) {
            self.subscriptions.resubscribe_all();
        }
        loop {
            let batch = self.subscriptions.next_batch();
            if batch.is_empty() {
                break;
            }
            match self.channels {
                ChannelKind::Ordinary => self.subscribe(generation, batch).await?,
                ChannelKind::Sharded => self.subscribe_in_shard(generation, batch).await?,
            }
        }
        let now = Instant::now();
        if now.duration_since(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            for batch in self.subscriptions.sweep(now).chunks(MAX_BATCH) {
                match self.channels {
                    ChannelKind::Ordinary => self.connection.unsubscribe(generation, batch).await?,
                    ChannelKind::Sharded => {
                        let sent =
                            self.connection
                                .shard_channels(generation, "SUNSUBSCRIBE", batch);
                        sent.await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn subscribe(&self, generation: u64, batch: Vec<String>) -> Result<(), CommandError> {
        match self.connection.subscribe(generation, &batch).await {
            Ok(()) => self.subscriptions.confirm(&batch),
            // The user may not subscribe: waiters only poll.
            Err(failure) if failure.code().is_some() => {
                tracing::debug!(?failure, "redis refuses a subscription");
            }
            Err(failure) => {
                self.subscriptions.requeue(batch);
                return Err(failure);
            }
        }
        Ok(())
    }

    async fn subscribe_in_shard(
        &self,
        generation: u64,
        batch: Vec<String>,
    ) -> Result<(), CommandError> {
        let replies = match self
            .connection
            .shard_channels(generation, "SSUBSCRIBE", &batch)
            .await
        {
            Ok(replies) => replies,
            Err(failure) => {
                self.subscriptions.requeue(batch);
                return Err(failure);
            }
        };
        let (mut confirmed, mut again) = (Vec::new(), Vec::new());
        let mut moved = None;
        for (channel, reply) in batch.into_iter().zip(&replies) {
            match CommandError::from_reply(reply) {
                None => confirmed.push(channel),
                Some(failure) if failure.code() == Some("NOPERM") => {
                    tracing::debug!(?failure, "redis refuses a subscription");
                }
                // The map of the cluster is about to change, and the waiters move to
                // another node. Until then, retry the channel.
                Some(failure) => {
                    again.push(channel);
                    moved = Some(failure);
                }
            }
        }
        self.subscriptions.confirm(&confirmed);
        self.subscriptions.requeue(again);
        moved.map_or(Ok(()), Err)
    }
}
