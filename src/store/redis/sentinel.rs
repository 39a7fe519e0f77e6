//! The sentinels of one primary: which server it is now, by the newest answer
//! that any of them gives. It believes no answer older than one it has heard.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Value, cmd};

use super::carrier::exactly;
use super::failure::Failure;
use super::gather::gather;
use super::link::Link;
use super::notices::Notices;
use super::place::Place;
use super::server::{Server, invalid, of_server, unavailable};
use crate::error::Error;

/// How long the other sentinels are waited for once one has answered.
const GRACE: Duration = Duration::from_millis(250);

/// The same for a new connection to each, at `connect`.
const DIAL_GRACE: Duration = Duration::from_secs(1);

/// The sentinels that watch one primary.
pub(super) struct Sentinels {
    primary: String,
    /// How to log in to the servers that they name.
    login: Server,
    links: Vec<Link>,
    /// The newest configuration heard of: each fail-over has a higher number.
    epoch: AtomicU64,
}

/// What a sentinel says.
struct Named {
    epoch: u64,
    server: Server,
}

/// Why a sentinel names nobody.
enum Mute {
    /// It does not know the name.
    Unknown(String),
    /// It is no sentinel.
    DataServer(String),
    /// It does not answer, or not so.
    Silent(String),
}

impl Sentinels {
    /// Connects to the sentinels and asks them for the primary.
    ///
    /// # Errors
    ///
    /// As `connect` has them; one sentinel that knows the primary is enough.
    pub(super) async fn connect(
        urls: &[String],
        primary: &str,
    ) -> Result<(Arc<Self>, Server), Error> {
        let servers = urls
            .iter()
            .map(|url| Server::parse(url))
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
                let login = Server::parse(primary)?;
                (login.host().to_owned(), login)
            }
            None => (primary.to_owned(), first.clone()),
        };
        if primary.is_empty() {
            return Err(invalid("the primary has no name"));
        }
        let (links, errors) = dial(&servers).await;
        let sentinels = Self {
            primary,
            login,
            links,
            epoch: AtomicU64::new(0),
        };
        match sentinels.ask_all().await {
            Ok(server) => {
                for error in errors {
                    tracing::warn!(
                        error = crate::error::chain(&error),
                        "a redis sentinel is of no use"
                    );
                }
                Ok((Arc::new(sentinels), server))
            }
            Err(mute) => Err(sentinels.explain(&mute, errors)),
        }
    }

    /// The primary, by the newest answer; or why there is none.
    pub(super) async fn find(&self) -> Result<Server, String> {
        self.ask_all().await.map_err(|mute| self.reason(&mute))
    }

    async fn ask_all(&self) -> Result<Server, Vec<Mute>> {
        let answers = gather(self.links.iter().map(|link| self.ask(link)), GRACE).await;
        let mut newest: Option<Named> = None;
        let mut mute = Vec::new();
        for answer in answers.into_iter().flatten() {
            match answer {
                Ok(named) if newest.as_ref().is_none_or(|best| best.epoch < named.epoch) => {
                    newest = Some(named);
                }
                Ok(_) => {}
                Err(why) => mute.push(why),
            }
        }
        let Some(newest) = newest else {
            return Err(mute);
        };
        let known = self.epoch.fetch_max(newest.epoch, Ordering::AcqRel);
        if newest.epoch < known {
            mute.push(Mute::Silent(
                "those who answer have missed the last fail-over".into(),
            ));
            return Err(mute);
        }
        Ok(newest.server)
    }

    async fn ask(&self, link: &Link) -> Result<Named, Mute> {
        let silent = |reason: &str| Mute::Silent(format!("{}: {reason}", link.address()));
        let mut address = cmd("SENTINEL");
        address.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
        let mut master = cmd("SENTINEL");
        master.arg("MASTER").arg(&self.primary);
        let replies = link.send(&[address, master]).await;
        let [address, master] = replies
            .and_then(exactly)
            .map_err(|failure| silent(&failure.to_string()))?;
        match Failure::in_reply(&address) {
            Some(Failure::Server { text, .. }) if text.contains("unknown command") => {
                return Err(Mute::DataServer(link.address()));
            }
            Some(Failure::Server { text, .. }) => return Err(silent(&text)),
            _ if address == Value::Nil => return Err(Mute::Unknown(link.address())),
            _ => {}
        }
        let unreadable = || silent("its answer cannot be read");
        let (host, port): (String, u16) =
            redis::from_redis_value(address).map_err(|_| unreadable())?;
        let server = self.login.at(&host, port).map_err(|_| unreadable())?;
        // Who may not ask for the epoch gets the first answer.
        let epoch = redis::from_redis_value::<std::collections::HashMap<String, String>>(master)
            .ok()
            .and_then(|master| master.get("config-epoch")?.parse().ok())
            .unwrap_or_default();
        Ok(Named { epoch, server })
    }

    fn reason(&self, mute: &[Mute]) -> String {
        let reasons: Vec<_> = mute
            .iter()
            .map(|mute| match mute {
                Mute::Unknown(address) => format!("{address} does not know it"),
                Mute::DataServer(address) => format!("{address} is no sentinel"),
                Mute::Silent(reason) => reason.clone(),
            })
            .collect();
        format!("no sentinel names {self}: {}", reasons.join("; "))
    }

    /// What to tell whoever called `sentinel`: first what only they can mend.
    fn explain(&self, mute: &[Mute], errors: Vec<Error>) -> Error {
        for mute in mute {
            match mute {
                Mute::Unknown(address) => {
                    return invalid(format!(
                        "the sentinel {address} watches no primary named {:?}",
                        self.primary
                    ));
                }
                Mute::DataServer(address) => {
                    return invalid(format!(
                        "{address} is no sentinel but a data server: RedisStore::connect, or its sentinels' urls, are meant"
                    ));
                }
                Mute::Silent(_) => {}
            }
        }
        let (wrong, absent): (Vec<_>, Vec<_>) = errors
            .into_iter()
            .partition(|error| matches!(error, Error::InvalidConfig { .. }));
        wrong
            .into_iter()
            .chain(absent)
            .next()
            .unwrap_or_else(|| unavailable(self.reason(mute)))
    }
}

/// A link to each sentinel, connected where that was possible, and why not.
async fn dial(servers: &[Server]) -> (Vec<Link>, Vec<Error>) {
    let notices = Arc::new(Notices::default());
    let dialled = gather(
        servers.iter().map(|server| server.dial(&notices)),
        DIAL_GRACE,
    )
    .await;
    let mut errors = Vec::new();
    let mut links = Vec::new();
    for (server, dialled) in servers.iter().zip(dialled) {
        let place = Place::Server(server.clone());
        links.push(match dialled {
            Some(Ok(first)) => Link::with(place, notices.clone(), first),
            Some(Err(error)) => {
                let error = server.explain(error).await;
                errors.push(of_server(
                    error,
                    &format!("the sentinel {}", server.address()),
                ));
                Link::new(place, notices.clone())
            }
            None => Link::new(place, notices.clone()),
        });
    }
    (links, errors)
}

/// As messages call the primary.
impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the primary {:?}", self.primary)
    }
}
