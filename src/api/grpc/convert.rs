//! Messages to values and values to messages. Every match is exhaustive, so that a new value fails to compile until
//! it has a form on the wire.

use std::time::Duration;

use jiff::Timestamp;

use super::{pb, spec};
use crate::api::watch::{LogPart, Numbered};
use crate::model::{
    Bucket, Cancellation, Counts, GroupResource, ItemState, Origin, Outcome, Phase, Progress, Reason, RestoreName,
    Stage, TypedFinding, Waiting,
};
use crate::service::{
    CreateRestore, Error, FoundItems, ItemFilter, PageRequest, RequestId, RestoreResults, RestoreView, WatchEvent,
};

/// The name in a request.
///
/// # Errors
/// When it is no Kubernetes name.
pub fn name(text: &str) -> Result<RestoreName, Error> {
    text.parse().map_err(|error| Error::invalid_name(&error))
}

/// A request to cancel.
///
/// # Errors
/// When the name is wrong, or a text does not fit.
pub fn cancel_restore(request: &pb::CancelRestoreRequest) -> Result<(RestoreName, Cancellation), Error> {
    let pb::CancelRestoreRequest { name: restore, reason, by } = request;
    let by = if by.is_empty() { "a gRPC call" } else { by };
    let cancellation = Cancellation::new(by, reason).map_err(|error| Error::invalid_cancellation(&error))?;
    Ok((name(restore)?, cancellation))
}

/// A request to create a Restore.
///
/// # Errors
/// When the name is wrong, the request id too long, or there is no spec.
pub fn create_restore(request: pb::CreateRestoreRequest) -> Result<CreateRestore, Error> {
    let pb::CreateRestoreRequest { name: text, request_id, spec, labels, annotations } = request;
    let name = name(&text)?;
    let spec = spec.ok_or_else(|| Error::invalid("spec", "spec is missing: say at least spec.backupName"))?;
    let request_id = if request_id.is_empty() { None } else { Some(RequestId::new(request_id)?) };
    Ok(CreateRestore { name, namespace: None, request_id, spec: spec::to_json(spec), labels, annotations })
}

/// A request to list items.
///
/// # Errors
/// When the name is wrong, an outcome is not known or the page too large.
pub fn list_items(request: pb::ListItemsRequest) -> Result<(RestoreName, ItemFilter, PageRequest), Error> {
    let pb::ListItemsRequest { name: text, outcomes, resource, namespace, page_size, page_token } = request;
    let outcomes = outcomes.into_iter().map(outcome).collect::<Result<_, _>>()?;
    let group_resource = (!resource.is_empty()).then(|| GroupResource::parse(&resource));
    let page = PageRequest::new(page_size, page_token)?;
    Ok((name(&text)?, ItemFilter { outcomes, group_resource, namespace }, page))
}

fn outcome(number: i32) -> Result<Outcome, Error> {
    match pb::Outcome::try_from(number) {
        Ok(pb::Outcome::Pending) => Ok(Outcome::Pending),
        Ok(pb::Outcome::Created) => Ok(Outcome::Created),
        Ok(pb::Outcome::Updated) => Ok(Outcome::Updated),
        Ok(pb::Outcome::Unchanged) => Ok(Outcome::Unchanged),
        Ok(pb::Outcome::Skipped) => Ok(Outcome::Skipped),
        Ok(pb::Outcome::Failed) => Ok(Outcome::Failed),
        Ok(pb::Outcome::Unspecified) | Err(_) => {
            Err(Error::invalid("outcomes", format!("outcome {number} is not known: leave it out, or take 1 to 6")))
        }
    }
}

impl From<Phase> for pb::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::New => Self::New,
            Phase::FailedValidation => Self::FailedValidation,
            Phase::InProgress => Self::InProgress,
            Phase::WaitingForPluginOperations => Self::WaitingForPluginOperations,
            Phase::WaitingForPluginOperationsPartiallyFailed => Self::WaitingForPluginOperationsPartiallyFailed,
            Phase::Finalizing => Self::Finalizing,
            Phase::FinalizingPartiallyFailed => Self::FinalizingPartiallyFailed,
            Phase::Completed => Self::Completed,
            Phase::PartiallyFailed => Self::PartiallyFailed,
            Phase::Failed => Self::Failed,
        }
    }
}

impl From<Stage> for pb::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Queued => Self::Queued,
            Stage::Collecting => Self::Collecting,
            Stage::CustomResourceDefinitions => Self::CustomResourceDefinitions,
            Stage::Items => Self::Items,
            Stage::Volumes => Self::Volumes,
            Stage::PluginOperations => Self::PluginOperations,
            Stage::Hooks => Self::Hooks,
            Stage::Finalizing => Self::Finalizing,
            Stage::Done => Self::Done,
        }
    }
}

