//! `reprise restore run`.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{LocalArgs, Prepared, prepare};
use crate::api::watch::Numbered;
use crate::archive::{self, Archive};
use crate::cli::display::Display;
use crate::cli::exit::Exit;
use crate::cli::output::{self, OutputArgs};
use crate::cli::summary::{FAILED_ASKED, Summary};
use crate::engine::events::{Event, Events};
use crate::engine::ports::Cluster as _;
use crate::engine::{self, ExecHooks};
use crate::model::{ItemFilter, Outcome, Phase, Progress, Reason, RestoreName, Stage, error_chain};
use crate::progress::{self, Hub, RestoreProgress, Update};
use crate::service::{RestoreResults, RestoreView, WatchEvent};

/// `reprise restore run`.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct RunArgs {
    /// Name of the restore, which labels what it creates; `<backup>-<YYYYMMDDhhmmss>` without it
    name: Option<String>,
    #[command(flatten)]
    local: LocalArgs,
    /// Only tell what would be done, as `plan --against-cluster` does; nothing is written
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Restores, shows it going by, and says what it came to.
pub(in crate::cli) async fn run(args: RunArgs, stop: &CancellationToken) -> anyhow::Result<Exit> {
    if args.dry_run {
        return super::preview(&args.local, args.name.as_deref(), true, args.output, stop).await;
    }
    let prepared = Arc::new(prepare(&args.local, args.name.as_deref()).await?);
    let mut display = Display::new(args.output.output);
    if prepared.address.is_some() {
        display.notice(&format!("restoring into {}", prepared.place()));
    }
    let options =
        progress::Options { namespace: prepared.job.velero_namespace.clone(), ..progress::Options::default() };
    let hub = Hub::new(options, CancellationToken::new());
    let name: RestoreName = prepared.job.restore_name.parse()?;
    let followed = hub.create(&name)?;
    let template = view(&prepared)?;

    let mut updates = Box::pin(followed.subscribe(None).into_stream());
    let mut work = tokio::spawn(execute(Arc::clone(&prepared), Arc::clone(&followed), stop.clone()));
    let (mut at, mut shown, mut is_working) = (0, Ok(()), true);
    let mut last = None;
    loop {
        tokio::select! {
            biased;
            update = updates.next() => {
                let Some(numbered) = update.and_then(|update| number(&template, update, &mut at)) else { break };
                if shown.is_ok() {
                    shown = display.event(&numbered);
                    if shown.is_err() {
                        // Nobody looks any more; what is in flight is finished all the same.
                        stop.cancel();
                    }
                }
                if let WatchEvent::Ended(view) = numbered.event {
                    last = Some(view);
                }
            }
            ended = &mut work, if is_working => {
                is_working = false;
                ended.context("the restore ended unexpectedly")?;
            }
        }
    }
    if is_working {
        work.await.context("the restore ended unexpectedly")?;
    }
    shown?;
    let view = last.context("the restore ended without a last word")?;
    if !display.is_json() {
        tell(&followed, &view)?;
    }
    Ok(Exit::of(view.phase))
}

fn tell(followed: &RestoreProgress, view: &RestoreView) -> std::io::Result<()> {
    let filter = ItemFilter { outcomes: vec![Outcome::Failed], ..ItemFilter::default() };
    let failed = followed.items(&filter, None, FAILED_ASKED as usize).items;
    let findings = followed.findings();
    let results = RestoreResults { warnings: findings.warnings, errors: findings.errors, complete: true };
    output::lines(&Summary { view, failed: &failed, results: &results }.lines())
}

/// Restores; the progress has a terminal phase in the end, whatever happens.
async fn execute(prepared: Arc<Prepared>, followed: Arc<RestoreProgress>, stop: CancellationToken) {
    let (phase, reason) = match prepared.refusal() {
        Err(error) => (Phase::FailedValidation, Some(format!("{error:#}"))),
        Ok(()) => match restore(&prepared, &followed, &stop).await {
            Ok(phase) => (phase, None),
            Err(reason) => (Phase::Failed, Some(reason)),
        },
    };
    followed.finish(phase, reason);
}

