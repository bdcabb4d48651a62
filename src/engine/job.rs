//! What one run of the engine is given.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::collect::Priorities;
use super::modifiers::Modifiers;
use super::pod_volume_backups::PodVolumeBackups;
use super::versions::{self, VersionPolicy};
use crate::model::RestoreSpec;

/// One restore, as the engine takes it.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Name of the Restore.
    pub restore_name: String,
    /// UID of the Restore.
    pub restore_uid: String,
    /// The namespace Velero's own objects live in.
    pub velero_namespace: String,
    /// Name of the backup.
    pub backup_name: String,
    /// `spec.storageLocation` of the backup.
    pub backup_storage_location: String,
    /// `spec.snapshotMoveData` of the backup.
    pub snapshot_move_data: bool,
    /// How moved data is brought back; absent where nobody would wait for it once the items are restored.
    pub data_mover: Option<DataMover>,
    /// The checked specification.
    pub spec: RestoreSpec,
    /// How the backup kept its volumes.
    pub volumes: BackupVolumes,
    /// How the data of pod volumes is restored; `None` where nobody could, as there is no Restore object to own it.
    pub pod_volumes: Option<PodVolumeOptions>,
    /// Patches to apply to items before they are created.
    pub modifiers: Option<Arc<Modifiers>>,
    /// How API versions are chosen; `None` where they are not.
    pub versions: Option<VersionPolicy>,
    /// Limits and waits.
    pub settings: Settings,
}

impl Job {
    /// Whether the feature `EnableAPIGroupVersions` is on.
    #[must_use]
    pub fn api_group_versions(&self) -> bool {
        self.settings.features.contains(versions::FEATURE)
    }

    /// Whether the feature `EnableCSI` is on.
    #[must_use]
    pub fn csi(&self) -> bool {
        self.settings.features.contains("EnableCSI")
    }
}

/// How data that was moved into the backup storage is brought back (restore-semantics 7.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataMover {
    /// Time given to each DataDownload: `spec.csiSnapshotTimeout` of the backup, a Go duration.
    pub operation_timeout: String,
    /// Settings of the data mover, from `spec.uploaderConfig` of the Restore.
    pub config: BTreeMap<String, String>,
}

/// How the data of pod volumes is restored (restore-semantics 5.13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodVolumeOptions {
    /// How long all of them together may take, counted from the start of the engine.
    pub timeout: Duration,
    /// `uploaderSettings` of each PodVolumeRestore.
    pub uploader_settings: BTreeMap<String, String>,
}

/// Limits and waits of a run (restore-semantics 1.10).
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many items are worked on at once within a tier.
    pub concurrency: usize,
    /// How long to wait for a namespace or volume that is being deleted.
    pub terminating_resource_timeout: Duration,
    /// How long to wait for a CustomResourceDefinition to be served.
    pub resource_timeout: Duration,
    /// How long the pod volumes of a restore may take, where the Restore does not say.
    pub pod_volume_timeout: Duration,
    /// The order of resources.
    pub priorities: Priorities,
    /// Feature flags, such as `EnableCSI`.
    pub features: BTreeSet<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Measured on two cores: a bare loop of POSTs is fastest with 8 in flight;
            // each item has one to three requests in sequence, so twice as many items keep 8 requests under way.
            concurrency: 16,
            terminating_resource_timeout: Duration::from_secs(600),
            resource_timeout: Duration::from_secs(600),
            pod_volume_timeout: Duration::from_secs(4 * 3600),
            priorities: Priorities::default(),
            features: BTreeSet::new(),
        }
    }
}

/// How the backup kept a volume (restore-semantics 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackupMethod {
    /// A snapshot by a volume snapshotter plugin.
    NativeSnapshot,
    /// A file system backup.
    PodVolumeBackup,
    /// A CSI snapshot.
    CsiSnapshot,
    /// None: the volume was skipped, or the method is unknown.
    None,
}

/// A snapshot made by a volume snapshotter plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeSnapshot {
    /// Name of the VolumeSnapshotLocation.
    pub location: String,
    /// The provider's name of the snapshot.
    pub snapshot_id: String,
}

/// What the backup tells of its volumes.
#[derive(Clone, Debug, Default)]
pub struct BackupVolumes {
    /// By name of the PersistentVolume, from the volume-info file.
    pub methods: HashMap<String, BackupMethod>,
    /// By name of the PersistentVolume, from the volume-snapshots file.
    pub native_snapshots: HashMap<String, NativeSnapshot>,
    /// Claims (source namespace, name) that have a pod volume backup.
    pub pod_volume_claims: HashSet<(String, String)>,
    /// Claims (source namespace, name) that have a CSI snapshot listed.
    pub csi_claims: HashSet<(String, String)>,
    /// The pod volumes that were backed up by their files.
    pub pod_volume_backups: PodVolumeBackups,
}
