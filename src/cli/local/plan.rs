//! `reprise restore plan --from …`: what would be restored in which order, without a look at the cluster's objects.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{LocalArgs, prepare};
use crate::cli::exit::Exit;
use crate::cli::output::{self, Format, OutputArgs};
use crate::cli::text;
use crate::engine;
use crate::engine::plan::{LeftOut, Plan, PlannedItem};
use crate::engine::ports::Cluster as _;
use crate::model::{Bucket, GroupResource, Severity, Stage};

/// Prints the plan. A plan that restores nothing because of an error exits as the restore would.
pub(in crate::cli) async fn plan(
    args: &LocalArgs,
    output: OutputArgs,
    stop: &CancellationToken,
) -> anyhow::Result<Exit> {
    let prepared = prepare(args, None).await?;
    if let Err(error) = prepared.refusal() {
        output::notice(&format!("error: {error:#}"));
        return Ok(Exit::Failed);
    }
    let discovery = prepared.cluster.discovery(true).await;
    let discovery = discovery.with_context(|| format!("ask {} what it serves", prepared.place()))?;
    let archive = prepared.read(stop).await.with_context(|| format!("read backup {}", prepared.source.name))?;
    let plan = engine::plan(&prepared.job, &archive, &discovery).plan;
    match output.output {
        Format::Text => {
            let head = format!(
                "Plan of restoring backup {} into {}; nothing is written",
                prepared.source.name,
                prepared.place()
            );
            output::lines(&lines(head, &plan))?;
        }
        Format::Json => {
            let sandbox = prepared.address.is_none();
            output::line(&document(&prepared.source.name, sandbox, &plan).to_string())?;
        }
    }
    let has_errors = plan.findings.iter().any(|(finding, _)| finding.severity == Severity::Error);
    Ok(if plan.aborted || has_errors { Exit::PartiallyFailed } else { Exit::Success })
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn is_namespaces(resource: &GroupResource) -> bool {
    *resource == "namespaces"
}

/// How many items are restored: Namespaces are ensured, and not counted among them.
fn total(plan: &Plan) -> u64 {
    count(plan.tiers.iter().filter(|tier| !is_namespaces(&tier.group_resource)).map(|tier| tier.items.len()).sum())
}

fn lines(head: String, plan: &Plan) -> Vec<String> {
    let mut lines = vec![head, String::new()];
    if !plan.namespaces.is_empty() {
        lines.push(format!("namespaces to ensure ({})", plan.namespaces.len()));
        for namespace in &plan.namespaces {
            let from = if namespace.source == namespace.target {
                String::new()
            } else {
                format!(" (from {})", namespace.source)
            };
            lines.push(format!("    {}{from}", namespace.target));
        }
    }
    for tier in plan.tiers.iter().filter(|tier| !is_namespaces(&tier.group_resource)) {
        let first = if tier.stage == Stage::CustomResourceDefinitions { ", before all others" } else { "" };
        lines.push(format!("{} ({}){first}", tier.group_resource, text::number(count(tier.items.len()))));
        lines.extend(tier.items.iter().map(|item| format!("    {}", place(item))));
    }
    if !plan.left_out.is_empty() {
        lines.push(format!("left out ({})", text::number(count(plan.left_out.len()))));
        lines.extend(plan.left_out.iter().map(|left| format!("    {}", left_out(left))));
    }
    for (finding, _) in &plan.findings {
        let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
        lines.push(format!("{severity}: {}", finding.message));
    }
    lines.push(String::new());
    let tiers = plan.tiers.iter().filter(|tier| !is_namespaces(&tier.group_resource)).count();
    lines.push(format!(
        "{} of {} in {}, {} left out",
        text::plural(total(plan), "item"),
        text::plural(count(tiers), "resource"),
        text::plural(count(plan.namespaces.len()), "namespace"),
        text::number(count(plan.left_out.len())),
    ));
    lines
}

/// Where an item goes, and where it comes from if that is elsewhere.
fn place(item: &PlannedItem) -> String {
    let mut text = String::new();
    if !item.target_namespace.is_empty() {
        let _ = write!(text, "{}/", item.target_namespace);
    }
    text.push_str(&item.name);
    if item.source_namespace != item.target_namespace {
        let _ = write!(text, " (from {})", item.source_namespace);
    }
    text
}

fn left_out(left: &LeftOut) -> String {
    let mut text = format!("{} {}: {}", left.group_resource, place(&left.item), left.reason.as_str());
    if !left.message.is_empty() {
        let _ = write!(text, ": {}", left.message);
    }
    text
}

fn document(backup: &str, sandbox: bool, plan: &Plan) -> Value {
    let item = |item: &PlannedItem| {
        json!({
            "sourceNamespace": item.source_namespace,
            "targetNamespace": item.target_namespace,
            "name": item.name,
            "apiVersion": item.api_version,
            "kind": item.kind,
        })
    };
    let tiers = plan.tiers.iter().filter(|tier| !is_namespaces(&tier.group_resource)).map(|tier| {
        json!({
            "groupResource": tier.group_resource,
            "stage": tier.stage.as_str(),
            "items": tier.items.iter().map(item).collect::<Vec<_>>(),
        })
    });
    let left_out = plan.left_out.iter().map(|left| {
        let mut value = item(&left.item);
        value["groupResource"] = json!(left.group_resource);
        value["reason"] = json!(left.reason.as_str());
        value["message"] = json!(left.message);
        value
    });
    let findings = plan.findings.iter().map(|(finding, reason)| {
        let (bucket, namespace) = match &finding.bucket {
            Bucket::Velero => ("velero", None),
            Bucket::Cluster => ("cluster", None),
            Bucket::Namespace(namespace) => ("namespace", Some(namespace)),
        };
        let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
        let mut value =
            json!({"severity": severity, "bucket": bucket, "reason": reason.as_str(), "message": finding.message});
        if let Some(namespace) = namespace {
            value["namespace"] = json!(namespace);
        }
        value
    });
    json!({
        "backup": backup,
        "sandbox": sandbox,
        "namespaces": plan.namespaces.iter().map(|namespace| json!({"source": namespace.source, "target": namespace.target})).collect::<Vec<_>>(),
        "tiers": tiers.collect::<Vec<_>>(),
        "leftOut": left_out.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
        "totals": {"items": total(plan), "leftOut": plan.left_out.len()},
        "aborted": plan.aborted,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::archive::testing::Backup;
    use crate::archive::{Archive, ReadOptions};
    use crate::engine::plan::{PlannedNamespace, Tier};
    use crate::model::{Finding, Reason};

    fn archive() -> Archive {
        let config = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": name}});
        Backup::new().with_all([config("a"), config("b")]).read(&ReadOptions::default()).unwrap()
    }

    fn item(archive: &Archive, name: &str) -> PlannedItem {
        let configmaps = GroupResource::parse("configmaps");
        PlannedItem {
            entry: archive.find(&configmaps, "shop", name).unwrap(),
            source_namespace: "shop".into(),
            target_namespace: "store".into(),
            name: name.into(),
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
        }
    }

    fn sample() -> Plan {
        let archive = archive();
        let group_resource = GroupResource::parse("configmaps");
        let finding =
            Finding { severity: Severity::Warning, bucket: Bucket::of("store"), message: "look out".to_owned() };
        Plan {
            tiers: vec![Tier {
                group_resource: group_resource.clone(),
                stage: Stage::Items,
                items: vec![item(&archive, "a")],
            }],
            namespaces: vec![PlannedNamespace { source: "shop".into(), target: "store".into() }],
            left_out: vec![LeftOut {
                group_resource,
                item: item(&archive, "b"),
                reason: Reason::Completed,
                message: "it is done".to_owned(),
            }],
            findings: vec![(finding, Reason::Other)],
            aborted: false,
        }
    }

    #[test]
    fn a_plan_is_printed_tier_by_tier_with_what_is_left_out_and_why() {
        let lines = lines("Plan".to_owned(), &sample());
        assert_eq!(
            lines,
            [
                "Plan",
                "",
                "namespaces to ensure (1)",
                "    store (from shop)",
                "configmaps (1)",
                "    store/a (from shop)",
                "left out (1)",
                "    configmaps store/b (from shop): completed: it is done",
                "warning: look out",
                "",
                "1 item of 1 resource in 1 namespace, 1 left out",
            ]
        );
    }

    #[test]
    fn a_plan_is_one_json_object() {
        let value = document("nightly", true, &sample());
        assert_eq!(value["tiers"][0]["items"][0]["targetNamespace"], "store");
        assert_eq!(value["leftOut"][0]["reason"], "completed");
        assert_eq!(value["findings"][0]["namespace"], "store");
        assert_eq!(value["totals"], json!({"items": 1, "leftOut": 1}));
    }
}
