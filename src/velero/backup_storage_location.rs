//! `backupstoragelocations.velero.io/v1` (restore-semantics 1.3).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{is_false, null_as_default};

/// Where backups are.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "BackupStorageLocation",
    plural = "backupstoragelocations",
    namespaced,
    status = "BackupStorageLocationStatus",
    shortname = "bsl",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Last Validated", "type": "date", "jsonPath": ".status.lastValidationTime"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Default", "type": "boolean", "jsonPath": ".spec.default"}"#,
    doc = "A place in object storage that holds backups."
)]
#[serde(rename_all = "camelCase")]
pub struct BackupStorageLocationSpec {
    /// The provider; a name without `/` means `velero.io/<name>`.
    pub provider: String,
    /// Settings of the provider.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub config: BTreeMap<String, String>,
    /// Secret with the credentials; absent for those of the surroundings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretKeySelector")]
    pub credential: Option<SecretKeySelector>,
    /// Bucket and prefix.
    pub object_storage: ObjectStorageLocation,
    /// Whether backups go here unless said otherwise.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub default: bool,
    /// `ReadOnly` or `ReadWrite`; empty as the latter.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["ReadOnly", "ReadWrite"]))]
    pub access_mode: String,
    /// How often backups are looked for here, a Go duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_sync_period: Option<String>,
    /// How often the location is checked, a Go duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_frequency: Option<String>,
}

/// `spec.objectStorage`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStorageLocation {
    /// The bucket.
    pub bucket: String,
    /// Folder within the bucket; empty for its root.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub prefix: String,
    /// PEM certificates to trust, in base64.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("format" = "byte"))]
    pub ca_cert: String,
    /// Secret with PEM certificates to trust; excludes `caCert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretKeySelector")]
    pub ca_cert_ref: Option<SecretKeySelector>,
}

/// One key of a Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeySelector {
    /// Name of the Secret.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub name: String,
    /// The key within it.
    pub key: String,
    /// Whether it may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub optional: Option<bool>,
}

/// Whether the location can be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStorageLocationStatus {
    /// `Available` or `Unavailable`; a restore needs the former.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["Available", "Unavailable"]))]
    pub phase: String,
    /// When backups were last looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_synced_time: Option<Time>,
    /// When the location was last checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_validation_time: Option<Time>,
    /// Why it is not available.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub message: String,
    /// No longer written by Velero.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub last_synced_revision: String,
    /// No longer written by Velero.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["ReadOnly", "ReadWrite"]))]
    pub access_mode: String,
}

impl BackupStorageLocation {
    /// Whether the location was found to be usable (restore-semantics 1.3).
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.phase == "Available")
    }
}
