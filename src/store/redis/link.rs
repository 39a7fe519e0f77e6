//! The connection that all commands of a store share: made on demand, replaced
//! when it fails, and every use of it under a deadline. It never sends a
//! command twice and never lets one hang.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::notices::Notices;
use super::server::{DialError, Dialled, Server};

/// How long a command may take, a new connection included.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// A command that its caller gave up on after this long, with nothing heard on
/// the connection since it was sent, counts as timed out: callers may be less
/// patient than [`DEADLINE`], and a silent connection must go all the same.
const SUSPICIOUS: Duration = Duration::from_millis(100);

/// The link to one server. A clone is the same link.
///
/// Only this type knows what a connection is: a cluster's would stand here as
/// another kind of [`Live`], behind the same four operations.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    server: Server,
    notices: Arc<Notices>,
    slot: Mutex<Slot>,
    generations: AtomicU64,
}

enum Slot {
    /// The next command connects.
    Down,
    /// All commands wait for this attempt.
    Building(Attempt),
    Up(Arc<Live>),
}

/// A connection and what has been seen of it.
struct Live {
    generation: u64,
    connection: MultiplexedConnection,
    closed: Arc<AtomicBool>,
    born: Instant,
    /// When something was last heard, in milliseconds after `born`.
    heard: AtomicU64,
}

impl Live {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn hear(&self) {
        let now = self.born.elapsed().as_millis() as u64;
        self.heard.fetch_max(now, Ordering::Relaxed);
    }

    fn heard_since(&self, then: Instant) -> bool {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        self.born + heard >= then
    }
}

/// An attempt to connect: a task of its own, so that it survives the caller
/// who needed it first, and ends with the link.
struct Attempt {
    result: watch::Receiver<Option<Result<Arc<Live>, Failure>>>,
    _task: AbortOnDrop,
}

impl Attempt {
    fn is_running(&self) -> bool {
        // Without a sender and a result, its runtime is gone.
        self.result.borrow().is_some() || self.result.has_changed().is_ok()
    }
}

/// Ends a task with its owner.
pub(super) struct AbortOnDrop(pub(super) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What takes a command to a server and brings its reply.
pub(super) trait Carrier: Sync {
    /// Sends one command.
    fn command(&self, command: &Cmd) -> impl Future<Output = Result<Value, Failure>> + Send;
}

impl Carrier for Link {
    async fn command(&self, command: &Cmd) -> Result<Value, Failure> {
        self.using(None, |mut connection| async move {
            command.query_async(&mut connection).await
        })
        .await
    }
}

impl Link {
    /// A link whose first connection is there already.
    pub(super) fn new(server: Server, notices: Arc<Notices>, first: Dialled) -> Self {
        let live = Arc::new(live(1, first));
        let generations = AtomicU64::new(1);
        Self {
            shared: Arc::new(Shared {
                server,
                notices,
                slot: Mutex::new(Slot::Up(live)),
                generations,
            }),
        }
    }

    /// Where it leads.
    pub(super) fn server(&self) -> &Server {
        &self.shared.server
    }

    /// Sends several commands in one go.
    pub(super) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Failure> {
        self.using(None, |mut connection| async move {
            pipeline.query_async(&mut connection).await
        })
        .await
    }

    /// The connection at hand, by number.
    pub(super) async fn generation(&self) -> Result<u64, Failure> {
        match timeout_at(Instant::now() + DEADLINE, self.live()).await {
            Ok(live) => Ok(live?.generation),
            Err(_) => Err(no_connection()),
        }
    }

    /// Subscribes to channels, on that connection only.
    pub(super) async fn subscribe(&self, generation: u64, to: &[String]) -> Result<(), Failure> {
        self.using(Some(generation), |mut connection| async move {
            connection.subscribe(to).await
        })
        .await
    }

    /// Gives channels up, on that connection only.
    pub(super) async fn unsubscribe(&self, generation: u64, to: &[String]) -> Result<(), Failure> {
        self.using(Some(generation), |mut connection| async move {
            connection.unsubscribe(to).await
        })
        .await
    }

    async fn using<T, F, Fut>(&self, generation: Option<u64>, send: F) -> Result<T, Failure>
    where
        F: FnOnce(MultiplexedConnection) -> Fut,
        Fut: Future<Output = RedisResult<T>>,
    {
        let deadline = Instant::now() + DEADLINE;
        let live = timeout_at(deadline, self.live())
            .await
            .map_err(|_| no_connection())??;
        if generation.is_some_and(|wanted| wanted != live.generation) {
            return Err(Failure::Lost("the connection was replaced".into()));
        }
        let mut watch = Watch {
            link: self,
            live: &live,
            sent: Instant::now(),
            over: false,
        };
        let answer = timeout_at(deadline, send(live.connection.clone())).await;
        watch.over = true;
        let failure = match answer {
            Ok(Ok(reply)) => {
                live.hear();
                return Ok(reply);
            }
            Ok(Err(error)) => Failure::from(error),
            Err(_) => Failure::Lost(format!(
                "{} did not answer within {} s",
                self.shared.server.address(),
                DEADLINE.as_secs()
            )),
        };
        if failure.ends_connection() {
            self.drop_connection(&live);
        } else {
            live.hear();
        }
        Err(failure)
    }

    /// The connection, made first where there is none.
    async fn live(&self) -> Result<Arc<Live>, Failure> {
        let mut attempt = {
            let mut slot = self.shared.lock();
            match &*slot {
                Slot::Up(live) if !live.is_closed() => return Ok(live.clone()),
                Slot::Building(attempt) if attempt.is_running() => attempt.result.clone(),
                _ => {
                    let attempt = self.attempt();
                    let result = attempt.result.clone();
                    *slot = Slot::Building(attempt);
                    result
                }
            }
        };
        let ended = || Failure::Lost("the attempt to connect was ended".into());
        let result = attempt
            .wait_for(Option::is_some)
            .await
            .map_err(|_| ended())?;
        result.clone().unwrap_or_else(|| Err(ended()))
    }

    fn attempt(&self) -> Attempt {
        let (done, result) = watch::channel(None);
        let server = self.shared.server.clone();
        let notices = self.shared.notices.clone();
        let generation = self.shared.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let link = Arc::downgrade(&self.shared);
        let task = tokio::spawn(async move {
            let built = match server.dial(&notices).await {
                Ok(dialled) => Ok(Arc::new(live(generation, dialled))),
                Err(DialError::Deadline) => Err(no_connection()),
                Err(DialError::Redis(error)) => {
                    Err(Failure::Lost(format!("{}: {error}", server.address())))
                }
            };
            done.send_replace(Some(built.clone()));
            if let Some(link) = link.upgrade() {
                *link.lock() = built.map_or(Slot::Down, Slot::Up);
            }
        });
        Attempt {
            result,
            _task: AbortOnDrop(task),
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

fn live(generation: u64, dialled: Dialled) -> Live {
    let Dialled { connection, closed } = dialled;
    Live {
        generation,
        connection,
        closed,
        born: Instant::now(),
        heard: AtomicU64::new(0),
    }
}

pub(super) fn no_connection() -> Failure {
    Failure::Lost(format!("no connection within {} s", DEADLINE.as_secs()))
}
