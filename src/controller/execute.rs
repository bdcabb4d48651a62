//! One restore from its backup to the outcome of its last item; `conclude` does the rest.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::conclude::{Conclusion, Outcome};
use super::halt::Halt;
use super::records::Records;
use super::source::Source;
use super::stores::Stores;
use super::unsaved::UnsavedOperations;
use super::{Restores, pod_volumes, status};
use crate::archive;
use crate::engine::events::{Event, Events, LogLevel};
use crate::engine::ports::Cluster;
use crate::engine::ports::exec::PodExec;
use crate::engine::{self, Report, Settings};
use crate::model::{Bucket, Finding, Phase, Progress, Reason, RestoreName, Severity, Stage, error_chain};
use crate::progress::{Hub, RestoreProgress};
use crate::telemetry::metrics::{Metrics, RestoreEvent};
use crate::velero::Restore;

/// What restores are executed with.
#[derive(Clone)]
pub struct Executor {
    /// Velero's own objects.
    pub records: Records,
    /// What is known of them: the last word of a restore is there before its streams end.
    pub restores: Restores,
    /// The cluster that is restored into.
    pub cluster: Arc<dyn Cluster>,
    /// Runs exec hooks in the pods of that cluster.
    pub exec: Arc<dyn PodExec>,
    /// Opens backup locations.
    pub stores: Stores,
    /// Follows the restores.
    pub hub: Hub,
    /// Limits and waits of the engine.
    pub settings: Settings,
    /// Limits on archives.
    pub limits: archive::Limits,
    /// How often operations are asked how far they are, where nothing tells of a change.
    pub item_operation_sync_frequency: Duration,
    /// States of operations that are newer than their files.
    pub unsaved: UnsavedOperations,
    /// Where restores and items are counted.
    pub metrics: Metrics,
    /// How many restores may be finalized at a time ([`super::FINALIZERS`]).
    pub finalizers: Arc<Semaphore>,
}

/// Why a restore ends `Failed`: the text of `failureReason` (restore-semantics 1.7).
struct Fatal(String);

impl Executor {
    /// Runs an accepted restore, whose phase is `InProgress`, until each item has an outcome and its pod volumes are filled;
    /// gives what is then still to be done, which need not hold up the next restore ([`Self::conclude`]).
    ///
    /// # Cancellation
    /// When it is given up (the service goes down), items in flight are finished and the Restore is left `InProgress`, to be
    /// taken up again. When it is cancelled, they are finished and the Restore is ended.
    pub(super) async fn execute(&self, restore: &Restore, source: &Source, halt: &Halt) -> Option<Conclusion> {
        let name = restore.metadata.name.as_deref()?;
        let followed = self.follow(name)?;
        if let Some(started) = restore.status.as_ref().and_then(|status| status.start_timestamp.as_ref()) {
            followed.set_started_at(started.0);
        }
        followed.set_phase(Phase::InProgress);
        followed.emit(Event::Stage(Stage::Collecting));
        let begun = std::time::Instant::now();
        match (self.run(restore, source, &followed, halt.work()).await, halt.cause()) {
            (Ok(None), Some(cause)) => {
                self.end_unopened(restore, cause, begun, halt).await;
                return None;
            }
            (Ok(Some(outcome)), cause) if cause.is_some() || !outcome.report.cancelled => {
                return self.settle(Conclusion::new(restore, &followed, outcome, begun), halt).await;
            }
            (Ok(_), _) => tracing::info!(
                restore = name,
                "stopped at an item boundary; the restore is taken up again at the next start"
            ),
            (Err(Fatal(reason)), _) => {
                followed.log(LogLevel::Error, "controller", &reason);
                let patch = status::failed(&reason, Timestamp::now());
                self.write_end(name, &patch, halt.given_up()).await;
                followed.finish(Phase::Failed, Some(reason));
            }
        }
        self.count(restore, &followed.latest(), begun.elapsed());
        None
    }

    /// Counts a restore that has ended.
    pub(super) fn count(&self, restore: &Restore, progress: &Progress, took: std::time::Duration) {
        let Some(event) = RestoreEvent::of_end(progress.phase) else { return };
        self.metrics.restore(event, &restore.spec.schedule_name);
        self.metrics.restore_took(progress.phase, took);
    }

