//! What `connect` makes sure of before it says that a store can be used: that the
//! server is a primary, runs scripts, and lets the user do what the store does.

use redis::cmd;

use super::failure::Failure;
use super::link::Link;
use super::place;
use super::routes::Routes;
use super::scripts::{self, Args};
use super::server::{invalid, unavailable};
use crate::error::{Error, RefusalKind};
use crate::telemetry::contained;

/// A key that no record has, numbered.
const PROBE: &str = "genesys-once:probe:";

/// Makes sure that a server is no replica.
///
/// # Errors
///
/// `Error::StoreUnavailable`: it may be promoted, or its address may lead elsewhere.
pub(super) async fn is_primary(link: &Link) -> Result<(), Error> {
    let role = link.command(&cmd("ROLE")).await;
    place::is_primary(role).map_err(|reason| {
        let address = link.address();
        unavailable(format!(
            "{address} {reason}; the url of its primary is needed"
        ))
    })
}

/// Makes sure of the rights of the user, at each server.
///
/// # Errors
///
/// `Error::InvalidConfig` for what is missing.
pub(super) async fn rights(routes: &Routes) -> Result<(), Error> {
    let Routes::Cluster(cluster) = routes else {
        return at(routes, &format!("{PROBE}0")).await;
    };
    for key in cluster.one_key_each(PROBE) {
        at(routes, &key).await?;
    }
    Ok(())
}

async fn at(routes: &Routes, key: &str) -> Result<(), Error> {
    let missing = match scripts::PROVE.run(routes, key, &Args::default()).await {
        Ok(missing) => redis::from_redis_value::<Vec<String>>(missing).unwrap_or_default(),
        Err(failure) if failure.refusal() == Some(RefusalKind::NotAllowed) => {
            return Err(invalid(format!("the user may not run scripts: {failure}")));
        }
        Err(Failure::Server { text, .. }) if text.contains("unknown command") => {
            return Err(invalid(format!("the server runs no scripts: {text}")));
        }
        // A server that is away, or takes no writes at the moment, proves nothing.
        Err(_) => return Ok(()),
    };
    let (notices, needed): (Vec<_>, Vec<_>) = missing
        .iter()
        .partition(|command| command.ends_with("PUBLISH"));
    if !needed.is_empty() {
        let needed = needed.iter().map(|command| command.as_str());
        return Err(invalid(format!(
            "the user may not run {} on keys that begin with \"genesys-once:\"",
            needed.collect::<Vec<_>>().join(", ")
        )));
    }
    if !notices.is_empty() {
        contained(|| {
            tracing::warn!("the redis user may not publish: waiters learn of outcomes by polling");
        });
    }
    Ok(())
}
