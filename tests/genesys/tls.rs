//! Failures under TLS: all of the handshake comes before the first byte of the
//! request, and nothing after it does.

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

/// A server's side of TLS 1.3, and the PEM text that makes it trusted.
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
async fn a_root_certificate_of_ones_own_is_trusted() {
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
async fn a_handshake_that_fails_comes_before_the_first_byte() {
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
    // Where the attempt's own time is shorter, the proof is kept all the same.
    assert!(!may_have_left(&cloud(&silent.https_url()).attempt_timeout(2 * limit)).await);
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_comes_before_the_first_byte() {
    let (acceptor, _) = identity(false);
    let server = Server::start(move |connection| {
        let acceptor = acceptor.clone();
        async move {
            let accepted = connection.upgrade(|tcp| acceptor.accept(tcp)).await;
            assert!(
                accepted.is_err(),
                "the client did not look at the certificate"
            );
        }
    })
    .await;
    assert!(!may_have_left(&cloud(&server.https_url())).await);
}

#[tokio::test]
async fn what_happens_after_the_handshake_proves_nothing() {
    let (acceptor, pem) = identity(false);
    let server = Server::start(move |connection| {
        let acceptor = acceptor.clone();
        async move {
            let mut connection = connection
                .upgrade(|tcp| acceptor.accept(tcp))
                .await
                .unwrap();
            connection.request().await;
            // Dropped: the stream ends without TLS's own goodbye.
        }
    })
    .await;
    assert!(may_have_left(&cloud(&server.https_url()).root_certificate(pem)).await);
    assert_eq!((server.connections(), server.requests().len()), (1, 1));
}

#[tokio::test]
async fn an_alert_after_the_clients_handshake_proves_nothing() {
    // Under TLS 1.3 a client has finished, and may have sent its request,
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
    // Where the alert is faster than the request, nothing was sent.
    for _ in 0..50 {
        if may_have_left(&cloud(&server.https_url()).root_certificate(&pem)).await {
            return;
        }
    }
    panic!("fifty requests, and none was sent");
}

#[tokio::test]
async fn an_unframed_answer_that_ends_without_goodbye_is_cut() {
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
async fn a_proxy_that_refuses_the_tunnel_comes_before_the_first_byte() {
    for status in ["407 Proxy Authentication Required", "502 Bad Gateway"] {
        let proxy = Server::answering(answer(status, "", "")).await;
        let cloud = cloud("https://localhost:9").proxy(proxy.url());
        assert!(!may_have_left(&cloud).await, "{status}");
        assert!(proxy.requests()[0].starts_with("CONNECT localhost:9 "));
    }
}
