//! Trying a request again when its failure may pass.

use std::time::Duration;

use super::ports::ApiError;

/// How often and how patiently a request is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Delay before the second try.
    pub first: Duration,
    /// Longest delay between two tries.
    pub longest: Duration,
    /// Tries in all.
    pub tries: u32,
    /// Whether a conflict (409) is tried again as it is: right for a create or a patch without a precondition, such
    /// as one that met a quota being updated.
    pub conflicts: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        // 0.1 + 0.2 + 0.4 + … capped at 10 s: about 40 s in all. That outlasts a rolling restart of an API server
        // behind a load balancer, and stays below the patience of somebody who watches one item.
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(10), tries: 10, conflicts: true }
    }
}

impl Backoff {
    fn covers(&self, error: &ApiError) -> bool {
        error.is_retryable() && (self.conflicts || !error.is_conflict())
    }

    /// The pause after the given try (counted from 1): doubled each time, shortened by up to a half at random, so
    /// that many items do not come back at the same moment. What the API server asks for wins.
    #[must_use]
    pub fn pause(&self, after_try: u32, error: &ApiError, random: u32) -> Duration {
        if let Some(asked) = error.retry_after {
            return asked.min(Duration::from_secs(60));
        }
        self.delay(after_try, random)
    }

    /// The same where nobody asks for anything, such as a backup location.
    #[must_use]
    pub fn delay(&self, after_try: u32, random: u32) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(after_try.saturating_sub(1)).unwrap_or(u32::MAX));
        let longest = doubled.min(self.longest);
        longest.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
    }
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
    let mut tried = 0;
    loop {
        tried += 1;
        attempts.0 += 1;
        match request().await {
            Err(error) if backoff.covers(&error) && tried < backoff.tries => {
                // Without a random source the pause is merely not spread.
                let random = getrandom::u32().unwrap_or(u32::MAX);
                tokio::time::sleep(backoff.pause(tried, &error, random)).await;
            }
            answer => return answer,
        }
    }
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
}
