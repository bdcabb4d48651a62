//! One restore from its backup to the outcome of its last item; `conclude` does the rest.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::conclude::{Conclusion, Outcome};
use super::records::Records;
use super::source::{Source, message, modifiers};
use super::stores::{OpenLocation, Stores};
use super::{Restores, convert, status};
use crate::archive::{self, Archive, NameCheck, ReadOptions};
use crate::engine::collect::needs_labels;
use crate::engine::events::{Event, Events, LogLevel};
use crate::engine::ports::Cluster;
use crate::engine::{self, Job, Report, Settings};
use crate::model::{Bucket, Finding, Phase, Progress, Reason, RestoreName, Severity, Stage, error_chain};
use crate::progress::{Hub, RestoreProgress};
use crate::storage::files;
use crate::telemetry::metrics::{Metrics, RestoreEvent};
use crate::velero::volume_info::BackupVolumeInfo;
use crate::velero::{Restore, RestoreSpec};

/// Chunks of the tarball between download and decompression: at a few hundred kilobytes each they keep both busy
/// and hold a few megabytes at most.
const DOWNLOAD_CHUNKS: usize = 16;

/// What restores are executed with.
#[derive(Clone)]
pub struct Executor {
    /// Velero's own objects.
    pub records: Records,
    /// What is known of them: the last word of a restore is there before its streams end.
    pub restores: Restores,
    /// The cluster that is restored into.
    pub cluster: Arc<dyn Cluster>,
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
    /// Where restores and items are counted.
    pub metrics: Metrics,
    /// How many restores may be finalized at a time ([`super::FINALIZERS`]).
    pub finalizers: Arc<Semaphore>,
}

/// Why a restore ends `Failed`: the text of `failureReason` (restore-semantics 1.7).
struct Fatal(String);

