//! Explores every order of holders, commands, expiries and crashes, with the crate's own
//! rules.
//!
//! A key is executed once because of one pure function, `record::apply`, which every store
//! applies to its holders' commands. This test builds a small world around it and visits
//! **every** state of that world, breadth first. So each fault comes with a shortest path
//! to it.
//!
//! # The world
//!
//! - One record, and two holders with two leases each (one after the other) or three
//!   holders with one. A holder acts as an execution of the crate: it acquires, or takes
//!   over the revision that it saw; enters; sends; completes, abandons, waits for another
//!   attempt or releases. Its heartbeat extends its lease at any time. It may give up at
//!   any time, or crash and start again.
//! - A command is answered; or it is applied, its reply is lost, and it is sent again; or
//!   it is **delayed**: its holder sends it again and continues, and the first copy arrives
//!   later. One or two commands may be delayed at a time.
//! - Time is one bit, whether the lease has expired; it may expire at any step. So a holder
//!   may pause for any time; and it still sends, which the crate's holders, with their own
//!   clocks, do not.
//! - A waiting holder may have seen one revision for the whole length of the lease, by its
//!   own clock, at any step; it then says so in its command. One search has a store with a
//!   stopped clock, so that nothing else ends a lease.
//! - A request gets a final answer, is refused, is executed while its answer is lost, or is
//!   not executed and gets no answer; also after a crash. With `Hold` that is the last
//!   attempt, with `Retry` the same holder may make another.
//! - An operator resolves an indeterminate key by the truth, but not while the lost request
//!   might be under way. The operator's commands may arrive twice, or late.
//!
//! - A store may store a large body separately. It writes the body before the command that
//!   completes, and that command does nothing where the body is missing. For the record
//!   that equals a lost command or a crash, so it adds no state to this world. A body that
//!   is lost later changes no record. Tests with a real server verify that a reader joins
//!   no other body.
//!
//! # What must hold
//!
//! No second call without proof that the first was not executed ([`SecondCall`]). No two
//! holders that both believe they may send ([`LiveTwice`]). No `Done` for a holder's
//! outcome where an operator's is recorded ([`TwoAnswers`]). No take-over of a lease that
//! was extended meanwhile ([`TakenAlive`]). Without a crash, no indeterminate key whose
//! holder proved that nothing was executed ([`FalseIndeterminate`]). From every state,
//! without further failures, all holders come to rest and the next caller gets the key or
//! its outcome ([`NoWayOut`]).
//!
//! # How far to trust it
//!
//! Each mutation below omits one rule, and the search must detect it. Revisions are
//! distinguished only as current and past, which makes the world finite. Each write asserts
//! that they rise, and one search compares their numbers. Not in this world: a store that
//! loses acknowledged writes, `Forget`, different requests under one key, records that
//! outlive their retention.
//!
//! `PROTOCOL_DEPTH=full` allows two delayed commands in every search: 178 million states,
//! 25 minutes on two cores, 3 GB. An ordinary run visits 14 million in about a minute.
//! Figures and paths are printed (`--nocapture`).
//!
//! [`SecondCall`]: Broken::SecondCall
//! [`LiveTwice`]: Broken::LiveTwice
//! [`TwoAnswers`]: Broken::TwoAnswers
//! [`TakenAlive`]: Broken::TakenAlive
//! [`FalseIndeterminate`]: Broken::FalseIndeterminate
//! [`NoWayOut`]: Broken::NoWayOut

mod command;
mod holder;
mod label;
mod mutation;
mod packed;
mod search;
mod state;
mod store;
mod world;

use holder::Policy::{Hold, Retry};
use mutation::Mutation;
use search::search;
use world::{Broken, Config, Revisions};

const TWO: Config = Config {
    holders: &[Hold, Hold],
    leases: 2,
    delayed: 1,
    resolutions: 0,
    crashes: true,
    revisions: Revisions::Current,
    expires: true,
    mutation: None,
};

const TWO_MIXED: Config = Config {
    holders: &[Retry, Hold],
    ..TWO
};

const THREE: Config = Config {
    holders: &[Hold, Hold, Hold],
    leases: 1,
    ..TWO
};

const THREE_MIXED: Config = Config {
    holders: &[Retry, Hold, Hold],
    ..THREE
};

/// Explores all of a world, and asserts that no property breaks.
fn holds(name: &str, config: Config) {
    let full = std::env::var("PROTOCOL_DEPTH").is_ok_and(|depth| depth == "full");
    let config = if full {
        Config {
            delayed: 2,
            ..config
        }
    } else {
        config
    };
    let found = search(name, config, |_| true);
    assert_eq!(found.broken.map(|(broken, _)| broken), None);
    assert!(found.states > 100_000, "the world has shrunk");
    assert!(!found.cut || config.revisions != Revisions::Current);
}

