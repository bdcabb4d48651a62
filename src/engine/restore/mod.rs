//! Phase 2: restoring what the plan says, tier by tier, concurrently within a tier (restore-semantics 5).
//!
//! # Invariants
//! - A tier begins when all items of the one before it have an outcome.
//! - An item's additional items are restored before it, and each item once, however many want it.
//! - Every planned item gets exactly one outcome, also when the run is cancelled.

mod crds;
mod created;
mod existing;
mod foreseen;
mod held_up;
mod hooks;
mod item;
mod ledger;
mod namespaces;
mod pod_volumes;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::actions;
use super::collect::{Filters, resolve_resources};
use super::discovery::Discovery;
use super::events::{Event, Events, Finished, KnownItem, LogLevel, VeleroCount};
use super::hooks::ExecHooks;
use super::job::Job;
use super::modifiers::Schemas;
use super::operations::Operation;
use super::plan::{LeftOut, PlannedItem, Tier};
use super::ports::Cluster;
use super::ports::exec::PodExec;
use super::preview::Overlay;
use super::retry::{Attempts, Backoff, patiently, retrying};
use super::run::{Report, discovery_for};
use crate::archive::{Archive, EntryId};
use crate::model::includes::IncludesExcludes;
use crate::model::{
    Bucket, Finding, GroupResource, ItemId, ItemKey, Origin, Outcome, Reason, Results, Severity, Stage, Target, Waiting,
};

use ledger::{Chain, Ledger};
pub(super) use pod_volumes::PodVolumesUnderWay;
pub use pod_volumes::RestoredPodVolume;

/// Everything the items of one run share.
pub(super) struct Run {
    pub(super) job: Arc<Job>,
    pub(super) archive: Arc<Archive>,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) events: Arc<dyn Events>,
    pub(super) filters: Filters,
    /// Whose status is restored; `None` is nobody's.
    status: Option<IncludesExcludes>,
    pub(super) discovery: Mutex<Arc<Discovery>>,
    pub(super) lookup: actions::Lookup,
    pub(super) stop: CancellationToken,
    ids: HashMap<EntryId, ItemId>,
    next_id: AtomicU32,
    /// Items that were not begun, as the run was stopped.
    never_begun: AtomicUsize,
    ledger: Arc<Ledger>,
    namespaces: namespaces::Namespaces,
    held_up: held_up::HeldUp,
    volumes: volumes::Volumes,
    schemas: Schemas,
    crds: crds::Waits,
    exec_hooks: Mutex<ExecHooks>,
    /// `None` where the data of no pod volume is restored.
    pod_volumes: Option<pod_volumes::PodVolumes>,
    results: Mutex<Results>,
    operations: Mutex<Vec<Operation>>,
    /// Where `cluster` is one on which nothing is written.
    preview: Option<Arc<Overlay>>,
}

/// What [`Run::new`] is built from.
pub(super) struct Parts {
    pub(super) job: Arc<Job>,
    pub(super) archive: Arc<Archive>,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) exec: Arc<dyn PodExec>,
    pub(super) events: Arc<dyn Events>,
    pub(super) filters: Filters,
    pub(super) discovery: Arc<Discovery>,
    pub(super) lookup: actions::Lookup,
    pub(super) stop: CancellationToken,
    pub(super) preview: Option<Arc<Overlay>>,
    /// When the engine began.
    pub(super) begun: tokio::time::Instant,
}

impl Run {
    /// A run over these items; their numbers are their places in `planned`, and added ones are counted from
    /// `next_id`.
    pub(super) fn new(parts: Parts, planned: &[EntryId], next_id: usize) -> Self {
        let ids: HashMap<EntryId, ItemId> = planned.iter().copied().zip((0..).map(ItemId)).collect();
        let next_id = AtomicU32::new(u32::try_from(next_id).unwrap_or(u32::MAX));
        let status = parts.job.spec.restore_status.as_ref().map(|lists| resolve_resources(lists, &parts.discovery));
        let pod_volumes = pod_volumes::PodVolumes::new(&parts);
        Self {
            exec_hooks: Mutex::new(ExecHooks::new(Arc::clone(&parts.cluster), parts.exec, Arc::clone(&parts.events))),
            status,
            pod_volumes,
            job: parts.job,
            archive: parts.archive,
            schemas: Schemas::new(Arc::clone(&parts.cluster)),
            cluster: parts.cluster,
            events: parts.events,
            filters: parts.filters,
            discovery: Mutex::new(parts.discovery),
            lookup: parts.lookup,
            stop: parts.stop,
            ids,
            next_id,
            never_begun: AtomicUsize::new(0),
            ledger: Arc::new(Ledger::default()),
            namespaces: namespaces::Namespaces::default(),
            held_up: held_up::HeldUp::default(),
            volumes: volumes::Volumes::default(),
            crds: crds::Waits::default(),
            results: Mutex::new(Results::default()),
            operations: Mutex::default(),
            preview: parts.preview,
        }
    }

