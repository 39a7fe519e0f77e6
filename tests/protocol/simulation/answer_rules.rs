//! Which answers a caller may get: the oracle's rules about answers.

use std::time::Duration;

use genesys_once::{Error, Reply, RetryHint, Served};
use tokio::time::Instant;

use super::facts::{Clearing, Ended, Recorded, Source};
use super::labels::read_id;
use super::oracle::Rule;
use super::participants::Asked;
use super::world::{World, ms};

impl World {
    /// Judges the answer that a caller got.
    pub fn judge_answer(&self, asked: &Asked, answer: &Result<Reply, Error>) {
        let now = Instant::now();
        if now > asked.began + asked.limit + ms(10) {
            self.violated(Rule::Unanswered, || {
                format!(
                    "caller {} waits for {:?}, its limit is {:?}",
                    asked.number,
                    now - asked.began,
                    asked.limit
                )
            });
        }
        match answer {
            Ok(reply) => self.judge_reply(asked, reply),
            Err(error) => self.judge_error(asked, error),
        }
    }

    fn judge_reply(&self, asked: &Asked, reply: &Reply) {
        let Some((label, source)) = self.identify(reply.outcome()) else {
            return self.violated(Rule::StrangersAnswer, || {
                format!("caller {} gets what no call sent: {reply:?}", asked.number)
            });
        };
        if label != asked.label {
            self.violated(Rule::StrangersAnswer, || {
                format!(
                    "caller {} asked for {} and gets a reply for {label} ({:?}, {})",
                    asked.number,
                    asked.label,
                    reply.served(),
                    reply.status()
                )
            });
        }
        if let Source::Call(id) = source {
            self.judge_call_of(asked, reply, id);
        }
        if reply.recorded() {
            let known = (asked.name.clone(), source.clone());
            if !self.state().recorded.contains_key(&known) {
                self.violated(Rule::NotRecorded, || {
                    format!(
                        "caller {} hears that {source:?} is recorded, and it never was",
                        asked.number
                    )
                });
            }
            self.judge_recorded(asked, reply, source);
        }
    }

    /// Judges a reply that is the answer to a call.
    fn judge_call_of(&self, asked: &Asked, reply: &Reply, id: usize) {
        let now = Instant::now();
        let sent = self.state().sent[id].clone();
        let Some((ended, how)) = sent.end else {
            return self.violated(Rule::Harness, || {
                format!("call {id} answered before it ended")
            });
        };
        let here = (sent.engine, sent.life) == (asked.engine, asked.life);
        let joined = matches!(reply.served(), Served::Joined | Served::Upstream);
        if how == Ended::Refused && here && joined && self.came_late(asked, id) {
            self.violated(Rule::LateJoiner, || {
                format!(
                    "caller {} came after call {id} was refused, and gets its refusal",
                    asked.number
                )
            });
        }
        let limit = ms(self.schedule.setup.engines[asked.engine].store_timeout);
        let apart = self.comes_apart(asked, sent.arrived);
        if here
            && joined
            && !apart
            && asked.began <= ended
            && now > ended + limit + ms(60 + 2 * self.schedule.setup.latency)
        {
            self.violated(Rule::SlowAnswer, || {
                format!(
                    "caller {} waits {:?} for the store after call {id} was answered",
                    asked.number,
                    now - ended
                )
            });
        }
        let forgotten = self
            .state()
            .forgotten
            .iter()
            .any(|(name, engine, applied, returned)| {
                let elsewhere = *engine != asked.engine && reply.served() == Served::Memory;
                *name == asked.name
                    && sent.arrived < *applied
                    && asked.began > *returned
                    && !elsewhere
            });
        let restored = self.state().cleared.iter().any(|(name, at, how)| {
            *name == asked.name && *how == Clearing::Loss && *at >= sent.arrived
        });
        if forgotten && reply.served() != Served::Joined && !restored {
            self.violated(Rule::Forgotten, || {
                format!(
                    "caller {} came after call {id} was forgotten, and gets its answer ({:?})",
                    asked.number,
                    reply.served()
                )
            });
        }
    }

