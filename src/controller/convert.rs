//! From the Restore object's form to the engine's: the one place where the two meet.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::engine::{BackupMethod, BackupVolumes, DataMover, NativeSnapshot, PodVolumeBackups, VolumeBackup};
use crate::model::{ExistingResourcePolicy, LabelSelector, ResourceLists, RestoreSpec, SelectorRequirement};
use crate::velero;
use crate::velero::volume_info::{BackupVolumeInfo, NativeSnapshot as NativeSnapshotRecord};

/// The engine's specification; every field of the object's is either taken or named here as not the engine's.
#[must_use]
pub fn restore_spec(spec: &velero::RestoreSpec) -> RestoreSpec {
    let velero::RestoreSpec {
        // The source is resolved, the timeout kept and the modifier read before the engine begins.
        backup_name: _,
        schedule_name: _,
        item_operation_timeout: _,
        resource_modifier: _,
        uploader_config: _,
        included_namespaces,
        excluded_namespaces,
        included_resources,
        excluded_resources,
        namespace_mapping,
        label_selector: one_selector,
        or_label_selectors,
        restore_pvs,
        restore_status,
        preserve_node_ports,
        include_cluster_resources,
        hooks,
        existing_resource_policy,
    } = spec.clone();
    RestoreSpec {
        included_namespaces,
        excluded_namespaces,
        resources: ResourceLists { included_resources, excluded_resources },
        namespace_mapping,
        label_selector: one_selector.as_ref().map(label_selector),
        or_label_selectors: or_label_selectors.map(|selectors| selectors.iter().map(label_selector).collect()),
        restore_pvs,
        restore_status: restore_status.map(|status| ResourceLists {
            included_resources: status.included_resources,
            excluded_resources: status.excluded_resources,
        }),
        preserve_node_ports,
        include_cluster_resources,
        existing_resource_policy: match existing_resource_policy.as_str() {
            "none" => ExistingResourcePolicy::None,
            "update" => ExistingResourcePolicy::Update,
            _ => ExistingResourcePolicy::Unset,
        },
        hooks: hooks.resources.iter().filter_map(|hook| serde_json::to_value(hook).ok()).collect(),
    }
}

/// How moved data is brought back, from the backup's specification and the restore's (restore-semantics 7.4).
#[must_use]
pub fn data_mover(backup: &velero::BackupSpec, restore: &velero::RestoreSpec) -> DataMover {
    let timeout = &backup.csi_snapshot_timeout;
    let settings = restore.uploader_config.as_ref().map(|config| {
        let sparse = config.write_sparse_files.unwrap_or_default();
        let parallel = Some(config.parallel_files_download).filter(|parallel| *parallel > 0);
        let parallel = parallel.map(|parallel| ("ParallelFilesDownload".to_owned(), parallel.to_string()));
        [("WriteSparseFiles".to_owned(), sparse.to_string())].into_iter().chain(parallel).collect()
    });
    DataMover {
        operation_timeout: if timeout.is_empty() { "0s".to_owned() } else { timeout.clone() },
        config: settings.unwrap_or_default(),
    }
}

/// A label selector as Kubernetes' types have it.
#[must_use]
pub fn label_selector(selector: &meta::LabelSelector) -> LabelSelector {
    let requirement = |requirement: &meta::LabelSelectorRequirement| SelectorRequirement {
        key: requirement.key.clone(),
        operator: requirement.operator.clone(),
        values: requirement.values.clone().unwrap_or_default(),
    };
    LabelSelector {
        match_labels: selector.match_labels.clone().unwrap_or_default(),
        match_expressions: selector.match_expressions.iter().flatten().map(requirement).collect(),
    }
}

/// What the backup's side files tell of its volumes.
#[must_use]
pub fn backup_volumes(
    infos: &[BackupVolumeInfo],
    native: &[NativeSnapshotRecord],
    pod_volume_backups: &[velero::PodVolumeBackup],
    csi_claims: impl IntoIterator<Item = (String, String)>,
) -> BackupVolumes {
    let method = |info: &BackupVolumeInfo| match info.backup_method.as_str() {
        "NativeSnapshot" => BackupMethod::NativeSnapshot,
        "PodVolumeBackup" => BackupMethod::PodVolumeBackup,
        "CSISnapshot" => BackupMethod::CsiSnapshot,
        _ => BackupMethod::None,
    };
    let claim = |backup: &velero::PodVolumeBackup| {
        let name = backup.metadata.annotations.as_ref()?.get("velero.io/pvc-name")?;
        Some((backup.spec.pod.namespace.clone(), name.clone()))
    };
    BackupVolumes {
        // The last entry of a name wins (restore-semantics 2.4).
        methods: infos.iter().map(|info| (info.pv_name.clone(), method(info))).collect(),
        native_snapshots: native
            .iter()
            .map(|record| {
                let snapshot = NativeSnapshot {
                    location: record.spec.location.clone(),
                    snapshot_id: record.status.provider_snapshot_id.clone(),
                };
                (record.spec.persistent_volume_name.clone(), snapshot)
            })
            .collect(),
        pod_volume_claims: pod_volume_backups.iter().filter_map(claim).collect(),
        csi_claims: csi_claims.into_iter().collect(),
        pod_volume_backups: pod_volumes(pod_volume_backups),
    }
}

