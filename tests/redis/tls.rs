//! TLS against a real server. Roots and providers belong to a whole process, so tests that
//! depend on them run in a child process.

use std::path::Path;

use genesys_once::record::Answer;
use genesys_once::{Error, RedisStore, Store};

use super::{acquire, apply, complete, name};
use crate::own_process::{own_process, pass_alone};
use crate::support::cluster::RedisCluster;
use crate::support::redis::{Certificate, Options, RedisServer};
use crate::support::sentinel::{PRIMARY, RedisSentinel};

/// Runs one of the ignored tests below in a new process.
fn child(test: &str, server: &RedisServer) {
    let certificate = server.folder.join("cert.pem");
    run(test, &certificate, &[("TEST_REDIS_URL", &server.url())]);
}

fn run(test: &str, certificate: &Path, variables: &[(&str, &str)]) {
    let mut process = own_process(module_path!(), test);
    pass_alone(
        process
            .env("SSL_CERT_FILE", certificate)
            .envs(variables.iter().copied()),
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
fn trusted_certificate_is_accepted() {
    let server = Options::default()
        .password("pw")
        .tls(&Certificate::new())
        .start();
    child("tls_without_installed_provider", &server);
}

#[test]
fn tls_provider_of_service_is_kept() {
    let server = Options::default().tls(&Certificate::new()).start();
    child("tls_with_installed_provider", &server);
}

/// Only a process that trusts the certificate can start these servers: their guards connect
/// to them, too.
fn child_with_servers(test: &str) {
    let certificate = Certificate::new();
    let server = Options::default().tls(&certificate).start();
    let path = server.folder.join("cert.pem");
    let (pem, key) = (&*certificate.pem, &*certificate.key_pem);
    run(test, &path, &[("TEST_CERT", pem), ("TEST_KEY", key)]);
}

/// The options with TLS, in a process that [`child_with_servers`] has started.
fn over_tls() -> Options {
    let variable = |name| std::env::var(name).expect("set by the parent");
    let certificate = Certificate {
        pem: variable("TEST_CERT"),
        key_pem: variable("TEST_KEY"),
    };
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    Options::default()
        .tls(&certificate)
        .set("tls-replication", "yes")
}

#[test]
fn all_cluster_nodes_use_tls() {
    child_with_servers("cluster_works_over_tls");
}

#[test]
fn sentinels_and_servers_use_tls() {
    child_with_servers("sentinels_work_over_tls");
}

#[tokio::test]
#[ignore = "started by another test, in a process of its own"]
async fn cluster_works_over_tls() {
    let cluster = RedisCluster::start_with(over_tls().set("tls-cluster", "yes")).await;
    let store = RedisStore::cluster(&cluster.urls()[..1]).await.unwrap();
    for number in 0..20 {
        let answer = apply(&store, number, acquire(1)).await.unwrap();
        assert_eq!(answer, Answer::Done);
    }
    let sizes: Vec<u32> = cluster.nodes[..3]
        .iter()
        .map(|node| node.command(&["DBSIZE"]))
        .collect();
    assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
    let plain = cluster.urls()[0].replace("rediss:", "redis:");
    let error = RedisStore::cluster([&plain]).await.unwrap_err();
    assert!(error.to_string().contains("expects TLS"), "{error}");
}

#[tokio::test]
#[ignore = "started by another test, in a process of its own"]
async fn sentinels_work_over_tls() {
    let options = over_tls();
    let set_up = RedisSentinel::start_with(options.clone(), options, &[]).await;
    let store = RedisStore::sentinel(set_up.urls(), PRIMARY).await.unwrap();
    use_store(&store).await;
    // The same setting, stated for each kind of server.
    let primary = format!("rediss://{PRIMARY}");
    let store = RedisStore::sentinel(set_up.urls(), &primary).await.unwrap();
    assert!(store.look(&name(1)).await.unwrap().is_some());
    let plain = format!("redis://{PRIMARY}");
    let error = RedisStore::sentinel(set_up.urls(), &plain)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("expects TLS"), "{error}");
}

#[tokio::test]
async fn untrusted_certificate_is_refused() {
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
async fn tls_without_installed_provider() {
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    let store = RedisStore::connect(&url()).await.unwrap();
    use_store(&store).await;
}

#[tokio::test]
#[ignore = "started by another test, in a process of its own"]
async fn tls_with_installed_provider() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    let before = rustls::crypto::CryptoProvider::get_default().unwrap();
    let store = RedisStore::connect(&url()).await.unwrap();
    use_store(&store).await;
    let after = rustls::crypto::CryptoProvider::get_default().unwrap();
    assert!(std::sync::Arc::ptr_eq(before, after));
}
