//! Watching the Restores, and running them one after another.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::decide::{Step, decide, phase_of};
use super::execute::Executor;
use super::source::{self, Source};
use super::{deletion, status, validate};
use crate::model::{Phase, RestoreName};
use crate::telemetry::metrics::RestoreEvent;
use crate::velero::Restore;
use crate::velero::restore::FINALIZER;

/// Pause before a step that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// How the controller behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Written into Restores that name no timeout for asynchronous operations; a Go duration.
    pub default_item_operation_timeout: String,
}

/// The Restores as the watch last showed them, and the queue. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Restores {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    queued: Notify,
    synced: watch::Sender<bool>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { state: Mutex::default(), queued: Notify::new(), synced: watch::Sender::new(false) }
    }
}

#[derive(Debug, Default)]
struct State {
    by_name: BTreeMap<String, Arc<Restore>>,
    /// By creation, then name: the order in which they run.
    queue: BTreeMap<(Option<Timestamp>, String), ()>,
    running: Option<String>,
    /// UIDs that were run here: a stale watch event must not run them again.
    handled: HashSet<String>,
}

impl Restores {
    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Restore of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Restore>> {
        self.state().by_name.get(name).cloned()
    }

    /// Up to `limit` Restores by name, those after `after`.
    #[must_use]
    pub fn list(&self, after: &str, limit: usize) -> Vec<Arc<Restore>> {
        let bounds = (std::ops::Bound::Excluded(after.to_owned()), std::ops::Bound::Unbounded);
        self.state().by_name.range(bounds).take(limit).map(|(_, restore)| Arc::clone(restore)).collect()
    }

    /// Its place in the queue, from 1; `None` when it does not wait.
    #[must_use]
    pub fn queue_position(&self, name: &str) -> Option<u32> {
        let state = self.state();
        let position = state.queue.keys().position(|(_, queued)| queued == name)?;
        u32::try_from(position + 1).ok()
    }

    /// How many there are, how many run, and how many wait.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.by_name.len(), usize::from(state.running.is_some()), state.queue.len())
    }

    /// Whether the first list is complete; before that an unknown name may still turn up.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.inner.synced.borrow()
    }

    /// Takes in what a write returned, so that readers see it before the watch tells. An older state of the same
    /// object, which the watch tells late, is left aside. Returns the newest state.
    pub fn remember(&self, restore: Restore) -> Arc<Restore> {
        let name = restore.name_any();
        let mut state = self.state();
        if let Some(known) = state.by_name.get(&name).filter(|known| is_newer(known, &restore)) {
            return Arc::clone(known);
        }
        let restore = Arc::new(restore);
        state.by_name.insert(name, Arc::clone(&restore));
        restore
    }

    fn enqueue(&self, restore: &Restore) {
        let created = restore.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let mut state = self.state();
        let uid = restore.metadata.uid.clone().unwrap_or_default();
        let name = restore.name_any();
        if state.handled.contains(&uid) || state.running.as_deref() == Some(name.as_str()) {
            return;
        }
        state.queue.insert((created, name), ());
        drop(state);
        self.inner.queued.notify_one();
    }

    /// Notes that the first list is complete.
    pub(super) fn set_synced(&self) {
        self.inner.synced.send_replace(true);
    }

    /// Forgets the Restore of this name, which is gone.
    pub(super) fn forget_named(&self, name: &str) {
        if let Some(restore) = self.get(name) {
            self.forget(&restore);
        }
    }

    fn forget(&self, restore: &Restore) {
        let name = restore.name_any();
        let mut state = self.state();
        state.by_name.remove(&name);
        state.queue.retain(|(_, queued), ()| *queued != name);
        if let Some(uid) = &restore.metadata.uid {
            state.handled.remove(uid);
        }
    }

    /// Takes the first of the queue; it counts as running until [`Self::done`].
    fn next(&self) -> Option<Arc<Restore>> {
        let mut state = self.state();
        loop {
            let ((_, name), ()) = state.queue.pop_first()?;
            if let Some(restore) = state.by_name.get(&name).cloned() {
                state.running = Some(name);
                return Some(restore);
            }
        }
    }

    fn done(&self, restore: &Restore, handled: bool) {
        let mut state = self.state();
        state.running = None;
        if let (true, Some(uid)) = (handled, &restore.metadata.uid) {
            state.handled.insert(uid.clone());
        }
    }

    fn is_running(&self, name: &str) -> bool {
        self.state().running.as_deref() == Some(name)
    }
}

