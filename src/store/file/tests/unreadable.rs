//! An operator removes an unreadable record or raises a namespace's least writer: both
//! outlast the process.

use redb::ReadableTableMetadata as _;

use super::*;
use crate::error::RefusalKind;

fn rows(folder: &Folder) -> usize {
    let db = Database::open(folder.file()).unwrap();
    let txn = db.begin_read().unwrap();
    let records = txn.open_table(RECORDS).unwrap().len().unwrap();
    let unfinished = txn.open_table(UNFINISHED).unwrap().len().unwrap();
    usize::try_from(records + unfinished).unwrap()
}

/// Red where nothing is removed, where the list has no stamp, where other bytes than the
/// listed ones are removed, and where a record of a newer version is removed.
#[tokio::test]
async fn operator_removes_exactly_what_was_listed() {
    let folder = Folder::new("discard");
    drop(FileStore::open(folder.file()).unwrap());
    plant(
        &folder.file(),
        1,
        b"genesys-once/4 locked claimed and more\n",
    );
    plant(&folder.file(), 2, b"something else\n");
    plant(&folder.file(), 3, b"damaged");
    let store = FileStore::open(folder.file()).unwrap();
    let look = async |number| store.look_unreadable(&name(number)).await.unwrap();
    assert_eq!(look(9).await, None);
    store.apply(&name(9), complete(1, "{}")).await.unwrap();
    assert_eq!(look(9).await, None, "it can be read");
    // The list says the same of each.
    let query = crate::store::ListQuery::unreadable();
    let page = store.list(&name(1).namespace, &query).await.unwrap();
    let mut found = Vec::new();
    for number in 1..=3 {
        found.extend(look(number).await);
    }
    assert_eq!((page.unreadable, page.next), (found, None));
    let newer = look(1).await.unwrap();
    assert!(newer.is_newer());
    assert_eq!(newer.reason(), "it has version \"4\", this is version 3");
    let error = store.discard(&newer).await.unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalKind::NotAllowed));

    let [listed, other] = [look(2).await.unwrap(), look(3).await.unwrap()];
    assert_eq!(listed.reason(), "it is not a record of genesys-once");
    // Other bytes by now.
    drop(store);
    plant(&folder.file(), 2, b"something new\n");
    let store = FileStore::open(folder.file()).unwrap();
    assert!(!store.discard(&listed).await.unwrap());
    assert!(store.discard(&other).await.unwrap());
    assert!(!store.discard(&other).await.unwrap());
    let taken = store.apply(&name(3), acquire(1)).await.unwrap();
    assert_eq!(taken, Answer::Done);
    // A record that was written since is no record to discard.
    assert!(!store.discard(&other).await.unwrap());
    let now = store.look_unreadable(&name(2)).await.unwrap().unwrap();
    assert!(store.discard(&now).await.unwrap());
    drop(store);
    // 1, 3 and 9; 1 and 3 are not finished.
    assert_eq!(rows(&folder), 5);
}

/// Red without a row for it, and where it is lowered.
#[tokio::test]
async fn least_writer_outlasts_the_process() {
    let folder = Folder::new("least-writer");
    let [namespace, other]: [Namespace; 2] = ["test", "other"].map(|name| name.parse().unwrap());
    for (at_least, least) in [(3, 3), (4, 4), (3, 4)] {
        let store = FileStore::open(folder.file()).unwrap();
        let found = store.least_writer(&namespace, at_least).await.unwrap();
        assert_eq!(found, least);
    }
    let store = FileStore::open(folder.file()).unwrap();
    assert_eq!(store.least_writer(&other, 1).await.unwrap(), 1);
    // A copy says so, too: an older process must not take its keys.
    let copy = folder.0.join("copy");
    store.backup(&copy).await.unwrap();
    let copied = FileStore::open(&copy).unwrap();
    assert_eq!(copied.least_writer(&namespace, 1).await.unwrap(), 4);
}
