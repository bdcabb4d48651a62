//! `datadownloads.velero.io/v2alpha1`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{DataProgress, is_false, is_zero, null_as_default};

/// Which snapshot is put into which volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v2alpha1",
    kind = "DataDownload",
    plural = "datadownloads",
    namespaced,
    status = "DataDownloadStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Started", "type": "date", "jsonPath": ".status.startTimestamp"}"#,
    printcolumn = r#"{"name": "Bytes Done", "type": "integer", "format": "int64", "jsonPath": ".status.progress.bytesDone"}"#,
    printcolumn = r#"{"name": "Total Bytes", "type": "integer", "format": "int64", "jsonPath": ".status.progress.totalBytes"}"#,
    printcolumn = r#"{"name": "Storage Location", "type": "string", "jsonPath": ".spec.backupStorageLocation"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".status.node"}"#,
    doc = "The restore of one volume from snapshot data in the backup location."
)]
#[serde(rename_all = "camelCase")]
pub struct DataDownloadSpec {
    /// The volume to fill.
    pub target_volume: TargetVolume,
    /// Name of the BackupStorageLocation that holds the data.
    pub backup_storage_location: String,
    /// The data mover; empty for Velero's own.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub datamover: String,
    /// The snapshot in the repository.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// Namespace the volume was backed up from.
    pub source_namespace: String,
    /// Settings of the data mover.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub data_mover_config: BTreeMap<String, String>,
    /// Whether it is to stop.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub cancel: bool,
    /// Time given to it, a Go duration.
    pub operation_timeout: String,
    /// Operating system of the node to run on.
    #[serde(
        rename = "nodeOS",
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_default"
    )]
    #[schemars(extend("enum" = ["auto", "linux", "windows"]))]
    pub node_os: String,
    /// Size of the snapshot in bytes.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub snapshot_size: i64,
}

/// The volume to fill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetVolume {
    /// Name of the claim.
    pub pvc: String,
    /// Name of the volume.
    pub pv: String,
    /// Namespace of the claim.
    pub namespace: String,
}

/// How far the download is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataDownloadStatus {
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
    /// The node that took it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub accepted_by_node: String,
}
