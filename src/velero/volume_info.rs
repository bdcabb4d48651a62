//! The side files that tell of volumes and operations (restore-semantics 2.4 and 9.3).
//!
//! `Phase` and `ReadyToUse` really are capitalised on the wire, and so are the members of `resourceIdentifier`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::fields::{is_zero, null_as_default};

/// One volume of a backup: an element of `<b>-volumeinfo.json.gz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupVolumeInfo {
    /// Name of the claim.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub pvc_name: String,
    /// Namespace of the claim.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub pvc_namespace: String,
    /// Name of the volume; the restorer looks it up by this.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub pv_name: String,
    /// `NativeSnapshot`, `PodVolumeBackup` or `CSISnapshot`; empty when it was skipped.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub backup_method: String,
    /// Whether the snapshot's data was moved into the backup location.
    #[serde(deserialize_with = "null_as_default")]
    pub snapshot_data_moved: bool,
    /// Whether the snapshot was kept after its data was moved.
    #[serde(deserialize_with = "null_as_default")]
    pub preserve_local_snapshot: bool,
    /// Whether the volume was not backed up.
    #[serde(deserialize_with = "null_as_default")]
    pub skipped: bool,
    /// Why it was not.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub skipped_reason: String,
    /// When the snapshot or upload began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// `succeeded` or `failed`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub result: String,
    /// The CSI snapshot.
    #[serde(rename = "csiSnapshotInfo", skip_serializing_if = "Option::is_none")]
    pub csi_snapshot: Option<CsiSnapshotInfo>,
    /// The data moved from a snapshot.
    #[serde(rename = "snapshotDataMovementInfo", skip_serializing_if = "Option::is_none")]
    pub snapshot_data_movement: Option<SnapshotDataMovementInfo>,
    /// The native snapshot.
    #[serde(rename = "nativeSnapshotInfo", skip_serializing_if = "Option::is_none")]
    pub native_snapshot: Option<NativeSnapshotInfo>,
    /// The backup by files.
    #[serde(rename = "pvbInfo", skip_serializing_if = "Option::is_none")]
    pub pod_volume: Option<PodVolumeInfo>,
    /// What the volume was like.
    #[serde(rename = "pvInfo", skip_serializing_if = "Option::is_none")]
    pub pv: Option<PvInfo>,
}

/// One volume of a restore: an element of `<r>-volumeinfo.json.gz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreVolumeInfo {
    /// Name of the claim.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub pvc_name: String,
    /// Namespace of the claim.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub pvc_namespace: String,
    /// Name of the volume.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub pv_name: String,
    /// `PodVolumeRestore`, `NativeSnapshot` or `CSISnapshot`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub restore_method: String,
    /// Whether the data came from the backup location.
    #[serde(deserialize_with = "null_as_default")]
    pub snapshot_data_moved: bool,
    /// The CSI snapshot.
    #[serde(rename = "csiSnapshotInfo", skip_serializing_if = "Option::is_none")]
    pub csi_snapshot: Option<CsiSnapshotInfo>,
    /// The data moved from a snapshot.
    #[serde(rename = "snapshotDataMovementInfo", skip_serializing_if = "Option::is_none")]
    pub snapshot_data_movement: Option<SnapshotDataMovementInfo>,
    /// The native snapshot.
    #[serde(rename = "nativeSnapshotInfo", skip_serializing_if = "Option::is_none")]
    pub native_snapshot: Option<NativeSnapshotInfo>,
    /// The restore by files.
    #[serde(rename = "pvrInfo", skip_serializing_if = "Option::is_none")]
    pub pod_volume: Option<PodVolumeInfo>,
}

/// A CSI snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiSnapshotInfo {
    /// The storage system's name of the snapshot.
    #[serde(deserialize_with = "null_as_default")]
    pub snapshot_handle: String,
    /// Size in bytes.
    #[serde(deserialize_with = "null_as_default")]
    pub size: i64,
    /// The CSI driver.
    #[serde(deserialize_with = "null_as_default")]
    pub driver: String,
    /// Name of the VolumeSnapshotContent.
    #[serde(deserialize_with = "null_as_default")]
    pub vsc_name: String,
    /// The asynchronous operation.
    #[serde(rename = "operationID", skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub operation_id: String,
    /// Whether the snapshot can be used.
    #[serde(rename = "ReadyToUse", skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// The group snapshot it belongs to.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub volume_group_snapshot_handle: String,
}

