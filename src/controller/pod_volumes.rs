//! Pod volumes at both ends of a restore: how the engine is to restore their data (restore-semantics 5.13), and what the
//! restore's volume info tells of it (restore-semantics 9.3).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::engine::events::LogLevel;
use crate::engine::ports::Cluster;
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::engine::{PodVolumeOptions, RestoredPodVolume};
use crate::model::{GoDuration, Target};
use crate::progress::RestoreProgress;
use crate::velero::Restore;
use crate::velero::restore::UploaderConfigForRestore;
use crate::velero::volume_info::{PodVolumeInfo, RestoreVolumeInfo};

/// Annotation of a Restore with the time that its pod volumes may take; a Go duration.
const TIMEOUT: &str = "velero.io/pod-volume-timeout";

/// How the data of pod volumes is restored. An annotation that cannot be read is told in the restore's log.
pub(super) fn options(restore: &Restore, default: Duration, followed: &RestoreProgress) -> PodVolumeOptions {
    let timeout = timeout(restore, default).unwrap_or_else(|message| {
        followed.log(LogLevel::Error, "controller", &message);
        default
    });
    let uploader_settings = restore.spec.uploader_config.as_ref().map(uploader_settings).unwrap_or_default();
    PodVolumeOptions { timeout, uploader_settings }
}

/// The time that pod volumes may take (restore-semantics 1.1).
///
/// # Errors
/// What is wrong with the annotation; the default holds then.
fn timeout(restore: &Restore, default: Duration) -> Result<Duration, String> {
    let annotation = restore.metadata.annotations.as_ref().and_then(|annotations| annotations.get(TIMEOUT));
    let Some(text) = annotation.filter(|text| !text.is_empty()) else { return Ok(default) };
    match text.parse::<GoDuration>() {
        // A time before now has passed.
        Ok(duration) => Ok(duration.to_std().unwrap_or_default()),
        Err(error) => Err(format!(
            "annotation {TIMEOUT} is ignored, and {} taken: {error}; give it a duration such as 6h",
            GoDuration::from(default)
        )),
    }
}

/// `uploaderSettings` of each PodVolumeRestore.
fn uploader_settings(config: &UploaderConfigForRestore) -> BTreeMap<String, String> {
    let sparse = config.write_sparse_files.unwrap_or_default();
    let mut settings = BTreeMap::from([("WriteSparseFiles".to_owned(), sparse.to_string())]);
    if config.parallel_files_download > 0 {
        settings.insert("ParallelFilesDownload".to_owned(), config.parallel_files_download.to_string());
    }
    settings
}

/// The entries of the restore's volume info. As in Velero only volumes with a claim are told, and the PersistentVolume of
/// a claim only where this restore created the claim and it is bound.
pub(super) async fn volume_info(
    cluster: &dyn Cluster,
    volumes: &[RestoredPodVolume],
    resource_list: &BTreeMap<String, Vec<String>>,
) -> Vec<RestoreVolumeInfo> {
    let claims = resource_list.get("v1/PersistentVolumeClaim").map(Vec::as_slice).unwrap_or_default();
    let mut infos = Vec::with_capacity(volumes.len());
    for volume in volumes {
        let Some(claim) = &volume.claim else { continue };
        let is_created = claims.contains(&format!("{}/{claim}(created)", volume.namespace));
        let pv_name = if is_created { bound_volume(cluster, &volume.namespace, claim).await } else { String::new() };
        infos.push(RestoreVolumeInfo {
            pvc_name: claim.clone(),
            pvc_namespace: volume.namespace.clone(),
            pv_name,
            restore_method: "PodVolumeRestore".to_owned(),
            pod_volume: Some(PodVolumeInfo {
                snapshot_handle: volume.snapshot_id.clone(),
                size: volume.size,
                uploader_type: volume.uploader_type.clone(),
                volume_name: volume.volume.clone(),
                pod_name: volume.pod.clone(),
                pod_namespace: volume.namespace.clone(),
                // The phase and the node are not written by Velero either.
                ..PodVolumeInfo::default()
            }),
            ..RestoreVolumeInfo::default()
        });
    }
    infos
}

