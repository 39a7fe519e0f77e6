//! `RedisStore::builder`: logins and certificates that are in no URL. No message shows them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use genesys_once::error::BoxError;
use genesys_once::record::Answer;
use genesys_once::{Error, RedisStore, Store};

use super::{acquire, apply, chain, name};
use crate::support::cluster::RedisCluster;
use crate::support::eventually;
use crate::support::redis::{Certificate, Options, RedisServer};
use crate::support::sentinel::{PRIMARY, RedisSentinel};

const SECRET: &str = "hunter2";

fn plain(server: &RedisServer) -> String {
    format!("redis://127.0.0.1:{}", server.port)
}

fn set_user(server: &RedisServer, password: &str) {
    let password = format!(">{password}");
    let words = ["ACL", "SETUSER", "app", "on", "resetpass", &password];
    server.command::<()>(&[&words[..], &["~*", "&*", "+@all"]].concat());
}

/// The reason of an error, which never contains the secret.
fn shown(error: &Error) -> String {
    let text = format!("{error:?} {}", chain(error));
    assert!(!text.contains(SECRET), "{text}");
    text
}

fn reason(error: Error) -> String {
    shown(&error);
    match error {
        Error::InvalidConfig { reason, .. } => reason.to_string(),
        error => panic!("{error:?}"),
    }
}

/// Red if the provider is asked only once, if its answer is not used, and if no login
/// follows a refused login.
#[tokio::test]
async fn provider_is_asked_at_each_connect() {
    let server = RedisServer::start();
    set_user(&server, SECRET);
    let (word, asked) = (Arc::new(Mutex::new("old")), Arc::new(AtomicUsize::new(0)));
    let builder = RedisStore::builder([plain(&server)]).credentials({
        let (word, asked) = (word.clone(), asked.clone());
        move || {
            let (word, asked) = (*word.lock().unwrap(), asked.clone());
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                Ok(("app".to_owned(), word.to_owned()))
            }
        }
    });
    // The provider might return another login at the next attempt, so this is no invalid
    // setting.
    let error = builder.clone().connect().await.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error:?}");
    let text = shown(&error);
    assert!(text.contains("refuses the credentials"), "{text}");
    *word.lock().unwrap() = SECRET;
    let store = builder.connect().await.unwrap();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    let user: String = server.command(&["CLIENT", "LIST"]);
    assert!(user.contains("user=app"), "{user}");

    // The password is rotated: the connection stays, and the next connection uses the new
    // password.
    set_user(&server, "new");
    let before = asked.load(Ordering::SeqCst);
    server.command::<()>(&["CLIENT", "KILL", "USER", "app"]);
    eventually("the old password is refused", async || {
        let failed = store.look(&name(1)).await.err();
        failed.is_some_and(|error| chain(&error).contains("WRONGPASS"))
    })
    .await;
    *word.lock().unwrap() = "new";
    eventually("the new password is used", async || {
        store.look(&name(1)).await.is_ok()
    })
    .await;
    assert!(asked.load(Ordering::SeqCst) >= before + 2);
}

/// Red if the panic or silence of a provider affects another connection.
#[tokio::test]
async fn failed_provider_is_reported() {
    let server = RedisServer::start();
    let builder = || RedisStore::builder([plain(&server)]);
    let failing = builder().credentials(|| async { Err(BoxError::from("no metadata")) });
    let panicking = builder().credentials(|| async { panic!("no such role") });
    let silent = builder()
        .credentials(std::future::pending)
        .connect_timeout(Duration::from_millis(20));
    for (builder, message) in [
        (failing, "the credentials provider failed: no metadata"),
        (panicking, "the credentials provider panicked"),
        (silent, "did not answer within 0.02 s"),
    ] {
        let error = builder.connect().await.unwrap_err();
        assert!(matches!(error, Error::StoreUnavailable { .. }), "{error:?}");
        let text = chain(&error);
        assert!(text.contains(message), "{text}");
    }
}

