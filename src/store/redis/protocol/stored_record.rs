//! A record as a server returned it, perhaps with a separate body. It reads no body.

use std::time::Duration;

use super::scripts::MAX_RECORD_BYTES;
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{Claim, Content, Record, RecordState};

/// The longest time to live: a longer one could overflow Redis's clock.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The error for a record over [`MAX_RECORD_BYTES`].
pub(crate) const TOO_LARGE: &str = "the record is larger than 64 KiB without its body";

/// A record, and whether its body is stored separately.
pub(crate) struct StoredRecord {
    pub(super) record: Record,
    /// The length of a separate body.
    pub(super) apart: Option<usize>,
    left: Duration,
}

impl StoredRecord {
    /// Decodes what a server returned; `left` is its `PTTL` in milliseconds.
    pub(crate) fn read(name: &RecordName, bytes: &[u8], left: i64) -> Result<Self, StoreError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(StoreError::unreadable(TOO_LARGE));
        }
        let (record, apart) = Record::decode_separate(name, bytes)?;
        // This crate writes no record without a time to live: another client has changed
        // the key, and the script that found it has set its time again.
        let left = u64::try_from(left).map_or(MAX_TTL, Duration::from_millis);
        Ok(Self {
            record,
            apart,
            left,
        })
    }

    pub(crate) fn has_body_apart(&self) -> bool {
        self.apart.is_some()
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(&self.record.content, Content::Cached { stored, .. } if stored.outcome.is_sealed())
    }

    pub(crate) fn is_cached(&self) -> bool {
        matches!(self.record.content, Content::Cached { .. })
    }

    /// Whether it is for the request of this claim, or free.
    pub(crate) fn is_for(&self, claim: &Claim) -> bool {
        self.record.fingerprint == claim.fingerprint || self.state().is_free()
    }

    /// The state without a separate body.
    pub(crate) fn state(&self) -> RecordState {
        self.record.state(self.left)
    }
}
