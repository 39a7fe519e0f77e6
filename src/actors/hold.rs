//! What a 429 holds back: every execution after the platform's own, those of one
//! action after a relayed one. A cooldown, then a slow start with one call first.
//! Waiting here costs no attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::request::ActionId;

mod gate;

pub(crate) use self::gate::Rank;
use self::gate::{Gate, Place};

/// How many actions are held back at a time while nobody waits for them. Beyond it the
/// cooldown that ends first is dropped: that action is refused once more. One that an
/// execution waits for stays, so that its wait counts; executions are bounded.
const MAX_ACTIONS: usize = 1_000;

/// The cooldowns of one upstream.
#[derive(Debug)]
pub(crate) struct Hold {
    /// A slow start that is wider holds nothing back.
    permits: usize,
    gates: Mutex<Gates>,
}

/// Whose gate: that of one action, or of all executions.
type Whose<'a> = Option<&'a ActionId>;

#[derive(Debug, Default)]
struct Gates {
    /// Numbers cooldowns and turns.
    last: u64,
    everybody: Option<Gate>,
    actions: HashMap<ActionId, Gate>,
}

/// The leave to send: a turn of each slow start that there is, mostly of none. Turns
/// go back when it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct HoldPass {
    turns: Vec<Turn>,
}

/// A turn of a slow start.
#[derive(Debug)]
struct Turn {
    hold: Arc<Hold>,
    action: Option<ActionId>,
    number: u64,
    round: u64,
}

