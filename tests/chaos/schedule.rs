//! The time of each fault, computed from the seed before the run. It injects nothing
//! itself.

use std::time::Duration;

use fastrand::Rng;

use super::proxy::Way;
use super::worker::LEASE;

/// The two peers that a worker connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Redis,
    Platform,
}

/// What happens to the connections between a worker and one peer.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    Delay(Duration, Duration),
    /// Bytes are delayed in these directions for a while.
    Silence {
        out: bool,
        back: bool,
        lasting: Duration,
    },
    Reset,
    HalfClose(Way),
}

/// One fault; `worker` is a place in the fleet. There is one more line to Redis than there
/// are workers: the operator's line.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    KillWorker { worker: usize, down: Duration },
    StopWorker { worker: usize, stopped: Duration },
    Connections(usize, End, Trouble),
    KillRedis { down: Duration },
    StopRedis { stopped: Duration },
    RevokeTokens,
}

impl Fault {
    /// The kind of the fault, for the figures.
    pub fn kind(&self) -> &'static str {
        use Trouble::*;
        match self {
            Self::KillWorker { .. } => "worker killed",
            Self::StopWorker { .. } => "worker stopped past its leases",
            Self::KillRedis { .. } => "redis killed",
            Self::StopRedis { .. } => "redis stopped",
            Self::RevokeTokens => "tokens revoked",
            Self::Connections(_, End::Redis, trouble) => match trouble {
                Delay(..) => "redis connections slow",
                Silence { out: false, .. } => "redis replies late",
                Silence { back: false, .. } => "redis commands late",
                Silence { .. } => "redis connections silent",
                Reset => "redis connections reset",
                HalfClose(_) => "redis connections half closed",
            },
            Self::Connections(_, End::Platform, trouble) => match trouble {
                Delay(..) => "platform connections slow",
                Silence { .. } => "platform connections silent",
                Reset => "platform connections reset",
                HalfClose(_) => "platform connections half closed",
            },
        }
    }
}

/// The faults within `length`, in their order, for a fleet of `workers`.
pub fn draw(seed: u64, length: Duration, workers: usize) -> Vec<(Duration, Fault)> {
    let mut rng = Rng::with_seed(seed);
    let mut at = Duration::from_millis(500);
    let mut faults = Vec::new();
    while at < length {
        faults.push((at, fault(&mut rng, workers)));
        at += Duration::from_millis(rng.u64(80..480));
    }
    faults
}

fn fault(rng: &mut Rng, workers: usize) -> Fault {
    let worker = rng.usize(..workers);
    let line = rng.usize(..=workers);
    let of_redis = |trouble| Fault::Connections(line, End::Redis, trouble);
    let of_platform = |trouble| Fault::Connections(worker, End::Platform, trouble);
    let mut ms = |range| Duration::from_millis(rng.u64(range));
    let (short, long, down) = (ms(100..900), ms(300..1_800), ms(50..1_200));
    let (past, delay) = (LEASE + ms(100..1_500), ms(5..150));
    let way = [Way::Out, Way::Back][rng.usize(..2)];
    match rng.u32(..100) {
        0..10 => Fault::KillWorker { worker, down },
        10..32 => Fault::StopWorker {
            worker,
            stopped: past,
        },
        32..42 => of_redis(Trouble::Reset),
        42..54 => {
            let (out, back) = [(true, true), (true, false), (false, true)][rng.usize(..3)];
            of_redis(Trouble::Silence {
                out,
                back,
                lasting: long,
            })
        }
        54..62 => of_redis(Trouble::HalfClose(way)),
        62..72 => of_redis(Trouble::Delay(delay, long)),
        72..75 => Fault::KillRedis { down },
        75..79 => Fault::StopRedis { stopped: short },
        79..85 => of_platform(Trouble::Reset),
        85..89 => of_platform(Trouble::Silence {
            out: way == Way::Out,
            back: true,
            lasting: long,
        }),
        89..92 => of_platform(Trouble::HalfClose(way)),
        92..97 => of_platform(Trouble::Delay(delay, long)),
        _ => Fault::RevokeTokens,
    }
}
