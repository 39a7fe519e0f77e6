//! One run over one topology: load, fail-overs of each kind in turn, and the judgement.
//! `judgement` decides whether the run passes, this file never does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use super::topology::{Kind, Topology};
use crate::chaos::judgement::Judgement;
use crate::chaos::roles::Policy;
use crate::chaos::scene::Scene;
use crate::chaos::worker::{self, LEASE};
use crate::chaos::{harness, load};

const POLICIES: &[Policy] = &[Policy::Hold, Policy::Retry, Policy::Hold];

/// Among this many recent keys, some were requested before the last election.
const RECENT: u64 = 250;
/// The pause without a fault before each fault.
const CALM: Duration = Duration::from_secs(3);
/// How long a fault goes on after another primary was elected.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// Replicas that hang for this long do not count as missing yet.
const UNNOTICED: Duration = Duration::from_millis(600);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Hung,
    KilledWithoutCopies,
}

/// Runs fail-overs of each kind for `length`, at least once each.
pub async fn run(kind: Kind, seed: u64, length: Duration) -> Judgement {
    let mut topology = Topology::start(kind).await;
    let copies = harness::number("FAILOVER_COPIES");
    let copies = copies.map_or(topology.copies(), |copies| copies as u32);
    let mut scene = Scene::set(seed, POLICIES).await;
    for _ in POLICIES {
        let platform = scene.simulator.base_url().to_owned();
        scene.hire(topology.store(copies), platform).await;
    }
    let scene = Arc::new(scene);
    let over = Arc::new(AtomicBool::new(false));
    let loading = tokio::spawn({
        let (scene, over) = (scene.clone(), over.clone());
        async move { load::load(&scene, RECENT, || over.load(Ordering::Relaxed)).await }
    });
    let troubling = tokio::spawn(trouble_workers(scene.clone(), over.clone()));
    let mut rng = Rng::with_seed(seed);
    while scene.history.now() < length {
        for fault in [Fault::Killed, Fault::Hung, Fault::KilledWithoutCopies] {
            sleep(CALM).await;
            fail_over(&mut topology, &scene, fault, rng.u64(..)).await;
        }
    }
    over.store(true, Ordering::Relaxed);
    loading.await.unwrap();
    troubling.await.unwrap();
    let store = worker::connect(&topology.store(0)).await;
    load::finish(&scene, store).await
}

/// One fail-over of this number's shard; its fault ends before the function returns.
async fn fail_over(topology: &mut Topology, scene: &Scene, fault: Fault, number: u64) {
    let primary = topology.primary(number);
    match fault {
        Fault::Killed => topology.server_mut(primary).kill(),
        Fault::Hung => topology.server(primary).pause(),
        Fault::KilledWithoutCopies => {
            let replicas = topology.replicas(primary);
            for replica in &replicas {
                topology.server(*replica).pause();
            }
            // What the primary has sent to them arrives, even if one of them dies.
            let cut = ["CLIENT", "KILL", "TYPE", "replica"];
            let cut: usize = topology.server(primary).command(&cut);
            assert_eq!(cut, replicas.len(), "the primary had its replicas");
            sleep(UNNOTICED).await;
            topology.server_mut(primary).kill();
            for replica in &replicas {
                topology.server(*replica).resume();
            }
        }
    }
    scene.history.event(format!("{fault:?}: server {primary}"));
    let elected = topology.elected(primary, number).await;
    scene.history.redis_returned();
    scene.history.event(format!("elected: server {elected}"));
    sleep(AFTERWARDS).await;
    match fault {
        Fault::Killed | Fault::KilledWithoutCopies => topology.server_mut(primary).restart(),
        Fault::Hung => topology.server(primary).resume(),
    }
    scene.history.event(format!("back: server {primary}"));
    topology.stable().await;
    scene.faults.count(match fault {
        Fault::Killed => "primary killed",
        Fault::Hung => "primary stopped",
        Fault::KilledWithoutCopies => "primary killed while its replicas were stopped",
    });
}

/// Kills workers and stops them past their leases, until `over`.
async fn trouble_workers(scene: Arc<Scene>, over: Arc<AtomicBool>) {
    let mut rng = Rng::with_seed(scene.seed ^ 1);
    while !over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(rng.u64(500..2_500))).await;
        let worker = rng.usize(..scene.fleet.len());
        let done = if rng.bool() {
            let done = scene.kill_worker(worker, Duration::from_millis(100)).await;
            done.map(|()| "worker killed")
        } else {
            let stopped = LEASE + Duration::from_millis(rng.u64(100..1_500));
            let done = scene.stop_worker(worker, stopped).await;
            done.map(|()| "worker stopped past its leases")
        };
        if let Some(kind) = done {
            scene.faults.count(kind);
            scene.history.event(format!("over: {kind} ({worker})"));
        }
    }
}
