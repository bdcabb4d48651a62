//! Pods whose volumes were backed up file by file (restore-semantics 7.2): an init container holds the pod back
//! until its volumes are filled.

use futures::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};

use super::config::PluginConfig;
use super::{Context, Error, Input, Output, fields};

/// Velero's name of the waiting init container.
pub(crate) const RESTORE_WAIT: &str = "restore-wait";

const NAME: &str = "velero.io/pod-volume-restore";

/// Its name before Velero 1.10.
const RESTIC_WAIT: &str = "restic-wait";

/// Removes the waiting init container of an earlier restore, and adds one if the pod has volumes whose data is restored.
pub(super) fn add_restore_wait(input: Input<'_>) -> BoxFuture<'_, Result<Output, Error>> {
    async move {
        let mut item = input.item;
        let config = input.context.lookup.config(NAME)?;
        let volumes = volumes_with_backups(input.item_from_backup, input.context)?;
        remove_waiting(&mut item)?;

        let mut notes = Vec::new();
        if !volumes.is_empty() {
            let empty = PluginConfig::new();
            let config = config.unwrap_or(&empty);
            let image = image(config, input.context).await?;
            let mut container = json!({
                "name": RESTORE_WAIT,
                "image": image,
                "args": [input.context.restore_uid],
                "env": [field_env("POD_NAMESPACE", "metadata.namespace"), field_env("POD_NAME", "metadata.name")],
                "volumeMounts": volumes
                    .iter()
                    .map(|volume| json!({"name": volume, "mountPath": format!("/restores/{volume}")}))
                    .collect::<Vec<_>>(),
                "resources": resources(config, &mut notes),
                "securityContext": security_context(config, &item, &mut notes)?,
            });
            container["command"] = json!([non_empty(config, "command").unwrap_or("/velero-restore-helper")]);
            let list = fields::ensure(&mut item, Some("spec"))?.entry("initContainers").or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.insert(0, container);
            }
        }
        Ok(Output { notes, ..Output::of(item) })
    }
    .boxed()
}

/// Removes `restore-wait` and `restic-wait`, wherever in the list they stand.
fn remove_waiting(item: &mut Value) -> Result<(), Error> {
    const INIT: &str = "spec.initContainers";
    fields::each(item, INIT, |container| fields::text(container, "name").map(|_| ()))?;
    if let Some(list) = fields::list_mut(item, INIT)? {
        list.retain(|container| !(container["name"] == RESTORE_WAIT || container["name"] == RESTIC_WAIT));
        fields::remove_if_empty(item, INIT)?;
    } else {
        // An explicit null is no list to insert into.
        fields::remove(item, INIT)?;
    }
    Ok(())
}

/// The pod's volumes that have a backup (restore-semantics 5.13), sorted; none where nobody would bring the data.
fn volumes_with_backups(pod: &Value, context: &Context<'_>) -> Result<Vec<String>, Error> {
    let Some(backups) = context.pod_volume_backups else { return Ok(Vec::new()) };
    Ok(backups.of_pod(pod, fields::namespace(pod)?)?.into_keys().collect())
}

fn non_empty<'a>(config: &'a PluginConfig, key: &str) -> Option<&'a str> {
    config.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

fn field_env(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// The configured image, which must name a registry, else that of the velero Deployment; without a tag it gets the
/// one of Velero.
async fn image(config: &PluginConfig, context: &Context<'_>) -> Result<String, Error> {
    let configured = non_empty(config, "image").and_then(|image| image.rsplit_once('/').map(|(_, last)| (image, last)));
    match configured {
        Some((image, last)) if last.contains(':') => Ok(image.to_owned()),
        Some((image, _)) => {
            let velero = context.lookup.velero_image().await?;
            let last = velero.rsplit('/').next().unwrap_or_default();
            let tag = last.split('@').next().and_then(|name| name.split_once(':')).map(|(_, tag)| tag);
            let tag = tag.ok_or_else(|| Error::InvalidConfig {
                action: NAME,
                message: format!(
                    "image {image:?} has no tag, and neither has that of the Deployment velero: give it one"
                ),
            })?;
            Ok(format!("{image}:{tag}"))
        }
        None => context.lookup.velero_image().await,
    }
}

/// Requests and limits; a quantity that is none falls back to Velero's defaults, all of them, with a note.
fn resources(config: &PluginConfig, notes: &mut Vec<String>) -> Value {
    const DEFAULTS: [(&str, &str); 4] =
        [("cpuRequest", "100m"), ("memRequest", "128Mi"), ("cpuLimit", "100m"), ("memLimit", "128Mi")];
    let mut values = DEFAULTS.map(|(key, default)| non_empty(config, key).unwrap_or(default));
    for ((key, _), value) in DEFAULTS.iter().zip(values) {
        if !is_quantity(value) {
            notes.push(format!("{NAME}: {key} {value:?} is no quantity, the default resources are used"));
            values = DEFAULTS.map(|(_, default)| default);
            break;
        }
    }
    let [cpu_request, mem_request, cpu_limit, mem_limit] = values;
    json!({"requests": {"cpu": cpu_request, "memory": mem_request}, "limits": {"cpu": cpu_limit, "memory": mem_limit}})
}

/// Whether a text is a Kubernetes quantity: a decimal number with an optional suffix or exponent.
fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let is_number = number.bytes().any(|byte| byte.is_ascii_digit()) && number.matches('.').count() <= 1;
    let is_exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i32>().is_ok());
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    is_number && (is_exponent || suffixes.contains(&suffix))
}

