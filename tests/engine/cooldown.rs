//! How long executions wait after a 429: the limit of one requested wait, and the limit of
//! the sum of all waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, Error, Reply, RetryHint, RetryPolicy};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::{SECOND, request, until};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn engine(upstream: &ScriptedUpstream) -> Engine {
    Engine::builder(upstream.clone()).start().await.unwrap()
}

pub fn ask(engine: &Engine, payload: impl ToString) -> JoinHandle<Result<Reply, Error>> {
    let (engine, request) = (engine.clone(), request(&payload.to_string()));
    tokio::spawn(async move { engine.execute_within(request, 48 * HOUR).await })
}

/// A 429 with these headers.
pub fn limit(headers: &[(&str, &str)]) -> Step {
    let step = Step::status(429, "{}");
    headers
        .iter()
        .fold(step, |step, (name, value)| step.header(name, value))
}

fn hint(error: &Error) -> Duration {
    match error.hint() {
        RetryHint::After(wait) => wait,
        other => panic!("{error}: {other:?}"),
    }
}

/// Seen red: with `Retry-After: 1` the third 429 ended the execution.
#[tokio::test(start_paused = true)]
async fn requested_waits_count_as_no_attempt() {
    for (refusals, asked) in [(6, 1), (12, 0), (8, 20), (1, 180)] {
        let upstream = ScriptedUpstream::new(move |call| match call.attempt() {
            n if n <= refusals => limit(&[("retry-after", &asked.to_string())]),
            _ => Step::ok("{}"),
        });
        let engine = engine(&upstream).await;
        let begun = Instant::now();
        engine.execute(request("{}")).await.unwrap();
        assert_eq!(upstream.ledger().total(), refusals as usize + 1);
        // The waits do not double: each is the requested time, or the first backoff.
        let each = Duration::from_secs(asked).max(2 * SECOND);
        let most = Duration::from_secs(asked).max(3 * SECOND) + SECOND / 10;
        let took = begun.elapsed();
        assert!(
            (each * refusals..most * refusals).contains(&took),
            "{took:?}"
        );
    }
}

/// Seen red: three POSTs within 3 ms, and a retry hint of zero.
#[tokio::test(start_paused = true)]
async fn no_wait_is_shorter_than_the_backoff() {
    let past = ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT");
    let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
    for headers in [
        &[("retry-after", "0")][..],
        &[past],
        &[past, date],
        &[("retry-after", "-7"), ("retry-after", "0")],
        &[("retry-after", "0"), past],
    ] {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = calls.clone();
        let headers: Vec<_> = headers.to_vec();
        let upstream = ScriptedUpstream::new(move |_| {
            seen.lock().unwrap().push(Instant::now());
            limit(&headers)
        });
        let engine = Engine::builder(upstream);
        let retry = RetryPolicy::default().max_wait(60 * SECOND);
        let engine = engine.retry(retry).start().await.unwrap();
        let error = engine.execute(request("{}")).await.unwrap_err();
        assert!(hint(&error) >= 2 * SECOND, "{error:?}");
        let calls = calls.lock().unwrap();
        assert!((20..=31).contains(&calls.len()), "{}", calls.len());
        for pair in calls.windows(2) {
            let wait = pair[1] - pair[0];
            assert!((2 * SECOND..=3 * SECOND).contains(&wait), "{wait:?}");
        }
    }
}

/// Seen red: the `Date` header of the answer was not read, and ten seconds became zero.
#[tokio::test(start_paused = true)]
async fn dates_are_read_by_the_peers_clock() {
    for (date, until) in [
        (
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "Wed, 21 Oct 2015 07:28:17 GMT",
        ),
        (
            "Fri, 31 Dec 2055 23:59:43 GMT",
            "Sat, 01 Jan 2056 00:00:00 GMT",
        ),
    ] {
        let upstream = ScriptedUpstream::new(move |call| match call.attempt() {
            1 => limit(&[("date", date), ("retry-after", until)]),
            _ => Step::ok("{}"),
        });
        let engine = Engine::builder(upstream.clone());
        let engine = engine.deterministic(1, SystemTime::UNIX_EPOCH + 20_000 * 24 * HOUR);
        let engine = engine.start().await.unwrap();
        let begun = Instant::now();
        engine.execute(request("{}")).await.unwrap();
        let took = begun.elapsed();
        assert!((17 * SECOND..18 * SECOND).contains(&took), "{took:?}");
    }
}

