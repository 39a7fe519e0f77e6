//! Rows of a list's tables that are no records.

use super::*;
use crate::store::ListQuery;

/// Foreign rows between records, at the end of a page's rows, or more than a page examines.
///
/// Red where a foreign row is skipped without the check of the page's limit (`continue` in
/// `Snapshot::page`), and where such rows count as a page's records: the list ended there,
/// and seemed complete.
#[tokio::test]
async fn foreign_rows_end_no_list() {
    for (expired, foreign) in [(999, 1), (1, 2000), (0, 2000)] {
        list_among_foreign_rows(expired, foreign).await;
    }
}

async fn list_among_foreign_rows(expired: u16, foreign: u16) {
    let folder = Folder::new("foreign");
    drop(FileStore::open(folder.file()).unwrap());
    let key = |number: u16| {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        RecordName::new("unit".parse().unwrap(), IdempotencyKey::from_bytes(key))
    };
    let db = Database::open(folder.file()).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let mut records = txn.open_table(RECORDS).unwrap();
        // On no page, since their time is over; and in no index that they go by.
        for number in 0..expired {
            let row = (1, 0, &b""[..]);
            records.insert(&*row_name(&key(number)), row).unwrap();
        }
        let row = (1, u64::MAX, &b"damaged"[..]);
        for number in 0..foreign {
            let name = format!("{} and {number}", row_name(&key(999)));
            records.insert(&*name, row).unwrap();
        }
        for number in 1000..1010 {
            records.insert(&*row_name(&key(number)), row).unwrap();
        }
    }
    txn.commit().unwrap();
    drop(db);

    let store = FileStore::open(folder.file()).unwrap();
    let namespace = "unit".parse().unwrap();
    let (mut query, mut found) = (ListQuery::unreadable(), Vec::new());
    loop {
        let page = store.list(&namespace, &query).await.unwrap();
        assert_eq!(page.records, []);
        found.extend(page.unreadable.iter().map(|record| record.name().clone()));
        match page.next {
            Some(next) => query = query.after(next),
            None => break,
        }
    }
    let expected: Vec<_> = (1000..1010).map(key).collect();
    assert_eq!(found, expected, "{expired} {foreign}");
}
