//! What is written to a Restore: the patches as pure values, and the task that writes progress.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::operations::Counts;
use super::records::Records;
use crate::model::{Phase, Progress};
use crate::progress::RestoreProgress;
use crate::velero::{HookStatus, RestoreSpec};

/// At most one progress write per second and restore (restore-semantics 6.2).
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// RFC 3339 in UTC with whole seconds, as Kubernetes writes times.
#[must_use]
pub fn timestamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The parts of the specification that the controller writes: defaults and what was resolved.
fn spec_patch(spec: &RestoreSpec) -> Value {
    let mut patch = json!({
        "excludedResources": spec.excluded_resources,
        "itemOperationTimeout": spec.item_operation_timeout,
    });
    if !spec.backup_name.is_empty() {
        patch["backupName"] = json!(spec.backup_name);
    }
    if !spec.schedule_name.is_empty() {
        patch["scheduleName"] = json!(spec.schedule_name);
    }
    patch
}

/// New → FailedValidation.
#[must_use]
pub fn failed_validation(spec: &RestoreSpec, errors: &[String]) -> Value {
    json!({
        "spec": spec_patch(spec),
        "status": {"phase": Phase::FailedValidation.as_str(), "validationErrors": errors},
    })
}

/// New → InProgress.
#[must_use]
pub fn in_progress(spec: &RestoreSpec, now: Timestamp) -> Value {
    json!({
        "spec": spec_patch(spec),
        "status": {"phase": Phase::InProgress.as_str(), "startTimestamp": timestamp(now)},
    })
}

/// InProgress → Failed.
#[must_use]
pub fn failed(reason: &str, now: Timestamp) -> Value {
    json!({"status": {
        "phase": Phase::Failed.as_str(),
        "failureReason": reason,
        "completionTimestamp": timestamp(now),
    }})
}

/// InProgress → a phase that waits for operations, or a finalizing one; and from one to the other. Counts of zero are left
/// out.
#[must_use]
pub(super) fn after_items(phase: Phase, warnings: usize, errors: usize, operations: Counts) -> Value {
    let Counts { attempted, completed, failed } = operations;
    let mut status = counts([
        ("warnings", warnings),
        ("errors", errors),
        ("restoreItemOperationsAttempted", attempted),
        ("restoreItemOperationsCompleted", completed),
        ("restoreItemOperationsFailed", failed),
    ]);
    status.insert("phase".to_owned(), json!(phase.as_str()));
    json!({ "status": status })
}

/// Finalizing → Completed or PartiallyFailed. The hook status is there in any case, empty where there was no hook.
#[must_use]
pub fn ended(phase: Phase, warnings: usize, errors: usize, hooks: &HookStatus, now: Timestamp) -> Value {
    let mut status = counts([("warnings", warnings), ("errors", errors)]);
    status.insert("phase".to_owned(), json!(phase.as_str()));
    status.insert("completionTimestamp".to_owned(), json!(timestamp(now)));
    status.insert("hookStatus".to_owned(), json!(hooks));
    json!({ "status": status })
}

fn counts<const N: usize>(counted: [(&str, usize); N]) -> Map<String, Value> {
    counted.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), json!(count))).collect()
}

/// `status.progress`; a count of zero is not there, and is taken away should it be.
#[must_use]
pub fn progress(total_items: u64, items_restored: u64) -> Value {
    let count = |count: u64| if count == 0 { Value::Null } else { json!(count) };
    json!({"status": {"progress": {"totalItems": count(total_items), "itemsRestored": count(items_restored)}}})
}

/// Writes `status.progress` while items are restored: at most once a second, not when nothing changed.
///
/// Ends when `stop` fires; the last value is then the caller's to write, so that it is written in any case. A write
/// that fails is logged and made up for by the next, as each carries the newest value.
pub async fn write_progress(records: Records, followed: Arc<RestoreProgress>, stop: CancellationToken) {
    let mut written = (0, 0);
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let latest: Progress = followed.snapshot();
        let value = (latest.total_items, latest.items_restored);
        // Nothing is known of the total before the plan is there.
        if value == written || latest.items_restored == 0 {
            continue;
        }
        match records.patch(followed.name(), &progress(value.0, value.1)).await {
            Ok(_) => written = value,
            Err(error) => {
                tracing::warn!(restore = %followed.name(), %error, "progress could not be written; the next write makes up for it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_zero_are_left_out() {
        assert_eq!(after_items(Phase::Finalizing, 0, 0, Counts::default()), json!({"status": {"phase": "Finalizing"}}));
        let operations = Counts { attempted: 3, completed: 1, failed: 0 };
        assert_eq!(
            after_items(Phase::WaitingForPluginOperationsPartiallyFailed, 2, 1, operations),
            json!({"status": {"phase": "WaitingForPluginOperationsPartiallyFailed", "warnings": 2, "errors": 1,
                "restoreItemOperationsAttempted": 3, "restoreItemOperationsCompleted": 1}})
        );
    }

    #[test]
    fn a_progress_of_nothing_is_an_empty_object() {
        // A merge patch drops null members also where the object was not there before.
        assert_eq!(progress(0, 0), json!({"status": {"progress": {"totalItems": null, "itemsRestored": null}}}));
    }
}
