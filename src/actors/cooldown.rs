//! What a 429 holds back: every execution after the platform's own, those of one
//! action after a relayed one. A cooldown, then a slow start with one call first.
//! QueuedWaiter here costs no attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::request::ActionId;

mod gate;

pub(crate) use self::gate::Rank;
use self::gate::{CooldownGate, QueuePlace};

/// How many actions are held back at a time while nobody waits for them. Beyond it the
/// cooldown that ends first is dropped: that action is refused once more. One that an
/// execution waits for stays, so that its wait counts; executions are bounded.
const MAX_ACTIONS: usize = 1_000;

/// The cooldowns of one upstream.
#[derive(Debug)]
pub(crate) struct Cooldowns {
    /// A slow start that is wider holds nothing back.
    permits: usize,
    gates: Mutex<Gates>,
}

/// CooldownScope gate: that of one action, or of all executions.
type CooldownScope<'a> = Option<&'a ActionId>;

#[derive(Debug, Default)]
struct Gates {
    /// Numbers cooldowns and turns.
    last: u64,
    platform: Option<CooldownGate>,
    actions: HashMap<ActionId, CooldownGate>,
}

/// The leave to send: a turn of each slow start that there is, mostly of none. Turns
/// go back when it is dropped.
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
    /// No cooldown yet, for an engine with so many permits.
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            permits,
            gates: Mutex::default(),
        })
    }

    /// Begins a cooldown of all executions, or of one action's; a longer one stays.
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

    /// Ends all cooldowns; their slow starts follow.
    pub(crate) fn end(&self) {
        let now = Instant::now();
        let ended: Vec<_> = self.lock().all().map(|gate| gate.end(now)).collect();
        for waiters in ended {
            waiters.notify_waiters();
        }
    }

    /// How long every execution is held back from now.
    pub(crate) fn left(&self) -> Duration {
        let until = self.lock().platform.as_ref().map(CooldownGate::until);
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// How long this action is held back from now.
    pub(crate) fn left_for(&self, action: &ActionId) -> Duration {
        let until = self.lock().actions.get(action).map(CooldownGate::until);
        let own = until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        });
        own.max(self.left())
    }

    /// A pass, where it can be had without waiting. Overtakes no waiter.
    pub(crate) fn try_pass(self: &Arc<Self>, action: &ActionId) -> Option<CooldownPass> {
        let mut turns = Vec::new();
        // What nearly always holds costs one look.
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

    /// A pass, when cooldown and slow start allow it, and how much of the wait was
    /// cooldown. The error is what is left of a cooldown that exceeds `budget`.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves its place; a turn on its way goes to the next waiter.
    pub(crate) async fn pass(
        self: &Arc<Self>,
        action: &ActionId,
        rank: Rank,
        budget: Duration,
    ) -> (Duration, Result<CooldownPass, Duration>) {
        let mut cooled = Duration::ZERO;
        loop {
            let mut turns = Vec::new();
            // The action's own gate first: that wait takes no turn of all executions.
            for scope in [Some(action), None] {
                match self.turn_of(scope, rank, budget, &mut cooled).await {
                    Ok(turn) => turns.extend(turn),
                    Err(left) => return (cooled, Err(left)),
                }
            }
            let pass = CooldownPass { turns };
            // The first gate may have closed while the second was waited for.
            if self.accepts(&pass, action) {
                return (cooled, Ok(pass));
            }
        }
    }

    /// Whether nothing was held back since this pass was given out.
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
            // A gate that is gone lets its waiters pass.
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

    /// Changes a gate, where there is one, and wakes the waiters whose turn has come.
    /// `change` gets a number that nothing else has, and the time.
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

    /// The lock is free here: the turn of a waiter that has left comes back.
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
        // No critical section can leave a gate half changed.
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

    /// The gate, made where there is none.
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

    /// Drops the gate that opens first of those at which nobody waits, where there are
    /// too many. The one that has just closed is about to be waited at.
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

    /// The platform took the call: more may follow.
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

/// A place in the queue of a gate. Its turn may be in the channel already when it is
/// dropped, and goes back from there.
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
        // Outside of the lock: it holds the waiter's waker.
        drop(left);
    }
}

#[cfg(test)]
mod tests;
