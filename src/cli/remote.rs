//! `reprise restore create|get|list|watch|items|results|logs`: talking to a running service.

use anyhow::bail;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::client::{self, Client, ItemQuery, ServerArgs};
use super::display::Display;
use super::exit::Exit;
use super::output::{self, Format, OutputArgs};
use super::restore_flags::{self, RestoreFlags, SourceFlags, Wanted};
use super::{table, text, watch};
use crate::api::grpc::{pb, spec};
use crate::api::http::json;
use crate::model::{ItemState, Phase};
use crate::service::RestoreView;

/// `reprise restore create`.
#[derive(Args, Clone, Debug)]
pub(super) struct CreateArgs {
    /// Name of the Restore; `<backup>-<YYYYMMDDhhmmss>` without it
    name: Option<String>,
    #[command(flatten)]
    source: SourceFlags,
    #[command(flatten)]
    flags: RestoreFlags,
    /// Watch the restore to its end, and exit with what it came to
    #[arg(long, short)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `reprise restore get|watch|results`.
#[derive(Args, Clone, Debug)]
pub(super) struct NameArgs {
    /// Name of the Restore
    name: String,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `reprise restore list`.
#[derive(Args, Clone, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `reprise restore logs`.
#[derive(Args, Clone, Debug)]
pub(super) struct LogsArgs {
    /// Name of the Restore
    name: String,
    /// Wait for what is still to come, until the restore ends
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `reprise restore items`.
#[derive(Args, Clone, Debug)]
pub(super) struct ItemsArgs {
    /// Name of the Restore
    name: String,
    /// Only items with these outcomes
    #[arg(long, value_enum, value_delimiter = ',', value_name = "OUTCOMES")]
    outcome: Vec<OutcomeName>,
    /// Only this group-resource, such as `deployments.apps`
    #[arg(long, value_name = "RESOURCE", default_value = "", hide_default_value = true)]
    resource: String,
    /// Only this target namespace; the empty name for cluster-scoped items
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutcomeName {
    Pending,
    Created,
    Updated,
    Unchanged,
    Skipped,
    Failed,
}

impl From<OutcomeName> for pb::Outcome {
    fn from(name: OutcomeName) -> Self {
        match name {
            OutcomeName::Pending => Self::Pending,
            OutcomeName::Created => Self::Created,
            OutcomeName::Updated => Self::Updated,
            OutcomeName::Unchanged => Self::Unchanged,
            OutcomeName::Skipped => Self::Skipped,
            OutcomeName::Failed => Self::Failed,
        }
    }
}

/// Creates a Restore; with `--wait` also watches it.
pub(super) async fn create(args: CreateArgs, stop: &CancellationToken) -> anyhow::Result<Exit> {
    let CreateArgs { name, source, flags, wait, server, output } = args;
    let Wanted { name: file_name, mut spec, labels, annotations } = flags.read()?;
    source.apply(&mut spec)?;
    let from = if spec.backup_name.is_empty() { &spec.schedule_name } else { &spec.backup_name };
    let name = restore_flags::restore_name(name.or(file_name).as_deref(), from, Timestamp::now())?;
    let request = pb::CreateRestoreRequest {
        name: name.to_string(),
        // A call that is repeated below us makes no second Restore.
        request_id: uuid::Uuid::new_v4().to_string(),
        spec: Some(spec::from_json(&serde_json::to_value(&spec)?)),
        labels,
        annotations,
    };
    let client = Client::connect(&server.server).await?;
    let view = client.create(request).await?;
    if wait {
        return follow(&client, &view.name, output, stop).await;
    }
    match output.output {
        Format::Json => output::line(&json::restore(view))?,
        Format::Text => {
            output::line(&format!(
                "Restore {} created; follow it with: reprise restore watch {}",
                view.name, view.name
            ))?;
        }
    }
    Ok(Exit::Success)
}

/// Watches a Restore to its end.
pub(super) async fn watch(args: NameArgs, stop: &CancellationToken) -> anyhow::Result<Exit> {
    let client = Client::connect(&args.server.server).await?;
    follow(&client, &args.name, args.output, stop).await
}

pub(super) async fn follow(
    client: &Client,
    name: &str,
    output: OutputArgs,
    stop: &CancellationToken,
) -> anyhow::Result<Exit> {
    let exit = watch::watch(client, name, &mut Display::new(output.output), stop).await?;
    if exit == Exit::Interrupted {
        let server = client.server();
        output::notice(&format!(
            "no longer watching; the restore goes on: reprise restore watch {name} --server {server}"
        ));
    }
    Ok(exit)
}

/// Prints one Restore.
pub(super) async fn get(args: NameArgs) -> anyhow::Result<Exit> {
    let view = Client::connect(&args.server.server).await?.get(&args.name).await?;
    match args.output.output {
        Format::Json => output::line(&json::restore(view))?,
        Format::Text => output::lines(&described(&view))?,
    }
    Ok(Exit::Success)
}

/// Prints all Restores.
pub(super) async fn list(args: ListArgs) -> anyhow::Result<Exit> {
    let views = Client::connect(&args.server.server).await?.list().await?;
    match args.output.output {
        Format::Json => views.into_iter().try_for_each(|view| output::line(&json::restore(view)))?,
        Format::Text if views.is_empty() => output::notice("there are no Restores"),
        Format::Text => {
            let rows: Vec<Vec<String>> = views.iter().map(row).collect();
            let header = ["NAME", "BACKUP", "PHASE", "ITEMS", "DONE", "ERRORS", "WARNINGS", "CREATED"];
            output::lines(&table::lines(&header, &rows))?;
        }
    }
    Ok(Exit::Success)
}

/// Prints the items of a Restore, page by page.
pub(super) async fn items(args: ItemsArgs) -> anyhow::Result<Exit> {
    let client = Client::connect(&args.server.server).await?;
    let query = ItemQuery {
        outcomes: args.outcome.into_iter().map(Into::into).collect(),
        resource: args.resource,
        namespace: args.namespace,
        page_size: 0,
    };
    let mut token = String::new();
    loop {
        let page = client.items(&args.name, &query, token).await?;
        match args.output.output {
            Format::Json => page.items.iter().try_for_each(|item| output::line(&json::item(item)))?,
            Format::Text => output::lines(&page.items.iter().map(item_line).collect::<Vec<_>>())?,
        }
        if page.next_page_token.is_empty() {
            return Ok(Exit::Success);
        }
        token = page.next_page_token;
    }
}

/// Prints warnings and errors.
pub(super) async fn results(args: NameArgs) -> anyhow::Result<Exit> {
    let results = Client::connect(&args.server.server).await?.results(&args.name).await?;
    if args.output.output == Format::Json {
        output::line(&json::results(results))?;
        return Ok(Exit::Success);
    }
    let told = |what: &'static str, findings: &[_]| -> Vec<String> {
        findings.iter().map(|finding| format!("{what}: {}", text::finding(finding))).collect()
    };
    output::lines(&told("error", &results.errors))?;
    output::lines(&told("warning", &results.warnings))?;
    if !results.complete {
        output::notice("the restore is not over; there may be more");
    }
    Ok(Exit::Success)
}

/// Prints the log.
pub(super) async fn logs(args: LogsArgs, stop: &CancellationToken) -> anyhow::Result<Exit> {
    use pb::log_event::Event;
    let mut events = Client::connect(&args.server.server).await?.logs(&args.name, args.follow).await?;
    loop {
        let message = tokio::select! {
            message = events.message() => message.map_err(|status| client::told(&status))?,
            () = stop.cancelled() => return Ok(Exit::Interrupted),
        };
        match message.map(|message| message.event) {
            Some(Some(Event::Lines(lines))) => {
                let lines = lines.lines.into_iter().map(|line| match args.output.output {
                    Format::Text => line,
                    Format::Json => serde_json::json!({ "line": line }).to_string(),
                });
                output::lines(&lines.collect::<Vec<_>>())?;
            }
            Some(Some(Event::Ended(_))) => return Ok(Exit::Success),
            Some(Some(Event::ShuttingDown(_))) => bail!("the service is going down; ask again in a moment"),
            Some(None) => {}
            None => bail!("the log broke off; ask again"),
        }
    }
}

fn row(view: &RestoreView) -> Vec<String> {
    vec![
        view.name.clone(),
        view.backup_name.clone(),
        view.phase.as_str().to_owned(),
        text::number(view.progress.total_items),
        if view.phase == Phase::FailedValidation { "-".to_owned() } else { format!("{} %", view.progress.percent()) },
        text::number(view.errors),
        text::number(view.warnings),
        view.created_at.map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default(),
    ]
}

fn described(view: &RestoreView) -> Vec<String> {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let mut rows = vec![
        ("Name", Some(view.name.clone())),
        ("Namespace", Some(view.namespace.clone())),
        ("Cluster", view.sandbox.then(|| "sandbox: an in-memory Kubernetes API, not a cluster".to_owned())),
        ("Backup", Some(view.backup_name.clone())),
        ("Phase", Some(view.phase.as_str().to_owned())),
        ("Queue", view.queue_position.map(|position| format!("number {position}"))),
        ("Progress", Some(text::line(&view.progress).trim_start().to_owned())),
        ("Errors", Some(text::number(view.errors))),
        ("Warnings", Some(text::number(view.warnings))),
        ("Created", time(view.created_at)),
        ("Started", time(view.started_at)),
        ("Completed", time(view.completed_at)),
        ("Reason", view.failure_reason.clone()),
    ];
    rows.extend(view.validation_errors.iter().map(|error| ("Not valid", Some(error.clone()))));
    rows.into_iter().filter_map(|(name, value)| Some(format!("{:<11}{}", format!("{name}:"), value?))).collect()
}

fn item_line(item: &ItemState) -> String {
    let mut line = format!("{:<10}{}", item.outcome.as_str(), item.key);
    for more in item.reason.map(|reason| reason.as_str()).into_iter().chain(item.message.as_deref()) {
        line.push_str(": ");
        line.push_str(more);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing;
    use crate::model::{Outcome, Reason};

    #[test]
    fn an_item_is_told_on_one_line() {
        assert_eq!(item_line(&testing::item("a", Outcome::Created, None)), "created   v1/ConfigMap shop/a");
        assert_eq!(
            item_line(&testing::item("a", Outcome::Failed, Some(Reason::Forbidden))),
            "failed    v1/ConfigMap shop/a: forbidden: the API server said no"
        );
    }

    #[test]
    fn a_restore_is_described_with_what_is_known_of_it() {
        let lines = described(&testing::view());
        assert_eq!(lines[0], "Name:      again");
        assert!(lines.iter().any(|line| line.contains("sandbox")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("Completed")), "{lines:?}");
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        assert_eq!(row(&testing::view())[2..5], ["InProgress", "2,950", "60 %"]);
    }
}
