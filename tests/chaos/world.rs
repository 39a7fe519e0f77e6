//! One run of the chaos: the scene, one Redis, the proxies between them, and the
//! faults of the schedule, injected and taken back. Whether it passes is decided
//! in `judgement`, never here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use genesys_once::{Engine, RedisStore};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::judgement::Judgement;
use super::load;
use super::proxy::{Mode, Proxy};
use super::roles::Policy;
use super::scene::Scene;
use super::schedule::{self, End, Fault, Trouble};
use crate::support::redis::{Options, RedisServer};

const POLICIES: &[Policy] = &[Policy::Hold, Policy::Retry, Policy::Hold, Policy::Reconcile];

/// Of so many keys some are under way, and some have just lapsed.
const RECENT: u64 = 60;

/// Runs the chaos of one seed and says what came of it.
pub async fn run(seed: u64, length: Duration) -> Judgement {
    let world = Arc::new(World::start(seed).await);
    let scene = &world.scene;
    let operator = tokio::spawn(scene.oracle.clone().operate(world.operator().await));
    let loading = tokio::spawn({
        let world = world.clone();
        async move {
            let is_over = || world.scene.history.now() >= length;
            load::load(&world.scene, RECENT, is_over).await;
        }
    });
    let mut injected = JoinSet::new();
    for (at, fault) in schedule::draw(seed, length, scene.fleet.len()) {
        sleep(at.saturating_sub(scene.history.now())).await;
        let world = world.clone();
        injected.spawn(async move { world.inject(fault).await });
    }
    // Each ends with its own healing; a panic in one is the run's.
    while let Some(done) = injected.join_next().await {
        done.unwrap();
    }
    loading.await.unwrap();
    assert!(!operator.is_finished(), "the operator panicked");
    operator.abort();
    let store = RedisStore::connect(&world.redis_url).await.unwrap();
    load::finish(scene, store).await
}

struct World {
    scene: Scene,
    redis: Mutex<RedisServer>,
    /// From each worker, and from the operator, to Redis.
    redis_lines: Vec<Line>,
    /// From each worker to the platform.
    platform_lines: Vec<Line>,
    /// For looks of the coordinator's own.
    redis_url: String,
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
    async fn start(seed: u64) -> Self {
        // What was acknowledged is kept: that is what the promise rests on.
        let redis = tokio::task::block_in_place(|| Options::default().append_only().start());
        let redis_url = redis.url();
        let redis_end = ([127, 0, 0, 1], redis.port).into();
        let mut scene = Scene::set(seed, POLICIES).await;
        let platform = scene.simulator.base_url()["http://".len()..].parse();
        let platform: SocketAddr = platform.unwrap();
        let (mut redis_lines, mut platform_lines) = (vec![], vec![]);
        for _ in POLICIES {
            let (to_redis, to_platform) = (Line::to(redis_end).await, Line::to(platform).await);
            let (store, platform) = (to_redis.url("redis"), to_platform.url("http"));
            scene.hire(store, platform).await;
            redis_lines.push(to_redis);
            platform_lines.push(to_platform);
        }
        redis_lines.push(Line::to(redis_end).await);
        Self {
            scene,
            redis: Mutex::new(redis),
            redis_lines,
            platform_lines,
            redis_url,
        }
    }

    /// The operator's engine; it reaches Redis by a line that suffers as the
    /// others do.
    async fn operator(&self) -> Engine {
        let line = self.redis_lines.last().expect("the operator's line");
        self.scene.operator(&line.url("redis")).await
    }

    /// Injects a fault and takes it back when its time is over. A fault whose
    /// victim suffers from another one of its kind is left out, uncounted.
    async fn inject(&self, fault: Fault) {
        let done = match fault {
            Fault::KillWorker { worker, down } => self.scene.kill_worker(worker, down).await,
            Fault::StopWorker { worker, stopped } => self.scene.stop_worker(worker, stopped).await,
            Fault::Connections(line, end, trouble) => self.trouble(line, end, trouble).await,
            Fault::KillRedis { down } => self.kill_redis(down).await,
            Fault::StopRedis { stopped } => self.stop_redis(stopped).await,
            Fault::RevokeTokens => {
                self.scene.simulator.revoke_tokens();
                Some(())
            }
        };
        if done.is_some() {
            self.scene.faults.count(fault.kind());
            self.scene.history.event(format!("over: {fault:?}"));
        }
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
        self.scene.history.redis_returned();
        Some(())
    }

    async fn stop_redis(&self, stopped: Duration) -> Option<()> {
        let redis = self.redis.try_lock().ok()?;
        tokio::task::block_in_place(|| redis.pause());
        sleep(stopped).await;
        tokio::task::block_in_place(|| redis.resume());
        Some(())
    }
}
