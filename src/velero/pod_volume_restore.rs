//! `podvolumerestores.velero.io/v1`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{DataProgress, ObjectReference, is_false, is_zero, null_as_default};

/// Which volume of which pod is restored, and from what.
#[derive(Clone, Debug, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "PodVolumeRestore",
    plural = "podvolumerestores",
    namespaced,
    status = "PodVolumeRestoreStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Started", "type": "date", "jsonPath": ".status.startTimestamp"}"#,
    printcolumn = r#"{"name": "Bytes Done", "type": "integer", "format": "int64", "jsonPath": ".status.progress.bytesDone"}"#,
    printcolumn = r#"{"name": "Total Bytes", "type": "integer", "format": "int64", "jsonPath": ".status.progress.totalBytes"}"#,
    printcolumn = r#"{"name": "Storage Location", "type": "string", "jsonPath": ".spec.backupStorageLocation"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".status.node"}"#,
    printcolumn = r#"{"name": "Uploader Type", "type": "string", "jsonPath": ".spec.uploaderType"}"#,
    doc = "The restore of one pod volume by its files."
)]
#[serde(rename_all = "camelCase")]
pub struct PodVolumeRestoreSpec {
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
    /// The snapshot in the repository.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// Namespace the volume was backed up from.
    pub source_namespace: String,
    /// Settings of the uploader.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub uploader_settings: BTreeMap<String, String>,
    /// Whether it is to stop.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub cancel: bool,
    /// Size of the snapshot in bytes.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub snapshot_size: i64,
}

/// How far the restore of the volume is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodVolumeRestoreStatus {
    /// The phase; empty for `New`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["New", "Accepted", "Prepared", "InProgress", "Canceling", "Canceled", "Completed", "Failed"]))]
    pub phase: String,
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
    /// The node that moves the data.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub node: String,
}
