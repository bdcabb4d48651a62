//! Telling the node agent to stop what it does for a restore that was cancelled.

use futures::StreamExt;
use futures::stream;
use serde_json::{Value, json};

use super::ports::Cluster;
use super::retry::{Attempts, Backoff, retrying};
use crate::model::{Target, label};

/// Requests at the same time: a restore may have thousands of volumes.
const AT_ONCE: usize = 16;

/// Sets `spec.cancel` of all PodVolumeRestores and DataDownloads of a restore that have not ended (restore-semantics 1.8
/// has Velero do the same with those of a server that has ended). They stop when their node agent can; nobody waits for it.
///
/// Gives what could not be told to stop, and why.
pub async fn call_off(cluster: &dyn Cluster, velero_namespace: &str, restore_uid: &str) -> Vec<String> {
    let mut failures = Vec::new();
    if restore_uid.is_empty() {
        return failures;
    }
    let selector = format!("{}={}", label::RESTORE_UID, label::valid_name(restore_uid));
    for (version, resource) in [("v1", "podvolumerestores"), ("v2alpha1", "datadownloads")] {
        let target = &Target::new("velero.io", version, resource, velero_namespace);
        let list = || cluster.list(target, &selector);
        let found = match retrying(Backoff::default(), &mut Attempts::default(), list).await {
            Ok(found) => found,
            // A cluster without a node agent may not even know the kind.
            Err(error) if error.is_not_found() => continue,
            Err(error) => {
                failures.push(format!("{resource} of the restore could not be listed, and may go on: {error}"));
                continue;
            }
        };
        let names: Vec<String> = found.iter().filter(|object| goes_on(object)).filter_map(name).collect();
        let told = stream::iter(names).map(|name| async move {
            let name = name.as_str();
            let patch = json!({"spec": {"cancel": true}});
            let write = || cluster.merge_patch(target, name, &patch);
            match retrying(Backoff::default(), &mut Attempts::default(), write).await {
                Err(error) if !error.is_not_found() => {
                    Some(format!("{resource} {name} could not be told to stop, and may go on: {error}"))
                }
                _ => None,
            }
        });
        let told: Vec<Option<String>> = told.buffer_unordered(AT_ONCE).collect().await;
        failures.extend(told.into_iter().flatten());
    }
    failures
}

fn name(object: &Value) -> Option<String> {
    object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned)
}

fn goes_on(object: &Value) -> bool {
    let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    let told = object.pointer("/spec/cancel").and_then(Value::as_bool).unwrap_or_default();
    !told && !matches!(phase, "Completed" | "Failed" | "Canceled" | "Canceling")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::actions::testing::{FakeCluster, block_on};
    use super::*;

    fn order(kind: &str, name: &str, spec: &Value, phase: &str) -> Value {
        json!({"kind": kind, "spec": spec, "status": {"phase": phase},
            "metadata": {"name": name, "namespace": "velero", "labels": {label::RESTORE_UID: "u"}}})
    }

    /// velero-differences: restores-can-be-cancelled
    #[test]
    fn what_goes_on_is_told_to_stop_and_what_has_ended_is_left_alone() {
        let mut foreign = order("PodVolumeRestore", "foreign", &json!({}), "InProgress");
        foreign["metadata"]["labels"][label::RESTORE_UID] = json!("another");
        let cluster = FakeCluster::new([
            foreign,
            order("PodVolumeRestore", "new", &json!({}), ""),
            order("PodVolumeRestore", "done", &json!({}), "Completed"),
            order("DataDownload", "runs", &json!({}), "InProgress"),
            order("DataDownload", "told", &json!({"cancel": true}), "InProgress"),
        ]);
        let failures = block_on(call_off(&*cluster, "velero", "u"));
        let mut patches: Vec<String> =
            cluster.requests().into_iter().filter(|request| request.starts_with("patch")).collect();
        patches.sort();
        assert_eq!(
            patches,
            [
                r#"patch datadownloads runs {"spec":{"cancel":true}}"#,
                r#"patch podvolumerestores new {"spec":{"cancel":true}}"#,
            ]
        );
        assert_eq!(failures.len(), 2, "the fake takes no patches: {failures:?}");
        assert!(block_on(call_off(&*cluster, "velero", "")).is_empty(), "of nobody in particular it is nothing");
    }
}
