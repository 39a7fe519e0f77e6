//! A copy of the file as of one moment, made record by record while the store
//! goes on. It changes nothing in the store.

use std::fs;
use std::path::Path;

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    Value,
};

use super::open::{create, invalid, refused};
use super::shared::Core;
use super::tables::{EXPIRIES, META, RECORDS, UNSETTLED};
use crate::error::Error;

/// Rows in one transaction.
const CHUNK: usize = 1000;

/// Copies all records to a new file, unless `given_up` meanwhile.
pub(super) fn write(core: &Core, path: &Path, given_up: &dyn Fn() -> bool) -> Result<(), Error> {
    const EXISTS: &str = "there is a file of that name already";
    if fs::symlink_metadata(path).is_ok() {
        return Err(invalid(path, EXISTS));
    }
    let from = core.slot().with(|db| Ok(db.begin_read()?));
    let from = from.map_err(|error| {
        let reason = format!("the store's own file cannot be read: {error}");
        invalid(path, &reason)
    })?;
    let copying = Copying { from, given_up };
    let existed = create(path, |to| {
        copying.table(to, RECORDS)?;
        copying.table(to, EXPIRIES)?;
        copying.table(to, UNSETTLED)?;
        // Its format makes it a store, so that comes last.
        copying.table(to, META)
    });
    if existed.map_err(|error| refused(path, &error))? {
        return Err(invalid(path, EXISTS));
    }
    Ok(())
}

struct Copying<'a> {
    from: ReadTransaction,
    given_up: &'a dyn Fn() -> bool,
}

impl Copying<'_> {
    fn table<K: Key, V: Value>(
        &self,
        to: &Database,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), redb::Error> {
        let from = self.from.open_table(definition)?;
        let mut rows = from.iter()?;
        let mut more = true;
        while more {
            if (self.given_up)() {
                return Err(redb::Error::DatabaseClosed);
            }
            let txn = to.begin_write()?;
            {
                let mut table = txn.open_table(definition)?;
                for _ in 0..CHUNK {
                    let Some(row) = rows.next() else {
                        more = false;
                        break;
                    };
                    let (key, value) = row?;
                    table.insert(key.value(), value.value())?;
                }
            }
            txn.commit()?;
        }
        Ok(())
    }
}
