//! The data of pod volumes: brought by Velero's node agent, ordered and awaited here (restore-semantics 5.13).
//!
//! Each pod has a task of its own, which runs beside the tiers and may outlast them; what they found is fetched after the
//! last item, by [`PodVolumesUnderWay::wait`]. They share two watches, whatever the number of pods.

mod board;
mod objects;
mod repository;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::item::Item;
use super::{AnnouncedWait, Parts, Run};
use crate::engine::events::{Event, Events, LogLevel};
use crate::engine::job::Job;
use crate::engine::pod_volume_backups::VolumeBackup;
use crate::engine::ports::{ApiError, Change, Cluster};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::{
    Bucket, Counts, Finding, GroupResource, Outcome, Reason, Results, Severity, Stage, Target, Waiting, label,
};

use board::Board;
use objects::text;

/// The pause before watching again where a watch ended, which it does on shutdown alone.
const WATCH_ENDED_PAUSE: Duration = Duration::from_secs(1);

/// A deadline that was set farther away than the clock can tell is this far away.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A pod volume whose PodVolumeRestore has ended, well or not: what the restore's volume info tells (restore-semantics 9.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RestoredPodVolume {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the volume within the pod.
    pub volume: String,
    /// The claim behind the volume, if there is one.
    pub claim: Option<String>,
    /// The snapshot in the repository.
    pub snapshot_id: String,
    /// What moved the files.
    pub uploader_type: String,
    /// Bytes there were to move.
    pub size: i64,
}

/// A pod in the cluster whose volumes are to be filled.
#[derive(Debug)]
struct Pod {
    namespace: String,
    name: String,
    uid: String,
    source_namespace: String,
    volumes: BTreeMap<String, VolumeBackup>,
    /// The claims behind volumes, by volume.
    claims: BTreeMap<String, String>,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Pod {
    fn of(live: &Value, source_namespace: &str, volumes: BTreeMap<String, VolumeBackup>) -> Self {
        let own = live.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
        let claim = |volume: &Value| {
            let claim = text(volume, "/persistentVolumeClaim/claimName");
            (!claim.is_empty()).then(|| (text(volume, "/name").to_owned(), claim.to_owned()))
        };
        Self {
            namespace: text(live, "/metadata/namespace").to_owned(),
            name: text(live, "/metadata/name").to_owned(),
            uid: text(live, "/metadata/uid").to_owned(),
            source_namespace: source_namespace.to_owned(),
            volumes,
            claims: own.filter_map(claim).collect(),
        }
    }
}

/// The pod volumes of a run.
pub(super) struct PodVolumes {
    shared: Arc<Shared>,
    work: Mutex<Work>,
    watching: Once,
}

#[derive(Default)]
struct Work {
    pods: JoinSet<()>,
    watches: JoinSet<()>,
}

/// Something that is asked for once per restore: it is there, or the message of an error.
type Checked = OnceCell<Result<(), String>>;

/// What the tasks share.
struct Shared {
    job: Arc<Job>,
    cluster: Arc<dyn Cluster>,
    events: Arc<dyn Events>,
    stop: CancellationToken,
    /// One for all volumes, counted from the start of the engine.
    deadline: Instant,
    /// Pods that give their orders at the same time.
    slots: Semaphore,
    node_agent: Checked,
    /// Nodes where the node agent runs.
    agents: tokio::sync::Mutex<BTreeSet<String>>,
    /// By source namespace.
    repositories: Mutex<HashMap<String, Arc<Checked>>>,
    /// Names of PodVolumeRestores by pod UID and volume, as an interrupted run of this restore has left them.
    earlier: OnceCell<HashMap<(String, String), String>>,
    board: Board,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    /// Volumes that have no end yet, by pod UID and name.
    open: BTreeSet<(String, String)>,
    counts: Counts,
    results: Results,
    volumes: Vec<RestoredPodVolume>,
}

impl PodVolumes {
    /// Those of a run; `None` where no data is restored: the job has no means to, or the resource filters leave out
    /// `persistentvolumeclaims` or `persistentvolumes` (restore-semantics 5.11 step 3).
    pub(super) fn new(parts: &Parts) -> Option<Self> {
        let options = parts.job.pod_volumes.as_ref()?;
        let takes = |resource: &str| parts.filters.takes_resource(&GroupResource::parse(resource));
        if !(takes("persistentvolumeclaims") && takes("persistentvolumes")) {
            return None;
        }
        let deadline = parts.begun.checked_add(options.timeout.min(FOREVER)).unwrap_or(parts.begun);
        let (job, cluster) = (Arc::clone(&parts.job), Arc::clone(&parts.cluster));
        Some(Self::with(job, cluster, Arc::clone(&parts.events), parts.stop.clone(), deadline))
    }

