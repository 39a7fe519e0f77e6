//! A refund that is paid once: a thousand callers ask for it, another process asks again, and
//! for a second refund the platform's answer is lost.
//!
//! ```sh
//! cargo run -p quickstart             # needs no platform, no server and no account
//! cargo run -p quickstart             # the second run replays what the first recorded
//! cargo run -p quickstart -- --fresh  # starts with an empty store
//! cargo run -p quickstart -- --help   # lists the variables for a real platform or a Redis
//! ```

mod setup;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::time::Duration;

use genesys_once::testing::{GenesysSimulator, Step};
use genesys_once::{
    DataActionRequest, Engine, Error, IdempotencyKey, Outcome, Reply, Resolution, Served,
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::setup::{Arguments, Failure, Platform, Setup, line};

const CALLERS: usize = 1_000;
const ACTION: &str = "custom_-_2f1c9f0a-refund";

/// The input of the action.
#[derive(Serialize)]
struct Refund {
    order: u32,
    cents: u32,
    reason: &'static str,
}

/// The part of the action's output that this program uses.
#[derive(Deserialize)]
struct Paid {
    refund: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {}", line(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    if arguments.help {
        print!("{}", setup::HELP);
        return Ok(());
    }
    let setup = Setup::from_environment(&arguments).await?;
    let requests = requests(&setup.platform)?;
    let key = IdempotencyKey::of(&requests[0]);
    if arguments.replay.is_some() {
        return replay(&setup, &requests[0]).await;
    }

    let engine = setup.start().await?;
    println!("platform        {}", setup.platform);
    println!("store           {}", setup.store_place()?);
    println!("namespace       {}", engine.namespace());
    println!("key             {key}");
    many_callers(&engine, &requests).await?;
    let stats = engine.stats();
    let namespace = engine.namespace().to_string();

    // A file store is open in one process at a time.
    engine.shutdown(Duration::from_secs(5)).await;
    drop(engine);
    let mut other_process = Command::new(std::env::current_exe()?);
    let status = other_process.args(["--replay", &namespace]).status()?;
    if !status.success() {
        return Err("the other process got no replay".into());
    }

    let calls = match &setup.platform {
        Platform::Simulated(simulator) => {
            let engine = setup.start().await?;
            lost_answer(&engine, simulator).await?;
            engine.shutdown(Duration::from_secs(5)).await;
            simulator.ledger().calls(&key) as u64
        }
        // Only a simulator has the failure below.
        Platform::Real { .. } => stats.calls_final + stats.calls_not_executed + stats.calls_unknown,
    };
    println!("counted for     {key}, in this run");
    println!("upstream calls: {calls}");
    Ok(())
}

/// The spellings of one request: all of them have the same key.
fn requests(platform: &Platform) -> Result<Vec<DataActionRequest>, Failure> {
    if let Platform::Real { request, .. } = platform {
        return Ok(vec![request.clone()]);
    }
    let respelled = r#"{ "reason": "d\u0061maged", "cents": 1990.0, "order": 42 }"#;
    Ok(vec![
        refund(42)?,
        DataActionRequest::new(ACTION, respelled)?,
    ])
}

fn refund(order: u32) -> Result<DataActionRequest, Error> {
    let input = Refund {
        order,
        cents: 1990,
        reason: "damaged",
    };
    DataActionRequest::from_serialize(ACTION, &input)
}

/// A thousand callers at once: the first executes, the others wait for its answer.
async fn many_callers(engine: &Engine, requests: &[DataActionRequest]) -> Result<(), Failure> {
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let engine = engine.clone();
            let request = requests[caller % requests.len()].clone();
            tokio::spawn(async move { engine.execute(request).await })
        })
        .collect();
    let mut served = BTreeMap::<Served, usize>::new();
    let mut first = None;
    for caller in callers {
        let reply = caller.await??;
        *served.entry(reply.served()).or_default() += 1;
        if matches!(reply.served(), Served::Upstream | Served::Store) {
            first = Some(reply);
        }
    }
    let reply = first.ok_or("each caller joined another one")?;
    println!("first caller    {}", shown(&reply));
    let counts: Vec<_> = served
        .iter()
        .map(|(served, callers)| format!("{callers} {served}"))
        .collect();
    println!("{CALLERS} callers    {}", counts.join(", "));
    if reply.served() == Served::Store {
        println!("                an earlier run executed it; --fresh starts with an empty store");
    }
    match reply.recorded() {
        true => Ok(()),
        false => Err(format!(
            "the platform refused with {}: nothing was executed, so nothing can be replayed",
            reply.status()
        )
        .into()),
    }
}

/// The work of the other process.
async fn replay(setup: &Setup, request: &DataActionRequest) -> Result<(), Failure> {
    let engine = setup.start().await?;
    let reply = engine.execute(request.clone()).await?;
    println!("other process   {}", shown(&reply));
    match reply.served() {
        Served::Store => Ok(()),
        other => Err(format!("expected a replay from the store, found one from {other}").into()),
    }
}

/// The platform reads the request and resets the connection: the refund might have been
/// paid, so the engine does not send the request again.
async fn lost_answer(engine: &Engine, simulator: &GenesysSimulator) -> Result<(), Failure> {
    simulator.script(|_| Step::Reset);
    println!("\nThe platform now resets each connection after it has read the request.");
    let request = refund(43)?;
    let key = IdempotencyKey::of(&request);
    let calls = || simulator.ledger().calls(&key);

    let error = match engine.execute(request.clone()).await {
        Ok(reply) => {
            println!("order 43        {}", shown(&reply));
            println!("                an earlier run resolved it\n");
            return Ok(());
        }
        Err(error) => error,
    };
    println!("order 43        {}: {}", error.code(), line(&error));
    let Err(again) = engine.execute(request.clone()).await else {
        return Err("an indeterminate key was executed again".into());
    };
    println!("asked again     {}, {} call", again.code(), calls());

    // An operator asks the system behind the action: it paid the refund, as R-43.
    let Error::Indeterminate { version, .. } = again else {
        return Err(again.into());
    };
    let found = Outcome::new(StatusCode::OK, HeaderMap::new(), r#"{"refund":"R-43"}"#);
    let resolution = Resolution::applied(found).by("quickstart");
    engine.resolve(&key, version, resolution).await?;
    let reply = engine.execute(request).await?;
    println!("resolved        {}, {} call\n", shown(&reply), calls());
    Ok(())
}

fn shown(reply: &Reply) -> String {
    let answer = match reply.json::<Paid>() {
        Ok(paid) => format!("refund {}", paid.refund),
        Err(_) => String::from_utf8_lossy(reply.body()).into_owned(),
    };
    format!("{} from {}: {answer}", reply.status(), reply.served())
}