impl From<Outcome> for pb::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Pending => Self::Pending,
            Outcome::Created => Self::Created,
            Outcome::Updated => Self::Updated,
            Outcome::Unchanged => Self::Unchanged,
            Outcome::Skipped => Self::Skipped,
            Outcome::Failed => Self::Failed,
        }
    }
}

impl From<Reason> for pb::Reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Conflict => Self::Conflict,
            Reason::Forbidden => Self::Forbidden,
            Reason::DeniedByAdmission => Self::DeniedByAdmission,
            Reason::Quota => Self::Quota,
            Reason::Invalid => Self::Invalid,
            Reason::Timeout => Self::Timeout,
            Reason::Unavailable => Self::Unavailable,
            Reason::NotFound => Self::NotFound,
            Reason::Discovery => Self::Discovery,
            Reason::ItemAction => Self::ItemAction,
            Reason::ResourceModifier => Self::ResourceModifier,
            Reason::Archive => Self::Archive,
            Reason::Namespace => Self::Namespace,
            Reason::Volume => Self::Volume,
            Reason::Completed => Self::Completed,
            Reason::MirrorPod => Self::MirrorPod,
            Reason::DynamicVolume => Self::DynamicVolume,
            Reason::SkippedByAction => Self::SkippedByAction,
            Reason::Cancelled => Self::Cancelled,
            Reason::Other => Self::Other,
        }
    }
}

impl From<Origin> for pb::Origin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Planned => Self::Planned,
            Origin::Additional => Self::Additional,
            Origin::Namespace => Self::Namespace,
        }
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    const NANOS: i128 = 1_000_000_000;
    let nanos = time.as_nanosecond();
    // jiff's range is the years -9999 to 9999: the seconds fit, and the remainder always does.
    prost_types::Timestamp {
        seconds: i64::try_from(nanos.div_euclid(NANOS)).unwrap_or_default(),
        nanos: i32::try_from(nanos.rem_euclid(NANOS)).unwrap_or_default(),
    }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

impl From<Counts> for pb::Counts {
    fn from(counts: Counts) -> Self {
        let Counts { pending, created, updated, unchanged, skipped, failed } = counts;
        Self { pending, created, updated, unchanged, skipped, failed }
    }
}

impl From<&Waiting> for pb::Waiting {
    fn from(waiting: &Waiting) -> Self {
        let Waiting { object, request, reason } = waiting.clone();
        Self { object, request, reason }
    }
}

impl From<&Progress> for pb::Progress {
    fn from(progress: &Progress) -> Self {
        let percent = u32::from(progress.percent());
        let Progress {
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
        let stage_counts = |(&stage, &counts): (&Stage, &Counts)| pb::StageCounts {
            stage: pb::Stage::from(stage).into(),
            counts: Some(counts.into()),
        };
        Self {
            sequence: *sequence,
            phase: pb::Phase::from(*phase).into(),
            stage: pb::Stage::from(*stage).into(),
            percent,
            total_items: *total_items,
            items_restored: *items_restored,
            outcomes: progress.outcomes_known().then(|| (*outcomes).into()),
            added: *added,
            stages: stages.iter().map(stage_counts).collect(),
            resources: resources.iter().map(|(key, &counts)| (key.to_string(), counts.into())).collect(),
            namespaces: namespaces.iter().map(|(key, &counts)| (key.clone(), counts.into())).collect(),
            failures: failures
                .iter()
                .map(|(&reason, &count)| pb::ReasonCount { reason: pb::Reason::from(reason).into(), count })
                .collect(),
            warnings: *warnings,
            errors: *errors,
            items_per_second: *items_per_second,
            started_at: started_at.map(timestamp),
            elapsed: Some(duration(Duration::try_from_secs_f64(*elapsed_seconds).unwrap_or_default())),
            last_progress_at: last_progress_at.map(timestamp),
            time_left: time_left.map(|left| pb::TimeLeft {
                low: Some(duration(Duration::from_secs(left.low_seconds))),
                high: Some(duration(Duration::from_secs(left.high_seconds))),
            }),
            waiting_for: waiting_for.iter().map(Into::into).collect(),
            failure_reason: failure_reason.clone(),
        }
    }
}

impl From<&ItemState> for pb::Item {
    fn from(item: &ItemState) -> Self {
        let ItemState { id, group_resource, key, origin, outcome, reason, message, attempts, duration: took } = item;
        Self {
            id: id.0,
            group_resource: group_resource.to_string(),
            api_version_kind: key.api_version_kind.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            origin: pb::Origin::from(*origin).into(),
            outcome: pb::Outcome::from(*outcome).into(),
            reason: reason.map_or(pb::Reason::Unspecified, Into::into).into(),
            message: message.clone(),
            attempts: *attempts,
            duration: Some(duration(*took)),
        }
    }
}

impl From<RestoreView> for pb::Restore {
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
            spec: Some(spec::from_json(&spec)),
            labels,
            annotations,
            phase: pb::Phase::from(phase).into(),
            validation_errors,
            failure_reason,
            warnings,
            errors,
            created_at: created_at.map(timestamp),
            started_at: started_at.map(timestamp),
            completed_at: completed_at.map(timestamp),
            progress: Some((&*progress).into()),
            queue_position,
            sandbox,
        }
    }
}

