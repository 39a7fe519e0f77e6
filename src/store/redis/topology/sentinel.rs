//! The sentinels of one primary: which server it is now, by what most of them
//! say. One of them alone names no new server, and no password goes to it.

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

/// How often they are asked whether the primary is still the same, besides the
/// moments at which one of them says that it is not: for so long, and one answer
/// longer, a primary that was replaced without noticing may be written to.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Where a sentinel tells of another primary.
const SWITCHED: &str = "+switch-master";

/// How long the other sentinels are waited for once most have answered.
const GRACE: Duration = Duration::from_millis(250);

/// The same for a new connection to each, at `connect`.
const DIAL_GRACE: Duration = Duration::from_secs(1);

/// The sentinels that watch one primary.
pub(crate) struct Sentinels {
    primary: String,
    /// How to log in to the servers that they name.
    login: Server,
    sentinels: Vec<Node>,
    /// The address that was named last.
    primary_now: watch::Sender<Option<String>>,
    follow: Mutex<Option<AbortOnDrop>>,
}

/// Why a sentinel names nobody.
enum NoVote {
    /// It does not know the name.
    UnknownName(String),
    /// It is no sentinel.
    DataServer(String),
    /// It does not answer, or not so.
    Unreachable(String),
    /// It names a server that too few others name.
    Outvoted(String),
}

impl Sentinels {
    /// Connects to the sentinels and asks them for the primary.
    ///
    /// # Errors
    ///
    /// As `connect` has them.
    pub(crate) async fn connect(
        urls: &[String],
        primary: &str,
        options: &ConnectOptions,
    ) -> Result<(Arc<Self>, Server), Error> {
        // A primary with a url of its own has a login of its own.
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
        // Without a login of its own the primary has the sentinels'.
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
                        "a redis sentinel is of no use"
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

    /// Asks again and again from now on, unless that is under way.
    pub(crate) fn follow(self: &Arc<Self>) {
        let mut task = self.follow.lock().unwrap_or_else(PoisonError::into_inner);
        // Finished: the runtime that it ran on is gone.
        if task.as_ref().is_none_or(|task| task.0.is_finished()) {
            *task = self.runtime().spawn(follow(Arc::downgrade(self)));
        }
    }

    /// The primary, by what most of them say; or why there is none.
    pub(crate) async fn find(&self) -> Result<Server, String> {
        self.ask_all()
            .await
            .map_err(|failures| self.reason(&failures))
    }

    /// The address that was named last, and each one that is named from now on.
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

    /// Whether a server may be the primary by the word of too few sentinels: it
    /// was so before, or nothing is known yet and there is no password to lose.
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
        let unreadable = || silent("its answer cannot be read");
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

    /// What to tell whoever called `sentinel`: first what only they can mend.
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
                        "{address} is no sentinel but a data server: RedisStore::connect, or its sentinels' urls, are meant"
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

/// A link to each sentinel, connected where that was possible, and why not.
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

/// Asks for the primary again and again, for as long as the store lives.
async fn follow(sentinels: Weak<Sentinels>) {
    let mut switched: Vec<_> = match sentinels.upgrade() {
        Some(sentinels) => {
            let nodes = sentinels.sentinels.iter();
            nodes.map(|node| node.subscribe(SWITCHED.into())).collect()
        }
        None => return,
    };
    loop {
        // An error says that the store is gone.
        let switch = select_all(switched.iter_mut().map(|node| Box::pin(node.changed())));
        tokio::select! {
            _ = switch => {}
            () = sleep(CHECK_INTERVAL) => {}
        }
        let Some(sentinels) = sentinels.upgrade() else {
            return;
        };
        let before = sentinels.primary_now.borrow().clone();
        // A link may have asked, and found another one, in between.
        let now = sentinels.find().await.map(|primary| primary.address()).ok();
        if let Some(now) = now
            && let Some(before) = before.filter(|before| *before != now)
        {
            // A subscriber is foreign: it is told last, and may panic.
            telemetry::contained(|| {
                tracing::info!(from = before, to = now, "{sentinels} has moved");
            });
        }
    }
}

/// As messages call the primary.
impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the primary {:?}", self.primary)
    }
}
