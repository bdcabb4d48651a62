//! Writing a restore's files back to the location, under Velero's keys (restore-semantics 9.1 to 9.3).

use std::io;

use bytes::Bytes;

use super::stores::OpenLocation;
use crate::engine::Report;
use crate::model::{Results, error_chain};
use crate::progress::RestoreProgress;
use crate::storage::files;
use crate::velero::volume_info::RestoreVolumeInfo;

/// Uploads the log.
///
/// # Errors
/// A message, when the store does not take it.
pub(super) async fn log(location: &OpenLocation, restore: &str, followed: &RestoreProgress) -> Result<(), String> {
    let reader = followed.log_reader();
    let compressed = tokio::task::spawn_blocking(move || files::log(reader)).await;
    let compressed = compressed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let key = location.layout.restore_log(restore);
    location.store.put(&key, compressed).await.map_err(|error| error_chain(&error))
}

/// Uploads results, resource list, item operations and volume info; a failure is logged, as the restore itself is done.
///
/// The list of item operations is empty: no asynchronous operation is begun yet.
pub(super) async fn files(
    location: &OpenLocation,
    restore: &str,
    report: &Report,
    results: &Results,
    volumes: &[RestoreVolumeInfo],
) {
    let layout = &location.layout;
    put_results(location, restore, results).await;
    put(location, layout.restore_resource_list(restore), files::resource_list(&report.resource_list)).await;
    put(location, layout.restore_item_operations(restore), files::item_operations(&[])).await;
    put(location, layout.restore_volume_info(restore), files::volume_info(volumes)).await;
}

/// Uploads the results alone.
pub(super) async fn put_results(location: &OpenLocation, restore: &str, results: &Results) {
    put(location, location.layout.restore_results(restore), files::results(results)).await;
}

async fn put(location: &OpenLocation, key: String, content: io::Result<Bytes>) {
    let stored = match content {
        Ok(content) => location.store.put(&key, content).await.map_err(|error| error_chain(&error)),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = stored {
        tracing::error!(key, error, "a file of the restore could not be uploaded");
    }
}
