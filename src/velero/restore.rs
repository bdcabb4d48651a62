//! `restores.velero.io/v1` (restore-semantics 1.1).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fields::{self, HookStatus, LocalObjectReference, is_zero, null_as_default};
use super::restore_hooks::RestoreHooks;

/// Finalizer that keeps a Restore until its files are removed from the backup location.
pub const FINALIZER: &str = "restores.velero.io/external-resources-finalizer";

/// Annotation with a Go duration that overrides the time given to pod volume restores.
pub const POD_VOLUME_TIMEOUT: &str = "velero.io/pod-volume-timeout";

/// What is to be restored, and how.
///
/// A Restore without `spec` is accepted by the API server, so it is read as an empty one and refused by validation,
/// where the user can see it.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "Restore",
    plural = "restores",
    namespaced,
    status = "RestoreStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A restore of a Velero backup into this cluster: the job, its queue place and its record."
)]
#[serde(rename_all = "camelCase", default, remote = "Self")]
pub struct RestoreSpec {
    /// Name of a Backup in the same namespace.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub backup_name: String,
    /// Name of a schedule, whose last completed backup is restored.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub schedule_name: String,
    /// Namespaces to restore, globs allowed; empty or `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub included_namespaces: Vec<String>,
    /// Namespaces to leave out, globs allowed.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub excluded_namespaces: Vec<String>,
    /// Resources to restore; empty or `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub included_resources: Vec<String>,
    /// Resources to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub excluded_resources: Vec<String>,
    /// Target namespace by source namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub namespace_mapping: BTreeMap<String, String>,
    /// Only items with these labels; absent for all items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Only items that match one of these; an explicitly empty list is not the same as none (restore-semantics 1.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub or_label_selectors: Option<Vec<LabelSelector>>,
    /// Whether PersistentVolumes are restored from snapshots; absent as true.
    #[serde(rename = "restorePVs", skip_serializing_if = "Option::is_none")]
    pub restore_pvs: Option<bool>,
    /// Resources whose status is restored as well; absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_status: Option<RestoreStatusSpec>,
    /// Whether services keep their node ports; absent as false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_node_ports: Option<bool>,
    /// Whether cluster-scoped resources are restored; absent as "where they are needed" (restore-semantics 4.5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_cluster_resources: Option<bool>,
    /// Hooks to run in restored pods. Always written.
    #[serde(deserialize_with = "null_as_default")]
    pub hooks: RestoreHooks,
    /// What becomes of items that exist: empty, `none` or `update`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub existing_resource_policy: String,
    /// Time given to asynchronous operations, a Go duration. Always written, `0s` when empty.
    #[serde(serialize_with = "fields::duration", deserialize_with = "null_as_default")]
    pub item_operation_timeout: String,
    /// ConfigMap with patches to apply to items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_modifier: Option<LocalObjectReference>,
    /// Settings of the uploader of pod volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploader_config: Option<UploaderConfigForRestore>,
}

impl Serialize for RestoreSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for RestoreSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An Option is what serde takes a missing field for; the remote derive above reads the fields themselves.
        #[derive(Deserialize)]
        struct Present(#[serde(with = "RestoreSpec")] RestoreSpec);
        Ok(Option::<Present>::deserialize(deserializer)?.map_or_else(Self::default, |Present(spec)| spec))
    }
}

/// `spec.restoreStatus`: which resources get their status back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreStatusSpec {
    /// Resources to restore the status of; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub included_resources: Vec<String>,
    /// Resources to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub excluded_resources: Vec<String>,
}

/// `spec.uploaderConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UploaderConfigForRestore {
    /// Whether files are written sparsely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_sparse_files: Option<bool>,
    /// How many files are downloaded at once.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub parallel_files_download: i64,
}

