//! What a restore came to, in text.

use std::collections::BTreeMap;

use super::text;
use crate::model::{ItemState, Phase, Reason, TypedFinding};
use crate::service::{RestoreResults, RestoreView};

/// So many failed items of one reason, and so many warnings and errors, are told; the rest is counted.
const SHOWN: usize = 10;

/// So many failed items are asked for.
pub(super) const FAILED_ASKED: u32 = 1_000;

/// A restore that is over.
pub(super) struct Summary<'a> {
    /// The Restore.
    pub(super) view: &'a RestoreView,
    /// The first of the failed items.
    pub(super) failed: &'a [ItemState],
    /// Warnings and errors.
    pub(super) results: &'a RestoreResults,
}

impl Summary<'_> {
    /// The text, line by line.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { view, failed, results } = self;
        let progress = &view.progress;
        let place = if view.sandbox { " in the sandbox" } else { "" };
        if view.phase == Phase::FailedValidation {
            let mut lines = vec![format!("Restore {} was refused{place}; nothing was restored", view.name)];
            lines.extend(view.validation_errors.iter().map(|error| format!("  not valid: {error}")));
            return lines;
        }
        let known = progress.outcomes_known();
        let mut lines = vec![format!(
            "Restore {} {}{place} after {}: {}",
            view.name,
            ended(view.phase),
            text::seconds(progress.elapsed_seconds),
            text::plural(if known { progress.outcomes.total() } else { progress.items_restored }, "item"),
        )];
        lines.push(if known {
            format!("  {}", text::counts(&progress.outcomes))
        } else {
            format!("  outcomes are in its files: reprise restore items {}", view.name)
        });
        if progress.outcomes.pending > 0 {
            lines.push(format!("  not done: {}", text::number(progress.outcomes.pending)));
        }
        if let Some(reason) = &view.failure_reason {
            lines.push(format!("  reason: {reason}"));
        }
        self.failures(failed, &mut lines);
        let all = |kept: &[TypedFinding], counted: u64| counted.max(u64::try_from(kept.len()).unwrap_or(u64::MAX));
        findings("error", &results.errors, all(&results.errors, view.errors), &mut lines);
        findings("warning", &results.warnings, all(&results.warnings, view.warnings), &mut lines);
        lines
    }

    fn failures(&self, failed: &[ItemState], lines: &mut Vec<String>) {
        let mut by_reason: BTreeMap<Reason, Vec<&ItemState>> = BTreeMap::new();
        for item in failed {
            by_reason.entry(item.reason.unwrap_or(Reason::Other)).or_default().push(item);
        }
        let counted = &self.view.progress.failures;
        for (reason, items) in by_reason {
            let kept = u64::try_from(items.len()).unwrap_or(u64::MAX);
            let count = counted.get(&reason).copied().unwrap_or(0).max(kept);
            lines.push(format!("  failed, {}: {}", reason.as_str(), text::plural(count, "item")));
            for item in items.iter().take(SHOWN) {
                let message = item.message.as_deref().unwrap_or_default();
                lines.push(format!("    {} {message}", item.key).trim_end().to_owned());
            }
            more(count, lines);
        }
    }
}

fn findings(noun: &str, kept: &[TypedFinding], count: u64, lines: &mut Vec<String>) {
    if count == 0 {
        return;
    }
    lines.push(format!("  {}:", text::plural(count, noun)));
    lines.extend(kept.iter().take(SHOWN).map(|finding| format!("    {}", text::finding(finding))));
    more(count, lines);
}

fn more(count: u64, lines: &mut Vec<String>) {
    let shown = u64::try_from(SHOWN).unwrap_or(u64::MAX);
    if count > shown {
        lines.push(format!("    and {} more", text::number(count - shown)));
    }
}

const fn ended(phase: Phase) -> &'static str {
    match phase {
        Phase::Completed => "completed",
        Phase::PartiallyFailed => "partially failed",
        Phase::Failed => "failed",
        _ => "is not over",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cli::testing;
    use crate::model::{Bucket, Outcome, Progress};

    #[test]
    fn a_summary_groups_failures_by_reason_and_lists_what_was_found() {
        let view = RestoreView { phase: Phase::PartiallyFailed, warnings: 0, ..testing::view() };
        let failed: Vec<ItemState> = (0..11)
            .map(|number| testing::item(&format!("c{number}"), Outcome::Failed, Some(Reason::Conflict)))
            .chain([testing::item("q", Outcome::Failed, Some(Reason::Quota))])
            .collect();
        let error = TypedFinding { bucket: Bucket::Cluster, reason: Reason::Quota, message: "too much".to_owned() };
        let results = RestoreResults { errors: vec![error], warnings: Vec::new(), complete: true };
        let lines = Summary { view: &view, failed: &failed, results: &results }.lines();
        assert_eq!(lines[0], "Restore again partially failed in the sandbox after 4.5 s: 3,000 items");
        assert_eq!(lines[1], "  created 1,700, unchanged 40, skipped 50, failed 10");
        assert_eq!(lines[3], "  failed, conflict: 11 items");
        assert_eq!(lines[4], "    v1/ConfigMap shop/c0 the API server said no");
        assert_eq!(lines[14], "    and 1 more");
        assert_eq!(lines[15], "  failed, quota: 1 item");
        assert_eq!(lines[17], "  1 error:");
        assert_eq!(lines[18], "    cluster: too much (quota)");
        assert_eq!(lines.len(), 19);
    }

    #[test]
    fn where_outcomes_are_not_known_none_are_told() {
        let progress = Progress { total_items: 38, items_restored: 38, elapsed_seconds: 90.0, ..Progress::default() };
        let view = RestoreView {
            phase: Phase::Completed,
            progress: Arc::new(progress),
            sandbox: false,
            warnings: 0,
            errors: 0,
            ..testing::view()
        };
        let lines = Summary { view: &view, failed: &[], results: &RestoreResults::default() }.lines();
        assert_eq!(
            lines,
            [
                "Restore again completed after 1 m 30 s: 38 items",
                "  outcomes are in its files: reprise restore items again",
            ]
        );
    }

    #[test]
    fn a_refused_restore_says_why() {
        let view = RestoreView {
            phase: Phase::FailedValidation,
            validation_errors: vec!["no such backup".to_owned()],
            warnings: 0,
            errors: 0,
            ..testing::view()
        };
        let lines = Summary { view: &view, failed: &[], results: &RestoreResults::default() }.lines();
        assert!(lines.contains(&"  not valid: no such backup".to_owned()), "{lines:?}");
    }
}
