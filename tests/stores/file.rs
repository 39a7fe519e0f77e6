//! Shared by the tests of `FileStore`: events, their expected records, and child processes
//! that a test can kill.

mod clocks;
mod kill;
mod model;
#[cfg(unix)]
mod paths;
mod store;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, SystemTime};

use genesys_once::error::StoreError;
use genesys_once::outcome::StoredBody;
use genesys_once::record::{
    Answer, Attempts, Claim, Event, Fingerprint, LeaseId, Namespace, Phase, RecordName,
    RecordState, Revision,
};
use genesys_once::store::ListQuery;
use genesys_once::{Error, FileStore, IdempotencyKey, Outcome, Store};

use crate::own_process::own_process;

pub const LEASE: Duration = Duration::from_secs(30);
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
pub const TTL: Duration = Duration::from_secs(24 * 3600);

/// Concurrent writing tasks of a child.
pub const WRITERS: u32 = 4;

const TASK: &str = "GENESYS_ONCE_TEST_CHILD_TASK";
const FILE: &str = "GENESYS_ONCE_TEST_CHILD_FILE";

/// The prefix of each line from a child to its parent.
const MARK: &str = "child says: ";

pub fn name(key: u32) -> RecordName {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&key.to_be_bytes());
    RecordName::new("crash".parse().unwrap(), IdempotencyKey::from_bytes(bytes))
}

/// The indeterminate records of a namespace: one page.
pub async fn indeterminate(
    store: &FileStore,
    namespace: &Namespace,
    limit: usize,
) -> Result<Vec<(IdempotencyKey, RecordState)>, StoreError> {
    let query = ListQuery::indeterminate().with_limit(limit);
    Ok(store.list(namespace, &query).await?.records)
}

pub fn claim(key: u32) -> Claim {
    Claim {
        lease: LeaseId::from_bytes([key as u8; 16]),
        fingerprint: Fingerprint::from_bytes([3; 32]),
        lease_ttl: LEASE,
        retention: RETENTION,
        attempts: Attempts {
            sent: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(key))),
            ..Attempts::default()
        },
        about: Default::default(),
    }
}

pub fn acquire(key: u32) -> Event {
    Event::Acquire { claim: claim(key) }
}

pub fn enter(key: u32, step: u32, phase: Phase) -> Event {
    Event::Enter {
        claim: claim(key),
        step,
        phase,
    }
}

pub fn complete(key: u32) -> Event {
    Event::Complete {
        claim: claim(key),
        step: 1,
        stored: outcome(key).into(),
        origin: Default::default(),
        ttl: TTL,
    }
}

pub fn abandon(key: u32) -> Event {
    Event::Abandon {
        claim: claim(key),
        step: 1,
        cause: format!("cut off at {key}").into(),
    }
}

pub async fn take_over(store: &FileStore, key: u32, revision: Revision) -> Answer {
    let claim = Claim {
        lease: LeaseId::from_bytes([0xee; 16]),
        ..claim(key)
    };
    let event = Event::TakeOver {
        claim,
        revision,
        watched: false,
    };
    store.apply(&name(key), event).await.unwrap()
}

pub async fn done(store: &FileStore, key: u32, event: Event) {
    let answer = store.apply(&name(key), event.clone()).await;
    assert_eq!(answer.unwrap(), Answer::Done, "{key}: {event:?}");
}

/// The reason for which a file was refused.
pub fn refusal(error: Error) -> String {
    match error {
        Error::InvalidConfig {
            setting: "path",
            reason,
            ..
        } => reason.to_string(),
        error => panic!("{error:?}"),
    }
}

/// The outcome of a key: text, binary or large.
pub fn outcome(key: u32) -> Outcome {
    let mut headers = http::HeaderMap::new();
    headers.append("x-key", http::HeaderValue::from(key));
    headers.append("x-key", http::HeaderValue::from_static("again"));
    let body: Vec<u8> = match key % 3 {
        0 => format!("{{\"key\": {key}, \"text\": \"\\u0000é\"}}").into_bytes(),
        1 => (0..key * 7 % 5000).map(|i| (i * 31 + key) as u8).collect(),
        _ => format!("{key} ").repeat(10_000).into_bytes(),
    };
    Outcome::new(http::StatusCode::CREATED, headers, body)
}