/// Whether `known` is a later state of the same object. Resource versions of one resource can be compared as numbers
/// since Kubernetes 1.35 (KEP-5504), and always could on etcd; where they are none, what comes is taken.
fn is_newer(known: &Restore, other: &Restore) -> bool {
    let version = |restore: &Restore| restore.metadata.resource_version.as_ref()?.parse::<u128>().ok();
    let versions = version(known).zip(version(other));
    known.metadata.uid == other.metadata.uid && versions.is_some_and(|(known, other)| known > other)
}

/// Watches and runs Restores until it is told to stop.
pub struct Controller {
    /// Runs one restore.
    pub executor: Executor,
    /// What is known of all.
    pub restores: Restores,
    /// How to behave.
    pub options: Options,
}

impl Controller {
    /// Watches Restores and runs them, until `stop` fires and what runs has come to an item boundary.
    pub async fn run(self, stop: CancellationToken) {
        let controller = Arc::new(self);
        let tasks = TaskTracker::new();
        let worker = tokio::spawn({
            let (controller, stop) = (Arc::clone(&controller), stop.clone());
            async move { controller.work(&stop).await }
        });
        let mut events =
            watcher(controller.executor.records.restores(), watcher::Config::default()).default_backoff().boxed();
        loop {
            let event = tokio::select! {
                event = events.try_next() => event,
                () = stop.cancelled() => break,
            };
            match event {
                Ok(Some(event)) => controller.observe(event, &tasks, &stop),
                Ok(None) => break,
                Err(error) => tracing::warn!(%error, "watching Restores failed; trying again"),
            }
        }
        tasks.close();
        tasks.wait().await;
        if let Err(error) = worker.await {
            tracing::error!(%error, "the restore worker ended unexpectedly");
        }
    }

    fn observe(self: &Arc<Self>, event: watcher::Event<Restore>, tasks: &TaskTracker, stop: &CancellationToken) {
        self.take_in(event, tasks, stop);
        self.count();
    }

    fn take_in(self: &Arc<Self>, event: watcher::Event<Restore>, tasks: &TaskTracker, stop: &CancellationToken) {
        match event {
            watcher::Event::Init => {}
            watcher::Event::InitDone => {
                self.restores.inner.synced.send_replace(true);
            }
            watcher::Event::Delete(restore) => {
                self.restores.forget(&restore);
                self.executor.hub.remove(&restore.name_any());
            }
            watcher::Event::Apply(restore) | watcher::Event::InitApply(restore) => {
                let restore = self.restores.remember(restore);
                self.follow(&restore);
                match decide(&restore) {
                    Step::Leave => {}
                    Step::Run | Step::Resume | Step::Finalize => self.restores.enqueue(&restore),
                    step @ (Step::AddFinalizer | Step::CleanUp) => {
                        let (controller, stop) = (Arc::clone(self), stop.clone());
                        tasks.spawn(async move { controller.tend(&restore, step, &stop).await });
                    }
                }
            }
        }
    }

    /// Tells the metrics how many there are, run and wait.
    fn count(&self) {
        let (known, running, queued) = self.restores.counts();
        self.executor.metrics.set_restores(known);
        self.executor.metrics.set_active(running, queued);
    }

    /// Restores that have not ended can be watched from the moment they are seen.
    fn follow(&self, restore: &Restore) {
        if restore.metadata.uid.as_ref().is_some_and(|uid| self.restores.state().handled.contains(uid)) {
            return;
        }
        let name = restore.name_any();
        if self.executor.hub.get(&name).is_some_and(|known| !known.has_ended()) {
            return;
        }
        // Asked in this order: the end of a restore is remembered before its progress ends, so that an event that
        // comes late does not put a new progress in the place of one that has just ended.
        let phase = self.restores.get(&name).and_then(|newest| phase_of(&newest));
        if phase.is_some_and(|phase| !phase.is_terminal())
            && let Ok(name) = name.parse::<RestoreName>()
            && let Err(error) = self.executor.hub.create(&name)
        {
            tracing::debug!(%error, "already followed");
        }
    }

