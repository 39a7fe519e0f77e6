//! An engine over a real Redis and over a file: an outage after the call, and what remains
//! after the last handle is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use genesys_once::error::SendError;
use genesys_once::record::{Namespace, RecordState};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{GenesysSimulator, ScriptedUpstream, Step};
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{
    DataActionRequest, Engine, Environment, FileStore, GenesysCloud, IdempotencyKey, Outcome,
    RedisStore, Served, Upstream,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::eventually;
use crate::support::redis::{Options, RedisServer};

/// Longer than any machine needs: only a hang takes more.
const LONG: Duration = Duration::from_secs(60);

fn request(payload: &str) -> DataActionRequest {
    DataActionRequest::new("custom_-_refund", payload).unwrap()
}

/// A platform whose answers wait until the test opens the gate.
struct Gated {
    platform: ScriptedUpstream,
    gate: Arc<Semaphore>,
}

impl Upstream for Gated {
    fn namespace(&self) -> Namespace {
        self.platform.namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async move {
            let answer = self.platform.send(call, token).await;
            self.gate.acquire().await.unwrap().forget();
            answer
        })
    }
}

/// The server dies during the call: the caller still gets its answer, and the outcome is in
/// the record when the server is back.
#[tokio::test(flavor = "multi_thread")]
async fn outcome_survives_server_restart() {
    let mut server = Options::default().append_only().start();
    let platform = ScriptedUpstream::new(|_| Step::ok(r#"{"refund":"R-1"}"#));
    let gate = Arc::new(Semaphore::new(0));
    let upstream = Gated {
        platform: platform.clone(),
        gate: gate.clone(),
    };
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let engine = Engine::builder(upstream).store(store.clone());
    let engine = engine.start().await.unwrap();
    let caller = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("{}")).await }
    });
    platform.ledger().wait_for(1).await;
    server.kill();
    gate.add_permits(1);
    let reply = timeout(LONG, caller).await.expect("an answer").unwrap();
    let reply = reply.unwrap();
    assert_eq!(
        (reply.served(), reply.recorded()),
        (Served::Upstream, false)
    );
    // A later caller gets the same answer, without a second call.
    let joined = timeout(LONG, engine.execute(request("{}"))).await.unwrap();
    assert_eq!(joined.unwrap().body(), reply.body());

    server.restart();
    let back = Instant::now();
    let key = IdempotencyKey::of(&request("{}"));
    eventually("the outcome is recorded", async || {
        let state = engine.inspect(&key).await;
        matches!(state, Ok(Some(RecordState::Cached { .. })))
    })
    .await;
    println!("recorded after the server's return: {:?}", back.elapsed());
    let other = Engine::builder(platform.clone()).store(store);
    let replay = other.start().await.unwrap().execute(request("{}")).await;
    let replay = replay.unwrap();
    assert_eq!(
        (replay.served(), replay.body()),
        (Served::Store, reply.body())
    );
    assert_eq!(platform.ledger().total(), 1);
}

/// A relay in front of the platform that counts its open connections.
async fn counted(to: String, open: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (to, open) = (to.clone(), open.clone());
            open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(to).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    url
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Clients of the server, without the one that sends this command.
fn clients(server: &RedisServer) -> usize {
    let list: String = server.command(&["CLIENT", "LIST"]);
    list.lines()
        .filter(|line| !line.contains("cmd=client"))
        .count()
}

/// Red if dropping the last engine sends no stop: tasks, actors and the connections to
/// Redis and to the platform all remain after a minute.
#[test]
fn last_handle_ends_tasks_and_actors() {
    // The platform runs on another runtime, so that its tasks do not count.
    let elsewhere = runtime();
    let open = Arc::new(AtomicUsize::new(0));
    let (simulator, url) = elsewhere.block_on(async {
        let simulator = GenesysSimulator::start().await;
        simulator.script(|_| Step::ok("{}"));
        let address = simulator.base_url().trim_start_matches("http://");
        let url = counted(address.to_owned(), open.clone()).await;
        (simulator, url)
    });
    let server = RedisServer::start();
    let ours = runtime();
    let engine = ours.block_on(async {
        let environment = Environment::from_base_url(&url).unwrap();
        let upstream = GenesysCloud::new(environment, simulator.credentials());
        let store = RedisStore::connect(&server.url()).await.unwrap();
        let engine = Engine::builder(upstream).store(store);
        let engine = engine.start().await.unwrap();
        let many = (0..20).map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.execute(request(&n.to_string())).await })
        });
        for one in many.collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
        engine
    });
    assert!(open.load(Ordering::SeqCst) > 0 && clients(&server) > 0);
    let root = engine.actor().get_cell();
    let tasks = || ours.metrics().num_alive_tasks();
    assert!(tasks() > 0);
    std::thread::spawn(move || drop(engine)).join().unwrap();
    wait_until("no task is left", || tasks() == 0);
    wait_until("the platform has no connection", || {
        open.load(Ordering::SeqCst) == 0
    });
    wait_until("Redis has no client", || clients(&server) == 0);
    assert_eq!(root.get_status(), ractor::ActorStatus::Stopped);
    assert_eq!(simulator.ledger().total(), 20);
}

/// Red if dropping the last engine sends no stop: the file stays locked.
#[test]
fn last_handle_releases_the_file() {
    let name = format!("genesys-once-let-go-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let ours = runtime();
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = ours.block_on(async {
        let store = FileStore::open(&path).unwrap();
        let engine = Engine::builder(upstream.clone()).store(store);
        let engine = engine.start().await.unwrap();
        engine.execute(request("{}")).await.unwrap();
        engine
    });
    assert!(FileStore::open(&path).is_err());
    std::thread::spawn(move || drop(engine)).join().unwrap();
    wait_until("the file is free", || FileStore::open(&path).is_ok());
    // And the next engine finds the outcome.
    let reply = ours.block_on(async {
        let store = FileStore::open(&path).unwrap();
        let engine = Engine::builder(upstream.clone()).store(store);
        engine.start().await.unwrap().execute(request("{ }")).await
    });
    assert_eq!(reply.unwrap().served(), Served::Store);
    assert_eq!(upstream.ledger().total(), 1);
    drop(ours);
    let _ = std::fs::remove_file(&path);
}
