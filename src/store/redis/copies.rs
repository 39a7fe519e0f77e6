//! Waits for replicas: a transition after which a request may be sent goes out
//! together with `WAIT`, on a connection that nobody else uses meanwhile. It
//! never takes a transition back: whoever sent it does, knowing that nothing
//! was sent. A release from here, late on a dying connection, could free a key
//! whose request is on the wire.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value, pipe};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::commands;
use super::failure::Failure;
use super::link::{Carrier, DEADLINE, Link, no_connection};
use super::notices::Notices;
use super::server::{DialError, Dialled, Server};
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
    server: Server,
    permits: Semaphore,
    idle: Mutex<Vec<Dialled>>,
    /// Nobody waits for notices on these connections.
    unheard: Arc<Notices>,
}

impl Copies {
    pub(super) fn new(server: &Server, count: u32, wait: Duration) -> Self {
        Self {
            count,
            wait: wait.min(DAY),
            server: server.clone(),
            permits: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
            unheard: Arc::default(),
        }
    }

    /// Applies an event for which copies [are needed](are_needed).
    pub(super) async fn apply(
        &self,
        link: &Link,
        name: &RecordName,
        event: Event,
    ) -> Result<Answer, StoreError> {
        match &event {
            // Whatever is there is only read: a replay waits for no replica.
            Event::Acquire { claim } => {
                if let Some(answer) = commands::found(link, name, claim).await? {
                    return Ok(answer);
                }
            }
            // A lease lives on, whether or not a connection is free to wait on.
            Event::Extend { .. } => {
                let answer = commands::apply(link, name, event.clone()).await?;
                if answer != Answer::Done {
                    return Ok(answer);
                }
            }
            _ => {}
        }
        let connection = self.connection().await?;
        let deadline = Instant::now() + DEADLINE + self.wait;
        // Dropped where this fails: what is under way on it is not known.
        let answer = timeout_at(deadline, commands::apply(&connection, name, event))
            .await
            .unwrap_or_else(|_| Err(StoreError::unavailable("no answer within the time-out")))
            .inspect_err(|_| self.idle().clear())?;
        let copied = connection.copied();
        self.idle().push(connection.dialled);
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

    /// A connection that nobody else uses, made where none is idle.
    async fn connection(&self) -> Result<Waiting<'_>, StoreError> {
        let deadline = Instant::now() + DEADLINE;
        // No sign of a store that is down, which would be kept from replaying.
        let busy = || StoreError::undurable("too many wait for replicas at once");
        let permit = timeout_at(Instant::now() + TURN, self.permits.acquire())
            .await
            .map_err(|_| busy())?
            .map_err(|_| busy())?;
        let idle = {
            let mut idle = self.idle();
            idle.retain(|dialled| !dialled.is_closed());
            idle.pop()
        };
        let dialled = match idle {
            Some(dialled) => dialled,
            None => match timeout_at(deadline, self.server.dial(&self.unheard)).await {
                Ok(Ok(dialled)) => dialled,
                Ok(Err(DialError::Redis(error))) => {
                    let address = self.server.address();
                    return Err(StoreError::unavailable(format!("{address}: {error}")));
                }
                Ok(Err(DialError::Deadline)) | Err(_) => return Err(no_connection().into()),
            },
        };
        Ok(Waiting {
            dialled,
            count: self.count,
            // 0 would be for ever.
            millis: (self.wait.as_millis() as u64).max(1),
            copied: Mutex::new(Err("it was not asked".into())),
            _permit: permit,
        })
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
    count: u32,
    millis: u64,
    /// How many replicas have the last command, or why that is not known.
    copied: Mutex<Result<i64, String>>,
    _permit: SemaphorePermit<'a>,
}

impl Waiting<'_> {
    fn copied(&self) -> Result<i64, String> {
        let copied = self.copied.lock();
        copied.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Carrier for Waiting<'_> {
    /// Command and `WAIT` in one go. `WAIT` answers for what was written on its
    /// own connection: elsewhere it says yes before any replica knows.
    async fn command(&self, command: &Cmd) -> Result<Value, Failure> {
        let mut both = pipe();
        both.add_command(command.clone());
        both.cmd("WAIT").arg(self.count).arg(self.millis);
        let mut connection = self.dialled.connection.clone();
        // As they come: an error of `WAIT` is none of the command, which counts.
        let replies = connection.send_packed_commands(&both, 0, 2).await?;
        let Ok([reply, copies]) = <[Value; 2]>::try_from(replies) else {
            return Err(Failure::Lost(Failure::unexpected_reply().into()));
        };
        let copied = match copies.extract_error() {
            Ok(Value::Int(copies)) => Ok(copies),
            Ok(_) => Err(Failure::unexpected_reply().into()),
            Err(error) => Err(error.to_string()),
        };
        *self.copied.lock().unwrap_or_else(PoisonError::into_inner) = copied;
        Ok(reply.extract_error()?)
    }
}