/// Red if a contradicting or unused setting is ignored.
#[tokio::test]
async fn contradicting_settings_are_refused() {
    let url = "redis://127.0.0.1:1";
    let with_login = format!("redis://:{SECRET}@127.0.0.1:1");
    let tls = "rediss://127.0.0.1:1";
    let certificate = Certificate::new();
    let login = || async { Ok((String::new(), SECRET.to_owned())) };
    for (builder, message) in [
        (
            RedisStore::builder([url]).username("app"),
            "there is a username without a password",
        ),
        (
            RedisStore::builder([url])
                .password(SECRET)
                .credentials(login),
            "there are a password and a credentials provider",
        ),
        (
            RedisStore::builder([&with_login]).password("other"),
            "it has a password, and the builder has another login",
        ),
        (
            RedisStore::builder([&with_login]).credentials(login),
            "it has a password, and the builder has another login",
        ),
        (
            RedisStore::builder([url, url]),
            "exactly one url is needed to connect to one server",
        ),
        (
            RedisStore::builder([url]).tls_ca(certificate.pem.clone()),
            "there are certificates, and no url has rediss://",
        ),
        (
            RedisStore::builder([tls]).tls_ca("no certificate"),
            "it has no certificate in PEM",
        ),
        (
            RedisStore::builder([tls]).client_cert(certificate.pem.clone(), SECRET),
            "certificate or key is no PEM that can be read",
        ),
        (
            RedisStore::builder([url]).connect_timeout(Duration::ZERO),
            "it must be between 1 ms and 6 s",
        ),
        (
            RedisStore::builder([url]).connect_timeout(Duration::from_secs(7)),
            "it must be between 1 ms and 6 s",
        ),
    ] {
        let debug = format!("{builder:?}");
        assert!(!debug.contains(SECRET), "{debug}");
        assert_eq!(reason(builder.connect().await.unwrap_err()), message);
    }
}

/// Red if the certificates are not used, or not sent.
#[tokio::test]
async fn builder_certificates_are_used() {
    let (theirs, other) = (Certificate::new(), Certificate::new());
    let server = Options::default()
        .tls(&theirs)
        .set("tls-auth-clients", "yes")
        .start();
    let builder = || RedisStore::builder([server.url()]);
    let untrusted = builder().tls_ca(other.pem.clone());
    let message = reason(untrusted.connect().await.unwrap_err());
    assert!(message.contains("is not trusted"), "{message}");
    let nameless = builder().tls_ca(theirs.pem.clone());
    let message = reason(nameless.connect().await.unwrap_err());
    assert!(message.contains("wants a client certificate"), "{message}");
    let trusted = builder().tls_ca(theirs.pem.clone());
    let known = trusted.client_cert(theirs.pem.clone(), theirs.key_pem.clone());
    let store = known.connect().await.unwrap();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
}

/// Red if the login of a node comes only from the URLs.
#[tokio::test]
async fn cluster_urls_must_share_login() {
    let options = Options::default().password(SECRET);
    let cluster = RedisCluster::start_with(options.set("masterauth", SECRET)).await;
    let urls = [plain(&cluster.nodes[0]), plain(&cluster.nodes[4])];
    let builder = RedisStore::builder(&urls).username("default");
    let store = builder.password(SECRET).cluster().await.unwrap();
    for number in 0..20 {
        let answer = apply(&store, number, acquire(1)).await;
        assert_eq!(answer.unwrap(), Answer::Done);
    }
    assert!(!format!("{store:?}").contains(SECRET));
}

/// Red if the servers' login is used for the sentinels, which do not know that user.
#[tokio::test]
async fn primary_url_has_separate_login() {
    let set_up = RedisSentinel::start().await;
    for server in &set_up.servers {
        set_user(server, SECRET);
    }
    let login = || async { Ok(("app".to_owned(), SECRET.to_owned())) };
    let builder = RedisStore::builder(set_up.urls()).credentials(login);
    let primary = format!("redis://{PRIMARY}");
    let store = builder.clone().sentinel(&primary).await.unwrap();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    // A plain name means one login for sentinels and servers.
    let error = builder.sentinel(PRIMARY).await.unwrap_err();
    shown(&error);
}