    /// Restores one tier, and returns when each of its items has an outcome or was put off.
    pub(super) async fn restore_tier(self: &Arc<Self>, tier: &Tier) {
        let slots = Arc::new(Semaphore::new(self.job.settings.concurrency.max(1)));
        self.restore_all(&tier.group_resource, (0_u32..).zip(&tier.items), &slots, true).await;
        self.wait_for_crds().await;
    }

    /// Restores items of one group-resource at once, as far as there are slots. Those whose namespace is being deleted are
    /// put off where they may be ([`Self::put_off`]).
    async fn restore_all(
        self: &Arc<Self>,
        group_resource: &GroupResource,
        items: impl Iterator<Item = (u32, &PlannedItem)> + Send,
        slots: &Arc<Semaphore>,
        may_put_off: bool,
    ) {
        let is_namespaces = *group_resource == "namespaces";
        let mut tasks = JoinSet::new();
        for (number, item) in items {
            let Ok(slot) = Arc::clone(slots).acquire_owned().await else { break };
            if self.stop.is_cancelled() {
                self.cancelled(item);
                continue;
            }
            let (run, item) = (Arc::clone(self), item.clone());
            let group_resource = group_resource.clone();
            tasks.spawn(async move {
                let source = if is_namespaces { &item.name } else { &item.source_namespace };
                if may_put_off && run.put_off(&group_resource, source, &item).await {
                    // Somebody else's turn.
                } else if is_namespaces {
                    run.restore_namespace(&item).await;
                } else {
                    run.restore_planned(&group_resource, &item, Chain(number)).await;
                }
                drop(slot);
            });
            // Ended tasks are taken off as the tier goes on, so that a large tier does not pile them up.
            while let Some(ended) = tasks.try_join_next() {
                self.survive(ended);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            self.survive(ended);
        }
    }

    /// A panic in one item must not take the restore with it.
    fn survive(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            let message = format!("an item's task ended unexpectedly: {error}");
            self.find(Severity::Error, Bucket::Velero, Reason::Other, message);
        }
    }

    async fn restore_namespace(&self, item: &PlannedItem) {
        if let Err(message) = self.ensure_namespace(&item.name, &item.target_namespace).await
            && !self.stop.is_cancelled()
        {
            self.find(Severity::Error, Bucket::Velero, Reason::Namespace, message);
        }
    }

    /// Velero comes to completed pods and jobs in phase 2, and ensures their namespaces before it passes over them
    /// (restore-semantics 5.1 and 5.3 step 4). Mostly another item has brought the namespace by now.
    pub(super) async fn ensure_namespaces_of_completed(&self, left_out: &[LeftOut]) {
        for LeftOut { item, .. } in left_out.iter().filter(|left| left.reason == Reason::Completed) {
            if item.target_namespace.is_empty() || self.stop.is_cancelled() {
                continue;
            }
            if let Err(message) = self.ensure_namespace(&item.source_namespace, &item.target_namespace).await {
                self.find(Severity::Error, Bucket::Velero, Reason::Namespace, message);
            }
        }
    }

    async fn restore_planned(self: &Arc<Self>, group_resource: &GroupResource, item: &PlannedItem, chain: Chain) {
        let begun = std::time::Instant::now();
        if !item.target_namespace.is_empty()
            && let Err(message) = self.ensure_namespace(&item.source_namespace, &item.target_namespace).await
        {
            if self.stop.is_cancelled() {
                self.cancelled(item);
                return;
            }
            self.find(Severity::Error, Bucket::Velero, Reason::Namespace, message.clone());
            self.finish(
                item.entry,
                Outcome::Failed,
                Some(Reason::Namespace),
                Some(message),
                VeleroCount::PassedOver,
                begun.elapsed(),
            );
            return;
        }
        let wanted = item::Wanted {
            entry: item.entry,
            group_resource: group_resource.clone(),
            source_namespace: Arc::clone(&item.source_namespace),
            target_namespace: Arc::clone(&item.target_namespace),
        };
        self.restore_item(wanted, chain).await;
    }

    fn cancelled(&self, item: &PlannedItem) {
        // Namespaces are no items: those there are were never announced.
        if self.ids.contains_key(&item.entry) {
            self.never_begun.fetch_add(1, Ordering::Relaxed);
        }
        self.finish(
            item.entry,
            Outcome::Skipped,
            Some(Reason::Cancelled),
            Some("the restore was cancelled before this item was begun".to_owned()),
            VeleroCount::Dropped,
            Duration::ZERO,
        );
    }

    /// Tells that an item that has a number ended; an item without one (it is in no plan) was never announced.
    fn finish(
        &self,
        entry: EntryId,
        outcome: Outcome,
        reason: Option<Reason>,
        message: Option<String>,
        velero: VeleroCount,
        duration: Duration,
    ) {
        if let Some(&id) = self.ids.get(&entry) {
            self.events.emit(Event::Finished(Finished { id, outcome, reason, message, attempts: 0, duration, velero }));
        }
    }

    /// Announces an item that the plan does not have, and numbers it.
    fn added(&self, group_resource: &GroupResource, key: ItemKey, origin: Origin) -> ItemId {
        let id = ItemId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let item = KnownItem { id, group_resource: group_resource.clone(), key, stage: Stage::Items, origin };
        self.events.emit(Event::Added(item));
        id
    }

