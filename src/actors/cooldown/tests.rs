//! Cooldowns, slow starts, and waiters that leave or end in any way.

use super::*;
use futures_util::FutureExt as _;
use std::pin::Pin;
use tokio::time::{advance, sleep};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

type Passing<'a> = Pin<Box<dyn Future<Output = (Duration, Result<CooldownPass, Duration>)> + 'a>>;

fn action(name: &str) -> ActionId {
    name.parse().unwrap()
}

/// A waiter in its queue.
fn waiting<'a>(cooldowns: &'a Arc<Cooldowns>, action: &'a ActionId, rank: Rank) -> Passing<'a> {
    let mut passing: Passing<'a> = Box::pin(cooldowns.pass(action, rank, HOUR));
    assert!(passing.as_mut().now_or_never().is_none());
    passing
}

fn passed(passing: &mut Passing<'_>) -> Option<CooldownPass> {
    let (_, pass) = passing.as_mut().now_or_never()?;
    Some(pass.unwrap())
}

#[tokio::test(start_paused = true)]
async fn longer_cooldown_stays() {
    let cooldowns = Cooldowns::new(50);
    let action = action("custom_-_1");
    assert!(cooldowns.try_pass(&action).is_some());
    cooldowns.close(None, 10 * SECOND);
    cooldowns.close(None, SECOND);
    assert_eq!(
        (cooldowns.left(), cooldowns.left_for(&action)),
        (10 * SECOND, 10 * SECOND)
    );
    assert!(cooldowns.try_pass(&action).is_none());
    let start = Instant::now();
    let (cooled, pass) = cooldowns.pass(&action, Rank::New, HOUR).await;
    assert_eq!((cooled, start.elapsed()), (10 * SECOND, 10 * SECOND));
    pass.unwrap().succeeded();
    assert!(cooldowns.lock().is_open(&action), "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn relayed_limit_holds_its_action_only() {
    let cooldowns = Cooldowns::new(50);
    let (held, other) = (action("custom_-_1"), action("custom_-_2"));
    cooldowns.close(Some(&held), 5 * SECOND);
    assert!(cooldowns.try_pass(&held).is_none() && cooldowns.try_pass(&other).is_some());
    assert_eq!(
        (cooldowns.left(), cooldowns.left_for(&held)),
        (Duration::ZERO, 5 * SECOND)
    );
    // Both gates have to open.
    cooldowns.close(None, 7 * SECOND);
    let start = Instant::now();
    let pass = cooldowns.pass(&held, Rank::New, HOUR).await.1.unwrap();
    assert_eq!((pass.turns.len(), start.elapsed()), (2, 7 * SECOND));
    // The first gate closes while the second one is waited for.
    let mut next = waiting(&cooldowns, &other, Rank::New);
    let mut again = waiting(&cooldowns, &held, Rank::New);
    cooldowns.close(Some(&held), 5 * SECOND);
    pass.succeeded();
    assert!(passed(&mut next).is_some() && passed(&mut again).is_none());
    sleep(5 * SECOND).await;
    assert!(passed(&mut again).is_some());
}

/// Red without the bound: the map then grows with each refused action. Red if a cooldown with
/// a waiter is dropped: its wait then does not count.
#[tokio::test(start_paused = true)]
async fn cooldowns_of_actions_are_bounded() {
    let cooldowns = Cooldowns::new(50);
    let name = |n: usize| action(&n.to_string());
    let last = 5 * MAX_ACTIONS;
    cooldowns.close(Some(&name(0)), SECOND);
    let first = name(0);
    let mut first = waiting(&cooldowns, &first, Rank::New);
    for n in 1..=last {
        cooldowns.close(Some(&name(n)), SECOND * (n as u32 + 1));
        assert!(cooldowns.lock().actions.len() <= MAX_ACTIONS);
    }
    assert!(passed(&mut first).is_none(), "it is waited for");
    // The longest stay beside it.
    assert!(cooldowns.try_pass(&name(last)).is_none());
    assert!(cooldowns.try_pass(&name(last + 2 - MAX_ACTIONS)).is_none());
    assert!(cooldowns.try_pass(&name(last + 1 - MAX_ACTIONS)).is_some());
    // A full map forgets what is over.
    advance(SECOND * (last as u32 + 1)).await;
    assert!(passed(&mut first).is_some());
    cooldowns.close(Some(&name(last + 1)), SECOND);
    assert_eq!(cooldowns.lock().actions.len(), 1);
}

/// Red if all come at the end of the cooldown, and where a turn is lost with its
/// holder: the others then never come.
#[tokio::test(start_paused = true)]
async fn turns_go_back_however_their_holders_end() {
    let cooldowns = Cooldowns::new(50);
    let action = action("custom_-_1");
    cooldowns.close(None, SECOND);
    let mut queue: Vec<_> = (0..4)
        .map(|_| waiting(&cooldowns, &action, Rank::New))
        .collect();
    let mut refused = waiting(&cooldowns, &action, Rank::Refused);
    advance(SECOND).await;
    let first = passed(&mut refused).expect("what was refused goes first");
    assert!(queue.iter_mut().all(|next| passed(next).is_none()));
    assert!(
        cooldowns.try_pass(&action).is_none(),
        "it overtakes no waiter"
    );
    // Unused, in a future that is dropped, in a channel, in a task that is killed.
    drop(first);
    let second = passed(&mut queue[0]).unwrap();
    let kept = tokio::spawn(async move {
        let _kept = second;
        std::future::pending::<()>().await
    });
    tokio::task::yield_now().await;
    drop(queue.remove(1));
    kept.abort();
    assert!(kept.await.unwrap_err().is_cancelled());
    drop(queue.remove(1));
    let last = passed(&mut queue[1]).unwrap();
    last.sent();
    last.succeeded();
    assert!(cooldowns.lock().is_open(&action));
}

#[tokio::test(start_paused = true)]
async fn silent_call_lets_two_follow() {
    let cooldowns = Cooldowns::new(50);
    let action = action("custom_-_1");
    cooldowns.close(None, SECOND);
    let silent = cooldowns.pass(&action, Rank::New, HOUR).await.1.unwrap();
    sleep(SECOND).await;
    silent.sent();
    let start = Instant::now();
    let two = async {
        tokio::join!(
            cooldowns.pass(&action, Rank::New, HOUR),
            cooldowns.pass(&action, Rank::New, HOUR)
        )
    };
    let ((cooled, one), (_, two)) = two.await;
    assert_eq!((cooled, start.elapsed()), (Duration::ZERO, gate::SILENCE));
    let mut third = waiting(&cooldowns, &action, Rank::New);
    drop((one, two, silent));
    assert!(passed(&mut third).is_some());
}

#[tokio::test(start_paused = true)]
async fn pass_of_earlier_cooldown_is_refused() {
    let cooldowns = Cooldowns::new(50);
    let action = action("custom_-_1");
    let before = cooldowns.try_pass(&action).unwrap();
    assert!(cooldowns.accepts(&before, &action));
    cooldowns.close(None, SECOND);
    assert!(!cooldowns.accepts(&before, &action));
    let first = cooldowns.pass(&action, Rank::New, HOUR).await.1.unwrap();
    assert!(cooldowns.accepts(&first, &action) && !cooldowns.accepts(&before, &action));
    cooldowns.close(None, SECOND);
    assert!(!cooldowns.accepts(&first, &action));
    // Its end is no success of the next cooldown's.
    first.succeeded();
    let second = cooldowns.pass(&action, Rank::New, HOUR).await.1.unwrap();
    assert!(cooldowns.try_pass(&action).is_none());
    second.succeeded();
    assert!(cooldowns.try_pass(&action).is_some());
}

/// The cooldown counts, the wait for a turn does not. Red if a cooldown that grows
/// is noticed at its old end.
#[tokio::test(start_paused = true)]
async fn cooldown_beyond_budget_fails_at_once() {
    let cooldowns = Cooldowns::new(50);
    let action = action("custom_-_1");
    cooldowns.close(None, 5 * SECOND);
    let pass = |budget| cooldowns.pass(&action, Rank::New, budget);
    let (cooled, left) = pass(4 * SECOND).await;
    assert_eq!((cooled, left.unwrap_err()), (Duration::ZERO, 5 * SECOND));
    let start = Instant::now();
    let grows = async {
        sleep(2 * SECOND).await;
        cooldowns.close(None, 5 * SECOND);
    };
    let ((cooled, left), (longer, pass), ()) =
        tokio::join!(pass(6 * SECOND), pass(7 * SECOND), grows);
    assert_eq!((cooled, left.unwrap_err()), (2 * SECOND, 5 * SECOND));
    assert_eq!((longer, start.elapsed()), (7 * SECOND, 7 * SECOND));
    let waits = cooldowns.pass(&action, Rank::New, Duration::ZERO);
    let succeeds = async {
        sleep(SECOND).await;
        pass.unwrap().succeeded();
    };
    let ((cooled, pass), ()) = tokio::join!(waits, succeeds);
    assert!(cooled.is_zero() && pass.is_ok());
}

/// Red if waiters are not woken: they then sleep on for the time that was named.
#[tokio::test(start_paused = true)]
async fn ended_cooldown_lets_one_call_leave() {
    let cooldowns = Cooldowns::new(50);
    let action = action("custom_-_1");
    cooldowns.close(None, HOUR);
    cooldowns.close(Some(&action), HOUR);
    let start = Instant::now();
    let ends = async {
        sleep(SECOND).await;
        cooldowns.end();
    };
    let (one, two, ()) = tokio::join!(
        async {
            let pass = cooldowns.pass(&action, Rank::New, HOUR).await.1.unwrap();
            let at = start.elapsed();
            sleep(SECOND / 2).await;
            pass.succeeded();
            at
        },
        async {
            let _pass = cooldowns.pass(&action, Rank::New, HOUR).await.1.unwrap();
            start.elapsed()
        },
        ends
    );
    assert_eq!(
        (one, two, cooldowns.left()),
        (SECOND, SECOND * 3 / 2, Duration::ZERO)
    );
}