/// Data moved from a snapshot into the backup location, or back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SnapshotDataMovementInfo {
    /// The data mover.
    #[serde(deserialize_with = "null_as_default")]
    pub data_mover: String,
    /// The uploader.
    #[serde(deserialize_with = "null_as_default")]
    pub uploader_type: String,
    /// The snapshot that was kept.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub retained_snapshot: String,
    /// The snapshot in the repository.
    #[serde(deserialize_with = "null_as_default")]
    pub snapshot_handle: String,
    /// The asynchronous operation.
    #[serde(rename = "operationID", deserialize_with = "null_as_default")]
    pub operation_id: String,
    /// Size in bytes.
    #[serde(deserialize_with = "null_as_default")]
    pub size: i64,
    /// Bytes that were new.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub incremental_size: i64,
    /// Phase of the DataUpload or DataDownload.
    #[serde(rename = "Phase", deserialize_with = "null_as_default")]
    pub phase: String,
}

/// A snapshot of the storage system, made through a volume snapshotter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NativeSnapshotInfo {
    /// The storage system's name of the snapshot.
    #[serde(deserialize_with = "null_as_default")]
    pub snapshot_handle: String,
    /// Type of the volume.
    #[serde(deserialize_with = "null_as_default")]
    pub volume_type: String,
    /// Availability zone of the volume.
    #[serde(rename = "volumeAZ", deserialize_with = "null_as_default")]
    pub volume_az: String,
    /// Provisioned operations per second, as text.
    #[serde(deserialize_with = "null_as_default")]
    pub iops: String,
    /// Phase of the snapshot.
    #[serde(rename = "Phase", deserialize_with = "null_as_default")]
    pub phase: String,
}

/// A backup or restore of a pod volume by its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodVolumeInfo {
    /// The snapshot in the repository.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub snapshot_handle: String,
    /// Size in bytes.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub size: i64,
    /// Bytes that were new.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub incremental_size: i64,
    /// The uploader.
    #[serde(deserialize_with = "null_as_default")]
    pub uploader_type: String,
    /// Name of the volume within the pod.
    #[serde(deserialize_with = "null_as_default")]
    pub volume_name: String,
    /// Name of the pod.
    #[serde(deserialize_with = "null_as_default")]
    pub pod_name: String,
    /// Namespace of the pod.
    #[serde(deserialize_with = "null_as_default")]
    pub pod_namespace: String,
    /// Node of the pod.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub node_name: String,
    /// Phase of the PodVolumeBackup or PodVolumeRestore.
    #[serde(rename = "Phase", deserialize_with = "null_as_default")]
    pub phase: String,
}

/// What the backed-up volume was like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PvInfo {
    /// Its reclaim policy.
    #[serde(deserialize_with = "null_as_default")]
    pub reclaim_policy: String,
    /// Its labels.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}

/// A native snapshot: an element of `<b>-volumesnapshots.json.gz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NativeSnapshot {
    /// What was snapshotted.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: NativeSnapshotSpec,
    /// The snapshot.
    #[serde(deserialize_with = "null_as_default")]
    pub status: NativeSnapshotStatus,
}

/// What was snapshotted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NativeSnapshotSpec {
    /// Name of the backup.
    #[serde(deserialize_with = "null_as_default")]
    pub backup_name: String,
    /// UID of the backup.
    #[serde(rename = "backupUID", deserialize_with = "null_as_default")]
    pub backup_uid: String,
    /// Name of the VolumeSnapshotLocation.
    #[serde(deserialize_with = "null_as_default")]
    pub location: String,
    /// Name of the volume.
    #[serde(deserialize_with = "null_as_default")]
    pub persistent_volume_name: String,
    /// The storage system's name of the volume.
    #[serde(rename = "providerVolumeID", deserialize_with = "null_as_default")]
    pub provider_volume_id: String,
    /// Type of the volume.
    #[serde(deserialize_with = "null_as_default")]
    pub volume_type: String,
    /// Availability zone of the volume.
    #[serde(rename = "volumeAZ", skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub volume_az: String,
    /// Provisioned operations per second.
    #[serde(rename = "volumeIOPS", skip_serializing_if = "Option::is_none")]
    pub volume_iops: Option<i64>,
}

