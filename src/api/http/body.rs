//! What clients get: values of the façade in their JSON form. Every match is exhaustive.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::spec::RestoreSpec;
use crate::api::watch::Numbered;
use crate::model::{self, Bucket, ItemState};
use crate::service::{FoundItems, Page, RestoreResults, RestoreView, WatchEvent};

/// An enumeration of the model with its JSON names, which the OpenAPI document lists.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident, $case:literal: $($variant:ident),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
        #[serde(rename_all = $case)]
        pub(super) enum $name { $($variant),+ }

        impl From<model::$name> for $name {
            fn from(value: model::$name) -> Self {
                match value { $(model::$name::$variant => Self::$variant),+ }
            }
        }
    };
}

names!(
    /// Phase of a Restore, as Velero names them.
    Phase, "PascalCase":
    New, FailedValidation, InProgress, WaitingForPluginOperations, WaitingForPluginOperationsPartiallyFailed,
    Finalizing, FinalizingPartiallyFailed, Completed, PartiallyFailed, Failed
);
names!(
    /// Stage of a run; stages only move forward.
    Stage, "kebab-case":
    Queued, Collecting, CustomResourceDefinitions, Items, Volumes, PluginOperations, Hooks, Finalizing, Done
);
names!(
    /// What became of an item.
    Outcome, "kebab-case":
    Pending, Created, Updated, Unchanged, Skipped, Failed
);
names!(
    /// Why an item failed or was skipped.
    Reason, "kebab-case":
    Conflict, Forbidden, DeniedByAdmission, Quota, Invalid, Timeout, Unavailable, NotFound, Discovery, ItemAction,
    ResourceModifier, Archive, Namespace, Volume, Completed, MirrorPod, DynamicVolume, SkippedByAction, Cancelled, Other
);
names!(
    /// How an item came into the restore.
    Origin, "kebab-case":
    Planned, Additional, Namespace
);

fn rfc3339(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

/// How many items have which outcome.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Counts {
    /// Not decided yet.
    pending: u64,
    /// Created.
    created: u64,
    /// Existed and changed.
    updated: u64,
    /// Existed and equal.
    unchanged: u64,
    /// Left out on purpose.
    skipped: u64,
    /// Not restored, or conflicting.
    failed: u64,
}

impl From<model::Counts> for Counts {
    fn from(counts: model::Counts) -> Self {
        let model::Counts { pending, created, updated, unchanged, skipped, failed } = counts;
        Self { pending, created, updated, unchanged, skipped, failed }
    }
}

/// Time left, as a range.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TimeLeft {
    /// At least, in seconds.
    low_seconds: u64,
    /// At most, in seconds.
    high_seconds: u64,
}

/// What is being waited for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Waiting {
    /// The object, such as `namespace shop`.
    object: String,
    /// What is asked of it, such as `create`.
    request: String,
    /// Why it takes so long, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<&model::Waiting> for Waiting {
    fn from(waiting: &model::Waiting) -> Self {
        let model::Waiting { object, request, reason } = waiting.clone();
        Self { object, request, reason }
    }
}

/// The progress of one restore at one moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Progress {
    /// Grows with every change.
    sequence: u64,
    /// Phase.
    phase: Phase,
    /// Stage within the run.
    stage: Stage,
    /// Items that are done, in hundredths of all; 100 only in a terminal phase.
    percent: u8,
    /// `status.progress.totalItems` of the Restore: items restored plus those still to be visited.
    total_items: u64,
    /// `status.progress.itemsRestored` of the Restore: items visited, with whatever outcome.
    items_restored: u64,
    /// Counts by outcome; they sum up to all items that are known of.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcomes: Option<Counts>,
    /// Of these, how many joined after planning.
    added: u64,
    /// Counts by stage: of items in the first ones, of pod volumes and the like in later ones.
    stages: BTreeMap<String, Counts>,
    /// Counts by group-resource.
    resources: BTreeMap<String, Counts>,
    /// Counts by target namespace; the empty name is cluster scope.
    namespaces: BTreeMap<String, Counts>,
    /// Failures by reason.
    failures: BTreeMap<String, u64>,
    /// Warnings so far.
    warnings: u64,
    /// Errors so far.
    errors: u64,
    /// Rate over the last seconds; absent before there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    items_per_second: Option<f64>,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    started_at: Option<String>,
    /// Seconds since then, until the end.
    elapsed_seconds: f64,
    /// When an item was last finished, a stage entered, or a piece of the backup came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    last_progress_at: Option<String>,
    /// Estimated time left; absent when it cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_left: Option<TimeLeft>,
    /// What is being waited for, when nothing moved for a while.
    waiting_for: Vec<Waiting>,
    /// Why the restore failed; only with phase `Failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<String>,
}

