//! What the handlers share. It is cheap to clone, and decides nothing.

use std::sync::Arc;

use axum::extract::FromRef;
use genesys_once::Engine;
use tokio::sync::watch;

use crate::bodies::Bodies;
use crate::session::Sessions;
use crate::settings::Settings;

#[derive(Clone)]
pub(crate) struct App {
    pub engine: Engine,
    pub settings: Arc<Settings>,
    pub bodies: Bodies,
    /// What a client without a token may send.
    pub forms: Bodies,
    /// The page's sessions; `None` without an admin token.
    pub sessions: Option<Sessions>,
    pub places: Arc<Places>,
    /// `true` once the service is asked to end.
    pub draining: watch::Receiver<bool>,
}

/// Descriptions of what the service uses, for operators to read.
pub struct Places {
    pub platform: String,
    pub store: String,
    /// Which records the store may lose.
    pub durability: Box<dyn Fn() -> String + Send + Sync>,
}

impl FromRef<App> for Engine {
    fn from_ref(app: &App) -> Self {
        app.engine.clone()
    }
}
