//! A copy of the file as of one moment, made record by record while the store is in use. It
//! changes nothing in the store.

use std::fs;
use std::path::Path;
use std::thread;

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    Value,
};
use tokio::sync::oneshot;

use super::FileStore;
use super::open::{absolute, create, invalid, no_thread, refused};
use super::shared::FileCore;
use super::tables::{EXPIRIES, META, RECORDS, UNFINISHED};
use crate::error::Error;

/// Rows in one transaction.
const CHUNK: usize = 1000;

impl FileStore {
    /// Copies the store to a new file, as of one moment, while it is in use.
    ///
    /// The copy is complete and synced to the disk before it has its name; only its owner
    /// may read it. `open` opens it like any other file: a `Locked` record becomes
    /// `Released` or `Indeterminate`, and the copy does not contain later executions.
    /// Meanwhile each write makes the store's own file grow.
    ///
    /// It also copies a file whose name is gone. That is the last chance to save its
    /// records: make the copy before the process ends.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for the setting `path`, with the reason: there is a
    /// file of that name, its disk is full, the store's own file cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if the future is dropped, the unfinished copy is removed.
    pub async fn backup(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = absolute(path.as_ref())?;
        let (core, target) = (self.handle.core.clone(), path.clone());
        let (reply, answer) = oneshot::channel();
        let work = move || {
            let given_up = || reply.is_closed();
            let done = write(&core, &target, &given_up);
            let _ = reply.send(done);
        };
        let builder = thread::Builder::new().name("genesys-once-backup".into());
        let spawned = builder.spawn(work);
        spawned.map_err(|error| no_thread(&path, &error))?;
        let cut_short = || invalid(&path, "the copy was cut short");
        answer.await.unwrap_or_else(|_| Err(cut_short()))
    }
}

/// Copies all records to a new file, unless `given_up` returns `true` meanwhile.
fn write(core: &FileCore, path: &Path, given_up: &dyn Fn() -> bool) -> Result<(), Error> {
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
        copying.table(to, UNFINISHED)?;
        // The format in this table makes the file a store, so it is the last.
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