impl From<&model::Progress> for Progress {
    fn from(progress: &model::Progress) -> Self {
        let percent = progress.percent();
        let model::Progress {
            sequence,
            phase,
            stage,
            total_items,
            items_restored,
            outcomes,
            added,
            stages,
            resources,
            namespaces,
            failures,
            warnings,
            errors,
            items_per_second,
            started_at,
            elapsed_seconds,
            last_progress_at,
            time_left,
            waiting_for,
            failure_reason,
        } = progress;
        Self {
            sequence: *sequence,
            phase: (*phase).into(),
            stage: (*stage).into(),
            percent,
            total_items: *total_items,
            items_restored: *items_restored,
            outcomes: progress.outcomes_known().then(|| (*outcomes).into()),
            added: *added,
            stages: stages.iter().map(|(stage, &counts)| (stage.as_str().to_owned(), counts.into())).collect(),
            resources: resources.iter().map(|(key, &counts)| (key.to_string(), counts.into())).collect(),
            namespaces: namespaces.iter().map(|(key, &counts)| (key.clone(), counts.into())).collect(),
            failures: failures.iter().map(|(reason, &count)| (reason.as_str().to_owned(), count)).collect(),
            warnings: *warnings,
            errors: *errors,
            items_per_second: *items_per_second,
            started_at: rfc3339(*started_at),
            elapsed_seconds: *elapsed_seconds,
            last_progress_at: rfc3339(*last_progress_at),
            time_left: time_left
                .map(|model::TimeLeft { low_seconds, high_seconds }| TimeLeft { low_seconds, high_seconds }),
            waiting_for: waiting_for.iter().map(Into::into).collect(),
            failure_reason: failure_reason.clone(),
        }
    }
}

/// A Restore and its progress.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restore {
    /// Name of the Restore.
    name: String,
    /// Its namespace, Velero's own.
    namespace: String,
    /// Its UID.
    uid: String,
    /// Name of the backup; empty until a schedule is resolved.
    backup_name: String,
    /// What to restore.
    #[schema(value_type = RestoreSpec)]
    spec: Value,
    /// Labels of the Restore object.
    labels: BTreeMap<String, String>,
    /// Annotations of the Restore object.
    annotations: BTreeMap<String, String>,
    /// Phase.
    phase: Phase,
    /// What is wrong with the specification; only with phase `FailedValidation`.
    validation_errors: Vec<String>,
    /// Why it failed; only with phase `Failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<String>,
    /// Number of warnings.
    warnings: u64,
    /// Number of errors.
    errors: u64,
    /// When the Restore was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    created_at: Option<String>,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    completed_at: Option<String>,
    /// Where it stands.
    progress: Progress,
    /// Its place in the queue, from 1; absent when it does not wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<u32>,
    /// Whether the cluster is the in-memory sandbox, and not a real one.
    sandbox: bool,
}

impl From<RestoreView> for Restore {
    fn from(view: RestoreView) -> Self {
        let RestoreView {
            name,
            namespace,
            uid,
            backup_name,
            spec,
            labels,
            annotations,
            phase,
            validation_errors,
            failure_reason,
            warnings,
            errors,
            created_at,
            started_at,
            completed_at,
            progress,
            queue_position,
            sandbox,
        } = view;
        Self {
            name,
            namespace,
            uid,
            backup_name,
            spec,
            labels,
            annotations,
            phase: phase.into(),
            validation_errors,
            failure_reason,
            warnings,
            errors,
            created_at: rfc3339(created_at),
            started_at: rfc3339(started_at),
            completed_at: rfc3339(completed_at),
            progress: (&*progress).into(),
            queue_position,
            sandbox,
        }
    }
}

/// A page of Restores.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RestoreList {
    /// The Restores, by name.
    restores: Vec<Restore>,
    /// To be given as `pageToken` for the next page; empty after the last.
    next_page_token: String,
}

impl From<Page<RestoreView>> for RestoreList {
    fn from(page: Page<RestoreView>) -> Self {
        let Page { elements, next_page_token } = page;
        Self { restores: elements.into_iter().map(Into::into).collect(), next_page_token }
    }
}

/// What is known of one item.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    /// Number within the restore, from 0.
    id: u32,
    /// Its group-resource, such as `deployments.apps`.
    group_resource: String,
    /// Its API version and kind, such as `apps/v1/Deployment`.
    api_version_kind: String,
    /// Target namespace; empty for a cluster-scoped item.
    namespace: String,
    /// Name in the backup.
    name: String,
    /// How it came into the restore.
    origin: Origin,
    /// What became of it.
    outcome: Outcome,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// More about the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Requests that were tried to write it; 0 while pending.
    attempts: u32,
    /// How long it took, in milliseconds.
    duration_milliseconds: u64,
}

