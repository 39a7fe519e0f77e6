//! The marker of a shard: one small key for each namespace, with the minimum version of
//! engines that may acquire keys there. Another id than before means that the shard has
//! lost its records; the monitor decides what follows.

use super::scripts::{self, ScriptArgs};
use crate::error::StoreError;
use crate::key::Namespace;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::transport::Transport;
use crate::store::redis::topology::routes::Routes;

/// The marker of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The minimum version of writers.
    pub(crate) min_version: u32,
    /// Random, set when the marker is made, and never changed.
    pub(crate) id: String,
    pub(crate) state: MarkerState,
}

/// Whether the shard lost its records before the marker was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkerState {
    /// The shard was new.
    New,
    /// A store that refuses emptied servers has seen another marker before.
    Emptied,
    /// An operator has accepted the loss.
    Accepted,
}

/// What an update does to a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkerUpdate<'a> {
    /// Nothing.
    Read,
    /// Marks the shard as emptied where the marker has another id than this, unless an
    /// operator has accepted that.
    Refuse(&'a str),
    /// Marks the loss as accepted. Returns the state before.
    Accept,
}

/// The keys of the markers, one in each shard. No record has such a key.
pub(crate) fn keys(routes: &Routes, namespace: &Namespace) -> Vec<String> {
    let prefix = format!("genesys-once:{namespace}:shard:");
    match routes {
        Routes::One(_) => vec![format!("{prefix}0")],
        Routes::Cluster(cluster) => cluster.one_key_per_primary(&prefix),
    }
}

/// Reads a marker, or makes it, and raises its minimum version to `at_least`.
pub(crate) async fn update(
    transport: &impl Transport,
    key: &str,
    at_least: u32,
    update: MarkerUpdate<'_>,
) -> Result<Marker, StoreError> {
    let new = format!("{:016x}", fastrand::u64(..));
    let args = ScriptArgs::default().word(at_least).word(new.as_str());
    let args = match update {
        MarkerUpdate::Read => args.word("look").word(""),
        MarkerUpdate::Refuse(known) => args.word("refuse").word(known),
        MarkerUpdate::Accept => args.word("accept").word(""),
    };
    let reply = scripts::MARKER.run(transport, key, &args).await?;
    let (min_version, id, state): (u32, String, String) =
        redis::from_redis_value::<_>(reply).map_err(|_| CommandError::unexpected())?;
    let state = match state.as_str() {
        "emptied" => MarkerState::Emptied,
        "accepted" => MarkerState::Accepted,
        _ => MarkerState::New,
    };
    Ok(Marker {
        min_version,
        id,
        state,
    })
}
