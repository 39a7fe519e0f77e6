//! The connection to one server that all commands for it share: made on demand,
//! replaced when it fails, and every use of it under a deadline. It never sends
//! a command twice and never lets one hang.

use std::future::Future;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::attempt::{AbortOnDrop, Attempt};
use super::failure::Failure;
use super::home::Home;
use super::notices::Notices;
use super::place::Place;
use super::server::{DialError, Dialled, Server};
use super::wire::{Life, Load};
use crate::store::alive;

/// How long a command may take, a new connection included.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// A command that its caller gave up on after this long, with nothing heard on
/// the connection since it was sent, counts as timed out: callers may be less
/// patient than [`DEADLINE`], and a silent connection must go all the same.
pub(super) const SUSPICIOUS: Duration = Duration::from_millis(100);

/// The link to one server, or to whichever the sentinels call the primary. A
/// clone is the same link.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    notices: Arc<Notices>,
    slot: Mutex<Slot>,
    generations: AtomicU64,
}

enum Slot {
    /// The next command connects.
    Down,
    /// All commands wait for this attempt.
    Building(Attempt<Arc<Live>>),
    Up(Arc<Live>),
}

/// A connection and what has been seen of it.
struct Live {
    generation: u64,
    server: Server,
    connection: MultiplexedConnection,
    closed: Arc<AtomicBool>,
    life: Arc<Life>,
    _driver: AbortOnDrop,
    /// Closes it when the sentinels name another primary.
    _watch: Option<AbortOnDrop>,
}

impl Live {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn heard_since(&self, then: Instant) -> bool {
        self.life.heard() >= then
    }
}

impl Link {
    /// A link that connects when it is first used.
    pub(super) fn new(place: Place, notices: Arc<Notices>) -> Self {
        Self {
            shared: Arc::new(Shared {
                place,
                notices,
                slot: Mutex::new(Slot::Down),
                generations: AtomicU64::new(0),
            }),
        }
    }

    /// A link whose first connection is there already.
    pub(super) fn with(place: Place, notices: Arc<Notices>, first: Dialled) -> Self {
        let link = Self::new(place, notices);
        *link.shared.lock() = Slot::Up(Arc::new(link.shared.live(first)));
        link
    }

    /// Where background work for it runs.
    pub(super) fn home(&self) -> &Home {
        self.shared.place.home()
    }

    /// Host and port, or what the sentinels call it.
    pub(super) fn address(&self) -> String {
        self.shared.place.address()
    }

    /// The host alone, where it is always the same.
    pub(super) fn host(&self) -> String {
        match &self.shared.place {
            Place::Server(server) | Place::Member(server, _) => server.host().to_owned(),
            Place::Primary(_) => String::new(),
        }
    }

