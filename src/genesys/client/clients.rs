//! Which HTTP client a runtime uses. It knows of a client only how it is built.

use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Client;
use tokio::runtime::{self, Handle};

use super::environment::Environment;
use super::transport::Settings;
use crate::error::Error;

/// The HTTP clients of one upstream: one for each runtime that it is used on.
///
/// A connection is a task of the runtime that made it. On another one, a request
/// would wait for a task that is polled only when its own runtime is driven, which
/// may be never again.
pub(super) struct Clients {
    settings: Settings,
    environment: Environment,
    /// The one used last is the last.
    known: Mutex<Vec<(Option<runtime::Id>, Client)>>,
}

impl Clients {
    /// More runtimes than a program has; beyond it, clients are built anew.
    const MOST: usize = 16;

    /// Builds the client of this runtime, which finds impossible settings.
    pub(super) fn new(settings: Settings, environment: Environment) -> Result<Arc<Self>, Error> {
        let clients = Self {
            settings,
            environment,
            known: Mutex::default(),
        };
        clients.of_this_runtime()?;
        Ok(Arc::new(clients))
    }

    /// The client whose connections this runtime drives.
    pub(super) fn of_this_runtime(&self) -> Result<Client, Error> {
        let runtime = Handle::try_current().ok().map(|handle| handle.id());
        // A panic leaves no half of an entry.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match known.iter().position(|(of, _)| *of == runtime) {
            Some(at) => known.remove(at),
            None => (runtime, self.settings.build(&self.environment)?),
        };
        if known.len() == Self::MOST {
            known.remove(0);
        }
        let client = found.1.clone();
        known.push(found);
        Ok(client)
    }
}
