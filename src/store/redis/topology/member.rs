//! How to connect to one node of a cluster. It never accepts another node at the
//! same address.

use std::sync::Arc;

use redis::cmd;

use super::slots::node_id;
use crate::store::BoxFuture;
use crate::store::redis::connection::command_error::Failure;
use crate::store::redis::connection::connect_error::DialError;
use crate::store::redis::connection::connector::{Connector, identify};
use crate::store::redis::connection::monitored_stream::Load;
use crate::store::redis::connection::runtime::Home;
use crate::store::redis::connection::server::{Dialled, Server};
use crate::store::redis::connection::subscriptions::Notices;

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

    fn home(&self) -> &Home {
        self.server.home()
    }

    fn dial<'a>(
        &'a self,
        load: Load,
        notices: &'a Arc<Notices>,
    ) -> BoxFuture<'a, Result<Dialled, DialError>> {
        Box::pin(async move {
            let dialled = self.server.dial_for(load, notices).await?;
            let mut question = cmd("CLUSTER");
            question.arg("MYID");
            let address = self.server.address();
            match identify(&dialled, &question).await.map(node_id) {
                Ok(Some(id)) if id != self.id => Err(DialError::NoPrimary(format!(
                    "{address} has another node id than in the map of the cluster"
                ))),
                Err(failure @ (Failure::Lost(_) | Failure::Unsent(_))) => {
                    Err(DialError::NoPrimary(format!("{address}: {failure}")))
                }
                // A user without the right to ask relies on the address.
                _ => Ok(dialled),
            }
        })
    }
}