    /// Whether a caller came after an order to forget the key: it does not join what began
    /// before.
    fn comes_apart(&self, asked: &Asked, since: Instant) -> bool {
        self.state().forget_events.iter().any(|(name, engine, at)| {
            let here = *name == asked.name && *engine == asked.engine;
            here && since <= *at && *at <= asked.began
        })
    }

    /// Whether other callers of the engine had this answer before this caller came.
    fn came_late(&self, asked: &Asked, id: usize) -> bool {
        let answer = (asked.engine, asked.life, Source::Call(id));
        let now = Instant::now();
        let first = *self.state().given.entry(answer).or_insert(now);
        asked.began > first
    }

    /// Judges a reply that says that it is recorded, against all such replies before.
    fn judge_recorded(&self, asked: &Asked, reply: &Reply, source: Source) {
        let born = |source: &Source| match source {
            Source::Call(id) => self.state().sent[*id].arrived,
            Source::Operator(number) => self.state().operators[*number].0,
        };
        if let Source::Call(id) = source {
            let refused = matches!(self.state().sent[id].end, Some((_, Ended::Refused)));
            if refused {
                self.violated(Rule::NotRecorded, || {
                    format!("caller {} hears that a refusal is recorded", asked.number)
                });
            }
        }
        let before = self.state().replies.clone();
        for other in before
            .iter()
            .filter(|other| other.name == asked.name && other.source != source)
        {
            let (a, b) = (
                born(&other.source).min(born(&source)),
                born(&other.source).max(born(&source)),
            );
            let state = self.state();
            let between = state
                .cleared
                .iter()
                .any(|(name, at, _)| *name == asked.name && a <= *at)
                || state.sent.iter().any(|sent| {
                    sent.name == asked.name
                        && sent
                            .recorded_until
                            .is_some_and(|until| a <= until && until <= b)
                })
                || state
                    .operators
                    .iter()
                    .any(|(_, until)| until.is_some_and(|until| a <= until && until <= b))
                // One outcome had expired when the other was recorded.
                || state.expired_before(&asked.name, &other.source, &source)
                || state.expired_before(&asked.name, &source, &other.source);
            drop(state);
            if !between {
                self.violated(Rule::TwoAnswers, || {
                    format!(
                        "{:?} and {source:?} were both given out as recorded (caller {}, {:?})",
                        other.source,
                        asked.number,
                        reply.served()
                    )
                });
            }
        }
        self.state().replies.push(Recorded {
            name: asked.name.clone(),
            source,
        });
    }

