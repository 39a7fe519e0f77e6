//! The bytes in the file and in the server show no part of an answer, in any encoding.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use genesys_once::outcome::StoredBody;

use super::{complete, done, encrypted, keys, name, outcome, read, release};

/// A folder of one test, removed with its guard.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        let name = format!("genesys-once-encrypted-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
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

/// The parts of the outcome that these bytes show: its words, their base64 at any of the
/// three offsets, or its status.
fn shown(bytes: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    for word in ["header-of-Anna", "x-customer", "body-of-Anna", "4929-1234"] {
        words.push(word.to_owned());
        for offset in 0..3 {
            let shifted = ["", "#", "##"][offset].to_owned() + word;
            let encoded = BASE64.encode(shifted);
            // Without the base64 characters that depend on the neighbours of the word.
            words.push(encoded[4..encoded.len() - 4].to_owned());
        }
    }
    words.push(r#""status":201"#.to_owned());
    words.retain(|word| {
        bytes
            .windows(word.len())
            .any(|window| window == word.as_bytes())
    });
    words
}

fn file(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn file_shows_no_part_of_an_answer() {
    use genesys_once::{FileStore, Store as _};

    let folder = Folder::new("at-rest");
    let plain = FileStore::open(folder.file()).unwrap();
    done(&plain, 1, complete(1, outcome(), StoredBody::Full)).await;
    drop(plain);
    // The check finds the words in a plain record.
    assert!(shown(&file(&folder.file())).len() >= 4);
    std::fs::remove_file(folder.file()).unwrap();

    let store = encrypted(FileStore::open(folder.file()).unwrap());
    done(&store, 1, complete(1, outcome(), StoredBody::Full)).await;
    done(
        &store,
        2,
        complete(1, outcome(), StoredBody::OmittedSensitive),
    )
    .await;
    done(&store, 3, release(1, outcome())).await;
    drop(store);
    let bytes = file(&folder.file());
    assert_eq!(shown(&bytes), Vec::<String>::new());
    // The id of the required key is readable.
    let id = br#"["encryption-key-id","k1"]"#;
    assert!(bytes.windows(id.len()).any(|window| window == id));

    let store = encrypted(FileStore::open(folder.file()).unwrap());
    for number in 1..=3 {
        assert_eq!(*read(store.look(&name(number)).await).unwrap().0, outcome());
    }
}

mod redis {
    use genesys_once::record::{Answer, Event};
    use genesys_once::{Encrypted, RedisStore, Store as _};

    use super::super::{claim, reason};
    use super::*;
    use crate::support::redis::{Options, RedisServer};

    #[tokio::test]
    async fn server_shows_no_part_of_an_answer() {
        let server = Options::default().append_only().start();
        let plain = RedisStore::connect(&server.url()).await.unwrap();
        let store = encrypted(plain.clone());
        done(&store, 1, complete(1, outcome(), StoredBody::Full)).await;
        done(
            &store,
            2,
            complete(1, outcome(), StoredBody::OmittedTooLarge),
        )
        .await;
        done(&store, 3, release(1, outcome())).await;
        let log = || {
            let folder = server.folder.join("appendonlydir");
            let files = std::fs::read_dir(folder).unwrap();
            files
                .flat_map(|entry| file(&entry.unwrap().path()))
                .collect::<Vec<u8>>()
        };
        let values = || {
            let keys: Vec<String> = server.command(&["KEYS", "*"]);
            let all = keys
                .iter()
                .flat_map(|key| server.command::<Vec<u8>>(&["GET", key]));
            all.collect::<Vec<u8>>()
        };
        assert_eq!(shown(&values()), Vec::<String>::new());
        assert_eq!(shown(&log()), Vec::<String>::new());
        for number in 1..=3 {
            assert_eq!(*read(store.look(&name(number)).await).unwrap().0, outcome());
        }
        // The check finds the words in a plain record.
        done(&plain, 4, complete(1, outcome(), StoredBody::Full)).await;
        assert!(shown(&values()).len() >= 4 && shown(&log()).len() >= 4);
    }

    #[tokio::test]
    async fn copied_or_changed_value_is_unreadable() {
        let server = RedisServer::start();
        let store = encrypted(RedisStore::connect(&server.url()).await.unwrap());
        done(&store, 1, complete(1, outcome(), StoredBody::Full)).await;
        let [one, two] = [1, 2].map(|number| name(number).to_string());
        let copied: u32 = server.command(&["COPY", &one, &two]);
        assert_eq!(copied, 1);
        let acquire = || Event::Acquire { claim: claim(2) };
        for answer in [
            store.look(&name(2)).await.map(|_| ()),
            store.apply(&name(2), acquire()).await.map(|_| ()),
        ] {
            reason(&answer.unwrap_err());
        }
        // Another program writes another answer's fingerprint into the record's header.
        let value: Vec<u8> = server.command(&["GET", &one]);
        let (genuine, forged) = ("09".repeat(32), "08".repeat(32));
        let at = value
            .windows(64)
            .position(|bytes| bytes == genuine.as_bytes());
        let at = at.expect("the fingerprint is in the line");
        server.command::<()>(&["SETRANGE", &one, &at.to_string(), &forged]);
        let error = store.look(&name(1)).await.unwrap_err();
        assert!(reason(&error).contains("cannot be decrypted"), "{error:?}");
    }

    /// A record without a body must fit into a server that accepts only small writes,
    /// whatever the length of the key's id.
    #[tokio::test]
    async fn outcome_without_body_fits_a_full_server() {
        let server = RedisServer::start();
        let inner = RedisStore::connect(&server.url()).await.unwrap();
        let store = Encrypted::new(inner, keys(&"i".repeat(64), 1));
        done(&store, 1, Event::Acquire { claim: claim(1) }).await;
        server.command::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]);
        let large = genesys_once::Outcome::new(
            http::StatusCode::OK,
            http::HeaderMap::new(),
            "x".repeat(4096),
        );
        let error = store
            .apply(&name(1), complete(1, large.clone(), StoredBody::Full))
            .await;
        assert!(error.unwrap_err().is_refused());
        // The engine then reduces the outcome to its status.
        let mut reduced = large;
        *reduced.body_mut() = bytes::Bytes::new();
        let event = complete(1, reduced.clone(), StoredBody::OmittedTooLarge);
        let answer = store.apply(&name(1), event).await.unwrap();
        assert_eq!(answer, Answer::Done);
        let (outcome, stored_body) = read(store.look(&name(1)).await).unwrap();
        assert_eq!(
            (&*outcome, stored_body),
            (&reduced, StoredBody::OmittedTooLarge)
        );
    }
}
