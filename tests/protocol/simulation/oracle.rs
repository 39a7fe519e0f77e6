//! What must never be seen from outside. Each rule names its invariant. The oracle judges the
//! engines only by calls, records and answers.

use std::time::Duration;

use genesys_once::record::{Answer, Event, Fingerprint, Phase, RecordName, RecordState};
use tokio::time::Instant;

use super::facts::{Clearing, Ended, Sent, Source};
use super::world::{World, ms};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// I1, I5: no second call while the first might have been executed.
    SecondCall,
    /// I1: a call leaves under a live lease of its own request, in `Dispatched`.
    LeaseAtSend,
    /// I6: an answer, a refusal or an error belongs to the caller's request.
    StrangersAnswer,
    /// I6: no two recorded answers of one record differ.
    TwoAnswers,
    /// A reply that says `recorded` is recorded.
    NotRecorded,
    /// I6: a mismatch is reported only if the record belongs to another request.
    FalseMismatch,
    /// A late joiner does not get an answer that is not final.
    LateJoiner,
    /// I2, I3: every caller is answered in time.
    Unanswered,
    /// After the platform's answer a caller waits for the store once.
    SlowAnswer,
    /// An error says what happened.
    WrongError,
    /// Contention, or a wait for another holder, is no outage.
    FalseOutage,
    /// A waiter for another process's lease waits until it expires.
    GivenUp,
    /// A lease is kept while its holder lives and the store answers.
    LeaseLost,
    /// A known outcome, or a proof, is recorded once the store is back.
    OutcomeLost,
    /// `NotApplied` waits until no attempt can be running.
    TooEarly,
    /// What was forgotten stays forgotten.
    Forgotten,
    /// A waiter for an outcome gets it, however short its time to live.
    ShortTtl,
    /// When all is quiet and healthy again, requests are answered.
    NotHealed,
    /// I9: nothing is left over.
    LeftOver,
    /// A fault of the simulation itself.
    Harness,
}

/// Rules that the engines do not keep yet.
pub const NOT_YET: &[Rule] = &[];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

/// The request of this record; a released record belongs to none.
pub fn fingerprint(state: &RecordState) -> Option<Fingerprint> {
    match state {
        RecordState::Released { .. } => None,
        state => Some(state.fingerprint()),
    }
}

impl World {
    pub fn longest_lease(&self) -> Duration {
        let leases = self
            .schedule
            .setup
            .engines
            .iter()
            .map(|engine| engine.lease);
        ms(leases.max().unwrap_or(0))
    }

    /// For how long after a loss a holder from before the loss may still act.
    fn loss_lag(&self) -> Duration {
        self.longest_lease() + Duration::from_secs(20)
    }

    /// Whether the store lost the record at a time that matters for what happened since
    /// `since`.
    pub fn lost_since(&self, name: &RecordName, since: Instant) -> bool {
        let lag = self.loss_lag();
        self.state()
            .cleared
            .iter()
            .any(|(lost, at, how)| lost == name && *how == Clearing::Loss && since <= *at + lag)
    }

    /// Whether another call may follow this call.
    fn is_cleared(&self, first: &Sent) -> bool {
        let now = Instant::now();
        if matches!(first.end, Some((_, Ended::Refused))) {
            return true;
        }
        if first.recorded_until.is_some_and(|until| until <= now) {
            return true;
        }
        let lag = self.loss_lag();
        self.state().cleared.iter().any(|(name, at, how)| {
            let lag = if *how == Clearing::Loss {
                lag
            } else {
                Duration::ZERO
            };
            *name == first.name && first.arrived <= *at + lag
        })
    }