    fn report_namespace(&self, key: ItemKey, attempts: Attempts, duration: Duration) {
        let id = self.added(&GroupResource::parse("namespaces"), key, Origin::Namespace);
        self.events.emit(Event::Finished(Finished {
            id,
            outcome: Outcome::Created,
            reason: None,
            message: None,
            attempts: attempts.0,
            duration,
            velero: VeleroCount::Restored,
        }));
    }

    /// Records a warning or error.
    pub(super) fn find(&self, severity: Severity, bucket: Bucket, reason: Reason, message: String) {
        let finding = Finding { severity, bucket, message };
        self.events.emit(Event::Finding(finding.clone(), reason));
        self.results.lock().unwrap_or_else(PoisonError::into_inner).add(finding);
    }

    fn debug(&self, line: String) {
        self.events.emit(Event::Log(LogLevel::Debug, line));
    }

    fn info(&self, line: String) {
        self.events.emit(Event::Log(LogLevel::Info, line));
    }

    /// Tells that something may take long; the wait is over when the value is dropped.
    fn announce_wait(&self, waiting: Waiting) -> AnnouncedWait {
        let object = waiting.object.clone();
        self.events.emit(Event::Wait(waiting));
        AnnouncedWait { events: Arc::clone(&self.events), object }
    }

    /// What stands around an item that is restored.
    fn context(&self) -> actions::Context<'_> {
        let job = &*self.job;
        actions::Context {
            spec: &job.spec,
            restore_name: &job.restore_name,
            restore_uid: &job.restore_uid,
            velero_namespace: &job.velero_namespace,
            backup_name: &job.backup_name,
            backup_storage_location: &job.backup_storage_location,
            snapshot_move_data: job.snapshot_move_data,
            data_mover: job.data_mover.as_ref(),
            csi: job.csi(),
            // A pod that waits for data which nobody brings would wait for ever.
            pod_volume_backups: self.pod_volumes.is_some().then_some(&job.volumes.pod_volume_backups),
            lookup: &self.lookup,
        }
    }

    /// What the API server serves; newer than at the start once the CustomResourceDefinitions are restored.
    fn current_discovery(&self) -> Arc<Discovery> {
        Arc::clone(&self.discovery.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks anew what the API server serves, as restored CustomResourceDefinitions add to it (restore-semantics 4.2).
    pub(super) async fn refresh_discovery(&self) {
        match patiently(|| self.cluster.discovery(true)).await {
            Ok(table) => {
                *self.discovery.lock().unwrap_or_else(PoisonError::into_inner) = discovery_for(&self.job, table);
            }
            Err(error) => {
                let message = format!("error refreshing discovery after restoring CRDs: {error}");
                self.find(Severity::Warning, Bucket::Cluster, Reason::Discovery, message);
            }
        }
    }

    /// Whether anything was created or updated so far.
    pub(super) fn changed_anything(&self) -> bool {
        self.ledger.changed_anything()
    }

    /// Deletes what the DataUploads of the backup left for their claims (restore-semantics 7.1); they are of no use to
    /// another restore.
    pub(super) async fn delete_upload_results(&self) {
        if self.archive.group_resources().all(|group_resource| *group_resource != "datauploads.velero.io") {
            return;
        }
        let config_maps = Target::new("", "v1", "configmaps", &self.job.velero_namespace);
        let selector = actions::data_mover::results_selector(&self.job.restore_uid);
        let delete = || self.cluster.delete_collection(&config_maps, &selector);
        if let Err(error) = retrying(Backoff::default(), &mut Attempts::default(), delete).await {
            let line = format!("the ConfigMaps with the results of data uploads could not be deleted: {error}");
            self.events.emit(Event::Log(LogLevel::Warning, line));
        }
    }

    /// The resource list, and the warnings and errors so far.
    pub(super) fn into_report(self: Arc<Self>) -> Report {
        Report {
            restored: self.ledger.len(),
            resource_list: self.ledger.resource_list(),
            results: std::mem::take(&mut *self.results.lock().unwrap_or_else(PoisonError::into_inner)),
            cancelled: self.stop.is_cancelled(),
            never_begun: self.never_begun.load(Ordering::Relaxed),
            planned: true,
            operations: std::mem::take(&mut *self.operations.lock().unwrap_or_else(PoisonError::into_inner)),
            exec_hooks: std::mem::take(&mut *self.exec_hooks.lock().unwrap_or_else(PoisonError::into_inner)),
            pod_volumes: self.pod_volumes.as_ref().map(pod_volumes::PodVolumes::under_way),
            restored_pod_volumes: Vec::new(),
        }
    }
}

/// Ends an announced wait when it goes out of scope, whatever the way.
struct AnnouncedWait {
    events: Arc<dyn Events>,
    object: String,
}

impl Drop for AnnouncedWait {
    fn drop(&mut self) {
        self.events.emit(Event::WaitOver(std::mem::take(&mut self.object)));
    }
}
