//! `spec` of a Restore: Velero's JSON form to message and back (restore-semantics 1.1).

use std::collections::BTreeMap;

use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

use super::pb;

/// A JSON object that leaves out what is empty, as Velero's `omitempty` does.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(mut self, name: &str, value: Option<Value>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn text(self, name: &str, text: String) -> Self {
        let value = (!text.is_empty()).then_some(Value::String(text));
        self.put(name, value)
    }

    fn texts(self, name: &str, texts: Vec<String>) -> Self {
        self.list(name, texts, Value::String)
    }

    fn list<T>(self, name: &str, elements: Vec<T>, convert: impl Fn(T) -> Value) -> Self {
        let value = (!elements.is_empty()).then(|| Value::Array(elements.into_iter().map(convert).collect()));
        self.put(name, value)
    }

    fn map(self, name: &str, map: BTreeMap<String, String>) -> Self {
        let value = (!map.is_empty())
            .then(|| Value::Object(map.into_iter().map(|(key, value)| (key, Value::String(value))).collect()));
        self.put(name, value)
    }

    fn flag(self, name: &str, flag: Option<bool>) -> Self {
        self.put(name, flag.map(Value::Bool))
    }

    fn end(self) -> Value {
        Value::Object(self.0)
    }
}

/// The spec in Velero's own JSON form.
#[must_use]
pub fn to_json(spec: pb::RestoreSpec) -> Value {
    let pb::RestoreSpec {
        backup_name,
        schedule_name,
        included_namespaces,
        excluded_namespaces,
        included_resources,
        excluded_resources,
        namespace_mapping,
        label_selector,
        or_label_selectors,
        restore_pvs,
        restore_status,
        preserve_node_ports,
        include_cluster_resources,
        hooks,
        existing_resource_policy,
        item_operation_timeout,
        resource_modifier,
        uploader_config,
    } = spec;
    let status = |status: pb::RestoreStatusSpec| {
        Object::default()
            .texts("includedResources", status.included_resources)
            .texts("excludedResources", status.excluded_resources)
            .end()
    };
    let modifier = |reference: pb::TypedLocalObjectReference| {
        Object::default()
            .put("apiGroup", reference.api_group.map(Value::String))
            .put("kind", Some(Value::String(reference.kind)))
            .put("name", Some(Value::String(reference.name)))
            .end()
    };
    let uploader = |uploader: pb::UploaderConfig| {
        let parallel = uploader.parallel_files_download;
        Object::default()
            .flag("writeSparseFiles", uploader.write_sparse_files)
            .put("parallelFilesDownload", (parallel > 0).then(|| Value::from(parallel)))
            .end()
    };
    let hooks_to_json =
        |hooks: pb::RestoreHooks| Object::default().list("resources", hooks.resources, hook_to_json).end();
    Object::default()
        .text("backupName", backup_name)
        .text("scheduleName", schedule_name)
        .texts("includedNamespaces", included_namespaces)
        .texts("excludedNamespaces", excluded_namespaces)
        .texts("includedResources", included_resources)
        .texts("excludedResources", excluded_resources)
        .map("namespaceMapping", namespace_mapping)
        .put("labelSelector", label_selector.map(selector_to_json))
        .list("orLabelSelectors", or_label_selectors, selector_to_json)
        .flag("restorePVs", restore_pvs)
        .put("restoreStatus", restore_status.map(status))
        .flag("preserveNodePorts", preserve_node_ports)
        .flag("includeClusterResources", include_cluster_resources)
        .put("hooks", hooks.map(hooks_to_json))
        .text("existingResourcePolicy", existing_resource_policy)
        .text("itemOperationTimeout", item_operation_timeout)
        .put("resourceModifier", resource_modifier.map(modifier))
        .put("uploaderConfig", uploader_config.map(uploader))
        .end()
}

fn selector_to_json(selector: pb::LabelSelector) -> Value {
    let requirement = |requirement: pb::LabelSelectorRequirement| {
        Object::default()
            .put("key", Some(Value::String(requirement.key)))
            .put("operator", Some(Value::String(requirement.operator)))
            .texts("values", requirement.values)
            .end()
    };
    Object::default()
        .map("matchLabels", selector.match_labels)
        .list("matchExpressions", selector.match_expressions, requirement)
        .end()
}

