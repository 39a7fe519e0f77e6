//! The file under the database: its name must stay, and only this process may write it. It
//! reports what another program did to the file or the name, and repairs nothing.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// For an operator: the name refers to another file, or to none.
pub(super) const REPLACED: &str = "the file that was opened is no longer under this name: it was removed, \
                        moved or replaced; end this process before a file is put in its place";

/// For an operator: another program wrote to the file.
pub(super) const OVERWRITTEN: &str = "another program has changed the file in place: end this process, and \
                           put a backup in its place";

/// Which file this is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    #[cfg(unix)]
    pub(super) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Elsewhere a file has no such number: its length alone is compared.
    #[cfg(not(unix))]
    pub(super) fn of(_: &Metadata) -> Self {
        Self {
            device: 0,
            inode: 0,
        }
    }
}

/// The name of an open file, and the file as this process left it.
#[derive(Debug)]
pub(super) struct Named {
    path: PathBuf,
    id: FileId,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    length: u64,
    /// The database's header, which every commit writes at the beginning.
    header: Option<Vec<u8>>,
}

impl Named {
    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Whether the name still refers to the file: device, inode and length.
    pub(super) fn check(&self) -> io::Result<()> {
        let found = match fs::symlink_metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(io::Error::other(REPLACED));
            }
            Err(error) => return Err(error),
        };
        if FileId::of(&found) != self.id {
            return Err(io::Error::other(REPLACED));
        }
        same(&found.len(), &self.left().length)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same<T: PartialEq + ?Sized>(found: &T, left: &T) -> io::Result<()> {
    if found == left {
        Ok(())
    } else {
        Err(io::Error::other(OVERWRITTEN))
    }
}

/// Opens a regular file: no symbolic link, no folder, no device.
///
/// # Errors
///
/// Those of the system; of kind `InvalidInput`, with the reason, for a name of anything but
/// a regular file.
pub(super) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let named = fs::symlink_metadata(path)?;
    let refuse = |reason: &str| Err(io::Error::new(ErrorKind::InvalidInput, reason));
    if named.is_dir() {
        return refuse("it is a folder: name a file in it");
    }
    if named.is_symlink() {
        return refuse("it is a symbolic link: name the file that it points to");
    }
    if !named.is_file() {
        return refuse("it is not a regular file");
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let opened = file.metadata()?;
    // Another program might have put a link there in between.
    if FileId::of(&named) != FileId::of(&opened) {
        return refuse("it was replaced while it was opened");
    }
    Ok((file, opened))
}

/// Creates a missing file for its owner alone: it will hold the platform's answers. It
/// follows no link.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Whether its owner alone may read it.
pub(super) fn is_private(found: &Metadata) -> bool {
    #[cfg(unix)]
    let others = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o077;
    #[cfg(not(unix))]
    let (others, _) = (0, found);
    others == 0
}

/// Takes the rights of all but its owner from a file that existed.
pub(super) fn make_private(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// What a database may do with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Write,
    /// Read it alone. The database writes its header to open itself: that stays
    /// in memory.
    Frozen,
}

/// The file as the database reads and writes it.
#[derive(Debug)]
pub(super) struct Backing {
    mode: Mode,
    file: FileBackend,
    named: Arc<Named>,
    /// Whether anything was written since the last sync.
    written: AtomicBool,
}

impl Backing {
    pub(super) fn new(
        path: &Path,
        file: File,
        mode: Mode,
    ) -> Result<(Self, Arc<Named>), redb::Error> {
        let metadata = file.metadata()?;
        let named = Arc::new(Named {
            path: path.to_owned(),
            id: FileId::of(&metadata),
            left: Mutex::new(Left {
                length: metadata.len(),
                header: None,
            }),
        });
        let backing = Self {
            mode,
            file: FileBackend::new(file)?,
            named: named.clone(),
            written: AtomicBool::new(false),
        };
        Ok((backing, named))
    }

    /// Whether the file is as this process left it: its length, and its header, since an
    /// earlier copy might have the same length.
    fn check(&self) -> io::Result<()> {
        let left = self.named.left();
        same(&self.file.len()?, &left.length)?;
        let Some(header) = left.header.as_deref() else {
            return Ok(());
        };
        let mut found = vec![0; header.len()];
        self.file.read(0, &mut found)?;
        same(found.as_slice(), header)
    }
}

impl StorageBackend for Backing {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.mode == Mode::Frozen && offset == 0 {
            let left = self.named.left();
            let header = left.header.as_ref();
            if let Some(header) = header.and_then(|header| header.get(..out.len())) {
                out.copy_from_slice(header);
                return Ok(());
            }
        }
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.mode == Mode::Frozen {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        // Afterwards the length proves nothing.
        self.check()?;
        let mut left = self.named.left();
        self.file.set_len(len)?;
        left.length = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.mode == Mode::Frozen {
            return Ok(());
        }
        self.file.sync_data()?;
        self.written.store(false, Ordering::Relaxed);
        self.check()
    }

    /// The first write after a sync checks whether another program wrote meanwhile, before
    /// it overwrites anything.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.mode == Mode::Frozen {
            if offset > 0 {
                return Err(ErrorKind::ReadOnlyFilesystem.into());
            }
            self.named.left().header = Some(data.to_vec());
            return Ok(());
        }
        if !self.written.swap(true, Ordering::Relaxed) {
            self.check()?;
        }
        if offset > 0 {
            return self.file.write(offset, data);
        }
        let mut left = self.named.left();
        self.file.write(offset, data)?;
        left.header = Some(data.to_vec());
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
