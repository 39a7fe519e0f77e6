//! The waiters for notifications of changed records, by channel. Dropping a waiter never
//! blocks, and a change that might have been missed wakes the waiters.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How long a channel stays subscribed after its last waiter. Waiters often come back, and
/// a new subscription costs a round trip and an extra read.
const UNSUBSCRIBE_DELAY: Duration = Duration::from_secs(2);

/// The most channels in one `SUBSCRIBE`.
pub(super) const MAX_BATCH: usize = 512;

/// The waiters of each channel. Channels without waiters stay for
/// [`UNSUBSCRIBE_DELAY`].
#[derive(Default)]
pub(crate) struct Subscriptions {
    table: Mutex<ChannelTable>,
    pub(super) wake: Notify,
}

#[derive(Default)]
struct ChannelTable {
    channels: HashMap<String, Channel>,
    /// Channels that are not yet subscribed on the current connection.
    new: Vec<String>,
}

struct Channel {
    changes: watch::Sender<()>,
    idle_since: Option<Instant>,
}

impl Subscriptions {
    /// Changes with the next notification on `channel`, and when the server has confirmed a
    /// new subscription: changes before that were missed, so the waiter reads again.
    pub(crate) fn subscribe(&self, channel: String) -> watch::Receiver<()> {
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

    /// A notification arrived.
    pub(crate) fn notify(&self, channel: &[u8]) {
        let known = std::str::from_utf8(channel).ok();
        if let Some(channel) = known.and_then(|name| self.lock().channels.get(name).map(sender)) {
            channel.send_replace(());
        }
    }

    /// Whether `channel` is wanted.
    pub(crate) fn contains(&self, channel: &[u8]) -> bool {
        let known = std::str::from_utf8(channel).ok();
        known.is_some_and(|name| self.lock().channels.contains_key(name))
    }

    /// Makes the task check the connection and the table.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().channels.is_empty()
    }

    /// The next channels to subscribe, without those that are no longer wanted.
    pub(super) fn next_batch(&self) -> Vec<String> {
        let mut table = self.lock();
        let from = table.new.len().saturating_sub(MAX_BATCH);
        let mut batch = table.new.split_off(from);
        batch.retain(|name| table.channels.contains_key(name));
        batch
    }

    pub(super) fn requeue(&self, batch: Vec<String>) {
        self.lock().new.extend(batch);
    }

    /// After a reconnect, none of the old subscriptions exists.
    pub(super) fn resubscribe_all(&self) {
        let mut table = self.lock();
        table.new = table.channels.keys().cloned().collect();
    }

    pub(super) fn confirm(&self, batch: &[String]) {
        let table = self.lock();
        for channel in batch.iter().filter_map(|name| table.channels.get(name)) {
            channel.changes.send_replace(());
        }
    }

    /// Removes the channels without waiters for [`UNSUBSCRIBE_DELAY`].
    pub(super) fn sweep(&self, now: Instant) -> Vec<String> {
        let mut gone = Vec::new();
        self.lock().channels.retain(|name, channel| {
            if channel.changes.receiver_count() > 0 {
                channel.idle_since = None;
                return true;
            }
            let since = *channel.idle_since.get_or_insert(now);
            let keep = now.duration_since(since) < UNSUBSCRIBE_DELAY;
            if !keep {
                gone.push(name.clone());
            }
            keep
        });
        gone
    }

    fn lock(&self) -> MutexGuard<'_, ChannelTable> {
        // Nothing under this lock can panic half way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sender(channel: &Channel) -> watch::Sender<()> {
    channel.changes.clone()
}
