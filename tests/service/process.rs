//! The service as a process: started on a free port, called, signalled, and killed when its
//! guard is dropped.

use std::process::{Output, Stdio};
use std::time::Duration;

use genesys_once::testing::GenesysSimulator;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::http_client::{Answer, send};

pub const TOKEN: &str = "an-admin-token-of-the-tests";
const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(60);

/// The settings with which a service starts.
pub struct Settings(Vec<(&'static str, String)>);

impl Settings {
    /// For this platform, with the admin routes on.
    pub fn of(platform: &GenesysSimulator) -> Self {
        Self(Vec::new())
            .set("GENESYS_CLOUD_URL", platform.base_url())
            .set("GENESYS_CLOUD_CLIENT_ID", platform.client_id())
            .set("GENESYS_CLOUD_CLIENT_SECRET", platform.client_secret())
            .set("SERVICE_ADMIN_TOKEN", TOKEN)
            .set("SERVICE_READY_DELAY_SECONDS", "0")
            // Each list shows the current state.
            .set("SERVICE_WATCH_SECONDS", "0")
            // In tests of other settings, no time-out ends a connection.
            .set("SERVICE_IDLE_SECONDS", "3600")
            .set("SERVICE_BODY_SECONDS", "3600")
    }

    /// Without any setting.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// With the simulator inside, and no admin routes.
    pub fn simulated() -> Self {
        Self::none().set("GENESYS_SIMULATE", "1")
    }

    pub fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value.into()));
        self
    }

    /// Runs the service with an argument; it must end by itself at once.
    pub async fn run(&self, argument: &str) -> Output {
        let output = self.command().arg(argument).output();
        timeout(START, output).await.expect("its end").unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_service"));
        for (name, _) in std::env::vars() {
            let of_service = ["GENESYS_", "SERVICE_", "REDIS_URL"];
            if of_service.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.env("SERVICE_ADDRESS", "127.0.0.1:0");
        command.envs(self.0.iter().map(|(name, value)| (name, value)));
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Runs a service that must end by itself at once.
    pub async fn fail(&self) -> Output {
        let output = self.command().output();
        timeout(START, output).await.expect("its end").unwrap()
    }

    pub async fn start(&self) -> Service {
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut metrics = String::new();
        let started = async {
            let mut line = String::new();
            while output.read_line(&mut line).await.unwrap() > 0 {
                // Without the feature `metrics` it begins with "probes".
                if let Some((_, address)) = line.split_once(" on     http://") {
                    address.trim().clone_into(&mut metrics);
                }
                if let Some(address) = line.strip_prefix("listening on http://") {
                    return address.trim().to_owned();
                }
                line.clear();
            }
            panic!("the service ended before it listened");
        };
        let address = timeout(START, started).await.expect("its address");
        Service {
            child,
            output,
            address,
            metrics,
        }
    }
}

pub struct Service {
    child: Child,
    output: BufReader<ChildStdout>,
    pub address: String,
    /// The address for metrics alone, if there is one.
    pub metrics: String,
}

impl Service {
    pub async fn get(&self, path: &str) -> Answer {
        send(&self.address, "GET", path, &[], "").await.unwrap()
    }

    /// Sends a request as an operator, with the token.
    pub async fn admin(&self, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str())];
        send(&self.address, method, path, &headers, body)
            .await
            .unwrap()
    }

    /// Resolves the version of a key that was shown as `tag`, as an operator does.
    pub async fn resolve(&self, path: &str, tag: &str, body: &str) -> Answer {
        self.seen("POST", path, tag, body).await
    }

    /// Forgets the version of a key that was shown as `tag`.
    pub async fn forget(&self, path: &str, tag: &str) -> Answer {
        self.seen("DELETE", path, tag, "").await
    }

    async fn seen(&self, method: &str, path: &str, tag: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str()), ("if-match", tag)];
        send(&self.address, method, path, &headers, body)
            .await
            .unwrap()
    }

    pub async fn execute(&self, payload: &str) -> Answer {
        self.execute_with(payload, &[]).await
    }

    pub async fn execute_with(&self, payload: &str, more: &[(&str, &str)]) -> Answer {
        execute(&self.address, payload, more).await.unwrap()
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args(["-s", name, &id]).status().unwrap().success());
    }

    /// The exit code, and the output after the address.
    pub async fn end(mut self) -> (Option<i32>, String) {
        let end = async {
            let mut said = String::new();
            self.output.read_to_string(&mut said).await.unwrap();
            (self.child.wait().await.unwrap().code(), said)
        };
        timeout(END, end).await.expect("its end")
    }
}

/// Executes `refund` with this payload.
pub async fn execute(
    address: &str,
    payload: &str,
    more: &[(&str, &str)],
) -> std::io::Result<Answer> {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(more);
    send(
        address,
        "POST",
        "/actions/refund/execute",
        &headers,
        payload,
    )
    .await
}