/// The terminal phase, or why the restore failed.
async fn restore(
    prepared: &Prepared,
    followed: &Arc<RestoreProgress>,
    stop: &CancellationToken,
) -> Result<Phase, String> {
    followed.set_started_at(Timestamp::now());
    followed.set_phase(Phase::InProgress);
    followed.emit(Event::Stage(Stage::Collecting));
    // Somebody waits at the prompt: an address that is wrong is told at once, and not tried for minutes as in mid-restore.
    if let Err(error) = prepared.cluster.discovery(true).await {
        return Err(format!("ask {} what it serves: {error}", prepared.place()));
    }
    let archive: Archive = match prepared.read(stop).await {
        Ok(archive) => archive,
        Err(archive::Error::Cancelled) => {
            return Err("stopped while the backup was being read; nothing was written".to_owned());
        }
        Err(error) => return Err(format!("read backup {}: {}", prepared.source.name, error_chain(&error))),
    };
    let report = engine::run(
        Arc::new(prepared.job.clone()),
        Arc::new(archive),
        Arc::clone(&prepared.cluster) as _,
        Arc::clone(&prepared.exec),
        Arc::clone(followed) as _,
        stop.clone(),
    )
    .await
    .map_err(|error| format!("ask {} what it serves: {error}", prepared.place()))?;
    followed.close();
    if report.cancelled {
        return Err(stopped(&followed.snapshot()));
    }
    let hook_errors = wait_for_hooks(report.exec_hooks, followed, stop).await?;
    let failed = report.results.errors.count() + hook_errors > 0;
    Ok(if failed { Phase::PartiallyFailed } else { Phase::Completed })
}

/// Waits for exec hooks, of which those that were not run when it is stopped never are; gives how many failed.
async fn wait_for_hooks(
    hooks: ExecHooks,
    followed: &RestoreProgress,
    stop: &CancellationToken,
) -> Result<usize, String> {
    if hooks.is_empty() {
        return Ok(0);
    }
    followed.emit(Event::Stage(Stage::Hooks));
    let outcome = tokio::select! {
        outcome = hooks.wait(followed) => outcome,
        () = stop.cancelled() => {
            return Err("stopped while exec hooks were waited for: all items are restored, and hooks that have not run \
                        are not run"
                .to_owned());
        }
    };
    for finding in outcome.findings {
        followed.emit(Event::Finding(finding, Reason::Other));
    }
    Ok(outcome.failed)
}

/// What was done before it was stopped.
fn stopped(progress: &Progress) -> String {
    let outcomes = progress.outcomes;
    format!(
        "stopped before the end: {} items were created and {} updated, which stay; run it again to do the rest",
        outcomes.created, outcomes.updated
    )
}

/// The restore as a service would tell of it.
fn view(prepared: &Prepared) -> anyhow::Result<RestoreView> {
    let mut spec = serde_json::to_value(&prepared.spec)?;
    if let Value::Object(fields) = &mut spec {
        fields.retain(|_, value| value.as_object().is_none_or(|inner| !inner.is_empty()));
    }
    Ok(RestoreView {
        name: prepared.job.restore_name.clone(),
        namespace: prepared.job.velero_namespace.clone(),
        uid: prepared.job.restore_uid.clone(),
        backup_name: prepared.source.name.clone(),
        spec,
        labels: prepared.labels.clone(),
        annotations: prepared.annotations.clone(),
        phase: Phase::New,
        validation_errors: prepared.validation_errors.clone(),
        failure_reason: None,
        warnings: 0,
        errors: 0,
        created_at: None,
        started_at: None,
        completed_at: None,
        progress: Arc::default(),
        queue_position: None,
        sandbox: prepared.address.is_none(),
    })
}

/// An update as a service would send it; nothing for those that only a service has.
fn number(template: &RestoreView, update: Update, at: &mut u64) -> Option<Numbered> {
    let with = |progress: Arc<Progress>| {
        let ended = progress.phase.is_terminal();
        Box::new(RestoreView {
            phase: progress.phase,
            // That of a refused restore is its validation errors.
            failure_reason: progress.failure_reason.clone().filter(|_| progress.phase == Phase::Failed),
            warnings: progress.warnings,
            errors: progress.errors,
            started_at: progress.started_at,
            completed_at: ended.then(Timestamp::now),
            progress,
            ..template.clone()
        })
    };
    let name: Arc<str> = template.name.as_str().into();
    let event = match update {
        Update::Snapshot(progress) => {
            *at = progress.sequence;
            WatchEvent::Snapshot(with(progress))
        }
        Update::Progress(progress) => WatchEvent::Progress { name, progress },
        Update::Item { sequence, item } => {
            *at = sequence;
            WatchEvent::Item { name, sequence, item }
        }
        Update::Gap { from, to } => {
            *at = to;
            WatchEvent::Gap { name, from, to }
        }
        Update::Ended(progress) => {
            *at = progress.sequence;
            WatchEvent::Ended(with(progress))
        }
        Update::Deleted | Update::ShuttingDown => return None,
    };
    Some(Numbered { sequence: *at, event })
}
