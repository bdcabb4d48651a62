//! `downloadrequests.velero.io/v1` (restore-semantics 9.4).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::null_as_default;

/// What is to be downloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "DownloadRequest",
    plural = "downloadrequests",
    namespaced,
    status = "DownloadRequestStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A request for a signed address of one file of a backup or restore."
)]
#[serde(rename_all = "camelCase")]
pub struct DownloadRequestSpec {
    /// The file.
    pub target: DownloadTarget,
}

/// Which file of which backup or restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadTarget {
    /// Which file.
    #[schemars(extend("enum" = [
        "BackupLog", "BackupContents", "BackupVolumeSnapshots", "BackupItemOperations", "BackupResourceList",
        "BackupResults", "RestoreLog", "RestoreResults", "RestoreResourceList", "RestoreItemOperations",
        "CSIBackupVolumeSnapshots", "CSIBackupVolumeSnapshotContents", "BackupVolumeInfos", "RestoreVolumeInfo"
    ]))]
    pub kind: String,
    /// Name of the backup, or of the restore for the kinds that begin with `Restore`.
    pub name: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DownloadRequestStatus {
    /// `New` or `Processed`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["New", "Processed"]))]
    pub phase: String,
    /// The signed address.
    #[serde(rename = "downloadURL", skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub download_url: String,
    /// When the address no longer holds and the request is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Time>,
}
