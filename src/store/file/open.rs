//! Opens the file: creates it completely or not at all, reports why it cannot be opened,
//! and recovers the records of the process before. It does nothing once the store is open,
//! except to open a failed file again.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, WriteTransaction};

use super::backing::{
    Backing, FileId, Mode, Named, REPLACED, create_private, is_private, make_private, open_regular,
};
use super::clock::{Moment, Source, Timeline};
use super::tables::{Tables, expiry, record_name};
use crate::error::Error;
use crate::record::{Content, Record, recover_orphan};

/// How much of the file redb may cache; its own default is 1 GiB.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// A file smaller than this is not worth compacting.
const COMPACT_FROM: u64 = 16 * 1024 * 1024;

/// Records handled by one step of the work at open.
const CHUNK: usize = 1000;

/// Opens the database file, which is created where there is none.
pub(super) fn open(path: &Path) -> Result<Opened, Error> {
    if let Err(error) = fs::symlink_metadata(path)
        && error.kind() == ErrorKind::NotFound
    {
        let created = create(path, |db| {
            let txn = db.begin_write()?;
            Tables::open(&txn)?.mark_format()?;
            Ok(txn.commit()?)
        });
        // If another process was faster, its file serves as well.
        created.map_err(|error| refused(path, &error))?;
    }
    let (file, found) = open_regular(path).map_err(|error| refused(path, &error.into()))?;
    if found.len() == 0 {
        make_private(&file).map_err(|error| refused(path, &error.into()))?;
    } else if !is_private(&found) {
        tracing::warn!(
            path = %path.display(),
            "other users may read the store's file, which holds the platform's answers: expected mode 0600"
        );
    }
    open_file(path, file, Mode::Write)
}

/// Opens a database file again, which must be the same.
pub(super) fn reopen(path: &Path, id: FileId, mode: Mode) -> Result<Opened, Error> {
    let (file, found) = open_regular(path).map_err(|error| refused(path, &error.into()))?;
    // An empty one would be made a database.
    if FileId::of(&found) != id || found.len() == 0 {
        return Err(invalid(path, REPLACED));
    }
    open_file(path, file, mode)
}

/// A database, and the name under which it was opened.
pub(super) struct Opened {
    pub(super) db: Database,
    pub(super) named: Arc<Named>,
    pub(super) mode: Mode,
}

