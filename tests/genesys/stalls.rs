//! A runtime that stood still past the end of an attempt, while the answer came: it
//! lies in the socket, and is an answer.

use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use genesys_once::{DataActionRequest, Engine, RetryPolicy};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::connection_reuse::{in_threads, request};
use super::server::answer;
use super::{call, cloud, send};

/// Longer than it takes until the request is there, on any machine.
const LIMIT: Duration = Duration::from_secs(3);

/// A platform that answers once the client's runtime stands still. Token requests it
/// answers at once.
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
        // This is the stall, of the runtime's only thread.
        std::thread::sleep(LIMIT + LIMIT / 4);
    };
    (url, stall)
}

/// Red when a timer that fires late ends the attempt at once, and red with the
/// client library's own time limit: it is looked at before the answer.
#[tokio::test]
async fn answer_that_came_during_a_stall_is_read() {
    let (url, stall) = platform();
    tokio::spawn(stall);
    let cloud = cloud(&url).attempt_timeout(LIMIT);
    let outcome = send(&cloud, &call("{}")).await.unwrap();
    assert_eq!(outcome.body(), "{}");
}

#[tokio::test]
async fn answer_that_came_during_a_stall_is_an_answer_for_the_engine() {
    let (url, stall) = platform();
    tokio::spawn(stall);
    let engine = Engine::builder(cloud(&url).attempt_timeout(LIMIT));
    let engine = engine.retry(RetryPolicy::never()).start().await.unwrap();
    let request = DataActionRequest::new("custom_-_1", "{}").unwrap();
    let reply = engine.execute(request).await.unwrap();
    assert_eq!(reply.body(), "{}");
    assert_eq!(engine.stats().calls_unknown, 0);
}
