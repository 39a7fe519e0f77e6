//! Everything that a run consists of: one Redis, one platform, the workers and
//! the proxies between them. It injects the faults that it is given, takes them
//! back, and leaves no process behind.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use genesys_once::testing::GenesysSimulator;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::fleet::Slot;
use super::history::History;
use super::platform::{self, Calls, Tally};
use super::proxy::{Mode, Proxy};
use super::schedule::{End, Fault, Trouble};
use super::worker;
use crate::support::redis::{Options, RedisServer};

pub const WORKERS: usize = 3;

pub struct World {
    pub seed: u64,
    pub history: Arc<History>,
    pub faults: Tally,
    pub calls: Calls,
    pub simulator: GenesysSimulator,
    pub fleet: Vec<Slot>,
    redis: Mutex<RedisServer>,
    links: Vec<Link>,
    /// For figures and looks of the coordinator's own.
    pub redis_url: String,
}

/// A worker's two ways out.
struct Link {
    redis: Proxy,
    platform: Proxy,
    /// One trouble at a time for each.
    turns: [Mutex<()>; 2],
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
        let platform: SocketAddr = simulator.base_url()["http://".len()..].parse().unwrap();
        let (mut fleet, mut links) = (Vec::new(), Vec::new());
        for place in 0..WORKERS {
            let link = Link {
                redis: Proxy::start(([127, 0, 0, 1], redis.port).into()).await,
                platform: Proxy::start(platform).await,
                turns: Default::default(),
            };
            let (id, secret) = (simulator.client_id(), simulator.client_secret());
            let environment = HashMap::from([
                (worker::REDIS, format!("redis://{}", link.redis.address())),
                (
                    worker::PLATFORM,
                    format!("http://{}", link.platform.address()),
                ),
                (worker::SECRET, format!("{id} {secret}")),
            ]);
            let slot = Slot::new(place, environment, history.clone());
            slot.start().await;
            fleet.push(slot);
            links.push(link);
        }
        Self {
            seed,
            history,
            faults,
            calls,
            simulator,
            fleet,
            redis: Mutex::new(redis),
            links,
            redis_url,
        }
    }

    /// Injects a fault and takes it back when its time is over. A fault whose
    /// victim suffers from another one of its kind is left out, uncounted.
    pub async fn inject(&self, fault: Fault) {
        let done = match fault {
            Fault::KillWorker { worker, down } => self.kill_worker(worker, down).await,
            Fault::StopWorker { worker, stopped } => self.stop_worker(worker, stopped).await,
            Fault::Connections(worker, end, trouble) => self.trouble(worker, end, trouble).await,
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

    async fn trouble(&self, worker: usize, end: End, trouble: Trouble) -> Option<()> {
        let link = &self.links[worker];
        let (proxy, turn) = match end {
            End::Redis => (&link.redis, &link.turns[0]),
            End::Platform => (&link.platform, &link.turns[1]),
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
        let (history, calls) = (self.history.clone(), self.calls.clone());
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
    }
}
