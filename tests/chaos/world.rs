//! Everything that a run consists of: one Redis, one platform, the workers and
//! the proxies between them. It injects the faults that it is given, takes them
//! back, and leaves no process behind.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use genesys_once::Engine;
use genesys_once::testing::GenesysSimulator;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fleet::Slot;
use super::history::History;
use super::oracle::Oracle;
use super::platform::{self, Calls, Tally};
use super::proxy::{Mode, Proxy};
use super::roles::{Policy, Realm, Roles};
use super::schedule::{End, Fault, Trouble};
use super::worker;
use crate::support::redis::{Options, RedisServer};

const ROLES: Roles = Roles {
    policies: &[Policy::Hold, Policy::Retry, Policy::Hold, Policy::Reconcile],
    open: true,
};

pub struct World {
    pub seed: u64,
    pub history: Arc<History>,
    pub faults: Tally,
    pub oracle: Arc<Oracle>,
    pub fleet: Vec<Slot>,
    simulator: GenesysSimulator,
    redis: Mutex<RedisServer>,
    /// From each worker, and from the operator, to Redis.
    redis_lines: Vec<Line>,
    /// From each worker to the platform.
    platform_lines: Vec<Line>,
    /// For figures and looks of the coordinator's own.
    pub redis_url: String,
    answering: JoinHandle<()>,
}

/// One way to one end.
struct Line {
    proxy: Proxy,
    /// One trouble at a time.
    turn: Mutex<()>,
}

impl Line {
    async fn to(end: SocketAddr) -> Self {
        Self {
            proxy: Proxy::start(end).await,
            turn: Mutex::default(),
        }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.proxy.address())
    }
}

impl World {
    pub async fn start(seed: u64) -> Self {
        let history = Arc::new(History::new());
        // What was acknowledged is kept: that is what the promise rests on.
        let redis = tokio::task::block_in_place(|| Options::default().append_only().start());
        let redis_url = redis.url();
        let simulator = GenesysSimulator::start().await;
        let (faults, calls) = (Tally::default(), Calls::default());
        let script = Some(faults.clone());
        platform::script(&simulator, seed, script, history.clone(), calls.clone());
        let ledger = simulator.ledger().clone();
        let oracle = Arc::new(Oracle::new(ROLES, history.clone(), calls, ledger));
        let (address, answering) = oracle.clone().serve().await;
        let platform: SocketAddr = simulator.base_url()["http://".len()..].parse().unwrap();
        let redis_end = ([127, 0, 0, 1], redis.port).into();
        let (mut fleet, mut redis_lines, mut platform_lines) = (vec![], vec![], vec![]);
        for (place, policy) in ROLES.policies.iter().enumerate() {
            let (to_redis, to_platform) = (Line::to(redis_end).await, Line::to(platform).await);
            let (id, secret) = (simulator.client_id(), simulator.client_secret());
            let environment = HashMap::from([
                (worker::REDIS, to_redis.url("redis")),
                (worker::PLATFORM, to_platform.url("http")),
                (worker::SECRET, format!("{id} {secret}")),
                (worker::ORACLE, address.to_string()),
                (worker::POLICY, policy.to_string()),
            ]);
            let slot = Slot::new(place, environment, history.clone());
            slot.start().await;
            fleet.push(slot);
            redis_lines.push(to_redis);
            platform_lines.push(to_platform);
        }
        redis_lines.push(Line::to(redis_end).await);
        Self {
            seed,
            history,
            faults,
            oracle,
            fleet,
            simulator,
            redis: Mutex::new(redis),
            redis_lines,
            platform_lines,
            redis_url,
            answering,
        }
    }

    /// The operator's engine: it executes nothing, and reaches Redis by a line
    /// that suffers as the others do.
    pub async fn operator(&self) -> Engine {
        let line = self.redis_lines.last().expect("the operator's line");
        let store = worker::connect(&line.url("redis")).await;
        let (id, secret) = (self.simulator.client_id(), self.simulator.client_secret());
        let upstream = worker::platform_of(self.simulator.base_url(), id, secret);
        let engine = worker::builder(Realm::Held, upstream).store(store);
        engine.start().await.unwrap()
    }

