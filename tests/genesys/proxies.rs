//! The configured proxy, and proxies from the environment.

use std::process::Stdio;

use genesys_once::{GenesysCloud, Upstream};

use super::server::{Server, answer};
use super::tls::identity;
use super::{call, cloud, may_have_left, send};
use crate::own_process::own_process;

/// Set in the process that this test starts, since a process must not change its own
/// variables.
const PART: &str = "GENESYS_ONCE_TEST_PART";

/// A platform that does not exist: only a proxy is asked for it.
fn far(pem: &str) -> GenesysCloud {
    cloud("https://genesys-once.invalid").root_certificate(pem)
}

async fn ask_for_both(cloud: &GenesysCloud) {
    assert!(!may_have_left(cloud).await);
    cloud.token_source().unwrap().fetch().await.unwrap_err();
}

/// Refuses every tunnel.
async fn proxy() -> Server {
    let no = answer("502 Bad Gateway", "connection: close\r\n", "");
    Server::start(move |mut connection| {
        let no = no.clone();
        async move {
            connection.request().await;
            connection.write(no.as_bytes()).await;
            connection.close().await;
        }
    })
    .await
}

/// Red if API and login use different proxies, if the variables count by default, if they
/// have priority over a configured proxy, or if they count for loopback.
#[tokio::test]
async fn environment_proxy_is_used_only_if_set() {
    let (_, pem) = identity(false);
    if let Ok(part) = std::env::var(PART) {
        match &*part {
            "default" => ask_for_both(&far(&pem)).await,
            "honoured" => ask_for_both(&far(&pem).environment_proxy(true)).await,
            "set" => {
                let other = proxy().await;
                let cloud = far(&pem).environment_proxy(true).proxy(other.url());
                ask_for_both(&cloud).await;
                assert_eq!(other.requests().len(), 2);
            }
            "loopback" => {
                let server = Server::answering(answer("200 OK", "", "{}")).await;
                let cloud = cloud(&server.url()).environment_proxy(true);
                send(&cloud, &call("{}")).await.unwrap();
            }
            part => panic!("{part}"),
        }
        return;
    }
    for (part, expected) in [("default", 0), ("honoured", 2), ("set", 0), ("loopback", 0)] {
        let proxy = proxy().await;
        let test = "environment_proxy_is_used_only_if_set";
        let mut child = tokio::process::Command::from(own_process(module_path!(), test));
        child
            .env_clear()
            .env(PART, part)
            .env("HTTPS_PROXY", proxy.url())
            .env("http_proxy", proxy.url())
            .stdout(Stdio::null());
        assert!(child.status().await.unwrap().success(), "{part}");
        let requests = proxy.requests();
        assert_eq!(requests.len(), expected, "{part}: {requests:?}");
        for request in requests {
            assert!(
                request.starts_with("CONNECT genesys-once.invalid:443 "),
                "{request}"
            );
        }
    }
}
