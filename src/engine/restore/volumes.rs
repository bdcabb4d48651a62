//! PersistentVolumes: restored as they are, provisioned anew, or refused (restore-semantics 5.4 and 5.6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::Run;
use super::item::Item;
use crate::engine::actions::Error;
use crate::engine::job::BackupMethod;
use crate::engine::strip;
use crate::model::Target;

/// What is known of the volumes of this run.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// PersistentVolumes that will be provisioned dynamically: their claims must not name them.
    to_provision: Mutex<BTreeSet<String>>,
}

impl Volumes {
    fn provision(&self, volume: &str) {
        self.to_provision.lock().unwrap_or_else(PoisonError::into_inner).insert(volume.to_owned());
    }
}

/// What happens to a PersistentVolume.
pub(super) enum VolumeDecision {
    /// It is created as it stands in the backup, its binding reset.
    Restore,
    /// It is left out: the claim gets a new one.
    ProvisionDynamically,
}

impl Run {
    /// Decides by the backup's volume info, or by what an older backup has in its place.
    ///
    /// # Errors
    /// The message of an error that keeps the volume from being restored.
    pub(super) async fn decide_volume(&self, item: &Item, volume: &mut Value) -> Result<VolumeDecision, String> {
        let name = item.key.name.to_string();
        match self.method_of(&name, volume) {
            Method::Dynamic => {
                self.volumes.provision(&name);
                Ok(VolumeDecision::ProvisionDynamically)
            }
            Method::AsIs => {
                let mapped = strip::map_claim_namespace(volume, &self.job.spec.namespace_mapping);
                let untied = mapped.and_then(|()| strip::reset_binding(volume));
                untied.map(|()| VolumeDecision::Restore).map_err(|error| error.to_string())
            }
            Method::Native => {
                self.refuse_native_snapshot(item, &name).await?;
                let untied = strip::reset_binding(volume);
                untied.map(|()| VolumeDecision::Restore).map_err(|error| error.to_string())
            }
        }
    }

    /// The live object is what a native snapshot is restored to; making a volume of it takes a plugin.
    async fn refuse_native_snapshot(&self, item: &Item, name: &str) -> Result<(), String> {
        let snapshot = self.job.volumes.native_snapshots.get(name);
        let (true, Some(snapshot)) = (self.job.spec.restores_volumes(), snapshot) else { return Ok(()) };
        let what = format!("error executing PVAction for {}", item.display(name));
        let locations = Target::new("velero.io", "v1", "volumesnapshotlocations", &self.job.velero_namespace);
        match self.cluster.get(&locations, &snapshot.location).await {
            Ok(Some(_)) => Err(format!(
                "{what}: snapshot {:?} in VolumeSnapshotLocation {:?} needs a volume snapshotter plugin, which Reprise \
                 does not host yet; restore this volume with Velero, or set restorePVs to false",
                snapshot.snapshot_id, snapshot.location
            )),
            Ok(None) => Err(format!("{what}: VolumeSnapshotLocation.velero.io {:?} not found", snapshot.location)),
            Err(error) => Err(format!("{what}: {error}")),
        }
    }

    fn method_of(&self, name: &str, volume: &Value) -> Method {
        let volumes = &self.job.volumes;
        let deletes = volume.pointer("/spec/persistentVolumeReclaimPolicy").and_then(Value::as_str) == Some("Delete");
        match volumes.methods.get(name) {
            Some(BackupMethod::NativeSnapshot) => return Method::Native,
            Some(BackupMethod::PodVolumeBackup | BackupMethod::CsiSnapshot) => return Method::Dynamic,
            Some(BackupMethod::None) => return if deletes { Method::Dynamic } else { Method::AsIs },
            None => {}
        }
        // A backup of a Velero that wrote no volume info.
        let claim = |key: &str| volume.pointer(&format!("/spec/claimRef/{key}")).and_then(Value::as_str);
        let claim =
            claim("namespace").zip(claim("name")).map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let has_data = claim
            .is_some_and(|claim| volumes.pod_volume_claims.contains(&claim) || volumes.csi_claims.contains(&claim));
        if volumes.native_snapshots.contains_key(name) {
            Method::Native
        } else if has_data || deletes {
            Method::Dynamic
        } else {
            Method::AsIs
        }
    }

    /// A claim that named its volume is bound anew; one whose volume is provisioned dynamically names none.
    pub(super) fn fix_claim(&self, claim: &mut Value) -> Result<(), Error> {
        let to_provision = self.volumes.to_provision.lock().unwrap_or_else(PoisonError::into_inner);
        strip::fix_claim(claim, &to_provision, &BTreeMap::new())
    }
}

enum Method {
    Native,
    Dynamic,
    AsIs,
}