/// Seen red: the engine sent nothing for 30 days. After an hour one call probes; if it
/// succeeds, the others follow, otherwise none does.
#[tokio::test(start_paused = true)]
async fn absurd_retry_after_is_capped_with_probe() {
    for value in [
        "1764200000",
        "2592000",
        "99999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let bad = Arc::new(AtomicUsize::new(2));
        let left = bad.clone();
        let upstream = ScriptedUpstream::new(move |_| {
            let refused =
                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            match refused {
                Ok(_) => limit(&[("retry-after", value)]).after(SECOND),
                Err(_) => Step::ok("{}").after(SECOND),
            }
        });
        let engine = engine(&upstream).await;
        let begun = Instant::now();
        let error = engine.execute(request("0")).await.unwrap_err();
        assert_eq!(hint(&error), HOUR);
        assert_eq!(engine.stats().cooldown, HOUR);
        // A call of another action gets the error too, and at once.
        let other = DataActionRequest::new("custom_-_other", "{}").unwrap();
        let error = engine.execute(other).await.unwrap_err();
        assert_eq!((hint(&error), upstream.ledger().total()), (HOUR, 1));
        // The first probe is refused; the second succeeds.
        for (hours, successes) in [(1, 0), (2, 40)] {
            sleep_until(begun + SECOND + hours * (HOUR + 2 * SECOND)).await;
            let before = upstream.ledger().total();
            let crowd: Vec<_> = (0..40).map(|n| ask(&engine, n)).collect();
            sleep(SECOND / 2).await;
            assert_eq!(upstream.ledger().total() - before, 1, "one probe");
            let mut good = 0;
            for caller in crowd {
                good += usize::from(caller.await.unwrap().is_ok());
            }
            assert_eq!(good, successes, "{value}");
        }
    }
}

/// A fixed window of this many calls; calls beyond it get a 429.
fn window(calls: usize, length: Duration, asked: Option<u64>) -> ScriptedUpstream {
    let begun = Instant::now();
    let counts = Mutex::new(BTreeMap::new());
    ScriptedUpstream::new(move |_| {
        let now = begun.elapsed().as_millis() / length.as_millis();
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(now).or_insert(0);
        *count += 1;
        let step = match asked {
            _ if *count <= calls => Step::ok("{}"),
            Some(seconds) => limit(&[("retry-after", &seconds.to_string())]),
            None => limit(&[]),
        };
        step.after(Duration::from_millis(7))
    })
}

/// Seen red: 15 of 30 with the first window, since each wave used up the attempts.
#[tokio::test(start_paused = true)]
async fn burst_beyond_one_window_is_fully_answered() {
    for (calls, length, asked, crowd) in [
        (5, SECOND, Some(1), 30),
        (1, SECOND, Some(0), 20),
        (3, 4 * SECOND, Some(2), 60),
        (7, SECOND, Some(1), 200),
        (40, 10 * SECOND, Some(10), 500),
    ] {
        let upstream = window(calls, length, asked);
        let engine = engine(&upstream).await;
        let callers: Vec<_> = (0..crowd).map(|n| ask(&engine, n)).collect();
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
        // Each window ends with a handful of refusals, not with a refusal of every caller.
        let refused = upstream.ledger().total() - crowd;
        assert!(
            refused <= 50 + (crowd / calls) * (2 * calls + 1),
            "{refused}"
        );
        assert!(engine.stats().backlog.executions() == 0);
    }
}

/// Seen red: only the callers' deadlines ended a cooldown that begins again and again.
#[tokio::test(start_paused = true)]
async fn endless_limit_ends_every_wait() {
    for asked in ["1", "0", "30", "179"] {
        let upstream = ScriptedUpstream::new(move |_| limit(&[("retry-after", asked)]));
        let engine = engine(&upstream).await;
        let begun = Instant::now();
        let crowd: Vec<_> = (0..300).map(|n| ask(&engine, n)).collect();
        for caller in crowd {
            let error = caller.await.unwrap().unwrap_err();
            assert!(matches!(error, Error::RateLimited { .. }), "{error}");
            assert!(hint(&error) >= SECOND, "{error:?}");
        }
        assert!(begun.elapsed() <= 181 * SECOND, "{:?}", begun.elapsed());
        let calls = upstream.ledger().total();
        assert!(calls <= 50 + 91, "{asked}: {calls} calls");
        until("every permit is given back", || {
            engine.stats().executions == 0
        })
        .await;
    }
}

