//! The commands of the model: a sender, a lease and an event.

use std::fmt;

/// A lease by its number: the leases of holder 0 first, then those of holder 1, ….
pub type Lease = u8;

/// The lease of the next caller, once all holders are at rest.
pub const NEWCOMER: Lease = 7;

/// The lease of an operator's last resolution; earlier resolutions have lower numbers.
pub const OPERATOR: Lease = 6;

/// A revision of the record that a holder saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision {
    pub rev: u8,
    pub lease: Lease,
}

impl Revision {
    pub const NONE: Self = Self { rev: 0, lease: 0 };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// No command: a free slot among the delayed commands.
    None,
    Acquire,
    TakeOver,
    /// By a holder that saw the revision for a whole lease by its own clock.
    TakeOverWatched,
    Extend,
    ExtendDispatched,
    EnterClaimed,
    EnterDispatched,
    Complete,
    Release,
    Abandon,
    ResolveNotApplied,
    ResolveApplied,
}

/// An [`Event`](genesys_once::record::Event) with its variable parts; a part that its verb
/// does not use is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Command {
    pub verb: Verb,
    pub lease: Lease,
    pub step: u8,
    pub revision: Revision,
}

impl Command {
    pub const NONE: Self = Self {
        verb: Verb::None,
        lease: 0,
        step: 0,
        revision: Revision::NONE,
    };
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            lease,
            step,
            revision,
        } = self;
        match verb {
            Verb::None => write!(f, "-"),
            Verb::Acquire | Verb::Extend => write!(f, "{verb:?} of lease {lease}"),
            Verb::TakeOver | Verb::TakeOverWatched => {
                write!(f, "{verb:?} by lease {lease} of rev {}", revision.rev)
            }
            Verb::ResolveNotApplied | Verb::ResolveApplied => {
                write!(
                    f,
                    "{verb:?} of lease {}, rev {}",
                    revision.lease, revision.rev
                )
            }
            _ => write!(f, "{verb:?} of lease {lease}, step {step}"),
        }
    }
}
