//! `reprise restore plan`: what a restore would do to the live cluster, by a running service or on the spot.

use anyhow::bail;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::client::{Client, ServerArgs};
use super::engine_flags::{ClusterFlags, EngineFlags};
use super::exit::Exit;
use super::local::{self, LocalArgs};
use super::output::{self, Format, OutputArgs};
use super::restore_flags::{self, RestoreFlags, SourceFlags, Wanted};
use super::{decode, text};
use crate::api::grpc::{pb, spec};
use crate::api::http::plan::line;
use crate::model::{Denied, PlanAction, PlanCounts, PlanEntry, PlanSummary};
use crate::service::{PlanBegun, PlanEvent};

/// `reprise restore plan`.
#[derive(Args, Clone, Debug)]
pub(super) struct PlanArgs {
    /// A Restore that exists; with --from-backup or --from-schedule the name that a new one would have
    name: Option<String>,
    /// Plan on the spot, without a service: a backup's tarball, its folder, or s3://BUCKET/[PREFIX/]backups/NAME
    #[arg(long, value_name = "PATH or URL", conflicts_with_all = ["name", "from_backup", "from_schedule"])]
    from: Option<String>,
    #[command(flatten)]
    source: SourceFlags,
    #[command(flatten)]
    flags: RestoreFlags,
    /// With --from: compare with the live cluster; a kubeconfig that is named does so too
    ///
    /// Without, the cluster is only asked which kinds it serves, and the plan lists what is restored in which order.
    #[arg(long, requires = "from")]
    against_cluster: bool,
    /// Look objects up and compare them, without trying each write by a dry run: faster, and told less
    #[arg(long)]
    no_dry_run: bool,
    #[command(flatten)]
    cluster: ClusterFlags,
    #[command(flatten)]
    engine: EngineFlags,
    /// With --from: the namespace of Velero, where ConfigMaps of resource modifiers and item actions are looked for
    #[arg(long, short = 'n', default_value = "velero", value_name = "NAMESPACE")]
    namespace: String,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the plan.
pub(super) async fn plan(args: PlanArgs, stop: &CancellationToken) -> anyhow::Result<Exit> {
    let PlanArgs { name, from, source, flags, against_cluster, no_dry_run, cluster, engine, namespace, server, output } =
        args;
    if let Some(from) = from {
        let is_live = against_cluster || no_dry_run || cluster.names_a_cluster();
        let local = LocalArgs { from, flags, cluster, engine, namespace };
        return if is_live {
            local::preview(&local, None, !no_dry_run, output, stop).await
        } else {
            local::plan(&local, output, stop).await
        };
    }
    if cluster.sandbox || cluster.names_a_cluster() {
        bail!("--sandbox, --kubeconfig and --kubecontext go with --from; without it a running service makes the plan");
    }
    let request = request(name, &source, &flags, !no_dry_run)?;
    let client = Client::connect(&server.server).await?;
    let mut events = client.plan(request).await?;
    let mut printer = Printer::new(output, format!("the cluster of {}", client.server()));
    loop {
        let message = tokio::select! {
            message = events.message() => message.map_err(|status| super::client::told(&status))?,
            () = stop.cancelled() => return Ok(Exit::Interrupted),
        };
        let Some(message) = message else { bail!("the plan broke off; ask again") };
        let Some(event) = decode::plan_event(message)? else { continue };
        if let Some(exit) = printer.event(event)? {
            return Ok(exit);
        }
    }
}

/// A name alone is that of a Restore; anything more describes one that is not there.
fn request(
    name: Option<String>,
    source: &SourceFlags,
    flags: &RestoreFlags,
    dry_run: bool,
) -> Result<pb::PlanRestoreRequest, restore_flags::Error> {
    let Wanted { name: file_name, mut spec, .. } = flags.read()?;
    let wanted = match name {
        Some(name) if source.is_empty() && spec == Default::default() => {
            return Ok(pb::PlanRestoreRequest { name, spec: None, dry_run: Some(dry_run) });
        }
        name => name.or(file_name),
    };
    source.apply(&mut spec)?;
    let spec = spec::from_json(&serde_json::to_value(&spec).unwrap_or_default());
    Ok(pb::PlanRestoreRequest { name: wanted.unwrap_or_default(), spec: Some(spec), dry_run: Some(dry_run) })
}

/// Prints a plan as it comes.
pub(super) struct Printer {
    output: OutputArgs,
    place: String,
}

impl Printer {
    pub(super) const fn new(output: OutputArgs, place: String) -> Self {
        Self { output, place }
    }

    /// Prints one event; the exit code comes with the last.
    pub(super) fn event(&mut self, event: PlanEvent) -> anyhow::Result<Option<Exit>> {
        let last = match &event {
            PlanEvent::Begun(_) | PlanEvent::Entry(_) => None,
            PlanEvent::Ended(summary) => {
                Some(if summary.has_trouble() { Exit::PartiallyFailed } else { Exit::Success })
            }
            PlanEvent::Failed(error) => bail!("{error}"),
            PlanEvent::ShuttingDown => bail!("the service is going down; ask again in a moment"),
        };
        match self.output.output {
            Format::Json => output::line(&line(event, ""))?,
            Format::Text => output::lines(&self.lines(event))?,
        }
        Ok(last)
    }

