//! The worker processes: the coordinator starts, asks, stops and kills them, and all of
//! them end with the fleet. The history records their input and output.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::history::{History, Process};

/// A worker whose standard input blocks this long is stopped, and its pipe is full.
const WRITE: Duration = Duration::from_millis(500);

/// One place in the fleet: a process, and after its death the next process.
pub struct Slot {
    place: usize,
    environment: HashMap<&'static str, String>,
    history: Arc<History>,
    /// Locked while the process is killed or stopped.
    pub turn: Mutex<()>,
    process: Mutex<Option<Running>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

struct Running {
    id: Process,
    // Killed when dropped, for example when the coordinator panics.
    child: Child,
    input: ChildStdin,
    ready: Arc<AtomicBool>,
    stats: watch::Receiver<Option<(usize, usize)>>,
}

impl Slot {
    pub fn new(
        place: usize,
        environment: HashMap<&'static str, String>,
        history: Arc<History>,
    ) -> Self {
        Self {
            place,
            environment,
            history,
            turn: Mutex::default(),
            process: Mutex::default(),
            readers: Mutex::default(),
        }
    }

    /// Starts a process if there is none.
    pub async fn start(&self) {
        let mut process = self.process.lock().await;
        if process.is_some() {
            return;
        }
        let mut readers = self.readers.lock().await;
        let id = (self.place, readers.len() as u32);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = child.stdout.take().unwrap();
        let ready = Arc::new(AtomicBool::new(false));
        let (send, stats) = watch::channel(None);
        let reading = read(output, self.history.clone(), ready.clone(), send);
        readers.push(tokio::spawn(reading));
        *process = Some(Running {
            id,
            child,
            input,
            ready,
            stats,
        });
    }

    pub async fn is_ready(&self) -> bool {
        let process = self.process.lock().await;
        let process = process.as_ref();
        process.is_some_and(|process| process.ready.load(Ordering::Relaxed))
    }

    /// Sends a number to the process, if there is one: its callers ask for that number.
    pub async fn ask(&self, number: u64, callers: usize, limit: Duration) {
        let mut process = self.process.lock().await;
        let Some(process) = process.as_mut() else {
            return;
        };
        if !process.ready.load(Ordering::Relaxed) {
            return;
        }
        let history = &self.history;
        let id = history.asking(number, process.id, callers, limit);
        let limit = limit.as_millis();
        process
            .send(&format!("ask {id} {number} {callers} {limit}"))
            .await;
    }

    /// Unfinished executions and waiting callers, as the process reports them.
    pub async fn stats(&self) -> Option<(usize, usize)> {
        let mut stats = {
            let mut process = self.process.lock().await;
            let process = process.as_mut()?;
            process.stats.mark_unchanged();
            process.send("stats").await;
            process.stats.clone()
        };
        let answer = tokio::time::timeout(Duration::from_secs(2), stats.changed());
        answer.await.ok()?.ok()?;
        *stats.borrow()
    }

    /// Kills the process like a failing machine: nothing is closed, no peer is notified.
    pub async fn kill(&self) {
        if let Some(mut process) = self.process.lock().await.take() {
            self.history.killed(process.id);
            let _ = process.child.kill().await;
        }
    }

    /// Stops the process without notice, or resumes it.
    pub async fn stop(&self, stop: bool) {
        let process = self.process.lock().await;
        // The process is not reaped yet, so its id is still valid.
        if let Some(id) = process.as_ref().and_then(|process| process.child.id()) {
            signal(if stop { "-STOP" } else { "-CONT" }, id).await;
        }
    }

    /// Ends the process, and passes on the panic of a reader.
    pub async fn end(&self) {
        if let Some(mut process) = self.process.lock().await.take() {
            let _ = process.child.kill().await;
        }
        for reader in self.readers.lock().await.drain(..) {
            if let Err(error) = reader.await {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

impl Running {
    /// Sends a line if the process accepts it; otherwise the ask has no answer, and the
    /// history shows that.
    async fn send(&mut self, line: &str) {
        let line = format!("{line}\n");
        let writing = self.input.write_all(line.as_bytes());
        let _ = tokio::time::timeout(WRITE, writing).await;
    }
}

async fn read(
    output: ChildStdout,
    history: Arc<History>,
    ready: Arc<AtomicBool>,
    stats: watch::Sender<Option<(usize, usize)>>,
) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split_once(' ') {
            None if line == "ready" => ready.store(true, Ordering::Relaxed),
            Some(("answer", rest)) => history.answered(rest),
            Some(("stats", rest)) => {
                let numbers = rest.split_once(' ').unwrap();
                let numbers = (numbers.0.parse().unwrap(), numbers.1.parse().unwrap());
                stats.send_replace(Some(numbers));
            }
            // The last line of a killed process might be incomplete.
            _ => history.event(format!("a worker says {line:?}")),
        }
    }
}

/// Sends a signal; `kill` reports a missing process itself.
pub async fn signal(signal: &str, id: u32) {
    let status = Command::new("kill")
        .args([signal, &id.to_string()])
        .status()
        .await
        .unwrap();
    assert!(status.success(), "kill {signal}");
}
