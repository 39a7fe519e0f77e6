//! A man in the middle of a Redis connection: it passes on each request, and may change or
//! lose the reply.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the client gets for a reply: another reply; `None` closes the connection, and the
/// reply is lost.
type Rule = dyn Fn(&[u8], Vec<u8>) -> Option<Vec<u8>> + Send + Sync;

/// Starts a proxy for the server at `port`, and returns the proxy's port. The proxy ends
/// with the runtime.
pub async fn start(
    port: u16,
    rule: impl Fn(&[u8], Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let rule: Arc<Rule> = Arc::new(rule);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(pass_on(client, server, rule.clone()));
        }
    });
    own
}

/// The program sends one command, or a few at once, and waits for the replies.
async fn pass_on(mut client: TcpStream, mut server: TcpStream, rule: Arc<Rule>) {
    let mut request = Vec::new();
    let (mut from_client, mut from_server) = ([0; 65536], [0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read {
                Ok(length @ 1..) => {
                    request = from_client[..length].to_vec();
                    if server.write_all(&request).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = server.read(&mut from_server) => match read {
                Ok(length @ 1..) => {
                    let reply = from_server[..length].to_vec();
                    let Some(reply) = rule(&request, reply) else {
                        return;
                    };
                    if client.write_all(&reply).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

/// Whether the bytes contain this text.
pub fn has(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}
