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

/// Any phase → Failed, of a restore that was cancelled. Counts of zero are left out.
#[must_use]
pub(super) fn cancelled(reason: &str, warnings: usize, errors: usize, operations: Counts, now: Timestamp) -> Value {
    let mut patch = after_items(Phase::Failed, warnings, errors, operations);
    patch["status"]["failureReason"] = json!(reason);
    patch["status"]["completionTimestamp"] = json!(timestamp(now));
    patch
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
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::testing::{Log, records};
    use super::*;
    use crate::engine::events::{Event, Events, Finished, KnownItem, VeleroCount};
    use crate::model::{GroupResource, ItemId, ItemKey, Origin, Outcome, Stage};
    use crate::progress::{self, Hub};

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.678Z".parse().unwrap()
    }

    /// restore-semantics 1.1 and 1.6
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

    /// restore-semantics 6.2
    #[test]
    fn a_progress_of_nothing_is_an_empty_object() {
        // A merge patch drops null members also where the object was not there before.
        assert_eq!(progress(0, 0), json!({"status": {"progress": {"totalItems": null, "itemsRestored": null}}}));
        assert_eq!(progress(7, 3), json!({"status": {"progress": {"totalItems": 7, "itemsRestored": 3}}}));
    }

    /// restore-semantics 1.6: one patch has phase, start and what was resolved; 1.1: seconds in UTC.
    #[test]
    fn acceptance_is_one_patch_of_phase_start_and_defaults() {
        let spec: RestoreSpec = serde_json::from_value(json!({"backupName": "b", "scheduleName": "s",
            "excludedResources": ["nodes"], "itemOperationTimeout": "4h0m0s", "includedNamespaces": ["a"]}))
        .unwrap();
        let resolved = json!({"backupName": "b", "scheduleName": "s", "excludedResources": ["nodes"], "itemOperationTimeout": "4h0m0s"});
        let status = json!({"phase": "InProgress", "startTimestamp": "2026-01-02T03:04:05Z"});
        assert_eq!(in_progress(&spec, now()), json!({"spec": resolved, "status": status}));
    }

    /// restore-semantics 1.1 and 1.4: the defaults are kept in the object, and neither start nor end are.
    #[test]
    fn a_failed_validation_has_all_messages_and_no_times() {
        let spec: RestoreSpec =
            serde_json::from_value(json!({"excludedResources": ["nodes"], "itemOperationTimeout": "4h0m0s"})).unwrap();
        let errors = ["one".to_owned(), "two".to_owned()];
        let patch = json!({
            "spec": {"excludedResources": ["nodes"], "itemOperationTimeout": "4h0m0s"},
            "status": {"phase": "FailedValidation", "validationErrors": ["one", "two"]},
        });
        assert_eq!(failed_validation(&spec, &errors), patch);
    }

    /// restore-semantics 1.1 and 1.6: the end has its time and a hook status, and leaves the engine's progress alone.
    #[test]
    fn an_end_has_its_time_and_leaves_progress_alone() {
        let end = "2026-01-02T03:04:05Z";
        assert_eq!(
            ended(Phase::Completed, 1, 0, &HookStatus::default(), now()),
            json!({"status": {"phase": "Completed", "warnings": 1, "completionTimestamp": end, "hookStatus": {}}})
        );
        let failed = failed("no disk", now());
        assert_eq!(
            failed,
            json!({"status": {"phase": "Failed", "failureReason": "no disk", "completionTimestamp": end}})
        );
    }

    /// Follows a restore of ten items, whose progress is written to a server that refuses the first `refused` writes.
    fn followed(refused: usize) -> (Arc<RestoreProgress>, Log, CancellationToken, tokio::task::JoinHandle<()>) {
        let hub = Hub::new(progress::Options::default(), CancellationToken::new());
        let followed = hub.create(&"r".parse().unwrap()).unwrap();
        let item = |number: u32| KnownItem {
            id: ItemId(number),
            group_resource: GroupResource::parse("configmaps"),
            key: ItemKey::new("v1", "ConfigMap", "a", &number.to_string()),
            stage: Stage::Items,
            origin: Origin::Planned,
        };
        followed.set_phase(Phase::InProgress);
        followed.emit(Event::Planned((0..10).map(item).collect()));
        let seen = AtomicUsize::new(0);
        let (records, log) = records(move |_| {
            let restore =
                json!({"apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "r"}, "spec": {}});
            if seen.fetch_add(1, Ordering::Relaxed) < refused { (503, json!("busy")) } else { (200, restore) }
        });
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write_progress(records, Arc::clone(&followed), stop.clone()));
        (followed, log, stop, writer)
    }

    fn finish(followed: &RestoreProgress, items: std::ops::Range<u32>) {
        for id in items.map(ItemId) {
            followed.emit(Event::Finished(Finished {
                id,
                outcome: Outcome::Created,
                reason: None,
                message: None,
                attempts: 1,
                duration: Duration::ZERO,
                velero: VeleroCount::Restored,
            }));
        }
    }

    /// What was written, as `restored/total`.
    fn writes(log: &Log) -> Vec<String> {
        let log = log.lock().unwrap();
        let written = log.iter().map(|asked| &asked.body["status"]["progress"]);
        written.map(|progress| format!("{}/{}", progress["itemsRestored"], progress["totalItems"])).collect()
    }

    async fn seconds(count: u64) {
        tokio::time::sleep(Duration::from_secs(count)).await;
    }

    /// restore-semantics 6.2: at most one write per second, none when nothing changed, the first after a second.
    #[tokio::test(start_paused = true)]
    async fn progress_is_written_once_a_second_while_it_changes() {
        let (followed, log, stop, writer) = followed(0);
        seconds(5).await;
        assert_eq!(writes(&log), [""; 0], "nothing happened");
        for item in 0..6 {
            finish(&followed, item..item + 1);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        seconds(10).await;
        let written = writes(&log);
        assert!((2..=3).contains(&written.len()) && written.last().unwrap() == "6/10", "{written:?}");
        stop.cancel();
        writer.await.unwrap();
        finish(&followed, 6..10);
        seconds(5).await;
        assert_eq!(writes(&log), written, "the last value is not this task's to write");
    }

    /// restore-semantics 6.2: a write that fails is made up for by the next, which has the newest value.
    #[tokio::test(start_paused = true)]
    async fn a_progress_write_that_fails_is_made_up_for() {
        let (followed, log, stop, writer) = followed(1);
        finish(&followed, 0..3);
        seconds(2).await;
        finish(&followed, 3..4);
        seconds(5).await;
        let written = writes(&log);
        assert_eq!((written[0].as_str(), written.last().unwrap().as_str()), ("3/10", "4/10"), "{written:?}");
        stop.cancel();
        writer.await.unwrap();
    }
}
