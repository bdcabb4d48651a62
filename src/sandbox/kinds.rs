//! Defaults, validation and immutability of the built-in kinds, as far as a restore meets them.
//!
//! Kinds and fields without a rule here are stored as sent.

use serde_json::{Map, Value, json};

use super::registry::Resource;
use super::services;
use super::status::Cause;

fn fields<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    object.get_mut(key).and_then(Value::as_object_mut)
}

fn spec_of(object: &mut Value) -> &mut Map<String, Value> {
    if !object.get("spec").is_some_and(Value::is_object) {
        object["spec"] = json!({});
    }
    match object.get_mut("spec") {
        Some(Value::Object(spec)) => spec,
        _ => unreachable!("spec was just made an object"),
    }
}

fn default(fields: &mut Map<String, Value>, pairs: Value) {
    if let Value::Object(pairs) = pairs {
        for (key, value) in pairs {
            let absent = fields.get(&key).is_none_or(Value::is_null);
            if absent {
                fields.insert(key, value);
            }
        }
    }
}

/// The type errors of the kinds whose fields are told apart here, in a few words.
///
/// Kinds with quantities are not among them: the API server takes those as numbers too, their Rust types do not.
pub(super) fn type_error(resource: &Resource, object: &Value) -> Option<String> {
    use k8s_openapi::api::{core::v1 as core, networking::v1 as networking, rbac::v1 as rbac};
    fn error<K: serde::de::DeserializeOwned>(object: &Value) -> Option<String> {
        let error = serde_path_to_error::deserialize::<_, K>(object).err()?;
        Some(format!("json: cannot unmarshal field {}: {}", error.path(), error.inner()))
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "configmaps") => error::<core::ConfigMap>(object),
        ("", "secrets") => error::<core::Secret>(object),
        ("", "services") => error::<core::Service>(object),
        ("", "serviceaccounts") => error::<core::ServiceAccount>(object),
        ("", "namespaces") => error::<core::Namespace>(object),
        ("", "endpoints") => error::<core::Endpoints>(object),
        ("networking.k8s.io", "ingresses") => error::<networking::Ingress>(object),
        ("networking.k8s.io", "networkpolicies") => error::<networking::NetworkPolicy>(object),
        ("rbac.authorization.k8s.io", "roles") => error::<rbac::Role>(object),
        ("rbac.authorization.k8s.io", "clusterroles") => error::<rbac::ClusterRole>(object),
        ("rbac.authorization.k8s.io", "rolebindings") => error::<rbac::RoleBinding>(object),
        ("rbac.authorization.k8s.io", "clusterrolebindings") => error::<rbac::ClusterRoleBinding>(object),
        _ => None,
    }
}

/// The status a new object of the kind has; `None` where the sent one is kept.
fn first_status(resource: &Resource) -> Option<Value> {
    Some(match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "nodes") => return None,
        ("", "namespaces") => json!({ "phase": "Active" }),
        ("", "pods") => json!({ "phase": "Pending", "qosClass": "BestEffort" }),
        ("", "persistentvolumes" | "persistentvolumeclaims") => json!({ "phase": "Pending" }),
        ("", "services") | ("networking.k8s.io", "ingresses") => json!({ "loadBalancer": {} }),
        ("apps", "statefulsets") => json!({ "availableReplicas": 0, "replicas": 0 }),
        ("", "replicationcontrollers") | ("apps", "replicasets") => json!({ "replicas": 0 }),
        ("apps", "daemonsets") => json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        }),
        ("policy", "poddisruptionbudgets") => {
            json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 })
        }
        ("autoscaling", _) => json!({ "currentMetrics": null, "currentReplicas": 0, "desiredReplicas": 0 }),
        _ => json!({}),
    })
}