/// How far a restore is, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreStatus {
    /// The phase; empty for `New`. [`crate::model::Phase::parse`] reads it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("enum" = [
        "New", "FailedValidation", "InProgress", "WaitingForPluginOperations",
        "WaitingForPluginOperationsPartiallyFailed", "Completed", "PartiallyFailed", "Failed", "Finalizing",
        "FinalizingPartiallyFailed"
    ]))]
    pub phase: String,
    /// Everything that is wrong with the specification.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(extend("nullable" = true))]
    pub validation_errors: Vec<String>,
    /// Count of warnings in all buckets.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub warnings: i64,
    /// Count of errors in all buckets.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub errors: i64,
    /// Why the whole restore failed; only with phase `Failed`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub failure_reason: String,
    /// When the restore went `InProgress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When the restore ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// Items restored so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<RestoreProgress>,
    /// Asynchronous operations started.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub restore_item_operations_attempted: i64,
    /// Asynchronous operations that went well.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub restore_item_operations_completed: i64,
    /// Asynchronous operations that failed.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub restore_item_operations_failed: i64,
    /// Hooks; there for every finalized restore, possibly empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_status: Option<HookStatus>,
}

/// `status.progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreProgress {
    /// Items there are to restore.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub total_items: i64,
    /// Items dealt with.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub items_restored: i64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::model::Phase;

    /// restore-semantics 1.1
    #[test]
    fn hooks_and_item_operation_timeout_are_always_written() {
        let spec = RestoreSpec { backup_name: "b".into(), ..RestoreSpec::default() };
        assert_eq!(
            serde_json::to_value(Restore::new("r", spec)).unwrap(),
            json!({
                "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "r"},
                "spec": {"backupName": "b", "hooks": {}, "itemOperationTimeout": "0s"},
            })
        );
    }

    /// restore-semantics 1.1
    #[test]
    fn null_is_read_for_every_field_of_spec_and_status() {
        let names = |value: serde_json::Value| -> serde_json::Map<String, serde_json::Value> {
            value.as_object().unwrap().keys().map(|key| (key.clone(), json!(null))).collect()
        };
        let crds = crate::velero::crds();
        let crd = crds.iter().find(|crd| crd.spec.names.kind == "Restore").unwrap();
        let schema = serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap();
        let properties = |part: &str| schema["openAPIV3Schema"]["properties"][part]["properties"].clone();
        let restore: Restore = serde_json::from_value(json!({
            "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "r"},
            "spec": names(properties("spec")), "status": names(properties("status")),
        }))
        .unwrap();
        assert_eq!(restore.spec, RestoreSpec::default());
        assert_eq!(restore.status, Some(RestoreStatus::default()));
    }

    #[test]
    fn a_restore_without_spec_reads_as_an_empty_one() {
        for text in [r#"{"metadata":{"name":"r"}}"#, r#"{"metadata":{"name":"r"},"spec":null,"status":null}"#] {
            let restore: Restore = serde_json::from_str(text).unwrap();
            assert_eq!(restore.spec, RestoreSpec::default());
            assert_eq!(restore.status, None);
        }
    }

    /// restore-semantics 1.4 rule 5
    #[test]
    fn an_explicitly_empty_list_of_or_selectors_is_told_from_none() {
        let read = |text: &str| serde_json::from_str::<RestoreSpec>(text).unwrap().or_label_selectors;
        assert_eq!(read("{}"), None);
        assert_eq!(read(r#"{"orLabelSelectors":null}"#), None);
        assert_eq!(read(r#"{"orLabelSelectors":[]}"#), Some(Vec::new()));
    }

    /// restore-semantics 1.1, a given timeout keeps its text
    #[test]
    fn an_unknown_phase_and_unknown_fields_are_read() {
        let restore: Restore = serde_json::from_value(json!({
            "metadata": {"name": "r"}, "spec": {"fresh": {"a": 1}, "itemOperationTimeout": "1h"},
            "status": {"phase": "Pausing", "startTimestamp": "2026-01-02T03:04:05Z"},
        }))
        .unwrap();
        let status = restore.status.unwrap();
        assert_eq!((status.phase.as_str(), Phase::parse(&status.phase)), ("Pausing", None));
        assert_eq!(restore.spec.item_operation_timeout, "1h"); // the text is kept, not "1h0m0s"
        assert_eq!(serde_json::to_value(status).unwrap()["startTimestamp"], "2026-01-02T03:04:05Z");
    }

    /// restore-semantics 1.1
    #[test]
    fn every_phase_of_the_model_is_in_the_schema() {
        let status = schemars::schema_for!(RestoreStatus).to_value();
        let phases = status["properties"]["phase"]["enum"].as_array().unwrap().clone();
        assert_eq!(phases.len(), Phase::ALL.len());
        assert!(phases.iter().all(|phase| Phase::parse(phase.as_str().unwrap()).is_some()));
    }
}
