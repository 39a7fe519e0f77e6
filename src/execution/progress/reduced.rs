//! The smaller form of a finishing event, for a store that refuses it as too large. Pure.

use crate::outcome::StoredBody;
use crate::record::{Cause, Event};

/// The longest cause of an indeterminate record in its smaller form, in bytes.
const MAX_SHORT_CAUSE: usize = 200;

/// The smaller form of a finishing event: a completion with the status alone, a release
/// without its refusal, an abandon with a short cause.
pub(super) fn reduced(event: Event) -> Option<Event> {
    match event {
        Event::Complete {
            claim,
            step,
            stored,
            origin,
            ttl,
        } if stored.body == StoredBody::Full => Some(Event::Complete {
            claim,
            step,
            stored: stored.reduced(StoredBody::OmittedTooLarge),
            origin,
            ttl,
        }),
        Event::Release {
            claim,
            step,
            refusal: Some(_),
        } => Some(Event::Release {
            claim,
            step,
            refusal: None,
        }),
        Event::Abandon { claim, step, cause } if cause.text.len() > MAX_SHORT_CAUSE => {
            let mut end = MAX_SHORT_CAUSE;
            while !cause.text.is_char_boundary(end) {
                end -= 1;
            }
            let text = cause.text[..end].into();
            Some(Event::Abandon {
                claim,
                step,
                cause: Cause { text, ..cause },
            })
        }
        _ => None,
    }
}
