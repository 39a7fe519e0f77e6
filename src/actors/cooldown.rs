//! The cooldowns after a 429, each followed by a slow start with one call first. A 429 of the
//! platform delays all executions, a relayed 429 those of one action. Waiting for a cooldown
//! does not count as an attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::request::ActionId;

mod gate;

pub(crate) use self::gate::Rank;
use self::gate::{CooldownGate, QueuePlace};

/// How many actions may have a cooldown at a time without a waiter. One more drops the
/// cooldown that ends first, so that action gets one more 429. A cooldown with a waiter stays,
/// so that its wait counts; the number of executions is bounded.
const MAX_ACTIONS: usize = 1_000;

/// The cooldowns of one upstream.
#[derive(Debug)]
pub(crate) struct Cooldowns {
    /// A slow start that is wider than this is over.
    permits: usize,
    gates: Mutex<Gates>,
}

/// The scope of a gate: one action, or all executions.
type CooldownScope<'a> = Option<&'a ActionId>;

#[derive(Debug, Default)]
struct Gates {
    /// Numbers cooldowns and turns.
    last: u64,
    platform: Option<CooldownGate>,
    actions: HashMap<ActionId, CooldownGate>,
}

/// The permission to send: one turn of each slow start in progress, usually of none. A drop
/// gives the turns back.
#[derive(Debug)]
#[must_use]
pub(crate) struct CooldownPass {
    turns: Vec<SlowStartTurn>,
}

/// A turn of a slow start.
#[derive(Debug)]
struct SlowStartTurn {
    cooldowns: Arc<Cooldowns>,
    action: Option<ActionId>,
    number: u64,
    round: u64,
}

