//! Waits for replicas: a transition after which a request may be sent goes out
//! together with `WAIT`, on a connection that nobody else uses meanwhile. It
//! never takes a transition back: whoever sent it does, knowing that nothing
//! was sent. A release from here, late on a dying connection, could free a key
//! whose request is on the wire.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value, pipe};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::carrier::Carrier;
use super::commands;
use super::failure::Failure;
use super::link::{DEADLINE, no_connection};
use super::notices::Notices;
use super::routes::Routes;
use super::server::Dialled;
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{Answer, Event, Phase};

/// Connections, and so transitions that wait for replicas at once.
const CONNECTIONS: usize = 16;

/// How long a transition waits for one of them.
const TURN: Duration = Duration::from_secs(1);

/// Longer than anybody waits, and within Redis's range.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Whether a request may be sent on the strength of this event.
pub(super) fn are_needed(event: &Event) -> bool {
    match event {
        Event::Acquire { .. } => true,
        Event::Enter { phase, .. } => *phase == Phase::Dispatched,
        // It may put an absent record back. A holder whose acquire was applied
        // and not answered extends before it sends: without waiting here, it
        // would come by its lease without a copy.
        Event::Extend { dispatched, .. } => dispatched.is_some(),
        _ => false,
    }
}

/// How many replicas are waited for, and the connections to do it on.
pub(super) struct Copies {
    count: u32,
    wait: Duration,
    permits: Semaphore,
    /// To any server; as many as there are permits.
    idle: Mutex<Vec<Dialled>>,
    /// Nobody waits for notices on these connections.
    unheard: Arc<Notices>,
}

impl Copies {
    pub(super) fn new(count: u32, wait: Duration) -> Self {
        Self {
            count,
            wait: wait.min(DAY),
            permits: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
            unheard: Arc::default(),
        }
    }

    /// Applies an event for which copies [are needed](are_needed).
    pub(super) async fn apply(
        &self,
        routes: &Routes,
        name: &RecordName,
        event: Event,
    ) -> Result<Answer, StoreError> {
        // Whatever is there is only read: a replay waits for no replica.
        if let Event::Acquire { claim } = &event
            && let Some(answer) = commands::found(routes, name, claim).await?
        {
            return Ok(answer);
        }
        let connection = match self.connection(routes, &name.to_string()).await {
            Ok(connection) => connection,
            // A lease lives on, whether or not a connection is free to wait on.
            Err(error) if matches!(event, Event::Extend { .. }) => {
                return match commands::apply(routes, name, event).await? {
                    Answer::Done => Err(error),
                    answer => Ok(answer),
                };
            }
            Err(error) => return Err(error),
        };
        let deadline = Instant::now() + DEADLINE + self.wait;
        let answer = timeout_at(deadline, commands::apply(&connection, name, event)).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            // Dropped with the connection: what is under way on it is not known.
            failed => {
                self.idle().clear();
                if connection.misled.load(Ordering::Acquire) {
                    routes.doubt().await;
                }
                return failed.unwrap_or_else(|_| {
                    Err(StoreError::unavailable("no answer within the time-out"))
                });
            }
        };
        let copied = connection.copied();
        self.keep(connection.dialled);
        match copied {
            // Nothing was written that could be copied.
            _ if answer != Answer::Done => Ok(answer),
            Ok(copies) if copies >= self.count.into() => Ok(answer),
            Ok(copies) => Err(StoreError::undurable(format!(
                "{copies} of {} replicas have it",
                self.count
            ))),
            Err(reason) => Err(StoreError::undurable(format!(
                "the server does not say how many replicas have it: {reason}"
            ))),
        }
    }

    /// A connection to the server that has the key, which nobody else uses; made
    /// where none is idle.
    async fn connection(&self, routes: &Routes, key: &str) -> Result<Waiting<'_>, StoreError> {
        let deadline = Instant::now() + DEADLINE;
        // No sign of a store that is down, which would be kept from replaying.
        let busy = || StoreError::undurable("too many wait for replicas at once");
        let permit = timeout_at(Instant::now() + TURN, self.permits.acquire())
            .await
            .map_err(|_| busy())?
            .map_err(|_| busy())?;
        let link = routes.link(key)?;
        let address = link.server().await?.address();
        let idle = {
            let mut idle = self.idle();
            idle.retain(|dialled| !dialled.is_closed());
            let here = idle
                .iter()
                .position(|dialled| dialled.server.address() == address);
            here.map(|here| idle.swap_remove(here))
        };
        let dialled = match idle {
            Some(dialled) => dialled,
            // By the way that the shared connection goes: it makes sure of whom it
            // leads to.
            None => match timeout_at(deadline, link.dial_another(&self.unheard)).await {
                Ok(Ok(dialled)) => dialled,
                Ok(Err(error)) => return Err(StoreError::unavailable(error.at(&address))),
                Err(_) => return Err(no_connection().into()),
            },
        };
        Ok(Waiting {
            dialled,
            sharded: routes.is_sharded(),
            count: self.count,
            // 0 would be for ever.
            millis: (self.wait.as_millis() as u64).max(1),
            copied: Mutex::new(Err("it was not asked".into())),
            misled: AtomicBool::new(false),
            _permit: permit,
        })
    }

    fn keep(&self, dialled: Dialled) {
        let mut idle = self.idle();
        if idle.len() == CONNECTIONS {
            // The one that was used longest ago, to another server perhaps.
            idle.remove(0);
        }
        idle.push(dialled);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Dialled>> {
        // Every change under this lock leaves whole connections.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies")
            .field("count", &self.count)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

/// A connection on which every command waits for its copies.
struct Waiting<'a> {
    dialled: Dialled,
    sharded: bool,
    count: u32,
    millis: u64,
    /// How many replicas have the last command, or why that is not known.
    copied: Mutex<Result<i64, String>>,
    /// The server does not have the key any more.
    misled: AtomicBool,
    _permit: SemaphorePermit<'a>,
}

impl Waiting<'_> {
    fn copied(&self) -> Result<i64, String> {
        let copied = self.copied.lock();
        copied.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Carrier for Waiting<'_> {
    /// Commands and `WAIT` in one go. `WAIT` answers for what was written on its
    /// own connection: elsewhere it says yes before any replica knows.
    async fn send(&self, _: &str, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
        let mut all = pipe();
        for command in commands {
            all.add_command(command.clone());
        }
        all.cmd("WAIT").arg(self.count).arg(self.millis);
        let mut connection = self.dialled.connection.clone();
        // As they come: an error of `WAIT` is none of the commands, which count.
        let sent = connection.send_packed_commands(&all, 0, commands.len() + 1);
        let mut replies = sent.await?;
        let copied = match replies.pop() {
            Some(Value::Int(copies)) => Ok(copies),
            Some(Value::ServerError(error)) => Err(error.to_string()),
            _ => Err(Failure::unexpected_reply().into()),
        };
        *self.copied.lock().unwrap_or_else(PoisonError::into_inner) = copied;
        let mut failures = replies.iter().filter_map(Failure::in_reply);
        if failures.any(|failure| failure.doubts_the_server()) {
            self.misled.store(true, Ordering::Release);
        }
        Ok(replies)
    }

    fn is_sharded(&self) -> bool {
        self.sharded
    }
}
