//! Where a link leads: to one server, or to whichever server the sentinels call
//! the primary at that moment. It never goes on to a server that says that it
//! is a replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Value, cmd};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::notices::Notices;
use super::sentinel::Sentinels;
use super::server::{DialError, Dialled, Server};

/// How often the sentinels are asked whether the primary is still the same: for
/// so long, and one answer longer, a primary that was replaced without noticing
/// may be written to.
const CHECK: Duration = Duration::from_secs(1);

/// How long a new primary may take to say that it is one.
const ROLE: Duration = Duration::from_secs(1);

/// Where a link leads.
#[derive(Clone)]
pub(super) enum Place {
    /// To this server.
    Server(Server),
    /// To the primary that these sentinels watch.
    Primary(Arc<Sentinels>),
}

impl Place {
    /// For messages.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Server(server) => server.address(),
            Self::Primary(sentinels) => sentinels.to_string(),
        }
    }

    /// Connects and logs in; `notices` is told what the server pushes.
    pub(super) async fn dial(&self, notices: &Arc<Notices>) -> Result<Dialled, DialError> {
        let sentinels = match self {
            Self::Server(server) => return server.dial(notices).await,
            Self::Primary(sentinels) => sentinels,
        };
        let server = sentinels.find().await.map_err(DialError::NoPrimary)?;
        let address = server.address();
        // The address belongs into these messages, and the link knows the name only.
        let dialled = server.dial(notices).await.map_err(|error| {
            DialError::NoPrimary(format!("{sentinels}: {}", error.at(&address)))
        })?;
        let mut connection = dialled.connection.clone();
        let role = cmd("ROLE");
        let role = timeout(ROLE, connection.send_packed_command(&role)).await;
        let role = match role {
            Ok(reply) => reply.map_err(Failure::from).and_then(Failure::or_reply),
            Err(_) => Err(Failure::Lost("does not answer".into())),
        };
        is_primary(role)
            .map_err(|reason| DialError::NoPrimary(format!("{sentinels}: {address} {reason}")))?;
        Ok(dialled)
    }

    /// Closes a connection when the sentinels name another primary than the
    /// server it leads to. An old primary that is cut off from its sentinels,
    /// but not from us, would take writes that nobody will ever see.
    pub(super) fn watch(
        &self,
        server: &Server,
        closed: &Arc<AtomicBool>,
        notices: &Arc<Notices>,
    ) -> Option<JoinHandle<()>> {
        let Self::Primary(sentinels) = self else {
            return None;
        };
        let (sentinels, closed, notices) = (sentinels.clone(), closed.clone(), notices.clone());
        let address = server.address();
        Some(tokio::spawn(async move {
            loop {
                sleep(CHECK).await;
                if let Ok(primary) = sentinels.find().await
                    && primary.address() != address
                {
                    closed.store(true, Ordering::Release);
                    notices.wake();
                    // A subscriber is foreign: it is told last, and may panic.
                    tracing::info!(
                        from = address,
                        to = primary.address(),
                        "{sentinels} has moved"
                    );
                    return;
                }
            }
        }))
    }
}

/// What a server says of its `ROLE`: a fail-over may be under way, so that the
/// sentinels' word is not enough. A user who may not ask has to do with it.
pub(super) fn is_primary(role: Result<Value, Failure>) -> Result<(), String> {
    match role {
        Ok(Value::Array(role)) => match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(()),
            _ => Err("is a replica".into()),
        },
        Ok(_) | Err(Failure::Server { .. }) => Ok(()),
        Err(failure) => Err(failure.to_string()),
    }
}
