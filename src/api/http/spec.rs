//! `spec` of a Restore as a request may hold it (restore-semantics 1.1): the types are checked here, the meaning is
//! Velero's validation and comes later, the same for every way in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What to restore: `spec` of Velero's Restore.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RestoreSpec {
    /// Name of a Backup in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_name: Option<String>,
    /// Name of a Schedule whose newest backup is taken; exclusive with backupName.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule_name: Option<String>,
    /// Namespaces to take; empty or `*` for all; globs allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    included_namespaces: Option<Vec<String>>,
    /// Namespaces to leave out; globs allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded_namespaces: Option<Vec<String>>,
    /// Resources to take; empty or `*` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    included_resources: Option<Vec<String>>,
    /// Resources to leave out.
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded_resources: Option<Vec<String>>,
    /// Source namespace to target namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_mapping: Option<BTreeMap<String, String>>,
    /// Labels an item must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    label_selector: Option<LabelSelector>,
    /// Alternatives, of which an item must match one; exclusive with labelSelector.
    #[serde(skip_serializing_if = "Option::is_none")]
    or_label_selectors: Option<Vec<LabelSelector>>,
    /// Whether persistent volumes are restored; absent means yes.
    #[serde(rename = "restorePVs", skip_serializing_if = "Option::is_none")]
    restore_pvs: Option<bool>,
    /// Whose status is restored; absent means nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_status: Option<RestoreStatusSpec>,
    /// Whether services keep their node ports; absent means no.
    #[serde(skip_serializing_if = "Option::is_none")]
    preserve_node_ports: Option<bool>,
    /// Whether cluster-scoped resources are restored; absent means as far as they are needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    include_cluster_resources: Option<bool>,
    /// Init containers and commands for restored pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    hooks: Option<RestoreHooks>,
    /// What happens to objects that exist: `none` or `update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    existing_resource_policy: Option<String>,
    /// How long to wait for asynchronous operations, in Go's form such as `4h0m0s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    item_operation_timeout: Option<String>,
    /// A ConfigMap with rules that change items before they are created.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_modifier: Option<TypedLocalObjectReference>,
    /// Settings of the uploader of volume data.
    #[serde(skip_serializing_if = "Option::is_none")]
    uploader_config: Option<UploaderConfig>,
}

impl RestoreSpec {
    /// Velero's JSON form. An explicitly empty list stays, as Velero tells it from an absent one (restore-semantics 1.4
    /// rule 5).
    pub(super) fn into_json(self) -> Value {
        // Maps with text keys and numbers always have a JSON form.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Labels an item must have: all of these.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LabelSelector {
    /// Labels that must have exactly these values.
    #[serde(skip_serializing_if = "Option::is_none")]
    match_labels: Option<BTreeMap<String, String>>,
    /// Further requirements.
    #[serde(skip_serializing_if = "Option::is_none")]
    match_expressions: Option<Vec<LabelSelectorRequirement>>,
}

/// One requirement of a label selector.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LabelSelectorRequirement {
    /// The label key.
    key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    operator: String,
    /// The values of `In` and `NotIn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<String>>,
}

/// Whose status is restored.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RestoreStatusSpec {
    /// Resources to take; empty or `*` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    included_resources: Option<Vec<String>>,
    /// Resources to leave out.
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded_resources: Option<Vec<String>>,
}

/// Hooks of a restore.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RestoreHooks {
    /// Hooks, each with the pods it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Vec<RestoreResourceHook>>,
}

/// Hooks for some pods.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RestoreResourceHook {
    /// Name of the hook.
    name: String,
    /// Namespaces to take.
    #[serde(skip_serializing_if = "Option::is_none")]
    included_namespaces: Option<Vec<String>>,
    /// Namespaces to leave out.
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded_namespaces: Option<Vec<String>>,
    /// Resources to take.
    #[serde(skip_serializing_if = "Option::is_none")]
    included_resources: Option<Vec<String>>,
    /// Resources to leave out.
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded_resources: Option<Vec<String>>,
    /// Labels a pod must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    label_selector: Option<LabelSelector>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    post_hooks: Option<Vec<PostHook>>,
}

/// One hook: either of the two.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PostHook {
    /// A command in a container that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<ExecHook>,
    /// Containers that run before the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<InitHook>,
}

/// A command to run in a restored pod.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExecHook {
    /// The container; the first one where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    /// The command and its arguments.
    command: Vec<String>,
    /// `Continue` or `Fail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_error: Option<String>,
    /// How long the command may take, in Go's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    exec_timeout: Option<String>,
    /// How long to wait until the container runs, in Go's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_timeout: Option<String>,
    /// Whether to wait until the container is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_for_ready: Option<bool>,
}

/// Containers to add to a restored pod.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct InitHook {
    /// Containers as Kubernetes defines them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    init_containers: Option<Vec<Map<String, Value>>>,
    /// How long they may take, in Go's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
}

/// A reference to an object in the namespace of the Restore.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TypedLocalObjectReference {
    /// API group; absent or empty for the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_group: Option<String>,
    /// Kind.
    kind: String,
    /// Name.
    name: String,
}

/// Settings of the uploader of volume data.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct UploaderConfig {
    /// Whether files are written sparse.
    #[serde(skip_serializing_if = "Option::is_none")]
    write_sparse_files: Option<bool>,
    /// How many files are downloaded at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_files_download: Option<u32>,
}
