//! What follows a restore's items: its files, and the phases that wait (restore-semantics 1.6 and 5.14).
//!
//! Velero has a controller of its own for each of these phases. Here a task per restore goes through them beside the
//! queue, so that neither a volume that is not bound nor a hook without a limit holds up the next restore.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::execute::Executor;
use super::stores::OpenLocation;
use super::{finalize, source, status, upload};
use crate::engine::Report;
use crate::engine::events::{Event, Events};
use crate::model::{Bucket, Finding, Phase, Results, Severity, Stage, error_chain};
use crate::progress::RestoreProgress;
use crate::storage::files;
use crate::velero::Restore;
use crate::velero::volume_info::{BackupVolumeInfo, ItemOperation};

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

/// A restore whose items are done, with all that its end needs. Not to be cloned: it may hold what exists once, such as
/// the hooks that still run.
pub(super) struct Conclusion {
    restore: Restore,
    followed: Arc<RestoreProgress>,
    outcome: Outcome,
    /// The asynchronous operations that its item actions started.
    operations: Vec<ItemOperation>,
    /// The warnings and errors that are counted in the status, or will be.
    results: Results,
    begun: Instant,
}

impl Conclusion {
    /// Of a restore whose items were done just now, by a run that began at that instant.
    pub(super) fn new(restore: &Restore, followed: &Arc<RestoreProgress>, outcome: Outcome, begun: Instant) -> Self {
        Self {
            restore: restore.clone(),
            followed: Arc::clone(followed),
            results: outcome.report.results.clone(),
            operations: Vec::new(),
            outcome,
            begun,
        }
    }
}

impl Executor {
    /// The first part, while it is still the restore's turn: the last progress, the files, counts and the next phase.
    pub(super) async fn file(&self, mut conclusion: Conclusion, stop: &CancellationToken) -> Conclusion {
        let Conclusion { restore, followed, outcome, results, .. } = &mut conclusion;
        let Outcome { location, report, .. } = &*outcome;
        let name = restore.metadata.name.as_deref().unwrap_or_default();
        followed.close();
        if report.planned {
            let restored = u64::try_from(report.restored).unwrap_or(u64::MAX);
            self.records.patch_for_good(name, &status::progress(restored, restored), stop).await;
        }
        followed.emit(Event::Stage(Stage::Finalizing));
        followed.seal_log();
        if let Err(error) = upload::log(location, name, followed).await {
            let message = format!("error uploading log file to backup storage: {error}");
            results.add(Finding { severity: Severity::Error, bucket: Bucket::Velero, message });
        }
        upload::files(location, name, report, results).await;
        let (warnings, errors) = (results.warnings.count(), results.errors.count());
        self.records.patch_for_good(name, &status::finalizing(warnings, errors), stop).await;
        let phase = if errors > 0 { Phase::FinalizingPartiallyFailed } else { Phase::Finalizing };
        followed.set_phase(phase);
        conclusion
    }

    /// The second part: all that is waited for, and the terminal phase.
    ///
    /// # Cancellation
    /// When `stop` fires, because the service goes down or the Restore is deleted, the Restore is left in the phase it is
    /// in, from where [`Self::conclude_again`] goes on.
    pub(super) async fn conclude(&self, conclusion: Conclusion, stop: &CancellationToken) {
        let Conclusion { restore, followed, outcome, operations, results, begun } = conclusion;
        let finalizing = finalize::Finalizing {
            restore: &restore,
            location: &outcome.location,
            volumes: &outcome.volumes,
            resource_list: &outcome.report.resource_list,
            operations: &operations,
        };
        finalize::finalize(self, &finalizing, results, &followed, stop).await;
        self.count(&restore, &followed.latest(), begun.elapsed());
    }

    /// Concludes a restore whose items were done by a process that has ended, from the files that it uploaded.
    ///
    /// # Errors
    /// A message, when the location cannot be read now.
    pub(super) async fn conclude_again(&self, restore: &Restore, stop: &CancellationToken) -> Result<(), String> {
        let Some(name) = restore.metadata.name.as_deref() else { return Ok(()) };
        let Some(followed) = self.follow(name) else { return Ok(()) };
        let source = source::fetch(&self.records, &restore.spec.backup_name).await?;
        let location = self.stores.open(&self.records, &source.location).await?;
        let (store, layout) = (&*location.store, &location.layout);
        let results =
            files::restore_results(store, layout, name).await.map_err(|error| error_chain(&error))?.unwrap_or_default();
        let resource_list = files::restore_resource_list(store, layout, name).await;
        let resource_list = resource_list.map_err(|error| error_chain(&error))?.unwrap_or_default();
        let operations = files::restore_item_operations(store, layout, name).await;
        let operations = operations.map_err(|error| error_chain(&error))?;
        let backup = source.backup.metadata.name.as_deref().unwrap_or_default();
        let volumes = files::backup_volume_info(store, layout, backup).await.map_err(|error| error_chain(&error))?;
        followed.emit(Event::Stage(Stage::Finalizing));
        let report = Report { resource_list, ..Report::default() };
        let outcome = Outcome { location, report, volumes };
        let begun = Instant::now();
        let conclusion = Conclusion { restore: restore.clone(), followed, outcome, operations, results, begun };
        self.conclude(conclusion, stop).await;
        Ok(())
    }
}
