//! All pairs of a small record and an event. The conformance suite compares a store with
//! `apply`; here `apply` itself is tested against the promises of its types.

use std::sync::Arc;

use super::*;

const LEASE: Duration = Duration::from_secs(30);
const RETENTION: Duration = Duration::from_secs(3600);

fn claim(lease: u8, request: u8) -> Claim {
    Claim {
        lease: LeaseId::from_bytes([lease; 16]),
        fingerprint: Fingerprint::from_bytes([request; 32]),
        lease_ttl: LEASE,
        retention: RETENTION,
        attempts: Attempts::default(),
        about: Default::default(),
    }
}

fn refused() -> Option<Refusal> {
    let retry_after = Duration::from_secs(3);
    Some(Refusal::RateLimited { retry_after })
}

fn answer(body: &'static str) -> Arc<Outcome> {
    Arc::new(Outcome::new(Default::default(), Default::default(), body))
}

/// Records of two leases and two requests at three steps, with live and expired
/// leases, and none.
fn records() -> Vec<Option<Written>> {
    let attempts = Attempts::default();
    let [claimed, dispatched] = [Phase::Claimed, Phase::Dispatched];
    let contents = [
        Content::Locked {
            phase: claimed,
            attempts,
            about: Default::default(),
        },
        Content::Locked {
            phase: dispatched,
            attempts,
            about: Default::default(),
        },
        Content::Cached {
            stored: answer("{}").into(),
            origin: Default::default(),
        },
        Content::Indeterminate {
            attempts,
            about: Default::default(),
            cause: None,
        },
        Content::Released { refusal: None },
        Content::Released { refusal: refused() },
    ];
    let mut records = vec![None];
    for content in contents {
        for (lease, request, step) in triples([1, 2], [8, 9], [0, 1, 2]) {
            let Claim {
                lease,
                fingerprint,
                lease_ttl,
                retention,
                ..
            } = claim(lease, request);
            let record = Record {
                rev: 5,
                lease,
                step,
                lease_ttl,
                retention,
                fingerprint,
                content: content.clone(),
            };
            if matches!(content, Content::Locked { .. }) {
                records.push(Some((record.clone(), LEASE + RETENTION)));
            }
            records.push(Some((record.clone(), RETENTION)));
            records.push(Some((record, RETENTION / 2)));
        }
    }
    records
}

/// Every event of the same leases and requests, and of one more lease, to a record of this
/// revision.
fn events(revision: Revision) -> Vec<Event> {
    let mut events = Vec::new();
    for (lease, request, step) in triples([1, 2, 3], [8, 9], [0, 1, 2, 3]) {
        let of = claim;
        let claim = || of(lease, request);
        let Claim {
            lease, fingerprint, ..
        } = claim();
        events.extend([
            Event::Acquire { claim: claim() },
            Event::TakeOver {
                claim: claim(),
                revision,
                watched: false,
            },
            Event::TakeOver {
                claim: claim(),
                revision,
                watched: true,
            },
            Event::Extend {
                claim: claim(),
                dispatched: None,
            },
            Event::Extend {
                claim: claim(),
                dispatched: Some(step),
            },
            Event::Complete {
                claim: claim(),
                step,
                stored: answer("{}").into(),
                origin: Default::default(),
                ttl: RETENTION,
            },
            Event::Abandon {
                claim: claim(),
                step,
                cause: "reset".into(),
            },
            Event::Forget { lease },
        ]);
        events.extend(
            [Phase::Claimed, Phase::Dispatched].map(|phase| Event::Enter {
                claim: claim(),
                step,
                phase,
            }),
        );
        events.extend([None, refused()].map(|refusal| Event::Release {
            claim: claim(),
            step,
            refusal,
        }));
        let resolutions = [
            Resolution::not_applied(),
            Resolution::applied(answer("found")),
        ];
        events.extend(resolutions.map(|resolution| Event::Resolve {
            lease,
            revision,
            fingerprint,
            resolution,
            origin: Default::default(),
            ttl: RETENTION,
        }));
    }
    events
}

fn triples<A: Copy, B: Copy, C: Copy>(
    a: impl IntoIterator<Item = A>,
    b: impl IntoIterator<Item = B> + Clone,
    c: impl IntoIterator<Item = C> + Clone,
) -> impl Iterator<Item = (A, B, C)> {
    a.into_iter().flat_map(move |a| {
        let c = c.clone();
        b.clone()
            .into_iter()
            .flat_map(move |b| c.clone().into_iter().map(move |c| (a, b, c)))
    })
}

/// Calls `check` with each record, each event, and the result of the event.
fn for_all(check: impl Fn(&Option<Written>, &Event, &Option<Written>, &Answer)) {
    for stored in records() {
        let revision = match &stored {
            Some((record, _)) => record.revision(),
            None => Revision {
                rev: 1,
                lease: claim(1, 8).lease,
            },
        };
        for event in events(revision) {
            let (next, answer) = send(&stored, &event);
            check(&stored, &event, &next, &answer);
        }
    }
}