/// Prepares a new object: status as at the start, generated fields, defaults.
pub(super) fn prepare(resource: &Resource, object: &mut Value) {
    if resource.versions.iter().any(|version| version.status)
        && let Some(status) = first_status(resource)
    {
        object["status"] = status;
    }
    if resource.is("", "namespaces") {
        let spec = spec_of(object);
        spec.insert("finalizers".to_owned(), json!(["kubernetes"]));
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("batch", "jobs") => claim_pods(object),
        ("", "pods") => admit_pod(spec_of(object)),
        ("", "persistentvolumes") => protect(object, "kubernetes.io/pv-protection"),
        ("", "persistentvolumeclaims") => protect(object, "kubernetes.io/pvc-protection"),
        _ => {}
    }
    fill(resource, object);
}

/// Fills in defaults, on create and on update alike.
pub(super) fn fill(resource: &Resource, object: &mut Value) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => {
            let name = object.pointer("/metadata/name").cloned().unwrap_or_default();
            if let Some(metadata) = fields(object, "metadata") {
                let labels = metadata.entry("labels").or_insert_with(|| json!({}));
                if labels.is_object() {
                    labels["kubernetes.io/metadata.name"] = name;
                }
            }
        }
        ("", "secrets") => {
            if let Some(Value::Object(plain)) = object.as_object_mut().and_then(|all| all.remove("stringData")) {
                use base64::Engine as _;
                if !object.get("data").is_some_and(Value::is_object) {
                    object["data"] = json!({});
                }
                for (key, value) in plain {
                    let text = value.as_str().unwrap_or_default();
                    object["data"][key] = json!(base64::engine::general_purpose::STANDARD.encode(text));
                }
            }
            if let Some(all) = object.as_object_mut() {
                default(all, json!({ "type": "Opaque" }));
            }
        }
        ("", "services") => services::defaults(spec_of(object)),
        ("", "pods") => fill_pod(spec_of(object), "Always"),
        ("", "persistentvolumes") => {
            let retain = json!({ "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem" });
            default(spec_of(object), retain);
        }
        ("", "persistentvolumeclaims") => default(spec_of(object), json!({ "volumeMode": "Filesystem" })),
        ("apps", "deployments") => {
            let spec = spec_of(object);
            default(
                spec,
                json!({ "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                    "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "25%", "maxSurge": "25%" } } }),
            );
            fill_template(spec, "Always");
        }
        ("apps", "statefulsets") => {
            let spec = spec_of(object);
            default(
                spec,
                json!({ "replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
                    "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
                    "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Retain" } }),
            );
            fill_template(spec, "Always");
        }
        ("apps", "daemonsets") => {
            let spec = spec_of(object);
            default(
                spec,
                json!({ "revisionHistoryLimit": 10,
                    "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } } }),
            );
            fill_template(spec, "Always");
        }
        ("apps", "replicasets") | ("", "replicationcontrollers") => {
            let spec = spec_of(object);
            default(spec, json!({ "replicas": 1 }));
            fill_template(spec, "Always");
        }
        ("batch", "jobs") => fill_job(spec_of(object)),
        ("batch", "cronjobs") => {
            let spec = spec_of(object);
            default(
                spec,
                json!({ "concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3,
                    "failedJobsHistoryLimit": 1 }),
            );
            if let Some(job) = spec.get_mut("jobTemplate").and_then(|template| fields(template, "spec")) {
                fill_template(job, "");
            }
        }
        ("autoscaling", _) => default(spec_of(object), json!({ "minReplicas": 1 })),
        ("networking.k8s.io", "networkpolicies") => {
            let spec = spec_of(object);
            let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            default(spec, json!({ "policyTypes": types }));
        }
        ("scheduling.k8s.io", "priorityclasses") => {
            if let Some(all) = object.as_object_mut() {
                default(all, json!({ "preemptionPolicy": "PreemptLowerPriority" }));
            }
        }
        ("storage.k8s.io", "storageclasses") => {
            if let Some(all) = object.as_object_mut() {
                default(all, json!({ "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate" }));
            }
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(subject) = subject.as_object_mut()
                    && subject.get("kind").and_then(Value::as_str) != Some("ServiceAccount")
                {
                    default(subject, json!({ "apiGroup": "rbac.authorization.k8s.io" }));
                }
            }
            if let Some(role) = fields(object, "roleRef") {
                default(role, json!({ "apiGroup": "rbac.authorization.k8s.io" }));
            }
        }
        _ => {}
    }
}

