//! PersistentVolumes: restored as they are, provisioned anew, or refused (restore-semantics 5.4 and 5.6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use serde_json::{Value, json};

use super::Run;
use super::item::Item;
use crate::engine::actions::Error;
use crate::engine::actions::{data_mover, fields};
use crate::engine::job::BackupMethod;
use crate::engine::ports::{ApiError, Change};
use crate::engine::retry::{Attempts, Backoff, patiently, retrying};
use crate::engine::strip;
use crate::model::{Target, Waiting, label};

/// Annotation with the name that a renamed volume has in the backup.
const ORIGINAL_NAME: &str = "velero.io/original-pv-name";

/// The pause before looking again where a watch ended, which it does on shutdown alone.
const WATCH_ENDED_PAUSE: Duration = Duration::from_secs(1);

/// What is known of the volumes of this run.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// PersistentVolumes that will be provisioned dynamically: their claims must not name them.
    to_provision: Mutex<BTreeSet<String>>,
    /// PersistentVolumes that were given a new name, and which: their claims follow.
    renamed: Mutex<BTreeMap<String, String>>,
}

impl Volumes {
    fn provision(&self, volume: &str) {
        self.to_provision.lock().unwrap_or_else(PoisonError::into_inner).insert(volume.to_owned());
    }

    fn rename(&self, volume: &str, name: &str) {
        self.renamed.lock().unwrap_or_else(PoisonError::into_inner).insert(volume.to_owned(), name.to_owned());
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
        let method = match self.method_of(&name, volume) {
            // Restored without volume info: the last thing that can tell of data is the result of a DataUpload.
            Method::AsIs if !self.job.volumes.methods.contains_key(&name) && self.has_upload_result(volume).await => {
                Method::Dynamic
            }
            method => method,
        };
        match method {
            Method::Dynamic => {
                self.volumes.provision(&name);
                Ok(VolumeDecision::ProvisionDynamically)
            }
            Method::AsIs => {
                let mapped = strip::map_claim_namespace(volume, &self.job.spec.namespace_mapping);
                let untied = mapped.and_then(|()| strip::reset_binding(volume));
                untied.map(|()| VolumeDecision::Restore).map_err(|error| error.to_string())
            }
            Method::Native => self.decide_native(item, &name, volume).await.map(|()| VolumeDecision::Restore),
        }
    }

    /// A volume with a native snapshot (restore-semantics 5.4.1). What a plugin would do is an error; all around it is
    /// done here.
    async fn decide_native(&self, item: &Item, name: &str, volume: &mut Value) -> Result<(), String> {
        let mapping = &self.job.spec.namespace_mapping;
        let renames = claim_is_mapped(volume, mapping) && {
            let live = self.live("persistentvolumes", "", name).await;
            let live = live.map_err(|error| format!("error looking for persistentvolume {name}: {error}"))?;
            // What this very restore made before it was interrupted is no namesake to step aside for.
            live.is_some_and(|live| !self.is_ours(&live))
        };
        strip::map_claim_namespace(volume, mapping).map_err(|error| error.to_string())?;
        let restores = renames || {
            let free = self.wait_for_namesake(name).await;
            free.map_err(|message| format!("error waiting on in-cluster persistentvolume {name}: {message}"))?
        };
        if restores {
            strip::reset_binding(volume).map_err(|error| error.to_string())?;
            self.refuse_native_snapshot(item, name).await?;
        }
        if renames {
            let new = match self.renamed_earlier(name).await? {
                Some(earlier) => earlier,
                None => format!("velero-clone-{}", uuid::Uuid::new_v4()),
            };
            rename(volume, name, &new).map_err(|error| error.to_string())?;
            self.volumes.rename(name, &new);
            self.info(format!("{}: renamed to {new}, as a volume of that name is in the cluster", item.display(name)));
        }
        Ok(())
    }

    /// The name that this restore gave the volume before it was interrupted: a second copy would point at the same data.
    async fn renamed_earlier(&self, name: &str) -> Result<Option<String>, String> {
        let volumes = Target::new("", "v1", "persistentvolumes", "");
        let selector = format!("{}={}", label::RESTORE_NAME, label::valid_name(&self.job.restore_name));
        let mut attempts = Attempts::default();
        let found = retrying(Backoff::default(), &mut attempts, || self.cluster.list(&volumes, &selector)).await;
        let found = found.map_err(|error| format!("error looking for a renamed persistentvolume {name}: {error}"))?;
        Ok(found.iter().find_map(|volume| {
            let is_it = fields::annotation(volume, ORIGINAL_NAME).is_ok_and(|original| original == Some(name));
            is_it.then(|| fields::name(volume).ok()).flatten().map(str::to_owned)
        }))
    }

