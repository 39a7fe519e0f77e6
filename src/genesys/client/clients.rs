//! The HTTP client of each runtime. It knows no request.

use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Client;
use tokio::runtime::{self, Handle};

use super::environment::Environment;
use super::transport::Settings;
use crate::error::Error;

/// The HTTP clients of one upstream: one for each runtime that uses it.
///
/// A connection is a task of the runtime that made it. A request on another runtime would
/// wait for that task, which might never be polled again.
pub(super) struct Clients {
    settings: Settings,
    environment: Environment,
    /// In the order of their last use.
    known: Mutex<Vec<(Option<runtime::Id>, Client)>>,
}

impl Clients {
    /// More runtimes than a program has; beyond it, clients are built again.
    const MAX_CLIENTS: usize = 16;

    /// Builds the client of this runtime, which reports impossible settings.
    pub(super) fn new(settings: Settings, environment: Environment) -> Result<Arc<Self>, Error> {
        let clients = Self {
            settings,
            environment,
            known: Mutex::default(),
        };
        clients.of_this_runtime()?;
        Ok(Arc::new(clients))
    }

    /// The client whose connections run on this runtime.
    pub(super) fn of_this_runtime(&self) -> Result<Client, Error> {
        let runtime = Handle::try_current().ok().map(|handle| handle.id());
        // A panic leaves no half of an entry.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match known.iter().position(|(of, _)| *of == runtime) {
            Some(at) => known.remove(at),
            None => (runtime, self.settings.build(&self.environment)?),
        };
        if known.len() == Self::MAX_CLIENTS {
            known.remove(0);
        }
        let client = found.1.clone();
        known.push(found);
        Ok(client)
    }
}
