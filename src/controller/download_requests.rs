//! DownloadRequests: whoever wants a file of a backup or restore gets an address that is signed for a while
//! (restore-semantics 9.4). This is how `velero restore logs` and `describe` come by what they show.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::{Action, Config, Controller, Error as ControllerError};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::records::Records;
use super::source::{self, message};
use super::status::timestamp;
use super::stores::{OpenLocation, Stores};
use super::unsaved::UnsavedOperations;
use crate::cluster::FIELD_MANAGER;
use crate::model::error_chain;
use crate::model::names::is_dns_subdomain;
use crate::storage::{self, Layout, files};
use crate::velero::{DownloadRequest, DownloadTarget};

/// How long an address holds, and how long the request stays: Velero's ten minutes.
const TTL: Duration = Duration::from_mins(10);

/// How often a request that waits is looked at again: for what it asks for, which may turn up, and for its time.
const CHECK: Duration = Duration::from_mins(1);

/// Pause after the first failure; doubled with each further one, up to [`CHECK`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Requests worked on at a time: `velero describe --details` makes half a dozen, one after the other.
const CONCURRENCY: u16 = 8;

/// The kind of target whose file may be older than what is known.
const RESTORE_ITEM_OPERATIONS: &str = "RestoreItemOperations";

const NEW: &str = "New";
const PROCESSED: &str = "Processed";

