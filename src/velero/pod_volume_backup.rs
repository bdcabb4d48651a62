//! `podvolumebackups.velero.io/v1`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{DataProgress, ObjectReference, is_false, is_zero, null_as_default};

/// Which volume of which pod was backed up, and into what.
#[derive(Clone, Debug, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "PodVolumeBackup",
    plural = "podvolumebackups",
    namespaced,
    status = "PodVolumeBackupStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Started", "type": "date", "jsonPath": ".status.startTimestamp"}"#,
    printcolumn = r#"{"name": "Bytes Done", "type": "integer", "format": "int64", "jsonPath": ".status.progress.bytesDone"}"#,
    printcolumn = r#"{"name": "Total Bytes", "type": "integer", "format": "int64", "jsonPath": ".status.progress.totalBytes"}"#,
    printcolumn = r#"{"name": "Incremental Bytes", "type": "integer", "format": "int64", "priority": 10, "jsonPath": ".status.incrementalBytes"}"#,
    printcolumn = r#"{"name": "Storage Location", "type": "string", "jsonPath": ".spec.backupStorageLocation"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".status.node"}"#,
    printcolumn = r#"{"name": "Uploader", "type": "string", "jsonPath": ".spec.uploaderType"}"#,
    doc = "The backup of one pod volume by its files."
)]
#[serde(rename_all = "camelCase")]
pub struct PodVolumeBackupSpec {
    /// The node of the pod.
    pub node: String,
    /// The pod.
    pub pod: ObjectReference,
    /// Name of the volume within the pod.
    pub volume: String,
    /// Name of the BackupStorageLocation that holds the data.
    pub backup_storage_location: String,
    /// Address of the repository.
    pub repo_identifier: String,
    /// What moves the files: `kopia`, or `restic` (also empty).
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["kopia", "restic", ""]))]
    pub uploader_type: String,
    /// Tags of the snapshot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub tags: BTreeMap<String, String>,
    /// Settings of the uploader.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub uploader_settings: BTreeMap<String, String>,
    /// Whether it is to stop.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub cancel: bool,
}

/// How the backup of the volume went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodVolumeBackupStatus {
    /// The phase; empty for `New`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["New", "Accepted", "Prepared", "InProgress", "Canceling", "Canceled", "Completed", "Failed"]))]
    pub phase: String,
    /// Path of the volume on the node.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub path: String,
    /// The snapshot in the repository.
    #[serde(rename = "snapshotID", skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub snapshot_id: String,
    /// Why it is in this phase.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub message: String,
    /// When the data began to move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// When a node took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_timestamp: Option<Time>,
    /// Bytes moved so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DataProgress")]
    pub progress: Option<DataProgress>,
    /// Bytes that were new.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub incremental_bytes: i64,
}