impl Executor {
    /// Runs an accepted restore, whose phase is `InProgress`, until each item has an outcome and the files are uploaded;
    /// gives what is then still to be done, which need not hold up the next restore ([`Self::conclude`]).
    ///
    /// # Cancellation
    /// When `stop` fires (the service goes down), items in flight are finished and the Restore is left `InProgress`,
    /// to be taken up again.
    pub(super) async fn execute(
        &self,
        restore: &Restore,
        source: &Source,
        stop: &CancellationToken,
    ) -> Option<Conclusion> {
        let name = restore.metadata.name.as_deref()?;
        let followed = self.follow(name)?;
        if let Some(started) = restore.status.as_ref().and_then(|status| status.start_timestamp.as_ref()) {
            followed.set_started_at(started.0);
        }
        followed.set_phase(Phase::InProgress);
        followed.emit(Event::Stage(Stage::Collecting));
        let begun = std::time::Instant::now();
        match self.run(restore, source, &followed, stop).await {
            Ok(Some(outcome)) => {
                return Some(self.file(Conclusion::new(restore, &followed, outcome, begun), stop).await);
            }
            Ok(None) => tracing::info!(
                restore = name,
                "stopped at an item boundary; the restore is taken up again at the next start"
            ),
            Err(Fatal(reason)) => {
                followed.log(LogLevel::Error, "controller", &reason);
                let patch = status::failed(&reason, Timestamp::now());
                self.write_end(name, &patch, stop).await;
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

    async fn run(
        &self,
        restore: &Restore,
        source: &Source,
        followed: &Arc<RestoreProgress>,
        stop: &CancellationToken,
    ) -> Result<Option<Outcome>, Fatal> {
        let backup = source.backup.metadata.name.clone().unwrap_or_default();
        let location = self.stores.open(&self.records, &source.location).await.map_err(Fatal)?;
        let (job, volumes) = self.job(restore, source, &location, &backup).await?;
        let archive = match self.download(&location, &backup, &job, stop).await {
            Ok(archive) => archive,
            Err(archive::Error::Cancelled) => return Ok(None),
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
        let report =
            engine::run(Arc::new(job), Arc::new(archive), Arc::clone(&self.cluster), events, stop.clone()).await;
        writer.0.cancel();
        // It may be in the middle of a write, which must not come after the last one.
        if let Err(error) = writer.1.await {
            tracing::error!(%error, "the progress writer ended unexpectedly");
        }
        let report = report.map_err(|error| Fatal(format!("error asking the API server what it serves: {error}")))?;
        if report.cancelled {
            return Ok(None);
        }
        Ok(Some(Outcome { location, report, volumes }))
    }

    /// Everything the engine is given but the archive; and the backup's volume info, which the end needs again.
    async fn job(
        &self,
        restore: &Restore,
        source: &Source,
        location: &OpenLocation,
        backup: &str,
    ) -> Result<(Job, Vec<BackupVolumeInfo>), Fatal> {
        let (store, layout) = (&*location.store, &location.layout);
        let spec: &RestoreSpec = &restore.spec;
        let fatal = |what: &str, error: &dyn std::error::Error| Fatal(format!("error {what}: {}", error_chain(error)));
        let pod_volumes = self.records.pod_volume_backups(backup).await;
        let pod_volumes =
            pod_volumes.map_err(|error| Fatal(format!("error listing PodVolumeBackups: {}", message(&error))))?;
        let native = files::backup_volume_snapshots(store, layout, backup).await;
        let native = native.map_err(|error| fatal("fetching volume snapshots", &error))?;
        let csi = files::backup_csi_volume_snapshots(store, layout, backup).await;
        let csi = csi.map_err(|error| fatal("fetching CSI volume snapshots", &error))?;
        let infos = files::backup_volume_info(store, layout, backup).await;
        let infos = infos.map_err(|error| fatal("fetching the backup's volume info", &error))?;
        let claims = csi.iter().filter_map(|snapshot: &Value| {
            let text = |pointer: &str| snapshot.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            text("/metadata/namespace").zip(text("/spec/source/persistentVolumeClaimName"))
        });
        let modifiers = modifiers(&self.records, spec).await.map_err(Fatal)?;
        let job = Job {
            modifiers: modifiers.map(Arc::new),
            restore_name: restore.metadata.name.clone().unwrap_or_default(),
            restore_uid: restore.metadata.uid.clone().unwrap_or_default(),
            velero_namespace: self.records.namespace().to_owned(),
            backup_name: backup.to_owned(),
            backup_storage_location: source.backup.spec.storage_location.clone(),
            snapshot_move_data: source.backup.spec.snapshot_move_data.unwrap_or_default(),
            data_mover: Some(convert::data_mover(&source.backup.spec, spec)),
            spec: convert::restore_spec(spec),
            volumes: convert::backup_volumes(&infos, &native, &pod_volumes, claims),
            settings: self.settings.clone(),
        };
        Ok((job, infos))
    }

    /// Streams the tarball through gzip and tar into the archive; decompression runs beside the download.
    async fn download(
        &self,
        location: &OpenLocation,
        backup: &str,
        job: &Job,
        stop: &CancellationToken,
    ) -> Result<Archive, archive::Error> {
        let key = location.layout.backup_contents(backup);
        let stream =
            location.store.stream(&key).await.map_err(|error| archive::Error::Source(io::Error::other(error)))?;
        let (chunks, received) = mpsc::channel(DOWNLOAD_CHUNKS);
        let options = ReadOptions {
            limits: self.limits,
            keep_labels: needs_labels(&job.spec),
            // Velero restores an item under the name inside it, whatever its file is called.
            names: NameCheck::Report,
            ..ReadOptions::default()
        };
        let reader = tokio::task::spawn_blocking(move || {
            Archive::read(ChunkReader { received, chunk: bytes::Bytes::new() }, &options)
        });
        let forward = async {
            let mut bytes = stream.bytes;
            while let Some(chunk) = bytes.next().await {
                // A reader that has seen enough, such as damage, hangs up.
                if chunks.send(chunk.map_err(io::Error::other)).await.is_err() {
                    break;
                }
            }
            drop(chunks);
        };
        tokio::select! {
            () = forward => {}
            () = stop.cancelled() => return Err(archive::Error::Cancelled),
        }
        reader.await.unwrap_or_else(|error| Err(archive::Error::Source(io::Error::other(error))))
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

/// The download as a blocking reader.
struct ChunkReader {
    received: mpsc::Receiver<io::Result<bytes::Bytes>>,
    chunk: bytes::Bytes,
}

impl io::Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.received.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}