    /// Judges a call that has arrived at the platform.
    pub fn judge_arrival(&self, sent: &Sent, slot: u8, variant: u8) {
        let now = Instant::now();
        let before: Vec<_> = self
            .state()
            .sent
            .iter()
            .enumerate()
            .filter(|(_, first)| first.name == sent.name)
            .map(|(id, first)| (id, first.clone()))
            .collect();
        let setup = &self.schedule.setup.engines[sent.engine];
        for (id, first) in before {
            let own =
                (first.engine, first.life, &first.lease) == (sent.engine, sent.life, &sent.lease);
            let by_choice = setup.retry_unknown && own && first.attempt < sent.attempt;
            if self.is_cleared(&first) {
                let waited = first.end.is_some_and(|(at, how)| {
                    how == Ended::Final
                        && self.waits_since(sent, at)
                        && self.saw_lease_of(sent, &first)
                });
                if waited && first.recorded_until.is_some() && !self.cleared_otherwise(&first) {
                    self.violated(Rule::ShortTtl, || {
                        format!("call {id} was waited for, its outcome expired, and another call was made")
                    });
                }
            } else if !by_choice {
                self.violated(Rule::SecondCall, || {
                    format!(
                        "after call {id} of engine {} ({:?}), engine {} calls again",
                        first.engine,
                        first.end.map(|e| e.1),
                        sent.engine
                    )
                });
            }
        }
        if self.lost_since(&sent.name, now) {
            return;
        }
        let expected = self.request(slot, variant).fingerprint("");
        let state = self.store.state(&sent.name);
        let right = matches!(&state, Some(RecordState::Locked { phase: Phase::Dispatched, lease_left, .. })
            if !lease_left.is_zero())
            && state.as_ref().and_then(fingerprint) == Some(expected);
        if !right {
            self.violated(Rule::LeaseAtSend, || {
                let state = format!("{state:?}");
                format!(
                    "a call leaves while the record is {}",
                    state.chars().take(60).collect::<String>()
                )
            });
        }
    }

    fn cleared_otherwise(&self, first: &Sent) -> bool {
        let lag = self.loss_lag();
        self.state()
            .cleared
            .iter()
            .any(|(name, at, _)| *name == first.name && first.arrived <= *at + lag)
    }

    /// Whether a caller of this engine made the same request before `at` and still waits.
    fn waits_since(&self, sent: &Sent, at: Instant) -> bool {
        self.state()
            .asked
            .iter()
            .any(|(engine, life, name, label, began, _)| {
                (*engine, *life) == (sent.engine, sent.life)
                    && *name == sent.name
                    && *label == sent.label
                    && *began < at
            })
    }

    /// Whether a flight of an engine saw the lease under which a call was made.
    fn saw_lease_of(&self, sent: &Sent, first: &Sent) -> bool {
        let Some(lease) = &first.lease else {
            return false;
        };
        let lease = (sent.engine, sent.life, first.name.clone(), lease.clone());
        self.state().seen.contains(&lease)
    }

    /// Judges a command that the store has applied.
    pub fn observe(
        &self,
        engine: usize,
        name: &RecordName,
        event: &Event,
        answer: &Answer,
        before: Option<&RecordState>,
        after: Option<&RecordState>,
    ) {
        let now = Instant::now();
        let mut state = self.state();
        let history = state.history.entry(name.clone()).or_default();
        let whose = after.and_then(fingerprint);
        if history.last().map(|(_, last)| *last) != Some(whose) {
            history.push((now, whose));
        }
        drop(state);
        let version = |state: Option<&RecordState>| state.map(RecordState::revision);
        let changed = version(before) != version(after);
        if let Some(RecordState::Cached { stored, left, .. }) = after
            && changed
        {
            if let Some((label, source)) = self.identify(&stored.outcome) {
                self.note(|| {
                    format!(
                        "RECORDED for {}: {label} {source:?} for {left:?}",
                        self.short(name)
                    )
                });
                if let Source::Operator(number) = source {
                    self.state().operators[number].1 = Some(now + *left);
                }
                self.state().recorded.insert((name.clone(), source), now);
            }
            let calls = self.state().sent.len();
            let open: Vec<_> = (0..calls)
                .filter(|id| {
                    let sent = self.state().sent[*id].clone();
                    let refused = matches!(sent.end, Some((_, Ended::Refused)));
                    sent.name == *name && !refused && sent.recorded_until.is_none()
                })
                .collect();
            for id in open {
                self.state().sent[id].recorded_until = Some(now + *left);
            }
        }
        if *answer == Answer::Done && changed {
            match (event, before, after) {
                (Event::Forget { .. }, Some(RecordState::Cached { .. }), _) => {
                    self.clear(name, Clearing::Forget)
                }
                (Event::Resolve { .. }, _, Some(RecordState::Released { .. })) => {
                    self.judge_not_applied(name);
                    self.clear(name, Clearing::NotApplied);
                }
                _ => {}
            }
        }
        if let (
            Event::TakeOver { .. },
            Some(RecordState::Locked { revision, .. }),
            Some(RecordState::Indeterminate { .. }),
        ) = (event, before, after)
        {
            self.judge_lost_lease(engine, name, &revision.lease.to_string());
        }
    }