/// The snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NativeSnapshotStatus {
    /// The storage system's name of the snapshot.
    #[serde(
        rename = "providerSnapshotID",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub provider_snapshot_id: String,
    /// `New`, `Completed` or `Failed`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub phase: String,
}

/// An asynchronous operation of an item action: an element of `restore-<r>-itemoperations.json.gz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ItemOperation {
    /// Whose operation it is.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: ItemOperationSpec,
    /// How far it is.
    #[serde(deserialize_with = "null_as_default")]
    pub status: ItemOperationStatus,
}

/// Whose operation it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ItemOperationSpec {
    /// Name of the restore.
    #[serde(deserialize_with = "null_as_default")]
    pub restore_name: String,
    /// UID of the restore.
    #[serde(rename = "restoreUID", deserialize_with = "null_as_default")]
    pub restore_uid: String,
    /// Name of the item action.
    #[serde(deserialize_with = "null_as_default")]
    pub restore_item_action: String,
    /// The item.
    #[serde(deserialize_with = "null_as_default")]
    pub resource_identifier: ResourceIdentifier,
    /// The operation's own name.
    #[serde(rename = "operationID", deserialize_with = "null_as_default")]
    pub operation_id: String,
}

/// An item, with capitalised members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceIdentifier {
    /// API group.
    #[serde(deserialize_with = "null_as_default")]
    pub group: String,
    /// Plural resource name.
    #[serde(deserialize_with = "null_as_default")]
    pub resource: String,
    /// Namespace; empty for cluster-scoped items.
    #[serde(deserialize_with = "null_as_default")]
    pub namespace: String,
    /// Name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// How far an asynchronous operation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ItemOperationStatus {
    /// `New`, `InProgress`, `Completed` or `Failed`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub phase: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub error: String,
    /// Units done.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub n_completed: i64,
    /// Units there are.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub n_total: i64,
    /// What the units are.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub operation_units: String,
    /// What it does.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub description: String,
    /// When it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it was last heard of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<Time>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// restore-semantics 2.4
    #[test]
    fn capitalised_members_of_backup_volume_info_are_read_and_written() {
        let text = json!({
            "pvcName": "c", "pvcNamespace": "n", "pvName": "v", "backupMethod": "CSISnapshot",
            "snapshotDataMoved": false, "preserveLocalSnapshot": false, "skipped": false, "result": "succeeded",
            "csiSnapshotInfo": {
                "snapshotHandle": "h", "size": 7, "driver": "d", "vscName": "s", "ReadyToUse": true
            },
            "pvbInfo": {
                "uploaderType": "kopia", "volumeName": "w", "podName": "p", "podNamespace": "n", "Phase": "Completed"
            },
            "pvInfo": {"reclaimPolicy": "Delete", "labels": {"a": "b"}},
        });
        let info: BackupVolumeInfo = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(info.csi_snapshot.as_ref().unwrap().ready_to_use, Some(true));
        assert_eq!(info.pod_volume.as_ref().unwrap().phase, "Completed");
        assert_eq!(serde_json::to_value(info).unwrap(), text);
    }

    /// restore-semantics 9.3
    #[test]
    fn an_empty_restore_volume_info_still_says_whether_data_was_moved() {
        assert_eq!(serde_json::to_value(RestoreVolumeInfo::default()).unwrap(), json!({"snapshotDataMoved": false}));
    }

    /// restore-semantics 9.3
    #[test]
    fn an_item_operation_has_capitalised_identifier_members() {
        let text = json!({
            "spec": {
                "restoreName": "r", "restoreUID": "u", "restoreItemAction": "a", "operationID": "o",
                "resourceIdentifier": {"Group": "", "Resource": "persistentvolumeclaims", "Namespace": "n", "Name": "c"},
            },
            "status": {"phase": "InProgress", "nCompleted": 1, "nTotal": 2, "operationUnits": "bytes",
                "created": "2026-01-02T03:04:05Z"},
        });
        let operation: ItemOperation = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(operation.spec.resource_identifier.name, "c");
        assert_eq!(serde_json::to_value(operation).unwrap(), text);
    }
}
