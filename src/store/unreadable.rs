//! A record that cannot be read, as an operator sees it: its name, the reason, and a stamp
//! of its bytes. It never holds the bytes themselves.

use std::sync::Arc;

#[cfg(any(feature = "file", feature = "redis"))]
use crate::error::RefusalKind;
use crate::error::StoreError;
use crate::key::{IdempotencyKey, RecordName};
#[cfg(any(feature = "file", feature = "redis"))]
use crate::record::is_newer;

/// A record that is in the store and cannot be read: damaged, made by another
/// program, or written by a newer version. Its key is refused until the record is
/// gone.
///
/// Listed by [`Engine::list`](crate::Engine::list), and removed by
/// [`Engine::discard_unreadable`](crate::Engine::discard_unreadable).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRecord {
    name: RecordName,
    reason: Arc<str>,
    is_newer: bool,
    stamp: Option<Arc<str>>,
}

impl UnreadableRecord {
    /// For stores: the record, and what is wrong with it.
    pub fn new(name: RecordName, reason: impl Into<Arc<str>>) -> Self {
        Self {
            name,
            reason: reason.into(),
            is_newer: false,
            stamp: None,
        }
    }

    /// The record that could not be read for this reason.
    pub(crate) fn of(name: RecordName, reason: &StoreError) -> Self {
        let reason = std::error::Error::source(reason).map(ToString::to_string);
        Self::new(name, reason.unwrap_or_default())
    }

    /// For stores: identifies exactly these bytes, for instance by a digest. A record
    /// without a stamp is never discarded.
    pub fn with_stamp(mut self, stamp: impl Into<Arc<str>>) -> Self {
        self.stamp = Some(stamp.into());
        self
    }

    /// For stores: a newer version of this crate wrote it.
    pub fn newer(mut self) -> Self {
        self.is_newer = true;
        self
    }

    /// The name of the record.
    pub fn name(&self) -> &RecordName {
        &self.name
    }

    /// The key whose record it is.
    pub fn key(&self) -> IdempotencyKey {
        self.name.key
    }

    /// What is wrong with it.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether a newer version of this crate wrote it: not damaged, and not
    /// discarded by this version.
    pub fn is_newer(&self) -> bool {
        self.is_newer
    }

    /// What identifies exactly these bytes in the store.
    pub fn stamp(&self) -> Option<&str> {
        self.stamp.as_deref()
    }
}

/// For the stores of this crate that keep bytes.
#[cfg(any(feature = "file", feature = "redis"))]
impl UnreadableRecord {
    /// The same, newer where its bytes say so.
    pub(super) fn written_as(self, bytes: &[u8]) -> Self {
        match is_newer(bytes) {
            true => self.newer(),
            false => self,
        }
    }

    /// The stamp of the bytes, if they may be removed.
    pub(super) fn removable(&self) -> Result<&Arc<str>, StoreError> {
        let stamp = self.stamp.as_ref().filter(|_| !self.is_newer);
        stamp.ok_or_else(|| {
            let reason = "it was not removed: a newer version wrote it, or it has no stamp; remove it with the store's own tools";
            StoreError::refused_as(RefusalKind::NotAllowed, reason)
        })
    }
}
