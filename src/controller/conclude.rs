//! What follows a restore's items: its files, and the phases that wait (restore-semantics 1.6 and 5.14).
//!
//! Velero has a controller of its own for each of these phases. Here a task per restore goes through them beside the
//! queue, so that neither a volume that is not bound nor a hook without a limit holds up the next restore.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::decide::phase_of;
use super::execute::Executor;
use super::halt::Halt;
use super::operations::{self, Counts};
use super::stores::OpenLocation;
use super::upload::{Unfiled, Uploads};
use super::waiting::{self, Waited};
use super::{finalize, hooks, pod_volumes, source, status, upload, volume_info};
use crate::engine::events::{Event, Events};
use crate::engine::{ExecHooks, Report};
use crate::model::{Bucket, Finding, Phase, Reason, Results, Severity, Stage, error_chain};
use crate::progress::RestoreProgress;
use crate::storage::files;
use crate::velero::volume_info::{BackupVolumeInfo, ItemOperation};
use crate::velero::{HookStatus, Restore};

/// How many restores are finalized at a time, waits for operations and hooks not counted. Velero finalizes one at a time;
/// each watches up to six objects, so eight are a load that no API server notices.
pub const FINALIZERS: usize = 8;

/// What the engine left for the files and the end.
pub(super) struct Outcome {
    pub(super) location: OpenLocation,
    pub(super) report: Report,
    /// What the backup tells of its volumes.
    pub(super) volumes: Vec<BackupVolumeInfo>,
}

/// Where a restore is filed.
pub(super) struct Place {
    /// Name of the Restore.
    pub(super) name: String,
    /// Name of the Backup.
    pub(super) backup: String,
    /// Where its files are.
    pub(super) location: OpenLocation,
}

/// A restore whose items are done, with all that its end needs. Not to be cloned: it may hold what exists once, such as
/// the hooks that still run.
pub(super) struct Conclusion {
    pub(super) restore: Restore,
    pub(super) followed: Arc<RestoreProgress>,
    pub(super) place: Place,
    pub(super) report: Report,
    /// The exec hooks that still run.
    pub(super) exec_hooks: ExecHooks,
    /// What the backup tells of its volumes.
    volumes: Vec<BackupVolumeInfo>,
    /// The asynchronous operations that its item actions started.
    pub(super) operations: Vec<ItemOperation>,
    /// Whether the uploaded list of operations is this one.
    is_list_uploaded: bool,
    /// The warnings and errors that are counted in the status, or will be.
    pub(super) results: Results,
    /// Warnings and errors that are counted in the status and in no file; see [`finalize::counted`].
    pub(super) unfiled: (usize, usize),
    /// Whether log and files are uploaded and the counts written, so that it is in a phase that waits.
    pub(super) is_filed: bool,
    pub(super) begun: Instant,
}

impl Conclusion {
    /// Of a restore whose items were done just now, by a run that began at that instant.
    pub(super) fn new(restore: &Restore, followed: &Arc<RestoreProgress>, outcome: Outcome, begun: Instant) -> Self {
        let Outcome { location, mut report, volumes } = outcome;
        let operations = std::mem::take(&mut report.operations);
        Self {
            restore: restore.clone(),
            followed: Arc::clone(followed),
            place: Place::of(restore, location),
            operations: operations.into_iter().map(|operation| operations::started(operation, restore)).collect(),
            is_list_uploaded: false,
            results: std::mem::take(&mut report.results),
            exec_hooks: std::mem::take(&mut report.exec_hooks),
            unfiled: (0, 0),
            is_filed: false,
            report,
            volumes,
            begun,
        }
    }

    pub(super) fn restore(&self) -> &Restore {
        &self.restore
    }

    pub(super) fn followed(&self) -> &Arc<RestoreProgress> {
        &self.followed
    }

    /// What waiting for operations changes, and whether their uploaded list is this one.
    pub(super) fn parts(&mut self) -> (&Place, &mut Vec<ItemOperation>, &mut Results, bool) {
        (&self.place, &mut self.operations, &mut self.results, self.is_list_uploaded)
    }
}

impl Place {
    fn of(restore: &Restore, location: OpenLocation) -> Self {
        let name = restore.metadata.name.clone().unwrap_or_default();
        Self { name, backup: restore.spec.backup_name.clone(), location }
    }
}

