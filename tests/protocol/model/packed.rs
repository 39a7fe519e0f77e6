//! A [`State`] in 128 bits, so that tens of millions fit into memory.

use super::command::{Command, Revision, Verb};
use super::holder::{At, Holder};
use super::state::State;
use super::store::{Kind, Rec};

const KINDS: [Kind; 7] = [
    Kind::Absent,
    Kind::Claimed,
    Kind::Dispatched,
    Kind::Cached,
    Kind::Resolved,
    Kind::Indeterminate,
    Kind::Released,
];

const PLACES: [At; 14] = [
    At::Idle,
    At::Acquire,
    At::Verify,
    At::TakeOver,
    At::Claimed,
    At::Dispatched,
    At::OnWire,
    At::Answered,
    At::Unknown,
    At::Waiting,
    At::Releasing,
    At::Done,
    At::Dead,
    At::Adrift,
];

const VERBS: [Verb; 13] = [
    Verb::None,
    Verb::Acquire,
    Verb::TakeOver,
    Verb::TakeOverWatched,
    Verb::Extend,
    Verb::ExtendDispatched,
    Verb::EnterClaimed,
    Verb::EnterDispatched,
    Verb::Complete,
    Verb::Release,
    Verb::Abandon,
    Verb::ResolveNotApplied,
    Verb::ResolveApplied,
];

/// The state as a number; two states are equal if their numbers are equal.
pub fn pack(state: &State) -> u128 {
    let mut word = Word(0);
    for holder in &state.holders {
        // Only a holder that takes over has seen a revision, and it has no step.
        let aside = holder.revision != Revision::NONE;
        assert!(!aside || holder.step == 0 && holder.tries == 0);
        let value = if aside {
            packed(holder.revision)
        } else {
            u64::from(holder.step)
        };
        word.push(4, holder.at as u64);
        word.push(2, holder.leases.into());
        word.push(1, aside.into());
        word.push(8, value);
        word.push(2, holder.tries.into());
        word.push(1, holder.unknown_outcome.into());
        word.push(1, holder.renewed.into());
    }
    for command in &state.delayed {
        word.push(4, command.verb as u64);
        word.push(3, command.lease.into());
        word.push(4, command.step.into());
        word.push(8, packed(command.revision));
    }
    let Rec {
        kind,
        lease,
        step,
        rev,
        live,
    } = state.rec;
    word.push(3, kind as u64);
    word.push(3, lease.into());
    word.push(4, step.into());
    word.push(5, rev.into());
    word.push(1, live.into());
    word.push(3, state.executed.map_or(0, |lease| u64::from(lease) + 1));
    word.push(1, state.second_call.into());
    word.push(1, state.two_answers.into());
    word.push(1, state.taken_alive.into());
    word.push(2, state.resolutions.into());
    word.0
}

/// The state from a number that [`pack`] returned.
pub fn unpack(number: u128) -> State {
    let mut word = Word(number);
    let resolutions = word.pop(2);
    let taken_alive = word.pop(1) == 1;
    let two_answers = word.pop(1) == 1;
    let second_call = word.pop(1) == 1;
    let executed = word.pop(3).checked_sub(1);
    let live = word.pop(1) == 1;
    let (rev, step, lease) = (word.pop(5), word.pop(4), word.pop(3));
    let rec = Rec {
        kind: KINDS[usize::from(word.pop(3))],
        lease,
        step,
        rev,
        live,
    };
    let delayed = [(); 2].map(|()| {
        let revision = unpacked(word.pop(8));
        let (step, lease) = (word.pop(4), word.pop(3));
        Command {
            verb: VERBS[usize::from(word.pop(4))],
            lease,
            step,
            revision,
        }
    });
    let holders = [(); 3].map(|()| {
        let renewed = word.pop(1) == 1;
        let unknown_outcome = word.pop(1) == 1;
        let (tries, value) = (word.pop(2), word.pop(8));
        let aside = word.pop(1) == 1;
        let (revision, step) = if aside {
            (unpacked(value), 0)
        } else {
            (Revision::NONE, value)
        };
        let leases = word.pop(2);
        Holder {
            at: PLACES[usize::from(word.pop(4))],
            leases,
            step,
            revision,
            tries,
            unknown_outcome,
            renewed,
        }
    });
    let ([c, b, a], [e, d]) = (holders, delayed);
    State {
        rec,
        holders: [a, b, c],
        delayed: [d, e],
        executed,
        second_call,
        two_answers,
        taken_alive,
        resolutions,
    }
}

fn packed(Revision { rev, lease }: Revision) -> u64 {
    assert!(rev < 32 && lease < 8);
    u64::from(rev) << 3 | u64::from(lease)
}

fn unpacked(value: u8) -> Revision {
    Revision {
        rev: value >> 3,
        lease: value & 7,
    }
}

struct Word(u128);

impl Word {
    fn push(&mut self, bits: u32, value: u64) {
        assert!(value >> bits == 0, "{value} takes more than {bits} bits");
        self.0 = self.0 << bits | u128::from(value);
    }

    fn pop(&mut self, bits: u32) -> u8 {
        let value = self.0 & ((1 << bits) - 1);
        self.0 >>= bits;
        value as u8
    }
}
