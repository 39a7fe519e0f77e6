//! Failures under TLS: a failure of the handshake proves that nothing was sent, and a later
//! failure proves nothing.

use std::sync::Arc;
use std::time::Duration;

use rcgen::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};

use super::server::{Server, answer};
use super::{call, cloud, may_have_left, send};

/// The server side of TLS 1.3, and the PEM text of its certificate.
pub fn identity(ask_for_client_certificate: bool) -> (TlsAcceptor, String) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap();
    let builder = if ask_for_client_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = builder
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), cert.pem())
}

#[tokio::test]
async fn configured_root_certificate_is_trusted() {
    let (acceptor, pem) = identity(false);
    let server = Server::start(move |connection| {
        let acceptor = acceptor.clone();
        async move {
            let mut connection = connection
                .upgrade(|tcp| acceptor.accept(tcp))
                .await
                .unwrap();
            while connection.request().await.is_some() {
                connection
                    .write(answer("200 OK", "", "{}").as_bytes())
                    .await;
            }
        }
    })
    .await;
    let cloud = cloud(&server.https_url()).root_certificate(pem);
    assert_eq!(send(&cloud, &call("{}")).await.unwrap().body(), "{}");
}

#[tokio::test]
async fn failed_handshake_proves_unsent() {
    // Plain text on the TLS port.
    let plain = Server::start(|mut connection| async move {
        connection.write(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        connection.until_closed().await;
    })
    .await;
    assert!(!may_have_left(&cloud(&plain.https_url())).await);

    let closed = Server::start(|connection| connection.close()).await;
    assert!(!may_have_left(&cloud(&closed.https_url())).await);

    let reset = Server::start(|connection| async { connection.reset() }).await;
    assert!(!may_have_left(&cloud(&reset.https_url())).await);

    let silent =
        Server::start(|mut connection| async move { connection.until_closed().await }).await;
    let limit = Duration::from_millis(200);
    assert!(!may_have_left(&cloud(&silent.https_url()).connect_timeout(limit)).await);
    // The proof also holds if the attempt's own time-out is shorter.
    assert!(!may_have_left(&cloud(&silent.https_url()).attempt_timeout(2 * limit)).await);
}

#[tokio::test]
async fn untrusted_certificate_proves_unsent() {
    let (acceptor, _) = identity(false);
    let server = Server::start(move |connection| {
        let acceptor = acceptor.clone();
        async move {
            let accepted = connection.upgrade(|tcp| acceptor.accept(tcp)).await;
            assert!(
                accepted.is_err(),
                "the client did not check the certificate"
            );
        }
    })
    .await;
    assert!(!may_have_left(&cloud(&server.https_url())).await);
}

#[tokio::test]
async fn failure_after_the_handshake_proves_nothing() {
    let (acceptor, pem) = identity(false);
    let server = Server::start(move |connection| {
        let acceptor = acceptor.clone();
        async move {
            let mut connection = connection
                .upgrade(|tcp| acceptor.accept(tcp))
                .await
                .unwrap();
            connection.request().await;
            // Dropped: the stream ends without TLS's `close_notify`.
        }
    })
    .await;
    assert!(may_have_left(&cloud(&server.https_url()).root_certificate(pem)).await);
    assert_eq!((server.connections(), server.requests().len()), (1, 1));
}

#[tokio::test]
async fn alert_after_client_handshake_proves_nothing() {
    // Under TLS 1.3 a client has finished the handshake, and might have sent its request,
    // before the server refuses it for having no certificate.
    let (acceptor, pem) = identity(true);
    let server = Server::start(move |connection| {
        let acceptor = acceptor.clone();
        async move {
            assert!(
                connection
                    .upgrade(|tcp| acceptor.accept(tcp))
                    .await
                    .is_err()
            );
        }
    })
    .await;
    // If the alert is faster than the request, nothing was sent.
    for _ in 0..50 {
        if may_have_left(&cloud(&server.https_url()).root_certificate(&pem)).await {
            return;
        }
    }
    panic!("none of fifty requests was sent");
}

#[tokio::test]
async fn unframed_answer_without_close_notify_is_cut() {
    let (acceptor, pem) = identity(false);
    let server = Server::start(move |connection| {
        let acceptor = acceptor.clone();
        async move {
            let mut connection = connection
                .upgrade(|tcp| acceptor.accept(tcp))
                .await
                .unwrap();
            connection.request().await;
            connection
                .write(b"HTTP/1.1 200 OK\r\n\r\nhalf an ans")
                .await;
        }
    })
    .await;
    assert!(may_have_left(&cloud(&server.https_url()).root_certificate(pem)).await);
}

#[tokio::test]
async fn refused_tunnel_proves_unsent() {
    for status in ["407 Proxy Authentication Required", "502 Bad Gateway"] {
        let proxy = Server::answering(answer(status, "", "")).await;
        let cloud = cloud("https://localhost:9").proxy(proxy.url());
        assert!(!may_have_left(&cloud).await, "{status}");
        assert!(proxy.requests()[0].starts_with("CONNECT localhost:9 "));
    }
}
