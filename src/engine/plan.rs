//! What a restore will do: pure data, the same for the same input; counts and keys, not manifests.

use std::sync::Arc;

use crate::archive::EntryId;
use crate::model::{Finding, GroupResource, Reason, Stage};

/// The outcome of phase 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is restored, tier by tier; a tier begins when the one before it has ended.
    pub tiers: Vec<Tier>,
    /// Namespaces that are ensured, each target once, in the order in which Velero comes to them.
    pub namespaces: Vec<PlannedNamespace>,
    /// Items of the backup that the filters take and that are nevertheless left out, with the reason.
    pub left_out: Vec<LeftOut>,
    /// Warnings and errors met while planning.
    pub findings: Vec<(Finding, Reason)>,
    /// Whether a finding ended the planning: nothing is restored then, and the restore ends `PartiallyFailed`.
    pub aborted: bool,
}

/// A namespace that items need, which is created unless it is there (restore-semantics 5.1, 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedNamespace {
    /// Name in the backup, whose Namespace gives labels, annotations and spec.
    pub source: Arc<str>,
    /// Name in the cluster.
    pub target: Arc<str>,
}

/// All collected items of one group-resource, never none.
///
/// The items of `namespaces` are ensured, not created as items: their name is the source namespace, their target namespace
/// the one to ensure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The group-resource.
    pub group_resource: GroupResource,
    /// The stage it belongs to: CustomResourceDefinitions, or items.
    pub stage: Stage,
    /// The items: by namespace, byte by byte, then in the order of the backup's listing.
    pub items: Vec<PlannedItem>,
}

/// One item that will be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedItem {
    /// Where it is in the archive.
    pub entry: EntryId,
    /// Namespace in the backup; empty for a cluster-scoped item.
    pub source_namespace: Arc<str>,
    /// Namespace it goes to; empty for a cluster-scoped item.
    pub target_namespace: Arc<str>,
    /// Name of the item in the backup.
    pub name: Arc<str>,
    /// `apiVersion` of the object.
    pub api_version: Arc<str>,
    /// `kind` of the object.
    pub kind: Arc<str>,
}

/// An item that was collected and is not restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The group-resource.
    pub group_resource: GroupResource,
    /// The item; `kind` and `api_version` are empty when it cannot be read.
    pub item: PlannedItem,
    /// Why.
    pub reason: Reason,
    /// More about it; the error text of an item that cannot be read.
    pub message: String,
}

impl Plan {
    /// How many items will be restored.
    #[must_use]
    pub fn total(&self) -> usize {
        self.tiers.iter().map(|tier| tier.items.len()).sum()
    }
}
