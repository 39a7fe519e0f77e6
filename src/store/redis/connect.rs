//! The three ways to connect, and the error of each for servers of another kind. A
//! failed attempt leaves no connection open.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::cmd;

use super::connection::command_error::CommandError;
use super::connection::connect_error::{invalid, of_server, unavailable};
use super::connection::connector::Connector;
use super::connection::login::ConnectOptions;
use super::connection::server::Server;
use super::connection::shared::SharedConnection;
use super::monitor::ServerMonitor;
use super::permissions;
use super::server_mode::{ServerMode, about};
use super::topology::cluster::Cluster;
use super::topology::node::Node;
use super::topology::primary::{PrimaryConnector, is_primary};
use super::topology::quorum::collect_answers;
use super::topology::routes::Routes;
use super::topology::sentinel::Sentinels;
use crate::error::Error;

/// How long to wait for the other nodes once one has accepted the login.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);

/// The servers of a store, checked and watched.
pub(super) struct Connected {
    pub(super) monitor: Arc<ServerMonitor>,
    /// For messages.
    pub(super) address: String,
}

/// Connects to one server.
pub(super) async fn to_server(url: &str, options: &ConnectOptions) -> Result<Connected, Error> {
    let server = Server::parse(url, options)?;
    server.warn_if_exposed();
    let address = server.address();
    let connector: Arc<dyn Connector> = Arc::new(server.clone());
    let connection = open(&server, connector.clone()).await?;
    match about(&connection).await? {
        ServerMode::Standalone | ServerMode::Unknown => {}
        ServerMode::ClusterNode => {
            return Err(invalid(
                "the server is a node of a cluster: use RedisStore::cluster",
            ));
        }
        ServerMode::Sentinel => {
            return Err(invalid(
                "the server is a sentinel: use RedisStore::sentinel",
            ));
        }
    }
    permissions::is_primary(&connection).await?;
    connected(
        Routes::One(Node::standalone(connection, connector)),
        address,
    )
    .await
}

/// Connects to the primary that the sentinels name.
pub(super) async fn to_primary(
    urls: &[String],
    primary: &str,
    options: &ConnectOptions,
) -> Result<Connected, Error> {
    let (sentinels, server) = Sentinels::connect(urls, primary, options).await?;
    let address = sentinels.to_string();
    server.warn_if_exposed();
    let what = format!("{address}, {}", server.address());
    // Not through the connector, so that the error can be diagnosed.
    let connector: Arc<dyn Connector> = Arc::new(PrimaryConnector(sentinels));
    let connection = open(&server, connector.clone())
        .await
        .map_err(|error| of_server(error, &what))?;
    match about(&connection)
        .await
        .map_err(|error| of_server(error, &what))?
    {
        ServerMode::Standalone | ServerMode::Unknown => {}
        ServerMode::ClusterNode | ServerMode::Sentinel => {
            return Err(invalid(format!("{what}: it is no single data server")));
        }
    }
    let role = connection.command(&cmd("ROLE")).await;
    is_primary(role).map_err(|reason| unavailable(format!("{what} {reason}")))?;
    connected(
        Routes::One(Node::standalone(connection, connector)),
        address,
    )
    .await
}

/// Connects to the primaries of a cluster.
pub(super) async fn to_cluster(
    urls: &[String],
    options: &ConnectOptions,
) -> Result<Connected, Error> {
    let seeds = urls
        .iter()
        .map(|url| Server::parse(url, options))
        .collect::<Result<Vec<_>, _>>()?;
    let first = seeds.first().ok_or_else(|| invalid("no url is given"))?;
    if seeds.iter().any(|seed| seed.database() != 0) {
        return Err(invalid("a cluster has database 0 only"));
    }
    if !seeds.iter().all(|seed| seed.logs_in_like(first)) {
        return Err(invalid(
            "the urls differ in user, password or TLS, and all nodes are logged in to alike",
        ));
    }
    seeds.iter().for_each(Server::warn_if_exposed);
    let asked = seeds.iter().map(|seed| async {
        let connection = open(seed, Arc::new(seed.clone())).await?;
        match about(&connection).await? {
            ServerMode::ClusterNode | ServerMode::Unknown => Ok(()),
            ServerMode::Standalone => Err(invalid(
                "the server is no node of a cluster: use RedisStore::connect",
            )),
            ServerMode::Sentinel => Err(invalid(
                "the server is a sentinel: use RedisStore::sentinel",
            )),
        }
    });
    let mut errors = Vec::new();
    let mut accepted = false;
    for (seed, answer) in seeds.iter().zip(collect_answers(asked, 1, GRACE).await) {
        match answer {
            Some(Ok(())) => accepted = true,
            Some(Err(error)) => errors.push(of_server(error, &seed.address())),
            None => {}
        }
    }
    if !accepted {
        // First the errors that only the caller can fix.
        errors.sort_by_key(|error| !matches!(error, Error::InvalidConfig { .. }));
        let no_answer = || unavailable("no node of the cluster answered".into());
        return Err(errors.into_iter().next().unwrap_or_else(no_answer));
    }
    for error in errors {
        let error = crate::error::chain(&error);
        tracing::warn!(error, "could not use a redis url");
    }
    let cluster = Cluster::connect(&seeds).await.map_err(of_map)?;
    let primaries = cluster.primaries();
    let reached = join_all(primaries.iter().map(|(_, connection)| connection.server())).await;
    // One shard might be down. With no reachable shard, connecting fails.
    if let Some(Err(failure)) = reached.iter().find(|reached| reached.is_err()) {
        let reason = format!("a primary of the cluster cannot be reached: {failure}");
        if reached.iter().all(Result::is_err) {
            return Err(unavailable(reason));
        }
        tracing::warn!(reason, "some keys have no server");
    }
    let address = format!("a cluster with {}", first.address());
    connected(Routes::Cluster(cluster), address).await
}

async fn connected(routes: Routes, address: String) -> Result<Connected, Error> {
    permissions::rights(&routes).await?;
    let monitor = Arc::new(ServerMonitor::new(routes));
    monitor.check_servers(true).await;
    Ok(Connected { monitor, address })
}

/// A shared connection whose first connection is to that server.
async fn open(server: &Server, connector: Arc<dyn Connector>) -> Result<SharedConnection, Error> {
    let no_subscriptions = Arc::default();
    match server.open(&no_subscriptions).await {
        Ok(first) => Ok(SharedConnection::with(connector, no_subscriptions, first)),
        Err(error) => Err(server.diagnose(error).await),
    }
}

/// The error for a cluster without a map.
fn of_map(failure: CommandError) -> Error {
    match failure.code() {
        Some("NOPERM") => invalid(format!(
            "the user may not ask for the map of the cluster: {failure}"
        )),
        _ => unavailable(failure.to_string()),
    }
}