pub fn assert_cached(key: u32, state: Option<RecordState>) {
    let Some(RecordState::Cached { stored, .. }) = state else {
        panic!("{key}: {state:?}");
    };
    assert!(*stored.outcome == outcome(key), "{key}: another outcome");
    assert_eq!(stored.body, StoredBody::Full);
}

/// Asserts that the holder ended with a request under way.
pub fn assert_lost(key: u32, state: Option<RecordState>) {
    let Some(RecordState::Indeterminate { cause, .. }) = &state else {
        panic!("{key}: {state:?}");
    };
    assert!(
        cause.contains("ended with the request under way"),
        "{cause}"
    );
}

/// Asserts a child's acknowledged write, after another process opened the file.
pub fn assert_written(key: u32, state: Option<RecordState>) {
    match key % 4 {
        0 => assert_lost(key, state),
        1 => assert_cached(key, state),
        2 => assert!(
            matches!(state, Some(RecordState::Released { refusal: None, .. })),
            "{key}: {state:?}"
        ),
        _ => {
            let Some(RecordState::Indeterminate { since, cause, .. }) = &state else {
                panic!("{key}: {state:?}");
            };
            assert_eq!(**cause, *format!("cut off at {key}"));
            assert_eq!(
                *since,
                SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(key))
            );
        }
    }
}

/// Writes a key as a child does; the key's number decides the last event.
async fn write(store: &FileStore, key: u32) {
    let events = match key % 4 {
        0 => vec![acquire(key)],
        1 => vec![acquire(key), complete(key)],
        2 => vec![acquire(key), enter(key, 1, Phase::Claimed)],
        _ => vec![acquire(key), abandon(key)],
    };
    for event in events {
        let answer = store.apply(&name(key), event).await.unwrap();
        assert_eq!(answer, Answer::Done);
    }
    say(&key.to_string());
}

fn say(text: &str) {
    // One write for each line: a kill leaves complete lines.
    let line = format!("{MARK}{text}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

pub fn child_task() -> Option<(String, PathBuf)> {
    Some((std::env::var(TASK).ok()?, std::env::var_os(FILE)?.into()))
}

/// `hold` opens the file and waits; `open` prints a line first; `write:N` writes keys from
/// N without end.
pub fn run_child(task: &str, file: &Path) {
    if task == "open" {
        say("opening");
    }
    let store = match FileStore::open(file) {
        Ok(store) => store,
        Err(error) => return say(&error.to_string()),
    };
    let Some(begin) = task.strip_prefix("write:") else {
        say("opened");
        loop {
            std::thread::park();
        }
    };
    let begin: u32 = begin.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            async move {
                let mut key = begin + writer;
                loop {
                    write(&store, key).await;
                    key += WRITERS;
                }
            }
        });
        futures_util::future::join_all::<Vec<_>>(writers.collect()).await
    });
}

/// A process of this test binary; killed when dropped, at the latest.
pub struct Child {
    process: std::process::Child,
    said: BufReader<ChildStdout>,
}

impl Child {
    pub fn start(task: &str, file: &Path) -> Self {
        // The process runs the test `child` in `store`.
        let module = concat!(module_path!(), "::store");
        let mut process = own_process(module, "child")
            .env(TASK, task)
            .env(FILE, file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    /// The next line from the process; `None` once it has ended.
    pub fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.said.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test harness writes to the same output.
            if let Some((_, text)) = line.split_once(MARK) {
                return Some(text.trim_end().to_owned());
            }
        }
    }

    /// Sends SIGKILL, and waits for the end of the process.
    pub fn kill(&mut self) {
        // The process might have ended by itself.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder for each test, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        let name = format!("genesys-once-file-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("store.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
