//! How connections end: by script, by refusal, and with the platform itself.

use std::io::ErrorKind;

use genesys_once::testing::{GenesysSimulator, Step};

use super::client::{Client, key};

#[tokio::test]
async fn reset_counts_as_executed() {
    let platform = GenesysSimulator::start().await;
    for (n, step) in [Step::Reset, Step::Refused, Step::Panic]
        .into_iter()
        .enumerate()
    {
        platform.script(move |_| step.clone());
        let mut client = Client::with_token(&platform).await;
        let error = client.execute().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(platform.ledger().executed(&key()), n + 1);
    }
}

#[tokio::test]
async fn cut_answer_has_a_part_of_its_body() {
    let platform = GenesysSimulator::start().await;
    platform.script(|_| Step::Cut);
    for _ in 0..20 {
        let mut client = Client::with_token(&platform).await;
        let error = client.execute().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(client.last_head(), Some(200));
    }
    assert_eq!(platform.ledger().executed(&key()), 20);
}

#[tokio::test]
async fn silent_step_keeps_the_connection_open() {
    let platform = GenesysSimulator::start().await;
    platform.script(|call| {
        if call.attempt() == 1 {
            Step::Silent
        } else {
            Step::ok("{}")
        }
    });
    let mut silent = Client::with_token(&platform).await;
    silent.send_only().await;
    platform.ledger().wait_for(1).await;
    let mut other = Client::with_token(&platform).await;
    assert_eq!(other.execute().await.unwrap().status, 200);
    assert!(silent.is_quiet());
    assert_eq!(platform.ledger().executed(&key()), 2);
}

#[tokio::test]
async fn refused_connections_are_accepted_again_later() {
    let platform = GenesysSimulator::start().await;
    let mut unused = Client::connect(&platform).await.unwrap();
    let mut idle = Client::with_token(&platform).await;
    assert_eq!(idle.execute().await.unwrap().status, 200);
    for _ in 0..2 {
        platform.refuse_connections(true).await;
        idle.closed().await;
        unused.closed().await;
        for _ in 0..3 {
            let error = Client::connect(&platform).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        platform.refuse_connections(false).await;
        idle = Client::with_token(&platform).await;
        assert_eq!(idle.execute().await.unwrap().status, 200);
        unused = Client::connect(&platform).await.unwrap();
    }
    assert_eq!(platform.ledger().total(), 3);
}

#[tokio::test]
async fn second_refusal_leaves_calls_under_way() {
    let platform = GenesysSimulator::start().await;
    platform.script(|_| Step::Silent);
    let mut busy = Client::with_token(&platform).await;
    busy.send_only().await;
    platform.ledger().wait_for(1).await;
    platform.refuse_connections(true).await;
    platform.refuse_connections(true).await;
    assert!(busy.is_quiet());
    platform.refuse_connections(false).await;
    platform.refuse_connections(false).await;
    Client::with_token(&platform).await;
}

#[tokio::test]
async fn stopped_simulator_frees_its_port() {
    let platform = GenesysSimulator::start().await;
    let ledger = platform.ledger().clone();
    platform.script(|_| Step::Silent);
    let mut busy = Client::with_token(&platform).await;
    busy.send_only().await;
    ledger.wait_for(1).await;
    let address = platform
        .base_url()
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    platform.stop().await;
    busy.closed().await;
    let error = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    ledger.assert_exactly_once(&[key()]);
}

#[tokio::test]
async fn dropped_simulator_closes_its_connections() {
    let platform = GenesysSimulator::start().await;
    let mut idle = Client::with_token(&platform).await;
    let mut unused = Client::connect(&platform).await.unwrap();
    drop(platform);
    idle.closed().await;
    unused.closed().await;
}