    fn with(
        job: Arc<Job>,
        cluster: Arc<dyn Cluster>,
        events: Arc<dyn Events>,
        stop: CancellationToken,
        deadline: Instant,
    ) -> Self {
        let shared = Shared {
            slots: Semaphore::new(job.settings.concurrency.max(1)),
            job,
            cluster,
            events,
            stop,
            deadline,
            node_agent: OnceCell::new(),
            agents: tokio::sync::Mutex::default(),
            repositories: Mutex::default(),
            earlier: OnceCell::new(),
            board: Board::default(),
            tally: Mutex::default(),
        };
        Self { shared: Arc::new(shared), work: Mutex::default(), watching: Once::new() }
    }

    fn start(&self, pod: Pod) {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        // Before anything is ordered, so that no end is missed.
        self.watching.call_once(|| {
            let (restores, pods) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
            work.watches.spawn(async move { restores.watch_restores().await });
            work.watches.spawn(async move { pods.watch_pods().await });
        });
        self.shared.expect(&pod);
        let shared = Arc::clone(&self.shared);
        work.pods.spawn(async move { shared.restore(&pod).await });
    }

    /// Hands over what is still under way.
    pub(super) fn under_way(&self) -> PodVolumesUnderWay {
        let work = std::mem::take(&mut *self.work.lock().unwrap_or_else(PoisonError::into_inner));
        PodVolumesUnderWay { shared: Arc::clone(&self.shared), work }
    }
}

/// Pod volumes whose data may still be under way when all items are done. Dropping it ends the waiting, not the restores
/// of the node agent.
pub(in crate::engine) struct PodVolumesUnderWay {
    shared: Arc<Shared>,
    work: Work,
}

impl fmt::Debug for PodVolumesUnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodVolumesUnderWay").field("pods", &self.work.pods.len()).finish_non_exhaustive()
    }
}

/// What the pod volumes of a run came to.
#[derive(Debug)]
pub(in crate::engine) struct Ended {
    /// Errors, in the order they occurred.
    pub(in crate::engine) results: Results,
    /// The volumes whose PodVolumeRestore has ended, by pod and name.
    pub(in crate::engine) volumes: Vec<RestoredPodVolume>,
    /// Whether the run was stopped while volumes had no end.
    pub(in crate::engine) stopped: bool,
}

impl PodVolumesUnderWay {
    /// Waits until every volume has an end, or the run is stopped.
    pub(in crate::engine) async fn wait(mut self) -> Ended {
        if self.shared.tally().counts.pending > 0 {
            self.shared.events.emit(Event::Stage(Stage::Volumes));
            self.shared.info("waiting for the data of pod volumes".to_owned());
        }
        while let Some(ended) = self.work.pods.join_next().await {
            if let Err(error) = ended {
                self.shared.fail(format!("the task of a pod's volumes ended unexpectedly: {error}"));
            }
        }
        let mut tally = self.shared.tally();
        let stopped = !tally.open.is_empty() && self.shared.stop.is_cancelled();
        let mut volumes = std::mem::take(&mut tally.volumes);
        volumes.sort_unstable();
        Ended { results: std::mem::take(&mut tally.results), volumes, stopped }
    }
}

impl Run {
    /// Begins to restore the volumes of a pod that was created (restore-semantics 5.11 step 3).
    pub(super) fn restore_pod_volumes(&self, item: &Item, live: &Value) {
        let source_namespace = &*item.wanted.source_namespace;
        // The item action has read the same fields.
        let volumes = self.job.volumes.pod_volume_backups.of_pod(live, source_namespace).unwrap_or_default();
        if volumes.is_empty() {
            return;
        }
        match &self.pod_volumes {
            Some(pod_volumes) => pod_volumes.start(Pod::of(live, source_namespace, volumes)),
            None => self.info(format!(
                "{}: the data of its volumes {} is not restored, as the restore leaves out persistent volumes or their \
                 claims, or has no node agent to ask",
                item.display(&item.key.name),
                volumes.into_keys().collect::<Vec<_>>().join(", ")
            )),
        }
    }

    /// Goes on with a pod that this restore created before it was interrupted: it waits for its volumes.
    pub(super) fn resume_pod_volumes(&self, item: &Item, live: &Value) {
        if self.pod_volumes.is_some() && objects::waits_for(live, &self.job.restore_uid) {
            self.restore_pod_volumes(item, live);
        }
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn repositories(&self) -> MutexGuard<'_, HashMap<String, Arc<Checked>>> {
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self, line: String) {
        self.events.emit(Event::Log(LogLevel::Info, line));
    }

