//! The service's messages as values: the way back of `api::grpc::convert`, so that what came over the network is shown
//! as what was done here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::grpc::{pb, spec};
use crate::api::watch::Numbered;
use crate::model::{
    Bucket, Counts, Denied, GroupResource, ItemId, ItemKey, ItemState, Origin, Outcome, Phase, PlanAction, PlanCounts,
    PlanEntry, PlanSummary, Progress, Reason, Stage, TimeLeft, TypedFinding, Waiting,
};
use crate::service::{PlanBegun, PlanEvent, RestoreResults, RestoreView, WatchEvent};

/// An answer that cannot be understood: the service is of another version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service's answer has no usable {0}: is it of another version than this program?")]
pub(super) struct Error(&'static str);

fn phase(number: i32) -> Result<Phase, Error> {
    Phase::ALL.into_iter().find(|phase| i32::from(pb::Phase::from(*phase)) == number).ok_or(Error("phase"))
}

fn stage(number: i32) -> Result<Stage, Error> {
    Stage::ALL.into_iter().find(|stage| i32::from(pb::Stage::from(*stage)) == number).ok_or(Error("stage"))
}

fn outcome(number: i32) -> Result<Outcome, Error> {
    Outcome::ALL.into_iter().find(|outcome| i32::from(pb::Outcome::from(*outcome)) == number).ok_or(Error("outcome"))
}

/// A reason of a newer service is some reason all the same.
fn reason(number: i32) -> Option<Reason> {
    Some(match pb::Reason::try_from(number) {
        Ok(pb::Reason::Unspecified) => return None,
        Ok(pb::Reason::Conflict) => Reason::Conflict,
        Ok(pb::Reason::Forbidden) => Reason::Forbidden,
        Ok(pb::Reason::DeniedByAdmission) => Reason::DeniedByAdmission,
        Ok(pb::Reason::Quota) => Reason::Quota,
        Ok(pb::Reason::Invalid) => Reason::Invalid,
        Ok(pb::Reason::Timeout) => Reason::Timeout,
        Ok(pb::Reason::Unavailable) => Reason::Unavailable,
        Ok(pb::Reason::NotFound) => Reason::NotFound,
        Ok(pb::Reason::Discovery) => Reason::Discovery,
        Ok(pb::Reason::ItemAction) => Reason::ItemAction,
        Ok(pb::Reason::ResourceModifier) => Reason::ResourceModifier,
        Ok(pb::Reason::Archive) => Reason::Archive,
        Ok(pb::Reason::Namespace) => Reason::Namespace,
        Ok(pb::Reason::Volume) => Reason::Volume,
        Ok(pb::Reason::Completed) => Reason::Completed,
        Ok(pb::Reason::MirrorPod) => Reason::MirrorPod,
        Ok(pb::Reason::DynamicVolume) => Reason::DynamicVolume,
        Ok(pb::Reason::SkippedByAction) => Reason::SkippedByAction,
        Ok(pb::Reason::Cancelled) => Reason::Cancelled,
        Ok(pb::Reason::Other) | Err(_) => Reason::Other,
    })
}

fn origin(number: i32) -> Result<Origin, Error> {
    match pb::Origin::try_from(number) {
        Ok(pb::Origin::Planned) => Ok(Origin::Planned),
        Ok(pb::Origin::Additional) => Ok(Origin::Additional),
        Ok(pb::Origin::Namespace) => Ok(Origin::Namespace),
        Ok(pb::Origin::Unspecified) | Err(_) => Err(Error("origin")),
    }
}

fn timestamp(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
}

fn duration(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default()
}

fn counts(counts: Option<pb::Counts>) -> Counts {
    let pb::Counts { pending, created, updated, unchanged, skipped, failed } = counts.unwrap_or_default();
    Counts { pending, created, updated, unchanged, skipped, failed }
}

/// A progress.
pub(super) fn progress(progress: pb::Progress) -> Result<Progress, Error> {
    let pb::Progress {
        sequence,
        phase: number,
        stage: stage_number,
        // Follows from the outcomes and the phase.
        percent: _,
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
        elapsed,
        last_progress_at,
        time_left,
        waiting_for,
        failure_reason,
    } = progress;
    let stages: BTreeMap<Stage, Counts> =
        stages.into_iter().map(|of| Ok((stage(of.stage)?, counts(of.counts)))).collect::<Result<_, Error>>()?;
    Ok(Progress {
        sequence,
        phase: phase(number)?,
        stage: stage(stage_number)?,
        total_items,
        items_restored,
        outcomes: counts(outcomes),
        added,
        stages,
        resources: resources.into_iter().map(|(name, of)| (GroupResource::from(name), counts(Some(of)))).collect(),
        namespaces: namespaces.into_iter().map(|(name, of)| (name, counts(Some(of)))).collect(),
        failures: failures.into_iter().map(|of| (reason(of.reason).unwrap_or(Reason::Other), of.count)).collect(),
        warnings,
        errors,
        items_per_second,
        started_at: timestamp(started_at),
        elapsed_seconds: duration(elapsed).as_secs_f64(),
        last_progress_at: timestamp(last_progress_at),
        time_left: time_left.map(|left| TimeLeft {
            low_seconds: duration(left.low).as_secs(),
            high_seconds: duration(left.high).as_secs(),
        }),
        waiting_for: waiting_for
            .into_iter()
            .map(|pb::Waiting { object, request, reason }| Waiting { object, request, reason })
            .collect(),
        failure_reason,
    })
}

/// An item.
pub(super) fn item(item: pb::Item) -> Result<ItemState, Error> {
    let pb::Item {
        id,
        group_resource,
        api_version_kind,
        namespace,
        name,
        origin: origin_number,
        outcome: outcome_number,
        reason: reason_number,
        message,
        attempts,
        duration: took,
    } = item;
    Ok(ItemState {
        id: ItemId(id),
        group_resource: group_resource.into(),
        key: ItemKey { api_version_kind: api_version_kind.into(), namespace: namespace.into(), name: name.into() },
        origin: origin(origin_number)?,
        outcome: outcome(outcome_number)?,
        reason: reason(reason_number),
        message,
        attempts,
        duration: duration(took),
    })
}

/// A Restore.
pub(super) fn restore(restore: pb::Restore) -> Result<RestoreView, Error> {
    let pb::Restore {
        name,
        namespace,
        uid,
        backup_name,
        spec: spec_message,
        labels,
        annotations,
        phase: number,
        validation_errors,
        failure_reason,
        warnings,
        errors,
        created_at,
        started_at,
        completed_at,
        progress: progress_message,
        queue_position,
        sandbox,
    } = restore;
    Ok(RestoreView {
        name,
        namespace,
        uid,
        backup_name,
        spec: spec::to_json(spec_message.unwrap_or_default()),
        labels,
        annotations,
        phase: phase(number)?,
        validation_errors,
        failure_reason,
        warnings,
        errors,
        created_at: timestamp(created_at),
        started_at: timestamp(started_at),
        completed_at: timestamp(completed_at),
        progress: Arc::new(progress(progress_message.ok_or(Error("progress"))?)?),
        queue_position,
        sandbox,
    })
}

/// An event of a watch; `None` for one of a newer service.
pub(super) fn event(event: pb::RestoreEvent) -> Result<Option<Numbered>, Error> {
    use pb::restore_event::Event;
    let pb::RestoreEvent { sequence, name, event } = event;
    let name: Arc<str> = name.into();
    let Some(event) = event else { return Ok(None) };
    let event = match event {
        Event::Snapshot(view) => WatchEvent::Snapshot(Box::new(restore(view)?)),
        Event::Progress(value) => WatchEvent::Progress { name, progress: Arc::new(progress(value)?) },
        Event::Item(value) => WatchEvent::Item { name, sequence, item: Arc::new(item(value)?) },
        Event::Gap(pb::Gap { from, to }) => WatchEvent::Gap { name, from, to },
        Event::Ended(view) => WatchEvent::Ended(Box::new(restore(view)?)),
        Event::Deleted(pb::Deleted {}) => WatchEvent::Deleted { name },
        Event::ShuttingDown(pb::ShuttingDown {}) => WatchEvent::ShuttingDown,
    };
    Ok(Some(Numbered { sequence, event }))
}

/// Warnings and errors.
pub(super) fn results(results: pb::RestoreResults) -> RestoreResults {
    let pb::RestoreResults { warnings, errors, complete } = results;
    let findings = |findings: Vec<pb::Finding>| findings.into_iter().map(finding).collect();
    RestoreResults { warnings: findings(warnings), errors: findings(errors), complete }
}

fn plan_action(number: i32) -> Result<PlanAction, Error> {
    let found = PlanAction::ALL.into_iter().find(|action| i32::from(pb::PlanAction::from(*action)) == number);
    found.ok_or(Error("action"))
}

/// An event of a plan; `None` for one of a newer service.
pub(super) fn plan_event(event: pb::PlanEvent) -> Result<Option<PlanEvent>, Error> {
    use pb::plan_event::Event;
    Ok(Some(match event.event {
        None => return Ok(None),
        Some(Event::Begun(pb::PlanBegun { restore, backup, items, dry_run, sandbox })) => {
            PlanEvent::Begun(PlanBegun { restore, backup, items, dry_run, sandbox })
        }
        Some(Event::Entry(entry)) => PlanEvent::Entry(Box::new(plan_entry(entry)?)),
        Some(Event::Ended(summary)) => PlanEvent::Ended(Box::new(plan_summary(summary)?)),
        Some(Event::ShuttingDown(pb::ShuttingDown {})) => PlanEvent::ShuttingDown,
    }))
}

fn plan_entry(entry: pb::PlanEntry) -> Result<PlanEntry, Error> {
    let pb::PlanEntry {
        id,
        group_resource,
        api_version_kind,
        namespace,
        name,
        origin: origin_number,
        action,
        reason: reason_number,
        message,
        differences,
        dry_run,
    } = entry;
    Ok(PlanEntry {
        id: ItemId(id),
        group_resource: GroupResource::parse(&group_resource),
        key: ItemKey { api_version_kind: api_version_kind.into(), namespace: namespace.into(), name: name.into() },
        origin: origin(origin_number)?,
        action: plan_action(action)?,
        reason: reason(reason_number),
        message,
        differences,
        dry_run,
    })
}

fn plan_counts(counts: Vec<pb::PlanCount>) -> Result<PlanCounts, Error> {
    counts.into_iter().map(|pb::PlanCount { action, count }| Ok((plan_action(action)?, count))).collect()
}

fn plan_summary(summary: pb::PlanSummary) -> Result<PlanSummary, Error> {
    let pb::PlanSummary { items, actions, resources, denied, findings, warnings, errors } = summary;
    let resource = |pb::PlanResource { group_resource, actions }| {
        Ok((GroupResource::parse(&group_resource), plan_counts(actions)?))
    };
    let denial = |pb::PlanDenied { verb, group_resource, namespace }| Denied {
        verb,
        group_resource: GroupResource::parse(&group_resource),
        namespace,
    };
    Ok(PlanSummary {
        items,
        actions: plan_counts(actions)?,
        resources: resources.into_iter().map(resource).collect::<Result<_, _>>()?,
        denied: denied.into_iter().map(denial).collect(),
        findings: findings.into_iter().map(finding).collect(),
        warnings,
        errors,
    })
}

fn finding(finding: pb::Finding) -> TypedFinding {
    let pb::Finding { bucket, reason: number, message } = finding;
    let bucket = match bucket {
        Some(pb::finding::Bucket::Cluster(_)) => Bucket::Cluster,
        Some(pb::finding::Bucket::Namespace(namespace)) => Bucket::Namespace(namespace),
        Some(pb::finding::Bucket::Velero(_)) | None => Bucket::Velero,
    };
    TypedFinding { bucket, reason: reason(number).unwrap_or(Reason::Other), message }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;

    use super::*;
    use crate::cli::testing;

    #[test]
    fn a_restore_comes_back_as_it_was_sent() {
        let view = testing::view();
        assert_eq!(restore(view.clone().into()).unwrap(), view);
    }

    #[test]
    fn events_come_back_as_they_were_sent() {
        let name: Arc<str> = "again".into();
        let item = Arc::new(testing::item("web", Outcome::Failed, Some(Reason::Quota)));
        for event in [
            WatchEvent::Snapshot(Box::new(testing::view())),
            WatchEvent::Progress { name: Arc::clone(&name), progress: Arc::new(testing::progress()) },
            WatchEvent::Item { name: Arc::clone(&name), sequence: 7, item },
            WatchEvent::Gap { name: Arc::clone(&name), from: 3, to: 5 },
            WatchEvent::Ended(Box::new(testing::view())),
            WatchEvent::Deleted { name },
            WatchEvent::ShuttingDown,
        ] {
            let numbered = Numbered { sequence: 7, event };
            assert_eq!(super::event(numbered.clone().into()).unwrap(), Some(numbered));
        }
    }

    #[test]
    fn plans_come_back_as_they_were_sent() {
        use crate::cli::plan::tests::{entry, summary};
        let begun = PlanBegun { restore: "r".into(), backup: "b".into(), items: 3, dry_run: true, sandbox: false };
        for event in [
            PlanEvent::Begun(begun),
            PlanEvent::Entry(Box::new(entry())),
            PlanEvent::Ended(Box::new(summary())),
            PlanEvent::ShuttingDown,
        ] {
            let sent = crate::api::grpc::plan::event(event.clone()).unwrap();
            assert_eq!(plan_event(sent).unwrap(), Some(event));
        }
    }

    #[test]
    fn results_come_back_as_they_were_sent() {
        let finding = |bucket| TypedFinding { bucket, reason: Reason::Conflict, message: "m".to_owned() };
        let sent = RestoreResults {
            warnings: vec![finding(Bucket::Namespace("shop".to_owned())), finding(Bucket::Cluster)],
            errors: vec![finding(Bucket::Velero)],
            complete: true,
        };
        assert_eq!(results(sent.clone().into()), sent);
    }

    #[test]
    fn every_reason_comes_back() {
        for number in 1..=20 {
            let found = reason(number).unwrap();
            assert_eq!(i32::from(pb::Reason::from(found)), number);
        }
        assert_eq!(reason(0), None);
        assert_eq!(reason(999), Some(Reason::Other));
    }

    #[test]
    fn a_phase_of_another_version_is_an_error_and_not_a_guess() {
        let mut message: pb::Restore = testing::view().into();
        message.phase = 99;
        assert_eq!(restore(message).unwrap_err(), Error("phase"));
        let mut message: pb::Restore = testing::view().into();
        message.spec = None;
        assert_eq!(restore(message).unwrap().spec, json!({}));
    }
}
