//! The sentinels of one primary, and the server that most of them name. A single sentinel
//! names no new server, and the store sends no password to a server that only one names.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::select_all;
use redis::{Value, cmd};
use tokio::sync::watch;
use tokio::time::sleep;

use super::node::Node;
use super::quorum::collect_answers;
use crate::error::Error;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::connect_error::{invalid, of_server, unavailable};
use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::login::ConnectOptions;
use crate::store::redis::connection::runtime::{AbortOnDrop, StoreRuntime};
use crate::store::redis::connection::server::Server;
use crate::store::redis::connection::shared::SharedConnection;
use crate::telemetry;

/// How often to ask for the primary without a notification. For this time and that of one
/// answer, the store might write to a primary that has been replaced.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The channel on which a sentinel announces another primary.
const SWITCHED: &str = "+switch-master";

/// How long to wait for the other sentinels once most have answered.
const GRACE: Duration = Duration::from_millis(250);

/// The same for a new connection to each, at `connect`.
const DIAL_GRACE: Duration = Duration::from_secs(1);

/// The sentinels that watch one primary.
pub(crate) struct Sentinels {
    primary: String,
    /// The login for the servers that they name.
    login: Server,
    sentinels: Vec<Node>,
    /// The address that was named last.
    primary_now: watch::Sender<Option<String>>,
    follow: Mutex<Option<AbortOnDrop>>,
}

/// Why a sentinel names no primary.
enum NoVote {
    /// It does not know the name.
    UnknownName(String),
    /// It is a data server.
    DataServer(String),
    /// It does not answer, or its answer is invalid.
    Unreachable(String),
    /// It names a server that too few others name.
    Outvoted(String),
}

impl Sentinels {
    /// Connects to the sentinels and asks them for the primary.
    ///
    /// # Errors
    ///
    /// Those of `RedisStore::sentinel`.
    pub(crate) async fn connect(
        urls: &[String],
        primary: &str,
        options: &ConnectOptions,
    ) -> Result<(Arc<Self>, Server), Error> {
        // A primary given as a url has its own login.
        let of_sentinels = match primary.contains("://") {
            true => &options.without_login(),
            false => options,
        };
        let servers = urls
            .iter()
            .map(|url| Server::parse(url, of_sentinels))
            .collect::<Result<Vec<_>, _>>()?;
        let first = servers.first().ok_or_else(|| invalid("no url is given"))?;
        if servers.iter().any(|server| server.database() != 0) {
            return Err(invalid(
                "a sentinel has no databases; the primary's is named so: redis://NAME/1",
            ));
        }
        // Otherwise it has the login of the sentinels.
        let (primary, login) = match primary.split_once("://") {
            Some(_) => {
                let login = Server::parse(primary, options)?;
                (login.host().to_owned(), login)
            }
            None => (primary.to_owned(), first.clone()),
        };
        if primary.is_empty() {
            return Err(invalid("the primary has no name"));
        }
        servers.iter().for_each(Server::warn_if_exposed);
        let (links, errors) = open_all(&servers).await;
        let sentinels = Arc::new(Self {
            primary,
            login,
            sentinels: links,
            primary_now: watch::Sender::new(None),
            follow: Mutex::new(None),
        });
        match sentinels.ask_all().await {
            Ok(server) => {
                for error in errors {
                    tracing::warn!(
                        error = crate::error::chain(&error),
                        "could not use a redis sentinel"
                    );
                }
                sentinels.follow();
                Ok((sentinels, server))
            }
            Err(failures) => Err(sentinels.to_error(&failures, errors)),
        }
    }

    /// Where background work runs.
    pub(crate) fn runtime(&self) -> &StoreRuntime {
        self.login.runtime()
    }

    /// Starts the task that asks again, unless it is running.
    pub(crate) fn follow(self: &Arc<Self>) {
        let mut task = self.follow.lock().unwrap_or_else(PoisonError::into_inner);
        // A finished task means that its runtime has ended.
        if task.as_ref().is_none_or(|task| task.0.is_finished()) {
            *task = self.runtime().spawn(follow(Arc::downgrade(self)));
        }
    }

    /// The primary that most of them name, or why there is none.
    pub(crate) async fn find(&self) -> Result<Server, String> {
        self.ask_all()
            .await
            .map_err(|failures| self.reason(&failures))
    }

    /// The address that was named last, and each later one.
    pub(crate) fn primary(&self) -> watch::Receiver<Option<String>> {
        self.primary_now.subscribe()
    }

    async fn ask_all(&self) -> Result<Server, Vec<NoVote>> {
        let most = self.sentinels.len() / 2 + 1;
        let asked = self.sentinels.iter().map(|node| self.ask(&node.connection));
        let mut votes: Vec<(Server, usize)> = Vec::new();
        let mut failures = Vec::new();
        for answer in collect_answers(asked, most, GRACE)
            .await
            .into_iter()
            .flatten()
        {
            match answer {
                Ok(server) => {
                    let address = server.address();
                    match votes.iter_mut().find(|vote| vote.0.address() == address) {
                        Some(vote) => vote.1 += 1,
                        None => votes.push((server, 1)),
                    }
                }
                Err(why) => failures.push(why),
            }
        }
        let answered: usize = votes.iter().map(|vote| vote.1).sum();
        votes.sort_by_key(|vote| std::cmp::Reverse(vote.1));
        match votes.first() {
            Some((server, count))
                if *count >= most || *count == answered && self.is_trusted(server) =>
            {
                let address = Some(server.address());
                self.primary_now.send_if_modified(|now| {
                    let moved = *now != address;
                    *now = address;
                    moved
                });
                Ok(server.clone())
            }
            _ => {
                failures.extend(votes.into_iter().map(|(server, count)| {
                    NoVote::Outvoted(format!(
                        "{count} of {} name {}",
                        self.sentinels.len(),
                        server.address()
                    ))
                }));
                Err(failures)
            }
        }
    }

