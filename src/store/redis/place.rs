//! Where a link leads: to one server, or to whichever server the sentinels call
//! the primary at that moment. It never goes on to a server that says that it
//! is a replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::time::timeout;

use super::attempt::AbortOnDrop;
use super::chart;
use super::failure::Failure;
use super::home::Home;
use super::notices::Notices;
use super::sentinel::Sentinels;
use super::server::{DialError, Dialled, Server};
use super::wire::Load;

/// How long a new connection may take to say whom it leads to.
const ANSWER: Duration = Duration::from_secs(1);

/// Where a link leads.
#[derive(Clone)]
pub(super) enum Place {
    /// To this server.
    Server(Server),
    /// To this node of a cluster, by the id that it keeps: no other one is taken
    /// for it, whoever has its address by now.
    Member(Server, Arc<str>),
    /// To the primary that these sentinels watch.
    Primary(Arc<Sentinels>),
}

impl Place {
    /// For messages.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Server(server) | Self::Member(server, _) => server.address(),
            Self::Primary(sentinels) => sentinels.to_string(),
        }
    }

    /// Where background work for it runs.
    pub(super) fn home(&self) -> &Home {
        match self {
            Self::Server(server) | Self::Member(server, _) => server.home(),
            Self::Primary(sentinels) => sentinels.home(),
        }
    }

    /// Connects and logs in; `notices` is told what the server pushes.
    pub(super) async fn dial(
        &self,
        load: Load,
        notices: &Arc<Notices>,
    ) -> Result<Dialled, DialError> {
        let sentinels = match self {
            Self::Server(server) => return server.dial_for(load, notices).await,
            Self::Member(server, id) => return dial_member(server, id, load, notices).await,
            Self::Primary(sentinels) => sentinels,
        };
        sentinels.follow();
        let server = sentinels.find().await.map_err(DialError::NoPrimary)?;
        let address = server.address();
        // The address belongs into these messages, and the link knows the name only.
        let dialled = server.dial_for(load, notices).await.map_err(|error| {
            DialError::NoPrimary(format!("{sentinels}: {}", error.at(&address)))
        })?;
        let role = ask(&dialled, &cmd("ROLE")).await;
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
    ) -> Option<AbortOnDrop> {
        let Self::Primary(sentinels) = self else {
            return None;
        };
        let mut primary = sentinels.primary();
        let (closed, notices) = (closed.clone(), notices.clone());
        let address = server.address();
        self.home().spawn(async move {
            let moved = |now: &Option<String>| now.as_ref().is_some_and(|now| *now != address);
            // The sentinels end with the link.
            if primary.wait_for(moved).await.is_ok() {
                closed.store(true, Ordering::Release);
                notices.wake();
            }
        })
    }
}

/// Connects to a node of a cluster, and makes sure that it is the one.
async fn dial_member(
    server: &Server,
    id: &str,
    load: Load,
    notices: &Arc<Notices>,
) -> Result<Dialled, DialError> {
    let dialled = server.dial_for(load, notices).await?;
    let mut who = cmd("CLUSTER");
    who.arg("MYID");
    // A user without the right to ask has to do with the address.
    match ask(&dialled, &who).await.map(chart::id) {
        Ok(Some(other)) if other != id => Err(DialError::NoPrimary(format!(
            "{} is another node than the cluster had there",
            server.address()
        ))),
        Err(failure @ (Failure::Lost(_) | Failure::Unsent(_))) => Err(DialError::NoPrimary(
            format!("{}: {failure}", server.address()),
        )),
        _ => Ok(dialled),
    }
}

/// One question on a fresh connection.
async fn ask(dialled: &Dialled, question: &Cmd) -> Result<Value, Failure> {
    let mut connection = dialled.connection.clone();
    match timeout(ANSWER, connection.send_packed_command(question)).await {
        Ok(reply) => reply.map_err(Failure::from).and_then(Failure::or_reply),
        Err(_) => Err(Failure::Lost("does not answer".into())),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Red where a server that does not answer is taken for the primary: with `Ok` for
    /// any failure, and for any role; and where one that may not be asked is not.
    #[test]
    fn server_that_is_silent_about_its_role_is_no_primary() {
        let role = |role: &str| Ok(Value::Array(vec![Value::BulkString(role.into())]));
        let refused = Failure::Server {
            code: "NOPERM".into(),
            text: "NOPERM User app has no permissions".into(),
        };
        assert_eq!(is_primary(role("master")), Ok(()));
        assert_eq!(is_primary(Err(refused)), Ok(()));
        assert_eq!(is_primary(role("slave")), Err("is a replica".into()));
        let silent = Failure::Lost("does not answer".into());
        assert_eq!(is_primary(Err(silent)), Err("does not answer".into()));
    }
}