fn fill_job(spec: &mut Map<String, Value>) {
    default(
        spec,
        json!({ "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "manualSelector": false, "podReplacementPolicy": "TerminatingOrFailed" }),
    );
    if spec.get("completions").is_none() && spec.get("parallelism") == Some(&json!(1)) {
        spec.insert("completions".to_owned(), json!(1));
    }
    fill_template(spec, "");
}

/// The finalizer of admission plugin StorageObjectInUseProtection.
fn protect(object: &mut Value, finalizer: &str) {
    if let Some(metadata) = fields(object, "metadata") {
        let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = finalizers.as_array_mut().filter(|list| !list.contains(&json!(finalizer))) {
            list.push(json!(finalizer));
        }
    }
}

/// What the admission plugins Priority and DefaultTolerationSeconds give a pod, and the defaults of pods alone.
fn admit_pod(spec: &mut Map<String, Value>) {
    default(spec, json!({ "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority" }));
    if !spec.contains_key("priorityClassName") {
        default(spec, json!({ "priority": 0 }));
    }
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if let Some(list) = tolerations.as_array_mut()
            && !list.iter().any(|one| one.get("key") == Some(&json!(taint)))
        {
            list.push(json!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }));
        }
    }
}

/// A Job that does not choose its pods itself gets a selector by its uid, and its pods the labels for it.
fn claim_pods(job: &mut Value) {
    let metadata = |key: &str| job.pointer(&format!("/metadata/{key}")).cloned().unwrap_or_default();
    let (uid, name) = (metadata("uid"), metadata("name"));
    let spec = spec_of(job);
    if spec.get("manualSelector").and_then(Value::as_bool) == Some(true) {
        return;
    }
    let selector = spec.entry("selector").or_insert_with(|| json!({}));
    if let Some(selector) = selector.as_object_mut() {
        let labels = selector.entry("matchLabels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.entry("batch.kubernetes.io/controller-uid").or_insert_with(|| uid.clone());
        }
    }
    let label = |owner: &mut Value| {
        let Some(meta) = fields(owner, "metadata") else { return };
        if let Some(labels) = meta.entry("labels").or_insert_with(|| json!({})).as_object_mut() {
            for prefix in ["", "batch.kubernetes.io/"] {
                labels.entry(format!("{prefix}controller-uid")).or_insert_with(|| uid.clone());
                labels.entry(format!("{prefix}job-name")).or_insert_with(|| name.clone());
            }
        }
    };
    if let Some(template) = spec.get_mut("template").filter(|template| template.is_object()) {
        if !template["metadata"].is_object() {
            template["metadata"] = json!({});
        }
        label(template);
    }
    label(job);
}

fn fill_template(owner: &mut Map<String, Value>, restart: &str) {
    if let Some(spec) = owner.get_mut("template").and_then(|template| fields(template, "spec")) {
        fill_pod(spec, restart);
    }
}

fn fill_pod(spec: &mut Map<String, Value>, restart: &str) {
    if !restart.is_empty() {
        default(spec, json!({ "restartPolicy": restart }));
    }
    default(
        spec,
        json!({ "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "securityContext": {},
            "terminationGracePeriodSeconds": 30 }),
    );
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        spec.entry("serviceAccount").or_insert(account);
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or_default();
            let floating = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
            let pull = if floating { "Always" } else { "IfNotPresent" };
            default(
                container,
                json!({ "imagePullPolicy": pull, "resources": {}, "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File" }),
            );
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(port) = port.as_object_mut() {
                    default(port, json!({ "protocol": "TCP" }));
                }
            }
        }
    }
}

