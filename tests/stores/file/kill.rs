//! Processes that are killed with the file open, and processes that open it afterwards.

use super::*;

#[tokio::test]
async fn second_process_is_refused() {
    let folder = Folder::new("second");
    let mut first = Child::start("hold", &folder.file());
    assert_eq!(first.line().as_deref(), Some("opened"));
    let refused = refusal(FileStore::open(folder.file()).unwrap_err());
    assert!(refused.contains("another process has it open"), "{refused}");
    first.kill();
    let store = FileStore::open(folder.file()).unwrap();
    done(&store, 1, acquire(1)).await;
    let mut second = Child::start("hold", &folder.file());
    let said = second.line().unwrap();
    assert!(said.contains("another process has it open"), "{said}");
    second.kill();
}

#[tokio::test]
async fn every_acknowledged_record_survives_kill_9() {
    let folder = Folder::new("kill");
    let mut acknowledged = Vec::new();
    let mut begin = 0;
    for round in 0..20 {
        // The number of lines differs between rounds, and is the same in each run of the
        // test.
        let lines = 1 + round * 37 % 61;
        let mut child = Child::start(&format!("write:{begin}"), &folder.file());
        let mut said: Vec<u32> = Vec::new();
        while said.len() < lines {
            said.push(child.line().expect("a writing child").parse().unwrap());
        }
        child.kill();
        // Lines from before the kill took effect count as well.
        while let Some(line) = child.line() {
            said.push(line.parse().unwrap());
        }
        let store = FileStore::open(folder.file()).unwrap();
        for &key in &said {
            assert_written(key, store.look(&name(key)).await.unwrap());
        }
        // Keys under way are in an intermediate state, or absent: never unreadable, and
        // never locked by the killed process.
        begin = said.iter().max().unwrap() + 1 + 2 * WRITERS;
        for key in 0..begin {
            let state = store.look(&name(key)).await.unwrap();
            assert!(!matches!(state, Some(RecordState::Locked { .. })), "{key}");
        }
        acknowledged.append(&mut said);
    }
    let store = FileStore::open(folder.file()).unwrap();
    for &key in &acknowledged {
        assert_written(key, store.look(&name(key)).await.unwrap());
    }
    println!("acknowledged before a kill: {}", acknowledged.len());
}

#[tokio::test]
async fn kill_during_opening_leaves_a_valid_file() {
    for round in 0..24 {
        let folder = Folder::new(&format!("kill-open-{round}"));
        if round % 4 == 3 {
            drop(FileStore::open(folder.file()).unwrap());
        }
        let mut child = Child::start("open", &folder.file());
        assert_eq!(child.line().as_deref(), Some("opening"));
        // Killed at once; once the child has begun to create the file; once the file
        // exists.
        let begun = || match round % 4 {
            0 => true,
            1 => std::fs::read_dir(folder.path()).unwrap().count() > 0,
            _ => folder.file().exists(),
        };
        while !begun() {
            std::thread::yield_now();
        }
        child.kill();
        let store = FileStore::open(folder.file()).unwrap();
        done(&store, round, acquire(round)).await;
        done(&store, round, complete(round)).await;
    }
}
