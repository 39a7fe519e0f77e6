//! What a record shows to people: its request, its holder, the origin of its outcome. No
//! rule reads any of it, and a part that cannot be read blocks no key.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::serialize;
use crate::request::{ActionId, DataActionRequest};

/// What a `Locked` or `Indeterminate` record shows of its request and its holder.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct About {
    /// The action that is executed.
    #[serde(serialize_with = "serialize::action")]
    pub action: Option<ActionId>,
    /// The caller's names for the request.
    #[serde(flatten)]
    pub caller: Caller,
    /// The engine that holds the key, or held it when the key became indeterminate.
    #[serde(serialize_with = "serialize::holder")]
    pub holder: Option<Arc<Holder>>,
}

/// The caller's names for a request: none where the request is
/// [`sensitive`](DataActionRequest::sensitive).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Caller {
    /// The caller's own key.
    #[serde(serialize_with = "serialize::some_text")]
    pub own_key: Option<Arc<str>>,
    /// Its scope.
    #[serde(serialize_with = "serialize::some_text")]
    pub scope: Option<Arc<str>>,
    /// Its [`label`](DataActionRequest::with_label).
    #[serde(serialize_with = "serialize::some_text")]
    pub label: Option<Arc<str>>,
    /// The three above, encrypted, where they cannot be opened.
    #[serde(serialize_with = "serialize::is_there")]
    pub(crate) sealed: Option<Arc<str>>,
}

/// The engine that holds a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The name of its host.
    #[serde(serialize_with = "serialize::text")]
    pub host: Arc<str>,
    /// The id of its process.
    pub process: u32,
    /// When the engine started, by its wall clock.
    #[serde(rename = "started_ms", serialize_with = "serialize::time")]
    pub started: SystemTime,
}

/// Where a recorded outcome comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Origin {
    /// The action that was executed.
    #[serde(serialize_with = "serialize::action")]
    pub action: Option<ActionId>,
    /// When the platform answered, by the holder's wall clock; `None` where a person or a
    /// policy supplied the outcome.
    #[serde(rename = "answered_ms", serialize_with = "serialize::some_time")]
    pub answered: Option<SystemTime>,
    /// How many attempts were made.
    pub attempts: u32,
    /// The resolution of the key, where it was indeterminate.
    pub resolved: Option<Resolved>,
}

/// That a key was resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resolved {
    /// When, by the resolver's wall clock.
    #[serde(rename = "at_ms", serialize_with = "serialize::time")]
    pub at: SystemTime,
    /// The person or ticket, where one was named:
    /// [`Resolution::by`](super::Resolution::by).
    #[serde(serialize_with = "serialize::some_text")]
    pub by: Option<Arc<str>>,
}

impl Caller {
    fn of(request: &DataActionRequest) -> Self {
        let [own_key, scope, label] = request.called();
        Self {
            own_key,
            scope,
            label,
            sealed: None,
        }
    }
}

impl About {
    /// The names of a request under this holder.
    pub(crate) fn new(request: &DataActionRequest, holder: Arc<Holder>) -> Self {
        Self {
            action: Some(request.action_id().clone()),
            caller: Caller::of(request),
            holder: Some(holder),
        }
    }

    /// The same without the caller's names.
    pub(crate) fn sensitive(self: Arc<Self>) -> Arc<Self> {
        if self.caller == Caller::default() {
            return self;
        }
        let mut about = Arc::unwrap_or_clone(self);
        about.caller = Caller::default();
        Arc::new(about)
    }
}
