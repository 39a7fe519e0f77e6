//! How to connect to one node of a cluster. It never accepts another node at the
//! same address.

use std::sync::Arc;

use redis::cmd;

use super::slots::node_id;
use crate::store::BoxFuture;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::connect_error::ConnectError;
use crate::store::redis::connection::connector::{Connector, identify};
use crate::store::redis::connection::monitored_stream::Traffic;
use crate::store::redis::connection::runtime::StoreRuntime;
use crate::store::redis::connection::server::{OpenedConnection, Server};
use crate::store::redis::connection::subscriptions::Subscriptions;

/// Connects to the node with this id.
pub(crate) struct MemberConnector {
    pub(crate) server: Server,
    pub(crate) id: String,
}

impl Connector for MemberConnector {
    fn address(&self) -> String {
        self.server.address()
    }

    fn host(&self) -> String {
        self.server.host().to_owned()
    }

    fn runtime(&self) -> &StoreRuntime {
        self.server.runtime()
    }

    fn open<'a>(
        &'a self,
        traffic: Traffic,
        subscriptions: &'a Arc<Subscriptions>,
    ) -> BoxFuture<'a, Result<OpenedConnection, ConnectError>> {
        Box::pin(async move {
            let opened = self.server.open_for(traffic, subscriptions).await?;
            let mut question = cmd("CLUSTER");
            question.arg("MYID");
            let address = self.server.address();
            match identify(&opened, &question).await.map(node_id) {
                Ok(Some(id)) if id != self.id => Err(ConnectError::NoPrimary(format!(
                    "{address} has another node id than in the map of the cluster"
                ))),
                Err(failure @ (CommandError::Lost(_) | CommandError::Unsent(_))) => {
                    Err(ConnectError::NoPrimary(format!("{address}: {failure}")))
                }
                // A user without the right to ask relies on the address.
                _ => Ok(opened),
            }
        })
    }
}