    /// Waits until it is clear whether the cluster's volume of this name goes (`true`, also when there is none) or stays
    /// (restore-semantics 5.4.1 step 3).
    async fn wait_for_namesake(&self, name: &str) -> Result<bool, String> {
        let settled = async {
            let mut announced = None;
            let mut watched: Option<(Option<Claim>, SelectAll<_>)> = None;
            loop {
                let claim = match self.look_at_namesake(name).await.map_err(|error| error.to_string())? {
                    Namesake::Goes => return Ok(true),
                    Namesake::Stays => return Ok(false),
                    Namesake::Going(claim) => claim,
                };
                announced.get_or_insert_with(|| {
                    self.announce_wait(Waiting {
                        object: format!("persistentvolume {name}"),
                        request: "wait until it is gone or bound".to_owned(),
                        reason: Some("it, its claim or its claim's namespace is being deleted".to_owned()),
                    })
                });
                // A watch begins with what is there now, so nothing that happened since the look is missed.
                if watched.as_ref().is_none_or(|(of, _)| *of != claim) {
                    let mut watches = vec![self.watch("persistentvolumes", "", name)];
                    if let Some(Claim { namespace, name }) = &claim {
                        watches.push(self.watch("namespaces", "", namespace));
                        watches.push(self.watch("persistentvolumeclaims", namespace, name));
                    }
                    watched = Some((claim, select_all(watches)));
                }
                let Some((_, changes)) = &mut watched else { continue };
                match changes.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => self.debug(format!("watching persistentvolume {name}: {error}")),
                    None => tokio::time::sleep(WATCH_ENDED_PAUSE).await,
                }
            }
        };
        let patience = self.job.settings.terminating_resource_timeout;
        tokio::time::timeout(patience, settled).await.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
    }

    async fn look_at_namesake(&self, name: &str) -> Result<Namesake, ApiError> {
        let live = self.live("persistentvolumes", "", name).await?;
        if live.as_ref().is_some_and(|live| self.is_ours(live)) {
            return Ok(Namesake::Stays);
        }
        let claim = match settle(live.as_ref()) {
            Look::Settled(namesake) => return Ok(namesake),
            Look::AtClaim(claim) => claim,
        };
        let goes = is_going(self.live("namespaces", "", &claim.namespace).await?.as_ref())
            || is_going(self.live("persistentvolumeclaims", &claim.namespace, &claim.name).await?.as_ref());
        Ok(if goes { Namesake::Going(Some(claim)) } else { Namesake::Stays })
    }

    async fn live(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        let target = Target::new("", "v1", resource, namespace);
        retrying(Backoff::default(), &mut Attempts::default(), || self.cluster.get(&target, name)).await
    }

    fn watch(&self, resource: &str, namespace: &str, name: &str) -> BoxStream<'_, Result<Change, ApiError>> {
        self.cluster.watch(&Target::new("", "v1", resource, namespace), Some(name))
    }

    /// Making a volume of a snapshot takes a plugin.
    async fn refuse_native_snapshot(&self, item: &Item, name: &str) -> Result<(), String> {
        let snapshot = self.job.volumes.native_snapshots.get(name);
        let (true, Some(snapshot)) = (self.job.spec.restores_volumes(), snapshot) else { return Ok(()) };
        let what = format!("error executing PVAction for {}", item.display(name));
        let locations = Target::new("velero.io", "v1", "volumesnapshotlocations", &self.job.velero_namespace);
        match patiently(|| self.cluster.get(&locations, &snapshot.location)).await {
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

    /// Whether exactly one DataUpload of this restore has data for the volume's claim (restore-semantics 5.4, last
    /// paragraph). A failure to find out counts as no.
    async fn has_upload_result(&self, volume: &Value) -> bool {
        let claim = |key: &str| volume.pointer(&format!("/spec/claimRef/{key}")).and_then(Value::as_str);
        let Some((namespace, name)) = claim("namespace").zip(claim("name")) else { return false };
        if self.archive.group_resources().all(|group_resource| *group_resource != "datauploads.velero.io") {
            return false;
        }
        let config_maps = Target::new("", "v1", "configmaps", &self.job.velero_namespace);
        let selector = data_mover::result_selector(&self.job.restore_uid, namespace, name);
        let list = || self.cluster.list(&config_maps, &selector);
        match retrying(Backoff::default(), &mut Attempts::default(), list).await {
            Ok(found) => found.len() == 1,
            Err(error) => {
                self.info(format!("persistentvolumes: the results of data uploads cannot be listed: {error}"));
                false
            }
        }
    }

    /// A claim that named its volume is bound anew; one whose volume is provisioned dynamically names none.
    pub(super) fn fix_claim(&self, claim: &mut Value) -> Result<(), Error> {
        let to_provision = self.volumes.to_provision.lock().unwrap_or_else(PoisonError::into_inner);
        let renamed = self.volumes.renamed.lock().unwrap_or_else(PoisonError::into_inner);
        strip::fix_claim(claim, &to_provision, &renamed)
    }
}

enum Method {
    Native,
    Dynamic,
    AsIs,
}

/// The claim that a volume is bound to, or meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    namespace: String,
    name: String,
}

