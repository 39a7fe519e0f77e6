//! Cases that need more than one key or caller: concurrent commands, two namespaces,
//! notifications and lists.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::cases::{abandon, acquire, complete_for, enter, release, short, take_over};
use super::trial::{LONG, Move, holder};
use super::{Suite, key};
use crate::error::chain;
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::record::{Answer, Claim, Event, LeaseId, Phase, RecordState};
use crate::store::{ListQuery, Store};

/// The number of concurrent commands.
const CROWD: u8 = 32;

/// How long a notification may take; the engine polls as well.
const NOTIFICATION: Duration = Duration::from_secs(2);

pub(super) async fn all(suite: &Suite<'_>) {
    one_of_many_acquires(suite).await;
    one_of_many_takes_over(suite).await;
    // Before a record is left in the namespace that it lists.
    records_are_listed(suite).await;
    namespaces_share_nothing(suite).await;
    notifications_come_and_end(suite).await;
}

async fn one_of_many_acquires(suite: &Suite<'_>) {
    let name = suite.name();
    let answers = join_all(crowd().map(|claim| send(suite.store, &name, acquire(claim)))).await;
    let done = answers
        .iter()
        .filter(|answer| **answer == Answer::Done)
        .count();
    assert_eq!(done, 1, "case \"one of many acquires a key\": {answers:?}");
}

async fn one_of_many_takes_over(suite: &Suite<'_>) {
    let name = suite.name();
    let lost = &holder(b'A');
    send(suite.store, &name, acquire(lost)).await;
    send(suite.store, &name, enter(short(lost), 1, Phase::Claimed)).await;
    (suite.elapse)(Duration::from_millis(60)).await;
    let Ok(Some(state)) = suite.store.look(&name).await else {
        panic!("case \"one of many takes an expired lease over\": its record is gone");
    };
    let answers = join_all(crowd().map(|claim| {
        let mut step = take_over(claim);
        if let Event::TakeOver { revision, .. } = &mut step.event {
            *revision = state.revision();
        }
        send(suite.store, &name, step)
    }))
    .await;
    let done = answers
        .iter()
        .filter(|answer| **answer == Answer::Done)
        .count();
    assert_eq!(
        done, 1,
        "case \"one of many takes an expired lease over\": {answers:?}"
    );
}

async fn namespaces_share_nothing(suite: &Suite<'_>) {
    let key = key();
    let [one, other] = &suite.namespaces;
    let one = RecordName::new(one.clone(), key);
    let other = RecordName::new(other.clone(), key);
    send(suite.store, &one, acquire(holder(b'A'))).await;
    let seen = suite.store.look(&other).await;
    assert!(
        matches!(seen, Ok(None)),
        "case \"two namespaces share nothing\": the other one shows {seen:?}"
    );
    let answer = send(suite.store, &other, acquire(holder(b'X'))).await;
    assert_eq!(
        answer,
        Answer::Done,
        "case \"two namespaces share nothing\""
    );
}

/// A store may have no notifications, and may wake a waiter once too often, but not without
/// end: a woken waiter re-reads the record.
async fn notifications_come_and_end(suite: &Suite<'_>) {
    let name = suite.name();
    let a = &holder(b'A');
    send(suite.store, &name, acquire(a)).await;
    let mut quiet = false;
    for _ in 0..5 {
        quiet |= timeout(NOTIFICATION / 4, suite.store.changed(&name))
            .await
            .is_err();
    }
    assert!(
        quiet,
        "case \"notifications end\": the store wakes waiters without a change"
    );

    let mut changed = suite.store.changed(&name);
    poll_fn(|context| {
        let _ = changed.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
    send(suite.store, &name, complete_for(a, 0, LONG)).await;
    // Whether it came or not: the store must not hang or panic over it, and
    // dropping the wait must not disturb the next command.
    let _ = timeout(NOTIFICATION, changed).await;
    let state = suite.store.look(&name).await;
    assert!(
        matches!(state, Ok(Some(RecordState::Cached { .. }))),
        "case \"a notification follows the change\": the record is {state:?}"
    );
}

async fn records_are_listed(suite: &Suite<'_>) {
    const CASE: &str = "case \"the records of a namespace are listed\"";
    // In which nothing else was done.
    let namespace = &super::namespace();
    match suite.store.list(namespace, &ListQuery::all()).await {
        Ok(page) => assert!(page.records.is_empty(), "{CASE}: {page:?}"),
        // It cannot list its records, and says so.
        Err(error) if error.is_refused() => return,
        Err(error) => panic!("{CASE}: {}", chain(&error)),
    }
    let a = &holder(b'A');
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for number in 0..6 {
        let name = RecordName::new(namespace.clone(), key());
        all.push(name.key);
        send(suite.store, &name, acquire(a)).await;
        match number {
            0 => send(suite.store, &name, complete_for(a, 0, LONG)).await,
            1 => send(suite.store, &name, release(a, 1, None)).await,
            2 => Answer::Done,
            _ => {
                open.push(name.key);
                send(suite.store, &name, abandon(a, 1)).await
            }
        };
    }
    for limit in [1, 2, 10] {
        let query = |query: ListQuery| query.with_limit(limit);
        let listed = walk(suite.store, namespace, query(ListQuery::indeterminate())).await;
        let states: Vec<_> = listed.iter().map(|(_, state)| state).collect();
        let are_open = states
            .iter()
            .all(|state| matches!(state, RecordState::Indeterminate { .. }));
        assert!(are_open, "{CASE}: {states:?}");
        assert_eq!(keys(&listed), sorted(&open), "{CASE}, {limit} a page");
        let listed = walk(suite.store, namespace, query(ListQuery::all())).await;
        assert_eq!(keys(&listed), sorted(&all), "{CASE}, {limit} a page");
        for (_, state) in &listed {
            if let RecordState::Cached { stored, .. } = state {
                assert!(
                    stored.outcome.body().is_empty(),
                    "{CASE}: a list has no bodies"
                );
            }
        }
    }
}

/// All pages of a list; a record can be on two of them.
async fn walk(
    store: &dyn Store,
    namespace: &Namespace,
    mut query: ListQuery,
) -> Vec<(IdempotencyKey, RecordState)> {
    const CASE: &str = "case \"a list goes on after a page\"";
    let mut listed = Vec::new();
    for _ in 0..100 {
        let page = match store.list(namespace, &query).await {
            Ok(page) => page,
            Err(error) => panic!("{CASE}: {}", chain(&error)),
        };
        assert!(page.records.len() <= query.limit(), "{CASE}: {page:?}");
        listed.extend(page.records);
        match page.next {
            Some(next) => query = query.after(next),
            None => return listed,
        }
    }
    panic!("{CASE}: there is no last page");
}

fn keys(listed: &[(IdempotencyKey, RecordState)]) -> Vec<IdempotencyKey> {
    sorted(&listed.iter().map(|(key, _)| *key).collect::<Vec<_>>())
}

fn sorted(keys: &[IdempotencyKey]) -> Vec<IdempotencyKey> {
    let mut keys = keys.to_vec();
    keys.sort();
    keys.dedup();
    keys
}

fn crowd() -> impl Iterator<Item = Claim> {
    (0..CROWD).map(|number| Claim {
        lease: LeaseId::from_bytes([number; 16]),
        ..holder(b'A')
    })
}

async fn send(store: &dyn Store, name: &RecordName, step: Move) -> Answer {
    let event = step.event;
    let sent = format!("{event:?}");
    match store.apply(name, event).await {
        Ok(answer) => answer,
        Err(error) => panic!("{sent}: {}", chain(&error)),
    }
}
