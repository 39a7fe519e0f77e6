//! One server that a store uses: its connections for commands, and who waits for
//! notices from it. It listens from the first wait on, and ends with its last owner.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::member::MemberConnector;
use crate::store::redis::connection::command_error::Failure;
use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::monitored_stream::Load;
use crate::store::redis::connection::pool::Pool;
use crate::store::redis::connection::runtime::AbortOnDrop;
use crate::store::redis::connection::server::Server;
use crate::store::redis::connection::shared::{DEADLINE, Link};
use crate::store::redis::connection::subscriber::{self, Channels};
use crate::store::redis::connection::subscriptions::Notices;
use crate::store::redis::connection::transport::Lane;

/// Connections for large bodies, and so bodies under way at once.
const BODIES: usize = 4;

/// Connections for transitions that wait for replicas.
const COPIES: usize = 16;

/// How long a transition waits for one of them.
const TURN: Duration = Duration::from_secs(1);

/// How long a body may be under way, from its turn to its last byte.
pub(crate) const TRANSFER: Duration = Duration::from_secs(60);

/// A server, or the primary that sentinels name.
pub(crate) struct Node {
    pub(crate) link: Link,
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
    pub(crate) fn alone(link: Link, place: Arc<dyn Connector>) -> Self {
        Self::with(link, place, Channels::Ordinary)
    }

    /// A node of a cluster, with the id that it has there if that is known.
    pub(crate) fn in_cluster(server: &Server, id: Option<&str>) -> Self {
        let server = server.clone();
        let place: Arc<dyn Connector> = match id {
            Some(id) => Arc::new(MemberConnector {
                server,
                id: id.to_owned(),
            }),
            None => Arc::new(server),
        };
        let link = Link::new(place.clone(), Arc::default());
        Self::with(link, place, Channels::OfShards)
    }

    /// Notices have a connection of their own: a server counts one that listens
    /// as a client of pub/sub, whose replies it limits and cuts, and takes
    /// subscriptions back unasked, which redis-rs takes for the reply to a command.
    fn with(link: Link, place: Arc<dyn Connector>, channels: Channels) -> Self {
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
    pub(crate) async fn send(
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
    pub(crate) fn limit(lane: Lane<'_>) -> Duration {
        match lane {
            Lane::Shared => DEADLINE,
            Lane::Bodies(_) => TRANSFER,
            Lane::Copies(wait) => TURN + 2 * DEADLINE + wait,
        }
    }

    /// Completes when something may have changed on that channel since the
    /// future was first polled.
    pub(crate) async fn changed(&self, channel: String) {
        let mut changes = self.subscribe(channel);
        // An error would say that the channel is gone: reason to look, too.
        let _ = changes.changed().await;
    }

    /// What changes with each notice on that channel, and when it is subscribed.
    pub(crate) fn subscribe(&self, channel: String) -> watch::Receiver<()> {
        let changes = self.notices.wait_for(channel);
        self.listen();
        changes
    }

    fn listen(&self) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        // Finished: the runtime that it ran on is gone.
        if listener.as_ref().is_none_or(|task| task.0.is_finished()) {
            let task = subscriber::listen(self.ears.clone(), self.notices.clone(), self.channels);
            *listener = self.ears.home().spawn(task);
        }
    }
}
