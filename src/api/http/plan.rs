//! Plans, as one JSON object on each line (`application/x-ndjson`): a plan of a hundred thousand items is never whole in
//! memory, neither here nor in a client that reads by lines.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{Finding, Origin, Reason};
use super::problem::{Problem, ProblemBody};
use super::request::{self, Name, Params};
use crate::api::Context;
use crate::api::plan::plan;
use crate::model;
use crate::service::{self, PlanEvent, PlanRestore, PlanSource};
use crate::telemetry::metrics::Door;

/// Plans a Restore that exists, against the live cluster; nothing is written.
#[utoipa::path(
    get, path = "/api/v1/restores/{name}/plan", operation_id = "planRestore", tag = "plans",
    description = "One JSON object on each line: `begun`, an `entry` for each item in the order of the restore, and last \
        `ended`, `failed` or `shutting-down`.",
    params(
        ("name" = String, Path, description = "Name of the Restore"),
        ("dryRun" = Option<bool>, Query, description = "Whether each write is tried by a dry run; yes without it"),
    ),
    responses(
        (status = 200, description = "The plan", body = PlanLine, content_type = "application/x-ndjson"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_restore(
    State(context): State<Context>,
    Name(name): Name,
    uri: Uri,
) -> Result<Response, Problem> {
    let dry_run = Params::parse(&uri, &["dryRun"])?.flag_or("dryRun", true)?;
    answer(&context, PlanRestore { source: PlanSource::Restore(name), dry_run }, &uri).await
}

/// Plans a restore that does not exist yet, against the live cluster; nothing is written.
#[utoipa::path(
    post, path = "/api/v1/plan", operation_id = "planSpec", tag = "plans",
    description = "The body is that of creating a Restore, where the name may be left out; `dryRun` is a query parameter. The answer \
        is as for a Restore that exists. A specification that is not valid is a problem with all `violations`.",
    params(
        ("dryRun" = Option<bool>, Query, description = "Whether each write is tried by a dry run; yes without it"),
    ),
    request_body(content(
        (request::PlanBody = "application/json"),
        (request::PlanBody = "application/yaml"),
    )),
    responses(
        (status = 200, description = "The plan", body = PlanLine, content_type = "application/x-ndjson"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_spec(
    State(context): State<Context>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let dry_run = Params::parse(&uri, &["dryRun"])?.flag_or("dryRun", true)?;
    let source = request::plan(&headers, body).await?;
    answer(&context, PlanRestore { source, dry_run }, &uri).await
}

async fn answer(context: &Context, request: PlanRestore, uri: &Uri) -> Result<Response, Problem> {
    let instance = uri.path().to_owned();
    let events = plan(context, Door::Http, request).await?;
    let lines = events.map(move |event| Ok::<_, std::convert::Infallible>(Bytes::from(line(event, &instance) + "\n")));
    // nginx and its kin hold answers back to fill a buffer unless told not to.
    let headers = [(header::CONTENT_TYPE.as_str(), "application/x-ndjson"), ("x-accel-buffering", "no")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// An event as a line, without its end.
#[must_use]
pub fn line(event: PlanEvent, instance: &str) -> String {
    let line = match event {
        PlanEvent::Begun(begun) => PlanLine::Begun(begun.into()),
        PlanEvent::Entry(entry) => PlanLine::Entry((*entry).into()),
        PlanEvent::Ended(summary) => PlanLine::Ended((*summary).into()),
        PlanEvent::Failed(error) => PlanLine::Failed(Problem::from(error).document(instance)),
        PlanEvent::ShuttingDown => PlanLine::ShuttingDown,
    };
    // Text keys and numbers always have a JSON form, and its text has no line ends.
    serde_json::to_string(&line).unwrap_or_default()
}

/// One line of a plan.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum PlanLine {
    /// The first.
    Begun(PlanBegun),
    /// One item.
    Entry(PlanEntry),
    /// The last: what all of it comes to.
    Ended(PlanSummary),
    /// The last of a plan that could not be made to its end: the problem.
    Failed(ProblemBody),
    /// The last when the service goes down.
    ShuttingDown,
}

/// The begin of a plan.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PlanBegun {
    /// Name of the Restore, or the one it would have.
    restore: String,
    /// The backup that would be restored.
    backup: String,
    /// How many items of the backup it begins with; namespaces, additional items and those left out come on top.
    items: u64,
    /// Whether dry runs are made.
    dry_run: bool,
    /// Whether the cluster is the in-memory sandbox, and not a real one.
    sandbox: bool,
}

impl From<service::PlanBegun> for PlanBegun {
    fn from(begun: service::PlanBegun) -> Self {
        let service::PlanBegun { restore, backup, items, dry_run, sandbox } = begun;
        Self { restore, backup, items, dry_run, sandbox }
    }
}

/// What would be done with an item.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum PlanAction {
    Create,
    Update,
    Unchanged,
    Conflict,
    Skip,
    Forbidden,
    Invalid,
    Fail,
    Unknown,
}

impl From<model::PlanAction> for PlanAction {
    fn from(action: model::PlanAction) -> Self {
        match action {
            model::PlanAction::Create => Self::Create,
            model::PlanAction::Update => Self::Update,
            model::PlanAction::Unchanged => Self::Unchanged,
            model::PlanAction::Conflict => Self::Conflict,
            model::PlanAction::Skip => Self::Skip,
            model::PlanAction::Forbidden => Self::Forbidden,
            model::PlanAction::Invalid => Self::Invalid,
            model::PlanAction::Fail => Self::Fail,
            model::PlanAction::Unknown => Self::Unknown,
        }
    }
}

/// What would be done with one item, and why.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PlanEntry {
    /// Number of the item.
    id: u32,
    /// Its group-resource, such as `deployments.apps`.
    group_resource: String,
    /// Its API version and kind, such as `apps/v1/Deployment`.
    api_version_kind: String,
    /// Target namespace; empty for a cluster-scoped item.
    namespace: String,
    /// Name in the backup.
    name: String,
    /// How it came into the plan.
    origin: Origin,
    /// What would be done.
    action: PlanAction,
    /// Why, where it would not simply be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// More about it, such as the API server's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// JSON pointers to the first places where the live object differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<String>,
    /// Whether the API server was asked by a dry run of this very write.
    dry_run: bool,
}

impl From<model::PlanEntry> for PlanEntry {
    fn from(entry: model::PlanEntry) -> Self {
        let model::PlanEntry { id, group_resource, key, origin, action, reason, message, differences, dry_run } = entry;
        Self {
            id: id.0,
            group_resource: group_resource.to_string(),
            api_version_kind: key.api_version_kind.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            origin: origin.into(),
            action: action.into(),
            reason: reason.map(Into::into),
            message,
            differences,
            dry_run,
        }
    }
}

/// A verb that the service may not use.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PlanDenied {
    /// `create` or `patch`.
    verb: String,
    /// The group-resource.
    group_resource: String,
    /// The namespace; empty for cluster scope.
    namespace: String,
}

/// What a plan comes to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PlanSummary {
    /// How many entries there were.
    items: u64,
    /// Counts by action.
    actions: BTreeMap<&'static str, u64>,
    /// Counts by group-resource and action.
    resources: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// What the service may not do and would have to.
    denied: Vec<PlanDenied>,
    /// Warnings and errors that belong to no item, such as a selector that is not valid; then nothing is restored.
    findings: Vec<Finding>,
    /// How many warnings the restore would have.
    warnings: u64,
    /// How many errors the restore would have.
    errors: u64,
}

