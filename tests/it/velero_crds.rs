//! Velero's own CRDs on the real API server, and those derived from the project's types in the sandbox, accept and
//! refuse the same Restores.

use http::{Method, Request};
use reprise::sandbox::{self, Sandbox};
use serde_json::{Value, json};

use crate::support;

/// What was answered: the code, and what was stored or which fields are complained of.
#[derive(Debug, PartialEq)]
struct Answer {
    code: u16,
    spec: Value,
    status: Value,
    fields: Vec<String>,
}

async fn post(client: &kube::Client, namespace: &str, restore: &Value) -> Answer {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/apis/velero.io/v1/namespaces/{namespace}/restores"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(restore).unwrap())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(stored) => {
            Answer { code: 201, spec: stored["spec"].clone(), status: stored["status"].clone(), fields: vec![] }
        }
        Err(kube::Error::Api(status)) => {
            let causes = status.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
            // The real server adds a cause without a field: that it did not get as far as its other rules.
            let fields = causes.into_iter().map(|cause| cause.field).filter(|field| field != "<nil>");
            let mut fields: Vec<String> = fields.collect();
            fields.sort();
            fields.dedup();
            Answer { code: status.code, spec: Value::Null, status: Value::Null, fields }
        }
        Err(other) => panic!("{other}"),
    }
}

fn hook(hook: Value) -> Value {
    json!({"hooks": {"resources": [{"name": "h", "postHooks": [hook]}]}})
}