fn open_file(path: &Path, file: File, mode: Mode) -> Result<Opened, Error> {
    let opening = || {
        let (backing, named) = Backing::new(path, file, mode)?;
        let db = builder().create_with_backend(backing)?;
        Ok(Opened { db, named, mode })
    };
    // In debug builds redb asserts where it otherwise reports a damaged file.
    match catch_unwind(AssertUnwindSafe(opening)) {
        Ok(opened) => opened.map_err(|error: redb::Error| refused(path, &error)),
        Err(_) => Err(invalid(path, DAMAGED)),
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    // Reads the whole file once. Without it, a damaged file is trusted.
    builder.set_check_integrity_on_open(true);
    builder
}

/// Creates a database under a temporary name and renames it after `fill` has filled it: a
/// process that is killed here leaves no half database under the final name. The temporary
/// file might stay. No process reads it, and none removes it, since another process might
/// write it. Returns whether a file with the final name exists already.
pub(super) fn create(
    path: &Path,
    fill: impl Fn(&Database) -> Result<(), redb::Error>,
) -> Result<bool, redb::Error> {
    create_by(|from, to| fs::hard_link(from, to), path, fill)
}

pub(super) fn create_by(
    link: fn(&Path, &Path) -> io::Result<()>,
    path: &Path,
    fill: impl Fn(&Database) -> Result<(), redb::Error>,
) -> Result<bool, redb::Error> {
    create_folders(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", fastrand::u64(..)));
    let new = path.with_file_name(name);
    let write = |path: &Path| {
        let backend = FileBackend::new(create_private(path)?)?;
        let db = builder().create_with_backend(backend)?;
        fill(&db)?;
        Ok::<_, redb::Error>(db.close()?)
    };
    let existed = |error: &redb::Error| match error {
        redb::Error::Io(error) => error.kind() == ErrorKind::AlreadyExists,
        _ => false,
    };
    let made = write(&new).and_then(|()| match link(&new, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error.into()),
        // A file system without links: a process that is killed in this call leaves half a
        // file.
        Err(_) => write(path),
    });
    let removed = fs::remove_file(&new);
    match made {
        Err(error) if existed(&error) => return Ok(true),
        made => made?,
    }
    removed?;
    sync_folder(parent(path))?;
    Ok(false)
}

fn create_folders(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = parent(path)
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    fs::create_dir_all(parent(path))?;
    missing
        .into_iter()
        .try_for_each(|folder| sync_folder(parent(folder)))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a new name in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened as a file.
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Prepares an opened file: checks that it is a store's, recovers the records that its last
/// process left Locked, and removes expired records.
pub(super) fn prepare(path: &Path, db: &mut Database, source: Source) -> Result<Timeline, Error> {
    let failed = |error: redb::Error| refused(path, &error);
    let txn = db.begin_write().map_err(|error| failed(error.into()))?;
    match identify(&txn).map_err(failed)? {
        Contents::Store => {}
        Contents::Newer(format) => {
            let reason = format!("a newer version wrote it: it has format {format}");
            return Err(invalid(path, &reason));
        }
        Contents::Foreign => return Err(invalid(path, "it is a database of something else")),
    }
    let timeline = recover(path, txn, source).map_err(failed)?;
    while reclaim(db, timeline.now()).map_err(failed)? {}
    compact(path, db).map_err(failed)?;
    Ok(timeline)
}

enum Contents {
    Store,
    Newer(u64),
    Foreign,
}

fn identify(txn: &WriteTransaction) -> Result<Contents, redb::Error> {
    let empty = txn.list_tables()?.next().is_none() && txn.list_multimap_tables()?.next().is_none();
    let mut tables = match Tables::open(txn) {
        Ok(tables) => tables,
        Err(
            redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. },
        ) => return Ok(Contents::Foreign),
        Err(error) => return Err(error),
    };
    match tables.format()? {
        Some(format) if Tables::is_known(format) => Ok(Contents::Store),
        Some(format) => Ok(Contents::Newer(format)),
        None if empty => {
            tables.mark_format()?;
            Ok(Contents::Store)
        }
        None => Ok(Contents::Foreign),
    }
}

/// Recovers every Locked record, expired or not: its holder has ended, and a wall clock
/// that jumped must not make the request executable.
fn recover(path: &Path, txn: WriteTransaction, source: Source) -> Result<Timeline, redb::Error> {
    let (mut released, mut indeterminate) = (0_usize, 0_usize);
    let mut tables = Tables::open(&txn)?;
    let timeline = Timeline::resume(source, tables.last_stamp()?);
    let mut last = String::new();
    loop {
        let names = tables.unfinished_after(&last, CHUNK)?;
        let Some(end) = names.last() else { break };
        last.clone_from(end);
        for name in &names {
            let Some(row) = tables.row(name)? else {
                continue;
            };
            // A record that cannot be read is left alone, and does not count as absent.
            let read = record_name(name).map(|named| (Record::decode(&named, &row.bytes), named));
            let Some((Ok(record), named)) = read else {
                tracing::warn!(name, "a record that cannot be read was not recovered");
                continue;
            };
            let Some((record, left)) = recover_orphan(&record) else {
                continue;
            };
            match record.content {
                Content::Indeterminate { .. } => indeterminate += 1,
                _ => released += 1,
            }
            let next = (
                &record,
                record.encode(&named),
                expiry(timeline.now(), &record, left),
            );
            tables.put(name, Some(row.expires), Some((next.0, &next.1, next.2)))?;
        }
    }
    tables.stamp(timeline.stamp())?;
    drop(tables);
    txn.commit()?;
    if released + indeterminate > 0 {
        tracing::warn!(
            path = %path.display(),
            released,
            indeterminate,
            "recovered the records whose process ended without finishing them"
        );
    }
    Ok(timeline)
}

/// Removes some expired records; whether there might be more.
fn reclaim(db: &Database, now: Moment) -> Result<bool, redb::Error> {
    let txn = db.begin_write()?;
    let removed = Tables::open(&txn)?.reclaim(now, CHUNK)?;
    if removed == 0 {
        txn.abort()?;
        return Ok(false);
    }
    txn.commit()?;
    Ok(removed == CHUNK)
}

/// Returns unused space to the file system: redb itself only reuses it.
fn compact(path: &Path, db: &mut Database) -> Result<(), redb::Error> {
    let length = fs::metadata(path)?.len();
    if length < COMPACT_FROM {
        return Ok(());
    }
    let txn = db.begin_write()?;
    let stats = txn.stats()?;
    txn.abort()?;
    let used = stats.allocated_pages() * stats.page_size() as u64;
    if used < length / 2 {
        db.compact()?;
    }
    Ok(())
}

const DAMAGED: &str = "it is damaged: put a sound copy in its place, or move it away and accept \
                       that what it recorded is forgotten";

/// Why a file cannot be opened, for the operator that set its path.
pub(super) fn refused(path: &Path, error: &redb::Error) -> Error {
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => invalid(
            path,
            "another process has it open, or this one through another FileStore: one process at \
             a time may",
        ),
        redb::Error::UpgradeRequired(version) => {
            let reason = format!("it is a redb database of the old file format {version}");
            invalid(path, &reason)
        }
        redb::Error::Corrupted(_) => invalid(path, DAMAGED),
        redb::Error::Io(error) => match error.kind() {
            ErrorKind::InvalidData => invalid(path, "it is not a database"),
            ErrorKind::PermissionDenied => invalid(path, "this process may not read and write it"),
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                invalid(path, "a part of it is a file, not a folder")
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => invalid(path, "its disk is full"),
            _ => invalid(path, &error.to_string()),
        },
        error => invalid(path, &error.to_string()),
    }
}

/// Why an opened file has no thread.
pub(super) fn no_thread(path: &Path, error: &io::Error) -> Error {
    let reason = format!("the system gives no thread to read and write it: {error}");
    invalid(path, &reason)
}

pub(super) fn invalid(path: &Path, reason: &str) -> Error {
    Error::invalid_config("path", format!("{}: {reason}", path.display()))
}

/// The path in a form that does not depend on the working directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| invalid(path, &error.to_string()))
}
