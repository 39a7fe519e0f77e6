//! A fixed number of permits, given in turn to the actions that wait, so that a slow action
//! does not block others. No foreign code runs under its lock. It keeps nothing of an action
//! without permits and waiters.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::request::ActionId;

/// Permits by action: waiting actions get one permit each in turn, and within an action the
/// first waiter is served first.
#[derive(Debug)]
pub(crate) struct Permits {
    /// How many permits one action may have.
    per_action: usize,
    table: Mutex<Table>,
}

/// While a permit is free, only actions at their limit have waiters.
#[derive(Debug, Default)]
struct Table {
    free: usize,
    held: usize,
    /// Numbers waiters and turns in their order.
    last: u64,
    actions: HashMap<ActionId, Share>,
    /// The actions that wait and are below their limit, by their turn.
    round: BTreeMap<u64, ActionId>,
}

/// The permits and the waiters of one action.
#[derive(Debug, Default)]
struct Share {
    held: usize,
    waiters: BTreeMap<u64, oneshot::Sender<Permit>>,
    /// Its place in the round.
    turn: Option<u64>,
}

/// One permit; free again when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    action: ActionId,
}

impl Permits {
    pub(crate) fn new(permits: usize, per_action: usize) -> Arc<Self> {
        let free = permits;
        Arc::new(Self {
            per_action,
            table: Mutex::new(Table {
                free,
                ..Table::default()
            }),
        })
    }

    /// How many permits are in use.
    pub(crate) fn in_use(&self) -> usize {
        self.lock().held
    }

    /// A permit, if this action gets one without a wait. It overtakes no waiter.
    pub(crate) fn try_acquire(self: &Arc<Self>, action: &ActionId) -> Option<Permit> {
        let taken = self.lock().take(action, self.per_action);
        taken.then(|| self.permit(action))
    }

    /// Waits for a permit, until it is the turn of the action and of the caller.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the queue; its permit goes to the next waiter.
    pub(crate) async fn acquire(self: &Arc<Self>, action: &ActionId) -> Permit {
        let mut waiter = {
            let mut table = self.lock();
            if table.take(action, self.per_action) {
                drop(table);
                return self.permit(action);
            }
            let (sender, granted) = oneshot::channel();
            let number = table.number();
            let share = table.actions.entry(action.clone()).or_default();
            share.waiters.insert(number, sender);
            table.line_up(action, self.per_action);
            PermitWaiter {
                permits: self,
                action,
                number,
                granted,
            }
        };
        let granted = (&mut waiter.granted).await;
        granted.expect("a waiter stays in the table until it is served or leaves")
    }

    fn give_back(self: &Arc<Self>, action: &ActionId) {
        let next = {
            let mut table = self.lock();
            table.free += 1;
            table.held -= 1;
            if let Some(share) = table.actions.get_mut(action) {
                share.held -= 1;
            }
            table.line_up(action, self.per_action);
            table.next(self.per_action)
        };
        // A waiter is woken without the lock. A waiter that has left drops the permit, which
        // then comes back here.
        if let Some((waiter, action)) = next {
            drop(waiter.send(self.permit(&action)));
        }
    }

    fn permit(self: &Arc<Self>, action: &ActionId) -> Permit {
        Permit {
            permits: self.clone(),
            action: action.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code under the lock can panic with a half-made change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Takes a free permit for an action that is below its limit.
    fn take(&mut self, action: &ActionId, per_action: usize) -> bool {
        if self.free == 0 {
            return false;
        }
        match self.actions.get_mut(action) {
            Some(share) if share.held >= per_action => return false,
            Some(share) => share.held += 1,
            None => {
                let share = Share {
                    held: 1,
                    ..Share::default()
                };
                self.actions.insert(action.clone(), share);
            }
        }
        self.free -= 1;
        self.held += 1;
        true
    }

    /// Takes a free permit for the waiter whose turn it is.
    fn next(&mut self, per_action: usize) -> Option<(oneshot::Sender<Permit>, ActionId)> {
        let (_, action) = self.round.pop_first()?;
        let share = self.actions.get_mut(&action)?;
        share.turn = None;
        let (_, waiter) = share.waiters.pop_first()?;
        share.held += 1;
        self.free -= 1;
        self.held += 1;
        self.line_up(&action, per_action);
        Some((waiter, action))
    }

    /// Puts an action at the end of the round, takes it out, or removes it, by its permits and
    /// waiters.
    fn line_up(&mut self, action: &ActionId, per_action: usize) {
        let end = self.number();
        let Some(share) = self.actions.get_mut(action) else {
            return;
        };
        let waits = !share.waiters.is_empty() && share.held < per_action;
        match share.turn {
            None if waits => {
                share.turn = Some(end);
                self.round.insert(end, action.clone());
            }
            Some(turn) if !waits => {
                share.turn = None;
                self.round.remove(&turn);
            }
            _ => {}
        }
        if share.held == 0 && share.waiters.is_empty() {
            self.actions.remove(action);
        }
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.give_back(&self.action);
    }
}

/// A waiter in an action's queue. If its permit is in the channel when it is dropped, the
/// permit goes back from there.
struct PermitWaiter<'a> {
    permits: &'a Arc<Permits>,
    action: &'a ActionId,
    number: u64,
    granted: oneshot::Receiver<Permit>,
}

impl Drop for PermitWaiter<'_> {
    fn drop(&mut self) {
        let left = {
            let mut table = self.permits.lock();
            let share = table.actions.get_mut(self.action);
            let left = share.and_then(|share| share.waiters.remove(&self.number));
            table.line_up(self.action, self.permits.per_action);
            left
        };
        // Dropped without the lock: it owns the waiter's waker.
        drop(left);
    }
}

#[cfg(test)]
mod tests;