    fn judge_error(&self, asked: &Asked, error: &Error) {
        let now = Instant::now();
        let setup = &self.schedule.setup.engines[asked.engine];
        let (ended, hurt) = {
            let state = self.state();
            (
                state.ended.contains(&(asked.engine, asked.life)),
                state.seats[asked.engine].hurt,
            )
        };
        let wrong = |why: &str| {
            self.violated(Rule::WrongError, || {
                format!("caller {} gets {}: {why}", asked.number, error.code())
            });
        };
        if let RetryHint::After(wait) = error.hint() {
            // The schedules' own backoff is half a second, and no peer gets more than an
            // hour.
            if wait < ms(100) || wait > ms(3_600_000) {
                wrong("its hint is no time to wait");
            }
        }
        match error {
            Error::PayloadMismatch { .. } => self.judge_mismatch(asked),
            Error::Indeterminate { cause, .. } => {
                let id = cause
                    .split("correlation id ")
                    .nth(1)
                    .and_then(|rest| rest.split(')').next());
                if let Some((label, source)) = id.and_then(read_id)
                    && label != asked.label
                {
                    self.violated(Rule::StrangersAnswer, || {
                        format!(
                            "caller {} asked for {} and gets the outcome of {label} ({source:?})",
                            asked.number, asked.label
                        )
                    });
                }
                let state = self.state();
                let open = state.sent.iter().any(|sent| {
                    sent.name == asked.name
                        && !matches!(sent.end, Some((_, Ended::Refused | Ended::Final)))
                });
                let trouble = !state.faults.is_empty()
                    || !state.ended.is_empty()
                    || state.seats.iter().any(|seat| seat.hurt)
                    || state.connecting.contains(&asked.name);
                let lost = state
                    .cleared
                    .iter()
                    .any(|(name, _, how)| *name == asked.name && *how == Clearing::Loss);
                drop(state);
                if !open && !trouble && !lost {
                    wrong("every call was answered, and nothing failed");
                }
            }
            Error::Unauthorized { correlation_id, .. } => {
                if let Some((label, Source::Call(id))) = correlation_id.as_deref().and_then(read_id)
                {
                    if label != asked.label {
                        self.violated(Rule::StrangersAnswer, || {
                            format!(
                                "caller {} asked for {} and gets the 401 of {label}",
                                asked.number, asked.label
                            )
                        });
                    }
                    let sent = self.state().sent[id].clone();
                    if (sent.engine, sent.life) == (asked.engine, asked.life)
                        && self.came_late(asked, id)
                    {
                        self.violated(Rule::LateJoiner, || {
                            format!(
                                "caller {} came after call {id} was refused, and gets its 401",
                                asked.number
                            )
                        });
                    }
                }
            }
            Error::StoreUnavailable { source, .. } => {
                // A record that goes away while a caller waits is an outage, too.
                let lost = self.lost_since(&asked.name, asked.began);
                if !lost && !self.had_fault(asked.engine, asked.began) {
                    self.violated(Rule::FalseOutage, || format!("caller {}: no command failed, and the store is unavailable: {source:?}", asked.number));
                }
                let expiry = self
                    .state()
                    .expires
                    .get(&(asked.engine, asked.life, asked.name.clone()))
                    .cloned();
                let other = hurt || self.comes_apart(asked, self.begun);
                if !other
                    && expiry.is_some_and(|(saw, expiry)| {
                        saw.iter().filter(|at| **at > asked.began).count() >= 2
                            && expiry > now + ms(5)
                    })
                {
                    self.violated(Rule::GivenUp, || {
                        format!(
                            "caller {} is given up on while another engine's lease lives",
                            asked.number
                        )
                    });
                }
            }
            Error::Crashed { .. } if !hurt && !ended => wrong("nothing was killed"),
            Error::Stopped if !ended && !hurt => wrong("the engine runs"),
            Error::DeadlineExceeded { .. } if now < asked.began + asked.limit => {
                wrong("its limit is not over")
            }
            Error::InProgress { .. } if !setup.fail_fast => wrong("duplicates wait"),
            Error::Token { .. } if self.schedule.setup.token_life.is_none() => {
                wrong("there are no tokens")
            }
            Error::Crashed { .. }
            | Error::Stopped
            | Error::DeadlineExceeded { .. }
            | Error::InProgress { .. }
            | Error::Token { .. } => {}
            Error::RateLimited { .. } | Error::Unreachable { .. } => {}
            _ => wrong("it does not belong here"),
        }
    }

    fn judge_mismatch(&self, asked: &Asked) {
        let now = Instant::now();
        let recent = ms(self.schedule.setup.engines[asked.engine].recent);
        // An execution that asks its hook might have read the record before: a minute.
        let hook = if self.schedule.setup.hook { 60 } else { 0 };
        let recent = recent.max(Duration::from_secs(hook)) + Duration::from_secs(5);
        let from = asked
            .began
            .checked_sub(recent)
            .unwrap_or(self.begun)
            .max(self.begun);
        let state = self.state();
        let empty = Vec::new();
        let history = state.history.get(&asked.name).unwrap_or(&empty);
        let foreign = history.iter().enumerate().any(|(n, (at, whose))| {
            let until = history.get(n + 1).map_or(now, |(at, _)| *at);
            *at <= now && until >= from && whose.is_some_and(|whose| whose != asked.fingerprint)
        });
        let lost = state
            .cleared
            .iter()
            .any(|(name, _, how)| *name == asked.name && *how == Clearing::Loss);
        drop(state);
        if !foreign && !lost {
            self.violated(Rule::FalseMismatch, || {
                format!(
                    "caller {} is refused by a request that the record never belonged to",
                    asked.number
                )
            });
        }
    }
}
