//! `backups.velero.io/v1` (restore-semantics 1.2).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{self, HookStatus, LocalObjectReference, is_zero, null_as_default};

/// What was backed up, and how. A restorer reads little of it; the rest is there to be shown and passed on.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "Backup",
    plural = "backups",
    namespaced,
    status = "BackupStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Velero backup, as the cluster and the file `velero-backup.json` describe it."
)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupSpec {
    /// Labels put on the backup by its template. Always written.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: BackupMetadata,
    /// Namespaces backed up; empty or `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub included_namespaces: Vec<String>,
    /// Namespaces left out.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub excluded_namespaces: Vec<String>,
    /// Resources backed up; empty or `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub included_resources: Vec<String>,
    /// Resources left out.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub excluded_resources: Vec<String>,
    /// Cluster-scoped resources backed up.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub included_cluster_scoped_resources: Vec<String>,
    /// Cluster-scoped resources left out.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub excluded_cluster_scoped_resources: Vec<String>,
    /// Namespaced resources backed up.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub included_namespace_scoped_resources: Vec<String>,
    /// Namespaced resources left out.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub excluded_namespace_scoped_resources: Vec<String>,
    /// Only items with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Only items that match one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub or_label_selectors: Option<Vec<LabelSelector>>,
    /// Whether volumes were snapshotted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_volumes: Option<bool>,
    /// How long the backup is kept, a Go duration. Always written.
    #[serde(serialize_with = "fields::duration", deserialize_with = "null_as_default")]
    pub ttl: String,
    /// Label that groups volumes into one group snapshot.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub volume_group_snapshot_label_key: String,
    /// Whether cluster-scoped resources were backed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_cluster_resources: Option<bool>,
    /// Hooks run in pods. Always written.
    #[serde(deserialize_with = "null_as_default")]
    pub hooks: BackupHooks,
    /// Name of the BackupStorageLocation that holds the backup.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub storage_location: String,
    /// Names of the locations that hold volume snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub volume_snapshot_locations: Vec<String>,
    /// Older name of `defaultVolumesToFsBackup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_volumes_to_restic: Option<bool>,
    /// Whether pod volumes were backed up by files unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_volumes_to_fs_backup: Option<bool>,
    /// Items backed up first, by resource.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub ordered_resources: BTreeMap<String, String>,
    /// Time given to a CSI snapshot, a Go duration. Always written.
    #[serde(serialize_with = "fields::duration", deserialize_with = "null_as_default")]
    pub csi_snapshot_timeout: String,
    /// Time given to asynchronous operations, a Go duration. Always written.
    #[serde(serialize_with = "fields::duration", deserialize_with = "null_as_default")]
    pub item_operation_timeout: String,
    /// ConfigMap with volume policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LocalObjectReference")]
    pub resource_policy: Option<LocalObjectReference>,
    /// Whether snapshot data was moved into the backup location.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_move_data: Option<bool>,
    /// The data mover; empty for Velero's own.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub datamover: String,
    /// Settings of the uploader of pod volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploader_config: Option<UploaderConfigForBackup>,
}

/// `spec.metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupMetadata {
    /// Labels of the backup.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}

/// `spec.uploaderConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UploaderConfigForBackup {
    /// How many files are uploaded at once.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub parallel_files_upload: i64,
}

/// `spec.hooks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupHooks {
    /// One entry for each set of pods and hooks.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub resources: Vec<BackupResourceHookSpec>,
}

/// Hooks and the pods they are for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupResourceHookSpec {
    /// Name of this set.
    pub name: String,
    /// Namespaces it holds for; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub included_namespaces: Vec<String>,
    /// Namespaces it does not hold for.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub excluded_namespaces: Vec<String>,
    /// Resources it holds for; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub included_resources: Vec<String>,
    /// Resources it does not hold for.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub excluded_resources: Vec<String>,
    /// Only pods with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Hooks before the pod is backed up.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub pre: Vec<BackupResourceHook>,
    /// Hooks after the pod was backed up.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub post: Vec<BackupResourceHook>,
}

/// One hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupResourceHook {
    /// A command in a container.
    pub exec: BackupExecHook,
}

/// A command to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupExecHook {
    /// The container; empty for the first one.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub container: String,
    /// The command and its arguments.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// What a failure leads to: `Continue` or `Fail`.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = ["Continue", "Fail"]))]
    pub on_error: String,
    /// Time the command may take, a Go duration.
    #[serde(default, serialize_with = "fields::duration", deserialize_with = "null_as_default")]
    pub timeout: String,
}

/// How the backup went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStatus {
    /// Major version of the format; superseded by `formatVersion`.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub version: i64,
    /// Version of the tarball's layout, `1.1.0` today.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub format_version: String,
    /// When the backup may be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Time>,
    /// The phase; empty for `New`. `Completed` is the one that schedules pick (restore-semantics 1.5).
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = [
        "New", "Queued", "ReadyToStart", "FailedValidation", "InProgress", "WaitingForPluginOperations",
        "WaitingForPluginOperationsPartiallyFailed", "Finalizing", "FinalizingPartiallyFailed", "Completed",
        "PartiallyFailed", "Failed", "Deleting"
    ]))]
    pub phase: String,
    /// Place in the queue.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub queue_position: i64,
    /// Everything that is wrong with the specification.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub validation_errors: Vec<String>,
    /// When the backup began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When the backup ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// Native volume snapshots tried.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub volume_snapshots_attempted: i64,
    /// Native volume snapshots made.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub volume_snapshots_completed: i64,
    /// Why the whole backup failed.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub failure_reason: String,
    /// Count of warnings.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub warnings: i64,
    /// Count of errors.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub errors: i64,
    /// Items backed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<BackupProgress>,
    /// CSI snapshots tried.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub csi_volume_snapshots_attempted: i64,
    /// CSI snapshots made.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub csi_volume_snapshots_completed: i64,
    /// Asynchronous operations started.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub backup_item_operations_attempted: i64,
    /// Asynchronous operations that went well.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub backup_item_operations_completed: i64,
    /// Asynchronous operations that failed.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub backup_item_operations_failed: i64,
    /// Hooks run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_status: Option<HookStatus>,
}

/// `status.progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupProgress {
    /// Items there were to back up.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub total_items: i64,
    /// Items backed up.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub items_backed_up: i64,
}