impl Executor {
    /// The first part, while it is still the restore's turn: the last progress, pod volumes, one look at each operation.
    ///
    /// # Cancellation
    /// `None` when it is given up while pod volumes are filled: the Restore is left `InProgress`, to be taken up again. One that
    /// is cancelled goes on to [`Self::conclude`], which ends it: the next restore need not wait for that.
    pub(super) async fn settle(&self, mut conclusion: Conclusion, halt: &Halt) -> Option<Conclusion> {
        let Conclusion { restore, followed, place, report, operations, results, .. } = &mut conclusion;
        let Place { name, .. } = &*place;
        let stop = halt.given_up();
        followed.close();
        if report.planned {
            let restored = u64::try_from(report.restored).unwrap_or(u64::MAX);
            self.records.patch_for_good(name, &status::progress(restored, restored), stop).await;
        }
        let is_filled = report.wait_for_pod_volumes().await;
        results.append(std::mem::take(&mut report.results));
        if halt.cause().is_some() {
            return Some(conclusion);
        }
        if !is_filled {
            tracing::info!(restore = name, "stopped while pod volumes are filled; the next start goes on with them");
            return None;
        }
        if !operations.is_empty() {
            followed.emit(Event::Stage(Stage::PluginOperations));
            let port = self.operations_of(restore.metadata.uid.as_deref().unwrap_or_default());
            let errors = waiting::look(&port, operations, operations::timeout(restore), jiff::Timestamp::now()).await;
            waiting::file(errors, results, &**followed);
            waiting::tell(operations, &**followed);
        }
        Some(conclusion)
    }

    /// The second part, beside the queue: the files, counts and the next phase. The phase comes last, as Velero's clients
    /// read the files once it has changed.
    ///
    /// # Cancellation
    /// `false` when `stop` fires before the location has taken all files: the Restore is left `InProgress`, to be taken up
    /// again.
    async fn file(&self, conclusion: &mut Conclusion, stop: &CancellationToken) -> bool {
        let Conclusion { followed, place, report, exec_hooks, operations, is_list_uploaded, results, .. } = conclusion;
        let Place { name, location, .. } = &*place;
        let counts = Counts::of(operations);
        if counts.running() == 0 {
            followed.emit(Event::Stage(hooks::stage(exec_hooks)));
        }
        upload::tell_read_only(location, followed);
        followed.seal_log();
        let uploads = Uploads { location, restore: name, events: &**followed, patient: true, stop };
        match uploads.log(followed).await {
            Ok(()) => {}
            Err(Unfiled::Refused(error)) => {
                let message = format!("error uploading log file to backup storage: {error}");
                uploads.record(Severity::Error, message, results);
            }
            Err(Unfiled::Stopped) => return stopped(name),
        }
        let cluster = &*self.cluster;
        let mut volumes = volume_info::collect(cluster, self.records.namespace(), name, &report.resource_list).await;
        volumes.extend(pod_volumes::volume_info(cluster, &report.restored_pod_volumes, &report.resource_list).await);
        match uploads.files(report, results, operations, &volumes).await {
            Ok(is_list_there) => *is_list_uploaded = is_list_there,
            Err(_) => return stopped(name),
        }
        let (warnings, errors) = (results.warnings.count(), results.errors.count());
        let phase = match (counts.running() > 0, errors > 0) {
            (true, false) => Phase::WaitingForPluginOperations,
            (true, true) => Phase::WaitingForPluginOperationsPartiallyFailed,
            (false, false) => Phase::Finalizing,
            (false, true) => Phase::FinalizingPartiallyFailed,
        };
        self.records.patch_for_good(name, &status::after_items(phase, warnings, errors, counts), stop).await;
        followed.set_phase(phase);
        conclusion.is_filed = true;
        true
    }

    /// What is left when it is no longer the restore's turn: its files, all that is waited for, and the terminal phase.
    ///
    /// # Cancellation
    /// When it is given up, because the service goes down or the Restore is gone, the Restore is left in the phase it is in,
    /// from where [`Self::conclude_again`] goes on, or another run where that is `InProgress`. When it is cancelled, it is ended.
    pub(super) async fn conclude(&self, mut conclusion: Conclusion, halt: &Halt) {
        let stop = halt.given_up();
        if !conclusion.is_filed && halt.cause().is_none() && !self.file(&mut conclusion, stop).await {
            return;
        }
        let phase = conclusion.followed.latest().phase;
        if is_waiting(phase) {
            match self.await_operations(&mut conclusion, halt).await {
                Waited::Over => {}
                Waited::BackupGone => {
                    let phase = Phase::FinalizingPartiallyFailed;
                    let patch = status::after_items(phase, 0, 0, Counts::of(&conclusion.operations));
                    self.records.patch_for_good(&conclusion.place.name, &patch, stop).await;
                    return self
                        .end_without_backup(&conclusion.restore, &conclusion.followed, conclusion.begun, stop)
                        .await;
                }
                Waited::Stopped => {}
            }
        }
        if halt.work().is_cancelled() {
            if let Some(cause) = halt.cause() {
                Box::pin(self.end_cancelled(conclusion, cause, halt)).await;
            }
            return;
        }
        let exec_hooks = std::mem::take(&mut conclusion.exec_hooks);
        let Conclusion { restore, followed, place, report, volumes, operations, results, unfiled, begun, .. } =
            &mut conclusion;
        followed.emit(Event::Stage(hooks::stage(&exec_hooks)));
        let finalizing = finalize::Finalizing {
            restore,
            location: &place.location,
            volumes,
            resource_list: &report.resource_list,
            operations,
            unfiled: *unfiled,
        };
        if finalize::finalize(self, &finalizing, results, exec_hooks, followed, halt).await {
            self.count(restore, &followed.latest(), begun.elapsed());
        } else if let Some(cause) = halt.cause() {
            Box::pin(self.end_cancelled(conclusion, cause, halt)).await;
        }
    }