fn hook_to_json(hook: pb::RestoreResourceHook) -> Value {
    Object::default()
        .put("name", Some(Value::String(hook.name)))
        .texts("includedNamespaces", hook.included_namespaces)
        .texts("excludedNamespaces", hook.excluded_namespaces)
        .texts("includedResources", hook.included_resources)
        .texts("excludedResources", hook.excluded_resources)
        .put("labelSelector", hook.label_selector.map(selector_to_json))
        .list("postHooks", hook.post_hooks, post_hook_to_json)
        .end()
}

fn post_hook_to_json(hook: pb::PostHook) -> Value {
    let exec = |exec: pb::ExecHook| {
        Object::default()
            .text("container", exec.container)
            .texts("command", exec.command)
            .text("onError", exec.on_error)
            .text("execTimeout", exec.exec_timeout)
            .text("waitTimeout", exec.wait_timeout)
            .flag("waitForReady", exec.wait_for_ready)
            .end()
    };
    let init = |init: pb::InitHook| {
        Object::default()
            .list("initContainers", init.init_containers, struct_to_json)
            .text("timeout", init.timeout)
            .end()
    };
    Object::default().put("exec", hook.exec.map(exec)).put("init", hook.init.map(init)).end()
}

fn struct_to_json(object: prost_types::Struct) -> Value {
    Value::Object(object.fields.into_iter().map(|(name, value)| (name, value_to_json(value))).collect())
}

fn value_to_json(value: prost_types::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::NumberValue(number)) => number_to_json(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(value_to_json).collect()),
        Some(Kind::StructValue(object)) => struct_to_json(object),
    }
}