    /// Injects a fault and takes it back when its time is over. A fault whose
    /// victim suffers from another one of its kind is left out, uncounted.
    pub async fn inject(&self, fault: Fault) {
        let done = match fault {
            Fault::KillWorker { worker, down } => self.kill_worker(worker, down).await,
            Fault::StopWorker { worker, stopped } => self.stop_worker(worker, stopped).await,
            Fault::Connections(line, end, trouble) => self.trouble(line, end, trouble).await,
            Fault::KillRedis { down } => self.kill_redis(down).await,
            Fault::StopRedis { stopped } => self.stop_redis(stopped).await,
            Fault::RevokeTokens => {
                self.simulator.revoke_tokens();
                Some(())
            }
        };
        if done.is_some() {
            self.faults.count(fault.kind());
            self.history.event(format!("over: {fault:?}"));
        }
    }

    async fn kill_worker(&self, worker: usize, down: Duration) -> Option<()> {
        let slot = &self.fleet[worker];
        let _turn = slot.turn.try_lock().ok()?;
        slot.kill().await;
        sleep(down).await;
        slot.start().await;
        Some(())
    }

    async fn stop_worker(&self, worker: usize, stopped: Duration) -> Option<()> {
        let slot = &self.fleet[worker];
        let _turn = slot.turn.try_lock().ok()?;
        slot.stop(true).await;
        sleep(stopped).await;
        slot.stop(false).await;
        Some(())
    }

    async fn trouble(&self, line: usize, end: End, trouble: Trouble) -> Option<()> {
        let Line { proxy, turn } = match end {
            End::Redis => &self.redis_lines[line],
            End::Platform => &self.platform_lines[line],
        };
        let (mode, lasting) = match trouble {
            // These may come in the middle of a silence.
            Trouble::Reset => {
                proxy.reset();
                return Some(());
            }
            Trouble::HalfClose(way) => {
                proxy.shut(way);
                return Some(());
            }
            Trouble::Delay(delay, lasting) => {
                let mode = Mode {
                    delay,
                    ..Mode::default()
                };
                (mode, lasting)
            }
            Trouble::Silence { out, back, lasting } => {
                let mode = Mode {
                    hold_out: out,
                    hold_back: back,
                    ..Mode::default()
                };
                (mode, lasting)
            }
        };
        let _turn = turn.try_lock().ok()?;
        proxy.set(mode);
        sleep(lasting).await;
        proxy.set(Mode::default());
        Some(())
    }

    async fn kill_redis(&self, down: Duration) -> Option<()> {
        let mut redis = self.redis.try_lock().ok()?;
        tokio::task::block_in_place(|| redis.kill());
        sleep(down).await;
        tokio::task::block_in_place(|| redis.restart());
        self.history.redis_returned();
        Some(())
    }

    async fn stop_redis(&self, stopped: Duration) -> Option<()> {
        let redis = self.redis.try_lock().ok()?;
        tokio::task::block_in_place(|| redis.pause());
        sleep(stopped).await;
        tokio::task::block_in_place(|| redis.resume());
        Some(())
    }

    /// After the last fault: the platform answers every call, and every place
    /// has a process that is ready.
    pub async fn heal(&self) {
        let (history, calls) = (self.history.clone(), self.oracle.calls.clone());
        platform::script(&self.simulator, self.seed, None, history, calls);
        for slot in &self.fleet {
            slot.start().await;
            let ready = async {
                while !slot.is_ready().await {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            let limit = Duration::from_secs(10);
            let came = tokio::time::timeout(limit, ready).await;
            came.expect("a worker is ready within 10 s");
        }
        self.history.event("healed");
    }

    /// Ends all workers, and hands on what went wrong while they were listened
    /// to.
    pub async fn end(&self) {
        for slot in &self.fleet {
            slot.end().await;
        }
        self.answering.abort();
    }
}
