//! Numbers, times and counts as people read them. Nothing but text: no terminal, no clock.

use std::fmt::Write as _;

use crate::model::{Bucket, Counts, Outcome, Progress, Stage, TimeLeft, TypedFinding};

/// A number with commas between its thousands.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun, in the plural where it is not one.
pub(super) fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(count), if count == 1 { "" } else { "s" })
}

/// A stretch of time: `0.4 s`, `12 s`, `3 m 05 s`, `2 h 10 m`.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and less than a century")]
    let whole = seconds.round().min(3e9) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} m {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} m", whole / 3_600, whole % 3_600 / 60),
    }
}

/// A range of time left.
pub(super) fn time_left(left: TimeLeft) -> String {
    let TimeLeft { low_seconds: low, high_seconds: high } = left;
    let unit = |seconds: u64| match seconds {
        0..120 => (1, "s"),
        120..7_200 => (60, "min"),
        _ => (3_600, "h"),
    };
    let (size, name) = unit(high);
    // The upper end is rounded up: better a little early than late.
    let (low, high) = (low / size, high.div_ceil(size));
    if low == high { format!("about {high} {name} left") } else { format!("{low}–{high} {name} left") }
}

/// The outcomes there are, in their order; those that never came up are left out, but for `created`.
pub(super) fn counts(counts: &Counts) -> String {
    let shown = Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Pending);
    let shown = shown.filter(|outcome| *outcome == Outcome::Created || counts.get(*outcome) > 0);
    let shown: Vec<String> =
        shown.map(|outcome| format!("{} {}", outcome.as_str(), number(counts.get(outcome)))).collect();
    shown.join(", ")
}

/// What a stage is called on a narrow screen.
pub(super) const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::CustomResourceDefinitions => "CRDs",
        Stage::PluginOperations => "plugin operations",
        other => other.as_str(),
    }
}

/// Rate and time left, as far as they are known; what is waited for, when nothing moves.
pub(super) fn pace(progress: &Progress) -> String {
    let mut parts = Vec::new();
    if let Some(rate) = progress.items_per_second {
        parts.push(if rate < 10.0 { format!("{rate:.1} items/s") } else { format!("{rate:.0} items/s") });
    }
    parts.extend(progress.time_left.map(time_left));
    if let Some(waiting) = progress.waiting_for.first() {
        let more = progress.waiting_for.len() - 1;
        let mut text = format!("waiting for {} ({})", waiting.object, waiting.request);
        if let Some(reason) = &waiting.reason {
            let _ = write!(text, ": {reason}");
        }
        if more > 0 {
            let _ = write!(text, " and {more} more");
        }
        parts.push(text);
    }
    parts.join(", ")
}

/// How much is done of how much.
pub(super) fn done(progress: &Progress) -> String {
    let (done, total) = if progress.outcomes_known() {
        (progress.outcomes.done(), progress.outcomes.total())
    } else {
        (progress.items_restored, progress.total_items)
    };
    format!("{} of {} items", number(done), number(total))
}

/// A progress on one line, for a pipe or a file.
pub(super) fn line(progress: &Progress) -> String {
    let mut text = format!("{:>3} %  {}", progress.percent(), stage(progress.stage));
    if progress.outcomes.total() > 0 {
        let _ = write!(text, ": {}: {}", done(progress), counts(&progress.outcomes));
    } else if !progress.outcomes_known() {
        let _ = write!(text, ": {}", done(progress));
    }
    let pace = pace(progress);
    if !pace.is_empty() {
        let _ = write!(text, "; {pace}");
    }
    text
}

/// A warning or an error on one line.
pub(super) fn finding(finding: &TypedFinding) -> String {
    let TypedFinding { bucket, reason, message } = finding;
    let place = match bucket {
        Bucket::Velero => "velero".to_owned(),
        Bucket::Cluster => "cluster".to_owned(),
        Bucket::Namespace(namespace) => format!("namespace {namespace}"),
    };
    format!("{place}: {message} ({})", reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing;
    use crate::model::{Phase, Reason, Waiting};

    #[test]
    fn numbers_have_commas() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), text);
        }
        assert_eq!((plural(1, "item"), plural(0, "item")), ("1 item".to_owned(), "0 items".to_owned()));
    }

    #[test]
    fn times_are_as_exact_as_they_are_long() {
        for (value, text) in
            [(0.04, "0.0 s"), (1.26, "1.3 s"), (12.4, "12 s"), (65.0, "1 m 05 s"), (7_860.0, "2 h 11 m")]
        {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn time_left_is_a_range() {
        for ((low_seconds, high_seconds), text) in [
            ((4, 6), "4–6 s left"),
            ((5, 5), "about 5 s left"),
            ((100, 170), "1–3 min left"),
            ((3_600, 9_000), "1–3 h left"),
        ] {
            assert_eq!(time_left(TimeLeft { low_seconds, high_seconds }), text);
        }
    }

    #[test]
    fn a_line_tells_stage_counts_rate_and_time_left() {
        assert_eq!(
            line(&testing::progress()),
            " 60 %  items: 1,800 of 3,000 items: created 1,700, unchanged 40, skipped 50, failed 10; \
             450 items/s, 2–4 s left"
        );
    }

    #[test]
    fn before_planning_there_is_only_a_stage() {
        let progress = Progress { stage: Stage::Collecting, phase: Phase::InProgress, ..Progress::default() };
        assert_eq!(line(&progress), "  0 %  collecting");
    }

    #[test]
    fn a_restore_that_is_only_observed_has_no_outcomes_and_says_what_little_is_known_of_a_stall() {
        let waiting = Waiting {
            object: "Velero".to_owned(),
            request: "restore the next item".to_owned(),
            reason: Some("no progress for 42 s; Velero does not say what it waits for".to_owned()),
        };
        let progress = Progress {
            phase: Phase::InProgress,
            stage: Stage::Items,
            total_items: 1_200,
            items_restored: 300,
            waiting_for: vec![waiting],
            ..Progress::default()
        };
        assert_eq!(
            line(&progress),
            " 25 %  items: 300 of 1,200 items; waiting for Velero (restore the next item): no progress for 42 s; Velero \
             does not say what it waits for"
        );
    }

    #[test]
    fn a_stall_says_what_is_waited_for() {
        let waiting = |object: &str| Waiting {
            object: object.to_owned(),
            request: "wait until it is gone".to_owned(),
            reason: None,
        };
        let progress =
            Progress { waiting_for: vec![waiting("namespace shop"), waiting("namespace b")], ..Progress::default() };
        assert_eq!(pace(&progress), "waiting for namespace shop (wait until it is gone) and 1 more");
    }

    #[test]
    fn a_finding_says_where_and_why() {
        let told = TypedFinding {
            bucket: Bucket::Namespace("shop".to_owned()),
            reason: Reason::Conflict,
            message: "it differs".to_owned(),
        };
        assert_eq!(finding(&told), "namespace shop: it differs (conflict)");
    }
}
