//! What the engine is given: the job, and the archive of the backup. A restore and its preview read the same.

use std::io;
use std::sync::Arc;

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::convert;
use super::execute::Executor;
use super::source::{Source, message, modifiers};
use super::stores::OpenLocation;
use crate::archive::{self, Archive, NameCheck, ReadOptions};
use crate::engine::Job;
use crate::engine::collect::needs_labels;
use crate::engine::versions::VersionPolicy;
use crate::model::error_chain;
use crate::storage::files;
use crate::velero::volume_info::BackupVolumeInfo;
use crate::velero::{Restore, RestoreSpec};

/// Chunks of the tarball between download and decompression: at a few hundred kilobytes each they keep both busy
/// and hold a few megabytes at most.
const DOWNLOAD_CHUNKS: usize = 16;

impl Executor {
    /// Everything the engine is given but the archive; and the backup's volume info, which the end needs again.
    ///
    /// # Errors
    /// A message: a file beside the tarball, or an object, cannot be read.
    pub(super) async fn job(
        &self,
        restore: &Restore,
        source: &Source,
        location: &OpenLocation,
        backup: &str,
    ) -> Result<(Job, Vec<BackupVolumeInfo>), String> {
        let (store, layout) = (&*location.store, &location.layout);
        let spec: &RestoreSpec = &restore.spec;
        let fatal = |what: &str, error: &dyn std::error::Error| format!("error {what}: {}", error_chain(error));
        let pod_volumes = self.records.pod_volume_backups(backup).await;
        let pod_volumes =
            pod_volumes.map_err(|error| format!("error listing PodVolumeBackups: {}", message(&error)))?;
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
        let modifiers = modifiers(&self.records, spec).await?;
        let format = source.backup.status.as_ref().map(|status| status.format_version.clone()).unwrap_or_default();
        let namespace = self.records.namespace();
        let versions = VersionPolicy::read(&*self.cluster, &self.settings, namespace, Some(format)).await;
        let job = Job {
            versions,
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
            // Whoever executes the job says how their data is restored; a preview does not.
            pod_volumes: None,
            settings: self.settings.clone(),
        };
        Ok((job, infos))
    }

    /// Streams the tarball through gzip and tar into the archive; decompression runs beside the download. `moved` is called
    /// for each piece.
    pub(super) async fn download(
        &self,
        location: &OpenLocation,
        backup: &str,
        job: &Job,
        moved: impl Fn() + Send,
        stop: &CancellationToken,
    ) -> Result<Archive, archive::Error> {
        let key = location.layout.backup_contents(backup);
        let stream =
            location.store.stream(&key).await.map_err(|error| archive::Error::Source(io::Error::other(error)))?;
        let (chunks, received) = mpsc::channel(DOWNLOAD_CHUNKS);
        let options = ReadOptions {
            limits: self.limits,
            keep_labels: needs_labels(&job.spec),
            keep_versions: job.versions.is_some(),
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
                moved();
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
