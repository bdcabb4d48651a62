//! Which volumes of a pod were backed up by their files (restore-semantics 5.13).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::actions::{Error, fields};

/// What moves the files where a backup does not say: Velero's default.
const KOPIA: &str = "kopia";

/// Annotations by which Velero named a volume's snapshot before there were PodVolumeBackups.
const LEGACY_SNAPSHOT: &str = "snapshot.velero.io/";

/// A pod volume's snapshot in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeBackup {
    /// The snapshot.
    pub snapshot_id: String,
    /// Its size in bytes; 0 where it is not known.
    pub size: i64,
    /// What moves the files; empty for the default.
    pub uploader_type: String,
}

impl VolumeBackup {
    /// What moves the files.
    pub(crate) fn uploader(&self) -> &str {
        if self.uploader_type.is_empty() { KOPIA } else { &self.uploader_type }
    }
}

/// The PodVolumeBackups of a backup that have a snapshot, by pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodVolumeBackups {
    /// By source namespace and name of the pod, then by volume.
    by_pod: HashMap<(String, String), BTreeMap<String, VolumeBackup>>,
}

impl PodVolumeBackups {
    /// Takes one in. Without a snapshot there is nothing to restore (it failed, or the volume was empty); the last one of
    /// a volume wins.
    pub fn insert(&mut self, namespace: &str, pod: &str, volume: &str, backup: VolumeBackup) {
        if !backup.snapshot_id.is_empty() {
            let volumes = self.by_pod.entry((namespace.to_owned(), pod.to_owned())).or_default();
            volumes.insert(volume.to_owned(), backup);
        }
    }

    /// The backups of a pod's volumes. `pod` is the pod as it is restored, `source_namespace` where it was backed up.
    ///
    /// Volumes that the cluster fills itself (`projected`, `downwardAPI`) are none of them, as old backups may hold such.
    ///
    /// # Errors
    /// The pod's volumes or annotations are not what they must be.
    pub(crate) fn of_pod(&self, pod: &Value, source_namespace: &str) -> Result<BTreeMap<String, VolumeBackup>, Error> {
        let name = fields::name(pod)?;
        let mut filled_by_cluster = BTreeSet::new();
        fields::each(pod, "spec.volumes", |volume| {
            if fields::get(volume, "projected")?.is_some() || fields::get(volume, "downwardAPI")?.is_some() {
                filled_by_cluster.insert(fields::text_or_empty(volume, "name")?);
            }
            Ok(())
        })?;
        let backups = self.by_pod.get(&(source_namespace.to_owned(), name.to_owned()));
        let mut volumes = backups.cloned().unwrap_or_default();
        volumes.retain(|volume, _| !filled_by_cluster.contains(volume.as_str()));
        if !volumes.is_empty() {
            return Ok(volumes);
        }
        let annotations = fields::object(pod, "metadata.annotations")?.into_iter().flatten();
        let legacy = annotations.filter_map(|(key, snapshot)| {
            let backup =
                VolumeBackup { snapshot_id: snapshot.as_str()?.to_owned(), size: 0, uploader_type: String::new() };
            Some((key.strip_prefix(LEGACY_SNAPSHOT)?.to_owned(), backup))
        });
        Ok(legacy.collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn backup(snapshot: &str) -> VolumeBackup {
        VolumeBackup { snapshot_id: snapshot.to_owned(), size: 7, uploader_type: "restic".to_owned() }
    }

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "namespace": "target"}, "spec": {"volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "logs", "emptyDir": {}},
            {"name": "token", "projected": {}}, {"name": "info", "downwardAPI": {}}]}})
    }

    /// restore-semantics 5.13: pod, source namespace and snapshot must be there, and the volume must be the pod's own.
    #[test]
    fn a_pod_has_the_backups_of_its_own_volumes_that_have_a_snapshot() {
        let mut backups = PodVolumeBackups::default();
        backups.insert("app", "p", "data", backup("s1"));
        backups.insert("app", "p", "data", backup("s2"));
        backups.insert("app", "p", "logs", backup(""));
        backups.insert("app", "p", "token", backup("s3"));
        backups.insert("app", "p", "info", backup("s4"));
        backups.insert("app", "p", "gone-from-the-pod", backup("s5"));
        backups.insert("app", "q", "data", backup("s6"));
        backups.insert("target", "p", "data", backup("s7"));
        let found = backups.of_pod(&pod(), "app").unwrap();
        let snapshots: Vec<(&str, &str)> =
            found.iter().map(|(volume, backup)| (volume.as_str(), backup.snapshot_id.as_str())).collect();
        assert_eq!(snapshots, [("data", "s2"), ("gone-from-the-pod", "s5")]);
        assert_eq!(found["data"].uploader(), "restic");
        assert!(backups.of_pod(&pod(), "elsewhere").unwrap().is_empty());
    }

    /// restore-semantics 5.13: the annotations count only where there is no PodVolumeBackup.
    #[test]
    fn annotations_of_old_backups_stand_in_for_missing_backups() {
        let mut old = pod();
        old["metadata"]["annotations"] = json!({"snapshot.velero.io/data": "abc", "other": "x"});
        let mut backups = PodVolumeBackups::default();
        let found = backups.of_pod(&old, "app").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found["data"].snapshot_id.as_str(), found["data"].uploader(), found["data"].size),
            ("abc", "kopia", 0)
        );
        backups.insert("app", "p", "logs", backup("s1"));
        assert_eq!(backups.of_pod(&old, "app").unwrap().into_keys().collect::<Vec<_>>(), ["logs"]);
    }

    #[test]
    fn a_pod_whose_volumes_are_no_list_is_an_error_that_names_them() {
        let error = PodVolumeBackups::default().of_pod(&json!({"spec": {"volumes": "x"}}), "app").unwrap_err();
        assert!(error.to_string().contains("spec.volumes"), "{error}");
    }
}
