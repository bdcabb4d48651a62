//! The progress of one restore, as all doors show it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Bucket, GroupResource, ItemKey, Outcome, Phase, Reason};

/// Where a restore stands; stages only move forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Accepted; others go first.
    #[default]
    Queued,
    /// Phase 1: reading the backup and planning.
    Collecting,
    /// Restoring CustomResourceDefinitions and waiting until they are served.
    CustomResourceDefinitions,
    /// Phase 2: restoring items.
    Items,
    /// Waiting for volume data.
    Volumes,
    /// Waiting for asynchronous operations of plugins.
    PluginOperations,
    /// Waiting for exec hooks.
    Hooks,
    /// Writing files, patching volumes, wrapping up.
    Finalizing,
    /// Over, in a terminal phase.
    Done,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Collecting,
        Self::CustomResourceDefinitions,
        Self::Items,
        Self::Volumes,
        Self::PluginOperations,
        Self::Hooks,
        Self::Finalizing,
        Self::Done,
    ];

    /// The kebab-case name, as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Collecting => "collecting",
            Self::CustomResourceDefinitions => "custom-resource-definitions",
            Self::Items => "items",
            Self::Volumes => "volumes",
            Self::PluginOperations => "plugin-operations",
            Self::Hooks => "hooks",
            Self::Finalizing => "finalizing",
            Self::Done => "done",
        }
    }
}

/// How many items have which outcome. The sum is the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Not decided yet.
    pub pending: u64,
    /// Created.
    pub created: u64,
    /// Existed and changed.
    pub updated: u64,
    /// Existed and equal.
    pub unchanged: u64,
    /// Left out on purpose.
    pub skipped: u64,
    /// Not restored, or conflicting.
    pub failed: u64,
}

impl Counts {
    /// All items.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.pending + self.done()
    }

    /// Items whose outcome is known.
    #[must_use]
    pub const fn done(&self) -> u64 {
        self.created + self.updated + self.unchanged + self.skipped + self.failed
    }

    /// The count of one outcome.
    #[must_use]
    pub const fn get(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Pending => self.pending,
            Outcome::Created => self.created,
            Outcome::Updated => self.updated,
            Outcome::Unchanged => self.unchanged,
            Outcome::Skipped => self.skipped,
            Outcome::Failed => self.failed,
        }
    }

    /// The count of one outcome, to change it.
    pub const fn get_mut(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Pending => &mut self.pending,
            Outcome::Created => &mut self.created,
            Outcome::Updated => &mut self.updated,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Failed => &mut self.failed,
        }
    }
}

/// Time left, as a range: absent rather than wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeLeft {
    /// At least, in seconds.
    pub low_seconds: u64,
    /// At most, in seconds.
    pub high_seconds: u64,
}