/// What a volume of the cluster means for the one of this name that is to be restored.
#[derive(Debug, PartialEq, Eq)]
enum Namesake {
    /// There is none (any more).
    Goes,
    /// It is going, or what it is bound to is: the claim that was looked at.
    Going(Option<Claim>),
    /// It is in use, or nobody's.
    Stays,
}

/// What the volume alone tells.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Settled(Namesake),
    /// It depends on the claim and its namespace.
    AtClaim(Claim),
}

fn settle(live: Option<&Value>) -> Look {
    let Some(live) = live else { return Look::Settled(Namesake::Goes) };
    let released = live.pointer("/status/phase").and_then(Value::as_str) == Some("Released");
    if released || is_going(Some(live)) {
        return Look::Settled(Namesake::Going(None));
    }
    let text = |key: &str| live.pointer(&format!("/spec/claimRef/{key}")).and_then(Value::as_str);
    match text("namespace").zip(text("name")) {
        Some((namespace, name)) => Look::AtClaim(Claim { namespace: namespace.to_owned(), name: name.to_owned() }),
        None => Look::Settled(Namesake::Stays),
    }
}

/// The object is missing, or on its way out.
fn is_going(live: Option<&Value>) -> bool {
    live.is_none_or(|live| {
        live.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
            || live.pointer("/status/phase").and_then(Value::as_str) == Some("Terminating")
    })
}

/// Whether the namespace mapping moves the claim of this volume.
fn claim_is_mapped(volume: &Value, mapping: &BTreeMap<String, String>) -> bool {
    let namespace = volume.pointer("/spec/claimRef/namespace").and_then(Value::as_str);
    namespace.is_some_and(|namespace| mapping.contains_key(namespace))
}

/// Gives a volume a new name, and keeps the old one as an annotation.
fn rename(volume: &mut Value, old: &str, new: &str) -> Result<(), Error> {
    fields::set(volume, "metadata.name", json!(new))?;
    fields::ensure(volume, Some("metadata.annotations"))?.insert(ORIGINAL_NAME.to_owned(), json!(old));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn volume(spec: Value, phase: &str) -> Value {
        json!({"metadata": {"name": "pv"}, "spec": spec, "status": {"phase": phase}})
    }

    /// restore-semantics 5.4.1 step 3
    #[test]
    fn a_volume_in_the_cluster_is_waited_for_as_5_4_1_step_3_says() {
        let bound = json!({"claimRef": {"namespace": "app", "name": "data"}});
        assert_eq!(settle(None), Look::Settled(Namesake::Goes));
        assert_eq!(settle(Some(&volume(bound.clone(), "Released"))), Look::Settled(Namesake::Going(None)));
        let mut deleted = volume(json!({}), "Available");
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(settle(Some(&deleted)), Look::Settled(Namesake::Going(None)));
        assert_eq!(settle(Some(&volume(json!({}), "Available"))), Look::Settled(Namesake::Stays));
        let claim = Claim { namespace: "app".to_owned(), name: "data".to_owned() };
        assert_eq!(settle(Some(&volume(bound, "Bound"))), Look::AtClaim(claim));
    }

    /// restore-semantics 5.4.1 step 3
    #[test]
    fn what_a_volume_is_bound_to_goes_when_it_is_missing_deleted_or_terminating() {
        assert!(is_going(None));
        assert!(is_going(Some(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))));
        assert!(is_going(Some(&json!({"metadata": {}, "status": {"phase": "Terminating"}}))));
        assert!(!is_going(Some(&json!({"metadata": {"deletionTimestamp": null}, "status": {"phase": "Bound"}}))));
    }

    /// restore-semantics 5.4.1 step 1
    #[test]
    fn only_a_volume_whose_claim_moves_is_a_candidate_for_a_new_name() {
        let mapping = BTreeMap::from([("app".to_owned(), "dst".to_owned())]);
        let of = |namespace: &str| json!({"spec": {"claimRef": {"namespace": namespace, "name": "data"}}});
        assert!(claim_is_mapped(&of("app"), &mapping));
        assert!(!claim_is_mapped(&of("other"), &mapping));
        assert!(!claim_is_mapped(&of("app"), &BTreeMap::new()));
        assert!(!claim_is_mapped(&json!({"spec": {}}), &mapping));
    }

    /// restore-semantics 5.4.1 step 5
    #[test]
    fn a_renamed_volume_tells_its_old_name() {
        let mut volume = json!({"metadata": {"name": "old", "annotations": null}});
        rename(&mut volume, "old", "velero-clone-1").unwrap();
        let annotations = json!({"velero.io/original-pv-name": "old"});
        assert_eq!(volume, json!({"metadata": {"name": "velero-clone-1", "annotations": annotations}}));
    }
}
