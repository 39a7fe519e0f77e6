//! How to connect to the primary that sentinels name. It never accepts a server
//! that reports itself as a replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Value, cmd};

use super::sentinel::Sentinels;
use crate::store::BoxFuture;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::connect_error::ConnectError;
use crate::store::redis::connection::connector::{Connector, identify};
use crate::store::redis::connection::monitored_stream::Traffic;
use crate::store::redis::connection::runtime::{AbortOnDrop, StoreRuntime};
use crate::store::redis::connection::server::{OpenedConnection, Server};
use crate::store::redis::connection::subscriptions::Subscriptions;

/// Connects to the current primary.
pub(crate) struct PrimaryConnector(pub(crate) Arc<Sentinels>);

impl Connector for PrimaryConnector {
    fn address(&self) -> String {
        self.0.to_string()
    }

    fn host(&self) -> String {
        String::new()
    }

    fn runtime(&self) -> &StoreRuntime {
        self.0.runtime()
    }

    fn open<'a>(
        &'a self,
        traffic: Traffic,
        subscriptions: &'a Arc<Subscriptions>,
    ) -> BoxFuture<'a, Result<OpenedConnection, ConnectError>> {
        let sentinels = &self.0;
        Box::pin(async move {
            sentinels.follow();
            let server = sentinels.find().await.map_err(ConnectError::NoPrimary)?;
            let address = server.address();
            // These messages need the address: the connection knows only the name.
            let opened = server
                .open_for(traffic, subscriptions)
                .await
                .map_err(|error| {
                    ConnectError::NoPrimary(format!("{sentinels}: {}", error.at(&address)))
                })?;
            let role = identify(&opened, &cmd("ROLE")).await;
            is_primary(role).map_err(|reason| {
                ConnectError::NoPrimary(format!("{sentinels}: {address} {reason}"))
            })?;
            Ok(opened)
        })
    }

    /// An old primary that is cut off from its sentinels, but not from this process,
    /// would accept writes that are lost when it rejoins.
    fn watch(
        &self,
        server: &Server,
        closed: &Arc<AtomicBool>,
        subscriptions: &Arc<Subscriptions>,
    ) -> Option<AbortOnDrop> {
        let mut primary = self.0.primary();
        let (closed, subscriptions) = (closed.clone(), subscriptions.clone());
        let address = server.address();
        self.runtime().spawn(async move {
            let moved = |now: &Option<String>| now.as_ref().is_some_and(|now| *now != address);
            // An error means that the sentinels are dropped, and the connection with them.
            if primary.wait_for(moved).await.is_ok() {
                closed.store(true, Ordering::Release);
                subscriptions.wake();
            }
        })
    }
}

/// Reads a reply to `ROLE`. The sentinels' answer is not enough, since a fail-over
/// might be in progress. A user without the right to ask relies on the address.
pub(crate) fn is_primary(role: Result<Value, CommandError>) -> Result<(), String> {
    match role {
        Ok(Value::Array(role)) => match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(()),
            _ => Err("is a replica".into()),
        },
        Ok(_) | Err(CommandError::Server { .. }) => Ok(()),
        Err(failure) => Err(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red where a server that does not answer counts as the primary: with `Ok` for any
    /// failure, and for any role; and where a server that refuses the question does not.
    #[test]
    fn server_without_answer_is_no_primary() {
        let role = |role: &str| Ok(Value::Array(vec![Value::BulkString(role.into())]));
        let refused = CommandError::Server {
            code: "NOPERM".into(),
            text: "NOPERM User app has no permissions".into(),
        };
        assert_eq!(is_primary(role("master")), Ok(()));
        assert_eq!(is_primary(Err(refused)), Ok(()));
        assert_eq!(is_primary(role("slave")), Err("is a replica".into()));
        let silent = CommandError::Lost("does not answer".into());
        assert_eq!(is_primary(Err(silent)), Err("does not answer".into()));
    }
}
