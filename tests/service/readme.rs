//! The commands of the service's README, run exactly as they are written, except for the
//! port.

use std::process::Stdio;

use tokio::process::Command;

use crate::process::Settings;
use crate::support::redis::RedisServer;

const README: &str = include_str!("../../examples/service/README.md");

/// Red if a route, a header or the meaning of `Idempotency-Key` changes and README does
/// not. The first command runs without cargo, which would build the service again.
#[tokio::test]
async fn readme_commands_execute_once_and_replay() {
    let mut scripts = README.split("```sh\n").skip(1);
    let script = scripts.next().unwrap().split("```").next().unwrap();
    assert_eq!(scripts.count(), 0, "a script that this test does not run");
    let (start, request) = script.split_once("\n\n").unwrap();
    let service = concat!("GENESYS_SIMULATE=1 cargo run -p ", env!("CARGO_PKG_NAME"));
    assert!(start.starts_with(service), "{start}");

    // A file would replay what an earlier run of this test recorded.
    let redis = RedisServer::start();
    let settings = Settings::simulated().set("REDIS_URL", redis.url());
    let service = settings.start().await;
    let request = request.replace("localhost:8080", &service.address);
    assert!(request.contains(&service.address), "{request}");
    for served in ["upstream", "memory"] {
        let mut shell = Command::new("sh");
        shell.args(["-euc", &request]).stdin(Stdio::null());
        let output = shell.output().await.unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{answer}");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        let header = format!("genesys-once-served: {served}\r\n");
        assert!(answer.contains(&header), "{answer}");
        let replayed = answer.contains("idempotency-replayed: true");
        assert_eq!(replayed, served == "memory", "{answer}");
    }
}
