//! A Restore that is being deleted: its files go first, then its finalizer (restore-semantics 1.9).

use serde_json::json;

use super::records::Records;
use super::source;
use super::stores::Stores;
use crate::model::error_chain;
use crate::velero::Restore;
use crate::velero::restore::FINALIZER;

/// Removes the files of a Restore from its location, and then the finalizer that kept it.
///
/// # Errors
/// A message; the caller tries again later.
pub(super) async fn clean_up(records: &Records, stores: &Stores, restore: &Restore) -> Result<(), String> {
    let name = restore.metadata.name.as_deref().unwrap_or_default();
    if !restore.spec.backup_name.is_empty() {
        remove_files(records, stores, restore, name).await?;
    }
    let kept: Vec<&String> =
        restore.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).collect();
    match records.patch(name, &json!({"metadata": {"finalizers": kept}})).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(source::message(&error)),
    }
}

async fn remove_files(records: &Records, stores: &Stores, restore: &Restore, name: &str) -> Result<(), String> {
    let backup = match records.backup(&restore.spec.backup_name).await {
        Ok(backup) => backup,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(source::message(&error)),
    };
    let location = match records.location(&backup.spec.storage_location).await {
        Ok(location) => location,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(source::message(&error)),
    };
    let location_name = location.metadata.name.clone().unwrap_or_default();
    if location.spec.access_mode == "ReadOnly" {
        tracing::info!(
            restore = name,
            location = location_name,
            "the location is read-only: nothing is removed from it"
        );
        return Ok(());
    }
    if location.status.as_ref().is_none_or(|status| status.phase != "Available") {
        return Err(format!(
            "backup storage location {location_name:?} is not available; the files of restore {name:?} stay for now"
        ));
    }
    let location = stores.open(records, &location).await?;
    let removed = location.store.delete_prefix(&location.layout.restore_folder(name)).await;
    removed.map(|_| ()).map_err(|error| error_chain(&error))
}