impl Cooldowns {
    /// No cooldown, for an engine with this many permits.
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            permits,
            gates: Mutex::default(),
        })
    }

    /// Begins a cooldown of all executions, or of one action. A longer cooldown stays.
    pub(crate) fn close(self: &Arc<Self>, scope: CooldownScope<'_>, wait: Duration) {
        let now = Instant::now();
        let grows = {
            let mut gates = self.lock();
            let round = gates.number();
            let grows = gates.gate(scope, now).close(now + wait, round);
            gates.drop_one(scope);
            grows
        };
        if let Some(waiters) = grows {
            waiters.notify_waiters();
        }
    }

    /// Ends all cooldowns. Their slow starts follow.
    pub(crate) fn end(&self) {
        let now = Instant::now();
        let ended: Vec<_> = self.lock().all().map(|gate| gate.end(now)).collect();
        for waiters in ended {
            waiters.notify_waiters();
        }
    }

    /// What is left of the cooldown of all executions.
    pub(crate) fn left(&self) -> Duration {
        let until = self.lock().platform.as_ref().map(CooldownGate::until);
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// What is left of the cooldowns of this action.
    pub(crate) fn left_for(&self, action: &ActionId) -> Duration {
        let until = self.lock().actions.get(action).map(CooldownGate::until);
        let own = until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        });
        own.max(self.left())
    }

    /// A pass, if no wait is needed. It overtakes no waiter.
    pub(crate) fn try_pass(self: &Arc<Self>, action: &ActionId) -> Option<CooldownPass> {
        let mut turns = Vec::new();
        // The usual case takes one lock only.
        if self.lock().is_open(action) {
            return Some(CooldownPass { turns });
        }
        for scope in [Some(action), None] {
            let taken = self.change(scope, |gate, number, now| {
                (gate.try_take(number, now), number, gate.round())
            });
            match taken {
                Some((true, number, round)) => turns.push(self.turn(scope, number, round)),
                Some((false, ..)) => return None,
                None => {}
            }
        }
        Some(CooldownPass { turns })
    }

    /// Waits for a pass. Returns how much of the wait was cooldown. The error is what is left of
    /// a cooldown that exceeds `budget`.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the queue; its turn goes to the next waiter.
    pub(crate) async fn pass(
        self: &Arc<Self>,
        action: &ActionId,
        rank: Rank,
        budget: Duration,
    ) -> (Duration, Result<CooldownPass, Duration>) {
        let mut cooled = Duration::ZERO;
        loop {
            let mut turns = Vec::new();
            // The action's own gate first: during that wait it takes no turn from all others.
            for scope in [Some(action), None] {
                match self.turn_of(scope, rank, budget, &mut cooled).await {
                    Ok(turn) => turns.extend(turn),
                    Err(left) => return (cooled, Err(left)),
                }
            }
            let pass = CooldownPass { turns };
            // The first gate might have closed while the second was waited for.
            if self.accepts(&pass, action) {
                return (cooled, Ok(pass));
            }
        }
    }

    /// Whether no cooldown has begun since this pass was given out.
    pub(crate) fn accepts(&self, pass: &CooldownPass, action: &ActionId) -> bool {
        let mut gates = self.lock();
        [Some(action), None].into_iter().all(|scope| {
            let round = gates.get_mut(scope).map(|gate| gate.round());
            let mut turns = pass.turns.iter();
            round.is_none_or(|round| {
                turns.any(|turn| turn.round == round && turn.action.as_ref() == scope)
            })
        })
    }

    /// A turn of one gate; none where there is no gate.
    async fn turn_of(
        self: &Arc<Self>,
        scope: CooldownScope<'_>,
        rank: Rank,
        budget: Duration,
        cooled: &mut Duration,
    ) -> Result<Option<SlowStartTurn>, Duration> {
        let mut waiting: Option<QueuedWaiter<'_>> = None;
        loop {
            let look = self.change(scope, |gate, number, now| {
                let left = gate.until().saturating_duration_since(now);
                let too_long = *cooled + left > budget;
                if waiting.is_none() && !too_long {
                    let (sender, granted) = oneshot::channel();
                    let place = (rank, number);
                    gate.enter(place, sender);
                    waiting = Some(QueuedWaiter {
                        cooldowns: self,
                        scope,
                        place,
                        granted,
                    });
                }
                if too_long {
                    Err(left)
                } else {
                    Ok((now, gate.until(), gate.next(now), gate.changed()))
                }
            });
            // A gate that was removed lets its waiters pass.
            let Some(look) = look else {
                return Ok(None);
            };
            let (now, until, next, changed) = look?;
            let waiting = waiting.as_mut().expect("it has entered the queue just now");
            let turn = tokio::select! {
                biased;
                turn = &mut waiting.granted => Some(turn.ok()),
                () = changed => None,
                () = sleep_until(next) => None,
            };
            *cooled += Instant::now().min(until).saturating_duration_since(now);
            if let Some(turn) = turn {
                return Ok(turn);
            }
        }
    }

    /// Changes a gate, if there is one, and wakes the waiters whose turn has come. `change`
    /// gets a unique number and the time.
    fn change<R>(
        self: &Arc<Self>,
        scope: CooldownScope<'_>,
        change: impl FnOnce(&mut CooldownGate, u64, Instant) -> R,
    ) -> Option<R> {
        let now = Instant::now();
        let (result, round, granted, over) = {
            let mut gates = self.lock();
            let number = gates.number();
            let gate = gates.get_mut(scope)?;
            let result = change(gate, number, now);
            let (round, granted) = (gate.round(), gate.advance(now));
            let over = gate.is_over(self.permits);
            let over = if over { gates.remove(scope) } else { None };
            (result, round, granted, over)
        };
        self.grant(scope, round, granted);
        let waiters = over.into_iter().flat_map(CooldownGate::into_waiters);
        self.grant(scope, round, waiters);
        Some(result)
    }

    /// Called without the lock: the turn of a waiter that has left comes back here.
    fn grant(
        self: &Arc<Self>,
        scope: CooldownScope<'_>,
        round: u64,
        granted: impl IntoIterator<Item = (u64, oneshot::Sender<SlowStartTurn>)>,
    ) {
        for (number, waiter) in granted {
            drop(waiter.send(self.turn(scope, number, round)));
        }
    }

    fn turn(self: &Arc<Self>, scope: CooldownScope<'_>, number: u64, round: u64) -> SlowStartTurn {
        SlowStartTurn {
            cooldowns: self.clone(),
            action: scope.cloned(),
            number,
            round,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gates> {
        // No code under the lock can panic with a half-made change.
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gates {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn is_open(&self, action: &ActionId) -> bool {
        self.platform.is_none() && !self.actions.contains_key(action)
    }

    fn get_mut(&mut self, scope: CooldownScope<'_>) -> Option<&mut CooldownGate> {
        match scope {
            None => self.platform.as_mut(),
            Some(action) => self.actions.get_mut(action),
        }
    }

    /// The gate of a scope, created if there is none.
    fn gate(&mut self, scope: CooldownScope<'_>, now: Instant) -> &mut CooldownGate {
        let Some(action) = scope else {
            return self.platform.get_or_insert_with(|| CooldownGate::new(now));
        };
        if self.actions.len() >= MAX_ACTIONS && !self.actions.contains_key(action) {
            self.actions.retain(|_, gate| !gate.is_idle(now));
        }
        let gate = self.actions.entry(action.clone());
        gate.or_insert_with(|| CooldownGate::new(now))
    }

    /// If there are too many gates, drops the one that opens first and has no waiter. The gate
    /// that has just closed stays, since an execution is about to wait at it.
    fn drop_one(&mut self, closed: CooldownScope<'_>) {
        if self.actions.len() <= MAX_ACTIONS {
            return;
        }
        let unused = self.actions.iter();
        let unused = unused.filter(|(action, gate)| !gate.has_waiters() && Some(*action) != closed);
        let first = unused.min_by_key(|(action, gate)| (gate.until(), *action));
        if let Some(first) = first.map(|(action, _)| action.clone()) {
            self.actions.remove(&first);
        }
    }

    fn remove(&mut self, scope: CooldownScope<'_>) -> Option<CooldownGate> {
        match scope {
            None => self.platform.take(),
            Some(action) => self.actions.remove(action),
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut CooldownGate> {
        self.platform.iter_mut().chain(self.actions.values_mut())
    }
}

impl CooldownPass {
    /// The call leaves now.
    pub(crate) fn sent(&self) {
        for turn in &self.turns {
            turn.change(|gate, now| gate.sent(turn.number, turn.round, now));
        }
    }

    /// The platform accepted the call: more calls may follow.
    pub(crate) fn succeeded(self) {
        for turn in &self.turns {
            turn.change(|gate, _| gate.put_back(turn.number, true));
        }
    }
}

impl SlowStartTurn {
    fn change(&self, change: impl FnOnce(&mut CooldownGate, Instant)) {
        let scope = self.action.as_ref();
        self.cooldowns
            .change(scope, |gate, _, now| change(gate, now));
    }
}

impl Drop for SlowStartTurn {
    fn drop(&mut self) {
        self.change(|gate, _| gate.put_back(self.number, false));
    }
}

/// A waiter in the queue of a gate. If its turn is in the channel when it is dropped, the turn
/// goes back from there.
struct QueuedWaiter<'a> {
    cooldowns: &'a Arc<Cooldowns>,
    scope: CooldownScope<'a>,
    place: QueuePlace,
    granted: oneshot::Receiver<SlowStartTurn>,
}

impl Drop for QueuedWaiter<'_> {
    fn drop(&mut self) {
        let left = self
            .cooldowns
            .change(self.scope, |gate, _, _| gate.leave(self.place));
        // Dropped without the lock: it owns the waiter's waker.
        drop(left);
    }
}

#[cfg(test)]
mod tests;
