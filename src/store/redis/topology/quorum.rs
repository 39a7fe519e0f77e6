//! Asks several servers at once without waiting for the slowest. It drops no request
//! before enough servers have answered.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

/// The results of the futures, in their order; `None` for a future that has not ended
/// `grace` after the success number `enough`.
pub(crate) async fn collect_answers<T, E>(
    asked: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>,
    enough: usize,
    grace: Duration,
) -> Vec<Option<Result<T, E>>> {
    let mut running: FuturesUnordered<_> = asked
        .into_iter()
        .enumerate()
        .map(|(number, answer)| async move { (number, answer.await) })
        .collect();
    let mut answers: Vec<_> = (0..running.len()).map(|_| None).collect();
    let (mut until, mut successes) = (None, 0);
    loop {
        let next = match until {
            None => running.next().await,
            Some(until) => timeout_at(until, running.next()).await.ok().flatten(),
        };
        let Some((number, answer)) = next else {
            return answers;
        };
        successes += usize::from(answer.is_ok());
        if successes >= enough && until.is_none() {
            until = Some(Instant::now() + grace);
        }
        answers[number] = Some(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn slowest_server_is_dropped_after_grace() {
        let ask = |seconds, answer| async move {
            sleep(Duration::from_secs(seconds)).await;
            answer
        };
        let begun = Instant::now();
        let asked = [ask(1, Err(1)), ask(9, Ok(2)), ask(3, Ok(3)), ask(4, Err(4))];
        let answers = collect_answers(asked, 1, Duration::from_secs(2)).await;
        assert_eq!(answers, [Some(Err(1)), None, Some(Ok(3)), Some(Err(4))]);
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        // Waits for more than one, and for all of them where there are fewer.
        let asked = [ask(1, Ok(1)), ask(3, Ok(2)), ask(9, Ok(3))];
        let answers = collect_answers(asked, 2, Duration::from_secs(2)).await;
        assert_eq!(answers, [Some(Ok(1)), Some(Ok(2)), None]);
        let asked = [ask(1, Ok(1)), ask(9, Err(2))];
        let answers = collect_answers(asked, 2, Duration::from_secs(2)).await;
        assert_eq!(answers, [Some(Ok(1)), Some(Err(2))]);
        let none: [std::future::Ready<Result<(), ()>>; 0] = [];
        assert_eq!(collect_answers(none, 1, Duration::ZERO).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_returned_without_success() {
        let asked = [
            std::future::ready(Err::<(), _>(1)),
            std::future::ready(Err(2)),
        ];
        let answers = collect_answers(asked, 1, Duration::ZERO).await;
        assert_eq!(answers, [Some(Err(1)), Some(Err(2))]);
    }
}