    /// Finalizer and deletion: tried until done, beside the queue.
    async fn tend(&self, restore: &Restore, step: Step, stop: &CancellationToken) {
        let name = restore.name_any();
        loop {
            let tried = match step {
                Step::AddFinalizer => self.add_finalizer(restore).await,
                // A running restore is deleted when it has ended.
                _ if self.restores.is_running(&name) => Err("it is still running".to_owned()),
                _ => deletion::clean_up(&self.executor.records, &self.executor.stores, restore).await,
            };
            match tried {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(restore = name, error, ?step, "a Restore could not be tended; trying again")
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn add_finalizer(&self, restore: &Restore) -> Result<(), String> {
        let mut finalizers = restore.metadata.finalizers.clone().unwrap_or_default();
        finalizers.push(FINALIZER.to_owned());
        match self.executor.records.patch(&restore.name_any(), &json!({"metadata": {"finalizers": finalizers}})).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(source::message(&error)),
        }
    }

    async fn work(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let Some(restore) = self.restores.next() else {
                tokio::select! {
                    () = self.restores.inner.queued.notified() => continue,
                    () = stop.cancelled() => return,
                }
            };
            let handled = match decide(&restore) {
                Step::Run => self.start(&restore, stop).await,
                Step::Resume => self.resume(&restore, stop).await,
                Step::Finalize => self.finish(&restore, stop).await,
                // It changed while it was waiting.
                Step::AddFinalizer | Step::CleanUp | Step::Leave => true,
            };
            self.restores.done(&restore, handled);
            self.count();
            if !handled && !stop.is_cancelled() {
                tokio::select! {
                    () = tokio::time::sleep(RETRY_PAUSE) => self.restores.enqueue(&restore),
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Validates a new Restore, accepts it and runs it. `false`: the acceptance could not be written; all is repeated.
    async fn start(&self, restore: &Restore, stop: &CancellationToken) -> bool {
        let name = restore.name_any();
        let mut spec = restore.spec.clone();
        validate::complete(&mut spec, &self.options.default_item_operation_timeout);
        let validate::Verdict { mut errors, stop: no_source } = validate::validate(&spec);
        let mut source = None;
        if !no_source {
            match source::resolve(&self.executor.records, &mut spec).await {
                Ok(found) => source = Some(found),
                Err(found) => errors.extend(found),
            }
        }
        if source.is_some() {
            errors.extend(source::modifiers(&self.executor.records, &spec).await.err());
        }
        let (Some(source), true) = (source, errors.is_empty()) else {
            tracing::info!(restore = name, ?errors, "the Restore is not valid");
            let patch = status::failed_validation(&spec, &errors);
            self.executor.write_end(&name, &patch, stop).await;
            self.executor.metrics.restore(RestoreEvent::Attempt, &spec.schedule_name);
            self.executor.metrics.restore(RestoreEvent::ValidationFailed, &spec.schedule_name);
            if let Some(followed) = self.executor.hub.get(&name) {
                followed.finish(Phase::FailedValidation, None);
            }
            return true;
        };
        match self.executor.records.patch(&name, &status::in_progress(&spec, Timestamp::now())).await {
            Ok(accepted) => {
                self.executor.metrics.restore(RestoreEvent::Attempt, &spec.schedule_name);
                self.restores.remember(accepted.clone());
                self.executor.execute(&accepted, &source, stop).await;
                true
            }
            Err(error) => {
                tracing::warn!(restore = name, %error, "the Restore could not be accepted; trying again");
                false
            }
        }
    }

    async fn resume(&self, restore: &Restore, stop: &CancellationToken) -> bool {
        let name = restore.name_any();
        tracing::info!(restore = name, "found in progress; taking it up again");
        match source::fetch(&self.executor.records, &restore.spec.backup_name).await {
            Ok(source) => {
                self.executor.execute(restore, &source, stop).await;
                true
            }
            Err(error) => {
                tracing::warn!(restore = name, error, "the backup of a running restore cannot be read; trying again");
                false
            }
        }
    }

    async fn finish(&self, restore: &Restore, stop: &CancellationToken) -> bool {
        match source::fetch(&self.executor.records, &restore.spec.backup_name).await {
            Ok(source) => self.wrap_up(restore, &source, stop).await,
            Err(error) => {
                tracing::warn!(
                    restore = restore.name_any(),
                    error,
                    "the backup of a finalizing restore cannot be read; trying again"
                );
                false
            }
        }
    }

    async fn wrap_up(&self, restore: &Restore, source: &Source, stop: &CancellationToken) -> bool {
        match self.executor.finalize_again(restore, source, stop).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(restore = restore.name_any(), error, "a restore could not be finalized; trying again");
                false
            }
        }
    }
}
