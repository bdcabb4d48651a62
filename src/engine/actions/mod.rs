//! Velero's built-in restore item actions, native (restore-semantics 5.5 and 7): from an item to an item, with
//! additional items.
//!
//! [`BUILT_IN`] lists them all in Velero's order. Most are pure functions; the few that need the cluster get it
//! through [`Lookup`], which reads plugin configuration once per restore and remembers what does not change.
//!
//! Velero converts many kinds to a Go type and back, which drops what that type does not know. The API server does
//! the same on create, so here every action edits the JSON in place: only what the rule names changes, and a field
//! of a wrong type that the rule touches is an error that names the field. What remains of the conversion is
//! [`leaves_status_stub`].
//!
//! Moving volume data goes on after the item is restored ([`Output::operation_id`], [`DataDownloads`]). A run that nobody
//! follows to that end refuses such a claim ([`Error::NoDataMover`]), as restoring it would silently give an empty volume.

mod admission;
mod claim;
mod config;
mod crd;
mod csi;
pub(crate) mod data_mover;
mod data_upload;
mod ensure;
mod error;
pub(crate) mod fields;
mod group_snapshot;
mod image;
mod init_hook;
mod job;
mod pod;
mod pod_volume;
mod rbac;
mod secret;
mod service;
mod service_ports;
mod storage_class;
mod table;

#[cfg(test)]
pub(crate) mod testing;

pub use config::{Lookup, PluginConfig};
pub use data_mover::DataDownloads;
pub use error::{ActionError, Error};
pub(crate) use pod_volume::RESTORE_WAIT;
pub use table::{BUILT_IN, applicable, leaves_status_stub};

use futures::future::BoxFuture;
use serde_json::Value;

use crate::engine::job::DataMover;
use crate::engine::pod_volume_backups::PodVolumeBackups;
use crate::model::{GroupResource, RestoreSpec};

/// What stands around the item: the restore, and what its actions may ask for.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The specification of the restore.
    pub spec: &'a RestoreSpec,
    /// Name of the Restore.
    pub restore_name: &'a str,
    /// UID of the Restore.
    pub restore_uid: &'a str,
    /// Namespace that Velero's own objects live in.
    pub velero_namespace: &'a str,
    /// Name of the backup.
    pub backup_name: &'a str,
    /// `spec.storageLocation` of the backup; empty where it is not known.
    pub backup_storage_location: &'a str,
    /// `spec.snapshotMoveData` of the backup.
    pub snapshot_move_data: bool,
    /// How moved data is brought back; absent where nobody would wait for it.
    pub data_mover: Option<&'a DataMover>,
    /// Whether the feature `EnableCSI` is on.
    pub csi: bool,
    /// The backup's pod volumes (restore-semantics 5.13); `None` where nobody restores their data.
    pub pod_volume_backups: Option<&'a PodVolumeBackups>,
    /// What some actions need from outside.
    pub lookup: &'a Lookup,
}

/// What an action works on.
pub struct Input<'a> {
    /// The item as it is now: stripped, and edited by the actions before this one.
    pub item: Value,
    /// The item as it is in the backup.
    pub item_from_backup: &'a Value,
    /// What stands around it.
    pub context: &'a Context<'a>,
}

/// An item that is restored along with another, before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemIdentifier {
    /// Its group-resource.
    pub group_resource: GroupResource,
    /// Its namespace in the backup; empty for a cluster-scoped item.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ItemIdentifier {
    /// Names an item.
    #[must_use]
    pub fn new(group_resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            group_resource: GroupResource::parse(group_resource),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// What an action made of an item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// The item, changed or not.
    pub item: Value,
    /// Items to restore before it.
    pub additional_items: Vec<ItemIdentifier>,
    /// Whether the item is left out; its additional items are then ignored.
    pub skip: bool,
    /// Identifies an asynchronous operation that the action started.
    pub operation_id: Option<String>,
    /// Lines for the restore's log: what the action let pass although somebody may want to know.
    pub notes: Vec<String>,
}

impl Output {
    /// The item alone.
    #[must_use]
    pub fn of(item: Value) -> Self {
        Self { item, ..Self::default() }
    }

    /// The item is left out.
    #[must_use]
    pub fn skip(item: Value) -> Self {
        Self { item, skip: true, ..Self::default() }
    }
}

/// How an action runs.
#[derive(Clone, Copy)]
pub enum Run {
    /// It needs nothing but its input.
    Pure(fn(Input<'_>) -> Result<Output, Error>),
    /// It asks the cluster.
    Cluster(for<'a> fn(Input<'a>) -> BoxFuture<'a, Result<Output, Error>>),
}

/// One restore item action.
#[derive(Clone, Copy)]
pub struct Action {
    /// Velero's name of it, such as `velero.io/pod`.
    pub name: &'static str,
    /// The group-resources it takes, in full form.
    pub applies_to: &'static [&'static str],
    /// A label key that the item must have, whatever its value.
    pub label_key: Option<&'static str>,
    /// Whether it runs only with the feature `EnableCSI`.
    pub needs_csi: bool,
    /// What it does.
    pub run: Run,
}

impl Action {
    /// Whether the action takes items of this group-resource, with the feature `EnableCSI` on or off.
    #[must_use]
    pub fn takes(&self, group_resource: &GroupResource, csi: bool) -> bool {
        (csi || !self.needs_csi) && self.applies_to.contains(&group_resource.as_str())
    }

    /// Whether the item's current labels match (restore-semantics 5.5 step 1).
    #[must_use]
    pub fn selects(&self, item: &Value) -> bool {
        self.label_key.is_none_or(|key| item["metadata"]["labels"].get(key).is_some())
    }

    /// Runs the action.
    ///
    /// # Errors
    ///
    /// The item must not be created then (restore-semantics 5.5 step 3).
    pub async fn execute(&self, input: Input<'_>) -> Result<Output, Error> {
        match self.run {
            Run::Pure(run) => run(input),
            Run::Cluster(run) => run(input).await,
        }
    }
}