/// Specifications, and whether they are taken.
fn specs() -> Vec<(&'static str, Value, bool)> {
    let container = json!({"name": "c", "image": "i", "command": ["true"], "anything": {"goes": [1]}});
    vec![
        ("nothing", json!({}), true),
        ("a backup", json!({"backupName": "b"}), true),
        ("a backup that is a number", json!({"backupName": 7}), false),
        ("a backup that is null", json!({"backupName": null}), true),
        ("both sources", json!({"backupName": "b", "scheduleName": "s"}), true),
        ("namespaces", json!({"includedNamespaces": ["a", "b"], "excludedNamespaces": []}), true),
        ("namespaces that are null", json!({"includedNamespaces": null, "excludedNamespaces": null}), true),
        ("a namespace that is no list", json!({"includedNamespaces": "a"}), false),
        ("a list with a number", json!({"includedResources": ["pods", 1]}), false),
        ("a list with null", json!({"includedResources": ["pods", null]}), false),
        ("resources that are null", json!({"includedResources": null, "excludedResources": null}), true),
        ("a mapping", json!({"namespaceMapping": {"a": "b"}}), true),
        ("a mapping to a number", json!({"namespaceMapping": {"a": 1}}), false),
        ("a mapping that is a list", json!({"namespaceMapping": ["a"]}), false),
        ("a selector", json!({"labelSelector": {"matchLabels": {"a": "b"}}}), true),
        ("a selector that is null", json!({"labelSelector": null}), true),
        ("an expression", json!({"labelSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}), true),
        (
            "an operator nobody knows",
            json!({"labelSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
            true,
        ),
        ("an expression without operator", json!({"labelSelector": {"matchExpressions": [{"key": "a"}]}}), false),
        ("an expression without key", json!({"labelSelector": {"matchExpressions": [{"operator": "In"}]}}), false),
        ("a label that is no text", json!({"labelSelector": {"matchLabels": {"a": true}}}), false),
        ("or-selectors", json!({"orLabelSelectors": [{"matchLabels": {"a": "b"}}, {}]}), true),
        ("or-selectors that are null", json!({"orLabelSelectors": null}), true),
        ("an or-selector that is null", json!({"orLabelSelectors": [null]}), false),
        ("restorePVs null", json!({"restorePVs": null}), true),
        ("restorePVs false", json!({"restorePVs": false}), true),
        ("restorePVs as text", json!({"restorePVs": "false"}), false),
        ("includeClusterResources null", json!({"includeClusterResources": null}), true),
        ("preserveNodePorts as a number", json!({"preserveNodePorts": 1}), false),
        ("restoreStatus", json!({"restoreStatus": {"includedResources": ["pods"], "excludedResources": null}}), true),
        ("restoreStatus null", json!({"restoreStatus": null}), true),
        ("a policy", json!({"existingResourcePolicy": "update"}), true),
        ("a policy nobody knows", json!({"existingResourcePolicy": "sometimes"}), true),
        ("a timeout", json!({"itemOperationTimeout": "10m"}), true),
        ("a timeout that is none", json!({"itemOperationTimeout": "soon"}), true),
        ("a timeout in seconds", json!({"itemOperationTimeout": 600}), false),
        ("a modifier", json!({"resourceModifier": {"kind": "ConfigMap", "name": "m"}}), true),
        ("a modifier without name", json!({"resourceModifier": {"kind": "ConfigMap"}}), false),
        ("a modifier that is null", json!({"resourceModifier": null}), true),
        (
            "a modifier's group that is null",
            json!({"resourceModifier": {"apiGroup": null, "kind": "C", "name": "m"}}),
            true,
        ),
        ("an uploader", json!({"uploaderConfig": {"parallelFilesDownload": 4, "writeSparseFiles": true}}), true),
        ("an uploader that is null", json!({"uploaderConfig": null}), true),
        ("a fraction of files", json!({"uploaderConfig": {"parallelFilesDownload": 1.5}}), false),
        ("a negative number of files", json!({"uploaderConfig": {"parallelFilesDownload": -1}}), true),
        ("sparse null", json!({"uploaderConfig": {"writeSparseFiles": null}}), true),
        ("hooks", hook(json!({"exec": {"command": ["true"], "onError": "Fail", "waitForReady": null}})), true),
        ("hooks null, which are dropped", json!({"hooks": null}), true),
        ("hook resources null, which are dropped", json!({"hooks": {"resources": null}}), true),
        ("a hook without name", json!({"hooks": {"resources": [{}]}}), false),
        (
            "a hook's lists null",
            json!({"hooks": {"resources": [{"name": "h", "includedNamespaces": null, "excludedResources": null, "labelSelector": null}]}}),
            true,
        ),
        ("a command of nothing", hook(json!({"exec": {"command": []}})), false),
        ("no command", hook(json!({"exec": {}})), false),
        ("onError nobody knows", hook(json!({"exec": {"command": ["true"], "onError": "Perhaps"}})), false),
        ("an init container", hook(json!({"init": {"initContainers": [container], "timeout": "1m"}})), true),
        ("an init container that is text", hook(json!({"init": {"initContainers": ["c"]}})), false),
        (
            "unknown fields",
            json!({"backupName": "b", "unknown": 1, "hooks": {"more": {}}, "restoreStatus": {"x": []}}),
            true,
        ),
        ("a list", json!([]), false),
        ("null, which is dropped", json!(null), true),
    ]
}

/// Statuses, and whether they are taken.
fn statuses() -> Vec<(&'static str, Value, bool)> {
    let phases = [
        "New",
        "FailedValidation",
        "InProgress",
        "WaitingForPluginOperations",
        "WaitingForPluginOperationsPartiallyFailed",
        "Completed",
        "PartiallyFailed",
        "Failed",
        "Finalizing",
        "FinalizingPartiallyFailed",
    ];
    let mut all: Vec<(&'static str, Value, bool)> =
        phases.into_iter().map(|phase| (phase, json!({"phase": phase}), true)).collect();
    all.extend([
        ("a phase nobody knows", json!({"phase": "Paused"}), false),
        ("an empty phase", json!({"phase": ""}), false),
        ("a phase in lower case", json!({"phase": "completed"}), false),
        ("a phase that is null, which is dropped", json!({"phase": null}), true),
        ("counts", json!({"warnings": 1, "errors": 0, "progress": {"totalItems": 3, "itemsRestored": 2}}), true),
        ("a count as text", json!({"warnings": "1"}), false),
        ("progress null", json!({"progress": null}), true),
        ("progress as a number", json!({"progress": 1}), false),
        ("a time", json!({"startTimestamp": "2026-01-02T03:04:05Z", "completionTimestamp": null}), true),
        ("a time that is none", json!({"startTimestamp": "yesterday"}), false),
        ("validation errors", json!({"validationErrors": ["a"]}), true),
        ("validation errors null", json!({"validationErrors": null}), true),
        ("hook status", json!({"hookStatus": {"hooksAttempted": 1, "hooksFailed": 0}}), true),
        ("hook status null", json!({"hookStatus": null}), true),
        ("operations", json!({"restoreItemOperationsAttempted": 1}), true),
        ("unknown fields", json!({"phase": "New", "unknown": 1, "progress": {"more": 1}}), true),
    ]);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn real_and_derived_definitions_accept_and_refuse_the_same_restores() {
    let Some(cluster) = support::cluster().await else { return };
    let real = cluster.client().await;
    let namespace = support::namespace(&real, "crds").await;
    let crds = reprise::velero::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    let derived = Sandbox::try_new(sandbox::Options { crds, ..sandbox::Options::default() }).unwrap().client();

    let specs = specs().into_iter().map(|(what, spec, taken)| (what, json!({"spec": spec}), taken));
    let statuses = statuses().into_iter().map(|(what, status, taken)| (what, json!({"status": status}), taken));
    let others = [
        ("neither spec nor status", json!({}), true),
        ("unknown fields beside the spec", json!({"spec": {"backupName": "b"}, "more": 1}), true),
    ];
    let mut wrong = Vec::new();
    for (number, (what, mut restore, taken)) in specs.chain(statuses).chain(others).enumerate() {
        restore["apiVersion"] = json!("velero.io/v1");
        restore["kind"] = json!("Restore");
        restore["metadata"] = json!({"name": format!("r-{number}")});
        let (real, derived) =
            (post(&real, namespace.name(), &restore).await, post(&derived, "default", &restore).await);
        if real != derived {
            wrong.push(format!("{what}: real {real:?}, derived {derived:?}"));
        }
        if (real.code == 201) != taken || !matches!(real.code, 201 | 422 | 400) {
            wrong.push(format!("{what}: expected {}, got {real:?}", if taken { "taken" } else { "refused" }));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
