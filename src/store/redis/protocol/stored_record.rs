//! A record as it was found, its body still apart perhaps, and what becomes of it:
//! the state with its body, read after the record.

use std::time::Duration;

use super::scripts::MAX_RECORD_BYTES;
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{Claim, Content, Record, RecordState};

/// For ever, in practice: what lies beyond it could overflow Redis's clock.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Of a record beyond [`MAX_RECORD_BYTES`].
pub(crate) const TOO_LARGE: &str = "the record is larger than 64 KiB without its body";

/// A record, and where its body is.
pub(crate) struct StoredRecord {
    pub(super) record: Record,
    /// The length of a body that is apart.
    pub(super) apart: Option<usize>,
    left: Duration,
}

impl StoredRecord {
    /// What a server returned, and the milliseconds that it lives on.
    pub(crate) fn read(name: &RecordName, bytes: &[u8], left: i64) -> Result<Self, StoreError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(StoreError::unreadable(TOO_LARGE));
        }
        let (record, apart) = Record::decode_separate(name, bytes)?;
        // Nothing of ours lives for ever: somebody has changed the key, and the script
        // that found it gave it its own time again.
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

    /// Whether it answers the request of this claim, or is in nobody's way.
    pub(crate) fn is_for(&self, claim: &Claim) -> bool {
        self.record.fingerprint == claim.fingerprint || self.state().is_free()
    }

    /// What is read of it but for a body that is apart.
    pub(crate) fn state(&self) -> RecordState {
        self.record.state(self.left)
    }
}