    /// Whether a server is accepted although too few sentinels name it: it was the primary
    /// before, or no primary is known yet and there is no password to leak.
    fn is_trusted(&self, server: &Server) -> bool {
        match &*self.primary_now.borrow() {
            Some(known) => *known == server.address(),
            None => !self.login.has_password(),
        }
    }

    async fn ask(&self, connection: &SharedConnection) -> Result<Server, NoVote> {
        let silent =
            |reason: &str| NoVote::Unreachable(format!("{}: {reason}", connection.address()));
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
        let address = match connection.command(&question).await {
            Ok(Value::Nil) => return Err(NoVote::UnknownName(connection.address())),
            Ok(address) => address,
            Err(CommandError::Server { text, .. }) if text.contains("unknown command") => {
                return Err(NoVote::DataServer(connection.address()));
            }
            Err(failure) => return Err(silent(&failure.to_string())),
        };
        let unreadable = || silent("malformed answer: expected host and port");
        let (host, port): (String, u16) =
            redis::from_redis_value(address).map_err(|_| unreadable())?;
        self.login.at(&host, port).map_err(|_| unreadable())
    }

    fn reason(&self, failures: &[NoVote]) -> String {
        let reasons: Vec<_> = failures
            .iter()
            .map(|failures| match failures {
                NoVote::UnknownName(address) => format!("{address} does not know it"),
                NoVote::DataServer(address) => format!("{address} is no sentinel"),
                NoVote::Unreachable(reason) | NoVote::Outvoted(reason) => reason.clone(),
            })
            .collect();
        let reasons = reasons.join("; ");
        match failures
            .iter()
            .any(|failures| matches!(failures, NoVote::Outvoted(_)))
        {
            true => format!("too few sentinels agree on {self}: {reasons}"),
            false => format!("no sentinel names {self}: {reasons}"),
        }
    }

    /// The error for the caller of `sentinel`: first those that only the caller can fix.
    fn to_error(&self, failures: &[NoVote], errors: Vec<Error>) -> Error {
        if failures
            .iter()
            .any(|failures| matches!(failures, NoVote::Outvoted(_)))
        {
            return unavailable(self.reason(failures));
        }
        for failures in failures {
            match failures {
                NoVote::UnknownName(address) => {
                    return invalid(format!(
                        "the sentinel {address} watches no primary named {:?}",
                        self.primary
                    ));
                }
                NoVote::DataServer(address) => {
                    return invalid(format!(
                        "{address} is a data server, not a sentinel: use RedisStore::connect, or the urls of its sentinels"
                    ));
                }
                NoVote::Unreachable(_) | NoVote::Outvoted(_) => {}
            }
        }
        let (wrong, absent): (Vec<_>, Vec<_>) = errors
            .into_iter()
            .partition(|error| matches!(error, Error::InvalidConfig { .. }));
        wrong
            .into_iter()
            .chain(absent)
            .next()
            .unwrap_or_else(|| unavailable(self.reason(failures)))
    }
}

/// A node for each sentinel, and the errors of those that could not be reached.
async fn open_all(servers: &[Server]) -> (Vec<Node>, Vec<Error>) {
    let no_subscriptions = Arc::default();
    let opened = servers.iter().map(|server| server.open(&no_subscriptions));
    let most = servers.len() / 2 + 1;
    let opened = collect_answers(opened, most, DIAL_GRACE).await;
    let mut errors = Vec::new();
    let mut nodes = Vec::new();
    for (server, opened) in servers.iter().zip(opened) {
        let connector: Arc<dyn Connector> = Arc::new(server.clone());
        let connection = match opened {
            Some(Ok(first)) => {
                SharedConnection::with(connector.clone(), no_subscriptions.clone(), first)
            }
            failed => {
                if let Some(Err(error)) = failed {
                    let error = server.diagnose(error).await;
                    let sentinel = format!("the sentinel {}", server.address());
                    errors.push(of_server(error, &sentinel));
                }
                SharedConnection::new(connector.clone(), no_subscriptions.clone())
            }
        };
        nodes.push(Node::standalone(connection, connector));
    }
    (nodes, errors)
}

/// Asks for the primary with each notification and every [`CHECK_INTERVAL`], for as long as
/// the store lives.
async fn follow(sentinels: Weak<Sentinels>) {
    let mut switched: Vec<_> = match sentinels.upgrade() {
        Some(sentinels) => {
            let nodes = sentinels.sentinels.iter();
            nodes.map(|node| node.subscribe(SWITCHED.into())).collect()
        }
        None => return,
    };
    loop {
        // An error means that the store is dropped.
        let switch = select_all(switched.iter_mut().map(|node| Box::pin(node.changed())));
        tokio::select! {
            _ = switch => {}
            () = sleep(CHECK_INTERVAL) => {}
        }
        let Some(sentinels) = sentinels.upgrade() else {
            return;
        };
        let before = sentinels.primary_now.borrow().clone();
        // A connection might have found another one in the meantime.
        let now = sentinels.find().await.map(|primary| primary.address()).ok();
        if let Some(now) = now
            && let Some(before) = before.filter(|before| *before != now)
        {
            // Log subscribers are foreign code: they run last, and might panic.
            telemetry::contained(|| {
                tracing::info!(from = before, to = now, "{sentinels} has moved");
            });
        }
    }
}

/// The name of the primary in messages.
impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the primary {:?}", self.primary)
    }
}