/// The PersistentVolume that a claim is bound to; empty where there is none, or nobody can say.
async fn bound_volume(cluster: &dyn Cluster, namespace: &str, claim: &str) -> String {
    let target = Target::new("", "v1", "persistentvolumeclaims", namespace);
    let get = || cluster.get(&target, claim);
    match retrying(Backoff::default(), &mut Attempts::default(), get).await {
        Ok(live) => {
            let text = |pointer: &str| live.as_ref().and_then(|live| live.pointer(pointer)).and_then(Value::as_str);
            let is_bound = text("/status/phase") == Some("Bound");
            text("/spec/volumeName").filter(|_| is_bound).unwrap_or_default().to_owned()
        }
        Err(error) => {
            tracing::warn!(namespace, claim, %error, "the claim of a pod volume cannot be read; its volume info has no volume");
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::engine::actions::testing::FakeCluster;

    fn annotated(text: &str) -> Restore {
        let mut restore = Restore::default();
        restore.metadata.annotations = Some(BTreeMap::from([(TIMEOUT.to_owned(), text.to_owned())]));
        restore
    }

    /// restore-semantics 1.1: an annotation that cannot be parsed is told and ignored.
    #[test]
    fn an_annotation_sets_the_timeout_of_pod_volumes_unless_it_is_no_duration() {
        let default = Duration::from_secs(4 * 3600);
        let timeout = |text: &str| timeout(&annotated(text), default);
        assert_eq!(super::timeout(&Restore::default(), default), Ok(default));
        assert_eq!(timeout(""), Ok(default));
        assert_eq!(timeout("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(timeout("-1s"), Ok(Duration::ZERO));
        let message = timeout("soon").unwrap_err();
        assert!(message.contains(TIMEOUT) && message.contains("4h0m0s"), "{message}");
    }

    /// restore-semantics 5.13: `WriteSparseFiles` is always written, `ParallelFilesDownload` where it is set.
    #[test]
    fn uploader_settings_are_those_of_the_restore() {
        let config = |write_sparse_files, parallel_files_download| {
            let settings = uploader_settings(&UploaderConfigForRestore { write_sparse_files, parallel_files_download });
            settings.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(config(None, 0), "WriteSparseFiles=false");
        assert_eq!(config(Some(true), 4), "ParallelFilesDownload=4 WriteSparseFiles=true");
    }

    /// restore-semantics 9.3.
    #[tokio::test]
    async fn volume_info_tells_claims_and_the_volumes_they_are_bound_to() {
        let claim = |name: &str, phase: &str| {
            json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "app"},
                "spec": {"volumeName": format!("pv-{name}")}, "status": {"phase": phase}})
        };
        let cluster = FakeCluster::new([claim("bound", "Bound"), claim("pending", "Pending"), claim("older", "Bound")]);
        let volume = |claim: Option<&str>| RestoredPodVolume {
            namespace: "app".to_owned(),
            pod: "web".to_owned(),
            volume: "data".to_owned(),
            claim: claim.map(str::to_owned),
            snapshot_id: "s".to_owned(),
            uploader_type: "kopia".to_owned(),
            size: 12,
        };
        let volumes = [Some("bound"), Some("pending"), Some("older"), None].map(volume);
        let listed = ["app/bound(created)", "app/pending(created)", "app/older(skipped)"].map(str::to_owned).to_vec();
        let list = BTreeMap::from([("v1/PersistentVolumeClaim".to_owned(), listed)]);
        let infos = volume_info(&*cluster, &volumes, &list).await;
        let told: Vec<(&str, &str)> =
            infos.iter().map(|info| (info.pvc_name.as_str(), info.pv_name.as_str())).collect();
        assert_eq!(told, [("bound", "pv-bound"), ("pending", ""), ("older", "")]);
        assert_eq!(
            serde_json::to_value(&infos[0]).unwrap(),
            json!({"pvcName": "bound", "pvcNamespace": "app", "pvName": "pv-bound", "restoreMethod": "PodVolumeRestore",
                "snapshotDataMoved": false, "pvrInfo": {"snapshotHandle": "s", "size": 12, "uploaderType": "kopia",
                    "volumeName": "data", "podName": "web", "podNamespace": "app", "Phase": ""}})
        );
    }
}
