//! One key of the tested store, and the same record by `record::apply` alone: each event goes
//! to both, and each answer is compared. It knows no case.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Elapse;
use crate::error::chain;
use crate::key::{Fingerprint, RecordName};
use crate::record::{
    self, About, Answer, Attempts, Caller, Claim, Event, Holder, LeaseId, Origin, Phase, Record,
    RecordState, Resolved, Revision,
};
use crate::store::Store;

/// A time that passes in a trial.
pub(super) const SHORT: Duration = Duration::from_millis(20);

/// A time that never passes in a trial.
pub(super) const LONG: Duration = Duration::from_secs(6 * 3600);

/// The time after which [`SHORT`] has passed on any store's clock.
const PAUSE: Duration = Duration::from_millis(60);

/// A shorter time is let pass at once, so that no answer depends on the store's speed.
const SOON: Duration = Duration::from_secs(60);

/// An event, and the version that it has seen, if it names one.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) event: Event,
    pub(super) revision: Version,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Version {
    /// The present record.
    Current,
    /// The version before the last change, for repeated commands.
    Before,
    /// The right revision, of another holder.
    Foreign,
}

/// The expected answer of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Done,
    NotHolder,
    StaleStep,
    Mismatch,
    Absent,
    Held(Phase),
    Expired(Phase),
    Cached,
    Indeterminate,
    Released,
}

/// The holders of all trials: A and B have one request, X another.
pub(super) fn holder(number: u8) -> Claim {
    Claim {
        lease: LeaseId::from_bytes([number; 16]),
        fingerprint: Fingerprint::from_bytes([if number == b'X' { 7 } else { 9 }; 32]),
        lease_ttl: LONG,
        retention: 2 * LONG,
        attempts: Attempts {
            sent: Some(moment()),
            count: 1,
            timeout: Duration::from_millis(65_000),
        },
        about: Arc::new(about(number)),
    }
}

/// The metadata of a request for operators, which a store keeps word for word.
fn about(number: u8) -> About {
    About {
        action: "custom_-_1".parse().ok(),
        caller: Caller {
            own_key: Some("order \"42\"\\".into()),
            scope: Some("é".into()),
            label: Some(format!("refund of {}", char::from(number)).into()),
            sealed: None,
        },
        holder: Some(Arc::new(Holder {
            host: "app-3".into(),
            process: 4711,
            started: moment(),
        })),
    }
}

/// The origin of an outcome: of a platform, and of an operator.
pub(super) fn origin() -> Origin {
    Origin {
        action: "custom_-_1".parse().ok(),
        answered: Some(moment()),
        attempts: 2,
        resolved: None,
    }
}

pub(super) fn resolved() -> Origin {
    Origin {
        answered: None,
        resolved: Some(Resolved {
            at: moment(),
            by: Some("ticket \"4711\"".into()),
        }),
        ..origin()
    }
}

/// One key of a store, and its reference.
pub(super) struct Trial<'a> {
    store: &'a dyn Store,
    elapse: Elapse<'a>,
    name: RecordName,
    /// What the store must hold, and how long by a clock that only `elapse` moves.
    expected: Option<(Record, Duration)>,
    before: Revision,
    history: String,
}

impl<'a> Trial<'a> {
    pub(super) fn new(store: &'a dyn Store, elapse: Elapse<'a>, name: RecordName) -> Self {
        let initial = Revision {
            rev: 1,
            lease: holder(b'A').lease,
        };
        Self {
            store,
            elapse,
            name,
            expected: None,
            before: initial,
            history: String::new(),
        }
    }