    pub fn clear(&self, name: &RecordName, how: Clearing) {
        if how == Clearing::Loss && self.schedule.setup.deceitful {
            return;
        }
        self.note(|| format!("{how:?} of {}", self.short(name)));
        self.state()
            .cleared
            .push((name.clone(), Instant::now(), how));
    }

    fn judge_not_applied(&self, name: &RecordName) {
        let now = Instant::now();
        let calls: Vec<_> = self
            .state()
            .sent
            .iter()
            .enumerate()
            .filter(|(_, sent)| sent.name == *name)
            .map(|(id, sent)| (id, sent.clone()))
            .collect();
        for (id, sent) in calls {
            let runs = sent.end.is_none() || sent.executes_at.is_some_and(|at| at > now);
            if runs && !self.is_cleared(&sent) {
                self.violated(Rule::TooEarly, || {
                    format!("NotApplied is applied while call {id} runs")
                });
            }
        }
    }

    /// Judges an engine that found another engine's lease expired with a request under way.
    fn judge_lost_lease(&self, finder: usize, name: &RecordName, lease: &str) {
        let now = Instant::now();
        let state = self.state();
        let Some(sent) = state.sent.iter().find(|sent| {
            sent.name == *name
                && sent.lease.as_deref() == Some(lease)
                && sent.end.is_none()
                && !state.ended.contains(&(sent.engine, sent.life))
                && !state.seats[sent.engine].hurt
        }) else {
            return;
        };
        let sent = sent.clone();
        drop(state);
        let setup = &self.schedule.setup.engines[sent.engine];
        let (lease, limit) = (ms(setup.lease), ms(setup.store_timeout));
        // The last heartbeat that reached the store was at least a lease ago. The next one
        // was due after a third of the lease.
        let from = (now - lease + lease / 3).max(sent.arrived);
        if self.reachable_within(sent.engine, from, now) >= limit * 2 + ms(700)
            && !self.lost_since(name, sent.arrived)
        {
            self.violated(Rule::LeaseLost, || {
                format!("engine {finder} finds the lease of engine {} expired, which lives and reaches the store", sent.engine)
            });
        }
    }

    /// The longest time between two moments in which no command of an engine could fail.
    fn reachable_within(&self, engine: usize, from: Instant, to: Instant) -> Duration {
        let mut bad: Vec<(Instant, Instant)> = Vec::new();
        for step in &self.schedule.steps {
            if let super::schedule::Step::Outage {
                at,
                engine: whose,
                lasts,
                ..
            } = step
                && whose.is_none_or(|whose| self.place(whose) == engine)
            {
                let begin = self.begun + ms(*at);
                bad.push((begin, begin + ms(*lasts)));
            }
        }
        let limit = ms(self.schedule.setup.engines[engine].store_timeout);
        let state = self.state();
        for at in state.faults.get(&engine).into_iter().flatten() {
            bad.push((*at, *at + limit));
        }
        bad.sort();
        let (mut good, mut since) = (Duration::ZERO, from);
        for (begin, end) in bad {
            if begin > since {
                good = good.max(begin.min(to).saturating_duration_since(since));
            }
            since = since.max(end);
        }
        good.max(to.saturating_duration_since(since))
    }

    /// Whether a command of this engine failed recently enough to explain an error: within
    /// half a minute, or as the last answer that the engine got.
    pub fn had_fault(&self, engine: usize, since: Instant) -> bool {
        let since = since
            .checked_sub(Duration::from_secs(30))
            .unwrap_or(self.begun);
        let state = self.state();
        let last = state.faults.get(&engine).and_then(|faults| faults.last());
        let well = state.well.get(&engine);
        last.is_some_and(|last| *last >= since || well.is_none_or(|well| well < last))
    }
}
