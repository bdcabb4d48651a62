//! An object on its way to look as an API server stores it: uid, times, `managedFields`, status.

use serde_json::{Map, Value, json};

use super::random::Random;
use crate::model::GroupResource;

/// What all objects of a sample have in common.
#[derive(Clone, Debug)]
pub(super) struct Forge {
    pub(super) seed: u64,
    /// When the backup was taken, in seconds since 1970.
    pub(super) taken_at: i64,
}

/// Seconds in a day.
const DAY: i64 = 86_400;

impl Forge {
    pub(super) fn random(&self, name: &[&str]) -> Random {
        Random::of(self.seed, name)
    }

    pub(super) fn uid(&self, group_resource: &str, namespace: &str, name: &str) -> String {
        self.random(&["uid", group_resource, namespace, name]).uuid()
    }

    /// A time as Kubernetes writes it.
    pub(super) fn time(&self, seconds_before: i64) -> String {
        timestamp(self.taken_at - seconds_before)
    }

    pub(super) fn draft(&self, api_version: &str, kind: &str, resource: &str, namespace: &str, name: &str) -> Draft {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let group_resource = GroupResource::new(resource, group);
        let mut random = self.random(&["age", group_resource.as_str(), namespace, name]);
        // Between ten days and two years.
        let age = 10 * DAY + i64::try_from(random.below(720 * 86_400)).unwrap_or(0);
        let created = self.time(age);
        let mut metadata = Map::new();
        metadata.insert("name".into(), json!(name));
        if !namespace.is_empty() {
            metadata.insert("namespace".into(), json!(namespace));
        }
        metadata.insert("uid".into(), json!(self.uid(group_resource.as_str(), namespace, name)));
        metadata.insert("resourceVersion".into(), json!((1_000_000 + random.below(90_000_000)).to_string()));
        metadata.insert("creationTimestamp".into(), json!(created));
        let mut object = Map::new();
        object.insert("apiVersion".into(), json!(api_version));
        object.insert("kind".into(), json!(kind));
        Draft {
            group_resource,
            namespace: namespace.to_owned(),
            object,
            metadata,
            status: None,
            manager: "helm",
            created,
            status_time: self.time(i64::try_from(random.below(9 * 86_400)).unwrap_or(0)),
            further_managers: Vec::new(),
        }
    }
}

pub(super) fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

/// An object that is being made.
pub(super) struct Draft {
    group_resource: GroupResource,
    pub(super) namespace: String,
    object: Map<String, Value>,
    metadata: Map<String, Value>,
    status: Option<(&'static str, Value)>,
    manager: &'static str,
    pub(super) created: String,
    status_time: String,
    further_managers: Vec<Value>,
}

impl Draft {
    pub(super) fn labels(mut self, labels: Value) -> Self {
        self.metadata.insert("labels".into(), labels);
        self
    }

    pub(super) fn annotations(mut self, annotations: Value) -> Self {
        self.metadata.insert("annotations".into(), annotations);
        self
    }

    pub(super) fn finalizer(mut self, finalizer: &str) -> Self {
        self.metadata.insert("finalizers".into(), json!([finalizer]));
        self
    }

    pub(super) fn generation(mut self, generation: u64) -> Self {
        self.metadata.insert("generation".into(), json!(generation));
        self
    }

    pub(super) fn generate_name(mut self, prefix: &str) -> Self {
        self.metadata.insert("generateName".into(), json!(prefix));
        self
    }

    /// Belongs to this controller.
    pub(super) fn owned_by(mut self, forge: &Forge, owner: (&str, &str, &str, &str)) -> Self {
        let (api_version, kind, resource, name) = owner;
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let uid = forge.uid(GroupResource::new(resource, group).as_str(), &self.namespace, name);
        let owner = json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true}]);
        self.metadata.insert("ownerReferences".into(), owner);
        self
    }

    /// Sets a top-level field, such as `spec` or `data`.
    pub(super) fn with(mut self, field: &str, value: Value) -> Self {
        self.object.insert(field.into(), value);
        self
    }

    /// Sets the status, and who wrote it through the status subresource.
    pub(super) fn status(mut self, manager: &'static str, status: Value) -> Self {
        self.status = Some((manager, status));
        self
    }

    /// Who wrote everything but the status; `""` for nobody, as for what the API server makes itself.
    pub(super) fn managed_by(mut self, manager: &'static str) -> Self {
        self.manager = manager;
        self
    }

    /// Another manager, with its fields.
    pub(super) fn also_managed_by(mut self, manager: &str, operation: &str, fields: Value) -> Self {
        self.further_managers.push(entry(self.api_version(), manager, operation, &self.status_time, fields));
        self
    }

    fn api_version(&self) -> &str {
        self.object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
    }

    /// The finished object.
    pub(super) fn finish(self) -> (GroupResource, Value) {
        let api_version = self.api_version().to_owned();
        let Self {
            group_resource,
            mut object,
            mut metadata,
            status,
            manager,
            created,
            status_time,
            further_managers,
            ..
        } = self;
        let is_custom = group_resource.group().ends_with(".example");
        let mut managers = Vec::new();
        if !manager.is_empty() {
            let mut fields = Map::new();
            let mut of_metadata = Map::new();
            for key in ["annotations", "finalizers", "generateName", "labels", "ownerReferences"] {
                if let Some(value) = metadata.get(key) {
                    of_metadata.insert(format!("f:{key}"), fields_of(key, &format!("metadata.{key}"), value, false));
                }
            }
            if !of_metadata.is_empty() {
                fields.insert("f:metadata".into(), Value::Object(of_metadata));
            }
            for (key, value) in object.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind")) {
                fields.insert(format!("f:{key}"), fields_of(key, key, value, is_custom));
            }
            let mut fields = Value::Object(fields);
            for further in &further_managers {
                disown(&mut fields, &further["fieldsV1"]);
            }
            managers.push(entry(&api_version, manager, "Update", &created, fields));
        }
        managers.extend(further_managers);
        if let Some((manager, status)) = status {
            if !manager.is_empty() {
                let fields = json!({"f:status": fields_of("status", "status", &status, is_custom)});
                let mut of_status = entry(&api_version, manager, "Update", &status_time, fields);
                of_status["subresource"] = json!("status");
                managers.push(of_status);
            }
            object.insert("status".into(), status);
        }
        if !managers.is_empty() {
            metadata.insert("managedFields".into(), Value::Array(managers));
        }
        object.insert("metadata".into(), Value::Object(metadata));
        (group_resource, Value::Object(object))
    }
}

