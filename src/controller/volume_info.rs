//! What became of each volume: the file `<r>-volumeinfo.json.gz` (restore-semantics 9.3). Put together from what is in the
//! cluster once the items are restored, as well as that goes: a failure is logged and leaves a volume out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::engine::ports::{ApiError, Cluster};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::{Target, label};
use crate::velero::volume_info::{CsiSnapshotInfo, RestoreVolumeInfo, SnapshotDataMovementInfo};

/// The data mover where a DataDownload names none.
const VELERO_MOVER: &str = "velero";
/// The one uploader there is.
const UPLOADER: &str = "kopia";
const METHOD: &str = "CSISnapshot";

/// The volumes of the claims that this restore created.
pub(super) async fn collect(
    cluster: &dyn Cluster,
    velero_namespace: &str,
    restore: &str,
    resource_list: &BTreeMap<String, Vec<String>>,
) -> Vec<RestoreVolumeInfo> {
    let listed = resource_list.get("v1/PersistentVolumeClaim").into_iter().flatten();
    let created: BTreeSet<(&str, &str)> =
        listed.filter_map(|entry| entry.strip_suffix("(created)")?.split_once('/')).collect();
    if created.is_empty() {
        return Vec::new();
    }
    let claims = Claims::read(cluster, restore, &created).await;
    let mut infos = Vec::new();
    for ((namespace, name), claim) in &claims.live {
        if let Some(snapshot) = snapshot_of(claim) {
            let target = Target::new("snapshot.storage.k8s.io", "v1", "volumesnapshots", namespace);
            match get(cluster, &target, snapshot).await {
                Ok(Some(snapshot)) => infos.push(of_snapshot(namespace, name, claim, &snapshot)),
                Ok(None) => {
                    tracing::warn!(namespace, snapshot, "the snapshot that a claim is filled from is not there")
                }
                Err(error) => {
                    tracing::warn!(namespace, snapshot, %error, "a snapshot cannot be read for the volume info")
                }
            }
        }
    }
    let downloads = Target::new("velero.io", "v2alpha1", "datadownloads", velero_namespace);
    let selector = format!("{}={}", label::RESTORE_NAME, label::valid_name(restore));
    match list(cluster, &downloads, &selector).await {
        Ok(found) => infos.extend(found.iter().map(|download| of_download(download, &claims))),
        // Without the kind there are none.
        Err(error) if error.is_not_found() => {}
        Err(error) => tracing::warn!(restore, %error, "DataDownloads cannot be listed for the volume info"),
    }
    infos
}

/// The claims as they are in the cluster, by namespace and name.
struct Claims {
    live: BTreeMap<(String, String), Value>,
}

