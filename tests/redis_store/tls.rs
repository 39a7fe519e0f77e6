//! TLS against a real server. Roots and providers belong to a whole process,
//! so what depends on them runs in a child of the test's own.

use std::process::Command;

use genesys_once::record::Answer;
use genesys_once::{Error, RedisStore, Store};

use super::{acquire, apply, complete, name};
use crate::support::redis::{Certificate, Options, RedisServer};

/// Runs one of the ignored tests below in a new process.
fn child(test: &str, server: &RedisServer) {
    let path = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &path, "--ignored", "--nocapture"])
        .env("SSL_CERT_FILE", server.folder.join("cert.pem"))
        .env("TEST_REDIS_URL", server.url())
        .output()
        .unwrap();
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
}

fn url() -> String {
    std::env::var("TEST_REDIS_URL").expect("set by the parent")
}

async fn use_store(store: &RedisStore) {
    assert_eq!(apply(store, 1, acquire(1)).await.unwrap(), Answer::Done);
    assert_eq!(
        apply(store, 1, complete(1, "{}")).await.unwrap(),
        Answer::Done
    );
    assert!(store.look(&name(1)).await.unwrap().is_some());
}

#[test]
fn a_certificate_that_the_process_trusts_is_accepted() {
    let server = Options::default()
        .password("pw")
        .tls(&Certificate::new())
        .start();
    child("in_a_process_without_a_provider", &server);
}

#[test]
fn a_provider_that_the_service_has_chosen_stays() {
    let server = Options::default().tls(&Certificate::new()).start();
    child("in_a_process_with_a_provider", &server);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_told() {
    let server = Options::default().tls(&Certificate::new()).start();
    let error = RedisStore::connect(&server.url()).await.unwrap_err();
    let Error::InvalidConfig { reason, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(
        reason.starts_with("the server's certificate is not trusted"),
        "{reason}"
    );
    assert!(reason.contains("SSL_CERT_FILE"), "{reason}");
}

#[tokio::test]
#[ignore = "started by another test, in a process of its own"]
async fn in_a_process_without_a_provider() {
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    let store = RedisStore::connect(&url()).await.unwrap();
    use_store(&store).await;
}

#[tokio::test]
#[ignore = "started by another test, in a process of its own"]
async fn in_a_process_with_a_provider() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    let before = rustls::crypto::CryptoProvider::get_default().unwrap();
    let store = RedisStore::connect(&url()).await.unwrap();
    use_store(&store).await;
    let after = rustls::crypto::CryptoProvider::get_default().unwrap();
    assert!(std::sync::Arc::ptr_eq(before, after));
}