/// The faults of an object of a built-in kind.
pub(super) fn check(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = object.get("spec").unwrap_or(&Value::Null);
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => check_pod(spec, "spec", &mut causes),
        ("", "services") => {
            if let Some(spec) = spec.as_object() {
                causes.extend(services::check(spec));
            }
        }
        ("apps", "deployments" | "statefulsets" | "daemonsets" | "replicasets") => {
            check_selector(spec, &mut causes);
            check_pod(&spec["template"]["spec"], "spec.template.spec", &mut causes);
        }
        ("batch", "jobs") => {
            let uid = object.pointer("/metadata/uid");
            let selector = &spec["selector"];
            let own = json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } });
            if spec.get("manualSelector").and_then(Value::as_bool) != Some(true) && *selector != own {
                causes.push(Cause::invalid("spec.selector", selector, "`selector` not auto-generated"));
            }
            check_pod(&spec["template"]["spec"], "spec.template.spec", &mut causes);
        }
        ("batch", "cronjobs") if spec.get("schedule").and_then(Value::as_str).unwrap_or_default().is_empty() => {
            causes.push(Cause::required("spec.schedule", ""));
        }
        ("", "persistentvolumeclaims") => {
            if spec.get("accessModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
                causes.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
            }
            if spec.pointer("/resources/requests/storage").is_none() {
                causes.push(Cause::required("spec.resources[storage]", ""));
            }
        }
        ("", "persistentvolumes") => {
            if spec.get("accessModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
                causes.push(Cause::required("spec.accessModes", ""));
            }
            if spec.get("capacity").and_then(Value::as_object).is_none_or(Map::is_empty) {
                causes.push(Cause::required("spec.capacity", ""));
            }
        }
        ("storage.k8s.io", "storageclasses")
            if object.get("provisioner").and_then(Value::as_str).unwrap_or_default().is_empty() =>
        {
            causes.push(Cause::required("provisioner", ""));
        }
        _ => {}
    }
    causes
}

fn check_selector(spec: &Value, causes: &mut Vec<Cause>) {
    let labels = spec.pointer("/template/metadata/labels").cloned().unwrap_or(json!({}));
    let differs = |(key, value): (&String, &Value)| labels.get(key) != Some(value);
    let wanted = spec.get("selector").filter(|selector| !selector.is_null());
    if wanted.is_none() {
        causes.push(Cause::required("spec.selector", ""));
    }
    let unlike =
        |wanted: &Value| wanted.get("matchLabels").and_then(Value::as_object).into_iter().flatten().any(differs);
    if wanted.is_none_or(unlike) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", &labels, why));
    }
}

fn check_pod(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let containers = spec.get("containers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    for (at, container) in containers.iter().enumerate() {
        for key in ["name", "image"] {
            if container.get(key).and_then(Value::as_str).unwrap_or_default().is_empty() {
                causes.push(Cause::required(format!("{path}.containers[{at}].{key}"), ""));
            }
        }
    }
}

/// Fields that never change once set, by resource.
fn immutable(resource: &Resource) -> &'static [&'static str] {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("apps", "deployments" | "daemonsets" | "replicasets") => &["spec.selector"],
        ("batch", "jobs") => &["spec.selector", "spec.template", "spec.completionMode"],
        ("", "secrets") => &["type"],
        ("storage.k8s.io", "storageclasses") => &["parameters", "provisioner", "volumeBindingMode"],
        _ => &[],
    }
}

