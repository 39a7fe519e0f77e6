//! A `tracing` subscriber for the thread of one test.

use std::sync::LazyLock;

use tracing::dispatcher::DefaultGuard;
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Subscriber};

/// Sets the default subscriber of this thread.
///
/// With only one dispatcher in the process, `tracing` asks the thread that reaches an event
/// first whether any subscriber wants it. If that thread belongs to another test, which has no
/// subscriber, the event is switched off for all threads. A second dispatcher prevents this.
pub fn listen(subscriber: impl Subscriber + Send + Sync + 'static) -> DefaultGuard {
    static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
    LazyLock::force(&SECOND);
    tracing::dispatcher::set_default(&Dispatch::new(subscriber))
}
