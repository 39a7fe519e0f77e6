//! Many callers of one key at once: how long until the last one has its answer,
//! in one process and in four that share a Redis. The four are this binary,
//! started again; they talk to it by lines on standard input and output.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use genesys_once::{
    Credentials, Engine, Environment, GenesysCloud, MemoryStore, RedisStore, Served,
};
use tokio::sync::watch;

use crate::measure::{Measured, in_turns, of_pairs};
use crate::world::{Answering, World, engine, payload, payload_of, request};

/// How long the upstream takes.
pub const LATENCY: Duration = Duration::from_millis(50);

/// How many ask at once.
const CALLERS: usize = 10_000;

pub fn in_one_process(world: &World) -> Measured {
    let store = MemoryStore::new();
    let engine = world.block_on(engine(Answering::after(LATENCY), store, |b| b));
    let through_engine = || world.block_on(through(&engine));
    let through_watch = || {
        world.block_on(async {
            let (sender, receiver) = watch::channel(false);
            tokio::spawn(async move {
                tokio::time::sleep(LATENCY).await;
                sender.send_replace(true);
            });
            last_answer(CALLERS, || {
                let mut receiver = receiver.clone();
                // The sender goes once it has sent: whoever comes later sees the value.
                async move { drop(receiver.wait_for(|answered| *answered).await) }
            })
            .await
        })
    };
    in_turns(15, "ms", through_engine, through_watch)
}

/// Milliseconds until the last caller of one new key has its answer; each makes
/// its request itself.
pub async fn through(engine: &Engine) -> f64 {
    let payload = payload();
    last_answer(CALLERS, || {
        let (engine, payload) = (engine.clone(), payload.clone());
        async move { drop(engine.execute(request(&payload)).await.expect("an answer")) }
    })
    .await
}

/// Milliseconds until the last of `callers` tasks is done.
async fn last_answer<Fut>(callers: usize, caller: impl Fn() -> Fut) -> f64
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    let callers: Vec<_> = (0..callers).map(|_| tokio::spawn(caller())).collect();
    for caller in callers {
        caller.await.expect("a caller panicked");
    }
    start.elapsed().as_secs_f64() * 1000.0
}

const PROCESSES: usize = 4;

pub fn in_four_processes(world: &World) -> Measured {
    const ROUNDS: u64 = 9;
    let platform = world.platform();
    platform.latency(LATENCY);
    let url = world.redis().url();
    let mut processes: Vec<Process> = (0..PROCESSES)
        .map(|_| {
            Process::start(&[
                &url,
                platform.base_url(),
                platform.client_id(),
                platform.client_secret(),
            ])
        })
        .collect();
    let mut pairs = Vec::new();
    // The first round only warms up: connections, token, scripts.
    for round in 0..=ROUNDS {
        let key = u64::from(std::process::id()) << 16 | round;
        let go = now_us();
        for process in &mut processes {
            process.say(key);
        }
        let answers: Vec<Answered> = processes.iter_mut().map(Process::hear).collect();
        let sent: usize = answers.iter().map(|answer| answer.sent).sum();
        assert_eq!(sent, 1, "one call for four processes");
        let after_go = |answer: &Answered| (answer.last_us - go) as f64 / 1000.0;
        let first = answers.iter().find(|answer| answer.sent > 0).map(after_go);
        let last = answers.iter().map(after_go).fold(0.0, f64::max);
        if round > 0 {
            pairs.push((last, first.expect("one of them sent it")));
        }
    }
    platform.latency(Duration::ZERO);
    of_pairs(&pairs, "ms")
}

/// What a process says of one round.
struct Answered {
    /// Callers whose own request was sent.
    sent: usize,
    /// When its last caller was answered.
    last_us: u64,
}

struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    fn start(args: &[&str]) -> Self {
        let this = std::env::current_exe().expect("this binary");
        let mut command = Command::new(this);
        command.args(["--child", "herd"]).args(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary starts again");
        let to = child.stdin.take().expect("piped");
        let from = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, to, from };
        assert_eq!(process.line(), "ready");
        process
    }

    fn say(&mut self, key: u64) {
        writeln!(self.to, "{key}").expect("the process is alive");
    }

    fn hear(&mut self) -> Answered {
        let line = self.line();
        let (sent, last_us) = line.split_once(' ').expect("two numbers");
        Answered {
            sent: sent.parse().expect("a number"),
            last_us: last_us.parse().expect("a number"),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from
            .read_line(&mut line)
            .expect("the process is alive");
        line.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is idle, or a panic is under way; either way it holds nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the four: runs a round for every line, until there are no more.
pub fn child(args: &[&str]) {
    const CALLERS_EACH: usize = 500;
    let [redis, platform, client_id, client_secret] = args else {
        panic!("four arguments");
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let engine = runtime.block_on(async {
        let environment = Environment::from_base_url(platform).expect("a URL");
        let upstream = GenesysCloud::new(environment, Credentials::new(*client_id, *client_secret));
        engine(
            upstream,
            RedisStore::connect(redis).await.expect("a server"),
            |b| b,
        )
        .await
    });
    println!("ready");
    for line in std::io::stdin().lines() {
        let key: u64 = line.expect("a line").parse().expect("a number");
        let payload = payload_of(key);
        let (sent, last_us) = runtime.block_on(round(&engine, &payload, CALLERS_EACH));
        println!("{sent} {last_us}");
    }
}

async fn round(engine: &Engine, payload: &Bytes, callers: usize) -> (usize, u64) {
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (engine, payload) = (engine.clone(), payload.clone());
            tokio::spawn(async move {
                let reply = engine.execute(request(&payload)).await.expect("an answer");
                reply.served() == Served::Upstream
            })
        })
        .collect();
    let mut sent = 0;
    for caller in callers {
        sent += usize::from(caller.await.expect("a caller panicked"));
    }
    (sent, now_us())
}

/// The machine's clock, which all processes share.
fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock after 1970").as_micros() as u64
}
