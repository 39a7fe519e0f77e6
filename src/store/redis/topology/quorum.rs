//! Asks several servers at once without waiting for the slowest. It gives up on
//! none before somebody has answered.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

/// What each future gave, in their order; `None` where it had not ended `grace`
/// after the success that made `enough` of them.
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
    async fn the_slowest_is_not_waited_for() {
        let ask = |seconds, answer| async move {
            sleep(Duration::from_secs(seconds)).await;
            answer
        };
        let begun = Instant::now();
        let asked = [ask(1, Err(1)), ask(9, Ok(2)), ask(3, Ok(3)), ask(4, Err(4))];
        let answers = collect_answers(asked, 1, Duration::from_secs(2)).await;
        assert_eq!(answers, [Some(Err(1)), None, Some(Ok(3)), Some(Err(4))]);
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        // More than one is waited for, and all of them where there are not so many.
        let asked = [ask(1, Ok(1)), ask(3, Ok(2)), ask(9, Ok(3))];
        let answers = collect_answers(asked, 2, Duration::from_secs(2)).await;
        assert_eq!(answers, [Some(Ok(1)), Some(Ok(2)), None]);
        let asked = [ask(1, Ok(1)), ask(9, Err(2))];
        let answers = collect_answers(asked, 2, Duration::from_secs(2)).await;
        assert_eq!(answers, [Some(Ok(1)), Some(Err(2))]);
        let nobody: [std::future::Ready<Result<(), ()>>; 0] = [];
        assert_eq!(collect_answers(nobody, 1, Duration::ZERO).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn all_may_fail() {
        let asked = [
            std::future::ready(Err::<(), _>(1)),
            std::future::ready(Err(2)),
        ];
        let answers = collect_answers(asked, 1, Duration::ZERO).await;
        assert_eq!(answers, [Some(Err(1)), Some(Err(2))]);
    }
}
