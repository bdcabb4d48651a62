//! Plans as messages.

use tonic::Status;

use super::{convert, pb, spec, status};
use crate::model::{Denied, PlanAction, PlanCounts, PlanEntry, PlanSummary};
use crate::service::{Error, PlanBegun, PlanEvent, PlanRestore, PlanSource};

/// A request for a plan.
///
/// # Errors
/// When the name is wrong, or neither a name nor a spec is there.
pub fn request(request: pb::PlanRestoreRequest) -> Result<PlanRestore, Error> {
    let pb::PlanRestoreRequest { name, spec, dry_run } = request;
    let source = match spec {
        None if name.is_empty() => {
            return Err(Error::invalid(
                "spec",
                "neither name nor spec is there: name a Restore, or say what to restore",
            ));
        }
        None => PlanSource::Restore(convert::name(&name)?),
        Some(spec) => {
            let name = if name.is_empty() { None } else { Some(convert::name(&name)?) };
            PlanSource::Spec { name, spec: spec::to_json(spec) }
        }
    };
    Ok(PlanRestore { source, dry_run: dry_run.unwrap_or(true) })
}

impl From<PlanAction> for pb::PlanAction {
    fn from(action: PlanAction) -> Self {
        match action {
            PlanAction::Create => Self::Create,
            PlanAction::Update => Self::Update,
            PlanAction::Unchanged => Self::Unchanged,
            PlanAction::Conflict => Self::Conflict,
            PlanAction::Skip => Self::Skip,
            PlanAction::Forbidden => Self::Forbidden,
            PlanAction::Invalid => Self::Invalid,
            PlanAction::Fail => Self::Fail,
            PlanAction::Unknown => Self::Unknown,
        }
    }
}

impl From<PlanEntry> for pb::PlanEntry {
    fn from(entry: PlanEntry) -> Self {
        let PlanEntry { id, group_resource, key, origin, action, reason, message, differences, dry_run } = entry;
        Self {
            id: id.0,
            group_resource: group_resource.to_string(),
            api_version_kind: key.api_version_kind.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            origin: pb::Origin::from(origin).into(),
            action: pb::PlanAction::from(action).into(),
            reason: reason.map_or(pb::Reason::Unspecified, Into::into).into(),
            message,
            differences,
            dry_run,
        }
    }
}

fn counts(counts: PlanCounts) -> Vec<pb::PlanCount> {
    let count = |(action, count)| pb::PlanCount { action: pb::PlanAction::from(action).into(), count };
    counts.into_iter().map(count).collect()
}

impl From<PlanSummary> for pb::PlanSummary {
    fn from(summary: PlanSummary) -> Self {
        let PlanSummary { items, actions, resources, denied, findings, warnings, errors } = summary;
        let resource = |(group_resource, actions): (crate::model::GroupResource, _)| pb::PlanResource {
            group_resource: group_resource.to_string(),
            actions: counts(actions),
        };
        let denial = |Denied { verb, group_resource, namespace }| pb::PlanDenied {
            verb,
            group_resource: group_resource.to_string(),
            namespace,
        };
        Self {
            items,
            actions: counts(actions),
            resources: resources.into_iter().map(resource).collect(),
            denied: denied.into_iter().map(denial).collect(),
            findings: findings.into_iter().map(Into::into).collect(),
            warnings,
            errors,
        }
    }
}

/// An event, or the status that ends the stream in its place.
///
/// # Errors
/// The status of a plan that could not be made to its end.
#[allow(clippy::result_large_err, reason = "tonic's own type")]
pub fn event(event: PlanEvent) -> Result<pb::PlanEvent, Status> {
    use pb::plan_event::Event;
    let event = match event {
        PlanEvent::Begun(PlanBegun { restore, backup, items, dry_run, sandbox }) => {
            Event::Begun(pb::PlanBegun { restore, backup, items, dry_run, sandbox })
        }
        PlanEvent::Entry(entry) => Event::Entry((*entry).into()),
        PlanEvent::Ended(summary) => Event::Ended((*summary).into()),
        PlanEvent::Failed(error) => return Err(status(error)),
        PlanEvent::ShuttingDown => Event::ShuttingDown(pb::ShuttingDown {}),
    };
    Ok(pb::PlanEvent { event: Some(event) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_action_has_the_name_of_the_model_in_screaming_case() {
        for action in PlanAction::ALL {
            let wire = pb::PlanAction::from(action).as_str_name();
            assert_eq!(wire.to_lowercase().replace('_', "-"), format!("plan-action-{}", action.as_str()));
        }
    }

    #[test]
    fn a_plan_needs_a_name_or_a_spec_and_makes_dry_runs_unless_told_not_to() {
        let ask = |name: &str, spec: Option<pb::RestoreSpec>, dry_run| {
            request(pb::PlanRestoreRequest { name: name.to_owned(), spec, dry_run })
        };
        assert_eq!(ask("", None, None).unwrap_err().field.as_deref(), Some("spec"));
        assert_eq!(ask("Not_A_Name", None, None).unwrap_err().field.as_deref(), Some("name"));
        assert!(matches!(ask("a", None, None).unwrap(), PlanRestore { source: PlanSource::Restore(_), dry_run: true }));
        let of_spec = ask("", Some(pb::RestoreSpec::default()), Some(false)).unwrap();
        assert!(matches!(of_spec, PlanRestore { source: PlanSource::Spec { name: None, .. }, dry_run: false }));
    }
}
