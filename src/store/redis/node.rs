//! One server that a store uses: its connections for commands, and who waits for
//! notices from it. It listens from the first wait on, and ends with its last owner.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::attempt::AbortOnDrop;
use super::carrier::Lane;
use super::failure::Failure;
use super::link::{DEADLINE, Link};
use super::notices::{self, Channels, Notices};
use super::place::Place;
use super::pool::Pool;
use super::server::Server;
use super::wire::Load;

/// Connections for large bodies, and so bodies under way at once.
const BODIES: usize = 4;

/// Connections for transitions that wait for replicas.
const COPIES: usize = 16;

/// How long a transition waits for one of them.
const TURN: Duration = Duration::from_secs(1);

/// How long a body may be under way, from its turn to its last byte.
pub(super) const TRANSFER: Duration = Duration::from_secs(60);

/// A server, or the primary that sentinels name.
pub(super) struct Node {
    pub(super) link: Link,
    bodies: Pool,
    copies: Pool,
    /// Where notices come in; it connects with the first wait.
    ears: Link,
    notices: Arc<Notices>,
    channels: Channels,
    /// Runs from the first wait on.
    listener: Mutex<Option<AbortOnDrop>>,
}

impl Node {
    /// One server for everything, or the primary that sentinels name.
    pub(super) fn alone(link: Link, place: Place) -> Self {
        Self::with(link, place, Channels::Ordinary)
    }

    /// A node of a cluster, with the id that it has there if that is known.
    pub(super) fn in_cluster(server: &Server, id: Option<&str>) -> Self {
        let place = match id {
            Some(id) => Place::Member(server.clone(), id.into()),
            None => Place::Server(server.clone()),
        };
        let link = Link::new(place.clone(), Arc::default());
        Self::with(link, place, Channels::OfShards)
    }

    /// Notices have a connection of their own: a server counts one that listens
    /// as a client of pub/sub, whose replies it limits and cuts, and takes
    /// subscriptions back unasked, which redis-rs takes for the reply to a command.
    fn with(link: Link, place: Place, channels: Channels) -> Self {
        let notices = Arc::new(Notices::default());
        Self {
            link,
            bodies: Pool::new(BODIES, Load::Bodies),
            copies: Pool::new(COPIES, Load::Commands),
            ears: Link::new(place, notices.clone()),
            notices,
            channels,
            listener: Mutex::new(None),
        }
    }

    /// Sends commands in one go; the replies come as they are.
    pub(super) async fn send(
        &self,
        lane: Lane<'_>,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, Failure> {
        let link = &self.link;
        match lane {
            Lane::Shared => link.send(commands).await,
            Lane::Bodies(line) => {
                let sent = Box::pin(self.bodies.send_while_moving(link, commands, line));
                let late = |_| Err(Failure::Lost("the body was not through in time".into()));
                timeout(TRANSFER, sent).await.unwrap_or_else(late)
            }
            Lane::Copies(wait) => {
                let sent = self.copies.send(link, commands, TURN, DEADLINE + wait);
                Box::pin(sent).await
            }
        }
    }

    /// How long [`send`](Self::send) may take by that lane.
    pub(super) fn limit(lane: Lane<'_>) -> Duration {
        match lane {
            Lane::Shared => DEADLINE,
            Lane::Bodies(_) => TRANSFER,
            Lane::Copies(wait) => TURN + 2 * DEADLINE + wait,
        }
    }

    /// Completes when something may have changed on that channel since the
    /// future was first polled.
    pub(super) async fn changed(&self, channel: String) {
        let mut changes = self.subscribe(channel);
        // An error would say that the channel is gone: reason to look, too.
        let _ = changes.changed().await;
    }

    /// What changes with each notice on that channel, and when it is subscribed.
    pub(super) fn subscribe(&self, channel: String) -> watch::Receiver<()> {
        let changes = self.notices.wait_for(channel);
        self.listen();
        changes
    }

    fn listen(&self) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        // Finished: the runtime that it ran on is gone.
        if listener.as_ref().is_none_or(|task| task.0.is_finished()) {
            let task = notices::listen(self.ears.clone(), self.notices.clone(), self.channels);
            *listener = self.ears.home().spawn(task);
        }
    }
}
