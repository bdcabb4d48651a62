//! `spec.hooks` of a Restore (restore-semantics 1.1 and 5.12).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{self, null_as_default};

/// Hooks to run in restored pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreHooks {
    /// One entry for each set of pods and hooks.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub resources: Vec<RestoreResourceHookSpec>,
}

/// Hooks and the pods they are for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreResourceHookSpec {
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
    /// The hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub post_hooks: Vec<RestoreResourceHook>,
}

/// One hook: a command or init containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreResourceHook {
    /// A command in a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ExecRestoreHook")]
    pub exec: Option<ExecRestoreHook>,
    /// Init containers put before those of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "InitRestoreHook")]
    pub init: Option<InitRestoreHook>,
}

/// A command to run in a container of a restored pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecRestoreHook {
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
    pub exec_timeout: String,
    /// Time to wait for the container, a Go duration.
    #[serde(default, serialize_with = "fields::duration", deserialize_with = "null_as_default")]
    pub wait_timeout: String,
    /// Whether to wait until the container is ready, and not only running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_ready: Option<bool>,
}

/// Init containers to put into a restored pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InitRestoreHook {
    /// Containers as they were given; unknown fields are kept.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    #[schemars(schema_with = "raw_objects")]
    pub init_containers: Vec<Value>,
    /// Time they may take, a Go duration.
    #[serde(serialize_with = "fields::duration", deserialize_with = "null_as_default")]
    pub timeout: String,
}

/// Objects that the API server takes as they are.
fn raw_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// restore-semantics 1.1
    #[test]
    fn hooks_are_written_as_velero_writes_them() {
        let hooks: RestoreHooks = serde_json::from_value(json!({"resources": [{
            "name": "h",
            "includedNamespaces": null,
            "postHooks": [
                {"exec": {"command": ["true"], "onError": "Fail"}},
                {"init": {"initContainers": [{"name": "i", "odd": 1}], "timeout": "1m"}},
            ],
        }]}))
        .unwrap();
        assert_eq!(
            serde_json::to_value(&hooks).unwrap(),
            json!({"resources": [{"name": "h", "postHooks": [
                {"exec": {"command": ["true"], "onError": "Fail", "execTimeout": "0s", "waitTimeout": "0s"}},
                {"init": {"initContainers": [{"name": "i", "odd": 1}], "timeout": "1m"}},
            ]}]})
        );
    }
}
