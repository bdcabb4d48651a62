//! Trying a request again when its failure may pass.

use std::time::Duration;

use tokio::time::Instant;

use super::ports::ApiError;
use crate::model::fault::Lasting;

/// The longest pause that a server gets by asking for it.
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// How often and how patiently a request is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Delay before the second try.
    pub first: Duration,
    /// Longest delay between two tries.
    pub longest: Duration,
    /// Tries in all, of a server that answers.
    pub tries: u32,
    /// How long, besides, a server is tried that is not there: while it is away nothing else goes on either, so giving up
    /// would fail every item that is left.
    pub outage: Duration,
    /// Whether a conflict (409) is tried again as it is: right for a create or a patch without a precondition, such
    /// as one that met a quota being updated.
    pub conflicts: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            // 0.1 + 0.2 + 0.4 + … capped at 10 s, less the spread: 16 to 33 s in all. That outlasts a webhook that is
            // rolled out anew, and stays below the patience of somebody who watches one item.
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            tries: 10,
            // An upgrade of a control plane with one node takes minutes.
            outage: Duration::from_secs(300),
            conflicts: true,
        }
    }
}

impl Backoff {
    /// Whether another try is due after `tried` of them, in a time of `since`.
    fn goes_on(&self, error: &ApiError, tried: u32, since: Duration) -> bool {
        match error.fault().lasting {
            Lasting::Outage => tried < self.tries || since < self.outage,
            Lasting::Moment => tried < self.tries,
            Lasting::Conflict => self.conflicts && tried < self.tries,
            Lasting::Forever => false,
        }
    }

    /// The pause after the given try (counted from 1): doubled each time, shortened by up to a half at random, so
    /// that many items do not come back at the same moment. What the API server asks for wins, and is spread the other
    /// way: up to a quarter longer.
    #[must_use]
    pub fn pause(&self, after_try: u32, error: &ApiError, random: u32) -> Duration {
        match error.retry_after {
            Some(asked) => asked.min(LONGEST_WISH).mul_f64(1.0 + 0.25 * spread(random)),
            None => self.delay(after_try, random),
        }
    }

    /// The same where nobody asks for anything, such as a backup location.
    #[must_use]
    pub fn delay(&self, after_try: u32, random: u32) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(after_try.saturating_sub(1)).unwrap_or(u32::MAX));
        let longest = doubled.min(self.longest);
        longest.mul_f64(0.5 + 0.5 * spread(random))
    }
}

/// A random number as a part of one.
fn spread(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

/// Counts the tries of the requests that write one item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts(pub u32);

/// Runs `request` until it succeeds, fails for good, or the tries are used up; adds its tries to `attempts`.
pub async fn retrying<T, F, R>(backoff: Backoff, attempts: &mut Attempts, mut request: F) -> Result<T, ApiError>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T, ApiError>>,
{
    let (mut tried, begun) = (0, Instant::now());
    loop {
        tried += 1;
        attempts.0 += 1;
        match request().await {
            Err(error) if backoff.goes_on(&error, tried, begun.elapsed()) => {
                // Without a random source the pause is merely not spread.
                let random = getrandom::u32().unwrap_or(u32::MAX);
                tokio::time::sleep(backoff.pause(tried, &error, random)).await;
            }
            answer => return answer,
        }
    }
}

/// The same, of a request whose tries nobody counts.
pub async fn patiently<T, F, R>(request: F) -> Result<T, ApiError>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T, ApiError>>,
{
    retrying(Backoff::default(), &mut Attempts::default(), request).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn busy() -> ApiError {
        ApiError::status(503, "ServiceUnavailable", "busy")
    }

    #[test]
    fn the_pause_doubles_up_to_its_ceiling_and_the_servers_wish_wins() {
        let backoff = Backoff::default();
        let pauses: Vec<u128> = (1..=9).map(|n| backoff.pause(n, &busy(), u32::MAX).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.pause(1, &busy(), 0).as_millis(), 50);
        let asked = ApiError { retry_after: Some(Duration::from_secs(7)), ..busy() };
        assert_eq!(backoff.pause(9, &asked, 0), Duration::from_secs(7));
        assert_eq!(
            backoff.pause(9, &asked, u32::MAX),
            Duration::from_millis(8750),
            "those who wait do not come at once"
        );
        let greedy = ApiError { retry_after: Some(Duration::from_secs(86_400)), ..busy() };
        assert_eq!(backoff.pause(1, &greedy, u32::MAX), Duration::from_secs(75));
        assert_eq!(backoff.pause(u32::MAX, &busy(), u32::MAX), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_outlasted_and_a_lasting_one_is_not_repeated() {
        let (mut attempts, mut left) = (Attempts::default(), 3);
        let answer = retrying(Backoff::default(), &mut attempts, || {
            left -= 1;
            std::future::ready(if left > 0 { Err(busy()) } else { Ok("done") })
        })
        .await;
        assert_eq!((answer, attempts), (Ok("done"), Attempts(3)));

        let mut attempts = Attempts::default();
        let refused = ApiError::status(422, "Invalid", "no");
        let answer: Result<(), _> =
            retrying(Backoff::default(), &mut attempts, || std::future::ready(Err(refused.clone()))).await;
        assert_eq!((answer.unwrap_err(), attempts), (refused, Attempts(1)));
    }

    /// How many tries a failure gets that never ends, and how long they take.
    async fn given_up(backoff: Backoff, error: ApiError) -> (u32, Duration) {
        let (mut attempts, begun) = (Attempts::default(), Instant::now());
        let answer: Result<(), _> = retrying(backoff, &mut attempts, || std::future::ready(Err(error.clone()))).await;
        assert_eq!(answer.unwrap_err(), error);
        (attempts.0, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_gets_ten_tries_and_one_that_is_away_five_minutes() {
        use crate::engine::ports::ApiErrorKind;
        let seconds = Duration::from_secs;
        let (tries, took) = given_up(Backoff::default(), busy()).await;
        assert_eq!(tries, 10);
        assert!(seconds(16) < took && took < seconds(33), "{took:?}");
        let conflict = ApiError::status(409, "Conflict", "modified");
        assert_eq!(given_up(Backoff::default(), conflict.clone()).await.0, 10);
        let strict = Backoff { conflicts: false, ..Backoff::default() };
        assert_eq!(given_up(strict, conflict).await, (1, Duration::ZERO));
        let starting =
            ApiError::status(503, "", "the request has been made before all known HTTP paths have been installed");
        for away in [ApiError::transport(ApiErrorKind::Connection, "connection refused"), starting] {
            let (tries, took) = given_up(Backoff::default(), away).await;
            assert!(seconds(300) <= took && took < seconds(310) && tries > 30, "{tries} in {took:?}");
        }
        let silent = ApiError::transport(ApiErrorKind::Timeout, "no answer within 60 seconds");
        assert_eq!(given_up(Backoff::default(), silent).await.0, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn items_that_fail_together_do_not_come_back_together() {
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let begun = Instant::now();
            let mut tried = 0;
            let _: Result<(), _> = retrying(Backoff::default(), &mut Attempts::default(), || {
                tried += 1;
                if tried == 2 {
                    first.insert(begun.elapsed().as_millis());
                }
                std::future::ready(if tried < 2 { Err(busy()) } else { Ok(()) })
            })
            .await;
        }
        assert!(first.iter().all(|pause| (50..=101).contains(pause)), "{first:?}");
        assert!(first.len() > 5, "{first:?}");
    }
}
