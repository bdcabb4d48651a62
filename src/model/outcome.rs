//! What became of an item, and why.

use serde::{Deserialize, Serialize};

/// What was done with one item. `pending` until it is known; the six sum up to the total at every moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Planned, or being worked on.
    Pending,
    /// Created in the cluster.
    Created,
    /// Existed and was changed (policy `update`, or a ServiceAccount merge).
    Updated,
    /// Existed and is equal to the backed-up version.
    Unchanged,
    /// Left out on purpose; the reason says why.
    Skipped,
    /// Not restored, or it exists and differs; the reason says why.
    Failed,
}

impl Outcome {
    /// All outcomes, in the order they are shown.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Created, Self::Updated, Self::Unchanged, Self::Skipped, Self::Failed];

    /// The lower-case name, as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }

    /// The action that Velero's resource list records (restore-semantics 6.4): it has no `unchanged`.
    #[must_use]
    pub const fn velero_action(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged | Self::Skipped => "skipped",
            Self::Failed | Self::Pending => "failed",
        }
    }
}

/// Why an item failed or was skipped: a closed set, so that clients branch on it and metrics label with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It exists already and differs from the backed-up version.
    Conflict,
    /// The API server forbids it to us (RBAC).
    Forbidden,
    /// An admission webhook or policy refused it.
    DeniedByAdmission,
    /// A ResourceQuota or LimitRange refused it.
    Quota,
    /// The API server finds the object invalid.
    Invalid,
    /// No answer in time, or a wait that ran out.
    Timeout,
    /// The API server was not reached, or answered with a server error.
    Unavailable,
    /// Something needed was not there.
    NotFound,
    /// The API server does not serve this kind.
    Discovery,
    /// An item action refused or failed.
    ItemAction,
    /// A resource modifier failed.
    ResourceModifier,
    /// The entry in the backup cannot be read.
    Archive,
    /// Its namespace could not be ensured.
    Namespace,
    /// A volume needs something that is not to be had.
    Volume,
    /// Skipped: a pod or job that had completed.
    Completed,
    /// Skipped: a mirror pod, recreated by its kubelet.
    MirrorPod,
    /// Skipped: the volume will be provisioned dynamically.
    DynamicVolume,
    /// Skipped by an item action.
    SkippedByAction,
    /// The restore was cancelled or ended before it was tried.
    Cancelled,
    /// None of the above; the message says more.
    Other,
}

impl Reason {
    /// The kebab-case name, as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::DeniedByAdmission => "denied-by-admission",
            Self::Quota => "quota",
            Self::Invalid => "invalid",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not-found",
            Self::Discovery => "discovery",
            Self::ItemAction => "item-action",
            Self::ResourceModifier => "resource-modifier",
            Self::Archive => "archive",
            Self::Namespace => "namespace",
            Self::Volume => "volume",
            Self::Completed => "completed",
            Self::MirrorPod => "mirror-pod",
            Self::DynamicVolume => "dynamic-volume",
            Self::SkippedByAction => "skipped-by-action",
            Self::Cancelled => "cancelled",
            Self::Other => "other",
        }
    }
}
