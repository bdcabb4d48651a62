//! Writing a restore's files back to the location, under Velero's keys (restore-semantics 9.1 to 9.3). Nothing is written
//! to a location that is read-only.

use std::io;

use bytes::Bytes;

use super::stores::OpenLocation;
use crate::engine::Report;
use crate::engine::events::LogLevel;
use crate::model::{Results, error_chain};
use crate::progress::RestoreProgress;
use crate::storage::files;
use crate::velero::volume_info::{ItemOperation, RestoreVolumeInfo};

/// Uploads the log.
///
/// # Errors
/// A message, when the store does not take it.
pub(super) async fn log(location: &OpenLocation, restore: &str, followed: &RestoreProgress) -> Result<(), String> {
    if location.read_only {
        return Ok(());
    }
    let reader = followed.log_reader();
    let compressed = tokio::task::spawn_blocking(move || files::log(reader)).await;
    let compressed = compressed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let key = location.layout.restore_log(restore);
    location.store.put(&key, compressed).await.map_err(|error| error_chain(&error))
}

/// Uploads results, resource list, item operations and volume info; a failure is logged, as the restore itself is done.
/// Says whether the operations are there: those that still run are needed after a restart.
pub(super) async fn files(
    location: &OpenLocation,
    restore: &str,
    report: &Report,
    results: &Results,
    operations: &[ItemOperation],
    volumes: &[RestoreVolumeInfo],
) -> bool {
    let layout = &location.layout;
    put_results(location, restore, results).await;
    put(location, layout.restore_resource_list(restore), files::resource_list(&report.resource_list)).await;
    let is_list_uploaded = put_item_operations(location, restore, operations).await;
    put(location, layout.restore_volume_info(restore), files::volume_info(volumes)).await;
    is_list_uploaded
}

/// Uploads the item operations alone; says whether they are there.
pub(super) async fn put_item_operations(location: &OpenLocation, restore: &str, operations: &[ItemOperation]) -> bool {
    put(location, location.layout.restore_item_operations(restore), files::item_operations(operations)).await
}

/// Says in the restore's log that it leaves no files, where that is so.
pub(super) fn tell_read_only(location: &OpenLocation, followed: &RestoreProgress) {
    if location.read_only {
        let message = format!(
            "backup storage location {:?} is read-only (spec.accessMode): log, results and lists of this restore are not \
             uploaded, and are known only as long as this service runs",
            location.name
        );
        followed.log(LogLevel::Warning, "controller", &message);
    }
}

/// Uploads the results alone.
pub(super) async fn put_results(location: &OpenLocation, restore: &str, results: &Results) {
    put(location, location.layout.restore_results(restore), files::results(results)).await;
}

/// Uploads a file; says whether nothing is left to do about it, as with a location that takes none.
async fn put(location: &OpenLocation, key: String, content: io::Result<Bytes>) -> bool {
    if location.read_only {
        return true;
    }
    let stored = match content {
        Ok(content) => location.store.put(&key, content).await.map_err(|error| error_chain(&error)),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = &stored {
        tracing::error!(key, error, "a file of the restore could not be uploaded");
    }
    stored.is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::progress::{Hub, Options};
    use crate::storage::testing::Probe;
    use crate::storage::{BackupStore, Layout, ObjectBackupStore};

    /// A location whose first `failures` writes fail, and what it holds in the end.
    fn location(failures: u32) -> (OpenLocation, Arc<dyn BackupStore>) {
        let memory: Arc<dyn BackupStore> = Arc::new(ObjectBackupStore::memory());
        let store = Arc::new(Probe::new(Arc::clone(&memory)).failing(failures));
        (OpenLocation { store, layout: Layout::new(""), name: "default".to_owned(), read_only: false }, memory)
    }

    /// restore-semantics 9.1: in this order; a file that cannot be uploaded keeps none of the others from it.
    #[tokio::test]
    async fn files_are_uploaded_in_order_and_each_for_itself() {
        let order = [
            "restores/r/restore-r-results.gz",
            "restores/r/restore-r-resource-list.json.gz",
            "restores/r/restore-r-itemoperations.json.gz",
            "restores/r/r-volumeinfo.json.gz",
        ];
        for failures in 0..=4_usize {
            let (location, held) = location(u32::try_from(failures).unwrap());
            files(&location, "r", &Report::default(), &Results::default(), &[], &[]).await;
            let mut expected = order[failures..].to_vec();
            expected.sort_unstable();
            assert_eq!(held.list("").await.unwrap(), expected, "after {failures} failures");
        }
    }

    /// restore-semantics 9.1: that the log cannot be uploaded is told, as it is an error of the restore.
    #[tokio::test]
    async fn a_log_that_cannot_be_uploaded_is_told() {
        let hub = Hub::new(Options::default(), CancellationToken::new());
        let followed = hub.create(&"r".parse().unwrap()).unwrap();
        let (location, held) = location(1);
        assert!(log(&location, "r", &followed).await.is_err());
        log(&location, "r", &followed).await.unwrap();
        assert_eq!(held.list("").await.unwrap(), ["restores/r/restore-r-logs.gz"]);
    }
}
