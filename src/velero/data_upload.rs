//! `datauploads.velero.io/v2alpha1`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{DataProgress, is_false, is_zero, null_as_default};

/// Which snapshot is moved into the backup location.
#[derive(Clone, Debug, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v2alpha1",
    kind = "DataUpload",
    plural = "datauploads",
    namespaced,
    status = "DataUploadStatus",
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
    doc = "The move of one volume snapshot into the backup location."
)]
#[serde(rename_all = "camelCase")]
pub struct DataUploadSpec {
    /// Kind of the snapshot, `CSI`.
    pub snapshot_type: String,
    /// The CSI snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi_snapshot: Option<CsiSnapshotSpec>,
    /// Name of the claim.
    #[serde(rename = "sourcePVC")]
    pub source_pvc: String,
    /// The data mover; empty for Velero's own.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub datamover: String,
    /// Name of the BackupStorageLocation that holds the data.
    pub backup_storage_location: String,
    /// Namespace of the claim.
    pub source_namespace: String,
    /// Settings of the data mover.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub data_mover_config: BTreeMap<String, String>,
    /// Whether it is to stop.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub cancel: bool,
    /// Time given to it, a Go duration.
    pub operation_timeout: String,
}

/// A CSI snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CsiSnapshotSpec {
    /// Name of the VolumeSnapshot.
    pub volume_snapshot: String,
    /// Storage class of the claim.
    pub storage_class: String,
    /// Class of the snapshot.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub snapshot_class: String,
    /// The driver.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub driver: String,
}

/// How far the upload is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataUploadStatus {
    /// The phase; empty for `New`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["New", "Accepted", "Prepared", "InProgress", "Canceling", "Canceled", "Completed", "Failed"]))]
    pub phase: String,
    /// Path of the snapshot on the node.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub path: String,
    /// The snapshot in the repository.
    #[serde(rename = "snapshotID", skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub snapshot_id: String,
    /// What the data mover reports.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub data_mover_result: BTreeMap<String, String>,
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
    /// Operating system of that node.
    #[serde(rename = "nodeOS", skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["auto", "linux", "windows"]))]
    pub node_os: String,
    /// The node that took it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub accepted_by_node: String,
    /// Bytes that were new.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub incremental_bytes: i64,
}
