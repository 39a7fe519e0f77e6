//! Waits for replicas: a transition after which a request may be sent goes out
//! together with `WAIT`, on a connection that nobody else uses meanwhile. It
//! never takes a transition back: whoever sent it does, knowing that nothing
//! was sent. A release from here, late on a dying connection, could free a key
//! whose request is on the wire.

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

/// Longer than anybody waits, and within Redis's range.
const MAX_ACK_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Whether a request may be sent on the strength of this event.
pub(crate) fn needs_acks(event: &Event) -> bool {
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

/// How many replicas are waited for, and how long.
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

    /// Applies an event for which copies [are needed](are_needed).
    pub(crate) async fn apply(
        &self,
        body_store: BodyStore<'_>,
        name: &RecordName,
        event: Event,
    ) -> Result<Answer, StoreError> {
        let routes = body_store.routes;
        // Whatever is there is only read: a replay waits for no replica.
        if let Event::Acquire { claim } = &event
            && let Some(answer) = commands::found(routes, body_store, name, claim).await?
        {
            return Ok(answer);
        }
        let extends = matches!(event, Event::Extend { .. }).then(|| event.clone());
        let waiting = AckTransport {
            routes,
            acks: *self,
            acked: Mutex::new(Err("it was not asked".into())),
            unsent: AtomicBool::new(false),
            busy: AtomicBool::new(false),
        };
        let error = match commands::apply(&waiting, body_store, name, event).await {
            Ok(Answer::Done) => return waiting.enough(self.count),
            // Nothing was written that could be copied.
            Ok(answer) => return Ok(answer),
            // No sign of a store that is down, which would be kept from replaying.
            Err(_) if waiting.busy.load(Ordering::Acquire) => {
                StoreError::undurable("too many wait for replicas at once")
            }
            Err(error) => error,
        };
        match extends {
            // A lease lives on, whether or not a connection is free to wait on.
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

/// A way on which every command waits for its copies.
struct AckTransport<'a> {
    routes: &'a Routes,
    acks: ReplicaAcks,
    /// How many replicas have the last command, or why that is not known.
    acked: Mutex<Result<i64, String>>,
    /// The last command was not sent.
    unsent: AtomicBool,
    /// Since no connection was free.
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
                "the server does not say how many replicas have it: {reason}"
            ))),
        }
    }
}

impl Transport for AckTransport<'_> {
    /// Commands and `WAIT` in one go. `WAIT` answers for what was written on its
    /// own connection: elsewhere it says yes before any replica knows.
    async fn send(&self, key: &str, commands: &[Cmd]) -> Result<Vec<Value>, CommandError> {
        let ReplicaAcks { count, wait } = self.acks;
        let mut all = commands.to_vec();
        let mut waits = cmd("WAIT");
        // 0 would be for ever.
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
        // An error of `WAIT` is none of the commands, which count.
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
