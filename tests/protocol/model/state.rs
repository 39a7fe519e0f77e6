//! A state of the model's world: the parts that distinguish two states.

use super::command::{Command, Lease, Revision};
use super::holder::{Holder, Policy};
use super::store::Rec;

pub const HOLDERS: usize = 3;
pub const DELAYED: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    pub rec: Rec,
    pub holders: [Holder; HOLDERS],
    /// Sorted, free slots first.
    pub delayed: [Command; DELAYED],
    /// The lease whose request was executed.
    pub executed: Option<Lease>,
    pub second_call: bool,
    pub two_answers: bool,
    pub taken_alive: bool,
    pub resolutions: u8,
}

impl State {
    pub fn with(&self, number: usize, holder: Holder) -> Self {
        let mut next = *self;
        next.holders[number] = holder;
        next
    }

    pub fn execute(&mut self, lease: Lease, policy: Policy) {
        match self.executed {
            None => self.executed = Some(lease),
            Some(first) => self.second_call = first != lease || policy == Policy::Hold,
        }
    }

    /// A lease is extended: a holder that watches it must not treat it as expired.
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