/// A whole number stays one: Kubernetes does not take `8080.0` for a port.
#[allow(clippy::cast_possible_truncation, reason = "checked to be whole and within 2^53")]
fn number_to_json(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53, up to which f64 counts without gaps
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn text(object: &Value, name: &str) -> String {
    object[name].as_str().unwrap_or_default().to_owned()
}

fn texts(object: &Value, name: &str) -> Vec<String> {
    list(object, name, |element| element.as_str().unwrap_or_default().to_owned())
}

fn list<T>(object: &Value, name: &str, convert: impl Fn(&Value) -> T) -> Vec<T> {
    object[name].as_array().map(|elements| elements.iter().map(convert).collect()).unwrap_or_default()
}

fn map(object: &Value, name: &str) -> BTreeMap<String, String> {
    let entry = |(key, value): (&String, &Value)| (key.clone(), value.as_str().unwrap_or_default().to_owned());
    object[name].as_object().map(|entries| entries.iter().map(entry).collect()).unwrap_or_default()
}

fn object<T>(parent: &Value, name: &str, convert: impl Fn(&Value) -> T) -> Option<T> {
    parent[name].is_object().then(|| convert(&parent[name]))
}

/// The message of a spec in Velero's JSON form. It has passed the schema of the CRD; what is there all the same with
/// another type is left out, and so are fields that a newer Velero may have.
#[must_use]
pub fn from_json(spec: &Value) -> pb::RestoreSpec {
    pb::RestoreSpec {
        backup_name: text(spec, "backupName"),
        schedule_name: text(spec, "scheduleName"),
        included_namespaces: texts(spec, "includedNamespaces"),
        excluded_namespaces: texts(spec, "excludedNamespaces"),
        included_resources: texts(spec, "includedResources"),
        excluded_resources: texts(spec, "excludedResources"),
        namespace_mapping: map(spec, "namespaceMapping"),
        label_selector: object(spec, "labelSelector", selector_from_json),
        or_label_selectors: list(spec, "orLabelSelectors", selector_from_json),
        restore_pvs: spec["restorePVs"].as_bool(),
        restore_status: object(spec, "restoreStatus", |status| pb::RestoreStatusSpec {
            included_resources: texts(status, "includedResources"),
            excluded_resources: texts(status, "excludedResources"),
        }),
        preserve_node_ports: spec["preserveNodePorts"].as_bool(),
        include_cluster_resources: spec["includeClusterResources"].as_bool(),
        hooks: object(spec, "hooks", |hooks| pb::RestoreHooks { resources: list(hooks, "resources", hook_from_json) }),
        existing_resource_policy: text(spec, "existingResourcePolicy"),
        item_operation_timeout: text(spec, "itemOperationTimeout"),
        resource_modifier: object(spec, "resourceModifier", |reference| pb::TypedLocalObjectReference {
            api_group: reference["apiGroup"].as_str().map(str::to_owned),
            kind: text(reference, "kind"),
            name: text(reference, "name"),
        }),
        uploader_config: object(spec, "uploaderConfig", |uploader| pb::UploaderConfig {
            write_sparse_files: uploader["writeSparseFiles"].as_bool(),
            parallel_files_download: uploader["parallelFilesDownload"]
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or_default(),
        }),
    }
}

fn selector_from_json(selector: &Value) -> pb::LabelSelector {
    pb::LabelSelector {
        match_labels: map(selector, "matchLabels"),
        match_expressions: list(selector, "matchExpressions", |requirement| pb::LabelSelectorRequirement {
            key: text(requirement, "key"),
            operator: text(requirement, "operator"),
            values: texts(requirement, "values"),
        }),
    }
}

fn hook_from_json(hook: &Value) -> pb::RestoreResourceHook {
    pb::RestoreResourceHook {
        name: text(hook, "name"),
        included_namespaces: texts(hook, "includedNamespaces"),
        excluded_namespaces: texts(hook, "excludedNamespaces"),
        included_resources: texts(hook, "includedResources"),
        excluded_resources: texts(hook, "excludedResources"),
        label_selector: object(hook, "labelSelector", selector_from_json),
        post_hooks: list(hook, "postHooks", |post| pb::PostHook {
            exec: object(post, "exec", |exec| pb::ExecHook {
                container: text(exec, "container"),
                command: texts(exec, "command"),
                on_error: text(exec, "onError"),
                exec_timeout: text(exec, "execTimeout"),
                wait_timeout: text(exec, "waitTimeout"),
                wait_for_ready: exec["waitForReady"].as_bool(),
            }),
            init: object(post, "init", |init| pb::InitHook {
                init_containers: list(init, "initContainers", struct_from_json),
                timeout: text(init, "timeout"),
            }),
        }),
    }
}

fn struct_from_json(value: &Value) -> prost_types::Struct {
    let entry = |(name, value): (&String, &Value)| (name.clone(), value_from_json(value));
    let fields = value.as_object().map(|fields| fields.iter().map(entry).collect()).unwrap_or_default();
    prost_types::Struct { fields }
}

fn value_from_json(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(elements) => {
            Kind::ListValue(prost_types::ListValue { values: elements.iter().map(value_from_json).collect() })
        }
        Value::Object(_) => Kind::StructValue(struct_from_json(value)),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Every field that restore-semantics 1.1 lists.
    fn whole() -> Value {
        json!({
            "backupName": "nightly", "scheduleName": "s",
            "includedNamespaces": ["a", "b-*"], "excludedNamespaces": ["c"],
            "includedResources": ["pods"], "excludedResources": ["nodes"],
            "namespaceMapping": {"a": "z"},
            "labelSelector": {"matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["x"]}]},
            "orLabelSelectors": [{"matchLabels": {"app": "db"}}],
            "restorePVs": false, "restoreStatus": {"includedResources": ["*"], "excludedResources": ["pods"]},
            "preserveNodePorts": true, "includeClusterResources": false,
            "hooks": {"resources": [{
                "name": "h", "includedNamespaces": ["a"], "excludedNamespaces": ["b"], "includedResources": ["pods"],
                "excludedResources": ["jobs"], "labelSelector": {"matchLabels": {"a": "b"}},
                "postHooks": [
                    {"exec": {"container": "c", "command": ["sh", "-c"], "onError": "Fail", "execTimeout": "1m",
                        "waitTimeout": "2m", "waitForReady": true}},
                    {"init": {"timeout": "5m", "initContainers": [{"name": "i", "image": "busybox", "tty": false,
                        "ports": [{"containerPort": 8080}], "env": [{"name": "N", "value": null}]}]}},
                ],
            }]},
            "existingResourcePolicy": "update", "itemOperationTimeout": "1h",
            "resourceModifier": {"apiGroup": "", "kind": "ConfigMap", "name": "m"},
            "uploaderConfig": {"writeSparseFiles": true, "parallelFilesDownload": 4},
        })
    }

    #[test]
    fn a_spec_with_every_field_of_velero_goes_to_the_message_and_back_unchanged() {
        assert_eq!(to_json(from_json(&whole())), whole());
    }

    #[test]
    fn absent_stays_absent_and_null_reads_as_absent() {
        assert_eq!(to_json(from_json(&json!({}))), json!({}));
        let nulls = json!({"includedNamespaces": null, "labelSelector": null, "restorePVs": null, "hooks": null});
        assert_eq!(to_json(from_json(&nulls)), json!({}));
        assert_eq!(
            to_json(from_json(&json!({"hooks": {}, "labelSelector": {}}))),
            json!({"hooks": {}, "labelSelector": {}})
        );
    }
}