    fn debug(&self, line: String) {
        self.events.emit(Event::Log(LogLevel::Debug, line));
    }

    fn announce(&self, waiting: Waiting) -> AnnouncedWait {
        let object = waiting.object.clone();
        self.events.emit(Event::Wait(waiting));
        AnnouncedWait { events: Arc::clone(&self.events), object }
    }

    /// Says something new of a wait that goes on.
    fn announce_again(&self, announced: &AnnouncedWait, waiting: Waiting) {
        self.events.emit(Event::Wait(waiting));
        // One of the two is over; the wait keeps its place.
        self.events.emit(Event::WaitOver(announced.object.clone()));
    }

    /// Records an error. All of them are Velero's own (restore-semantics 5.13).
    fn fail(&self, message: String) {
        let finding = Finding { severity: Severity::Error, bucket: Bucket::Velero, message };
        self.events.emit(Event::Finding(finding.clone(), Reason::Volume));
        self.tally().results.add(finding);
    }

    fn expect(&self, pod: &Pod) {
        let mut tally = self.tally();
        for volume in pod.volumes.keys() {
            if tally.open.insert((pod.uid.clone(), volume.clone())) {
                tally.counts.pending += 1;
            }
        }
        self.events.emit(Event::Counts(Stage::Volumes, tally.counts));
    }

    fn is_open(&self, pod: &Pod, volume: &str) -> bool {
        self.tally().open.contains(&(pod.uid.clone(), volume.to_owned()))
    }

    fn end(&self, pod: &Pod, volume: &str, outcome: Outcome) {
        let mut tally = self.tally();
        if tally.open.remove(&(pod.uid.clone(), volume.to_owned())) {
            tally.counts.pending -= 1;
            *tally.counts.get_mut(outcome) += 1;
            self.events.emit(Event::Counts(Stage::Volumes, tally.counts));
        }
    }

    fn restored(&self, volume: RestoredPodVolume) {
        self.tally().volumes.push(volume);
    }

    /// What an interrupted run of this restore has ordered: one request for the whole restore, as each pod is begun once.
    async fn earlier(&self) -> Result<&HashMap<(String, String), String>, String> {
        let listed = self.earlier.get_or_try_init(|| async {
            let target = objects::velero(&self.job, "podvolumerestores");
            let selector = objects::restores_selector(&self.job, None);
            let list = || self.cluster.list(&target, &selector);
            let found = retrying(Backoff::default(), &mut Attempts::default(), list).await?;
            let uid = &self.job.restore_uid;
            let read = found.iter().filter_map(|object| objects::read_restore(uid, object));
            Ok(read.map(|(pod, name, told)| ((pod, told.volume), name)).collect())
        });
        listed.await.map_err(|error: ApiError| format!("error listing PodVolumeRestores: {error}"))
    }

    async fn watch_restores(&self) {
        let target = objects::velero(&self.job, "podvolumerestores");
        let selector = objects::restores_selector(&self.job, None);
        let uid = &self.job.restore_uid;
        let take = |change| match change {
            Change::Is(object) => self.board.take_restore(uid, &object),
            Change::Gone(name) => self.board.restore_gone(&name),
        };
        self.watch("PodVolumeRestores", &target, &selector, take).await;
    }

    async fn watch_pods(&self) {
        let target = Target::new("", "v1", "pods", "");
        let selector = format!("{}={}", label::RESTORE_NAME, label::valid_name(&self.job.restore_name));
        let take = |change| {
            if let Change::Is(pod) = change {
                self.board.take_pod(&pod);
            }
        };
        self.watch("pods", &target, &selector, take).await;
    }

    /// Watches until it is dropped. The first failure is a warning in the log, as what is waited for may be missed.
    async fn watch(&self, what: &str, target: &Target, selector: &str, take: impl Fn(Change)) {
        let mut level = LogLevel::Warning;
        loop {
            let mut changes = self.cluster.watch_selected(target, selector);
            while let Some(change) = changes.next().await {
                match change {
                    Ok(change) => take(change),
                    Err(error) => {
                        self.events.emit(Event::Log(level, format!("watching {what}: {error}; trying again")));
                        level = LogLevel::Debug;
                    }
                }
            }
            tokio::time::sleep(WATCH_ENDED_PAUSE).await;
        }
    }
}
