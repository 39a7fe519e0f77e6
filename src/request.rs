//! A caller's request: an action, a payload, and what makes two requests one. It reads,
//! checks and hashes the payload once; it decides nothing about sending.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::canonical::{Pointer, PointerSet};
use crate::error::Error;
use crate::key::{Fingerprint, IdempotencyKey};

mod action_id;
mod derivation;
mod forward;
mod options;
mod payload;
mod scope;

pub use action_id::ActionId;
use derivation::{Derivation, Scopes};
use forward::Forward;
pub use payload::Payload;
pub use scope::Scope;

/// A request to execute one Data Action with one payload.
///
/// Two requests with the same [`IdempotencyKey`] are one: the platform sees one call.
/// [`new`](Self::new) reads, checks and hashes the payload on the caller's thread. A
/// clone shares everything. The caller's own bytes are sent.
///
/// The settings may be given in any order, and each but the scope again: the last one
/// counts, unless its documentation says otherwise.
///
/// ```
/// use genesys_once::{DataActionRequest, IdempotencyKey};
///
/// let a = DataActionRequest::new("custom_-_1", r#"{"customer": 42, "note": "é"}"#)?;
/// let b = DataActionRequest::new("custom_-_1", r#"{"note":"\u00e9","customer":42.0}"#)?;
/// assert_eq!(IdempotencyKey::of(&a), IdempotencyKey::of(&b));
///
/// let again = b.with_scope("retry of 2 May")?;
/// assert_ne!(IdempotencyKey::of(&a), IdempotencyKey::of(&again));
/// # Ok::<(), genesys_once::Error>(())
/// ```
///
/// `Debug` shows the action, the key and the payload's length, nothing of its
/// content.
#[derive(Clone)]
pub struct DataActionRequest(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    action_id: ActionId,
    payload: Payload,
    derivation: Derivation,
    key: IdempotencyKey,
    scope: Option<Arc<str>>,
    /// The scope of the engine that executes it; its own is within that.
    within: Option<Scope>,
    own_key: Option<Arc<str>>,
    label: Option<Arc<str>>,
    /// Sorted, each once.
    ignored: Vec<Pointer>,
    /// The ignored pointers that match nothing in this payload.
    unmatched: Vec<Pointer>,
    forward: Option<Forward>,
    ttl: Option<Duration>,
    start_within: Option<Duration>,
    sensitive: bool,
}

impl DataActionRequest {
    /// A request to execute the action `action_id` with `payload`, a JSON text
    /// in UTF-8.
    ///
    /// There is no limit on the payload's length here; the engine has one.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `action_id` (see [`ActionId`])
    /// or `payload`. The reason then names the byte offset and never quotes the payload;
    /// [`canonical`](crate::canonical) says what is refused.
    pub fn new(action_id: impl AsRef<str>, payload: impl Into<Payload>) -> Result<Self, Error> {
        let action_id: ActionId = action_id.as_ref().parse()?;
        let payload = payload.into();
        let (derivation, _) = Derivation::new(&action_id, payload.bytes(), &PointerSet::default())?;
        Ok(Self(Arc::new(Parts {
            key: derivation.key(Scopes::default()),
            action_id,
            payload,
            derivation,
            scope: None,
            within: None,
            own_key: None,
            label: None,
            ignored: Vec::new(),
            unmatched: Vec::new(),
            forward: None,
            ttl: None,
            start_within: None,
            sensitive: false,
        })))
    }

    /// As [`new`](Self::new), with `payload` serialised as JSON. Numbers that are not
    /// finite become `null`, as `serde_json` writes them.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] as from [`new`](Self::new). The field is `payload` also
    /// if the value cannot be serialised, such as a map whose keys are not text, or
    /// writes one member twice.
    pub fn from_serialize<T: Serialize + ?Sized>(
        action_id: impl AsRef<str>,
        payload: &T,
    ) -> Result<Self, Error> {
        // The text of serde_json's error might quote the payload.
        let payload = serde_json::to_vec(payload)
            .map_err(|_| Error::invalid_request("payload", "it cannot be serialised as JSON"))?;
        Self::new(action_id, payload)
    }

    /// Sets a scope: the same action and payload in another scope is another
    /// request, so that a deliberate repeat is possible.
    ///
    /// A request has one scope of its own. To separate tenants, narrow the engine
    /// instead ([`Engine::scoped`](crate::Engine::scoped)): the request's scope is then
    /// within the tenant's.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `scope` unless `word` has 1–255 bytes and
    /// no control characters. Also if the request has a scope: code that is given a
    /// request cannot replace the scope that separates it from others.
    pub fn with_scope(self, word: impl AsRef<str>) -> Result<Self, Error> {
        let word = checked("scope", word.as_ref(), 255)?;
        if self.0.scope.is_some() {
            let reason = "it is set already; see Engine::scoped";
            return Err(Error::invalid_request("scope", reason));
        }
        Ok(self.with(|parts| parts.scope = Some(word)))
    }

