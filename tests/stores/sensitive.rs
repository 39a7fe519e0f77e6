//! `.sensitive()` in every store: only the status is stored, and no digest of the body,
//! whether the platform executed or refused the request.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use genesys_once::outcome::StoredBody;
use genesys_once::testing::{ScriptedUpstream, Step, answers};
use genesys_once::{
    DataActionRequest, Encrypted, EncryptionKeys, Engine, FileStore, MemoryStore, RedisStore,
    Served, Store,
};
use sha2::{Digest, Sha256};

use crate::support::redis::RedisServer;

const ANSWER: &str = r#"{"customer":"Anna-4711"}"#;
/// Words that are easy to find.
const WORDS: [&str; 3] = ["Anna-4711", "Anna-may-not", "header-of-Anna"];

fn request(payload: &str) -> DataActionRequest {
    DataActionRequest::new("custom_-_card", payload).unwrap()
}

fn platform() -> ScriptedUpstream {
    ScriptedUpstream::new(|call| match call.body().as_ref() {
        b"1" => Step::ok(ANSWER).header("x-customer", "header-of-Anna"),
        _ => Step::Answer(answers::platform_error(403, "no", "Anna-may-not")),
    })
}

/// An outcome and a refusal, each with a replay by another process.
async fn exercise(store: Arc<dyn Store>, sensitive: bool) {
    let upstream = platform();
    let start = async || {
        let builder = Engine::builder(upstream.clone()).store(store.clone());
        builder.start().await.unwrap()
    };
    let one = start().await;
    for payload in ["1", "2"] {
        let mut request = request(payload);
        if sensitive {
            request = request.sensitive();
        }
        let reply = one.execute(request).await.unwrap();
        assert_eq!(
            reply.stored_body(),
            StoredBody::Full,
            "the executing engine has the whole answer"
        );
        assert!(!reply.body().is_empty());
    }
    let replay = start().await.execute(request("1")).await.unwrap();
    assert_eq!(replay.served(), Served::Store);
    assert_eq!(replay.status().as_u16(), 200);
    if sensitive {
        assert_eq!(
            (replay.stored_body(), replay.body().len()),
            (StoredBody::OmittedSensitive, 0)
        );
        assert!(replay.headers().is_empty());
    } else {
        assert_eq!(
            (replay.stored_body(), replay.body().as_ref()),
            (StoredBody::Full, ANSWER.as_bytes())
        );
    }
}

fn encrypted(store: impl Store) -> Arc<dyn Store> {
    let keys = EncryptionKeys::new("k1", [1; 32]).unwrap();
    Arc::new(Encrypted::new(store, keys))
}

/// How many of the words are present. No digest of an answer may be present: a reader could
/// find a PIN from it by trials.
///
/// Red with a digest of an unstored body in the header `content-digest`.
fn shown(bytes: &[u8]) -> usize {
    let is_there = |word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
    let digest = Sha256::digest(ANSWER);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let base64 = BASE64.encode(digest);
    for text in [digest.as_slice(), hex.as_bytes(), base64.as_bytes()] {
        assert!(!is_there(text), "a digest of the answer");
    }
    WORDS
        .iter()
        .filter(|word| is_there(word.as_bytes()))
        .count()
}

#[tokio::test]
async fn in_memory() {
    exercise(Arc::new(MemoryStore::new()), true).await;
    exercise(encrypted(MemoryStore::new()), true).await;
}

#[tokio::test]
async fn in_a_file() {
    struct Folder(PathBuf);
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    let name = format!("genesys-once-sensitive-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    for (number, (sensitive, sealed)) in [(false, false), (true, false), (true, true)]
        .into_iter()
        .enumerate()
    {
        let path = folder.0.join(format!("{number}.redb"));
        let store = FileStore::open(&path).unwrap();
        let store: Arc<dyn Store> = match sealed {
            false => Arc::new(store.clone()),
            true => encrypted(store.clone()),
        };
        exercise(store, sensitive).await;
        let words = shown(&std::fs::read(&path).unwrap());
        assert_eq!(words, if sensitive { 0 } else { WORDS.len() });
    }
}

#[tokio::test]
async fn in_redis() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    for (sensitive, sealed) in [(false, false), (true, false), (true, true)] {
        server.command::<()>(&["FLUSHALL"]);
        let store: Arc<dyn Store> = match sealed {
            false => Arc::new(store.clone()),
            true => encrypted(store.clone()),
        };
        exercise(store, sensitive).await;
        let keys: Vec<String> = server.command(&["KEYS", "*"]);
        // Two records, and the marker of the shard.
        assert_eq!(keys.len(), 3);
        let values = keys
            .iter()
            .flat_map(|key| server.command::<Vec<u8>>(&["GET", key]));
        let words = shown(&values.collect::<Vec<u8>>());
        assert_eq!(words, if sensitive { 0 } else { WORDS.len() });
    }
}
