//! The platform's limits, and calls that are at the platform at the same time.

use std::time::Duration;

use genesys_once::testing::{GenesysSimulator, Step};

use super::client::{Client, key};

#[tokio::test]
async fn call_beyond_the_rate_gets_429() {
    let platform = GenesysSimulator::start().await;
    platform.rate_limit(2);
    let mut client = Client::with_token(&platform).await;
    for status in [200, 200, 429] {
        let answer = client.execute().await.unwrap();
        assert_eq!(answer.status, status);
        if status == 429 {
            let body = answer.json();
            let seconds = answer.header("retry-after");
            assert!(
                (1..=60).contains(&seconds.parse::<u32>().unwrap()),
                "{seconds}"
            );
            let message = body["message"].as_str().unwrap();
            assert!(message.ends_with(&format!("Retry the request in [{seconds}] seconds")));
            assert_eq!(body["code"], "too.many.requests.retry.after");
            assert_eq!(body["limit"]["value"], 2);
        }
    }
    let ledger = platform.ledger();
    assert_eq!((ledger.calls(&key()), ledger.executed(&key())), (3, 2));
    platform.rate_limit(1);
    assert_eq!(client.execute().await.unwrap().status, 200);
}

#[tokio::test]
async fn call_beyond_concurrency_gets_429() {
    let platform = GenesysSimulator::start().await;
    platform.concurrency_limit(1);
    platform.script(|call| {
        if call.attempt() == 1 {
            Step::Silent
        } else {
            Step::ok("{}")
        }
    });
    let mut first = Client::with_token(&platform).await;
    let mut second = Client::with_token(&platform).await;
    first.send_only().await;
    platform.ledger().wait_for(1).await;
    let refused = second.execute().await.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    assert_eq!(refused.json()["code"], "too.many.requests");
    assert_eq!(platform.max_concurrent(), 2);
    // A client that leaves frees its place as soon as the platform notices.
    drop(first);
    while second.execute().await.unwrap().status == 429 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn latency_delays_every_execution() {
    let platform = GenesysSimulator::start().await;
    platform.latency(Duration::from_secs(3600));
    let mut slow = Client::with_token(&platform).await;
    slow.send_only().await;
    platform.ledger().wait_for(1).await;
    platform.latency(Duration::ZERO);
    // After another client's whole exchange, the slow client has received nothing.
    let mut quick = Client::with_token(&platform).await;
    assert_eq!(quick.execute().await.unwrap().status, 200);
    assert!(slow.is_quiet());
    assert_eq!(platform.max_concurrent(), 2);
}
