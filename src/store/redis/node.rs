//! One server that a store uses: its commands, and who waits for notices from
//! it. It listens from the first wait on, and ends with its last owner.

use std::sync::{Arc, Mutex, PoisonError};

use super::link::{AbortOnDrop, Link};
use super::notices::{self, Channels, Notices};
use super::place::Place;
use super::server::Server;

/// A server, or the primary that sentinels name.
pub(super) struct Node {
    pub(super) link: Link,
    /// Where notices come in; the same link but in a cluster.
    ears: Link,
    notices: Arc<Notices>,
    channels: Channels,
    /// Runs from the first wait on.
    listener: Mutex<Option<AbortOnDrop>>,
}

impl Node {
    /// One server for everything, or the primary: notices share the connection.
    pub(super) fn alone(link: Link, notices: Arc<Notices>) -> Self {
        Self {
            ears: link.clone(),
            link,
            notices,
            channels: Channels::Ordinary,
            listener: Mutex::new(None),
        }
    }

    /// A node of a cluster. Notices have a connection of their own: a server
    /// that loses a shard takes its subscriptions back unasked, which redis-rs
    /// takes for the reply to somebody's command.
    pub(super) fn in_cluster(server: &Server) -> Self {
        let notices = Arc::new(Notices::default());
        let link = |notices| Link::new(Place::Server(server.clone()), notices);
        Self {
            link: link(Arc::default()),
            ears: link(notices.clone()),
            notices,
            channels: Channels::OfShards,
            listener: Mutex::new(None),
        }
    }

    /// Completes when something may have changed on that channel since the
    /// future was first polled.
    pub(super) async fn changed(&self, channel: String) {
        let mut changes = self.notices.wait_for(channel);
        self.listen();
        // An error would say that the channel is gone: reason to look, too.
        let _ = changes.changed().await;
    }

    fn listen(&self) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        // Finished: the runtime that it ran on is gone.
        if listener.as_ref().is_none_or(|task| task.0.is_finished()) {
            let task = notices::listen(self.ears.clone(), self.notices.clone(), self.channels);
            *listener = Some(AbortOnDrop(tokio::spawn(task)));
        }
    }
}
