//! `volumesnapshotlocations.velero.io/v1`.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backup_storage_location::SecretKeySelector;
use super::fields::null_as_default;

/// Where native volume snapshots are.
#[derive(Clone, Debug, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "VolumeSnapshotLocation",
    plural = "volumesnapshotlocations",
    namespaced,
    status = "VolumeSnapshotLocationStatus",
    shortname = "vsl",
    derive = "PartialEq",
    derive = "Default",
    doc = "A place that holds native volume snapshots."
)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotLocationSpec {
    /// The provider; a name without `/` means `velero.io/<name>`.
    pub provider: String,
    /// Settings of the provider.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub config: BTreeMap<String, String>,
    /// Secret with the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretKeySelector")]
    pub credential: Option<SecretKeySelector>,
}

/// Whether the location can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotLocationStatus {
    /// `Available` or `Unavailable`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["Available", "Unavailable"]))]
    pub phase: String,
}