    /// Sets the caller's own key: the [`IdempotencyKey`] is then made of it
    /// instead of the payload.
    ///
    /// The [fingerprint](Self::fingerprint) still distinguishes payloads: the same own
    /// key with another payload is [`Error::PayloadMismatch`], never the answer to the
    /// other payload.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `key` unless `key` has 1–255
    /// bytes and no control characters.
    pub fn with_key(self, key: impl AsRef<str>) -> Result<Self, Error> {
        let key = checked("key", key.as_ref(), 255)?;
        Ok(self.with(|parts| parts.own_key = Some(key)))
    }

    /// Sets a label for operators, such as `refund order 42`. The record holds it while
    /// the key has a lease or is indeterminate. It changes neither key nor fingerprint.
    /// Among callers that joined one execution, the first caller's label counts;
    /// [`sensitive`](Self::sensitive) omits it.
    ///
    /// ```
    /// use genesys_once::{DataActionRequest, IdempotencyKey};
    ///
    /// let plain = DataActionRequest::new("custom_-_refund", r#"{"order":42}"#)?;
    /// let labelled = plain.clone().with_label("refund order 42")?;
    /// assert_eq!(IdempotencyKey::of(&plain), IdempotencyKey::of(&labelled));
    /// # Ok::<(), genesys_once::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `label` unless `text` has 1–256
    /// bytes and no control characters.
    pub fn with_label(self, text: impl AsRef<str>) -> Result<Self, Error> {
        let label = checked("label", text.as_ref(), 256)?;
        Ok(self.set(|parts| parts.label = Some(label)))
    }

    /// Leaves parts of the payload, such as a time stamp, out of key and fingerprint.
    /// They are sent all the same.
    ///
    /// `pointers` are JSON Pointers (RFC 6901) to members or array elements; a second
    /// call adds to the first. Two requests whose rests are equal share an answer,
    /// whatever either ignores.
    ///
    /// A pointer that matches nothing changes nothing. The engine logs it at `WARN`,
    /// once per action: the pointer might be misspelled, and each call might be a
    /// new request.
    ///
    /// ```
    /// use genesys_once::{DataActionRequest, IdempotencyKey};
    ///
    /// let request = |payload: &str| {
    ///     DataActionRequest::new("action", payload)?.ignoring(["/timestamp"])
    /// };
    /// let first = request(r#"{"customer":42,"timestamp":1}"#)?;
    /// let second = request(r#"{"customer":42,"timestamp":2}"#)?;
    /// assert_eq!(IdempotencyKey::of(&first), IdempotencyKey::of(&second));
    /// # Ok::<(), genesys_once::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `ignoring` for a malformed
    /// pointer, and for the empty one, which points at the whole payload. Also if the
    /// pointers leave an empty object or array of the payload: all requests of the
    /// action would be one. [`with_key`](Self::with_key) does that on purpose.
    pub fn ignoring<P: AsRef<str>>(
        self,
        pointers: impl IntoIterator<Item = P>,
    ) -> Result<Self, Error> {
        let mut ignored = self.0.ignored.clone();
        for pointer in pointers {
            let pointer = Pointer::read(pointer.as_ref())
                .map_err(|reason| Error::invalid_request("ignoring", reason))?;
            ignored.push(pointer);
        }
        ignored.sort_unstable();
        ignored.dedup();
        if ignored == self.0.ignored {
            return Ok(self);
        }
        let parts = &*self.0;
        let set = PointerSet::new(&ignored);
        let (derivation, empty) = Derivation::new(&parts.action_id, parts.payload.bytes(), &set)?;
        if empty && !parts.payload.is_empty_container() {
            let reason = "it leaves an empty payload, so that all requests would be one";
            return Err(Error::invalid_request("ignoring", reason));
        }
        let unmatched = ignored.iter().filter(|pointer| !set.has_matched(pointer));
        let unmatched = unmatched.cloned().collect();
        Ok(self.with(|parts| {
            parts.ignored = ignored;
            parts.unmatched = unmatched;
            parts.derivation = derivation;
        }))
    }

