//! The two events of people and policies: resolve an indeterminate record, or forget an
//! outcome. No engine sends them by itself, except for a policy.

use std::time::Duration;

use super::{Next, is};
use crate::record::{Answer, Content, LeaseId, RELEASED_FOR, Record, Revision, Version};

pub(super) fn resolve(
    current: Option<(&Record, Duration)>,
    resolver: Version,
    revision: Revision,
    found: Option<Content>,
    ttl: Duration,
) -> Next {
    let Some((record, _)) = current else {
        return Next::Keep(Answer::Is(None));
    };
    let applied = found.is_some();
    let next = match found {
        // Under the lost lease, so that a late proof still corrects the record.
        None => Record {
            retention: RELEASED_FOR,
            content: Content::Released { refusal: None },
            ..record.clone()
        },
        // Under the resolver's lease: the lost holder might still send an outcome, and two
        // recorded outcomes must not differ.
        Some(content) => Record {
            lease: resolver.lease,
            retention: ttl,
            content,
            ..record.clone()
        },
    };
    match &record.content {
        _ if record.fingerprint != resolver.fingerprint => Next::Keep(is(current)),
        Content::Indeterminate { .. } if record.revision() == revision => {
            let rev = record.rev + 1;
            let left = next.retention;
            Next::Write(Record { rev, ..next }, left, Answer::Done)
        }
        // A repeated command: the reply to the first was lost.
        Content::Cached { .. } if applied && record.lease == resolver.lease => {
            Next::Keep(Answer::Done)
        }
        Content::Released { .. }
            if !applied
                && record.lease == revision.lease
                && record.rev == revision.rev.saturating_add(1) =>
        {
            Next::Keep(Answer::Done)
        }
        _ => Next::Keep(is(current)),
    }
}

pub(super) fn forget(current: Option<(&Record, Duration)>, lease: LeaseId) -> Next {
    match current {
        Some((
            record @ Record {
                content: Content::Cached { .. },
                ..
            },
            left,
        )) => {
            let record = Record {
                rev: record.rev + 1,
                lease,
                retention: left,
                content: Content::Released { refusal: None },
                ..record.clone()
            };
            Next::Write(record, left, Answer::Done)
        }
        // A repeated command: the reply to the first was lost.
        Some((
            Record {
                content: Content::Released { .. },
                lease: theirs,
                ..
            },
            _,
        )) if *theirs == lease => Next::Keep(Answer::Done),
        _ => Next::Keep(is(current)),
    }
}
