//! A state of the model's world: what it takes to tell two of them apart.

use super::command::{Command, Lease, Revision};
use super::holder::{Holder, Policy};
use super::store::Rec;

pub const HOLDERS: usize = 3;
pub const DELAYED: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    pub rec: Rec,
    pub holders: [Holder; HOLDERS],
    /// Sorted, free places first.
    pub delayed: [Command; DELAYED],
    /// Whose request was executed, by its lease.
    pub executed: Option<Lease>,
    pub second_call: bool,
    pub two_answers: bool,
    pub taken_alive: bool,
    pub resolutions: u8,
}

impl State {
    pub fn with(&self, who: usize, holder: Holder) -> Self {
        let mut next = *self;
        next.holders[who] = holder;
        next
    }

    pub fn execute(&mut self, lease: Lease, policy: Policy) {
        match self.executed {
            None => self.executed = Some(lease),
            Some(first) => self.second_call = first != lease || policy == Policy::Hold,
        }
    }

    /// A lease begins anew: who watches it may no longer think that it has lapsed.
    pub fn renew(&mut self, lease: Lease) {
        for holder in &mut self.holders {
            holder.renewed |= holder.revision != Revision::NONE && holder.revision.lease == lease;
        }
    }

    pub fn renumber(&mut self) {
        const NOW: u8 = 2;
        let now = self.rec.revision();
        let revisions = self.holders.iter_mut().map(|holder| &mut holder.revision);
        for revision in
            revisions.chain(self.delayed.iter_mut().map(|command| &mut command.revision))
        {
            let current = now.rev > 0 && *revision == now;
            *revision = if current {
                Revision { rev: NOW, ..now }
            } else {
                Revision::NONE
            };
        }
        for holder in &mut self.holders {
            holder.renewed &= holder.revision != Revision::NONE;
        }
        if now.rev > 0 {
            self.rec.rev = NOW;
        }
        self.delayed.sort_unstable();
    }
}