fn pod_volumes(backups: &[velero::PodVolumeBackup]) -> PodVolumeBackups {
    let mut pod_volumes = PodVolumeBackups::default();
    for backup in backups {
        let status = backup.status.clone().unwrap_or_default();
        let snapshot = VolumeBackup {
            snapshot_id: status.snapshot_id,
            size: status.progress.map_or(0, |progress| progress.total_bytes),
            uploader_type: backup.spec.uploader_type.clone(),
        };
        let pod = &backup.spec.pod;
        pod_volumes.insert(&pod.namespace, &pod.name, &backup.spec.volume, snapshot);
    }
    pod_volumes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// restore-semantics 2.4: by `pvName`, and the last one wins; a method that is empty or unknown is none (5.4).
    #[test]
    fn the_last_entry_of_a_volume_wins() {
        let infos: Vec<BackupVolumeInfo> = serde_json::from_value(json!([
            {"pvName": "a", "backupMethod": "CSISnapshot"}, {"pvName": "", "backupMethod": "CSISnapshot"},
            {"pvName": "b", "backupMethod": "PodVolumeBackup"}, {"pvName": "c", "backupMethod": "NativeSnapshot"},
            {"pvName": "d", "skipped": true}, {"pvName": "e", "backupMethod": "OfTomorrow"},
            {"pvName": "a", "backupMethod": "NativeSnapshot"}, {"pvName": "", "backupMethod": ""},
        ]))
        .unwrap();
        let volumes = backup_volumes(&infos, &[], &[], []);
        let method = |name: &str| volumes.methods.get(name).copied();
        let expected = [
            ("a", BackupMethod::NativeSnapshot),
            ("b", BackupMethod::PodVolumeBackup),
            ("c", BackupMethod::NativeSnapshot),
            ("d", BackupMethod::None),
            ("e", BackupMethod::None),
        ];
        assert!(expected.iter().all(|(name, wanted)| method(name) == Some(*wanted)), "{volumes:?}");
        assert_eq!(method("f"), None);
    }

    /// restore-semantics 5.4: the claim's namespace is the pod's, its name is in an annotation.
    #[test]
    fn a_claim_of_an_older_backup_is_known_by_the_annotation_of_its_pod_volume_backup() {
        let backup = |annotations: serde_json::Value| -> velero::PodVolumeBackup {
            serde_json::from_value(json!({"apiVersion": "velero.io/v1", "kind": "PodVolumeBackup",
                "metadata": {"name": "p", "annotations": annotations},
                "spec": {"node": "n", "pod": {"namespace": "shop", "name": "web"}, "volume": "v",
                    "backupStorageLocation": "default", "repoIdentifier": ""}}))
            .unwrap()
        };
        let backups = [backup(json!({"velero.io/pvc-name": "data"})), backup(json!({}))];
        let volumes = backup_volumes(&[], &[], &backups, [("bank".to_owned(), "db".to_owned())]);
        assert_eq!(volumes.pod_volume_claims, [("shop".to_owned(), "data".to_owned())].into());
        assert_eq!(volumes.csi_claims, [("bank".to_owned(), "db".to_owned())].into());
    }

    /// restore-semantics 1.1: three values, and anything else was refused before.
    #[test]
    fn the_policy_keeps_absent_apart_from_none() {
        let policy = |policy: &str| {
            let spec: velero::RestoreSpec = serde_json::from_value(json!({"existingResourcePolicy": policy})).unwrap();
            restore_spec(&spec).existing_resource_policy
        };
        assert_eq!(policy(""), ExistingResourcePolicy::Unset);
        assert_eq!(policy("none"), ExistingResourcePolicy::None);
        assert_eq!(policy("update"), ExistingResourcePolicy::Update);
    }
}