    /// Sends one command.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, Failure> {
        let reply = self.using(None, slice::from_ref, |mut connection| async move {
            connection.send_packed_command(command).await
        });
        Failure::or_reply(reply.await?)
    }

    /// Sends commands in one go; the replies come as they are.
    pub(super) async fn send(&self, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
        self.send_all(None, commands).await
    }

    /// The same, on that connection only.
    pub(super) async fn send_on(
        &self,
        generation: u64,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, Failure> {
        self.send_all(Some(generation), commands).await
    }

    async fn send_all(
        &self,
        generation: Option<u64>,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, Failure> {
        self.using(generation, Vec::as_slice, |mut connection| async move {
            if let [command] = commands {
                return Ok(vec![connection.send_packed_command(command).await?]);
            }
            let mut pipeline = redis::pipe();
            for command in commands {
                pipeline.add_command(command.clone());
            }
            connection
                .send_packed_commands(&pipeline, 0, commands.len())
                .await
        })
        .await
    }

    /// Another connection to where this link leads, for the caller alone.
    pub(super) async fn dial_another(
        &self,
        load: Load,
        notices: &Arc<Notices>,
    ) -> Result<Dialled, DialError> {
        self.shared.place.dial(load, notices).await
    }

    /// The server that the connection at hand leads to.
    pub(super) async fn server(&self) -> Result<Server, Failure> {
        Ok(self.live_in_time().await?.server.clone())
    }

    /// The connection at hand, by number.
    pub(super) async fn generation(&self) -> Result<u64, Failure> {
        Ok(self.live_in_time().await?.generation)
    }

    /// The same, where there is one that can be used.
    pub(super) fn generation_at_hand(&self) -> Option<u64> {
        Some(self.shared.up()?.generation)
    }

    /// Lets the next command connect anew: this server is not the right one.
    pub(super) fn doubt(&self) {
        if let Some(live) = self.shared.up() {
            self.drop_connection(&live);
        }
    }

    /// Subscribes to channels, on that connection only.
    pub(super) async fn subscribe(&self, generation: u64, to: &[String]) -> Result<(), Failure> {
        let none = |_: &()| -> &[Value] { &[] };
        self.using(Some(generation), none, |mut connection| async move {
            connection.subscribe(to).await
        })
        .await
    }

    /// Gives channels up, on that connection only.
    pub(super) async fn unsubscribe(&self, generation: u64, to: &[String]) -> Result<(), Failure> {
        let none = |_: &()| -> &[Value] { &[] };
        self.using(Some(generation), none, |mut connection| async move {
            connection.unsubscribe(to).await
        })
        .await
    }

    /// `SSUBSCRIBE` or `SUNSUBSCRIBE`, one each since a command takes channels
    /// of one slot only: a reply for each channel.
    pub(super) async fn shard_channels(
        &self,
        generation: u64,
        verb: &str,
        channels: &[String],
    ) -> Result<Vec<Value>, Failure> {
        self.using(
            Some(generation),
            Vec::as_slice,
            |mut connection| async move {
                let mut pipeline = redis::pipe();
                for channel in channels {
                    pipeline.cmd(verb).arg(channel);
                }
                connection
                    .send_packed_commands(&pipeline, 0, channels.len())
                    .await
            },
        )
        .await
    }

    /// Sends something on the connection at hand. `replies` finds in its answer
    /// what the server said, errors included.
    async fn using<T, F, Fut>(
        &self,
        generation: Option<u64>,
        replies: fn(&T) -> &[Value],
        send: F,
    ) -> Result<T, Failure>
    where
        F: FnOnce(MultiplexedConnection) -> Fut,
        Fut: Future<Output = RedisResult<T>>,
    {
        let begun = Instant::now();
        let (live, sent) = match self.shared.up() {
            Some(live) => (live, begun),
            None => (Box::pin(self.live_in_time()).await?, Instant::now()),
        };
        if generation.is_some_and(|wanted| wanted != live.generation) {
            return Err(Failure::Unsent("the connection was replaced".into()));
        }
        let mut watch = Watch {
            link: self,
            live: &live,
            sent,
            over: false,
        };
        // Boxed: it is larger than all that is around it, which would be moved
        // with it from layer to layer.
        let answer = Box::pin(send(live.connection.clone()));
        let answer = alive::by(begun + DEADLINE, answer).await;
        watch.over = true;
        let late = answer.is_none();
        let failure = match answer {
            Some(Ok(answer)) => {
                let mut failures = replies(&answer).iter().filter_map(Failure::in_reply);
                if failures.any(|failure| failure.ends_connection()) {
                    self.drop_connection(&live);
                }
                return Ok(answer);
            }
            Some(Err(error)) => Failure::from(error),
            None => Failure::Lost(format!(
                "{} did not answer within {} s",
                live.server.address(),
                DEADLINE.as_secs()
            )),
        };
        // What is slow and delivers is not gone.
        if failure.ends_connection() && !(late && live.heard_since(sent)) {
            self.drop_connection(&live);
        }
        Err(failure)
    }

    async fn live_in_time(&self) -> Result<Arc<Live>, Failure> {
        let live = timeout_at(Instant::now() + DEADLINE, self.live());
        live.await.map_err(|_| no_connection())?
    }

    /// The connection, made first where there is none.
    async fn live(&self) -> Result<Arc<Live>, Failure> {
        let mut attempt = {
            let mut slot = self.shared.lock();
            match &*slot {
                Slot::Up(live) if !live.is_closed() => return Ok(live.clone()),
                Slot::Building(attempt) if attempt.is_running() => attempt.result.clone(),
                other => {
                    if matches!(other, Slot::Building(attempt) if attempt.is_stuck()) {
                        self.shared.place.home().move_here();
                    }
                    let attempt = self.attempt();
                    let result = attempt.result.clone();
                    *slot = Slot::Building(attempt);
                    result
                }
            }
        };
        let ended = || Failure::Unsent("the attempt to connect was ended".into());
        let result = attempt
            .wait_for(Option::is_some)
            .await
            .map_err(|_| ended())?;
        result.clone().unwrap_or_else(|| Err(ended()))
    }

    fn attempt(&self) -> Attempt<Arc<Live>> {
        let (done, result) = watch::channel(None);
        let link = Arc::downgrade(&self.shared);
        let (place, notices) = (self.shared.place.clone(), self.shared.notices.clone());
        let task = self.shared.place.home().spawn(async move {
            let dialled = place.dial(Load::Commands, &notices).await;
            let Some(link) = link.upgrade() else {
                return;
            };
            let built = dialled.map(|dialled| Arc::new(link.live(dialled)));
            let built = built.map_err(|error| Failure::Unsent(error.at(&place.address())));
            done.send_replace(Some(built.clone()));
            *link.lock() = built.map_or(Slot::Down, Slot::Up);
            link.place.home().has_connected();
        });
        Attempt {
            result,
            begun: Instant::now(),
            _task: task,
        }
    }

    /// Lets the next command connect anew, unless another one did already.
    fn drop_connection(&self, failed: &Live) {
        let mut slot = self.shared.lock();
        if matches!(&*slot, Slot::Up(live) if live.generation == failed.generation) {
            *slot = Slot::Down;
            drop(slot);
            // Those who wait for notices need a connection, too.
            self.shared.notices.wake();
        }
    }
}

impl Shared {
    /// The connection, where there is one that can be used.
    fn up(&self) -> Option<Arc<Live>> {
        match &*self.lock() {
            Slot::Up(live) if !live.is_closed() => Some(live.clone()),
            _ => None,
        }
    }

    fn live(&self, dialled: Dialled) -> Live {
        let Dialled { server, closed, .. } = &dialled;
        let watch = self.place.watch(server, closed, &self.notices);
        Live {
            generation: self.generations.fetch_add(1, Ordering::Relaxed) + 1,
            server: dialled.server,
            connection: dialled.connection,
            closed: dialled.closed,
            life: dialled.life,
            _driver: dialled.driver,
            _watch: watch,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        // Every change under this lock is one assignment.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches over one command for the case that its caller drops it.
struct Watch<'a> {
    link: &'a Link,
    live: &'a Live,
    sent: Instant,
    over: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.over && self.sent.elapsed() >= SUSPICIOUS && !self.live.heard_since(self.sent) {
            self.link.drop_connection(self.live);
        }
    }
}

pub(super) fn no_connection() -> Failure {
    Failure::Unsent(format!("no connection within {} s", DEADLINE.as_secs()))
}