    /// Writes the terminal phase, and lets readers see it before the watch tells.
    pub(super) async fn write_end(&self, name: &str, patch: &Value, stop: &CancellationToken) {
        if let Some(written) = self.records.patch_for_good(name, patch, stop).await {
            self.restores.remember(written);
        }
    }

    /// The progress of a restore, created where nobody asked for it before.
    pub(super) fn follow(&self, name: &str) -> Option<Arc<RestoreProgress>> {
        if let Some(known) = self.hub.get(name).filter(|known| !known.has_ended()) {
            return Some(known);
        }
        let name: RestoreName = name.parse().ok()?;
        self.hub.create(&name).ok().or_else(|| self.hub.get(name.as_str()))
    }

    /// `None` when `stop` fires before the backup is known; a report says so itself.
    async fn run(
        &self,
        restore: &Restore,
        source: &Source,
        followed: &Arc<RestoreProgress>,
        stop: &CancellationToken,
    ) -> Result<Option<Outcome>, Fatal> {
        let backup = source.backup.metadata.name.clone().unwrap_or_default();
        let prepared = async {
            let location = self.stores.open(&self.records, &source.location).await?;
            let (job, volumes) = self.job(restore, source, &location, &backup).await?;
            Ok((location, job, volumes))
        };
        let prepared = tokio::select! {
            prepared = prepared => prepared,
            () = stop.cancelled() => return Ok(None),
        };
        let (location, mut job, volumes) = prepared.map_err(Fatal)?;
        job.pod_volumes = Some(pod_volumes::options(restore, self.settings.pod_volume_timeout, followed));
        let archive = match self.download(&location, &backup, &job, || followed.moved(), stop).await {
            Ok(archive) => archive,
            Err(archive::Error::Cancelled) => {
                return Ok(Some(Outcome { location, report: Report::stopped(), volumes }));
            }
            Err(archive::Error::Source(error)) => {
                return Err(Fatal(format!("error downloading backup: {}", error_chain(&error))));
            }
            Err(damage) => {
                // Inside the engine for Velero, and so an error of the restore and not its failure.
                let finding =
                    Finding { severity: Severity::Error, bucket: Bucket::Velero, message: error_chain(&damage) };
                followed.emit(Event::Finding(finding.clone(), Reason::Archive));
                let mut report = Report::default();
                report.results.add(finding);
                return Ok(Some(Outcome { location, report, volumes }));
            }
        };
        log_ignored(archive.stats(), followed);
        let writer = {
            let stop_writing = CancellationToken::new();
            let task = status::write_progress(self.records.clone(), Arc::clone(followed), stop_writing.clone());
            (stop_writing, tokio::spawn(task))
        };
        let events: Arc<dyn Events> =
            Arc::new(Counting { followed: Arc::clone(followed), metrics: self.metrics.clone() });
        let report = engine::run(
            Arc::new(job),
            Arc::new(archive),
            Arc::clone(&self.cluster),
            Arc::clone(&self.exec),
            events,
            stop.clone(),
        )
        .await;
        writer.0.cancel();
        // It may be in the middle of a write, which must not come after the last one.
        if let Err(error) = writer.1.await {
            tracing::error!(%error, "the progress writer ended unexpectedly");
        }
        let report = report.map_err(|error| Fatal(format!("error asking the API server what it serves: {error}")))?;
        Ok(Some(Outcome { location, report, volumes }))
    }
}

/// Says in the restore's log what of the tarball is not looked at, so that nothing is missed silently.
fn log_ignored(stats: &archive::Stats, followed: &RestoreProgress) {
    let ignored = [
        (stats.links, "links or devices"),
        (stats.unexpected, "files where no item can be"),
        (u64::from(stats.trailing_garbage), "stretch of bytes after its end"),
    ];
    for (count, what) in ignored.into_iter().filter(|(count, _)| *count > 0) {
        let message = format!("the backup tarball has {count} {what}, which a backup does not have: ignored");
        followed.log(LogLevel::Warning, "archive", &message);
    }
}

/// Counts finished items on their way to the progress.
struct Counting {
    followed: Arc<RestoreProgress>,
    metrics: Metrics,
}

impl Events for Counting {
    fn emit(&self, event: Event) {
        if let Event::Finished(finished) = &event {
            self.metrics.item(finished.outcome);
        }
        self.followed.emit(event);
    }
}
