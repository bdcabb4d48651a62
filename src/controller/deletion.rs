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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::super::testing::{Asked, Log, backup, location, records, serving};
    use super::*;

    /// Cleans up a Restore with another's finalizer beside ours, of a cluster that has these objects.
    async fn cleaned(backup_name: &str, objects: &[Value]) -> (Result<(), String>, Log) {
        let restore = json!({"apiVersion": "velero.io/v1", "kind": "Restore", "spec": {"backupName": backup_name},
            "metadata": {"name": "r", "finalizers": ["example.com/f", FINALIZER]}});
        let mut objects = objects.to_vec();
        objects.push(restore.clone());
        let (records, log) = records(serving(&objects));
        let restore: Restore = serde_json::from_value(restore).unwrap();
        (clean_up(&records, &Stores::default(), &restore).await, log)
    }

    fn patches(log: &Log) -> Vec<Value> {
        let is_patch = |asked: &&Asked| asked.method == http::Method::PATCH;
        log.lock().unwrap().iter().filter(is_patch).map(|asked| asked.body.clone()).collect()
    }

    /// restore-semantics 1.9: without a backup name, or without backup or location, there is nothing to clean.
    #[tokio::test]
    async fn without_a_backup_or_its_location_only_the_finalizer_goes() {
        let without_ours = json!({"metadata": {"finalizers": ["example.com/f"]}});
        for (name, objects) in
            [("", vec![]), ("gone", vec![location("Available")]), ("b", vec![backup("b", &json!({}))])]
        {
            let (cleaned, log) = cleaned(name, &objects).await;
            assert_eq!(cleaned, Ok(()), "{name}");
            assert_eq!(patches(&log), std::slice::from_ref(&without_ours), "{name}");
        }
    }

    /// restore-semantics 1.9: an unavailable location is an error, to be tried again; the finalizer stays meanwhile.
    #[tokio::test]
    async fn an_unavailable_location_keeps_the_finalizer() {
        let mut away = location("Unavailable");
        away["spec"]["accessMode"] = json!("ReadWrite");
        let (cleaned, log) = cleaned("b", &[backup("b", &json!({})), away]).await;
        let message = "backup storage location \"default\" is not available; the files of restore \"r\" stay for now";
        assert_eq!(cleaned, Err(message.to_owned()));
        assert!(patches(&log).is_empty());
    }
}
