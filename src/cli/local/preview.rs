//! `reprise restore plan --from … --against-cluster` and `reprise restore run --dry-run`: a plan against the live cluster
//! without a service.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::{LocalArgs, prepare};
use crate::cli::exit::Exit;
use crate::cli::output::{self, OutputArgs};
use crate::cli::plan::Printer;
use crate::engine::preview::{self, Options};
use crate::model::PlanStep;
use crate::service::{PlanBegun, PlanEvent};

/// Prints what the restore would do. One that would be refused exits as the restore would.
pub(in crate::cli) async fn preview(
    args: &LocalArgs,
    name: Option<&str>,
    dry_run: bool,
    output: OutputArgs,
    stop: &CancellationToken,
) -> anyhow::Result<Exit> {
    let prepared = prepare(args, name).await?;
    if let Err(error) = prepared.refusal() {
        output::notice(&format!("error: {error:#}"));
        return Ok(Exit::Failed);
    }
    let archive = prepared.read(stop).await.with_context(|| format!("read backup {}", prepared.source.name))?;
    let (place, sandbox) = (prepared.place(), prepared.address.is_none());
    let begun = PlanBegun {
        restore: prepared.job.restore_name.clone(),
        backup: prepared.source.name.clone(),
        items: 0,
        dry_run,
        sandbox,
    };
    let mut printer = Printer::new(output, place.clone());
    let cluster = Arc::clone(&prepared.cluster) as _;
    let mut steps = preview::preview(prepared.job, Arc::new(archive), cluster, Options { dry_run }, stop.clone());
    loop {
        let step = tokio::select! {
            step = steps.next() => step,
            () = stop.cancelled() => return Ok(Exit::Interrupted),
        };
        let Some(step) = step else { bail!("the plan ended without a last word") };
        let event = match step.with_context(|| format!("ask {place} what it serves"))? {
            PlanStep::Begun(items) => PlanEvent::Begun(PlanBegun { items, ..begun.clone() }),
            PlanStep::Entry(entry) => PlanEvent::Entry(entry),
            PlanStep::Ended(summary) => PlanEvent::Ended(summary),
        };
        if let Some(exit) = printer.event(event)? {
            return Ok(exit);
        }
    }
}