/// Answers DownloadRequests until it is told to stop.
///
/// `unsaved` has the states of item operations that are not in the location yet: they are uploaded before they are given.
pub async fn answer(records: Records, stores: Stores, unsaved: UnsavedOperations, stop: CancellationToken) {
    let answerer = Arc::new(Answerer { records, stores, unsaved, failures: Mutex::default() });
    let again = |request: Arc<DownloadRequest>, error: &Error, answerer: Arc<Answerer>| {
        let pause = answerer.pause(&request);
        tracing::warn!(request = request.name_any(), %error, ?pause, "a DownloadRequest failed; trying again");
        Action::requeue(pause)
    };
    let work = Controller::new(answerer.requests(), watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .run(|request, answerer| async move { answerer.tend(&request, Timestamp::now()).await }, again, answerer)
        .for_each(|done| async {
            match done {
                // Failures of single requests are told above; one that is gone is nobody's business any more.
                Ok(_) | Err(ControllerError::ReconcilerFailed(..) | ControllerError::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(%error, "watching DownloadRequests failed; trying again"),
            }
        });
    // Nothing is lost in the middle: what is not written is asked for again.
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Find the file, and sign an address for it.
    Answer,
    /// Its time is over: delete it, whether it was answered or not.
    Delete,
    /// It is answered; its time is over in so long.
    Keep(Duration),
    /// It is being deleted, or in a phase that is not ours to touch.
    Leave,
}

/// Decides what to do with a request at this moment.
fn decide(request: &DownloadRequest, now: Timestamp) -> Step {
    if request.metadata.deletion_timestamp.is_some() {
        return Step::Leave;
    }
    let status = request.status.clone().unwrap_or_default();
    let left = status.expiration.map(|expiration| Duration::try_from(expiration.0.duration_since(now)));
    match (status.phase.as_str(), left) {
        (_, Some(Err(_))) => Step::Delete,
        ("" | NEW, _) => Step::Answer,
        (PROCESSED, Some(Ok(left))) => Step::Keep(left),
        _ => Step::Leave,
    }
}

/// A file that can be asked for: whose it is, and how its key is made.
#[derive(Clone, Copy, Debug)]
enum File {
    OfBackup(fn(&Layout, &str) -> String),
    OfRestore(fn(&Layout, &str) -> String),
}

/// The file that a kind of target means; `None` for a kind of a newer Velero.
fn file_of(kind: &str) -> Option<File> {
    Some(match kind {
        "BackupLog" => File::OfBackup(Layout::backup_log),
        "BackupContents" => File::OfBackup(Layout::backup_contents),
        "BackupVolumeSnapshots" => File::OfBackup(Layout::backup_volume_snapshots),
        "BackupItemOperations" => File::OfBackup(Layout::backup_item_operations),
        "BackupResourceList" => File::OfBackup(Layout::backup_resource_list),
        "BackupResults" => File::OfBackup(Layout::backup_results),
        "BackupVolumeInfos" => File::OfBackup(Layout::backup_volume_info),
        "CSIBackupVolumeSnapshots" => File::OfBackup(Layout::backup_csi_volume_snapshots),
        "CSIBackupVolumeSnapshotContents" => File::OfBackup(Layout::backup_csi_volume_snapshot_contents),
        "RestoreLog" => File::OfRestore(Layout::restore_log),
        "RestoreResults" => File::OfRestore(Layout::restore_results),
        "RestoreResourceList" => File::OfRestore(Layout::restore_resource_list),
        RESTORE_ITEM_OPERATIONS => File::OfRestore(Layout::restore_item_operations),
        "RestoreVolumeInfo" => File::OfRestore(Layout::restore_volume_info),
        _ => return None,
    })
}

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// What is asked for is not there, or cannot be had in this way; the request stays unprocessed.
    #[error("{0}")]
    NotThere(String),
    /// A request failed; it is tried again.
    #[error("{0}")]
    Failed(String),
}

/// The error of looking for something that the target names.
fn looking_for(what: &str, error: &kube::Error) -> Error {
    match error {
        kube::Error::Api(status) if status.code == 404 => Error::NotThere(format!("{what}: {}", status.message)),
        error => Error::Failed(format!("{what} cannot be read: {}", message(error))),
    }
}

/// What is written to a request: its expiration, and the address where there is one.
fn status_patch(address: Option<&str>, now: Timestamp) -> Value {
    let mut status = json!({"expiration": timestamp(now + TTL)});
    if let Some(address) = address {
        status["phase"] = json!(PROCESSED);
        status["downloadURL"] = json!(address);
    }
    json!({ "status": status })
}

/// Uploads the state of a restore's item operations, where the one in the location is older.
async fn save(unsaved: &UnsavedOperations, open: &OpenLocation, restore: &str) -> Result<(), Error> {
    // Nothing of a restore is in such a location; whoever follows the address learns that.
    if open.read_only {
        return Ok(());
    }
    let Some(held) = unsaved.hold_known(restore).await else { return Ok(()) };
    let Some(operations) = held.unsaved() else { return Ok(()) };
    let failed = |error: String| Error::Failed(format!("item operations cannot be uploaded: {error}"));
    let file = files::item_operations(operations).map_err(|error| failed(error.to_string()))?;
    let key = open.layout.restore_item_operations(restore);
    open.store.put(&key, file).await.map_err(|error| failed(error_chain(&error)))?;
    held.saved();
    Ok(())
}

struct Answerer {
    records: Records,
    stores: Stores,
    unsaved: UnsavedOperations,
    /// Failures in a row, by UID.
    failures: Mutex<HashMap<String, u32>>,
}

impl Answerer {
    fn requests(&self) -> Api<DownloadRequest> {
        self.records.api()
    }

    /// Does what there is to do for a request now, and says when to look again.
    async fn tend(&self, request: &DownloadRequest, now: Timestamp) -> Result<Action, Error> {
        let next = match decide(request, now) {
            Step::Leave => Action::await_change(),
            Step::Keep(left) => Action::requeue(left.min(CHECK) + Duration::from_secs(1)),
            Step::Delete => {
                self.delete(request).await?;
                Action::await_change()
            }
            Step::Answer => self.process(request, now).await?,
        };
        self.forget_failures(request);
        Ok(next)
    }

    async fn process(&self, request: &DownloadRequest, now: Timestamp) -> Result<Action, Error> {
        let name = request.name_any();
        let target = &request.spec.target;
        let found = self.address(target).await;
        if let Ok(address) = &found {
            self.write(&name, &status_patch(Some(address), now)).await?;
            tracing::info!(request = name, kind = target.kind, target = target.name, "signed an address");
            return Ok(Action::requeue(CHECK));
        }
        // Once, so that it does not stay for ever; Velero's clients wait for the address until their own patience ends.
        let first = request.status.as_ref().is_none_or(|status| status.expiration.is_none());
        if first {
            self.write(&name, &status_patch(None, now)).await?;
        }
        match found {
            Err(Error::NotThere(reason)) => {
                if first {
                    tracing::warn!(
                        request = name,
                        kind = target.kind,
                        target = target.name,
                        reason,
                        "a DownloadRequest is not answered"
                    );
                }
                Ok(Action::requeue(CHECK))
            }
            other => other.map(|_| Action::await_change()),
        }
    }

    /// The signed address of what is asked for. That the file is there is not looked at, as in Velero: the address of
    /// one that is not answers 404.
    async fn address(&self, target: &DownloadTarget) -> Result<String, Error> {
        let DownloadTarget { kind, name } = target;
        let Some(file) = file_of(kind) else {
            return Err(Error::NotThere(format!("target kind {kind:?} is not known to this version")));
        };
        if !is_dns_subdomain(name) {
            return Err(Error::NotThere(format!("target name {name:?} is no name of a Kubernetes object")));
        }
        let (backup, key): (String, _) = match file {
            File::OfBackup(key) => (name.clone(), key),
            File::OfRestore(key) => {
                let restore = self.records.restores().get(name).await;
                let restore = restore.map_err(|error| looking_for(&format!("restore {name:?}"), &error))?;
                (restore.spec.backup_name, key)
            }
        };
        if backup.is_empty() {
            return Err(Error::NotThere(format!("restore {name:?} names no backup, so there is no location")));
        }
        let found = self.records.backup(&backup).await;
        let found = found.map_err(|error| looking_for(&format!("backup {backup:?}"), &error))?;
        let location = &found.spec.storage_location;
        let what = format!("backup storage location {location:?}");
        let location = self.records.location(location).await.map_err(|error| looking_for(&what, &error))?;
        let open = self.stores.open(&self.records, &location).await.map_err(Error::Failed)?;
        if kind == RESTORE_ITEM_OPERATIONS {
            save(&self.unsaved, &open, name).await?;
        }
        let signed = open.store.presign_get(&key(&open.layout, name), TTL).await;
        signed.map_err(|error| {
            let reason = format!("{what}: {}", error_chain(&error));
            match error {
                storage::Error::Misconfigured(_) => Error::NotThere(reason),
                _ => Error::Failed(reason),
            }
        })
    }

    async fn write(&self, name: &str, patch: &Value) -> Result<(), Error> {
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.requests().patch(name, &parameters, &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::Failed(format!("the status cannot be written: {}", source::message(&error)))),
        }
    }

    async fn delete(&self, request: &DownloadRequest) -> Result<(), Error> {
        // Not another one that has got the name meanwhile.
        let preconditions = Preconditions { uid: request.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.requests().delete(&request.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(Error::Failed(format!("it cannot be deleted: {}", source::message(&error)))),
        }
    }

    /// How long to wait before a request is tried again that has failed once more.
    fn pause(&self, request: &DownloadRequest) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(request.uid().unwrap_or_default()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*count).min(10)).min(CHECK);
        *count += 1;
        pause
    }

    fn forget_failures(&self, request: &DownloadRequest) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&request.uid().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::BackupStore as _;

    fn request(status: &Value) -> DownloadRequest {
        serde_json::from_value(json!({
            "apiVersion": "velero.io/v1", "kind": "DownloadRequest", "metadata": {"name": "d", "uid": "1"},
            "spec": {"target": {"kind": "RestoreLog", "name": "r"}}, "status": status,
        }))
        .unwrap()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn every_kind_of_target_has_its_owner_and_key_restore_semantics_9_4() {
        let layout = Layout::new("p");
        for (kind, of_restore, expected) in [
            ("BackupLog", false, "p/backups/x/x-logs.gz"),
            ("BackupContents", false, "p/backups/x/x.tar.gz"),
            ("BackupVolumeSnapshots", false, "p/backups/x/x-volumesnapshots.json.gz"),
            ("BackupItemOperations", false, "p/backups/x/x-itemoperations.json.gz"),
            ("BackupResourceList", false, "p/backups/x/x-resource-list.json.gz"),
            ("BackupResults", false, "p/backups/x/x-results.gz"),
            ("BackupVolumeInfos", false, "p/backups/x/x-volumeinfo.json.gz"),
            ("CSIBackupVolumeSnapshots", false, "p/backups/x/x-csi-volumesnapshots.json.gz"),
            ("CSIBackupVolumeSnapshotContents", false, "p/backups/x/x-csi-volumesnapshotcontents.json.gz"),
            ("RestoreLog", true, "p/restores/x/restore-x-logs.gz"),
            ("RestoreResults", true, "p/restores/x/restore-x-results.gz"),
            ("RestoreResourceList", true, "p/restores/x/restore-x-resource-list.json.gz"),
            ("RestoreItemOperations", true, "p/restores/x/restore-x-itemoperations.json.gz"),
            ("RestoreVolumeInfo", true, "p/restores/x/x-volumeinfo.json.gz"),
        ] {
            let found = match file_of(kind).unwrap() {
                File::OfBackup(key) => (false, key(&layout, "x")),
                File::OfRestore(key) => (true, key(&layout, "x")),
            };
            assert_eq!(found, (of_restore, expected.to_owned()), "{kind}");
        }
        assert!(file_of("RestoreOfTomorrow").is_none());
    }

    #[test]
    fn a_request_is_answered_once_and_deleted_when_its_time_is_over_restore_semantics_9_4() {
        let now = at("2026-01-01T00:10:00Z");
        let (before, after) = ("2026-01-01T00:09:59Z", "2026-01-01T00:10:30Z");
        for (status, step) in [
            (json!({}), Step::Answer),
            (json!({"phase": "New"}), Step::Answer),
            (json!({"expiration": after}), Step::Answer),
            (json!({"expiration": "2026-01-01T00:10:00Z"}), Step::Answer),
            (json!({"expiration": before}), Step::Delete),
            (json!({"phase": "Processed", "expiration": after}), Step::Keep(Duration::from_secs(30))),
            (json!({"phase": "Processed", "expiration": before}), Step::Delete),
            (json!({"phase": "Processed"}), Step::Leave),
            (json!({"phase": "OfTomorrow", "expiration": after}), Step::Leave),
        ] {
            assert_eq!(decide(&request(&status), now), step, "{status}");
        }
        let mut deleted = request(&json!({"expiration": before}));
        deleted.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        assert_eq!(decide(&deleted, now), Step::Leave);
    }

    #[tokio::test]
    async fn item_operations_that_are_newer_than_the_file_are_uploaded_first_restore_semantics_9_4() {
        let store = Arc::new(storage::ObjectBackupStore::memory());
        let open = OpenLocation {
            store: Arc::clone(&store) as _,
            layout: Layout::new(""),
            name: "default".to_owned(),
            read_only: false,
        };
        let unsaved = UnsavedOperations::default();
        save(&unsaved, &open, "r").await.unwrap();
        assert_eq!(store.list("").await.unwrap(), [""; 0], "nothing is known, so nothing is written");

        let mut operation = crate::velero::volume_info::ItemOperation::default();
        operation.spec.operation_id = "dd-1".to_owned();
        unsaved.hold("r").await.keep(vec![operation.clone()]);
        save(&unsaved, &open, "r").await.unwrap();
        assert_eq!(files::restore_item_operations(&*store, &open.layout, "r").await.unwrap(), [operation]);
        assert_eq!(unsaved.hold_known("r").await.unwrap().unsaved(), None);
    }

    #[test]
    fn the_expiration_is_ten_minutes_ahead_with_and_without_an_address() {
        let now = at("2026-01-01T00:00:00.9Z");
        assert_eq!(status_patch(None, now), json!({"status": {"expiration": "2026-01-01T00:10:00Z"}}));
        assert_eq!(
            status_patch(Some("https://x"), now),
            json!({"status": {
                "phase": "Processed", "downloadURL": "https://x", "expiration": "2026-01-01T00:10:00Z",
            }})
        );
    }
}
