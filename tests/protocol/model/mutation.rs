//! The rules with one of them omitted: the search must detect each omission. A mutation
//! rewrites the input and the output of the crate's `apply`.

use super::command::{Command, Verb};
use super::store::{Kind, Rec, Reply};

/// An omitted rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Commands carry no step number: the last to arrive counts.
    NoStep,
    /// `extend` writes the phase that its sender was in.
    ExtendCarriesPhase,
    /// An expired `Dispatched` is taken over like an expired `Claimed`.
    TakeOverDispatched,
    /// A take-over compares the state, not the revision that was seen.
    TakeOverUnseen,
    /// An extension does not raise the revision.
    ExtendKeepsRevision,
    /// Only the store's clock counts, never a holder's clock.
    NeverWatched,
    /// An expired `Claimed` is never taken over.
    NeverTakenOver,
    /// A resolution compares the state, not the revision that was seen.
    ResolveUnseen,
    /// An applied resolution is written under the lost holder's lease.
    ResolveKeepsLease,
    /// A released key is deleted and leaves no `Released` record.
    Deletion,
    /// A release of an absent record writes none.
    ReleaseLeavesAbsent,
    /// A `Released` record is acquired directly in `Dispatched`.
    AcquireReleased,
    /// The holder's fault: it writes `Claimed` for the wait after an attempt with an
    /// unknown outcome.
    ClaimedUnknown,
}

impl Mutation {
    /// Applies a command by the rules without this rule.
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
                other => other,
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
