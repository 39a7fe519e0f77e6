//! The store of the model: a record small enough for millions of states, rebuilt as a real
//! [`Record`] for each call of the crate's `apply`. It contains no rule.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use genesys_once::record::{
    Answer, Attempts, Claim, Content, Event, Fingerprint, LeaseId, Phase, RELEASED_FOR, Record,
    RecordState, Revision as RecordRevision, apply,
};
use genesys_once::{Outcome, Resolution};

use super::command::{Command, Lease, NEWCOMER, Revision, Verb};
use super::mutation::Mutation;
use super::search::Fast;

const ATTEMPTS: Attempts = Attempts {
    sent: Some(SystemTime::UNIX_EPOCH),
    count: 1,
    timeout: Duration::from_secs(65),
};

const LEASE: Duration = Duration::from_secs(30);
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
const RESULT: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Absent,
    Claimed,
    Dispatched,
    Cached,
    /// Cached, with an operator's outcome.
    Resolved,
    Indeterminate,
    Released,
}

/// A record with the parts that a rule reads; `live` is the only time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rec {
    pub kind: Kind,
    pub lease: Lease,
    pub step: u8,
    pub rev: u8,
    pub live: bool,
}

/// An [`Answer`] as a holder reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    NotHolder,
    StaleStep,
    Is(Rec),
}

/// The one record, its rules, and their cached answers.
pub struct Store {
    mutation: Option<Mutation>,
    leases: Vec<LeaseId>,
    outcome: Arc<Outcome>,
    resolved: Arc<Outcome>,
    cause: Arc<str>,
    answers: HashMap<(Rec, Command), (Rec, Reply), Fast>,
}

impl Store {
    pub fn new(mutation: Option<Mutation>) -> Self {
        Self {
            mutation,
            leases: (0..=NEWCOMER)
                .map(|lease| LeaseId::from_bytes([lease; 16]))
                .collect(),
            outcome: Arc::new(Outcome::new(Default::default(), Default::default(), "{}")),
            resolved: Arc::new(Outcome::new(Default::default(), Default::default(), "X")),
            cause: Arc::from("lost"),
            answers: HashMap::default(),
        }
    }

    /// How many different inputs the rules received.
    pub fn asked(&self) -> usize {
        self.answers.len()
    }

    /// Applies a command by the crate's own rules, once for each pair of record and
    /// command, since they are a pure function.
    pub fn apply(&mut self, rec: Rec, command: Command) -> (Rec, Reply) {
        if let Some(known) = self.answers.get(&(rec, command)) {
            return *known;
        }
        let answer = match self.mutation {
            Some(mutation) => {
                mutation.apply(rec, command, |rec, command| self.by_the_rules(rec, command))
            }
            None => {
                let (next, reply) = self.by_the_rules(rec, command);
                // The search renumbers revisions. That is valid only if each change raises
                // them, and none lowers or restarts them.
                let mut same = rec;
                same.live = next.live;
                assert!(
                    next.rev > rec.rev || next == same,
                    "{command}: {rec} became {next} without a higher revision"
                );
                (next, reply)
            }
        };
        self.answers.insert((rec, command), answer);
        answer
    }

    fn by_the_rules(&self, rec: Rec, command: Command) -> (Rec, Reply) {
        let current = self.record(rec);
        let current = current.as_ref().map(|(record, left)| (record, *left));
        let (next, answer) = apply(current, &self.event(command));
        let next = next.map_or(Rec::ABSENT, |(record, left)| self.rec(&record, left));
        (next, self.reply(answer, next))
    }

    fn record(&self, rec: Rec) -> Option<(Record, Duration)> {
        let (content, retention) = match rec.kind {
            Kind::Absent => return None,
            Kind::Claimed | Kind::Dispatched => {
                let phase = match rec.kind {
                    Kind::Claimed => Phase::Claimed,
                    _ => Phase::Dispatched,
                };
                let content = Content::Locked {
                    phase,
                    attempts: ATTEMPTS,
                    about: Default::default(),
                };
                (content, RETENTION)
            }
            Kind::Cached | Kind::Resolved => (
                Content::Cached {
                    stored: match rec.kind {
                        Kind::Resolved => self.resolved.clone().into(),
                        _ => self.outcome.clone().into(),
                    },
                    origin: Default::default(),
                },
                RESULT,
            ),
            Kind::Indeterminate => {
                let content = Content::Indeterminate {
                    attempts: ATTEMPTS,
                    about: Default::default(),
                    cause: Some(self.cause.clone().into()),
                };
                (content, RETENTION)
            }
            Kind::Released => (Content::Released { refusal: None }, RELEASED_FOR),
        };
        let record = Record {
            rev: rec.rev.into(),
            lease: self.leases[usize::from(rec.lease)],
            step: rec.step.into(),
            lease_ttl: LEASE,
            retention,
            fingerprint: Fingerprint::from_bytes([1; 32]),
            content,
        };
        Some((
            record,
            if rec.live {
                LEASE + retention
            } else {
                retention
            },
        ))
    }

