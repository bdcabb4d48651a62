//! The objects by which a restore talks to the node agent and to the repository's maintenance (restore-semantics 5.13):
//! what is written, and what is read out of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Pod;
use crate::engine::Job;
use crate::engine::pod_volume_backups::VolumeBackup;
use crate::model::{Target, label};

/// The only type of repository.
const KOPIA: &str = "kopia";

/// Label with the UID of the pod that a PodVolumeRestore is for.
pub(super) const POD_UID: &str = "velero.io/pod-uid";

/// Label with the UID of the claim behind the volume.
const PVC_UID: &str = "velero.io/pvc-uid";

/// A resource of Velero's own, in its namespace.
pub(super) fn velero(job: &Job, resource: &str) -> Target {
    Target::new("velero.io", "v1", resource, &job.velero_namespace)
}

/// The text at a JSON pointer, empty where there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The value of a label, empty where there is none.
fn label_of<'a>(object: &'a Value, key: &str) -> &'a str {
    object.pointer("/metadata/labels").and_then(|labels| labels.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// The order to restore one volume of a pod, for the node agent on the pod's node.
pub(super) fn pod_volume_restore(
    job: &Job,
    pod: &Pod,
    volume: &str,
    backup: &VolumeBackup,
    claim_uid: Option<&str>,
) -> Value {
    let mut labels = BTreeMap::from([
        (label::RESTORE_NAME, label::valid_name(&job.restore_name)),
        (label::RESTORE_UID, job.restore_uid.clone()),
        (POD_UID, pod.uid.clone()),
    ]);
    if let Some(uid) = claim_uid {
        labels.insert(PVC_UID, uid.to_owned());
    }
    let mut spec = json!({
        "pod": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
        "volume": volume,
        "backupStorageLocation": job.backup_storage_location,
        // Of the days of restic; the repository is found by its BackupRepository.
        "repoIdentifier": "",
        "uploaderType": backup.uploader(),
        "snapshotID": backup.snapshot_id,
        "sourceNamespace": pod.source_namespace,
    });
    if backup.size != 0 {
        spec["snapshotSize"] = json!(backup.size);
    }
    let settings = job.pod_volumes.as_ref().map(|options| &options.uploader_settings);
    if let Some(settings) = settings.filter(|settings| !settings.is_empty()) {
        spec["uploaderSettings"] = json!(settings);
    }
    json!({
        "apiVersion": "velero.io/v1", "kind": "PodVolumeRestore",
        "metadata": {
            "generateName": format!("{}-", job.restore_name),
            "namespace": job.velero_namespace,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "velero.io/v1", "kind": "Restore", "name": job.restore_name, "uid": job.restore_uid,
                "controller": true,
            }],
        },
        "spec": spec,
    })
}

/// Selects the PodVolumeRestores of a restore, or of one of its pods.
pub(super) fn restores_selector(job: &Job, pod_uid: Option<&str>) -> String {
    let of_restore = format!("{}={}", label::RESTORE_UID, job.restore_uid);
    pod_uid.map_or(of_restore.clone(), |uid| format!("{of_restore},{POD_UID}={uid}"))
}

/// The repository of a source namespace, as whoever needs it first creates it.
pub(super) fn backup_repository(job: &Job, source_namespace: &str) -> Value {
    let location = &job.backup_storage_location;
    json!({
        "apiVersion": "velero.io/v1", "kind": "BackupRepository",
        "metadata": {
            "name": format!("{source_namespace}-{location}-{KOPIA}"),
            "namespace": job.velero_namespace,
            "labels": BTreeMap::from(repository_labels(job, source_namespace)),
        },
        "spec": {
            "volumeNamespace": source_namespace,
            "backupStorageLocation": location,
            "repositoryType": KOPIA,
            // Velero's controller puts its default in place of it.
            "maintenanceFrequency": "0s",
        },
    })
}

/// Selects the repository of a source namespace. It is found by its labels; its name may be another one.
pub(super) fn repository_selector(job: &Job, source_namespace: &str) -> String {
    repository_labels(job, source_namespace).map(|(key, value)| format!("{key}={value}")).join(",")
}

