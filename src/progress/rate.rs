//! How fast items are finished, and how long the rest may take: absent rather than wrong.

use std::collections::VecDeque;

use crate::model::TimeLeft;

/// Length of the window that the rate is taken over, in milliseconds: long enough to smooth over one slow tier,
/// short enough that a stall shows.
const WINDOW: i64 = 10_000;

/// Resolution of the window, in milliseconds; 40 numbers are kept.
const STEP: i64 = 250;

/// There is no rate before this time, in milliseconds.
const FIRST_RATE: i64 = 1_000;

/// There is no rate before so many items.
const FEWEST: u64 = 3;

/// There is no time left before this time, in milliseconds, and before so many items: what comes first (namespaces,
/// storage classes) is not what comes most.
const FIRST_ESTIMATE: i64 = 3_000;
const FEWEST_FOR_ESTIMATE: u64 = 20;

/// When the recent and the overall rate differ by more than this factor, the time left cannot be known.
const MOST_SPREAD: f64 = 4.0;

/// Longer estimates are not given, in seconds (a week).
const LONGEST: f64 = 7.0 * 24.0 * 3_600.0;

/// Counts finished items over time; all times are milliseconds that never go back.
#[derive(Debug, Default)]
pub(super) struct Rate {
    since: Option<i64>,
    done: u64,
    steps: VecDeque<(i64, u64)>,
}

impl Rate {
    /// Starts anew at `now`, since what follows is of another kind than what was before.
    pub(super) fn restart(&mut self, now: i64) {
        *self = Self { since: Some(now), ..Self::default() };
    }

    /// One more item is finished.
    pub(super) fn add(&mut self, now: i64) {
        self.add_many(now, 1);
    }

    /// So many more items are finished, which became known at once.
    pub(super) fn add_many(&mut self, now: i64, items: u64) {
        self.since.get_or_insert(now);
        self.done += items;
        let step = now - now.rem_euclid(STEP);
        match self.steps.back_mut() {
            Some((last, count)) if *last == step => *count += items,
            _ => self.steps.push_back((step, items)),
        }
        let begin = window_begin(now);
        while self.steps.front().is_some_and(|(step, _)| *step < begin) {
            self.steps.pop_front();
        }
    }

    /// Items per second over the last seconds.
    pub(super) fn recent(&self, now: i64) -> Option<f64> {
        let since = self.since?;
        if now - since < FIRST_RATE || self.done < FEWEST {
            return None;
        }
        let begin = window_begin(now);
        let count: u64 = self.steps.iter().filter(|(step, _)| *step >= begin).map(|(_, count)| count).sum();
        Some(per_second(count, now - begin.max(since)))
    }

    /// How long `remaining` items may take, between what the recent and the overall rate say, give or take a tenth.
    pub(super) fn time_left(&self, remaining: u64, now: i64) -> Option<TimeLeft> {
        let since = self.since?;
        if remaining == 0 || now - since < FIRST_ESTIMATE || self.done < FEWEST_FOR_ESTIMATE {
            return None;
        }
        let recent = self.recent(now)?;
        let overall = per_second(self.done, now - since);
        let (slow, fast) = (recent.min(overall), recent.max(overall));
        if slow <= 0.0 || fast > slow * MOST_SPREAD {
            return None;
        }
        let (low, high) = (as_f64(remaining) / fast * 0.9, as_f64(remaining) / slow * 1.1);
        (high <= LONGEST).then(|| TimeLeft { low_seconds: seconds(low.floor()), high_seconds: seconds(high.ceil()) })
    }
}

/// The first step that belongs to the window.
fn window_begin(now: i64) -> i64 {
    let begin = now - WINDOW;
    begin - begin.rem_euclid(STEP)
}

fn per_second(count: u64, milliseconds: i64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a rate is no exact number")]
    let seconds = milliseconds.max(1) as f64 / 1_000.0;
    as_f64(count) / seconds
}

#[allow(clippy::cast_precision_loss, reason = "an estimate is no exact number")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and LONGEST")]
const fn seconds(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// `per_second` items each second for `seconds` seconds, from `begin` on.
    fn steadily(rate: &mut Rate, begin: i64, seconds: i64, per_second: i64) -> i64 {
        for number in 0..seconds * per_second {
            rate.add(begin + (number + 1) * 1_000 / per_second);
        }
        begin + seconds * 1_000
    }

    #[test]
    fn a_steady_rate_is_told_and_the_time_left_encloses_the_truth() {
        let mut rate = Rate::default();
        rate.restart(5_000);
        let now = steadily(&mut rate, 5_000, 20, 40);
        let recent = rate.recent(now).unwrap();
        assert!((38.0..=42.0).contains(&recent), "{recent}");
        let left = rate.time_left(400, now).unwrap();
        assert!(left.low_seconds <= 10 && 10 <= left.high_seconds && left.high_seconds <= 13, "{left:?}");
    }

    #[test]
    fn there_is_no_rate_in_the_first_second_nor_of_one_item() {
        let mut rate = Rate::default();
        rate.restart(0);
        for at in 0..10 {
            rate.add(at * 50);
        }
        assert_eq!(rate.recent(999), None);
        assert_eq!(rate.recent(1_000), Some(10.0));
        rate.restart(0);
        rate.add(1);
        assert_eq!(rate.recent(9_000), None);
    }

    #[test]
    fn a_stall_shows_as_no_rate_and_no_time_left() {
        let mut rate = Rate::default();
        rate.restart(0);
        let now = steadily(&mut rate, 0, 20, 40);
        assert_eq!(rate.recent(now + 10_251), Some(0.0));
        assert_eq!(rate.time_left(400, now + 10_251), None);
        // And while the two rates are far apart, nobody knows.
        assert_eq!(rate.time_left(400, now + 9_000), None);
    }

    #[test]
    fn the_time_left_is_absent_when_nothing_is_left_or_it_would_be_weeks() {
        let mut rate = Rate::default();
        rate.restart(0);
        let now = steadily(&mut rate, 0, 20, 40);
        assert_eq!(rate.time_left(0, now), None);
        assert_eq!(rate.time_left(u64::MAX, now), None);
    }
}
