//! The end of a restore that is cancelled.
//!
//! The annotation [`CANCEL`] on the Restore is the one way to cancel it, for every door and for kubectl: the object is the
//! record, so a wish outlives the service that heard it. Deletion of the Restore cancels as well.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::conclude::{Conclusion, Outcome};
use super::decide::phase_of;
use super::execute::Executor;
use super::halt::Halt;
use super::operations::{self, Counts};
use super::upload::{Unfiled, Uploads};
use super::{pod_volumes, source, status, upload, volume_info, waiting};
use crate::engine::events::{Event, Events, LogLevel};
use crate::engine::operations::Operations;
use crate::engine::{self, ExecHooks, Report};
use crate::model::{Bucket, Cancellation, Finding, Phase, Reason, Severity, Stage};
use crate::telemetry::metrics::RestoreEvent;
use crate::velero::Restore;
use crate::velero::volume_info::ItemOperation;

/// Annotation that cancels a restore. Its value is the reason and may be empty; `true` is no reason, and `false` is no wish.
pub const CANCEL: &str = "reprise.dev/cancel";

/// Annotation beside it that says who wants it.
pub const CANCELLED_BY: &str = "reprise.dev/cancelled-by";

/// Operations that are told to stop at the same time.
const AT_ONCE: usize = 16;

/// The wish to cancel this Restore, if there is one.
pub(super) fn wanted(restore: &Restore) -> Option<Cancellation> {
    read(restore.annotations())
}

fn read(annotations: &BTreeMap<String, String>) -> Option<Cancellation> {
    let reason = match annotations.get(CANCEL)?.trim() {
        "false" => return None,
        "true" => "",
        reason => reason,
    };
    let by = annotations.get(CANCELLED_BY).map_or("", |by| by.trim());
    // Who set an annotation is not to be told from the object.
    let by = if by.is_empty() { format!("annotation {CANCEL}") } else { by.to_owned() };
    Some(Cancellation::lenient(&by, reason))
}

/// The patch that puts the wish on a Restore.
pub(super) fn patch(cancellation: &Cancellation) -> Value {
    let reason = if cancellation.reason().is_empty() { "true" } else { cancellation.reason() };
    json!({"metadata": {"annotations": {CANCEL: reason, CANCELLED_BY: cancellation.by()}}})
}

/// Why a Restore that is deleted while it runs is stopped.
pub(super) fn by_deletion() -> Cancellation {
    Cancellation::lenient("deletion of the Restore", "")
}

impl Executor {
    /// Ends a Restore that is cancelled before anything was done for it.
    pub(super) async fn end_unbegun(&self, restore: &Restore, cause: &Cancellation, stop: &CancellationToken) {
        let name = restore.name_any();
        let followed = self.follow(&name);
        let reason = cause.failure_reason(0, 0);
        tracing::info!(restore = name, reason, "the restore is cancelled");
        self.write_end(&name, &status::failed(&reason, Timestamp::now()), stop).await;
        self.metrics.restore(RestoreEvent::Attempt, &restore.spec.schedule_name);
        if let Some(followed) = followed {
            followed.log(LogLevel::Error, "controller", &reason);
            followed.finish(Phase::Failed, Some(reason));
            self.count(restore, &followed.latest(), std::time::Duration::ZERO);
        }
    }

    /// Ends a restore that is cancelled before its backup location was opened: there is nothing to file, and nowhere.
    pub(super) async fn end_unopened(&self, restore: &Restore, cause: &Cancellation, begun: Instant, halt: &Halt) {
        let name = restore.name_any();
        let Some(followed) = self.follow(&name) else { return };
        self.call_off(restore, &[]).await.into_iter().for_each(|failure| {
            followed.log(LogLevel::Warning, "controller", &failure);
        });
        let (done, total) = told(restore);
        let reason = cause.failure_reason(done, total);
        tracing::info!(restore = name, reason, "the restore is cancelled");
        followed.log(LogLevel::Error, "controller", &reason);
        self.write_end(&name, &status::failed(&reason, Timestamp::now()), halt.given_up()).await;
        followed.finish(Phase::Failed, Some(reason));
        self.count(restore, &followed.latest(), begun.elapsed());
    }