    fn rec(&self, record: &Record, left: Duration) -> Rec {
        let kind = match &record.content {
            Content::Locked {
                phase: Phase::Claimed,
                ..
            } => Kind::Claimed,
            Content::Locked {
                phase: Phase::Dispatched,
                ..
            } => Kind::Dispatched,
            Content::Cached { stored, .. } if stored.outcome == self.resolved => Kind::Resolved,
            Content::Cached { .. } => Kind::Cached,
            Content::Indeterminate { .. } => Kind::Indeterminate,
            Content::Released { .. } => Kind::Released,
            other => panic!("a content that the model does not know: {other:?}"),
        };
        let live = left > record.retention;
        assert!(left == record.retention + if live { LEASE } else { Duration::ZERO });
        Rec {
            kind,
            lease: self.lease(record.lease),
            step: record.step.try_into().expect("steps are few"),
            rev: record.rev.try_into().expect("revisions are few"),
            live,
        }
    }

    fn lease(&self, id: LeaseId) -> Lease {
        let place = self.leases.iter().position(|lease| *lease == id);
        place.expect("a lease of the model") as Lease
    }

    fn event(&self, command: Command) -> Event {
        let Command {
            verb,
            lease,
            step,
            revision,
        } = command;
        let claim = Claim {
            lease: self.leases[usize::from(lease)],
            fingerprint: Fingerprint::from_bytes([1; 32]),
            lease_ttl: LEASE,
            retention: RETENTION,
            attempts: ATTEMPTS,
            about: Default::default(),
        };
        let step = u32::from(step);
        let revision = RecordRevision {
            rev: revision.rev.into(),
            lease: self.leases[usize::from(revision.lease)],
        };
        match verb {
            Verb::None => unreachable!("a free place is never delivered"),
            Verb::Acquire => Event::Acquire { claim },
            Verb::TakeOver | Verb::TakeOverWatched => Event::TakeOver {
                claim,
                revision,
                watched: verb == Verb::TakeOverWatched,
            },
            Verb::Extend => Event::Extend {
                claim,
                dispatched: None,
            },
            Verb::ExtendDispatched => Event::Extend {
                claim,
                dispatched: Some(step),
            },
            Verb::EnterClaimed => Event::Enter {
                claim,
                step,
                phase: Phase::Claimed,
            },
            Verb::EnterDispatched => Event::Enter {
                claim,
                step,
                phase: Phase::Dispatched,
            },
            Verb::Complete => {
                let stored = self.outcome.clone().into();
                Event::Complete {
                    claim,
                    step,
                    stored,
                    origin: Default::default(),
                    ttl: RESULT,
                }
            }
            Verb::Release => Event::Release {
                claim,
                step,
                refusal: None,
            },
            Verb::Abandon => {
                let cause = self.cause.clone().into();
                Event::Abandon { claim, step, cause }
            }
            Verb::ResolveNotApplied | Verb::ResolveApplied => Event::Resolve {
                lease: claim.lease,
                revision,
                fingerprint: claim.fingerprint,
                resolution: match verb {
                    Verb::ResolveApplied => Resolution::applied(self.resolved.clone()),
                    _ => Resolution::not_applied(),
                },
                origin: Default::default(),
                ttl: RESULT,
            },
        }
    }

    fn reply(&self, answer: Answer, next: Rec) -> Reply {
        match answer {
            Answer::Done => Reply::Done,
            Answer::NotHolder => Reply::NotHolder,
            Answer::StaleStep => Reply::StaleStep,
            Answer::Is(None) => {
                assert_eq!(next, Rec::ABSENT, "the answer is not the record");
                Reply::Is(Rec::ABSENT)
            }
            Answer::Is(Some(state)) | Answer::Lost(state) => {
                let revision = state.revision();
                let revision = Revision {
                    rev: revision.rev as u8,
                    lease: self.lease(revision.lease),
                };
                assert_eq!(revision, next.revision(), "the answer is not the record");
                let live = matches!(state,
                    RecordState::Locked { lease_left, .. } if lease_left > Duration::ZERO);
                assert_eq!(live, next.live, "the answer is not the record");
                Reply::Is(next)
            }
            other => panic!("an answer that the model does not expect: {other:?}"),
        }
    }
}

impl Rec {
    pub const ABSENT: Self = Self {
        kind: Kind::Absent,
        lease: 0,
        step: 0,
        rev: 0,
        live: false,
    };

    pub fn revision(self) -> Revision {
        Revision {
            rev: self.rev,
            lease: self.lease,
        }
    }
}

impl fmt::Display for Rec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            lease,
            step,
            rev,
            live,
        } = self;
        match kind {
            Kind::Absent => write!(f, "absent"),
            Kind::Claimed | Kind::Dispatched => {
                let expired = if *live { "" } else { ", expired" };
                write!(
                    f,
                    "{kind:?} {{ lease {lease}, step {step}, rev {rev}{expired} }}"
                )
            }
            _ => write!(f, "{kind:?} {{ lease {lease}, step {step}, rev {rev} }}"),
        }
    }
}