fn send(stored: &Option<Written>, event: &Event) -> (Option<Written>, Answer) {
    let current = stored.as_ref().map(|(record, left)| (record, *left));
    apply(current, event)
}

/// Every write raises the revision by one, from absent to 1, so that a reader detects each
/// change. A written record lives for its lease and its retention.
///
/// Red where any write leaves the revision unchanged, or lowers it.
#[test]
fn every_write_raises_the_revision() {
    for_all(|before, event, after, _| {
        let Some((record, left)) = after else {
            assert_eq!(before, after, "{event:?} removed a record");
            return;
        };
        let rev = before.as_ref().map_or(0, |(record, _)| record.rev);
        let same = before.as_ref().is_some_and(|(before, _)| before == record);
        let expected = if same { rev } else { rev + 1 };
        assert_eq!(record.rev, expected, "{event:?} to {before:?}");
        let lease = match record.content {
            Content::Locked { .. } => LEASE,
            _ => Duration::ZERO,
        };
        if !same {
            assert_eq!(*left, record.retention + lease, "{event:?} to {before:?}");
        }
    });
}

/// A released record lives for a short time, an indeterminate one for its retention.
///
/// Red where a key that was resolved as not applied keeps its earlier time to live.
#[test]
fn released_record_lives_for_a_short_time() {
    for_all(|before, event, after, _| {
        let freed = match event {
            Event::Resolve { .. } => before != after,
            Event::Release { .. } => !matches!(
                before.as_ref().map(|(record, _)| &record.content),
                Some(Content::Released { .. })
            ),
            _ => false,
        };
        if let Some((record, left)) = after
            && matches!(record.content, Content::Released { .. })
            && freed
        {
            assert_eq!(*left, RELEASED_FOR, "{event:?} to {before:?}");
        }
    });
}

/// What a reader sees of a record agrees with a take-over of it: any request may acquire a
/// free key, and an indeterminate one is reported as such afterwards.
///
/// Red where a lease that expired in `Claimed` does not count as free.
#[test]
fn state_agrees_with_a_take_over() {
    for (record, left) in records().into_iter().flatten() {
        let (state, revision) = (record.state(left), record.revision());
        let take_over = |request| {
            let event = Event::TakeOver {
                claim: claim(3, request),
                revision,
                watched: false,
            };
            send(&Some((record.clone(), left)), &event)
        };
        for request in [8, 9] {
            let (_, answer) = take_over(request);
            assert_eq!(state.is_free(), answer == Answer::Done, "{state:?}");
        }
        let mine = record.fingerprint.as_bytes()[0];
        let (after, answer) = take_over(mine);
        let indeterminate = matches!(
            after,
            Some((
                Record {
                    content: Content::Indeterminate { .. },
                    ..
                },
                _
            ))
        );
        assert_eq!(
            state.is_indeterminate(),
            indeterminate,
            "{state:?}: {answer:?}"
        );
    }
}

/// A command that is repeated after a lost reply changes nothing and returns `Done`; a
/// repeated `Acquire` returns its own lease. `Extend` and `Enter` extend the lease each
/// time, at a new revision.
///
/// Red where a repeated release raises the revision again, and where any other command is
/// not recognised as repeated.
#[test]
fn repeated_command_is_done() {
    for_all(|before, event, after, answer| {
        let (again, second) = send(after, event);
        let mut expected = after.clone();
        if let (Event::Extend { .. } | Event::Enter { .. }, Answer::Done, Some((record, _))) =
            (event, answer, &mut expected)
        {
            record.rev += 1;
        }
        assert_eq!(again, expected, "{event:?}, twice to {before:?}");
        let done = *answer == Answer::Done;
        match (event, &second) {
            (Event::Acquire { claim }, Answer::Is(Some(state))) if done => {
                assert_eq!(state.version(), claim.version());
            }
            _ if done => assert_eq!(second, Answer::Done, "{event:?}, twice to {before:?}"),
            _ => assert_ne!(second, Answer::Done, "{event:?}, twice to {before:?}"),
        }
    });
}

/// A release without a refusal leaves the present refusal and its request's fingerprint
/// (I6); one with a refusal replaces both.
///
/// Red where the present refusal gets the releasing request's fingerprint, and where it
/// does not stay.
#[test]
fn refusal_stays_with_its_request() {
    let of = |stored: &Option<Written>| match stored {
        Some((record, _)) => match &record.content {
            Content::Released { refusal: Some(_) } => Some(record.fingerprint),
            _ => None,
        },
        None => None,
    };
    for_all(|before, event, after, answer| {
        let Event::Release { claim, refusal, .. } = event else {
            return;
        };
        match (refusal, of(before)) {
            (None, Some(theirs)) => assert_eq!(of(after), Some(theirs), "{event:?}"),
            (None, None) => assert_eq!(of(after), None, "{event:?}"),
            (Some(_), _) if after != before => {
                assert_eq!(*answer, Answer::Done);
                assert_eq!(of(after), Some(claim.fingerprint), "{event:?}");
            }
            (Some(_), _) => {}
        }
    });
}