    /// Ends a restore that is cancelled in whatever phase: tells what goes on elsewhere to stop, records what was done, and
    /// writes the terminal phase.
    ///
    /// # Cancellation
    /// When the service goes down meanwhile, the Restore is left in its phase, and the next start ends it.
    pub(super) async fn end_cancelled(&self, conclusion: Conclusion, cause: &Cancellation, halt: &Halt) {
        let Conclusion {
            restore,
            followed,
            place,
            report,
            exec_hooks,
            mut operations,
            mut results,
            unfiled,
            begun,
            is_filed,
            ..
        } = conclusion;
        let (name, location, cluster) = (&*place.name, &place.location, &*self.cluster);
        // Those that have not run are not run.
        drop::<ExecHooks>(exec_hooks);
        let (done, total) = match report.planned {
            true => (count(report.restored), count(report.restored + report.never_begun)),
            false => told(&restore),
        };
        let reason = cause.failure_reason(done, total);
        tracing::info!(restore = name, reason, "the restore is cancelled");
        let mut findings = vec![(Severity::Error, reason.clone())];
        let failures = self.call_off(&restore, &operations).await;
        findings.extend(failures.into_iter().map(|failure| (Severity::Warning, failure)));
        operations::give_up(&mut operations, &reason);
        waiting::tell(&operations, &*followed);
        for (severity, message) in findings {
            let finding = Finding { severity, bucket: Bucket::Velero, message };
            followed.emit(Event::Finding(finding.clone(), Reason::Cancelled));
            results.add(finding);
        }
        followed.emit(Event::Stage(Stage::Finalizing));
        // Being cancelled ends no upload; only going down does.
        let uploads = Uploads { location, restore: name, events: &*followed, patient: true, stop: halt.given_up() };
        let filed: Result<(), Unfiled> = async {
            if is_filed {
                uploads.or_finding(uploads.operations(&operations).await, "item operations", &mut results)?;
                return uploads.or_finding(uploads.results(&results).await, "results", &mut results).map(drop);
            }
            followed.log(LogLevel::Error, "controller", &reason);
            upload::tell_read_only(location, &followed);
            followed.seal_log();
            match uploads.log(&followed).await {
                Err(Unfiled::Refused(error)) => {
                    let message = format!("error uploading log file to backup storage: {error}");
                    uploads.record(Severity::Error, message, &mut results);
                }
                other => other?,
            }
            let list = &report.resource_list;
            let mut volumes = volume_info::collect(cluster, self.records.namespace(), name, list).await;
            volumes.extend(pod_volumes::volume_info(cluster, &report.restored_pod_volumes, list).await);
            uploads.files(&report, &mut results, &operations, &volumes).await.map(drop)
        }
        .await;
        if filed.is_err() {
            return;
        }
        self.unsaved.forget(name);
        let (warnings, errors) = (unfiled.0 + results.warnings.count(), unfiled.1 + results.errors.count());
        let patch = status::cancelled(&reason, warnings, errors, Counts::of(&operations), Timestamp::now());
        self.write_end(name, &patch, halt.given_up()).await;
        if halt.given_up().is_cancelled() {
            return;
        }
        followed.finish(Phase::Failed, Some(reason));
        self.count(&restore, &followed.latest(), begun.elapsed());
    }

    /// Ends a Restore that was cancelled while nobody here worked on it: it waited in the queue, or the process that ran it
    /// has ended.
    ///
    /// # Errors
    /// A message, when what is needed cannot be read now; to be tried again.
    pub(super) async fn end_found_cancelled(&self, restore: &Restore, halt: &Halt) -> Result<(), String> {
        let Some(cause) = halt.cause() else { return Ok(()) };
        match phase_of(restore) {
            Some(Phase::New) => self.end_unbegun(restore, cause, halt.given_up()).await,
            Some(Phase::InProgress) => return self.end_interrupted(restore, cause, halt).await,
            Some(phase) if !phase.is_terminal() => return self.conclude_again(restore, halt).await,
            _ => {}
        }
        Ok(())
    }

