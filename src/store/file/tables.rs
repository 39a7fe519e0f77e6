//! The tables in the file, and the meaning of their rows. It decides no transition and
//! knows no thread.
//!
//! ```text
//! records    NAMESPACE:HEX                -> (clock, when it expires, the encoded record)
//! expiries   (clock, when, NAMESPACE:HEX) -> ()   which records to reclaim next
//! unsettled  NAMESPACE:HEX                -> ()   those Locked or Indeterminate
//! meta       format, id, store, open, wall, writer:NAMESPACE -> u64
//! ```
//!
//! Times are nanoseconds of one of the two [clocks](super::clock::Clock).

use std::ops::Bound;
use std::time::Duration;

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable, Table,
    TableDefinition, WriteTransaction,
};
use sha2::{Digest as _, Sha256};

use super::clock::{Clock, Moment, Stamp, may_be_indeterminate, nanos};
use super::meta::{read_stamp, read_writer, writer};
use crate::error::StoreError;
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::record::Record;
use crate::store::{Cursor, ListFilter, ListQuery, Page, UnreadableRecord};

type Value = (u8, u64, &'static [u8]);
type Due = (u8, u64, &'static str);

pub(super) const RECORDS: TableDefinition<&str, Value> = TableDefinition::new("records");
pub(super) const EXPIRIES: TableDefinition<Due, ()> = TableDefinition::new("expiries");
pub(super) const UNFINISHED: TableDefinition<&str, ()> = TableDefinition::new("unsettled");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The version of the tables above. A file of a higher one is refused.
const FORMAT: u64 = 1;

/// Rows that one read of a list examines: the longest that another read waits.
const PIECE: usize = 1000;

/// When a record expires, and by which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    clock: u8,
    at: u64,
}

impl Expiry {
    /// The time until then; `None` once it has passed.
    fn left(self, now: Moment) -> Option<Duration> {
        let now = if self.clock == Clock::Open as u8 {
            now.open
        } else {
            now.store
        };
        let left = self.at.checked_sub(now).filter(|left| *left > 0);
        left.map(Duration::from_nanos)
    }
}

/// A record in the file: when it expires, and its bytes.
pub(super) struct Row {
    pub(super) expires: Expiry,
    pub(super) bytes: Vec<u8>,
}

impl Row {
    /// The record and the time it lives on; `None` once it has expired.
    pub(super) fn read(
        &self,
        name: &RecordName,
        now: Moment,
    ) -> Result<Option<(Record, Duration)>, StoreError> {
        let Some(left) = self.expires.left(now) else {
            return Ok(None);
        };
        Ok(Some((Record::decode(name, &self.bytes)?, left)))
    }
}

/// All tables, within one write transaction.
pub(super) struct Tables<'t> {
    records: Table<'t, &'static str, Value>,
    expiries: Table<'t, Due, ()>,
    unfinished: Table<'t, &'static str, ()>,
    meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(txn: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            records: txn.open_table(RECORDS)?,
            expiries: txn.open_table(EXPIRIES)?,
            unfinished: txn.open_table(UNFINISHED)?,
            meta: txn.open_table(META)?,
        })
    }

    /// The format of the file; `None` in a new one.
    pub(super) fn format(&self) -> Result<Option<u64>, redb::Error> {
        Ok(self.meta.get("format")?.map(|format| format.value()))
    }

    pub(super) fn is_known(format: u64) -> bool {
        format == FORMAT
    }

    /// Marks an empty file as a store.
    pub(super) fn mark_format(&mut self) -> Result<(), redb::Error> {
        self.meta.insert("id", fastrand::u64(..))?;
        self.meta.insert("format", FORMAT)?;
        Ok(())
    }

    pub(super) fn last_stamp(&self) -> Result<Option<Stamp>, redb::Error> {
        read_stamp(&self.meta)
    }

    /// Writes the time, so that the next run continues from it.
    pub(super) fn stamp(&mut self, stamp: Stamp) -> Result<(), redb::Error> {
        self.meta.insert("store", stamp.moment.store)?;
        self.meta.insert("open", stamp.moment.open)?;
        self.meta.insert("wall", stamp.wall)?;
        Ok(())
    }

    /// The least version of a namespace's writers, raised to `at_least`; and whether it
    /// was raised.
    pub(super) fn raise_writer(
        &mut self,
        namespace: &Namespace,
        at_least: u32,
    ) -> Result<(u32, bool), redb::Error> {
        let least = read_writer(&self.meta, namespace)?;
        if least < at_least {
            self.meta.insert(&*writer(namespace), u64::from(at_least))?;
        }
        Ok((least.max(at_least), least < at_least))
    }

    pub(super) fn row(&self, name: &str) -> Result<Option<Row>, redb::Error> {
        read_row(&self.records, name)
    }

    /// Writes or removes a record and its index rows; `before` is the expiry of the row
    /// that it replaces.
    pub(super) fn put(
        &mut self,
        name: &str,
        before: Option<Expiry>,
        next: Option<(&Record, &[u8], Expiry)>,
    ) -> Result<(), redb::Error> {
        if let Some(Expiry { clock, at }) = before {
            self.expiries.remove((clock, at, name))?;
        }
        match next {
            Some((record, bytes, Expiry { clock, at })) => {
                self.records.insert(name, (clock, at, bytes))?;
                self.expiries.insert((clock, at, name), ())?;
                if may_be_indeterminate(record) {
                    self.unfinished.insert(name, ())?;
                } else {
                    self.unfinished.remove(name)?;
                }
            }
            None => {
                self.records.remove(name)?;
                self.unfinished.remove(name)?;
            }
        }
        Ok(())
    }

    /// Removes up to `limit` expired records and returns how many.
    pub(super) fn reclaim(&mut self, now: Moment, limit: usize) -> Result<usize, redb::Error> {
        let mut removed = 0;
        for clock in Clock::ALL {
            while removed < limit {
                let Some((at, name)) = self.first_expired(clock, now.by(clock))? else {
                    break;
                };
                let expires = Expiry {
                    clock: clock as u8,
                    at,
                };
                // The row decides: an index row never deletes a live record.
                let row = self.records.get(name.as_str())?;
                let of_row = row.map(|row| Expiry {
                    clock: row.value().0,
                    at: row.value().1,
                });
                if of_row == Some(expires) {
                    self.put(&name, Some(expires), None)?;
                } else {
                    self.expiries.remove((expires.clock, at, name.as_str()))?;
                }
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn first_expired(&self, clock: Clock, now: u64) -> Result<Option<(u64, String)>, redb::Error> {
        let clock = clock as u8;
        let expired = (clock, 0, "")..(clock, now.saturating_add(1), "");
        let first = self.expiries.range::<Due>(expired)?.next().transpose()?;
        Ok(first.map(|(key, _)| {
            let (_, at, name) = key.value();
            (at, name.to_owned())
        }))
    }

    /// Up to `limit` names after `after` of records Locked or Indeterminate.
    pub(super) fn unfinished_after(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, redb::Error> {
        let mut names = Vec::new();
        for entry in self.unfinished.range(after..)? {
            let name = entry?.0.value().to_owned();
            if name != after {
                names.push(name);
            }
            if names.len() >= limit {
                break;
            }
        }
        Ok(names)
    }
}

/// The tables as of one commit, for reading.
pub(super) struct Snapshot {
    records: ReadOnlyTable<&'static str, Value>,
    unfinished: ReadOnlyTable<&'static str, ()>,
    _txn: ReadTransaction,
}

impl Snapshot {
    pub(super) fn take(db: &Database) -> Result<Self, redb::Error> {
        let txn = db.begin_read()?;
        Ok(Self {
            records: txn.open_table(RECORDS)?,
            unfinished: txn.open_table(UNFINISHED)?,
            _txn: txn,
        })
    }

    pub(super) fn row(&self, name: &str) -> Result<Option<Row>, redb::Error> {
        read_row(&self.records, name)
    }

    /// A page of a namespace's records after a key, or its first: among [`PIECE`]
    /// of them.
    pub(super) fn page(
        &self,
        namespace: &Namespace,
        after: Option<IdempotencyKey>,
        query: &ListQuery,
        now: Moment,
    ) -> Result<Page, redb::Error> {
        // No namespace contains the colon that ends it, and `;` sorts after `:`.
        let end = format!("{namespace};");
        let from = match after {
            Some(key) => Bound::Excluded(row_name(&RecordName::new(namespace.clone(), key))),
            None => Bound::Included(format!("{namespace}:")),
        };
        let range = (
            from.as_ref().map(String::as_str),
            Bound::Excluded(end.as_str()),
        );
        let names = match query.filter() {
            ListFilter::Indeterminate => names_in(&self.unfinished, range)?,
            _ => names_in(&self.records, range)?,
        };
        let mut page = Page::default();
        let mut names = names.iter().peekable();
        while let Some((row, name)) = names.next() {
            page.examined += 1;
            if let Some(row) = self.row(row)? {
                match row.read(name, now) {
                    Ok(Some((record, left))) => page.add(query, name.key, record.state(left)),
                    Ok(None) => {}
                    Err(error) => page.add_unreadable(unreadable(name, &row.bytes, &error)),
                }
            }
            let is_over = page.examined >= PIECE || page.is_full(query);
            if is_over && names.peek().is_some() {
                page.next = Some(Cursor::of_key(name.key));
                break;
            }
        }
        Ok(page)
    }
}

/// The records of a table that a page examines, and the next one. Rows that are no records
/// of the namespace are skipped.
fn names_in<V: redb::Value + 'static>(
    table: &ReadOnlyTable<&'static str, V>,
    range: (Bound<&str>, Bound<&str>),
) -> Result<Vec<(String, RecordName)>, redb::Error> {
    let mut names = Vec::new();
    for row in table.range::<&str>(range)? {
        let row = row?.0.value().to_owned();
        if let Some(name) = record_name(&row) {
            names.push((row, name));
        }
        if names.len() > PIECE {
            break;
        }
    }
    Ok(names)
}

/// A record that could not be read, for an operator.
pub(super) fn unreadable(name: &RecordName, bytes: &[u8], error: &StoreError) -> UnreadableRecord {
    let digest = Sha256::digest(bytes);
    let stamp: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let record = UnreadableRecord::of(name.clone(), error).with_stamp(stamp);
    record.written_as(bytes)
}

/// The name of a record in the tables.
pub(super) fn row_name(name: &RecordName) -> String {
    format!("{}:{}", name.namespace, name.key)
}

/// The record that a name in the tables is of.
pub(super) fn record_name(row: &str) -> Option<RecordName> {
    let (namespace, key) = row.split_once(':')?;
    Some(RecordName::new(namespace.parse().ok()?, key.parse().ok()?))
}

/// When a record that lives on for `left` expires: later by what its retention
/// gains in its bytes, which have whole milliseconds, rounded up. A lease is what
/// of its life is left beyond that, and would expire before its holder thinks so.
pub(super) fn expiry(now: Moment, record: &Record, left: Duration) -> Expiry {
    const MILLISECOND: u32 = 1_000_000;
    let part = record.retention.subsec_nanos() % MILLISECOND;
    let gained = (MILLISECOND - part) % MILLISECOND;
    let clock = Clock::of(record);
    let at = now.by(clock).saturating_add(nanos(left));
    Expiry {
        clock: clock as u8,
        at: at.saturating_add(gained.into()),
    }
}

fn read_row(
    records: &impl ReadableTable<&'static str, Value>,
    name: &str,
) -> Result<Option<Row>, redb::Error> {
    Ok(records.get(name)?.map(|value| {
        let (clock, at, bytes) = value.value();
        Row {
            expires: Expiry { clock, at },
            bytes: bytes.to_vec(),
        }
    }))
}
