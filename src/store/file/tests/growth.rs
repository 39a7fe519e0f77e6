//! Expired records leave the file, and their space is used again.

use redb::ReadableTableMetadata as _;

use super::*;

/// Red where only writes remove expired records.
#[tokio::test]
async fn idle_store_removes_expired_records() {
    let folder = Folder::new("idle");
    let clock = ManualClock::new();
    let source = Source::Manual(clock.clone());
    let tick = Duration::from_millis(5);
    let store = FileStore::open_with(&folder.file(), source, tick).unwrap();
    let rows = || {
        let count = |db: &Database| Ok(db.begin_read()?.open_table(RECORDS)?.len()?);
        store.handle.core.slot().with(count).unwrap()
    };
    // More than one tick removes.
    let names: Vec<RecordName> = (0..1500_u64)
        .map(|number| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            RecordName::new("unit".parse().unwrap(), IdempotencyKey::from_bytes(key))
        })
        .collect();
    let applied = names
        .iter()
        .map(|name| store.apply(name, complete(1, "{}")));
    futures_util::future::join_all(applied).await;
    store.apply(&name(1), acquire(1)).await.unwrap();
    assert_eq!(rows(), 1501);
    clock.advance(DAY);
    let gone = async {
        while rows() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(60), gone).await;
    assert!(gone.is_ok(), "{} rows are left", rows());
    assert!(store.look(&name(1)).await.unwrap().is_some());
}

#[test]
fn space_of_expired_records_is_given_back() {
    let folder = Folder::new("compact");
    let clock = ManualClock::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let body: &'static str = Box::leak("x".repeat(1024 * 1024).into_boxed_str());
    let store = FileStore::open_with_clock(folder.file(), clock.clone()).unwrap();
    let length = || std::fs::metadata(folder.file()).unwrap().len();
    for key in 0..25 {
        runtime
            .block_on(store.apply(&name(key), complete(1, body)))
            .unwrap();
    }
    let full = length();
    assert!(full > 25 * 1024 * 1024, "{full}");
    // A second day like the first needs no second file.
    clock.advance(2 * DAY);
    for key in 100..125 {
        runtime
            .block_on(store.apply(&name(key), complete(1, body)))
            .unwrap();
    }
    assert!(length() < full * 3 / 2, "{} after {full}", length());
    clock.advance(2 * DAY);
    drop(store);
    drop(FileStore::open_with_clock(folder.file(), clock).unwrap());
    assert!(length() < 1024 * 1024, "{} after {full}", length());
}