    /// Adds the idempotency key's 64 hex digits to the bytes that are sent, as the member
    /// at `pointer`, so that the system behind the action can also detect a repeat.
    ///
    /// Key and fingerprint do not depend on that member. It becomes the first of its
    /// object; all other bytes are sent as the caller wrote them. It holds the final
    /// key, whatever is set after this call.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] with the field `forward_key` for a pointer that is
    /// malformed or empty, whose parent is not an object, or whose member exists.
    pub fn forward_key(self, pointer: impl AsRef<str>) -> Result<Self, Error> {
        let forward = Forward::new(pointer.as_ref(), &self.0.payload)
            .map_err(|reason| Error::invalid_request("forward_key", reason))?;
        Ok(self.with(|parts| parts.forward = Some(forward)))
    }

    /// The action to execute.
    pub fn action_id(&self) -> &ActionId {
        &self.0.action_id
    }

    /// The caller's own bytes.
    pub fn payload(&self) -> &Bytes {
        self.0.payload.bytes()
    }

    /// The key of this request: [`IdempotencyKey::of`].
    pub fn idempotency_key(&self) -> IdempotencyKey {
        self.0.key
    }

    /// The digest of what this request asks for: two requests with one key share an
    /// answer only if their fingerprints are equal.
    ///
    /// A SHA-256 of the action, the canonical payload without the ignored parts, and
    /// `route`: the upstream's [`route_label`](crate::Upstream::route_label), which is
    /// platform and path. Which pointers are ignored and where the key is forwarded is
    /// no part of it.
    pub fn fingerprint(&self, route: &str) -> Fingerprint {
        self.0.derivation.fingerprint(route)
    }

    /// The bytes to send.
    pub(crate) fn wire_body(&self) -> Bytes {
        match &self.0.forward {
            Some(forward) => forward.splice(self.payload(), self.0.key),
            None => self.payload().clone(),
        }
    }

    /// The pointers of [`ignoring`](Self::ignoring) that match nothing.
    pub(crate) fn unmatched(&self) -> impl Iterator<Item = &str> {
        self.0.unmatched.iter().map(Pointer::as_str)
    }

    /// The same request in the scope of a narrower engine.
    pub(crate) fn within(self, scope: &Scope) -> Self {
        self.with(|parts| parts.within = Some(scope.clone()))
    }

    /// The caller's names for it: own key, scope, label. The scope is for operators: the
    /// engine's first.
    pub(crate) fn called(&self) -> [Option<Arc<str>>; 3] {
        let parts = &*self.0;
        let scope = match (&parts.within, &parts.scope) {
            (Some(within), Some(scope)) => Some(format!("{within} / {scope}").into()),
            (Some(within), None) => Some(within.as_str().into()),
            (None, scope) => scope.clone(),
        };
        [parts.own_key.clone(), scope, parts.label.clone()]
    }

    /// This request with all its settings and another payload.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn with_payload(&self, payload: impl Into<Payload>) -> Result<Self, Error> {
        let parts = &*self.0;
        let mut request = Self::new(&parts.action_id, payload)?
            .ignoring(parts.ignored.iter().map(Pointer::as_str))?;
        if let Some(forward) = &parts.forward {
            request = request.forward_key(forward.pointer().as_str())?;
        }
        Ok(request.with(|new| {
            new.scope.clone_from(&parts.scope);
            new.within.clone_from(&parts.within);
            new.own_key.clone_from(&parts.own_key);
            new.label.clone_from(&parts.label);
            new.ttl = parts.ttl;
            new.start_within = parts.start_within;
            new.sensitive = parts.sensitive;
        }))
    }

    /// Changes parts that the key does not depend on, in place unless a clone shares them.
    fn set(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Changes parts, and derives the key again.
    fn with(self, change: impl FnOnce(&mut Parts)) -> Self {
        let mut parts = self.set(change).0;
        let own = Arc::make_mut(&mut parts);
        let scopes = Scopes {
            within: own.within.as_ref().map(Scope::as_str),
            own: own.scope.as_deref(),
        };
        own.key = match &own.own_key {
            Some(key) => derivation::own_key(&own.action_id, key, scopes),
            None => own.derivation.key(scopes),
        };
        Self(parts)
    }
}

impl fmt::Debug for DataActionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataActionRequest")
            .field("action_id", &self.0.action_id)
            .field("key", &self.0.key)
            .field("payload", &self.0.payload)
            .finish_non_exhaustive()
    }
}

/// A scope, a label or a caller's own key.
fn checked(field: &'static str, text: &str, most: usize) -> Result<Arc<str>, Error> {
    if !(1..=most).contains(&text.len()) {
        let reason = format!("it must have 1 to {most} bytes");
        Err(Error::invalid_request(field, reason))
    } else if text.contains(char::is_control) {
        let reason = "it must not contain control characters";
        Err(Error::invalid_request(field, reason))
    } else {
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests;
