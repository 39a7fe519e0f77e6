//! The file's data beside its records: its id, the time of its last write, and the least
//! versions of its writers. It writes nothing.

use redb::{Database, ReadableDatabase as _, ReadableTable};

use super::clock::{Moment, Stamp};
use super::tables::META;
use crate::key::Namespace;

/// Distinguishes a file from an earlier copy and from another store's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    pub(super) id: Option<u64>,
    /// The store's time at its last stamp.
    pub(super) store: u64,
}

impl FileIdentity {
    pub(super) fn read(db: &Database) -> Result<Self, redb::Error> {
        let meta = db.begin_read()?.open_table(META)?;
        let stamp = read_stamp(&meta)?;
        Ok(Self {
            id: meta.get("id")?.map(|id| id.value()),
            store: stamp.map_or(0, |stamp| stamp.moment.store),
        })
    }
}

pub(super) fn read_stamp(
    meta: &impl ReadableTable<&'static str, u64>,
) -> Result<Option<Stamp>, redb::Error> {
    let value = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value()));
    let (store, open, wall) = (value("store")?, value("open")?, value("wall")?);
    Ok(store
        .zip(open)
        .zip(wall)
        .map(|((store, open), wall)| Stamp {
            moment: Moment { store, open },
            wall,
        }))
}

/// The least version of a namespace's writers; 0 where there was none yet.
pub(super) fn least_writer(db: &Database, namespace: &Namespace) -> Result<u32, redb::Error> {
    read_writer(&db.begin_read()?.open_table(META)?, namespace)
}

pub(super) fn read_writer(
    meta: &impl ReadableTable<&'static str, u64>,
    namespace: &Namespace,
) -> Result<u32, redb::Error> {
    let least = meta.get(&*writer(namespace))?.map(|least| least.value());
    // A number that no version has counts as later than all.
    Ok(least.map_or(0, |least| u32::try_from(least).unwrap_or(u32::MAX)))
}

/// No other name in the table has a colon.
pub(super) fn writer(namespace: &Namespace) -> String {
    format!("writer:{namespace}")
}