    /// Ends a restore in whose midst the process that ran it has ended. What that one had done is known by its count only.
    async fn end_interrupted(&self, restore: &Restore, cause: &Cancellation, halt: &Halt) -> Result<(), String> {
        let Some(followed) = self.follow(&restore.name_any()) else { return Ok(()) };
        if let Some(started) = restore.status.as_ref().and_then(|status| status.start_timestamp.as_ref()) {
            followed.set_started_at(started.0);
        }
        followed.set_phase(Phase::InProgress);
        let Some(source) = source::find(&self.records, &restore.spec.backup_name).await? else {
            self.end_unopened(restore, cause, Instant::now(), halt).await;
            return Ok(());
        };
        let location = self.stores.open(&self.records, &source.location).await?;
        let mut report = Report::default();
        let message = "the service was restarted between the restore and its cancellation: what was restored is in no list; \
                       look for the label velero.io/restore-name";
        let finding = Finding { severity: Severity::Warning, bucket: Bucket::Velero, message: message.to_owned() };
        followed.emit(Event::Finding(finding.clone(), Reason::Cancelled));
        report.results.add(finding);
        followed.close();
        let outcome = Outcome { location, report, volumes: Vec::new() };
        let conclusion = Conclusion::new(restore, &followed, outcome, Instant::now());
        Box::pin(self.end_cancelled(conclusion, cause, halt)).await;
        Ok(())
    }

    /// Tells operations, PodVolumeRestores and DataDownloads of a restore to stop; gives what could not be told.
    async fn call_off(&self, restore: &Restore, operations: &[ItemOperation]) -> Vec<String> {
        let uid = restore.metadata.uid.as_deref().unwrap_or_default();
        let port = &self.operations_of(uid);
        let running = operations::running(operations).into_iter().filter_map(|place| operations.get(place));
        let running: Vec<_> = running.cloned().collect();
        let told = stream::iter(running).map(|operation| async move {
            let error = port.cancel(operations::asked(&operation)).await.err()?;
            Some(format!("operation {} could not be told to stop: {error}", operation.spec.operation_id))
        });
        let told: Vec<Option<String>> = told.buffer_unordered(AT_ONCE).collect().await;
        let mut failures: Vec<String> = told.into_iter().flatten().collect();
        failures.extend(engine::call_off(&*self.cluster, self.records.namespace(), uid).await);
        failures
    }
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

/// How many items of how many are done, as the Restore tells.
fn told(restore: &Restore) -> (u64, u64) {
    let progress = restore.status.as_ref().and_then(|status| status.progress).unwrap_or_default();
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    (count(progress.items_restored), count(progress.total_items))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn annotated(annotations: Value) -> Option<Cancellation> {
        read(&serde_json::from_value(annotations).unwrap())
    }

    #[test]
    fn the_annotation_is_the_wish_and_its_value_the_reason() {
        assert_eq!(annotated(json!({})), None);
        assert_eq!(annotated(json!({CANCELLED_BY: "alice"})), None);
        assert_eq!(annotated(json!({CANCEL: "false"})), None);
        for (value, reason) in [("true", ""), ("", ""), (" wrong backup\n", "wrong backup")] {
            let cancellation = annotated(json!({CANCEL: value})).unwrap();
            assert_eq!((cancellation.by(), cancellation.reason()), ("annotation reprise.dev/cancel", reason));
        }
        assert_eq!(annotated(json!({CANCEL: "x".repeat(5000)})).unwrap().reason().len(), 1024);
    }

    #[test]
    fn what_a_door_writes_is_what_is_read() {
        for reason in ["", "wrong backup"] {
            let cancellation = Cancellation::new("alice", reason).unwrap();
            let annotations = patch(&cancellation)["metadata"]["annotations"].clone();
            assert_eq!(annotated(annotations), Some(cancellation));
        }
    }
}
