//! placeholder
#![allow(missing_docs)]
use crate::error::Error;
use crate::key::{Fingerprint, IdempotencyKey};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct DataActionRequest {
    action: ActionId,
    payload: Payload,
    key: IdempotencyKey,
    ttl: Option<Duration>,
    sensitive: bool,
}
impl DataActionRequest {
    pub fn new(action_id: impl AsRef<str>, payload: impl Into<Payload>) -> Result<Self, Error> {
        let payload = payload.into();
        let key = IdempotencyKey::from_bytes(
            Sha256::new()
                .chain_update(action_id.as_ref())
                .chain_update(":")
                .chain_update(&payload.0)
                .finalize()
                .into(),
        );
        Ok(Self {
            action: action_id.as_ref().parse()?,
            payload,
            key,
            ttl: None,
            sensitive: false,
        })
    }
    pub fn from_serialize<T: Serialize + ?Sized>(
        action_id: impl AsRef<str>,
        payload: &T,
    ) -> Result<Self, Error> {
        Self::new(action_id, serde_json::to_vec(payload).unwrap())
    }
    pub fn scope(self, _word: impl AsRef<str>) -> Result<Self, Error> {
        Ok(self)
    }
    pub fn key(self, _key: impl AsRef<str>) -> Result<Self, Error> {
        Ok(self)
    }
    pub fn ignoring<P: AsRef<str>>(
        self,
        _pointers: impl IntoIterator<Item = P>,
    ) -> Result<Self, Error> {
        Ok(self)
    }
    pub fn forward_key(self, _pointer: impl AsRef<str>) -> Result<Self, Error> {
        Ok(self)
    }
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
    pub fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }
    pub fn action_id(&self) -> &ActionId {
        &self.action
    }
    pub fn payload(&self) -> &Bytes {
        &self.payload.0
    }
    pub fn fingerprint(&self, route: &str) -> Fingerprint {
        Fingerprint::from_bytes(
            Sha256::new()
                .chain_update(&self.payload.0)
                .chain_update(route)
                .finalize()
                .into(),
        )
    }
    pub(crate) fn wire_body(&self) -> Bytes {
        self.payload.0.clone()
    }
    pub(crate) fn requested_ttl(&self) -> Option<Duration> {
        self.ttl
    }
    pub(crate) fn is_sensitive(&self) -> bool {
        self.sensitive
    }
}
impl IdempotencyKey {
    pub fn of(request: &DataActionRequest) -> Self {
        request.key
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ActionId(Arc<str>);
impl ActionId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl std::str::FromStr for ActionId {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        Ok(Self(s.into()))
    }
}
impl std::fmt::Display for ActionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
#[derive(Clone)]
pub struct Payload(Bytes);
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}
impl From<&str> for Payload {
    fn from(v: &str) -> Self {
        Self(Bytes::copy_from_slice(v.as_bytes()))
    }
}
impl From<String> for Payload {
    fn from(v: String) -> Self {
        Self(v.into())
    }
}
impl From<&[u8]> for Payload {
    fn from(v: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(v))
    }
}
impl From<Vec<u8>> for Payload {
    fn from(v: Vec<u8>) -> Self {
        Self(v.into())
    }
}
impl From<Bytes> for Payload {
    fn from(v: Bytes) -> Self {
        Self(v)
    }
}
impl From<serde_json::Value> for Payload {
    fn from(v: serde_json::Value) -> Self {
        Self(v.to_string().into())
    }
}
impl From<&serde_json::Value> for Payload {
    fn from(v: &serde_json::Value) -> Self {
        Self(v.to_string().into())
    }
}
