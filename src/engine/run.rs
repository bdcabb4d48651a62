//! One restore from begin to end: plan, then tier by tier.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::actions;
use super::collect::{self, Collected};
use super::discovery::Discovery;
use super::events::{Event, Events, Finished, KnownItem, LogLevel, VeleroCount};
use super::hooks::ExecHooks;
use super::job::Job;
use super::operations::Operation;
use super::plan::{LeftOut, Plan, PlannedItem, Tier};
use super::ports::exec::PodExec;
use super::ports::{ApiError, Cluster};
use super::preview::Overlay;
use super::restore::{Parts, PodVolumesUnderWay, RestoredPodVolume, Run};
use super::retry::{Attempts, Backoff, retrying};
use super::versions::Chosen;
use crate::archive::{Archive, EntryId};
use crate::model::{GroupResource, ItemId, ItemKey, Origin, Outcome, Reason, Results, Stage};

/// What a run of the engine came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Warnings and errors by bucket.
    pub results: Results,
    /// What was done, as the resource-list file has it (restore-semantics 6.5).
    pub resource_list: BTreeMap<String, Vec<String>>,
    /// How many items entered the map of restored items: Velero's final `totalItems` and `itemsRestored`.
    pub restored: usize,
    /// Whether the run was stopped before its end.
    pub cancelled: bool,
    /// How many planned items were not begun, as the run was stopped.
    pub never_begun: usize,
    /// Whether anything was planned at all; an early end writes no progress.
    pub planned: bool,
    /// Asynchronous operations that item actions started, which go on after the run.
    pub operations: Vec<Operation>,
    /// Exec hooks of restored pods, which may go on for long; whoever wraps up waits for them. They end when this is dropped.
    pub exec_hooks: ExecHooks,
    /// Pod volumes whose data is still under way; see [`Report::wait_for_pod_volumes`].
    pub(super) pod_volumes: Option<PodVolumesUnderWay>,
    /// Pod volumes whose data was restored, or could not be, once they were waited for.
    pub restored_pod_volumes: Vec<RestoredPodVolume>,
}

impl Report {
    /// Of a run that was stopped before anything was planned.
    #[must_use]
    pub fn stopped() -> Self {
        Self { cancelled: true, ..Self::default() }
    }

    /// Of a run of which only the list of what it did is left.
    #[must_use]
    pub fn of_resource_list(resource_list: BTreeMap<String, Vec<String>>) -> Self {
        Self { resource_list, ..Self::default() }
    }

    /// Waits until the data of all pod volumes is restored or given up, and takes in what was found (restore-semantics
    /// 5.13). Velero waits here, after its last progress and before it writes files.
    ///
    /// `false` when the run was stopped meanwhile: the restore is then to be run again, or was cancelled.
    pub async fn wait_for_pod_volumes(&mut self) -> bool {
        let Some(under_way) = self.pod_volumes.take() else { return true };
        let ended = under_way.wait().await;
        self.results.append(ended.results);
        self.restored_pod_volumes = ended.volumes;
        !ended.stopped
    }
}

/// The plan of a restore, and the filters it was made by.
#[must_use]
pub fn plan(job: &Job, archive: &Archive, discovery: &Discovery) -> Collected {
    let every_version = job.api_group_versions().then(|| discovery.with_every_version());
    let discovery = every_version.as_ref().unwrap_or(discovery);
    let chosen = job.versions.as_ref().map(|policy| policy.choose(archive, discovery)).transpose();
    let versions = match chosen {
        Ok(chosen) => chosen.unwrap_or_default(),
        Err(message) if archive.has_resources_directory() => return Collected::aborted(message, Reason::Discovery),
        Err(_) => Chosen::default(),
    };
    let priorities = &job.settings.priorities;
    collect::collect(&collect::CollectInput { archive, spec: &job.spec, discovery, priorities, versions: &versions })
}

/// Restores the archive into the cluster, and tells what it does through `events`.
///
/// A damaged archive, a bad selector or a broken item are findings in the report and not errors: the restore
/// then ends `PartiallyFailed`.
///
/// # Errors
/// Only when the API server cannot be asked what it serves, before anything was written.
///
/// # Cancellation
/// When `stop` fires, items in flight are finished and all others are reported as skipped.
pub async fn run(
    job: Arc<Job>,
    archive: Arc<Archive>,
    cluster: Arc<dyn Cluster>,
    exec: Arc<dyn PodExec>,
    events: Arc<dyn Events>,
    stop: CancellationToken,
) -> Result<Report, ApiError> {
    run_with(job, archive, cluster, exec, None, events, stop).await
}