fn counts(counts: model::PlanCounts) -> BTreeMap<&'static str, u64> {
    counts.into_iter().map(|(action, count)| (action.as_str(), count)).collect()
}

impl From<model::PlanSummary> for PlanSummary {
    fn from(summary: model::PlanSummary) -> Self {
        let model::PlanSummary { items, actions, resources, denied, findings, warnings, errors } = summary;
        let denial = |denied: model::Denied| PlanDenied {
            verb: denied.verb,
            group_resource: denied.group_resource.to_string(),
            namespace: denied.namespace,
        };
        Self {
            items,
            actions: counts(actions),
            resources: resources.into_iter().map(|(key, actions)| (key.to_string(), counts(actions))).collect(),
            denied: denied.into_iter().map(denial).collect(),
            findings: findings.into_iter().map(Into::into).collect(),
            warnings,
            errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_the_name_of_the_model() {
        for action in model::PlanAction::ALL {
            assert_eq!(serde_json::json!(PlanAction::from(action)), action.as_str());
        }
    }

    #[test]
    fn a_plan_that_breaks_off_says_why_on_its_last_line() {
        let error = service::Error::new(service::Code::Unavailable, "away");
        let told: serde_json::Value = serde_json::from_str(&line(PlanEvent::Failed(error), "/x")).unwrap_or_default();
        assert_eq!((&told["event"], &told["code"]), (&"failed".into(), &"UNAVAILABLE".into()));
        assert_eq!(line(PlanEvent::ShuttingDown, "/x"), r#"{"event":"shutting-down"}"#);
    }
}