impl From<FoundItems> for pb::ListItemsResponse {
    fn from(found: FoundItems) -> Self {
        let FoundItems { page, matching } = found;
        let items = page.elements.iter().map(Into::into).collect();
        Self { items, next_page_token: page.next_page_token, matching }
    }
}

impl From<TypedFinding> for pb::Finding {
    fn from(finding: TypedFinding) -> Self {
        let TypedFinding { bucket, reason, message } = finding;
        let bucket = match bucket {
            Bucket::Velero => pb::finding::Bucket::Velero(true),
            Bucket::Cluster => pb::finding::Bucket::Cluster(true),
            Bucket::Namespace(namespace) => pb::finding::Bucket::Namespace(namespace),
        };
        Self { bucket: Some(bucket), reason: pb::Reason::from(reason).into(), message }
    }
}

impl From<RestoreResults> for pb::RestoreResults {
    fn from(results: RestoreResults) -> Self {
        let RestoreResults { warnings, errors, complete } = results;
        let findings = |findings: Vec<TypedFinding>| findings.into_iter().map(Into::into).collect();
        Self { warnings: findings(warnings), errors: findings(errors), complete }
    }
}

impl From<Numbered> for pb::RestoreEvent {
    fn from(numbered: Numbered) -> Self {
        use pb::restore_event::Event;
        let (name, event) = match numbered.event {
            WatchEvent::Snapshot(view) => (view.name.clone(), Event::Snapshot((*view).into())),
            WatchEvent::Progress { name, progress } => (name.to_string(), Event::Progress((&*progress).into())),
            WatchEvent::Item { name, sequence: _, item } => (name.to_string(), Event::Item((&*item).into())),
            WatchEvent::Gap { name, from, to } => (name.to_string(), Event::Gap(pb::Gap { from, to })),
            WatchEvent::Ended(view) => (view.name.clone(), Event::Ended((*view).into())),
            WatchEvent::Deleted { name } => (name.to_string(), Event::Deleted(pb::Deleted {})),
            WatchEvent::ShuttingDown => (String::new(), Event::ShuttingDown(pb::ShuttingDown {})),
        };
        Self { sequence: numbered.sequence, name, event: Some(event) }
    }
}

impl From<LogPart> for pb::LogEvent {
    fn from(part: LogPart) -> Self {
        use pb::log_event::Event;
        let event = match part {
            LogPart::Lines(lines) => {
                Event::Lines(pb::LogLines { lines: lines.into_iter().map(|line| line.text).collect() })
            }
            LogPart::Ended => Event::Ended(pb::LogEnded {}),
            LogPart::ShuttingDown => Event::ShuttingDown(pb::ShuttingDown {}),
        };
        Self { event: Some(event) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_phase_and_a_stage_have_the_names_of_the_model_in_screaming_case() {
        for phase in Phase::ALL {
            let wire = pb::Phase::from(phase).as_str_name();
            assert_eq!(wire.replace('_', "").to_lowercase(), format!("phase{}", phase.as_str().to_lowercase()));
        }
        for stage in Stage::ALL {
            let wire = pb::Stage::from(stage).as_str_name();
            assert_eq!(wire.to_lowercase().replace('_', "-"), format!("stage-{}", stage.as_str()));
        }
    }

    #[test]
    fn an_outcome_goes_to_the_wire_and_back() {
        for value in Outcome::ALL {
            assert_eq!(outcome(pb::Outcome::from(value).into()).unwrap(), value);
        }
        for number in [0, 7, -1] {
            assert_eq!(outcome(number).unwrap_err().field.as_deref(), Some("outcomes"));
        }
    }

    #[test]
    fn a_time_keeps_its_nanoseconds() {
        let time: Timestamp = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        assert_eq!(timestamp(time), prost_types::Timestamp { seconds: 1_767_323_045, nanos: 6 });
        assert_eq!(duration(Duration::from_millis(1_500)), prost_types::Duration { seconds: 1, nanos: 500_000_000 });
    }
}
