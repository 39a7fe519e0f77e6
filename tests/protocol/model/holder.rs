//! A holder of the model: its next command, and its state after an answer. It sees the record
//! only through the store's answers. It sends even if its own clock shows that its lease has
//! expired: the model's holders are less careful than the crate's.

use super::command::{Command, Lease, Revision, Verb};
use super::store::{Kind, Reply};

/// Attempts of one execution.
const TRIES: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `on_unknown(Hold)`: an attempt with an unknown outcome is the last one.
    Hold,
    /// `on_unknown(Retry)`: the same holder may make another attempt, no other holder may.
    Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Has no execution, or released the key, or received another holder's outcome.
    Idle,
    /// Asks for an absent key.
    Acquire,
    /// Found its own lease, or waits in `Dispatched` after an unknown outcome: extends its
    /// lease before it relies on it.
    Verify,
    /// Waits for a key that is released or locked: takes it over once it may.
    TakeOver,
    /// Has the key in `Claimed` (in `Dispatched` after an unknown outcome): enters
    /// `Dispatched` for the next attempt.
    Claimed,
    /// May send.
    Dispatched,
    /// Has a request on the wire.
    OnWire,
    /// Knows the outcome: completes.
    Answered,
    /// Has an unknown outcome and makes no other attempt: abandons.
    Unknown,
    /// Will wait for its next attempt: enters `Claimed` if it may.
    Waiting,
    /// Has no unknown outcome: releases the key.
    Releasing,
    /// Has completed or abandoned.
    Done,
    /// Crashed.
    Dead,
    /// Crashed with a request on the wire, which might still be executed.
    Adrift,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub at: At,
    /// How many leases it has used.
    pub leases: u8,
    /// The step of its next command, or of its last command if it sends no other.
    pub step: u8,
    /// The revision to take over.
    pub revision: Revision,
    /// Attempts that failed.
    pub tries: u8,
    /// Whether one of them has an unknown outcome.
    pub unknown_outcome: bool,
    /// Whether the lease that it waits for was extended since the holder saw it.
    pub renewed: bool,
}

/// A step of a holder without the store.
#[derive(Clone, Copy)]
pub struct Act {
    pub what: &'static str,
    pub then: Holder,
    /// Whether the platform executes the request.
    pub executes: bool,
    /// Whether it is the step without a failure.
    pub calm: bool,
}

impl Act {
    fn plain(what: &'static str, then: Holder) -> Self {
        Self {
            what,
            then,
            executes: false,
            calm: false,
        }
    }
}

impl Holder {
    pub const NEW: Self = Self {
        at: At::Idle,
        leases: 0,
        step: 0,
        revision: Revision::NONE,
        tries: 0,
        unknown_outcome: false,
        renewed: false,
    };

    pub fn rests(self) -> bool {
        matches!(self.at, At::Idle | At::Done | At::Dead)
    }

    /// Whether it believes that its request might be on the wire.
    pub fn believes(self) -> bool {
        matches!(self.at, At::Dispatched | At::OnWire)
    }

    /// Starts an execution under its next lease.
    pub fn start(self) -> Self {
        Self {
            at: At::Acquire,
            leases: self.leases + 1,
            ..Self::NEW
        }
    }

    pub fn crash(self) -> Option<Self> {
        match self.at {
            At::Idle | At::Done | At::Dead | At::Adrift => None,
            At::OnWire => Some(self.rest(At::Adrift)),
            _ => Some(self.rest(At::Dead)),
        }
    }

    /// The command that it sends until an answer arrives. `careless` holders write
    /// `Claimed` after an unknown outcome.
    pub fn command(self, lease: Lease, careless: bool) -> Option<Command> {
        let (verb, step) = match self.at {
            At::Acquire => (Verb::Acquire, 0),
            At::Verify => (Verb::ExtendDispatched, self.step),
            At::TakeOver => (Verb::TakeOver, 0),
            At::Claimed => (Verb::EnterDispatched, self.step),
            At::Waiting if self.unknown_outcome && !careless => (Verb::EnterDispatched, self.step),
            At::Waiting => (Verb::EnterClaimed, self.step),
            At::Answered => (Verb::Complete, self.step),
            At::Unknown => (Verb::Abandon, self.step),
            At::Releasing => (Verb::Release, self.step),
            _ => return None,
        };
        Some(Command {
            verb,
            lease,
            step,
            revision: self.revision,
        })
    }

    /// The same command after it saw a revision for a whole lease by its own clock.
    pub fn watched(self, lease: Lease) -> Option<Command> {
        let command = self.command(lease, false)?;
        (command.verb == Verb::TakeOver).then_some(Command {
            verb: Verb::TakeOverWatched,
            ..command
        })
    }

    /// The command of its heartbeat, which may be sent at any step.
    pub fn heartbeat(self, lease: Lease) -> Option<Command> {
        let (verb, step) = match self.at {
            At::Dispatched | At::OnWire | At::Answered => (Verb::ExtendDispatched, self.step),
            At::Unknown => (Verb::ExtendDispatched, self.step - 1),
            At::Verify if self.unknown_outcome => (Verb::ExtendDispatched, self.step),
            At::Claimed | At::Waiting if self.unknown_outcome => {
                (Verb::ExtendDispatched, self.step - 1)
            }
            At::Claimed | At::Waiting => (Verb::Extend, 0),
            _ => return None,
        };
        Some(Command {
            verb,
            lease,
            step,
            revision: Revision::NONE,
        })
    }