impl Hold {
    /// No cooldown yet, for an engine with so many permits.
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            permits,
            gates: Mutex::default(),
        })
    }

    /// Begins a cooldown of all executions, or of one action's; a longer one stays.
    pub(crate) fn close(self: &Arc<Self>, whose: Whose<'_>, wait: Duration) {
        let now = Instant::now();
        let grows = {
            let mut gates = self.lock();
            let round = gates.number();
            let grows = gates.gate(whose, now).close(now + wait, round);
            gates.drop_one(whose);
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
        let until = self.lock().everybody.as_ref().map(Gate::until);
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// How long this action is held back from now.
    pub(crate) fn left_for(&self, action: &ActionId) -> Duration {
        let until = self.lock().actions.get(action).map(Gate::until);
        let own = until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        });
        own.max(self.left())
    }

    /// A pass, where it can be had without waiting. Overtakes no waiter.
    pub(crate) fn try_pass(self: &Arc<Self>, action: &ActionId) -> Option<HoldPass> {
        let mut turns = Vec::new();
        // What nearly always holds costs one look.
        if self.lock().is_open(action) {
            return Some(HoldPass { turns });
        }
        for whose in [Some(action), None] {
            let taken = self.change(whose, |gate, number, now| {
                (gate.try_take(number, now), number, gate.round())
            });
            match taken {
                Some((true, number, round)) => turns.push(self.turn(whose, number, round)),
                Some((false, ..)) => return None,
                None => {}
            }
        }
        Some(HoldPass { turns })
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
    ) -> (Duration, Result<HoldPass, Duration>) {
        let mut cooled = Duration::ZERO;
        loop {
            let mut turns = Vec::new();
            // The action's own gate first: that wait takes no turn of all executions.
            for whose in [Some(action), None] {
                match self.turn_of(whose, rank, budget, &mut cooled).await {
                    Ok(turn) => turns.extend(turn),
                    Err(left) => return (cooled, Err(left)),
                }
            }
            let pass = HoldPass { turns };
            // The first gate may have closed while the second was waited for.
            if self.accepts(&pass, action) {
                return (cooled, Ok(pass));
            }
        }
    }

    /// Whether nothing was held back since this pass was given out.
    pub(crate) fn accepts(&self, pass: &HoldPass, action: &ActionId) -> bool {
        let mut gates = self.lock();
        [Some(action), None].into_iter().all(|whose| {
            let round = gates.get_mut(whose).map(|gate| gate.round());
            let mut turns = pass.turns.iter();
            round.is_none_or(|round| {
                turns.any(|turn| turn.round == round && turn.action.as_ref() == whose)
            })
        })
    }

    /// A turn of one gate; none where there is no gate.
    async fn turn_of(
        self: &Arc<Self>,
        whose: Whose<'_>,
        rank: Rank,
        budget: Duration,
        cooled: &mut Duration,
    ) -> Result<Option<Turn>, Duration> {
        let mut waiting: Option<Waiting<'_>> = None;
        loop {
            let look = self.change(whose, |gate, number, now| {
                let left = gate.until().saturating_duration_since(now);
                let too_long = *cooled + left > budget;
                if waiting.is_none() && !too_long {
                    let (sender, granted) = oneshot::channel();
                    let place = (rank, number);
                    gate.enter(place, sender);
                    waiting = Some(Waiting {
                        hold: self,
                        whose,
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
        whose: Whose<'_>,
        change: impl FnOnce(&mut Gate, u64, Instant) -> R,
    ) -> Option<R> {
        let now = Instant::now();
        let (result, round, granted, over) = {
            let mut gates = self.lock();
            let number = gates.number();
            let gate = gates.get_mut(whose)?;
            let result = change(gate, number, now);
            let (round, granted) = (gate.round(), gate.advance(now));
            let over = gate.is_over(self.permits);
            let over = if over { gates.remove(whose) } else { None };
            (result, round, granted, over)
        };
        self.grant(whose, round, granted);
        let waiters = over.into_iter().flat_map(Gate::into_waiters);
        self.grant(whose, round, waiters);
        Some(result)
    }

    /// The lock is free here: the turn of a waiter that has left comes back.
    fn grant(
        self: &Arc<Self>,
        whose: Whose<'_>,
        round: u64,
        granted: impl IntoIterator<Item = (u64, oneshot::Sender<Turn>)>,
    ) {
        for (number, waiter) in granted {
            drop(waiter.send(self.turn(whose, number, round)));
        }
    }

    fn turn(self: &Arc<Self>, whose: Whose<'_>, number: u64, round: u64) -> Turn {
        Turn {
            hold: self.clone(),
            action: whose.cloned(),
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
        self.everybody.is_none() && !self.actions.contains_key(action)
    }

    fn get_mut(&mut self, whose: Whose<'_>) -> Option<&mut Gate> {
        match whose {
            None => self.everybody.as_mut(),
            Some(action) => self.actions.get_mut(action),
        }
    }

    /// The gate, made where there is none.
    fn gate(&mut self, whose: Whose<'_>, now: Instant) -> &mut Gate {
        let Some(action) = whose else {
            return self.everybody.get_or_insert_with(|| Gate::new(now));
        };
        if self.actions.len() >= MAX_ACTIONS && !self.actions.contains_key(action) {
            self.actions.retain(|_, gate| !gate.is_idle(now));
        }
        let gate = self.actions.entry(action.clone());
        gate.or_insert_with(|| Gate::new(now))
    }

    /// Drops the gate that opens first of those at which nobody waits, where there are
    /// too many. The one that has just closed is about to be waited at.
    fn drop_one(&mut self, closed: Whose<'_>) {
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

    fn remove(&mut self, whose: Whose<'_>) -> Option<Gate> {
        match whose {
            None => self.everybody.take(),
            Some(action) => self.actions.remove(action),
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Gate> {
        self.everybody.iter_mut().chain(self.actions.values_mut())
    }
}

impl HoldPass {
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

impl Turn {
    fn change(&self, change: impl FnOnce(&mut Gate, Instant)) {
        let whose = self.action.as_ref();
        self.hold.change(whose, |gate, _, now| change(gate, now));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.change(|gate, _| gate.put_back(self.number, false));
    }
}

/// A place in the queue of a gate. Its turn may be in the channel already when it is
/// dropped, and goes back from there.
struct Waiting<'a> {
    hold: &'a Arc<Hold>,
    whose: Whose<'a>,
    place: Place,
    granted: oneshot::Receiver<Turn>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let left = self
            .hold
            .change(self.whose, |gate, _, _| gate.leave(self.place));
        // Outside of the lock: it holds the waiter's waker.
        drop(left);
    }
}

#[cfg(test)]
mod tests;
