//! Which bytes keys and fingerprints are hashes of. It hashes the canonical payload once
//! and continues each form from that state; it never keeps the payload.

use sha2::{Digest, Sha256};

use super::{ActionId, DataActionRequest};
use crate::canonical::{PointerSet, with_canonical};
use crate::error::Error;
use crate::key::{Fingerprint, IdempotencyKey};

impl IdempotencyKey {
    /// The key of a request, which was derived when the request was made.
    ///
    /// It is a SHA-256 of
    ///
    /// | the request has | bytes that are hashed |
    /// |---|---|
    /// | neither | action id `:` canonical payload |
    /// | a scope | action id `:` canonical payload `\n` scope |
    /// | its own key | action id `::` the key as a JSON string |
    /// | both | action id `::` the key as a JSON string `\n` scope |
    /// | an engine with a [scope](crate::Engine::scoped) | any of these, and before `\n` scope: `\n\n`, the bytes of the engine's scope as a number, `:`, that scope |
    ///
    /// The canonical payload is what
    /// [`canonicalize`](crate::canonical::canonicalize) gives, without what the
    /// request ignores; the JSON string escapes `"` and `\` only. No text has two of
    /// these forms: an id has no colon, no canonical payload begins with one, and
    /// neither payload, key nor scope has a line feed.
    ///
    /// A key can be checked in a shell:
    ///
    /// ```text
    /// $ printf '%s:%s' 'custom_-_1' '{"customer":42,"note":"é"}' | sha256sum
    /// f593fe05d7360acf13de1a7a9beceed6eea30eddee3f1eb11a9102aee9945628  -
    /// ```
    ///
    /// and in a program:
    ///
    /// ```
    /// use genesys_once::{DataActionRequest, IdempotencyKey};
    /// use sha2::{Digest, Sha256};
    ///
    /// let request = DataActionRequest::new("custom_-_1", r#"{ "note": "é", "customer": 4.2e1 }"#)?;
    /// let hashed = Sha256::digest(r#"custom_-_1:{"customer":42,"note":"é"}"#);
    /// assert_eq!(IdempotencyKey::of(&request), IdempotencyKey::from_bytes(hashed.into()));
    /// assert_eq!(
    ///     IdempotencyKey::of(&request).to_string(),
    ///     "f593fe05d7360acf13de1a7a9beceed6eea30eddee3f1eb11a9102aee9945628",
    /// );
    ///
    /// let request = request.with_key("order \"42\"")?.with_scope("eu")?;
    /// let hashed = Sha256::digest("custom_-_1::\"order \\\"42\\\"\"\neu");
    /// assert_eq!(IdempotencyKey::of(&request), IdempotencyKey::from_bytes(hashed.into()));
    /// # Ok::<(), genesys_once::Error>(())
    /// ```
    pub fn of(request: &DataActionRequest) -> Self {
        request.0.key
    }
}

/// The state of the hash after action id, colon and canonical payload.
#[derive(Clone)]
pub(super) struct Derivation(Sha256);

impl Derivation {
    /// Reads and hashes `payload` without the `ignored` parts. Also returns whether the rest
    /// is an empty object or array.
    pub(super) fn new(
        action_id: &ActionId,
        payload: &[u8],
        ignored: &PointerSet,
    ) -> Result<(Self, bool), Error> {
        // Updated in place: `chain_update` would move the state each time.
        let mut hash = Sha256::new();
        hash.update(action_id.as_str());
        hash.update(":");
        let empty = with_canonical(payload, ignored, |canonical| {
            hash.update(canonical);
            matches!(canonical, b"{}" | b"[]")
        });
        match empty {
            Ok(empty) => Ok((Self(hash), empty)),
            Err(error) => Err(Error::invalid_request("payload", error.to_string())),
        }
    }

    /// The key of the payload.
    pub(super) fn key(&self, scopes: Scopes<'_>) -> IdempotencyKey {
        finish(self.0.clone(), scopes)
    }

    /// The fingerprint. A NUL follows the payload; no key's hash and no canonical payload
    /// contains one.
    pub(super) fn fingerprint(&self, route: &str) -> Fingerprint {
        let mut hash = self.0.clone();
        hash.update(b"\0fingerprint 2\0");
        hash.update(route);
        Fingerprint::from_bytes(hash.finalize().into())
    }
}

/// The key of the caller's own key, which has no control characters.
pub(super) fn own_key(action_id: &ActionId, key: &str, scopes: Scopes<'_>) -> IdempotencyKey {
    let mut hash = Sha256::new()
        .chain_update(action_id.as_str())
        .chain_update("::\"");
    for part in key.split_inclusive(['"', '\\']) {
        let (plain, special) = match part.strip_suffix(['"', '\\']) {
            Some(plain) => (plain, &part[plain.len()..]),
            None => (part, ""),
        };
        hash.update(plain);
        if !special.is_empty() {
            hash.update("\\");
            hash.update(special);
        }
    }
    hash.update("\"");
    finish(hash, scopes)
}

/// The scopes that distinguish equal requests. A scope has no control characters, so that a
/// line feed begins the next part: one the request's scope, two the engine's.
#[derive(Clone, Copy, Default)]
pub(super) struct Scopes<'a> {
    /// Of the engine.
    pub(super) within: Option<&'a str>,
    /// Of the request.
    pub(super) own: Option<&'a str>,
}

fn finish(mut hash: Sha256, scopes: Scopes<'_>) -> IdempotencyKey {
    if let Some(within) = scopes.within {
        hash.update("\n\n");
        hash.update(within.len().to_string());
        hash.update(":");
        hash.update(within);
    }
    if let Some(scope) = scopes.own {
        hash.update("\n");
        hash.update(scope);
    }
    IdempotencyKey::from_bytes(hash.finalize().into())
}
