//! What a restore would do to the live cluster: the values of a preview.

use std::collections::BTreeMap;

use super::{GroupResource, ItemId, ItemKey, Origin, Reason, TypedFinding};

/// What would be done with one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlanAction {
    /// It would be created.
    Create,
    /// It exists and would be changed: by policy `update`, or the merge of a ServiceAccount.
    Update,
    /// It exists and is equal.
    Unchanged,
    /// It exists and differs, and would be left as it is.
    Conflict,
    /// It would be left out on purpose; the reason says why.
    Skip,
    /// The API server forbids it to the service that restores (RBAC).
    Forbidden,
    /// The API server would refuse it: admission, a quota, validation, an immutable field. The reason says which.
    Invalid,
    /// It would fail for another reason.
    Fail,
    /// It cannot be told before the restore; the message says why.
    Unknown,
}

impl PlanAction {
    /// All actions, in the order they are shown.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Update,
        Self::Unchanged,
        Self::Conflict,
        Self::Skip,
        Self::Forbidden,
        Self::Invalid,
        Self::Fail,
        Self::Unknown,
    ];

    /// The lower-case name, as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Unchanged => "unchanged",
            Self::Conflict => "conflict",
            Self::Skip => "skip",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the item would not come to be as the backup has it, though it was asked for.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        matches!(self, Self::Conflict | Self::Forbidden | Self::Invalid | Self::Fail)
    }
}

/// What would be done with one item, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanEntry {
    /// Number of the item, as the restore would give it.
    pub id: ItemId,
    /// Its group-resource.
    pub group_resource: GroupResource,
    /// Kind, target namespace, and name in the backup.
    pub key: ItemKey,
    /// How it came into the plan.
    pub origin: Origin,
    /// What would be done with it.
    pub action: PlanAction,
    /// Why, where it would not simply be done.
    pub reason: Option<Reason>,
    /// More about it, such as the API server's own words.
    pub message: Option<String>,
    /// JSON pointers to the first places where the live object differs; only where it exists.
    pub differences: Vec<String>,
    /// Whether the API server was asked by a dry run of this very write.
    pub dry_run: bool,
}

/// A verb that the service may not use on a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Denied {
    /// The verb: `create` or `patch`.
    pub verb: String,
    /// The group-resource.
    pub group_resource: GroupResource,
    /// The namespace; empty for cluster scope.
    pub namespace: String,
}

/// How many items have which action.
pub type PlanCounts = BTreeMap<PlanAction, u64>;

/// What a plan comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSummary {
    /// How many entries there were.
    pub items: u64,
    /// Counts by action.
    pub actions: PlanCounts,
    /// Counts by group-resource and action.
    pub resources: BTreeMap<GroupResource, PlanCounts>,
    /// What the service may not do and would have to.
    pub denied: Vec<Denied>,
    /// Warnings and errors that belong to no item, such as a selector that is not valid; then nothing is restored.
    pub findings: Vec<TypedFinding>,
    /// How many warnings the restore would have.
    pub warnings: u64,
    /// How many errors it would have.
    pub errors: u64,
}

impl PlanSummary {
    /// Whether something that was asked for would not be restored, or not as it is in the backup.
    #[must_use]
    pub fn has_trouble(&self) -> bool {
        self.errors > 0 || self.actions.iter().any(|(action, count)| action.is_trouble() && *count > 0)
    }
}

/// One part of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanStep {
    /// The items of the backup that the restore would begin with are known: so many.
    Begun(u64),
    /// One item.
    Entry(Box<PlanEntry>),
    /// All items were told.
    Ended(Box<PlanSummary>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_in_trouble_by_its_errors_and_by_what_would_not_be_restored() {
        let with = |action| PlanSummary { actions: [(action, 1)].into(), ..PlanSummary::default() };
        let troubled = PlanAction::ALL.map(|action| with(action).has_trouble());
        assert_eq!(troubled, [false, false, false, true, false, true, true, true, false]);
        assert!(PlanSummary { errors: 1, ..PlanSummary::default() }.has_trouble());
    }
}
