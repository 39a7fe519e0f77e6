//! A runtime is blocked past the end of an attempt while the answer arrives: the answer is in
//! the socket, and counts.

use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use genesys_once::{DataActionRequest, Engine, RetryPolicy};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::connection_reuse::{in_threads, request};
use super::server::answer;
use super::{call, cloud, send};

/// Longer than a request needs to arrive, on any machine.
const LIMIT: Duration = Duration::from_secs(3);

/// A platform that answers while the client's runtime is blocked. It answers token requests
/// at once.
fn platform() -> (String, impl Future<Output = ()> + Send + 'static) {
    let (asked, mut is_asked): (_, UnboundedReceiver<mpsc::Sender<()>>) = unbounded_channel();
    let (wrote, written) = mpsc::channel();
    let (url, _) = in_threads(move |mut stream| {
        while let Some(head) = request(&mut stream) {
            if head.starts_with("POST /oauth/token") {
                let token = r#"{"access_token":"t","token_type":"bearer","expires_in":3600}"#;
                let answer = answer("200 OK", "", token);
                stream.write_all(answer.as_bytes()).unwrap();
                continue;
            }
            let (stands, still) = mpsc::channel();
            asked.send(stands).unwrap();
            still.recv().unwrap();
            let answer = answer("200 OK", "", "{}");
            stream.write_all(answer.as_bytes()).unwrap();
            wrote.send(()).unwrap();
        }
    });
    let stall = async move {
        let stands = is_asked.recv().await.unwrap();
        stands.send(()).unwrap();
        written.recv().unwrap();
        // This is the stall of the runtime's only thread.
        std::thread::sleep(LIMIT + LIMIT / 4);
    };
    (url, stall)
}

/// Red if a late timer ends the attempt at once. Red with the client library's time limit,
/// which is checked before the answer.
#[tokio::test]
async fn answer_during_a_stall_is_read() {
    let (url, stall) = platform();
    tokio::spawn(stall);
    let cloud = cloud(&url).attempt_timeout(LIMIT);
    let outcome = send(&cloud, &call("{}")).await.unwrap();
    assert_eq!(outcome.body(), "{}");
}

#[tokio::test]
async fn engine_accepts_answer_during_a_stall() {
    let (url, stall) = platform();
    tokio::spawn(stall);
    let engine = Engine::builder(cloud(&url).attempt_timeout(LIMIT));
    let engine = engine.retry(RetryPolicy::never()).start().await.unwrap();
    let request = DataActionRequest::new("custom_-_1", "{}").unwrap();
    let reply = engine.execute(request).await.unwrap();
    assert_eq!(reply.body(), "{}");
    assert_eq!(engine.stats().calls_unknown, 0);
}
