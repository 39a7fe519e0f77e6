//! What kind of server answers: a single one, a cluster node or a sentinel, and
//! whether its version is supported. It only asks (`HELLO`).

use redis::{Value, cmd};

use super::connection::connect_error::{TOO_OLD, invalid, unavailable};
use super::connection::shared::SharedConnection;
use crate::error::Error;

/// The kind of a server.
pub(super) enum ServerMode {
    Standalone,
    ClusterNode,
    Sentinel,
    /// The server does not report it, or not to this user.
    Unknown,
}

/// Asks a server for its kind, and checks its version.
pub(super) async fn about(connection: &SharedConnection) -> Result<ServerMode, Error> {
    let reply = match connection.command(&cmd("HELLO")).await {
        Err(failure) if failure.code() == Some("NOPERM") => return Ok(ServerMode::Unknown),
        reply => reply.map_err(|failure| unavailable(failure.to_string()))?,
    };
    let Value::Map(pairs) = reply else {
        return Ok(ServerMode::Unknown);
    };
    let (mut version, mut mode) = (None, None);
    for pair in pairs {
        let (Value::BulkString(name), Value::BulkString(value)) = pair else {
            continue;
        };
        match name.as_slice() {
            b"version" => version = String::from_utf8(value).ok(),
            b"mode" => mode = String::from_utf8(value).ok(),
            _ => {}
        }
    }
    let major = version
        .as_deref()
        .and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    // A server without a version number counts as new enough.
    if let (Some(..7), Some(version)) = (major, version) {
        return Err(invalid(format!("{TOO_OLD}: it says {version}")));
    }
    Ok(match mode.as_deref() {
        Some("cluster") => ServerMode::ClusterNode,
        Some("sentinel") => ServerMode::Sentinel,
        Some(_) => ServerMode::Standalone,
        None => ServerMode::Unknown,
    })
}
