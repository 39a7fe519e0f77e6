//! The rules with one left out: the search has to notice each. They are changed
//! from outside, by rewriting what goes into the crate's `apply` and what comes
//! out of it.

use super::command::{Command, Verb};
use super::store::{Kind, Rec, Reply};

/// A rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Commands carry no step number: the last to arrive counts.
    NoStep,
    /// `extend` writes the phase that its sender was in.
    ExtendCarriesPhase,
    /// A lapsed `Dispatched` is taken over like a lapsed `Claimed`.
    TakeOverDispatched,
    /// A take-over goes by the state alone, not by the version that was seen.
    TakeOverUnseen,
    /// An extension leaves the revision as it is.
    ExtendKeepsRevision,
    /// Nobody's own clock counts, only that of the store.
    NeverWatched,
    /// A lapsed `Claimed` is never taken over.
    NeverTakenOver,
    /// A resolution goes by the state alone, not by the version that was seen.
    ResolveUnseen,
    /// An applied resolution is written under the lost holder's lease.
    ResolveKeepsLease,
    /// A key that is given back is deleted and leaves no `Released`.
    Deletion,
    /// A release that finds nothing leaves nothing.
    ReleaseLeavesAbsent,
    /// A `Released` record is acquired straight into `Dispatched`.
    AcquireReleased,
    /// The holder's fault: it writes `Claimed` for the wait after an attempt
    /// whose fate it does not know.
    ClaimedUnproven,
}

impl Mutation {
    /// Applies a command by rules that lack this one.
    pub fn apply(
        self,
        rec: Rec,
        command: Command,
        rules: impl Fn(Rec, Command) -> (Rec, Reply),
    ) -> (Rec, Reply) {
        let locked = matches!(rec.kind, Kind::Claimed | Kind::Dispatched);
        let unseen = Command {
            revision: rec.revision(),
            ..command
        };
        match (self, command.verb) {
            (Self::NoStep, verb) => {
                let steps = [
                    Verb::EnterClaimed,
                    Verb::EnterDispatched,
                    Verb::Release,
                    Verb::Abandon,
                ];
                let step = u8::from(steps.contains(&verb));
                let (next, reply) = rules(rec, Command { step, ..command });
                (Rec { step: 0, ..next }, reply)
            }
            (Self::ExtendCarriesPhase, Verb::Extend | Verb::ExtendDispatched) => {
                let (mut next, reply) = rules(rec, command);
                if locked && reply == Reply::Done {
                    next.kind = match command.verb {
                        Verb::Extend => Kind::Claimed,
                        _ => Kind::Dispatched,
                    };
                }
                (next, reply)
            }
            (Self::TakeOverDispatched, Verb::TakeOver) if locked && !rec.live => rules(
                Rec {
                    kind: Kind::Claimed,
                    ..rec
                },
                command,
            ),
            (Self::ExtendKeepsRevision, Verb::Extend | Verb::ExtendDispatched) => {
                let (mut next, reply) = rules(rec, command);
                if locked && reply == Reply::Done {
                    next.rev = rec.rev;
                }
                (next, reply)
            }
            (Self::NeverWatched, Verb::TakeOverWatched) => rules(
                rec,
                Command {
                    verb: Verb::TakeOver,
                    ..command
                },
            ),
            (Self::NeverTakenOver, Verb::TakeOver | Verb::TakeOverWatched)
                if rec.kind == Kind::Claimed =>
            {
                (rec, Reply::Is(rec))
            }
            (Self::TakeOverUnseen, Verb::TakeOver | Verb::TakeOverWatched) => rules(rec, unseen),
            (Self::ResolveUnseen, Verb::ResolveNotApplied | Verb::ResolveApplied) => {
                rules(rec, unseen)
            }
            (Self::ResolveKeepsLease, Verb::ResolveApplied) => {
                let (mut next, reply) = rules(rec, command);
                if next.kind == Kind::Resolved {
                    next.lease = rec.lease;
                }
                (next, reply)
            }
            (Self::Deletion, _) => match rules(rec, command) {
                (
                    Rec {
                        kind: Kind::Released,
                        ..
                    },
                    reply,
                ) => (Rec::ABSENT, reply),
                kept => kept,
            },
            (Self::ReleaseLeavesAbsent, Verb::Release) if rec == Rec::ABSENT => (rec, Reply::Done),
            (Self::AcquireReleased, Verb::Acquire) if rec.kind == Kind::Released => {
                let (next, reply) = rules(Rec::ABSENT, command);
                (
                    Rec {
                        rev: rec.rev + 1,
                        ..next
                    },
                    reply,
                )
            }
            _ => rules(rec, command),
        }
    }
}
