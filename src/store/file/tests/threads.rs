//! Threads that the system does not start, and threads that run foreign code.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake};

use super::*;
use crate::error::RefusalKind;
use crate::store::Cursor;

/// Threads that the system still starts.
static LEFT: AtomicUsize = AtomicUsize::new(0);

fn limited(builder: thread::Builder, work: Work) -> io::Result<JoinHandle<()>> {
    let left = LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    });
    match left {
        Ok(_) => builder.spawn(work),
        Err(_) => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[test]
fn open_without_threads_closes_the_file() {
    let folder = Folder::new("no-threads");
    drop(FileStore::open(folder.file()).unwrap());
    for threads in 0..=READERS {
        LEFT.store(threads, Ordering::SeqCst);
        let (path, opened) = (folder.file(), open::open(&folder.file()).unwrap());
        let opener = Box::new(|_| unreachable!());
        let opened = FileStore::start(path, opened, Source::system(), opener, TICK, limited);
        let refused = opened.unwrap_err().to_string();
        let expected = "the system gives no thread to read and write it";
        assert!(refused.contains(expected), "{threads}: {refused}");
        drop(FileStore::open(folder.file()).unwrap());
    }
}

/// Red when reads are the runtime's blocking tasks: they never run.
#[test]
fn reads_need_no_blocking_thread_of_the_runtime() {
    let folder = Folder::new("busy-pool");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let (free, busy) = channel::<()>();
    runtime.spawn_blocking(move || busy.recv());
    let store = FileStore::open(folder.file()).unwrap();
    let used = runtime.block_on(async {
        let used = async {
            let acquired = store.apply(&name(1), acquire(1)).await;
            let found = store.look(&name(1)).await.unwrap();
            let query = ListQuery::indeterminate();
            let listed = store.list(&name(1).namespace, &query).await.unwrap();
            (acquired.unwrap(), found.is_some(), listed.records.len())
        };
        tokio::time::timeout(Duration::from_secs(30), used).await
    });
    drop(free);
    assert_eq!(used.expect("the store waits"), (Answer::Done, true, 0));
}

/// Red when the panic of a waker unwinds into a reader, or into the writer.
#[tokio::test]
async fn panic_of_foreign_code_ends_no_thread() {
    /// The waker of an executor with a fault.
    struct Faulty;
    impl Wake for Faulty {
        fn wake(self: Arc<Self>) {
            panic!("a waker");
        }
    }

    let folder = Folder::new("panics");
    let store = FileStore::open(folder.file()).unwrap();
    let (name, waker) = (name(1), Arc::new(Faulty).into());
    let mut context = Context::from_waker(&waker);
    for _ in 0..2 * READERS {
        let mut faulty = [
            Box::pin(async { store.look(&name).await.is_ok() }) as BoxFuture<'_, bool>,
            Box::pin(async { store.apply(&name, extend(1)).await.is_ok() }),
        ];
        for faulty in &mut faulty {
            let _ = faulty.as_mut().poll(&mut context);
        }
        // Behind them in the queues, so they were served.
        store.look(&name).await.unwrap();
        store.apply(&name, extend(1)).await.unwrap();
    }
}

/// Red when a piece skips the row at which the next one begins.
#[tokio::test]
async fn list_of_several_pieces_is_complete() {
    let folder = Folder::new("list");
    let clock = ManualClock::new();
    let store = FileStore::open_with_clock(folder.file(), clock.clone()).unwrap();
    let names: Vec<RecordName> = (0..2_500_u64)
        .map(|number| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            RecordName::new("unit".parse().unwrap(), IdempotencyKey::from_bytes(key))
        })
        .collect();
    let acquired = names.iter().map(|name| store.apply(name, acquire(1)));
    for answer in futures_util::future::join_all(acquired).await {
        assert_eq!(answer.unwrap(), Answer::Done);
    }
    clock.advance(Duration::from_secs(31));
    let namespace = &names[0].namespace;
    let expected: Vec<_> = names.iter().map(|name| name.key).collect();
    for (limit, pages) in [(1, 2_500), (999, 3), (1_000, 3), (2_500, 3), (1_250, 2 + 1)] {
        for query in [ListQuery::indeterminate(), ListQuery::all()] {
            let (mut query, mut keys, mut seen) = (query.with_limit(limit), Vec::new(), 0);
            loop {
                let page = store.list(namespace, &query).await.unwrap();
                assert!(page.records.len() <= limit);
                keys.extend(page.records.iter().map(|(key, _)| *key));
                seen += 1;
                match page.next {
                    Some(next) => query = query.after(next),
                    None => break,
                }
            }
            assert_eq!((&keys, seen), (&expected, pages), "{limit}");
        }
    }
    let foreign = ListQuery::all().after(Cursor::new("1-0-17-"));
    let error = store.list(namespace, &foreign).await.unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalKind::NotNow));
}
