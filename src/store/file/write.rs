//! The writes to the file, within a transaction of the writer: a transition, or an
//! operator's command. It commits nothing.

use std::sync::Arc;

use super::clock::Moment;
use super::tables::{Tables, expiry, row_name, unreadable};
use crate::error::StoreError;
use crate::key::{Namespace, RecordName};
use crate::record::{self, Answer, Event};

/// What is written.
pub(super) enum Write {
    /// A transition.
    Event(RecordName, Box<Event>),
    /// Removes a record that cannot be read, if its bytes have this stamp.
    Discard(RecordName, Arc<str>),
    /// Raises the least version of a namespace's writers.
    Writer(Namespace, u32),
}

impl Write {
    /// The record that it changes.
    pub(super) fn name(&self) -> Option<&RecordName> {
        match self {
            Self::Event(name, _) | Self::Discard(name, _) => Some(name),
            Self::Writer(..) => None,
        }
    }

    /// Writes it, and returns the reply and the effect.
    pub(super) fn apply(
        &self,
        tables: &mut Tables<'_>,
        now: Moment,
    ) -> Result<(WriteReply, Effect), redb::Error> {
        match self {
            Self::Event(name, event) => apply(tables, name, event, now),
            Self::Discard(name, stamp) => discard(tables, name, stamp, now),
            Self::Writer(namespace, at_least) => {
                let (least, raised) = tables.raise_writer(namespace, *at_least)?;
                Ok((Ok(Written::Writer(least)), Effect::of(raised)))
            }
        }
    }
}

pub(super) type WriteReply = Result<Written, StoreError>;

/// The result of a write.
#[derive(Clone)]
pub(super) enum Written {
    Answer(Answer),
    /// Whether the record was removed.
    Discarded(bool),
    /// The least version.
    Writer(u32),
}

/// The effect of a write, which decides what its answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    Nothing,
    /// An `Extend` extended a lease, at another revision. A crash that loses it also ends
    /// the holder.
    Extended,
    Written,
}

impl Effect {
    fn of(written: bool) -> Self {
        match written {
            true => Self::Written,
            false => Self::Nothing,
        }
    }
}

/// One transition: the pure rules between a read and a write.
fn apply(
    tables: &mut Tables<'_>,
    named: &RecordName,
    event: &Event,
    now: Moment,
) -> Result<(WriteReply, Effect), redb::Error> {
    let name = row_name(named);
    let row = tables.row(&name)?;
    let current = match row.as_ref().map(|row| row.read(named, now)).transpose() {
        Ok(current) => current.flatten(),
        Err(unreadable) => return Ok((Err(unreadable), Effect::Nothing)),
    };
    let before = current.as_ref().map(|(record, left)| (record, *left));
    let (next, answer) = record::apply(before, event);
    let before = row.as_ref().map(|row| row.expires);
    let effect = match (&current, next) {
        (None, None) => Effect::Nothing,
        (Some((old, left)), Some((new, lives_on))) if old.rev == new.rev && *left == lives_on => {
            Effect::Nothing
        }
        (_, Some((new, left))) => {
            let bytes = new.encode(named);
            // An extension changes the revision and the end of the lease only.
            let prolongs = current.is_some() && matches!(event, Event::Extend { .. });
            tables.put(&name, before, Some((&new, &bytes, expiry(now, &new, left))))?;
            if prolongs {
                Effect::Extended
            } else {
                Effect::Written
            }
        }
        (Some(_), None) => {
            tables.put(&name, before, None)?;
            Effect::Written
        }
    };
    Ok((Ok(Written::Answer(answer)), effect))
}

/// Removes a record, if it still cannot be read and its bytes have this stamp.
fn discard(
    tables: &mut Tables<'_>,
    named: &RecordName,
    stamp: &str,
    now: Moment,
) -> Result<(WriteReply, Effect), redb::Error> {
    let name = row_name(named);
    let row = tables.row(&name)?;
    let discarded = row.filter(|row| {
        let found = row.read(named, now).err();
        let found = found.map(|error| unreadable(named, &row.bytes, &error));
        found.is_some_and(|found| !found.is_newer() && found.stamp() == Some(stamp))
    });
    if let Some(row) = &discarded {
        tables.put(&name, Some(row.expires), None)?;
    }
    let removed = discarded.is_some();
    Ok((Ok(Written::Discarded(removed)), Effect::of(removed)))
}