    /// Sends one event to both, and returns their difference.
    pub(super) async fn step(&mut self, step: Move, wanted: Option<Wanted>) -> Result<(), String> {
        let event = self.resolved(step);
        let _ = write!(self.history, "\n  {event:?}");
        let current = self.expected.as_ref().map(|(record, left)| (record, *left));
        let revision = current.map(|(record, _)| record.revision());
        let (next, should) = record::apply(current, &event);
        let answer = match self.store.apply(&self.name, event).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.report(&chain(&error), &format!("{should:?}"))),
        };
        let _ = write!(self.history, "  =>  {answer:?}");
        if comparable(&answer) != comparable(&should) {
            return Err(self.report(&format!("{answer:?}"), &format!("{should:?}")));
        }
        if let Some(wanted) = wanted.filter(|wanted| *wanted != kind(&should)) {
            return Err(self.report(&format!("{answer:?}"), &format!("{wanted:?}")));
        }
        let changed = next.as_ref().map(|(record, _)| record.revision()) != revision;
        if let Some(revision) = revision.filter(|_| changed) {
            self.before = revision;
        }
        self.expected = next;
        self.look().await?;
        self.pass().await
    }

    /// Compares the records.
    async fn look(&mut self) -> Result<(), String> {
        let should = self
            .expected
            .as_ref()
            .map(|(record, left)| record.state(*left));
        let should = Answer::Is(should);
        let looks = [
            ("look", self.store.look(&self.name).await),
            ("peek", self.store.peek(&self.name).await),
        ];
        for (how, look) in looks {
            let answer = match look {
                Ok(state) => Answer::Is(state),
                Err(error) => return Err(self.report(&chain(&error), &format!("{should:?}"))),
            };
            // Times that are about to end may have ended.
            if self.ends_soon().is_none() && comparable(&answer) != comparable(&should) {
                return Err(self.report(&format!("{answer:?} to a {how}"), &format!("{should:?}")));
            }
        }
        Ok(())
    }

    /// Lets short times pass.
    async fn pass(&mut self) -> Result<(), String> {
        while self.ends_soon().is_some() {
            (self.elapse)(PAUSE).await;
            let _ = write!(self.history, "\n  {PAUSE:?} pass");
            self.expected = self.expected.take().and_then(|(record, left)| {
                let left = left.saturating_sub(PAUSE);
                (!left.is_zero()).then_some((record, left))
            });
            self.look().await?;
        }
        Ok(())
    }

    fn ends_soon(&self) -> Option<Duration> {
        let (record, left) = self.expected.as_ref()?;
        let lease_left = match record.state(*left) {
            RecordState::Locked { lease_left, .. } => lease_left,
            _ => Duration::ZERO,
        };
        [*left, lease_left]
            .into_iter()
            .find(|time| !time.is_zero() && *time < SOON)
    }

    fn resolved(&self, step: Move) -> Event {
        let current = match &self.expected {
            Some((record, _)) => record.revision(),
            None => self.before,
        };
        let version = match step.revision {
            Version::Current => current,
            Version::Before => self.before,
            Version::Foreign => Revision {
                lease: LeaseId::from_bytes([0xff; 16]),
                ..current
            },
        };
        let mut event = step.event;
        if let Event::TakeOver { revision, .. } | Event::Resolve { revision, .. } = &mut event {
            *revision = version;
        }
        if let Event::Resolve { fingerprint, .. } = &mut event
            && *fingerprint == whichever()
            && let Some((record, _)) = &self.expected
        {
            *fingerprint = record.fingerprint;
        }
        event
    }

    fn report(&self, answer: &str, wanted: &str) -> String {
        format!(
            "the store answered\n    {answer}\nwhere it must answer\n    {wanted}\nafter these events:{}",
            self.history
        )
    }
}

/// An answer without times, on which no two clocks agree: only whether a lease has expired
/// counts.
fn comparable(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    if let Answer::Is(Some(state)) | Answer::Lost(state) = &mut answer {
        match state {
            RecordState::Locked { lease_left, .. } => {
                *lease_left = if lease_left.is_zero() {
                    Duration::ZERO
                } else {
                    LONG
                };
            }
            // A lower bound only: zero where the store was not asked for it.
            RecordState::Cached { left, .. } => *left = Duration::ZERO,
            RecordState::Indeterminate { age, .. } => *age = age.map(|_| Duration::ZERO),
            RecordState::Released { .. } => {}
        }
    }
    answer
}

fn kind(answer: &Answer) -> Wanted {
    match answer {
        Answer::Done => Wanted::Done,
        Answer::NotHolder => Wanted::NotHolder,
        Answer::StaleStep => Wanted::StaleStep,
        Answer::Mismatch => Wanted::Mismatch,
        Answer::Is(None) => Wanted::Absent,
        Answer::Is(Some(state)) | Answer::Lost(state) => match state {
            RecordState::Locked {
                phase, lease_left, ..
            } if lease_left.is_zero() => Wanted::Expired(*phase),
            RecordState::Locked { phase, .. } => Wanted::Held(*phase),
            RecordState::Cached { .. } => Wanted::Cached,
            RecordState::Indeterminate { .. } => Wanted::Indeterminate,
            RecordState::Released { .. } => Wanted::Released,
        },
    }
}

/// Stands for the record's own fingerprint, which a trial fills in.
pub(super) fn whichever() -> Fingerprint {
    Fingerprint::from_bytes([0; 32])
}

/// A time in whole milliseconds.
pub(super) fn moment() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_795_000_000_123)
}