    fn lines(&self, event: PlanEvent) -> Vec<String> {
        match event {
            PlanEvent::Begun(begun) => self.head(&begun),
            PlanEvent::Entry(entry) => vec![entry_line(&entry)],
            PlanEvent::Ended(summary) => summary_lines(&summary),
            PlanEvent::Failed(_) | PlanEvent::ShuttingDown => Vec::new(),
        }
    }

    fn head(&self, begun: &PlanBegun) -> Vec<String> {
        let PlanBegun { restore, backup, items, dry_run, sandbox } = begun;
        let place = if *sandbox { "the sandbox (an in-memory Kubernetes API, not a cluster)" } else { &self.place };
        let how = if *dry_run { "each write tried by a dry run" } else { "without dry runs" };
        vec![
            format!("Plan of restore {restore} from backup {backup} into {place}; nothing is written"),
            format!("{}, compared with what is there, {how}", text::plural(*items, "item")),
            String::new(),
        ]
    }
}

fn entry_line(entry: &PlanEntry) -> String {
    let mut line = format!("{:<10}{}", entry.action.as_str(), entry.key);
    for more in entry.reason.map(|reason| reason.as_str()).into_iter().chain(entry.message.as_deref()) {
        line.push_str(": ");
        line.push_str(more);
    }
    if !entry.differences.is_empty() {
        line.push_str(" [");
        line.push_str(&entry.differences.join(" "));
        line.push(']');
    }
    line
}

fn counts(counts: &PlanCounts) -> String {
    let there = counts.iter().filter(|(_, count)| **count > 0);
    let texts: Vec<String> = there
        .map(|(action, count): (&PlanAction, &u64)| format!("{} {}", action.as_str(), text::number(*count)))
        .collect();
    texts.join(", ")
}

fn summary_lines(summary: &PlanSummary) -> Vec<String> {
    let PlanSummary { items, actions, resources, denied, findings, warnings, errors } = summary;
    let mut lines = vec![String::new()];
    lines.extend(resources.iter().map(|(resource, actions)| format!("{resource}: {}", counts(actions))));
    for Denied { verb, group_resource, namespace } in denied {
        let place = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
        lines.push(format!("not allowed: {verb} {group_resource}{place}"));
    }
    lines.extend(findings.iter().map(|finding| format!("found: {}", text::finding(finding))));
    let all = if actions.is_empty() { String::new() } else { format!(": {}", counts(actions)) };
    lines.push(format!("{}{all}", text::plural(*items, "item")));
    let (errors, warnings) = (text::plural(*errors, "error"), text::plural(*warnings, "warning"));
    lines.push(format!("the restore would have {errors} and {warnings}"));
    lines
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::{GroupResource, ItemId, ItemKey, Origin, Reason};

    pub(in crate::cli) fn entry() -> PlanEntry {
        PlanEntry {
            id: ItemId(7),
            group_resource: GroupResource::parse("configmaps"),
            key: ItemKey::new("v1", "ConfigMap", "shop", "a"),
            origin: Origin::Planned,
            action: PlanAction::Conflict,
            reason: Some(Reason::Conflict),
            message: Some("it differs".to_owned()),
            differences: vec!["/data/a".to_owned()],
            dry_run: false,
        }
    }

    pub(in crate::cli) fn summary() -> PlanSummary {
        let configmaps = GroupResource::parse("configmaps");
        let actions = PlanCounts::from([(PlanAction::Create, 2), (PlanAction::Conflict, 1)]);
        let denied =
            Denied { verb: "create".to_owned(), group_resource: configmaps.clone(), namespace: "shop".to_owned() };
        PlanSummary {
            items: 3,
            resources: [(configmaps, actions.clone())].into(),
            actions,
            denied: vec![denied],
            warnings: 1,
            ..PlanSummary::default()
        }
    }

    #[test]
    fn an_entry_is_told_on_one_line() {
        assert_eq!(entry_line(&entry()), "conflict  v1/ConfigMap shop/a: conflict: it differs [/data/a]");
    }

    #[test]
    fn a_summary_tells_counts_and_what_is_not_allowed() {
        let lines = summary_lines(&summary());
        assert_eq!(lines[1], "configmaps: create 2, conflict 1");
        assert_eq!(lines[2], "not allowed: create configmaps in namespace shop");
        assert_eq!(lines[3..], ["3 items: create 2, conflict 1", "the restore would have 0 errors and 1 warning"]);
    }

    #[test]
    fn a_name_alone_is_that_of_a_restore_and_a_source_describes_a_new_one() {
        let backup = SourceFlags { from_backup: Some("nightly".to_owned()), from_schedule: None };
        let none = SourceFlags::default();
        let flags = RestoreFlags::default();
        let ask = |name: Option<&str>, source| request(name.map(str::to_owned), source, &flags, true);
        assert_eq!(ask(Some("again"), &none).unwrap().spec, None);
        let new = ask(Some("again"), &backup).unwrap();
        assert_eq!((new.name.as_str(), new.spec.unwrap().backup_name.as_str()), ("again", "nightly"));
        assert_eq!(ask(None, &backup).unwrap().name, "");
        assert!(matches!(ask(None, &none), Err(restore_flags::Error::Source)));
    }
}
