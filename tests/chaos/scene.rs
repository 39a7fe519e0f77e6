//! The parts of every run, whatever its store: the platform, the workers, and the evidence
//! of what they did. It leaves no process running.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use genesys_once::Engine;
use genesys_once::testing::GenesysSimulator;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fleet::Slot;
use super::history::History;
use super::oracle::Oracle;
use super::platform::{self, Calls, Tally};
use super::roles::Policy;
use super::worker;

pub struct Scene {
    pub seed: u64,
    pub history: Arc<History>,
    pub faults: Tally,
    pub oracle: Arc<Oracle>,
    pub simulator: GenesysSimulator,
    pub fleet: Vec<Slot>,
    oracle_address: SocketAddr,
    answering: JoinHandle<()>,
}

impl Scene {
    /// A platform with the faults of the seed, and no worker yet.
    pub async fn set(seed: u64, policies: &'static [Policy]) -> Self {
        let history = Arc::new(History::new());
        let simulator = GenesysSimulator::start().await;
        let (faults, calls) = (Tally::default(), Calls::default());
        let script = Some(faults.clone());
        platform::script(&simulator, seed, script, history.clone(), calls.clone());
        let ledger = simulator.ledger().clone();
        let oracle = Arc::new(Oracle::new(policies, history.clone(), calls, ledger));
        let (oracle_address, answering) = oracle.clone().serve().await;
        Self {
            seed,
            history,
            faults,
            oracle,
            simulator,
            fleet: Vec::new(),
            oracle_address,
            answering,
        }
    }

    /// Starts a worker in the next place. It reaches the store as [`worker::connect`] reads
    /// the setting, and the platform at this URL.
    pub async fn hire(&mut self, store: String, platform: String) {
        let place = self.fleet.len();
        let environment = HashMap::from([
            (worker::REDIS, store),
            (worker::PLATFORM, platform),
            (worker::SECRET, self.secret()),
            (worker::ORACLE, self.oracle_address.to_string()),
            (worker::POLICY, self.oracle.policies[place].to_string()),
        ]);
        let slot = Slot::new(place, environment, self.history.clone());
        slot.start().await;
        self.fleet.push(slot);
    }

    /// The operator's engine, which executes nothing.
    pub async fn operator(&self, store: &str) -> Engine {
        let store = worker::connect(store).await;
        let upstream = worker::platform_of(self.simulator.base_url(), &self.secret());
        let engine = worker::builder(upstream).store(store);
        engine.start().await.unwrap()
    }

    fn secret(&self) -> String {
        let (id, secret) = (self.simulator.client_id(), self.simulator.client_secret());
        format!("{id} {secret}")
    }

    /// Kills a worker; another process takes its place. `None` if the worker is already
    /// being killed or stopped.
    pub async fn kill_worker(&self, worker: usize, down: Duration) -> Option<()> {
        let slot = &self.fleet[worker];
        let _turn = slot.turn.try_lock().ok()?;
        slot.kill().await;
        sleep(down).await;
        slot.start().await;
        Some(())
    }

    /// Stops a worker for a while, as an overloaded machine would.
    pub async fn stop_worker(&self, worker: usize, stopped: Duration) -> Option<()> {
        let slot = &self.fleet[worker];
        let _turn = slot.turn.try_lock().ok()?;
        slot.stop(true).await;
        sleep(stopped).await;
        slot.stop(false).await;
        Some(())
    }

    /// After the last fault: the platform answers every call with success, and every place
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
            let limit = Duration::from_secs(20);
            let came = tokio::time::timeout(limit, ready).await;
            came.expect("a worker is ready within 20 s");
        }
        self.history.event("healed");
    }

    /// Ends all workers, and passes on the panics of the tasks that read their output.
    pub async fn end(&self) {
        for slot in &self.fleet {
            slot.end().await;
        }
        self.answering.abort();
    }
}