/// The configured security context, else a copy of the first container's, else a restricted one.
fn security_context(config: &PluginConfig, pod: &Value, notes: &mut Vec<String>) -> Result<Value, Error> {
    match configured_security_context(config) {
        Ok(Value::Object(context)) if !context.is_empty() => return Ok(Value::Object(context)),
        Ok(_) => {}
        Err(message) => notes.push(format!("{NAME}: {message}, the default security context is used")),
    }
    if let Some(first) = fields::list(pod, "spec.containers")?.first()
        && let Some(context) =
            fields::object(first, "securityContext").map_err(|error| error.within("spec.containers[0]"))?
    {
        return Ok(Value::Object(context.clone()));
    }
    Ok(json!({"runAsUser": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}))
}

fn configured_security_context(config: &PluginConfig) -> Result<Value, String> {
    let mut context = json!({});
    for (key, field) in [("secCtxRunAsUser", "runAsUser"), ("secCtxRunAsGroup", "runAsGroup")] {
        if let Some(text) = non_empty(config, key) {
            context[field] = json!(text.parse::<i64>().map_err(|_| format!("{key} {text:?} is no number"))?);
        }
    }
    if let Some(text) = non_empty(config, "secCtxAllowPrivilegeEscalation") {
        context["allowPrivilegeEscalation"] = match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => json!(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => json!(false),
            _ => return Err(format!("secCtxAllowPrivilegeEscalation {text:?} is no boolean")),
        };
    }
    if let Some(text) = non_empty(config, "secCtx") {
        let whole: Value = serde_yaml_ng::from_str(text).map_err(|error| format!("secCtx is no YAML ({error})"))?;
        let fields = whole.as_object().ok_or("secCtx is no object")?;
        context.as_object_mut().ok_or("secCtx is no object")?.extend(fields.clone());
    }
    Ok(context)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{Bench, plugin_config};
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "namespace": "app"}, "spec": {
            "initContainers": [{"name": "init"}, {"name": "restic-wait"}, {"name": "restore-wait"}],
            "containers": [{"name": "c"}],
            "volumes": [{"name": "data"}, {"name": "logs"}, {"name": "token", "projected": {}}]}})
    }

    fn backup(pod: &str, namespace: &str, volume: &str, snapshot: &str) -> Value {
        json!({"spec": {"pod": {"name": pod, "namespace": namespace}, "volume": volume},
            "status": {"snapshotID": snapshot}})
    }

    fn velero(image: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "velero", "namespace": "velero"},
            "spec": {"template": {"spec": {"containers": [{"image": image}]}}}})
    }

    fn wait_of(bench: &Bench, pod: Value) -> Value {
        let output = bench.run(NAME, pod).unwrap();
        let first = output.item["spec"]["initContainers"][0].clone();
        assert_eq!(first["name"], RESTORE_WAIT);
        first
    }

    /// restore-semantics 7.2
    #[test]
    fn waiting_containers_of_an_earlier_restore_go_and_nothing_is_asked_without_backups() {
        let bench = Bench::new()
            .pod_volume_backup(backup("p", "other", "data", "s"))
            .pod_volume_backup(backup("q", "app", "data", "s"))
            .pod_volume_backup(backup("p", "app", "data", ""))
            .pod_volume_backup(backup("p", "app", "token", "s"));
        let output = bench.run(NAME, pod()).unwrap();
        assert_eq!(output.item["spec"]["initContainers"], json!([{"name": "init"}]));
        assert!(bench.requests().is_empty());
        let only_wait = json!({"spec": {"initContainers": [{"name": "restore-wait"}]}});
        assert_eq!(bench.run(NAME, only_wait).unwrap().item, json!({"spec": {}}));
    }

    /// restore-semantics 7.2 and 5.13
    #[test]
    fn a_pod_with_backups_waits_for_each_of_its_volumes() {
        let bench = Bench::new()
            .with(velero("velero/velero:v1.18.0"))
            .pod_volume_backup(backup("p", "app", "logs", "s2"))
            .pod_volume_backup(backup("p", "app", "data", "s1"));
        let output = bench.run(NAME, pod()).unwrap();
        let containers = output.item["spec"]["initContainers"].as_array().unwrap();
        assert_eq!(containers.len(), 2);
        assert_eq!(containers[1]["name"], "init");
        assert_eq!(
            containers[0],
            json!({"name": "restore-wait", "image": "velero/velero:v1.18.0", "command": ["/velero-restore-helper"],
                "args": ["11111111-2222-4333-8444-555555555555"],
                "env": [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "volumeMounts": [{"name": "data", "mountPath": "/restores/data"},
                    {"name": "logs", "mountPath": "/restores/logs"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"},
                    "limits": {"cpu": "100m", "memory": "128Mi"}},
                "securityContext": {"runAsUser": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}})
        );
    }

    /// restore-semantics 5.13
    #[test]
    fn a_pod_of_an_old_backup_is_known_by_its_annotations() {
        let bench = Bench::new().with(velero("velero/velero:v1"));
        let mut old = pod();
        old["metadata"]["annotations"] = json!({"snapshot.velero.io/data": "abc", "other": "x"});
        assert_eq!(wait_of(&bench, old)["volumeMounts"], json!([{"name": "data", "mountPath": "/restores/data"}]));
    }

    /// restore-semantics 7.2
    #[test]
    fn a_pod_does_not_wait_for_data_that_nobody_brings() {
        let bench = Bench::new().pod_volume_backup(backup("p", "app", "data", "s")).without_pod_volume_restores();
        let mut old = pod();
        old["metadata"]["annotations"] = json!({"snapshot.velero.io/data": "abc"});
        for pod in [pod(), old] {
            let output = bench.run(NAME, pod).unwrap();
            assert_eq!(output.item["spec"]["initContainers"], json!([{"name": "init"}]));
        }
        assert!(bench.requests().is_empty());
    }

    #[test]
    fn plugin_configuration_sets_image_command_resources_and_security_context() {
        let bench = |config: Value| {
            Bench::new()
                .with(velero("registry:5000/velero:v1.18.0@sha256:aa"))
                .with(plugin_config("helper", NAME, config))
                .pod_volume_backup(backup("p", "app", "data", "s"))
        };
        let image = |image: &str| wait_of(&bench(json!({"image": image})), pod())["image"].clone();
        assert_eq!(image("my.registry/helper:1"), "my.registry/helper:1");
        assert_eq!(image("my.registry:5000/helper"), "my.registry:5000/helper:v1.18.0");
        assert_eq!(
            image("helper"),
            "registry:5000/velero:v1.18.0@sha256:aa",
            "an image without a registry is not taken"
        );

        let full = json!({"command": "/wait", "cpuRequest": "1", "memLimit": "1Gi", "secCtxRunAsUser": "7",
            "secCtxAllowPrivilegeEscalation": "false", "secCtx": "runAsGroup: 8"});
        let container = wait_of(&bench(full), pod());
        assert_eq!(container["command"], json!(["/wait"]));
        assert_eq!(container["resources"]["requests"], json!({"cpu": "1", "memory": "128Mi"}));
        assert_eq!(
            container["securityContext"],
            json!({"runAsUser": 7, "runAsGroup": 8, "allowPrivilegeEscalation": false})
        );

        let wrong = bench(json!({"cpuRequest": "much", "secCtxRunAsUser": "root"}));
        let mut own = pod();
        own["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 3});
        let output = wrong.run(NAME, own).unwrap();
        assert_eq!(output.notes.len(), 2, "{:?}", output.notes);
        let container = &output.item["spec"]["initContainers"][0];
        assert_eq!(container["resources"]["requests"]["cpu"], "100m");
        assert_eq!(container["securityContext"], json!({"runAsUser": 3}));
    }

    #[test]
    fn without_the_velero_deployment_the_pod_fails_and_says_what_is_missing() {
        let bench = Bench::new().pod_volume_backup(backup("p", "app", "data", "s"));
        let error = bench.run(NAME, pod()).unwrap_err().to_string();
        assert!(error.contains("deployments.apps \"velero\" not found"), "{error}");
    }

    #[test]
    fn quantities_are_told_from_other_texts() {
        for good in ["1", "100m", "1.5Gi", ".5", "2e3", "1E", "+1k"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1.2.3", "1 Gi", "1gi", "e3", "much"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
