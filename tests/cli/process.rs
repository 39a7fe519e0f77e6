//! The program: started with an environment of its own, and its output.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::redis::RedisServer;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_genesys-once");
pub const NAMESPACE: &str = "night";

const END: Duration = Duration::from_secs(120);

/// How to start the program.
#[derive(Clone)]
pub struct Cli {
    env: Vec<(String, String)>,
}

/// The program's output, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The arguments that resolve a key, with `me` as the source.
pub fn resolve<'a>(key: &'a str, version: &'a str, found: &[&'a str]) -> Vec<&'a str> {
    let of_key = ["resolve", key, "--version", version, "--by", "me"];
    [&of_key[..], found].concat()
}

impl Cli {
    /// Without any setting.
    pub fn bare() -> Self {
        Self { env: Vec::new() }
    }

    /// With the store of this server.
    pub fn on(server: &RedisServer) -> Self {
        Self::bare()
            .set("REDIS_URL", server.url())
            .set("SERVICE_NAMESPACE", NAMESPACE)
    }

    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn unset(mut self, name: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    pub async fn run(&self, words: &[&str]) -> Ran {
        self.run_with(words, "").await
    }

    pub async fn run_with(&self, words: &[&str], input: &str) -> Ran {
        let mut command = Command::new(PROGRAM);
        command.args(words);
        self.ended(command, input).await
    }

    /// Runs the program on a terminal, on which `input` is typed.
    pub async fn on_terminal(&self, words: &[&str], input: &str) -> Ran {
        let quoted = |word: &&str| format!("'{}'", word.replace('\'', r"'\''"));
        let words: Vec<_> = std::iter::once(&PROGRAM).chain(words).map(quoted).collect();
        let mut command = Command::new("script");
        command.args(["-qec", &words.join(" "), "/dev/null"]);
        self.ended(command, input).await
    }

    /// Runs a shell script that finds the program by its name.
    pub async fn script(&self, script: &str) -> Ran {
        let folder = std::path::Path::new(PROGRAM).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", folder.display());
        let mut command = Command::new("sh");
        command.args(["-euc", script]);
        self.clone().set("PATH", path).ended(command, "").await
    }

    /// The process itself, with its output piped.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(words);
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.kill_on_drop(true);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped());
        command.stderr(Stdio::piped());
    }

    async fn ended(&self, mut command: Command, input: &str) -> Ran {
        self.prepare(&mut command);
        let ended = async {
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            // The program might end without reading.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await.unwrap()
        };
        let output = timeout(END, ended).await.expect("its end");
        Ran {
            code: output.status.code().expect("an exit code"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Fails the test unless the program ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// Standard output and standard error together.
    pub fn said(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}
