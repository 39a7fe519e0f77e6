//! Random sequences of events, each answer compared with the reference's. A failed sequence
//! is shortened before it is reported, each try with a new key.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::Suite;
use super::cases::{
    abandon, acquire, complete_for, complete_with, enter, extend, forget, outcome, release,
    resolve, take_over, watched,
};
use super::trial::{LONG, Move, SHORT, Version, holder};
use crate::outcome::StoredBody;
use crate::record::{Claim, Event, Phase, Refusal, StoredOutcome};

/// The number of sequences in one run.
const SEQUENCES: usize = 128;

/// The same sequences in every run.
const SEED: [u8; 32] = *b"genesys-once: store conformance!";

pub(super) async fn all(suite: &Suite<'_>) {
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
    let mut runner = TestRunner::new_with_rng(config, rng);
    for number in 0..SEQUENCES {
        let mut tree = sequences()
            .new_tree(&mut runner)
            .expect("nothing is filtered out");
        let Err(mut difference) = run(suite, tree.current()).await else {
            continue;
        };
        while tree.simplify() {
            match run(suite, tree.current()).await {
                Err(simpler) => difference = simpler,
                Ok(()) if tree.complicate() => {}
                Ok(()) => break,
            }
        }
        panic!(
            "random sequence {number} of seed {:?}: {difference}",
            String::from_utf8_lossy(&SEED)
        );
    }
}

async fn run(suite: &Suite<'_>, steps: Vec<Move>) -> Result<(), String> {
    let mut trial = suite.trial();
    for step in steps {
        trial.step(step, None).await?;
    }
    Ok(())
}

fn sequences() -> impl Strategy<Value = Vec<Move>> {
    prop::collection::vec((moves(), versions()), 1..24).prop_map(|steps| {
        let with_version = |(step, revision)| Move { revision, ..step };
        steps.into_iter().map(with_version).collect()
    })
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![
        6 => Just(Version::Current),
        3 => Just(Version::Before),
        1 => Just(Version::Foreign),
    ]
}

fn moves() -> impl Strategy<Value = Move> {
    let phases = prop_oneof![Just(Phase::Claimed), Just(Phase::Dispatched)];
    prop_oneof![
        4 => claims().prop_map(acquire),
        4 => claims().prop_map(take_over),
        1 => claims().prop_map(|claim| watched(take_over(claim))),
        3 => (claims(), prop::option::of(steps())).prop_map(|(claim, step)| extend(claim, step)),
        5 => (claims(), steps(), phases).prop_map(|(claim, step, phase)| enter(claim, step, phase)),
        1 => (claims(), steps(), times()).prop_map(|(claim, step, ttl)| complete_for(claim, step, ttl)),
        1 => (claims(), steps()).prop_map(|(claim, step)| {
            let stored = StoredOutcome {
                outcome: outcome("another"),
                body: StoredBody::OmittedTooLarge,
            };
            complete_with(claim, step, stored)
        }),
        3 => (claims(), steps(), refusals()).prop_map(|(claim, step, refusal)| release(claim, step, refusal)),
        2 => (claims(), steps()).prop_map(|(claim, step)| abandon(claim, step)),
        2 => (prop::option::of(Just("applied")), times()).prop_map(|(applied, time)| {
            let mut step = resolve(applied);
            if let Event::Resolve { ttl, .. } = &mut step.event {
                *ttl = time;
            }
            step
        }),
        1 => Just(forget()),
    ]
}

/// Two claims of one request, and a claim of another.
fn claims() -> impl Strategy<Value = Claim> {
    let holders = prop_oneof![4 => Just(b'A'), 3 => Just(b'B'), 1 => Just(b'X')];
    (holders, times(), times()).prop_map(|(number, lease_ttl, retention)| Claim {
        lease_ttl,
        retention,
        ..holder(number)
    })
}

fn times() -> impl Strategy<Value = Duration> {
    prop_oneof![7 => Just(LONG), 1 => Just(SHORT)]
}

fn steps() -> impl Strategy<Value = u32> {
    0..6_u32
}

fn refusals() -> impl Strategy<Value = Option<Refusal>> {
    let retry_after = Duration::from_millis(1500);
    prop_oneof![
        Just(None),
        Just(Some(Refusal::RateLimited { retry_after })),
        Just(Some(Refusal::Refused(outcome("no").into()))),
    ]
}