/// The faults of a change of a built-in kind.
pub(super) fn check_update(resource: &Resource, old: &Value, new: &Value) -> Vec<Cause> {
    let at = |object: &Value, path: &str| object.pointer(&format!("/{}", path.replace('.', "/"))).cloned();
    let mut causes: Vec<Cause> = immutable(resource)
        .iter()
        .filter(|path| at(old, path) != at(new, path))
        .map(|path| Cause::invalid(*path, &at(new, path).unwrap_or_default(), "field is immutable"))
        .collect();
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "configmaps" | "secrets") if old.get("immutable") == Some(&json!(true)) => {
            for key in ["data", "binaryData"].into_iter().filter(|key| old.get(key) != new.get(key)) {
                causes.push(Cause::forbidden(key, "field is immutable when `immutable` is set"));
            }
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings")
            if old.get("roleRef") != new.get("roleRef") =>
        {
            let role = new.get("roleRef").cloned().unwrap_or_default();
            causes.push(Cause::invalid("roleRef", &role, "cannot change roleRef"));
        }
        ("", "services") => {
            let (before, after) = (at(old, "spec.clusterIP"), at(new, "spec.clusterIP"));
            let external = at(new, "spec.type") == Some(json!("ExternalName"));
            if before.as_ref().is_some_and(|ip| *ip != json!("")) && before != after && !external {
                let ips = at(new, "spec.clusterIPs").unwrap_or_default();
                causes.push(Cause::invalid("spec.clusterIPs[0]", &ips, "may not change once set"));
            }
        }
        ("", "persistentvolumeclaims") => {
            let rest = |object: &Value| {
                let mut spec = object.get("spec").cloned().unwrap_or_default();
                if let Some(spec) = spec.as_object_mut() {
                    spec.remove("resources");
                    spec.remove("volumeAttributesClassName");
                    if old.pointer("/spec/volumeName").is_none() {
                        spec.remove("volumeName");
                    }
                }
                spec
            };
            if rest(old) != rest(new) {
                let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
                causes.push(Cause::forbidden("spec", why));
            }
        }
        ("", "pods") if frozen(old) != frozen(new) => {
            let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
            causes.push(Cause::forbidden("spec", why));
        }
        _ => {}
    }
    causes
}

/// A pod's spec without the fields that may change.
fn frozen(pod: &Value) -> Value {
    let mut spec = pod.get("spec").cloned().unwrap_or_default();
    if let Some(spec) = spec.as_object_mut() {
        for key in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName"] {
            spec.remove(key);
        }
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    container.remove("image");
                }
            }
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sandbox::registry::Registry;

    fn resource(group: &str, plural: &str) -> std::sync::Arc<Resource> {
        std::sync::Arc::clone(Registry::builtin().resource(group, plural).unwrap())
    }

    #[test]
    fn a_pod_needs_containers_with_name_and_image() {
        let pods = resource("", "pods");
        assert_eq!(check(&pods, &json!({ "spec": {} })), [Cause::required("spec.containers", "")]);
        let no_image = json!({ "spec": { "containers": [{ "name": "a" }] } });
        assert_eq!(check(&pods, &no_image), [Cause::required("spec.containers[0].image", "")]);
    }

    #[test]
    fn the_plain_data_of_a_secret_is_encoded() {
        let mut secret = json!({ "stringData": { "a": "b" } });
        prepare(&resource("", "secrets"), &mut secret);
        assert_eq!(secret, json!({ "data": { "a": "Yg==" }, "type": "Opaque" }));
    }

    #[test]
    fn a_job_gets_a_selector_and_refuses_a_foreign_one() {
        let jobs = resource("batch", "jobs");
        let pod = json!({ "spec": { "containers": [{ "name": "a", "image": "b" }] } });
        let mut job = json!({ "metadata": { "uid": "u", "name": "n" }, "spec": { "template": pod } });
        prepare(&jobs, &mut job);
        assert!(check(&jobs, &job).is_empty());
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"], "n");
        job["metadata"]["uid"] = json!("other");
        assert_eq!(check(&jobs, &job).len(), 1);
    }

    #[test]
    fn the_image_of_a_pod_may_change_and_its_command_may_not() {
        let pods = resource("", "pods");
        let pod = |image: &str, command: &str| json!({ "spec": { "containers": [{ "name": "a", "image": image, "command": [command] }] } });
        assert!(check_update(&pods, &pod("x", "c"), &pod("y", "c")).is_empty());
        assert_eq!(check_update(&pods, &pod("x", "c"), &pod("x", "d")).len(), 1);
    }
}