impl From<&ItemState> for Item {
    fn from(item: &ItemState) -> Self {
        let ItemState { id, group_resource, key, origin, outcome, reason, message, attempts, duration } = item;
        Self {
            id: id.0,
            group_resource: group_resource.to_string(),
            api_version_kind: key.api_version_kind.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            origin: (*origin).into(),
            outcome: (*outcome).into(),
            reason: reason.map(Into::into),
            message: message.clone(),
            attempts: *attempts,
            duration_milliseconds: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// A page of items.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemList {
    /// The items, in their order.
    items: Vec<Item>,
    /// To be given as `pageToken` for the next page; empty after the last.
    next_page_token: String,
    /// How many items match in all.
    matching: u64,
}

impl From<FoundItems> for ItemList {
    fn from(found: FoundItems) -> Self {
        let FoundItems { page: Page { elements, next_page_token }, matching } = found;
        Self { items: elements.iter().map(Into::into).collect(), next_page_token, matching }
    }
}

/// Where a finding is filed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BucketName {
    Velero,
    Cluster,
    Namespace,
}

/// One warning or error.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Finding {
    /// Where it is filed, as in Velero's results file.
    bucket: BucketName,
    /// The target namespace, where the bucket is `namespace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// Why.
    reason: Reason,
    /// The text, as in Velero's results file.
    message: String,
}

impl From<model::TypedFinding> for Finding {
    fn from(finding: model::TypedFinding) -> Self {
        let model::TypedFinding { bucket, reason, message } = finding;
        let (bucket, namespace) = match bucket {
            Bucket::Velero => (BucketName::Velero, None),
            Bucket::Cluster => (BucketName::Cluster, None),
            Bucket::Namespace(namespace) => (BucketName::Namespace, Some(namespace)),
        };
        Self { bucket, namespace, reason: reason.into(), message }
    }
}

/// Warnings and errors of a restore.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Results {
    /// The warnings that are kept.
    warnings: Vec<Finding>,
    /// The errors that are kept.
    errors: Vec<Finding>,
    /// Whether the restore is over, so that nothing is added any more.
    complete: bool,
}

impl From<RestoreResults> for Results {
    fn from(results: RestoreResults) -> Self {
        let RestoreResults { warnings, errors, complete } = results;
        let findings = |findings: Vec<model::TypedFinding>| findings.into_iter().map(Into::into).collect();
        Self { warnings: findings(warnings), errors: findings(errors), complete }
    }
}

/// `data` of a server-sent event; which of these it is, `event` tells.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant, reason = "each is written out and dropped at once")]
pub(super) enum Event {
    /// `snapshot` at the beginning, `ended` in a terminal phase.
    Restore {
        /// The number to resume after.
        sequence: u64,
        /// The Restore.
        restore: Restore,
    },
    /// `progress`: the newest; values between may be left out.
    Progress {
        /// The number to resume after.
        sequence: u64,
        /// Name of the Restore.
        name: String,
        /// Its progress.
        progress: Progress,
    },
    /// `item`: the outcome of an item.
    Item {
        /// The number to resume after.
        sequence: u64,
        /// Name of the Restore.
        name: String,
        /// The item.
        item: Item,
    },
    /// `gap`: items that were not sent; `/items` has them.
    Gap {
        /// The number to resume after.
        sequence: u64,
        /// Name of the Restore.
        name: String,
        /// First sequence number that is missing.
        from: u64,
        /// Last sequence number that is missing.
        to: u64,
    },
    /// `deleted`: the Restore is gone.
    Deleted {
        /// The number to resume after.
        sequence: u64,
        /// Name of the Restore.
        name: String,
    },
    /// `shutting-down`: the service goes down; come back and resume.
    ShuttingDown {
        /// The number to resume after.
        sequence: u64,
    },
}

impl Event {
    /// The name for `event` and the body for `data`.
    pub(super) fn new(numbered: Numbered) -> (&'static str, Self) {
        let sequence = numbered.sequence;
        match numbered.event {
            WatchEvent::Snapshot(view) => ("snapshot", Self::Restore { sequence, restore: (*view).into() }),
            WatchEvent::Progress { name, progress } => {
                ("progress", Self::Progress { sequence, name: name.to_string(), progress: (&*progress).into() })
            }
            WatchEvent::Item { name, sequence: _, item } => {
                ("item", Self::Item { sequence, name: name.to_string(), item: (&*item).into() })
            }
            WatchEvent::Gap { name, from, to } => ("gap", Self::Gap { sequence, name: name.to_string(), from, to }),
            WatchEvent::Ended(view) => ("ended", Self::Restore { sequence, restore: (*view).into() }),
            WatchEvent::Deleted { name } => ("deleted", Self::Deleted { sequence, name: name.to_string() }),
            WatchEvent::ShuttingDown => ("shutting-down", Self::ShuttingDown { sequence }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn names_in_json_are_those_of_the_model() {
        for phase in model::Phase::ALL {
            assert_eq!(serde_json::to_value(Phase::from(phase)).unwrap(), phase.as_str());
        }
        for stage in model::Stage::ALL {
            assert_eq!(serde_json::to_value(Stage::from(stage)).unwrap(), stage.as_str());
        }
        for outcome in model::Outcome::ALL {
            assert_eq!(serde_json::to_value(Outcome::from(outcome)).unwrap(), outcome.as_str());
        }
        for reason in [model::Reason::DeniedByAdmission, model::Reason::MirrorPod, model::Reason::Other] {
            assert_eq!(serde_json::to_value(Reason::from(reason)).unwrap(), reason.as_str());
        }
    }
}