fn repository_labels(job: &Job, source_namespace: &str) -> [(&'static str, String); 3] {
    [
        ("velero.io/volume-namespace", label::valid_name(source_namespace)),
        ("velero.io/storage-location", label::valid_name(&job.backup_storage_location)),
        ("velero.io/repository-type", KOPIA.to_owned()),
    ]
}

/// What the node agent tells of a PodVolumeRestore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) volume: String,
    pub(super) phase: String,
    pub(super) message: String,
    pub(super) node: String,
    pub(super) bytes_done: i64,
    pub(super) total_bytes: i64,
    pub(super) snapshot_id: String,
    pub(super) uploader_type: String,
    /// Whether the object was deleted.
    pub(super) is_gone: bool,
}

/// Reads a PodVolumeRestore of this restore: the UID of its pod, its name, and how far it is.
pub(super) fn read_restore(restore_uid: &str, object: &Value) -> Option<(String, String, Told)> {
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let pod_uid = label_of(object, POD_UID);
    if label_of(object, label::RESTORE_UID) != restore_uid || pod_uid.is_empty() {
        return None;
    }
    let told = Told {
        volume: text(object, "/spec/volume").to_owned(),
        phase: text(object, "/status/phase").to_owned(),
        message: text(object, "/status/message").to_owned(),
        node: text(object, "/status/node").to_owned(),
        bytes_done: count("/status/progress/bytesDone"),
        total_bytes: count("/status/progress/totalBytes"),
        snapshot_id: text(object, "/spec/snapshotID").to_owned(),
        uploader_type: text(object, "/spec/uploaderType").to_owned(),
        is_gone: false,
    };
    Some((pod_uid.to_owned(), text(object, "/metadata/name").to_owned(), told))
}

/// The node of a pod that has one and is on its way to run there.
pub(super) fn scheduled_on(pod: &Value) -> Option<&str> {
    let node = text(pod, "/spec/nodeName");
    let is_alive = matches!(text(pod, "/status/phase"), "Running" | "Pending")
        && pod.pointer("/metadata/deletionTimestamp").is_none_or(Value::is_null);
    (is_alive && !node.is_empty()).then_some(node)
}

/// Whether this is a pod of the node agent that runs on this node.
pub(super) fn is_agent_on(agent: &Value, node: &str) -> bool {
    text(agent, "/status/phase") == "Running" && scheduled_on(agent) == Some(node)
}