/// Takes from `fields` what another manager has changed since.
fn disown(fields: &mut Value, changed: &Value) {
    let (Some(fields), Some(changed)) = (fields.as_object_mut(), changed.as_object()) else { return };
    for (key, changed) in changed {
        if changed.as_object().is_some_and(Map::is_empty) {
            fields.remove(key);
        } else if let Some(fields) = fields.get_mut(key) {
            disown(fields, changed);
        }
    }
}

fn entry(api_version: &str, manager: &str, operation: &str, time: &str, fields: Value) -> Value {
    json!({
        "apiVersion": api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
        "manager": manager,
        "operation": operation,
        "time": time,
    })
}

/// Structs that are there in an empty object already, so that a manager does not own them, only what is in them.
const ALWAYS_THERE: [&str; 19] = [
    "metadata",
    "spec",
    "status",
    "spec.jobTemplate",
    "spec.jobTemplate.metadata",
    "spec.jobTemplate.spec",
    "spec.jobTemplate.spec.template",
    "spec.jobTemplate.spec.template.metadata",
    "spec.jobTemplate.spec.template.spec",
    "spec.names",
    "spec.resources",
    "spec.scaleTargetRef",
    "spec.strategy",
    "spec.template",
    "spec.template.metadata",
    "spec.template.spec",
    "spec.updateStrategy",
    "status.acceptedNames",
    "status.loadBalancer",
];

/// Fields that the API server fills in after it has noted who wrote what, or that the scheduler and binders set.
const WRITTEN_BY_NOBODY: [&str; 8] = [
    "spec.clusterIP",
    "spec.clusterIPs",
    "spec.ipFamilies",
    "spec.ipFamilyPolicy",
    "spec.nodeName",
    "spec.preemptionPolicy",
    "spec.priority",
    "spec.volumeName",
];

/// Maps and lists that Kubernetes' schema treats as one value.
const ATOMIC: [&str; 14] = [
    "configMapKeyRef",
    "fieldRef",
    "labelSelector",
    "matchLabels",
    "nodeSelector",
    "podSelector",
    "roleRef",
    "secretKeyRef",
    "selector",
    "namespaceSelector",
    "openAPIV3Schema",
    "schema",
    "currentMetrics",
    "versions",
];

/// The keys by which the items of a list are told apart; none for a list that is one value.
fn list_keys(field: &str, path: &str) -> &'static [&'static str] {
    match field {
        "containers" | "env" | "imagePullSecrets" | "initContainers" | "volumes" => &["name"],
        "ports" if path.contains("containers") => &["containerPort", "protocol"],
        "ports" if path == "spec.ports" => &["port", "protocol"],
        "volumeMounts" => &["mountPath"],
        "conditions" => &["type"],
        "ownerReferences" => &["uid"],
        "podIPs" => &["ip"],
        "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
        _ => &[],
    }
}

/// The `fieldsV1` of a value: what a manager owns that wrote all of it.
fn fields_of(field: &str, path: &str, value: &Value, is_custom: bool) -> Value {
    let mut fields = Map::new();
    match value {
        Value::Object(map) if !ATOMIC.contains(&field) && !map.is_empty() => {
            if is_custom || !ALWAYS_THERE.contains(&path) {
                fields.insert(".".into(), json!({}));
            }
            for (key, value) in map {
                let path = format!("{path}.{key}");
                if is_custom || !WRITTEN_BY_NOBODY.contains(&path.as_str()) {
                    fields.insert(format!("f:{key}"), fields_of(key, &path, value, is_custom));
                }
            }
        }
        Value::Array(items) if field == "finalizers" => {
            fields.insert(".".into(), json!({}));
            fields.extend(items.iter().map(|item| (format!("v:{item}"), json!({}))));
        }
        Value::Array(items) if !is_custom && !items.is_empty() && !list_keys(field, path).is_empty() => {
            fields.insert(".".into(), json!({}));
            for item in items {
                let keys = list_keys(field, path).iter();
                let key: Map<String, Value> =
                    keys.filter_map(|&key| Some((key.to_owned(), item.get(key)?.clone()))).collect();
                let owned = if field == "ownerReferences" {
                    json!({})
                } else {
                    fields_of("", &format!("{path}[]"), item, is_custom)
                };
                fields.insert(format!("k:{}", Value::Object(key)), owned);
            }
        }
        _ => {}
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_fields_are_those_an_api_server_notes() {
        let spec = json!({
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}], "args": ["x"]}]}},
        });
        assert_eq!(
            fields_of("spec", "spec", &spec, false),
            json!({
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                "f:template": {"f:spec": {"f:containers": {".": {}, "k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {}, "f:args": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                }}}},
            })
        );
    }
}
