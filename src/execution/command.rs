//! One command to the store: an event of one record, sent again after a lost reply. It knows no rule of
//! the protocol. Events are idempotent, so the answer to a repeated event says what the first one did.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{Answer, Event};
use crate::store::{self, Store};

/// A failure within this time is a broken connection. A slower failure is a time-out, and a repeated
/// command would take as long again.
pub(crate) const QUICK: Duration = Duration::from_millis(100);

/// The pause before a command is sent again after a quick failure.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether a command is sent a second time if its reply is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resend {
    Never,
    /// If the first failure came within [`QUICK`].
    IfQuick,
    Once,
}

/// Sends the events of one record.
pub(crate) struct Commands<'a> {
    store: &'a dyn Store,
    name: &'a RecordName,
    resend: Resend,
    lost_reply: bool,
}

impl<'a> Commands<'a> {
    pub(crate) fn new(store: &'a dyn Store, name: &'a RecordName, resend: Resend) -> Self {
        Self {
            store,
            name,
            resend,
            lost_reply: false,
        }
    }

    /// Whether the store might have applied a command without this process reading its answer.
    pub(crate) fn has_lost_reply(&self) -> bool {
        self.lost_reply
    }

    /// Sends one event. Returns the answer, and when the command that was answered was sent.
    pub(crate) async fn send(&mut self, event: &Event) -> Result<(Answer, Instant), StoreError> {
        let mut resend = self.resend;
        loop {
            let sent = Instant::now();
            let answer = self.store.apply(self.name, event.clone()).await;
            let error = match answer.and_then(store::readable) {
                Ok(answer) => return Ok((answer, sent)),
                Err(error) => error,
            };
            self.lost_reply |= error.might_be_applied();
            match std::mem::replace(&mut resend, Resend::Never) {
                Resend::Once if !error.is_definite() => {}
                Resend::IfQuick
                    if (!error.is_definite() || error.is_not_now()) && sent.elapsed() < QUICK =>
                {
                    let pause = tokio::time::sleep(PAUSE);
                    Box::pin(pause).await;
                }
                _ => return Err(error),
            }
        }
    }
}
