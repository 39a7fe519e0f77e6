//! The marker of a shard: one small key for each namespace, which says from which
//! version on engines may take keys there, and by its id that the shard still holds
//! what it held. It decides nothing: what another id means is for [`watch`] to say.
//!
//! [`watch`]: crate::store::redis::monitor

use super::scripts::{self, ScriptArgs};
use crate::error::StoreError;
use crate::key::Namespace;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::transport::Transport;
use crate::store::redis::topology::routes::Routes;

/// A marker as a shard holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The least version of writers.
    pub(crate) min_version: u32,
    /// Drawn when the marker was made, and never changed.
    pub(crate) id: String,
    pub(crate) state: MarkerState,
}

/// What is known of the loss of what the shard held before the marker was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkerState {
    /// Nothing: as far as the marker says, the shard was new.
    New,
    /// A store that refuses emptied servers has seen another marker there.
    Emptied,
    /// An operator has accepted the loss.
    Accepted,
}

/// What a look does to a marker besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkerUpdate<'a> {
    /// Nothing.
    Read,
    /// Marks the shard as emptied where the marker has another id than this, and
    /// no operator has accepted that.
    Refuse(&'a str),
    /// Marks the loss as accepted. What it returns is the state before.
    Accept,
}

/// The names of the markers: one in each shard. They are no record's.
pub(crate) fn keys(routes: &Routes, namespace: &Namespace) -> Vec<String> {
    let prefix = format!("genesys-once:{namespace}:shard:");
    match routes {
        Routes::One(_) => vec![format!("{prefix}0")],
        Routes::Cluster(cluster) => cluster.one_key_per_primary(&prefix),
    }
}

/// Reads a marker, which is made where there is none, and raises its least version
/// to `at_least`.
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
