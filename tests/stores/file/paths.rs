//! The file and its name: changes by other programs under a running store, and which files
//! can be opened.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use genesys_once::testing::ManualClock;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn chain(error: impl std::error::Error) -> String {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain = format!("{chain}: {cause}");
        source = cause.source();
    }
    chain
}

/// No write is acknowledged, no key counts as absent, and nothing is replayed.
async fn assert_outage(store: &FileStore, why: &str) {
    for key in [1, 2, 77] {
        let error = store.apply(&name(key), acquire(key)).await.unwrap_err();
        let chain = chain(error);
        assert!(chain.contains(why), "{key}: {chain}");
        let error = store.look(&name(key)).await.unwrap_err();
        assert!(!error.is_unreadable(), "{key}: {error:?}");
    }
}

/// Seen red: the store continued, and the next process that opened the name executed all 60
/// keys again.
#[tokio::test]
async fn renamed_file_is_an_outage() {
    for how in [
        "removed",
        "moved away",
        "a copy moved over it",
        "copied again",
    ] {
        let folder = Folder::new("leaves");
        let copy = folder.path().join("copy.redb");
        let store = FileStore::open(folder.file()).unwrap();
        done(&store, 1, acquire(1)).await;
        done(&store, 1, complete(1)).await;
        fs::copy(folder.file(), &copy).unwrap();
        done(&store, 2, complete(2)).await;
        let aside = folder.path().join("aside.redb");
        match how {
            "removed" => fs::remove_file(folder.file()).unwrap(),
            "moved away" => fs::rename(folder.file(), &aside).unwrap(),
            "a copy moved over it" => fs::rename(&copy, folder.file()).unwrap(),
            _ => {
                fs::remove_file(folder.file()).unwrap();
                fs::copy(&copy, folder.file()).unwrap();
            }
        }
        let error = store.apply(&name(3), acquire(3)).await.unwrap_err();
        let why = "no longer under this name";
        assert!(chain(error).contains(why), "{how}");
        assert_outage(&store, why).await;
        // Another process can open the name.
        let other = FileStore::open(folder.file()).unwrap();
        done(&other, 9, acquire(9)).await;
        assert_outage(&store, why).await;
        drop(other);

        // The records of a file without a name can still be copied.
        let rescued = folder.path().join("rescued.redb");
        store.backup(&rescued).await.unwrap();
        let rescued = FileStore::open(&rescued).unwrap();
        for key in [1, 2] {
            assert_cached(key, rescued.look(&name(key)).await.unwrap());
        }

        // Once the file has its name again, it is the store again.
        if how == "moved away" {
            fs::rename(&aside, folder.file()).unwrap();
            let back = async {
                while store.apply(&name(4), acquire(4)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let back = tokio::time::timeout(Duration::from_secs(30), back).await;
            back.unwrap();
            assert_cached(2, store.look(&name(2)).await.unwrap());
        }
    }
}

/// Red if only the length is compared, and if the reopened file may be older than the
/// acknowledged writes, or the file of another store.
#[tokio::test]
async fn file_changed_in_place_is_an_outage() {
    for how in [
        "cut to nothing",
        "cut in half",
        "an older copy",
        "another store",
    ] {
        let folder = Folder::new("in-place");
        // The other store's own time is far ahead.
        let (other, clock) = (folder.path().join("other.redb"), ManualClock::new());
        let ahead = FileStore::open_with_clock(&other, clock.clone()).unwrap();
        clock.advance(RETENTION);
        drop(ahead);
        let store = FileStore::open(folder.file()).unwrap();
        done(&store, 1, complete(1)).await;
        let older = fs::read(folder.file()).unwrap();
        done(&store, 3, complete(3)).await;
        let now = fs::read(folder.file()).unwrap();
        assert_eq!(older.len(), now.len(), "a copy of the same length");
        let bytes = match how {
            "cut to nothing" => Vec::new(),
            "cut in half" => now[..now.len() / 2].to_vec(),
            "an older copy" => older,
            _ => fs::read(other).unwrap(),
        };
        // The file keeps its inode.
        fs::write(folder.file(), bytes).unwrap();
        let acquired = store.apply(&name(5), acquire(5)).await;
        assert!(acquired.is_err(), "{how}: {acquired:?}");
        for key in [1, 3, 77] {
            let acquired = store.apply(&name(key), acquire(key)).await;
            assert!(acquired.is_err(), "{how}, {key}: {acquired:?}");
            let found = store.look(&name(key)).await;
            assert!(found.is_err(), "{how}, {key}: {found:?}");
        }
    }
}

/// Seen red: 6 of 15 plain copies of a file in use were damaged.
#[tokio::test]
async fn backup_of_a_file_in_use_is_complete() {
    let folder = Folder::new("backup");
    let store = FileStore::open(folder.file()).unwrap();
    for key in 0..50 {
        done(&store, key, complete(key)).await;
    }
    done(&store, 50, acquire(50)).await;
    done(&store, 51, abandon(51)).await;
    let writes = async {
        for key in 100..200 {
            done(&store, key, acquire(key)).await;
            done(&store, key, complete(key)).await;
        }
    };
    let backups = async {
        for number in 0..5 {
            let path = folder.path().join(format!("backups/{number}.redb"));
            store.backup(&path).await.unwrap();
            assert_eq!(mode(&path), 0o600);
        }
    };
    tokio::join!(writes, backups);
    let mut before = 0;
    for number in 0..5 {
        let path = folder.path().join(format!("backups/{number}.redb"));
        let copy = FileStore::open(&path).unwrap();
        for key in 0..50 {
            assert_cached(key, copy.look(&name(key)).await.unwrap());
        }
        // The copy is opened later, so the holder of this key has ended.
        assert_lost(50, copy.look(&name(50)).await.unwrap());
        let listed = indeterminate(&copy, &name(0).namespace, 200).await.unwrap();
        assert!(listed.len() >= 2 && listed.len() <= 3, "{listed:?}");
        // The copy is of one moment: with each record, all earlier records are present.
        let mut known = 0;
        for key in 100..200 {
            match copy.look(&name(key)).await.unwrap() {
                Some(state @ RecordState::Cached { .. }) => {
                    assert_eq!(known, key - 100);
                    assert_cached(key, Some(state));
                    known += 1;
                }
                Some(_) => assert_eq!(known, key - 100),
                None => {}
            }
        }
        assert!(known >= before);
        before = known;
    }
    let left = fs::read_dir(folder.path().join("backups")).unwrap();
    assert_eq!(left.count(), 5, "nothing else is left");
}

#[tokio::test]
async fn backup_overwrites_nothing() {
    let folder = Folder::new("backup-over");
    let store = FileStore::open(folder.file()).unwrap();
    done(&store, 1, complete(1)).await;
    let target = folder.path().join("target");
    fs::write(&target, "precious").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("victim"), &link).unwrap();
    for path in [&target, &link, &folder.file()] {
        let refused = refusal(store.backup(path).await.unwrap_err());
        assert!(
            refused.contains("there is a file of that name"),
            "{refused}"
        );
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(!folder.path().join("victim").exists());
    assert_cached(1, store.look(&name(1)).await.unwrap());
}

/// Seen red: an empty file kept its permissions.
#[test]
fn empty_file_becomes_its_owners_alone() {
    let folder = Folder::new("empty-mode");
    fs::write(folder.file(), "").unwrap();
    fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o644)).unwrap();
    drop(FileStore::open(folder.file()).unwrap());
    assert_eq!(mode(&folder.file()), 0o600);
}

/// Seen red: a link without a target was followed, and its target created.
#[test]
fn symbolic_link_is_not_followed() {
    let folder = Folder::new("links");
    let link = folder.path().join("link.redb");
    let victim = folder.path().join("victim");
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    let refused = refusal(FileStore::open(&link).unwrap_err());
    assert!(refused.contains("it is a symbolic link"), "{refused}");
    assert!(!victim.exists());
    // Also not a link to a store.
    drop(FileStore::open(&victim).unwrap());
    let before = fs::read(&victim).unwrap();
    let refused = refusal(FileStore::open(&link).unwrap_err());
    assert!(refused.contains("it is a symbolic link"), "{refused}");
    assert_eq!(fs::read(&victim).unwrap(), before);
}