/// Whether a pod in the cluster waits for this very restore to fill its volumes (restore-semantics 7.2).
pub(super) fn waits_for(pod: &Value, restore_uid: &str) -> bool {
    let init = pod.pointer("/spec/initContainers").and_then(Value::as_array);
    init.into_iter().flatten().any(|container| {
        container["name"] == crate::engine::actions::RESTORE_WAIT
            && container["args"].as_array().is_some_and(|args| args.iter().any(|argument| argument == restore_uid))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::PodVolumeOptions;

    fn job() -> Job {
        Job {
            restore_name: "r".to_owned(),
            restore_uid: "restore-uid".to_owned(),
            velero_namespace: "velero".to_owned(),
            backup_storage_location: "default".to_owned(),
            pod_volumes: Some(PodVolumeOptions::default()),
            ..Job::default()
        }
    }

    fn pod() -> Pod {
        Pod {
            namespace: "dst".to_owned(),
            name: "web".to_owned(),
            uid: "pod-uid".to_owned(),
            source_namespace: "src".to_owned(),
            volumes: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    /// restore-semantics 5.13: exactly these fields, and what is empty in Velero is absent.
    #[test]
    fn the_order_to_the_node_agent_has_exactly_veleros_fields() {
        let mut job = job();
        let mut backup = VolumeBackup { snapshot_id: "s".to_owned(), size: 0, uploader_type: String::new() };
        let expected = json!({
            "apiVersion": "velero.io/v1", "kind": "PodVolumeRestore",
            "metadata": {
                "generateName": "r-", "namespace": "velero",
                "labels": {"velero.io/restore-name": "r", "velero.io/restore-uid": "restore-uid",
                    "velero.io/pod-uid": "pod-uid"},
                "ownerReferences": [{"apiVersion": "velero.io/v1", "kind": "Restore", "name": "r",
                    "uid": "restore-uid", "controller": true}],
            },
            "spec": {
                "pod": {"kind": "Pod", "namespace": "dst", "name": "web", "uid": "pod-uid"},
                "volume": "data", "backupStorageLocation": "default", "repoIdentifier": "", "uploaderType": "kopia",
                "snapshotID": "s", "sourceNamespace": "src",
            },
        });
        assert_eq!(pod_volume_restore(&job, &pod(), "data", &backup, None), expected);

        backup = VolumeBackup { size: 12, uploader_type: "restic".to_owned(), ..backup };
        let settings = BTreeMap::from([("WriteSparseFiles".to_owned(), "true".to_owned())]);
        job.pod_volumes = Some(PodVolumeOptions { uploader_settings: settings, ..PodVolumeOptions::default() });
        job.restore_name = "x".repeat(70);
        let full = pod_volume_restore(&job, &pod(), "data", &backup, Some("claim-uid"));
        assert_eq!(full["spec"]["snapshotSize"], 12);
        assert_eq!(full["spec"]["uploaderType"], "restic");
        assert_eq!(full["spec"]["uploaderSettings"], json!({"WriteSparseFiles": "true"}));
        assert_eq!(full["metadata"]["labels"]["velero.io/pvc-uid"], "claim-uid");
        assert_eq!(full["metadata"]["labels"]["velero.io/restore-name"].as_str().unwrap().len(), 63);
    }

    #[test]
    fn the_repository_is_named_after_its_labels_and_found_by_them() {
        assert_eq!(
            backup_repository(&job(), "src"),
            json!({
                "apiVersion": "velero.io/v1", "kind": "BackupRepository",
                "metadata": {"name": "src-default-kopia", "namespace": "velero",
                    "labels": {"velero.io/volume-namespace": "src", "velero.io/storage-location": "default",
                        "velero.io/repository-type": "kopia"}},
                "spec": {"volumeNamespace": "src", "backupStorageLocation": "default", "repositoryType": "kopia",
                    "maintenanceFrequency": "0s"},
            })
        );
        assert_eq!(
            repository_selector(&job(), "src"),
            "velero.io/volume-namespace=src,velero.io/storage-location=default,velero.io/repository-type=kopia"
        );
    }

    #[test]
    fn a_pod_volume_restore_of_another_restore_is_not_read() {
        let object = pod_volume_restore(
            &job(),
            &pod(),
            "data",
            &VolumeBackup { snapshot_id: "s".to_owned(), size: 0, uploader_type: String::new() },
            None,
        );
        assert_eq!(read_restore("another", &object), None);
        let (pod_uid, _, told) = read_restore("restore-uid", &object).unwrap();
        assert_eq!((pod_uid.as_str(), told.volume.as_str(), told.phase.as_str()), ("pod-uid", "data", ""));
    }

    #[test]
    fn a_pod_is_scheduled_when_it_has_a_node_and_is_on_its_way_to_run() {
        let pod = |phase: &str| json!({"spec": {"nodeName": "n"}, "status": {"phase": phase}});
        assert_eq!(scheduled_on(&pod("Pending")), Some("n"));
        assert_eq!(scheduled_on(&pod("Failed")), None);
        assert_eq!(scheduled_on(&json!({"spec": {}, "status": {"phase": "Pending"}})), None);
        let mut going = pod("Running");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        assert_eq!(scheduled_on(&going), None);
        assert!(is_agent_on(&pod("Running"), "n") && !is_agent_on(&pod("Running"), "m"));
        assert!(!is_agent_on(&pod("Pending"), "n"));
    }

    #[test]
    fn a_pod_waits_for_the_restore_whose_uid_its_init_container_has() {
        let pod = json!({"spec": {"initContainers": [{"name": "restore-wait", "args": ["u"]}]}});
        assert!(waits_for(&pod, "u"));
        assert!(!waits_for(&pod, "v"));
        assert!(!waits_for(&json!({"spec": {"initContainers": [{"name": "other", "args": ["u"]}]}}), "u"));
        assert!(!waits_for(&json!({}), "u"));
    }
}
