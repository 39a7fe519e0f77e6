//! What `connect` checks before it returns a store: that the server is a primary, runs
//! scripts, and permits the user the commands of the store. It changes no key.

use std::collections::HashMap;

use redis::cmd;

use super::connection::command_error::CommandError;
use super::connection::connect_error::{invalid, unavailable};
use super::connection::shared::SharedConnection;
use super::protocol::scripts::{self, ScriptArgs};
use super::topology::primary;
use super::topology::routes::Routes;
use crate::error::{Error, RefusalKind};
use crate::telemetry::contained;

/// A key that no record has, numbered.
const PROBE: &str = "genesys-once:probe:";

/// Checks that a server is no replica.
///
/// # Errors
///
/// `Error::StoreUnavailable`: the replica might be promoted later.
pub(super) async fn is_primary(connection: &SharedConnection) -> Result<(), Error> {
    let role = connection.command(&cmd("ROLE")).await;
    primary::is_primary(role).map_err(|reason| {
        let address = connection.address();
        unavailable(format!(
            "{address} {reason}; the url of its primary is needed"
        ))
    })
}

/// Checks the rights of the user at each server.
///
/// # Errors
///
/// `Error::InvalidConfig` for what is missing.
pub(super) async fn rights(routes: &Routes) -> Result<(), Error> {
    let Routes::Cluster(cluster) = routes else {
        return at(routes, &format!("{PROBE}0")).await;
    };
    for key in cluster.one_key_per_primary(PROBE) {
        at(routes, &key).await?;
    }
    Ok(())
}

/// One key that no record has at each primary, by the address of its connection.
pub(super) fn keys(routes: &Routes) -> HashMap<String, String> {
    let of = |key: String| Some((routes.connection(&key).ok()?.address(), key));
    match routes {
        Routes::One(_) => of(format!("{PROBE}0")).into_iter().collect(),
        Routes::Cluster(cluster) => cluster
            .one_key_per_primary(PROBE)
            .into_iter()
            .filter_map(of)
            .collect(),
    }
}

/// The commands that the store needs and the user may not run, at the server of `key`.
///
/// # Errors
///
/// Where the script does not run.
pub(super) async fn missing(routes: &Routes, key: &str) -> Result<Vec<String>, CommandError> {
    let missing = scripts::PERMISSIONS
        .run(routes, key, &ScriptArgs::default())
        .await?;
    Ok(redis::from_redis_value(missing).unwrap_or_default())
}

async fn at(routes: &Routes, key: &str) -> Result<(), Error> {
    let missing = match missing(routes, key).await {
        Ok(missing) => missing,
        Err(failure) if failure.refusal() == Some(RefusalKind::NotAllowed) => {
            return Err(invalid(format!("the user may not run scripts: {failure}")));
        }
        Err(CommandError::Server { text, .. }) if text.contains("unknown command") => {
            return Err(invalid(format!("the server runs no scripts: {text}")));
        }
        // A server that is away, or accepts no writes for now, gives no result.
        Err(_) => return Ok(()),
    };
    let (subscriptions, needed): (Vec<_>, Vec<_>) = missing
        .iter()
        .partition(|command| command.ends_with("PUBLISH"));
    if !needed.is_empty() {
        let needed = needed.iter().map(|command| command.as_str());
        return Err(invalid(format!(
            "the user may not run {} on keys that begin with \"genesys-once:\"",
            needed.collect::<Vec<_>>().join(", ")
        )));
    }
    if !subscriptions.is_empty() {
        contained(|| {
            tracing::warn!("the redis user may not publish: waiters learn of outcomes by polling");
        });
    }
    Ok(())
}
