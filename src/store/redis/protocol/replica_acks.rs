//! Waits for replicas: a transition that allows sending is sent together with `WAIT`, on a
//! connection without other commands. It never reverts a transition. The engine does,
//! since it knows that no request was sent; a late release from here, on a failing
//! connection, could free a key whose request was sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::bodies::BodyStore;
use super::commands;
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{Answer, Event, Phase};
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::transport::{Lane, Transport};
use crate::store::redis::topology::routes::Routes;

/// The longest wait, within Redis's range.
const MAX_ACK_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Whether the event allows sending a request.
pub(crate) fn needs_acks(event: &Event) -> bool {
    match event {
        Event::Acquire { .. } => true,
        Event::Enter { phase, .. } => *phase == Phase::Dispatched,
        // It can write an absent record again. A holder whose acquire was applied and
        // not answered extends before it sends: without waiting here, it would get its
        // lease without a replica.
        Event::Extend { dispatched, .. } => dispatched.is_some(),
        _ => false,
    }
}

/// How many replicas to wait for, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplicaAcks {
    count: u32,
    wait: Duration,
}

impl ReplicaAcks {
    pub(crate) fn new(count: u32, wait: Duration) -> Self {
        Self {
            count,
            wait: wait.min(MAX_ACK_TIMEOUT),
        }
    }

    /// Applies an event that [needs acknowledgements](needs_acks).
    pub(crate) async fn apply(
        &self,
        body_store: BodyStore<'_>,
        name: &RecordName,
        event: Event,
    ) -> Result<Answer, StoreError> {
        let routes = body_store.routes;
        // An existing record is only read: a replay waits for no replica.
        if let Event::Acquire { claim } = &event
            && let Some(answer) = commands::found(routes, body_store, name, claim).await?
        {
            return Ok(answer);
        }
        let extends = matches!(event, Event::Extend { .. }).then(|| event.clone());
        let waiting = AckTransport {
            routes,
            acks: *self,
            acked: Mutex::new(Err("the server was not asked".into())),
            unsent: AtomicBool::new(false),
            busy: AtomicBool::new(false),
        };
        let error = match commands::apply(&waiting, body_store, name, event).await {
            Ok(Answer::Done) => return waiting.enough(self.count),
            // Nothing was written that could be replicated.
            Ok(answer) => return Ok(answer),
            // Not `unavailable`: the store would count as down and stop replaying.
            Err(_) if waiting.busy.load(Ordering::Acquire) => {
                StoreError::undurable("too many commands wait for replicas at once")
            }
            Err(error) => error,
        };
        match extends {
            // A lease is extended even without a connection to wait on.
            Some(event) if waiting.unsent.load(Ordering::Acquire) => {
                match commands::apply(routes, body_store, name, event).await? {
                    Answer::Done => Err(error),
                    answer => Ok(answer),
                }
            }
            _ => Err(error),
        }
    }
}

/// A transport on which every command waits for replicas.
struct AckTransport<'a> {
    routes: &'a Routes,
    acks: ReplicaAcks,
    /// How many replicas have the last command, or why that is unknown.
    acked: Mutex<Result<i64, String>>,
    /// The last command was not sent.
    unsent: AtomicBool,
    /// No connection was free.
    busy: AtomicBool,
}

impl AckTransport<'_> {
    fn enough(&self, count: u32) -> Result<Answer, StoreError> {
        let acked = self.acked.lock();
        match &*acked.unwrap_or_else(PoisonError::into_inner) {
            Ok(acks) if *acks >= count.into() => Ok(Answer::Done),
            Ok(acks) => Err(StoreError::undurable(format!(
                "{acks} of {count} replicas have it"
            ))),
            Err(reason) => Err(StoreError::undurable(format!(
                "the number of replicas that have it is unknown: {reason}"
            ))),
        }
    }
}

impl Transport for AckTransport<'_> {
    /// Commands and `WAIT` in one go. `WAIT` covers only the writes of its own connection:
    /// on another one it returns before any replica has them.
    async fn send(&self, key: &str, commands: &[Cmd]) -> Result<Vec<Value>, CommandError> {
        let ReplicaAcks { count, wait } = self.acks;
        let mut all = commands.to_vec();
        let mut waits = cmd("WAIT");
        // 0 would wait without a limit.
        waits.arg(count).arg((wait.as_millis() as u64).max(1));
        all.push(waits);
        let sent = self
            .routes
            .send_by(Lane::ReplicaAcks(wait), key, &all)
            .await;
        let busy = matches!(sent, Err(CommandError::Busy(_)));
        let unsent = busy || matches!(sent, Err(CommandError::Unsent(_)));
        self.busy.store(busy, Ordering::Release);
        self.unsent.store(unsent, Ordering::Release);
        let mut replies = sent?;
        // An error of `WAIT` is no error of the commands.
        let acked = match replies.pop() {
            Some(Value::Int(acks)) => Ok(acks),
            Some(Value::ServerError(error)) => Err(error.to_string()),
            _ => Err(CommandError::unexpected().to_string()),
        };
        *self.acked.lock().unwrap_or_else(PoisonError::into_inner) = acked;
        Ok(replies)
    }

    fn is_sharded(&self) -> bool {
        self.routes.is_sharded()
    }
}
