//! `doctor`: examines store, namespace, token and platform. It writes nothing and
//! executes nothing.

mod namespace;
mod platform;
mod servers;

use std::time::{Duration, Instant};

use genesys_once::record::Namespace;
use genesys_once::{Engine, IdempotencyKey, Upstream as _};

use super::args::{DoctorArgs, Place};
use super::exit::{Exit, Failure};
use super::settings::Opened;
use super::{settings, terminal, text};

/// Looks at a key that no request has.
const LOOKS: u32 = 10;

/// What a check found; the worst one decides the exit code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// The checks so far.
struct Report {
    worst: Level,
}

impl Report {
    fn ok(&mut self, what: &str, found: impl AsRef<str>) -> Result<(), Failure> {
        self.line(Level::Ok, what, found.as_ref(), None)
    }

    fn warn(&mut self, what: &str, found: impl AsRef<str>, todo: &str) -> Result<(), Failure> {
        self.line(Level::Warn, what, found.as_ref(), Some(todo))
    }

    fn fail(&mut self, what: &str, found: impl AsRef<str>, todo: &str) -> Result<(), Failure> {
        self.line(Level::Fail, what, found.as_ref(), Some(todo))
    }

    /// Printed at once: the next check may take its time.
    fn line(
        &mut self,
        level: Level,
        what: &str,
        found: &str,
        todo: Option<&str>,
    ) -> Result<(), Failure> {
        self.worst = self.worst.max(level);
        let word = match level {
            Level::Ok => "OK",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        let mut line = format!("{word:4}  {what:11}  {}\n", text::clean(found));
        if let Some(todo) = todo {
            line.push_str(&format!("{:19}-> {todo}\n", ""));
        }
        terminal::print(&line)
    }
}

pub async fn doctor(place: &Place, args: &DoctorArgs) -> Result<Exit, Failure> {
    let namespace = settings::namespace(place, None)?;
    let mut report = Report { worst: Level::Ok };
    let platform = settings::platform()?;
    let digest = platform
        .as_ref()
        .map(|platform| platform.upstream("").namespace());
    let whose = match digest.as_ref() == Some(&namespace) {
        true => "the digest of platform and client",
        false => "set by name: for one organisation only",
    };
    report.ok("namespace", format!("{namespace}, {whose}"))?;
    match settings::open(place).await {
        Ok(opened) => store(&mut report, opened, &namespace, args).await?,
        Err(failure) => report.fail(
            "store",
            failure.to_string(),
            "nothing is executed without it: start it, or correct the setting",
        )?,
    }
    if !args.store_only {
        platform::check(&mut report, platform).await?;
    }
    Ok(match report.worst {
        Level::Ok => Exit::Done,
        Level::Warn => Exit::Warn,
        Level::Fail => Exit::Fail,
    })
}

async fn store(
    report: &mut Report,
    opened: Opened,
    namespace: &Namespace,
    args: &DoctorArgs,
) -> Result<(), Failure> {
    let Opened {
        store,
        redis,
        called,
        keys,
    } = opened;
    report.ok("store", &called)?;
    let engine = settings::engine(store.clone(), namespace.clone(), None).await?;
    latency(report, &engine, args.slow).await?;
    match redis {
        Some(redis) => servers::check(report, &redis).await?,
        None => report.ok("durability", "every write is synced to the disk")?,
    }
    if let Some(keys) = keys {
        report.ok("encryption", keys)?;
    }
    namespace::check(report, &*store, &engine, args.sample).await
}

async fn latency(report: &mut Report, engine: &Engine, slow: Duration) -> Result<(), Failure> {
    const WHAT: &str = "latency";
    let mut took = Vec::new();
    for number in 0..LOOKS {
        let begun = Instant::now();
        // No hash of a request begins with so many zeros.
        let mut bytes = [0; 32];
        bytes[31] = number as u8;
        let looked = engine.inspect(&IdempotencyKey::from_bytes(bytes)).await;
        if let Err(error) = looked {
            let found = Failure::from(error).to_string();
            return report.fail(WHAT, found, "the store does not answer: look at its log");
        }
        took.push(begun.elapsed());
    }
    took.sort();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let (shown, slowest) = (ms(median), ms(slowest));
    let found = format!("{LOOKS} looks: median {shown}, slowest {slowest}");
    match median > slow {
        true => report.warn(WHAT, found, "each call takes two commands of it"),
        false => report.ok(WHAT, found),
    }
}
