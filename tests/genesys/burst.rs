//! 2,000 keys in a burst over real sockets, against a simulator with the platform's limits,
//! in which a minute is scaled down to a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use genesys_once::testing::{GenesysSimulator, Step};
use genesys_once::upstream::Call;
use genesys_once::{DataActionRequest, Engine, GenesysCloud, IdempotencyKey};

const KEYS: usize = 2_000;
const SECOND: Duration = Duration::from_secs(1);

/// A platform that accepts 50 calls at the same time.
async fn platform() -> GenesysSimulator {
    let platform = GenesysSimulator::start().await;
    platform.concurrency_limit(50);
    platform.latency(Duration::from_millis(20));
    platform.script(|_| Step::ok("{}"));
    platform
}

fn cloud(platform: &GenesysSimulator) -> GenesysCloud {
    GenesysCloud::new(platform.environment(), platform.credentials())
}

/// Executes all requests at once; every one must succeed, and be executed once.
async fn burst(platform: &GenesysSimulator, engine: &Engine) {
    let requests: Vec<_> = (0..KEYS)
        .map(|n| DataActionRequest::new("custom_-_refund", n.to_string()).unwrap())
        .collect();
    let callers: Vec<_> = requests
        .iter()
        .cloned()
        .map(|request| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.execute(request).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().status().as_u16(), 200);
    }
    let keys: Vec<_> = requests.iter().map(IdempotencyKey::of).collect();
    platform.ledger().assert_exactly_once(&keys);
}

/// Answers 300 calls, then 429 to each call for a second, and so on. It counts calls, so
/// that a slow machine reaches the limit too.
fn limited() -> impl Fn(&Call) -> Step {
    let window = Mutex::new((0, None::<Instant>));
    move |_| {
        let mut window = window.lock().unwrap();
        let (let_in, full) = &mut *window;
        if *let_in == 300 {
            if full.get_or_insert_with(Instant::now).elapsed() < SECOND {
                return Step::RateLimited(SECOND);
            }
            (*let_in, *full) = (0, None);
        }
        *let_in += 1;
        Step::ok("{}")
    }
}

/// A call beyond the limit gets a 429, which begins a cooldown for all executions.
#[tokio::test(flavor = "multi_thread")]
async fn burst_beyond_platform_limit_succeeds() {
    let platform = platform().await;
    platform.script(limited());
    let engine = Engine::builder(cloud(&platform)).start().await.unwrap();
    burst(&platform, &engine).await;
    // Each window but the last is full, and the next call after it is refused.
    let refused = platform.ledger().total() - KEYS;
    assert!(refused >= KEYS / 300, "only {refused} were refused");
    assert!(platform.max_concurrent() <= 50);
}

/// 15,000 a minute is a burst of 50 and one call every 4 ms: 300 within a second.
#[tokio::test(flavor = "multi_thread")]
async fn burst_within_client_limit_succeeds() {
    let platform = platform().await;
    platform.rate_limit_within(300, SECOND);
    let cloud = cloud(&platform).rate_limit(15_000);
    let engine = Engine::builder(cloud).start().await.unwrap();
    burst(&platform, &engine).await;
    assert!(platform.max_concurrent() <= 50);
}