/// What is being waited for when nothing moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The object, such as `namespace shop` or `v1/Pod shop/web-0`.
    pub object: String,
    /// What is asked of it, such as `create` or `wait until it is gone`.
    pub request: String,
    /// Why it takes so long, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The value of one restore's progress at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Number of the last item event: grows by one with each item whose outcome becomes known. A client resumes
    /// after the last one it saw.
    pub sequence: u64,
    /// Phase of the Restore.
    pub phase: Phase,
    /// Stage within the run.
    pub stage: Stage,
    /// `status.progress.totalItems` of the Restore: items restored plus those still to be visited, and those that
    /// were passed over until the engine's run is over; from then on the same as `items_restored`.
    pub total_items: u64,
    /// `status.progress.itemsRestored` of the Restore: items in Velero's map of restored items, failed and skipped
    /// ones too, but not completed pods and the like (restore-semantics 6.1).
    pub items_restored: u64,
    /// Counts by outcome; they sum to all items that are known of. All zero where nobody knows them, see
    /// [`Self::outcomes_known`].
    pub outcomes: Counts,
    /// Of these, how many joined after planning: additional items and namespaces created on demand.
    pub added: u64,
    /// Counts by stage: of items (CustomResourceDefinitions and items), and of what later stages wait for, such as pod
    /// volumes, which are no items and not in `outcomes`.
    pub stages: BTreeMap<Stage, Counts>,
    /// Counts by group-resource.
    pub resources: BTreeMap<GroupResource, Counts>,
    /// Counts by target namespace; the empty name is cluster scope.
    pub namespaces: BTreeMap<String, Counts>,
    /// Failures by typed reason.
    pub failures: BTreeMap<Reason, u64>,
    /// Warnings so far.
    pub warnings: u64,
    /// Errors so far.
    pub errors: u64,
    /// Items per second, over the last seconds; absent before there is a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items_per_second: Option<f64>,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Seconds since then, until the end.
    pub elapsed_seconds: f64,
    /// When an item was last finished, a stage entered, or a piece of the backup came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_progress_at: Option<Timestamp>,
    /// Estimated time left; absent when it cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_left: Option<TimeLeft>,
    /// What is being waited for, when nothing moved for a while.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub waiting_for: Vec<Waiting>,
    /// Why the restore failed; only with phase `Failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
}

impl Progress {
    /// Whether the outcomes are known. They are not for a restore that is only observed, or that ended before this process
    /// began: of those there are only Velero's two numbers.
    #[must_use]
    pub const fn outcomes_known(&self) -> bool {
        self.outcomes.total() > 0 || self.total_items == 0
    }

    /// Done items in hundredths of all items, by Velero's two numbers where outcomes are not known: 100 only in a
    /// terminal phase.
    #[must_use]
    pub fn percent(&self) -> u8 {
        if self.phase.is_terminal() {
            return 100;
        }
        let (done, total) = match self.outcomes.total() {
            0 => (self.items_restored, self.total_items),
            total => (self.outcomes.done(), total),
        };
        if total == 0 {
            return 0;
        }
        let share = done.saturating_mul(100) / total;
        u8::try_from(share.min(99)).unwrap_or(99)
    }
}

/// Number of an item within its restore: planned items first, in the order of the plan, then added ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(pub u32);

/// How an item came into the restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Collected from the backup.
    Planned,
    /// Wanted by another item.
    Additional,
    /// A namespace created because something goes into it.
    Namespace,
}

/// What is known of one item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemState {
    /// Number within the restore.
    pub id: ItemId,
    /// Its group-resource.
    pub group_resource: GroupResource,
    /// Kind, target namespace and name.
    pub key: ItemKey,
    /// How it came into the restore.
    pub origin: Origin,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// More about the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Requests that were tried to write it; 0 while pending.
    pub attempts: u32,
    /// How long it took.
    #[serde(with = "duration_millis", rename = "durationMilliseconds")]
    pub duration: Duration,
}

/// Which items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemFilter {
    /// Only these outcomes; empty for all.
    pub outcomes: Vec<Outcome>,
    /// Only this group-resource.
    pub group_resource: Option<GroupResource>,
    /// Only this target namespace; `Some("")` is cluster scope.
    pub namespace: Option<String>,
}

impl ItemFilter {
    /// Whether an item is wanted.
    #[must_use]
    pub fn matches(&self, item: &ItemState) -> bool {
        (self.outcomes.is_empty() || self.outcomes.contains(&item.outcome))
            && self.group_resource.as_ref().is_none_or(|wanted| *wanted == item.group_resource)
            && self.namespace.as_ref().is_none_or(|wanted| **wanted == *item.key.namespace)
    }
}

/// One warning or error with its reason, as `GetResults` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedFinding {
    /// Where it is filed.
    pub bucket: Bucket,
    /// Why.
    pub reason: Reason,
    /// The text, as in Velero's results file.
    pub message: String,
}

mod duration_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::cast_possible_truncation, reason = "an item takes less than 584 million years")]
    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_millis() as u64)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