    /// Concludes a restore whose items were done by a process that has ended, from the files that it uploaded.
    ///
    /// # Errors
    /// A message, when the location cannot be read now.
    pub(super) async fn conclude_again(&self, restore: &Restore, halt: &Halt) -> Result<(), String> {
        let Some(name) = restore.metadata.name.as_deref() else { return Ok(()) };
        let Some(followed) = self.follow(name) else { return Ok(()) };
        let status = restore.status.clone().unwrap_or_default();
        if let Some(started) = &status.start_timestamp {
            followed.set_started_at(started.0);
        }
        if let Some(phase) = phase_of(restore) {
            followed.set_phase(phase);
        }
        let Some(source) = source::find(&self.records, &restore.spec.backup_name).await? else {
            match halt.cause() {
                Some(cause) => self.end_unopened(restore, cause, Instant::now(), halt).await,
                None => self.end_without_backup(restore, &followed, Instant::now(), halt.given_up()).await,
            }
            return Ok(());
        };
        let location = self.stores.open(&self.records, &source.location).await?;
        let (store, layout) = (&*location.store, &location.layout);
        let results = files::restore_results(store, layout, name).await.map_err(|error| error_chain(&error))?;
        let unfiled = if results.is_some() { (0, 0) } else { finalize::counted(restore) };
        let mut results = results.unwrap_or_default();
        let resource_list = files::restore_resource_list(store, layout, name).await;
        let resource_list = resource_list.map_err(|error| error_chain(&error))?;
        let operations = files::restore_item_operations(store, layout, name).await;
        let operations = operations.map_err(|error| error_chain(&error))?;
        let backup = source.backup.metadata.name.as_deref().unwrap_or_default();
        let volumes = files::backup_volume_info(store, layout, backup).await.map_err(|error| error_chain(&error))?;
        let started = usize::try_from(status.restore_item_operations_attempted).unwrap_or_default();
        if let Some(lost) = started.checked_sub(operations.len()).filter(|lost| *lost > 0) {
            let message = format!(
                "{lost} of {started} asynchronous operations are not in the restore's list in the backup location, and are \
                 not waited for: look at its DataDownloads"
            );
            let finding = Finding { severity: Severity::Warning, bucket: Bucket::Velero, message };
            followed.emit(Event::Finding(finding.clone(), Reason::Other));
            results.add(finding);
        }
        if let (None, Some(finding)) = (&resource_list, finalize::unlisted(&location, &volumes)) {
            followed.emit(Event::Finding(finding.clone(), Reason::Volume));
            results.add(finding);
        }
        hooks::warn_of_lost(restore);
        let conclusion = Conclusion {
            // Those of the process that has ended count as finished (restore-semantics 1.8).
            exec_hooks: ExecHooks::default(),
            place: Place::of(restore, location),
            report: Report::of_resource_list(resource_list.unwrap_or_default()),
            unfiled,
            restore: restore.clone(),
            followed,
            volumes,
            operations,
            is_list_uploaded: true,
            is_filed: true,
            results,
            begun: Instant::now(),
        };
        self.conclude(conclusion, halt).await;
        Ok(())
    }

    /// What can still be done for a restore whose Backup or location is gone (restore-semantics 5.14): its end.
    async fn end_without_backup(
        &self,
        restore: &Restore,
        followed: &Arc<RestoreProgress>,
        begun: Instant,
        stop: &CancellationToken,
    ) {
        let name = restore.metadata.name.as_deref().unwrap_or_default();
        tracing::warn!(restore = name, "its Backup or location is gone: the restore ends PartiallyFailed");
        let patch = status::ended(Phase::PartiallyFailed, 0, 0, &HookStatus::default(), jiff::Timestamp::now());
        self.write_end(name, &patch, stop).await;
        followed.finish(Phase::PartiallyFailed, None);
        self.count(restore, &followed.latest(), begun.elapsed());
    }
}

fn stopped(restore: &str) -> bool {
    tracing::info!(restore, "stopped before its files were uploaded; the restore is taken up again at the next start");
    false
}

const fn is_waiting(phase: Phase) -> bool {
    matches!(phase, Phase::WaitingForPluginOperations | Phase::WaitingForPluginOperationsPartiallyFailed)
}
