//! The file and its name: its rights, and how it is created.

#![cfg(unix)]

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Seen red: the file had the rights of the umask.
#[test]
fn file_system_without_links_gets_a_private_file() {
    let folder = Folder::new("no-links");
    let refuse = |_: &Path, _: &Path| Err(io::ErrorKind::Unsupported.into());
    let fill = |db: &Database| {
        let txn = db.begin_write()?;
        Tables::open(&txn)?.mark_format()?;
        Ok(txn.commit()?)
    };
    assert!(!open::create_by(refuse, &folder.file(), fill).unwrap());
    assert_eq!(mode(&folder.file()), 0o600);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    // A file that is there is left alone.
    let before = fs::read(folder.file()).unwrap();
    assert!(open::create_by(refuse, &folder.file(), fill).unwrap());
    assert_eq!(fs::read(folder.file()).unwrap(), before);
    drop(FileStore::open(folder.file()).unwrap());
}

/// Seen red: the name was not checked once the file was open.
#[tokio::test]
async fn idle_store_notices_that_its_name_is_gone() {
    let folder = Folder::new("idle-name");
    let tick = Duration::from_millis(5);
    let store = FileStore::open_with(&folder.file(), Source::system(), tick).unwrap();
    store.apply(&name(1), complete(1, "{}")).await.unwrap();
    fs::rename(folder.file(), folder.0.join("elsewhere")).unwrap();
    let noticed = async {
        while store.look(&name(1)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let noticed = tokio::time::timeout(Duration::from_secs(60), noticed).await;
    noticed.unwrap();
    // And that it is back.
    fs::rename(folder.0.join("elsewhere"), folder.file()).unwrap();
    let back = async {
        while store.look(&name(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let back = tokio::time::timeout(Duration::from_secs(60), back).await;
    back.unwrap();
}