/// Omits a rule and finds the property that breaks, by the shortest path.
fn breaks(mutation: Mutation, broken: Broken, config: Config) {
    let name = format!("without a rule, {mutation:?}");
    let revisions = match broken {
        // Needs a world without a bound.
        Broken::NoWayOut => Revisions::Current,
        // The mutation might break the assumptions of the smaller world.
        _ => Revisions::UpTo(30),
    };
    let mutation = Some(mutation);
    let config = Config {
        mutation,
        revisions,
        ..config
    };
    let found = search(&name, config, |counts| counts == broken);
    assert_eq!(found.broken.map(|(broken, _)| broken), Some(broken));
}

#[test]
fn two_holders() {
    holds("two holders", TWO);
}

#[test]
fn two_holders_one_retrying() {
    holds("two holders, one retrying", TWO_MIXED);
}

#[test]
fn two_holders_and_an_operator() {
    holds(
        "two holders and an operator",
        Config {
            resolutions: 2,
            ..TWO
        },
    );
}

#[test]
fn two_holders_one_retrying_and_an_operator() {
    let config = Config {
        resolutions: 1,
        ..TWO_MIXED
    };
    holds("two holders, one retrying, and an operator", config);
}

#[test]
fn three_holders() {
    holds("three holders", THREE);
}

#[test]
fn three_holders_one_retrying_and_an_operator() {
    let config = Config {
        resolutions: 1,
        ..THREE_MIXED
    };
    holds("three holders, one retrying, and an operator", config);
}

#[test]
fn no_false_indeterminate_without_a_crash() {
    holds(
        "without crashes",
        Config {
            crashes: false,
            ..TWO
        },
    );
}

#[test]
fn no_false_indeterminate_one_retrying() {
    holds(
        "without crashes, one retrying",
        Config {
            crashes: false,
            ..TWO_MIXED
        },
    );
}

#[test]
fn revisions_by_number() {
    holds(
        "revisions up to 6",
        Config {
            revisions: Revisions::UpTo(6),
            ..TWO
        },
    );
}

#[test]
fn second_call_without_step_numbers() {
    breaks(Mutation::NoStep, Broken::SecondCall, TWO);
}

#[test]
fn second_call_where_extend_carries_a_phase() {
    breaks(Mutation::ExtendCarriesPhase, Broken::SecondCall, TWO);
}

#[test]
fn second_call_where_dispatched_is_taken_over() {
    breaks(Mutation::TakeOverDispatched, Broken::SecondCall, TWO);
}

#[test]
fn second_call_where_resolve_ignores_revisions() {
    let config = Config {
        resolutions: 1,
        ..TWO
    };
    breaks(Mutation::ResolveUnseen, Broken::SecondCall, config);
}

#[test]
fn two_answers_where_resolution_keeps_the_lease() {
    let config = Config {
        resolutions: 1,
        ..TWO
    };
    breaks(Mutation::ResolveKeepsLease, Broken::TwoAnswers, config);
}

#[test]
fn second_call_where_released_keys_are_deleted() {
    // A deleted record begins again at revision 1: revisions repeat.
    let config = Config {
        resolutions: 1,
        ..TWO
    };
    breaks(Mutation::Deletion, Broken::SecondCall, config);
}

#[test]
fn second_call_where_claimed_follows_an_unknown_outcome() {
    breaks(Mutation::ClaimedUnknown, Broken::SecondCall, TWO_MIXED);
}

#[test]
fn live_twice_where_dispatched_is_taken_over() {
    breaks(Mutation::TakeOverDispatched, Broken::LiveTwice, TWO);
}

#[test]
fn false_indeterminate_where_release_leaves_absent() {
    let config = Config {
        crashes: false,
        ..TWO
    };
    breaks(
        Mutation::ReleaseLeavesAbsent,
        Broken::FalseIndeterminate,
        config,
    );
}

#[test]
fn false_indeterminate_where_released_is_acquired_at_once() {
    let config = Config {
        crashes: false,
        ..TWO
    };
    breaks(
        Mutation::AcquireReleased,
        Broken::FalseIndeterminate,
        config,
    );
}

#[test]
fn false_indeterminate_where_take_over_ignores_revisions() {
    let config = Config {
        crashes: false,
        delayed: 2,
        ..TWO
    };
    breaks(Mutation::TakeOverUnseen, Broken::FalseIndeterminate, config);
}

#[test]
fn two_holders_and_a_stopped_clock() {
    let config = Config {
        expires: false,
        ..TWO
    };
    holds("two holders, a stopped clock", config);
}

#[test]
fn no_way_out_where_only_a_stopped_clock_counts() {
    let config = Config {
        expires: false,
        leases: 1,
        ..TWO
    };
    breaks(Mutation::NeverWatched, Broken::NoWayOut, config);
}

#[test]
fn taken_alive_where_extend_keeps_the_revision() {
    breaks(Mutation::ExtendKeepsRevision, Broken::TakenAlive, TWO);
}

#[test]
fn no_way_out_where_claimed_is_never_taken_over() {
    let config = Config { leases: 1, ..TWO };
    breaks(Mutation::NeverTakenOver, Broken::NoWayOut, config);
}
