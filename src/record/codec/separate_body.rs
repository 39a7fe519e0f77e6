//! A record whose body is stored separately: written without its body, read without it, and
//! joined with it again. It does not know where the body is: the store does.

use std::sync::Arc;

use bytes::Bytes;

use super::json_writer::{Name, write_separate};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::outcome::StoredBody;
use crate::record::{Content, Record};

impl Record {
    /// This record joined with its separate body; its status alone where the body is gone.
    ///
    /// # Errors
    ///
    /// `StoreError::unreadable` for an encrypted outcome without its body: nothing of
    /// it can be read.
    pub(crate) fn with_body(mut self, body: Option<Bytes>) -> Result<Self, StoreError> {
        if let Content::Cached { stored, .. } = &mut self.content {
            match body {
                Some(body) => stored.outcome = Arc::new(stored.outcome.with_body(body)),
                None if stored.outcome.is_sealed() => {
                    return Err(StoreError::unreadable("its encrypted outcome is gone"));
                }
                None => {
                    stored.outcome = Arc::new(stored.outcome.status_only());
                    stored.body = StoredBody::OmittedTooLarge;
                }
            }
        }
        Ok(self)
    }
}

impl Content {
    /// The same in `limit` bytes. Where an outcome's body does not fit, the JSON says that
    /// it is separate, and the body is returned. A record without a body might take more.
    pub(crate) fn write_separate(
        &self,
        name: &RecordName,
        to: &mut Vec<u8>,
        limit: usize,
    ) -> Option<&Bytes> {
        match self {
            Self::Cached { stored, origin } => {
                write_separate(to, Some(Name(name)), stored, origin, limit)
            }
            _ => {
                self.write(name, to);
                None
            }
        }
    }
}
