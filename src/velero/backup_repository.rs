//! `backuprepositories.velero.io/v1`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{duration, null_as_default};

/// Where the files of pod volumes are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "BackupRepository",
    plural = "backuprepositories",
    namespaced,
    status = "BackupRepositoryStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Repository Type", "type": "string", "jsonPath": ".spec.repositoryType"}"#,
    doc = "The repository of one namespace in one backup location."
)]
#[serde(rename_all = "camelCase")]
pub struct BackupRepositorySpec {
    /// The namespace whose volumes it holds.
    pub volume_namespace: String,
    /// Name of the BackupStorageLocation it lies in.
    pub backup_storage_location: String,
    /// `kopia`, or `restic` (also empty).
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["kopia", "restic", ""]))]
    pub repository_type: String,
    /// Address of a restic repository.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub restic_identifier: String,
    /// How often it is maintained; a Go duration.
    #[serde(serialize_with = "duration")]
    pub maintenance_frequency: String,
    /// Settings of the repository.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub repository_config: BTreeMap<String, String>,
}

/// Whether the repository can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupRepositoryStatus {
    /// `New`, `Ready` or `NotReady`; empty for `New`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["New", "Ready", "NotReady"]))]
    pub phase: String,
    /// Why it is in this phase.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub message: String,
    /// When it was last maintained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_maintenance_time: Option<Time>,
    /// How that went lately.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub recent_maintenance: Vec<RecentMaintenance>,
}

/// One maintenance of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RecentMaintenance {
    /// `Succeeded` or `Failed`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["Succeeded", "Failed"]))]
    pub result: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete_timestamp: Option<Time>,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub message: String,
}