    /// Its state after the answer to its command.
    pub fn heard(self, lease: Lease, reply: Reply) -> Self {
        match (self.at, reply) {
            (At::Acquire | At::Verify, Reply::Done) => self.at(At::Dispatched),
            (At::Verify, _) if !self.unknown_outcome => self.at(At::Acquire),
            (At::Acquire, Reply::Is(rec)) => match rec.kind {
                Kind::Dispatched if rec.lease == lease => self.at(At::Verify),
                Kind::Claimed | Kind::Dispatched if rec.lease != lease => {
                    self.take_over(rec.revision())
                }
                // The lease expired before this holder knew that it had it. It sent nothing,
                // so nothing was executed. A lease belongs to one execution.
                Kind::Claimed | Kind::Indeterminate | Kind::Released if rec.lease == lease => {
                    self.give_up()
                }
                Kind::Released => self.take_over(rec.revision()),
                _ => self.rest(At::Idle),
            },
            (At::TakeOver, Reply::Done) => Self {
                revision: Revision::NONE,
                renewed: false,
                ..self.next(At::Claimed)
            },
            (At::TakeOver, Reply::Is(rec)) => match rec.kind {
                Kind::Claimed | Kind::Dispatched if rec.lease != lease => {
                    self.take_over(rec.revision())
                }
                Kind::Released if rec.lease != lease => self.take_over(rec.revision()),
                _ => self.give_up(),
            },
            (At::Claimed, Reply::Done) => self.at(At::Dispatched),
            (At::Waiting, Reply::Done) => self.next(At::Claimed),
            (At::Answered | At::Unknown, _) => self.rest(At::Done),
            (At::Releasing, _) => self.rest(At::Idle),
            _ => self.give_up(),
        }
    }

    /// Its possible steps without the store.
    pub fn acts(self, policy: Policy, mut act: impl FnMut(Act)) {
        match self.at {
            At::Acquire | At::Verify | At::TakeOver | At::Claimed | At::Waiting => {
                act(Act::plain("gives up", self.give_up()));
                if self.at == At::Waiting {
                    // It relies on the next step number only.
                    act(Act::plain("goes on unanswered", self.next(At::Claimed)));
                }
            }
            At::Dispatched => {
                let then = self.at(At::OnWire);
                act(Act::plain("gives up", self.give_up()));
                act(Act {
                    what: "sends",
                    then,
                    executes: false,
                    calm: true,
                });
            }
            At::OnWire => {
                act(Act::plain("is refused (429)", self.refused()));
                for then in self.unknown(policy) {
                    act(Act::plain("is not executed, nor answered", then));
                }
                for then in self.unknown(policy) {
                    let what = "is executed, its answer lost";
                    act(Act {
                        what,
                        then,
                        executes: true,
                        calm: false,
                    });
                }
                let what = "is executed and answered";
                act(Act {
                    what,
                    then: self.at(At::Answered),
                    executes: true,
                    calm: true,
                });
            }
            At::Adrift => {
                let then = self.at(At::Dead);
                act(Act {
                    what: "is executed",
                    then,
                    executes: true,
                    calm: false,
                });
                act(Act {
                    what: "is never executed",
                    then,
                    executes: false,
                    calm: true,
                });
            }
            _ => {}
        }
    }

    fn refused(self) -> Self {
        let tries = self.tries + 1;
        if tries < TRIES {
            Self {
                tries,
                ..self.next(At::Waiting)
            }
        } else {
            self.give_up()
        }
    }

    /// The two ways to wait after an unknown outcome: with a new step, or in `Dispatched`
    /// as before.
    fn unknown(self, policy: Policy) -> impl Iterator<Item = Self> {
        let unknown = Self {
            tries: self.tries + 1,
            unknown_outcome: true,
            ..self
        };
        let ways = if policy == Policy::Retry && unknown.tries < TRIES {
            [
                Some(unknown.next(At::Waiting)),
                Some(unknown.at(At::Verify)),
            ]
        } else {
            [Some(unknown.give_up()), None]
        };
        ways.into_iter().flatten()
    }

    /// After an unknown outcome it can only abandon.
    fn give_up(self) -> Self {
        let at = if self.unknown_outcome {
            At::Unknown
        } else {
            At::Releasing
        };
        Self {
            at,
            step: self.step + 1,
            revision: Revision::NONE,
            tries: 0,
            unknown_outcome: false,
            renewed: false,
            ..self
        }
    }

    fn take_over(self, revision: Revision) -> Self {
        let renewed = self.renewed && revision == self.revision;
        Self {
            at: At::TakeOver,
            revision,
            renewed,
            ..self
        }
    }

    fn next(self, at: At) -> Self {
        Self {
            at,
            step: self.step + 1,
            ..self
        }
    }

    fn at(self, at: At) -> Self {
        Self { at, ..self }
    }

    fn rest(self, at: At) -> Self {
        Self {
            at,
            leases: self.leases,
            ..Self::NEW
        }
    }
}