/// Seen red: each wait was measured alone, and cooldowns that other executions began did
/// not count.
#[tokio::test(start_paused = true)]
async fn longest_wait_is_a_sum() {
    let refused = |first: u64| {
        ScriptedUpstream::new(move |call| match (&call.body()[..], call.attempt()) {
            (b"1", 1) => limit(&[("retry-after", &first.to_string())]),
            (b"2", _) => limit(&[("retry-after", "100")]),
            _ => Step::ok("{}"),
        })
    };
    for (first, calls) in [(100, 1), (79, 2), (81, 1)] {
        let upstream = refused(first);
        let engine = engine(&upstream).await;
        let one = ask(&engine, 1);
        until("the cooldown has begun", || {
            !engine.stats().cooldown.is_zero()
        })
        .await;
        let begun = Instant::now();
        // The execution waits for the first cooldown, and then for its own.
        let error = engine.execute(request("2")).await.unwrap_err();
        assert!(matches!(error, Error::RateLimited { .. }), "{error}");
        assert_eq!(hint(&error), 100 * SECOND);
        let took = begun.elapsed().as_secs();
        assert_eq!(took, first + 100 * (calls - 1));
        one.await.unwrap().unwrap();
        assert_eq!(upstream.ledger().total() as u64, 2 + calls);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_never_ignores_retry_after() {
    for headers in [&[][..], &[("retry-after", "0")], &[("retry-after", "1")]] {
        for retry in [RetryPolicy::never(), RetryPolicy::default().attempts(1)] {
            let headers: Vec<_> = headers.to_vec();
            let upstream = ScriptedUpstream::new(move |_| limit(&headers));
            let engine = Engine::builder(upstream.clone()).retry(retry);
            let engine = engine.start().await.unwrap();
            let error = engine.execute(request("{}")).await.unwrap_err();
            assert!(matches!(error, Error::RateLimited { .. }), "{error}");
            assert!(hint(&error) >= 2 * SECOND);
            assert_eq!(upstream.ledger().total(), 1);
            // No call is sent into the cooldown that it met either.
            sleep(SECOND).await;
            let second = ask(&engine, 2);
            sleep(SECOND / 2).await;
            assert_eq!(upstream.ledger().total(), 1);
            assert!(second.await.unwrap().is_err());
            assert_eq!(upstream.ledger().total(), 2);
        }
    }
}

/// A backoff of zero must not cause a busy loop.
#[tokio::test(start_paused = true)]
async fn endless_limit_ends_without_backoff() {
    let upstream = ScriptedUpstream::new(|_| limit(&[("retry-after", "0")]));
    let retry = RetryPolicy::default()
        .backoff(Duration::ZERO)
        .max_wait(SECOND);
    let engine = Engine::builder(upstream.clone()).retry(retry);
    let engine = engine.start().await.unwrap();
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(hint(&error) >= SECOND / 10, "{error:?}");
    assert!(upstream.ledger().total() <= 101);
}

/// Seen red: the hint was 1 s while 99 s were known.
#[tokio::test(start_paused = true)]
async fn deadline_error_hints_remaining_cooldown() {
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => limit(&[("retry-after", "100")]),
        _ => Step::ok("{}").after(9 * SECOND),
    });
    let engine = engine(&upstream).await;
    for (limit, left) in [(SECOND, 99 * SECOND), (60 * SECOND, 39 * SECOND)] {
        let error = engine
            .execute_within(request("1"), limit)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
        assert_eq!(hint(&error), left);
    }
    sleep(40 * SECOND).await;
    let error = engine
        .execute_within(request("1"), SECOND)
        .await
        .unwrap_err();
    assert_eq!(
        hint(&error),
        SECOND,
        "the execution is under way: {error:?}"
    );
}