impl Claims {
    /// One list per namespace, in place of a request per claim.
    async fn read(cluster: &dyn Cluster, restore: &str, created: &BTreeSet<(&str, &str)>) -> Self {
        let selector = format!("{}={}", label::RESTORE_NAME, label::valid_name(restore));
        let namespaces: BTreeSet<&str> = created.iter().map(|(namespace, _)| *namespace).collect();
        let mut live = BTreeMap::new();
        for namespace in namespaces {
            let target = Target::new("", "v1", "persistentvolumeclaims", namespace);
            match list(cluster, &target, &selector).await {
                Ok(found) => live.extend(found.into_iter().filter_map(|claim| {
                    let name = claim["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    created.contains(&(namespace, &*name)).then(|| ((namespace.to_owned(), name), claim))
                })),
                Err(error) => tracing::warn!(namespace, %error, "claims cannot be listed for the volume info"),
            }
        }
        Self { live }
    }

    fn volume(&self, namespace: &str, name: &str) -> String {
        self.live.get(&(namespace.to_owned(), name.to_owned())).map(volume_of).unwrap_or_default()
    }
}

async fn get(cluster: &dyn Cluster, target: &Target, name: &str) -> Result<Option<Value>, ApiError> {
    retrying(Backoff::default(), &mut Attempts::default(), || cluster.get(target, name)).await
}

async fn list(cluster: &dyn Cluster, target: &Target, selector: &str) -> Result<Vec<Value>, ApiError> {
    retrying(Backoff::default(), &mut Attempts::default(), || cluster.list(target, selector)).await
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The volume of a claim that is bound.
fn volume_of(claim: &Value) -> String {
    if text(claim, "/status/phase") == "Bound" { text(claim, "/spec/volumeName") } else { String::new() }
}

/// The VolumeSnapshot that a claim is filled from.
fn snapshot_of(claim: &Value) -> Option<&str> {
    let source = claim.pointer("/spec/dataSource")?;
    (source["kind"] == "VolumeSnapshot").then(|| source["name"].as_str()).flatten()
}

fn of_snapshot(namespace: &str, name: &str, claim: &Value, snapshot: &Value) -> RestoreVolumeInfo {
    RestoreVolumeInfo {
        pvc_name: name.to_owned(),
        pvc_namespace: namespace.to_owned(),
        pv_name: volume_of(claim),
        restore_method: METHOD.to_owned(),
        csi_snapshot: Some(CsiSnapshotInfo {
            snapshot_handle: text(snapshot, "/metadata/annotations/velero.io~1csi-volumesnapshot-handle"),
            size: bytes(&text(snapshot, "/status/restoreSize")),
            driver: text(snapshot, "/metadata/annotations/velero.io~1csi-driver-name"),
            vsc_name: text(snapshot, "/spec/source/volumeSnapshotContentName"),
            ..CsiSnapshotInfo::default()
        }),
        ..RestoreVolumeInfo::default()
    }
}

fn of_download(download: &Value, claims: &Claims) -> RestoreVolumeInfo {
    let (namespace, name) = (text(download, "/spec/targetVolume/namespace"), text(download, "/spec/targetVolume/pvc"));
    let volume = claims.volume(&namespace, &name);
    let mover = text(download, "/spec/datamover");
    RestoreVolumeInfo {
        pv_name: if volume.is_empty() { text(download, "/spec/targetVolume/pv") } else { volume },
        pvc_name: name,
        pvc_namespace: namespace,
        // The action that starts the download is one for CSI claims.
        restore_method: METHOD.to_owned(),
        snapshot_data_moved: true,
        snapshot_data_movement: Some(SnapshotDataMovementInfo {
            data_mover: if mover.is_empty() { VELERO_MOVER.to_owned() } else { mover },
            uploader_type: UPLOADER.to_owned(),
            snapshot_handle: text(download, "/spec/snapshotID"),
            operation_id: text(download, "/metadata/labels/velero.io~1async-operation-id"),
            ..SnapshotDataMovementInfo::default()
        }),
        ..RestoreVolumeInfo::default()
    }
}

/// The bytes of a Kubernetes quantity, rounded up; 0 for what is none.
fn bytes(quantity: &str) -> i64 {
    let split = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(split);
    let power = |base: i128, exponent: u32| base.checked_pow(exponent);
    let factor = match unit {
        "" => Some(1),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        _ => match unit.strip_prefix(['e', 'E']).and_then(|exponent| exponent.parse::<u32>().ok()) {
            Some(exponent) => power(10, exponent),
            None => None,
        },
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Nine digits of a fraction are more than a size has.
    let fraction = fraction.get(..9).unwrap_or(fraction);
    let scale = u32::try_from(fraction.len()).ok().and_then(|digits| 10_i128.checked_pow(digits));
    let value = format!("{whole}{fraction}").parse::<i128>().ok();
    let (Some(factor), Some(scale), Some(value)) = (factor, scale, value) else { return 0 };
    let product = value.checked_mul(factor).map(|product| product / scale + i128::from(product % scale != 0));
    product.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::engine::actions::testing::FakeCluster;

    fn claim(name: &str, spec: Value, phase: &str) -> Value {
        json!({"kind": "PersistentVolumeClaim", "spec": spec, "status": {"phase": phase},
            "metadata": {"name": name, "namespace": "app", "labels": {"velero.io/restore-name": "r"}}})
    }

    fn list(entries: &[&str]) -> BTreeMap<String, Vec<String>> {
        let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
        BTreeMap::from([("v1/PersistentVolumeClaim".to_owned(), entries)])
    }

    /// restore-semantics 9.3.
    #[tokio::test]
    async fn claims_from_snapshots_and_from_moved_data_are_told_and_others_are_not() {
        let source = json!({"kind": "VolumeSnapshot", "name": "shared"});
        let cluster = FakeCluster::new([
            claim("snapped", json!({"dataSource": source, "volumeName": "pv-1"}), "Bound"),
            claim("moved", json!({"volumeName": "pv-2"}), "Pending"),
            claim("plain", json!({}), "Bound"),
            claim("existed", json!({"dataSource": source}), "Bound"),
            json!({"kind": "VolumeSnapshot", "metadata": {"name": "shared", "namespace": "app", "annotations": {
                    "velero.io/csi-volumesnapshot-handle": "h", "velero.io/csi-driver-name": "d"}},
                "spec": {"source": {"volumeSnapshotContentName": "shared"}}, "status": {"restoreSize": "1Gi"}}),
            json!({"kind": "DataDownload", "metadata": {"name": "r-1", "namespace": "velero", "labels": {
                    "velero.io/restore-name": "r", "velero.io/async-operation-id": "dd-1"}},
                "spec": {"targetVolume": {"pvc": "moved", "pv": "", "namespace": "app"}, "snapshotID": "s1"}}),
        ]);
        let created =
            list(&["app/snapped(created)", "app/moved(created)", "app/plain(created)", "app/existed(failed)"]);
        let infos = collect(&*cluster, "velero", "r", &created).await;
        assert_eq!(
            serde_json::to_value(&infos).unwrap(),
            json!([
                {"pvcName": "snapped", "pvcNamespace": "app", "pvName": "pv-1", "restoreMethod": "CSISnapshot",
                    "snapshotDataMoved": false, "csiSnapshotInfo": {"snapshotHandle": "h", "size": 1_073_741_824,
                        "driver": "d", "vscName": "shared"}},
                {"pvcName": "moved", "pvcNamespace": "app", "restoreMethod": "CSISnapshot", "snapshotDataMoved": true,
                    "snapshotDataMovementInfo": {"dataMover": "velero", "uploaderType": "kopia", "snapshotHandle": "s1",
                        "operationID": "dd-1", "size": 0, "Phase": ""}},
            ])
        );
    }

    #[tokio::test]
    async fn a_restore_without_created_claims_asks_nothing() {
        let cluster = FakeCluster::new([]);
        assert_eq!(collect(&*cluster, "velero", "r", &list(&["app/data(skipped)"])).await, []);
        assert_eq!(collect(&*cluster, "velero", "r", &BTreeMap::new()).await, []);
        assert_eq!(cluster.requests(), [""; 0]);
    }

    #[test]
    fn sizes_are_read_in_all_units_that_kubernetes_writes() {
        for (text, size) in [
            ("0", 0),
            ("5", 5),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("2G", 2_000_000_000),
            ("1e3", 1000),
            ("100k", 100_000),
            ("", 0),
            ("x", 0),
            ("9Ei", i64::MAX),
            ("1.0000001k", 1001),
        ] {
            assert_eq!(bytes(text), size, "{text:?}");
        }
    }
}