/// The same, on a cluster that is a preview's where there is one: what is told is then what a restore would do.
pub(super) async fn run_with(
    job: Arc<Job>,
    archive: Arc<Archive>,
    cluster: Arc<dyn Cluster>,
    exec: Arc<dyn PodExec>,
    preview: Option<Arc<Overlay>>,
    events: Arc<dyn Events>,
    stop: CancellationToken,
) -> Result<Report, ApiError> {
    let begun = Instant::now();
    let mut attempts = Attempts::default();
    let discovery = tokio::select! {
        discovery = retrying(Backoff::default(), &mut attempts, || cluster.discovery(true)) => discovery?,
        () = stop.cancelled() => return Ok(Report::stopped()),
    };
    let discovery = discovery_for(&job, discovery);
    let Collected { plan, filters } = plan(&job, &archive, &discovery);
    let mut report = Report::default();
    for (finding, reason) in &plan.findings {
        report.results.add(finding.clone());
        events.emit(Event::Finding(finding.clone(), *reason));
    }
    // An early end: a selector or wildcard that is not valid, or nothing to restore. No progress is written then.
    let (Some(filters), true) = (filters, archive.has_resources_directory()) else { return Ok(report) };
    let (items, entries) = known_items(&plan);
    let total = items.len();
    events.emit(Event::Planned(items));
    report_left_out(&plan.left_out, total, &*events);
    events.emit(Event::Log(LogLevel::Info, format!("{total} items will be restored from backup {}", job.backup_name)));

    let lookup = actions::Lookup::read(Arc::clone(&cluster), &job.velero_namespace).await;
    let parts = Parts { job, archive, cluster, exec, events, filters, discovery, lookup, stop, preview, begun };
    let events = Arc::clone(&parts.events);
    // Numbers of left-out items follow the planned ones; added items come after both.
    let run = Arc::new(Run::new(parts, &entries, total + plan.left_out.len()));
    let (mut stage, mut held_up) = (Stage::Collecting, Vec::new());
    for tier in &plan.tiers {
        if tier.stage != stage {
            if stage == Stage::CustomResourceDefinitions && run.changed_anything() {
                run.refresh_discovery().await;
            }
            stage = tier.stage;
            events.emit(Event::Stage(stage));
        }
        if run.waits_for_definition(&tier.group_resource) {
            held_up.push(tier);
        } else {
            run.restore_tier(tier).await;
        }
    }
    // What waits for a namespace does not wait for a definition.
    tokio::join!(run.definitions_settled(), run.restore_held_up());
    if !held_up.is_empty() {
        run.refresh_discovery().await;
        for tier in held_up {
            run.restore_tier(tier).await;
        }
        run.restore_held_up().await;
    }
    run.ensure_namespaces_of_completed(&plan.left_out).await;
    run.delete_upload_results().await;
    let restored = run.into_report();
    report.results.append(restored.results);
    Ok(Report {
        results: report.results,
        resource_list: restored.resource_list,
        restored: restored.restored,
        cancelled: restored.cancelled,
        never_begun: restored.never_begun,
        planned: true,
        operations: restored.operations,
        exec_hooks: restored.exec_hooks,
        pod_volumes: restored.pod_volumes,
        restored_pod_volumes: Vec::new(),
    })
}

/// What the API server serves, as a restore is to see it.
pub(super) fn discovery_for(job: &Job, discovery: Arc<Discovery>) -> Arc<Discovery> {
    if job.api_group_versions() { Arc::new(discovery.with_every_version()) } else { discovery }
}

/// The planned items with their numbers. Namespaces are not among them: those that must be created join as they
/// are, and those that exist are nobody's work (restore-semantics 5.1 step 3).
fn known_items(plan: &Plan) -> (Vec<KnownItem>, Vec<EntryId>) {
    let is_items = |tier: &&Tier| tier.group_resource != "namespaces";
    let all = plan.tiers.iter().filter(is_items).flat_map(|tier| tier.items.iter().map(move |item| (tier, item)));
    (0_u32..)
        .zip(all)
        .map(|(number, (tier, item))| (known(ItemId(number), &tier.group_resource, item, tier.stage), item.entry))
        .unzip()
}

fn known(id: ItemId, group_resource: &GroupResource, item: &PlannedItem, stage: Stage) -> KnownItem {
    let key = ItemKey::new(&item.api_version, &item.kind, &item.target_namespace, &item.name);
    KnownItem { id, group_resource: group_resource.clone(), key, stage, origin: Origin::Planned }
}

/// Items that are left out have an outcome from the start.
fn report_left_out(left_out: &[LeftOut], total: usize, events: &dyn Events) {
    let first = u32::try_from(total).unwrap_or(u32::MAX);
    for (number, left) in (first..).zip(left_out) {
        let id = ItemId(number);
        events.emit(Event::Added(known(id, &left.group_resource, &left.item, Stage::Items)));
        let outcome = if left.reason == Reason::Archive { Outcome::Failed } else { Outcome::Skipped };
        events.emit(Event::Finished(Finished {
            id,
            outcome,
            reason: Some(left.reason),
            message: Some(left.message.clone()),
            attempts: 0,
            duration: std::time::Duration::ZERO,
            velero: VeleroCount::Dropped,
        }));
    }
}
