//! Watching the Restores, and running them one after another; what follows the items goes on beside the queue.

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

use super::conclude::Conclusion;
use super::decide::{Step, decide, phase_of};
use super::execute::Executor;
use super::halt::Halt;
use super::kube_events::{self, Begin};
use super::{cancel, check, deletion, source, status};
use crate::engine::events::LogLevel;
use crate::model::{Cancellation, Phase, RestoreName};
use crate::telemetry::metrics::RestoreEvent;
use crate::velero::Restore;
use crate::velero::restore::FINALIZER;

/// Pause before a step that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// First line in the log of a restore that is run again.
const RUN_AGAIN: &str = "the restore is run again from its beginning, as the service was restarted before it was done: the \
     log and the findings of the earlier run are lost, and what that run created exists already";

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
    running: Option<(String, UnderWay)>,
    /// Those whose items are done and whose end is awaited beside the queue.
    concluding: BTreeMap<String, UnderWay>,
    /// UIDs that were run here: a stale watch event must not run them again.
    handled: HashSet<String>,
}

/// The two ends of a restore that somebody works on: how to stop it, and how to learn that it is over.
#[derive(Clone, Debug)]
struct UnderWay {
    halt: Halt,
    over: CancellationToken,
}

/// A restore's place among those that conclude; it is given back when this is dropped, whatever the way.
pub(super) struct Concluding {
    restores: Restores,
    name: String,
    under_way: UnderWay,
}

impl Drop for Concluding {
    fn drop(&mut self) {
        self.restores.state().concluding.remove(&self.name);
        self.under_way.over.cancel();
    }
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

    /// How many there are, how many run (those that conclude included), and how many wait.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.by_name.len(), usize::from(state.running.is_some()) + state.concluding.len(), state.queue.len())
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

    /// Whether this very object is still there, and not another one of its name.
    fn is_known(&self, restore: &Restore) -> bool {
        self.get(&restore.name_any()).is_some_and(|known| known.metadata.uid == restore.metadata.uid)
    }

    fn enqueue(&self, restore: &Restore) {
        let created = restore.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let mut state = self.state();
        let uid = restore.metadata.uid.clone().unwrap_or_default();
        let name = restore.name_any();
        if state.handled.contains(&uid) || state.under_way(&name).is_some() {
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
        if let Some(under_way) = state.under_way(&name) {
            under_way.halt.give_up();
        }
    }

    /// Takes the first of the queue; it counts as running until [`Self::done`].
    fn next(&self, stop: &CancellationToken) -> Option<(Arc<Restore>, Halt)> {
        let mut state = self.state();
        loop {
            let ((_, name), ()) = state.queue.pop_first()?;
            if let Some(restore) = state.by_name.get(&name).cloned() {
                let halt = Halt::new(stop);
                state.running = Some((name, UnderWay { halt: halt.clone(), over: CancellationToken::new() }));
                return Some((restore, halt));
            }
        }
    }

    fn done(&self, restore: &Restore, handled: bool) {
        let mut state = self.state();
        if let Some((_, under_way)) = state.running.take() {
            under_way.over.cancel();
        }
        if let (true, Some(uid)) = (handled, &restore.metadata.uid) {
            state.handled.insert(uid.clone());
        }
    }

    /// The running restore leaves its turn to the next, and concludes.
    fn hand_over(&self, restore: &Restore, halt: Halt) -> Concluding {
        let mut state = self.state();
        let running = state.running.take();
        let under_way = running.map_or_else(|| UnderWay::new(halt), |(_, under_way)| under_way);
        self.conclude(&mut state, restore, under_way)
    }

    /// A restore that nobody works on, as the process that did has ended, concludes here and not in the queue; `None` when
    /// somebody does, or has done.
    fn take_up_conclusion(&self, restore: &Restore, stop: &CancellationToken) -> Option<Concluding> {
        let (mut state, name) = (self.state(), restore.name_any());
        let handled = restore.metadata.uid.as_ref().is_some_and(|uid| state.handled.contains(uid));
        if handled || state.under_way(&name).is_some() {
            return None;
        }
        state.queue.retain(|(_, queued), ()| *queued != name);
        Some(self.conclude(&mut state, restore, UnderWay::new(Halt::new(stop))))
    }

    fn conclude(&self, state: &mut State, restore: &Restore, under_way: UnderWay) -> Concluding {
        let name = restore.name_any();
        state.handled.extend(restore.metadata.uid.clone());
        state.concluding.insert(name.clone(), under_way.clone());
        Concluding { restores: self.clone(), name, under_way }
    }

    /// Gives up the conclusion of this restore, if there is one, and returns when it has come to a safe point.
    async fn give_up(&self, name: &str) {
        let under_way = self.state().concluding.get(name).cloned();
        if let Some(UnderWay { halt, over }) = under_way {
            halt.give_up();
            over.cancelled().await;
        }
    }

    /// Cancels this restore where somebody works on it; gives what fires when it is over.
    fn cancel(&self, name: &str, cancellation: Cancellation) -> Option<CancellationToken> {
        let under_way = self.state().under_way(name).cloned()?;
        under_way.halt.cancel(cancellation);
        Some(under_way.over)
    }
}

impl UnderWay {
    fn new(halt: Halt) -> Self {
        Self { halt, over: CancellationToken::new() }
    }
}

impl State {
    fn under_way(&self, name: &str) -> Option<&UnderWay> {
        let running = self.running.as_ref().filter(|(running, _)| running == name).map(|(_, under_way)| under_way);
        running.or_else(|| self.concluding.get(name))
    }
}

/// What a turn of the queue came to.
enum Turn {
    /// Nothing is left to do.
    Over,
    /// It could not be taken now; it comes again.
    Again,
    /// The items are done; the rest goes on beside the queue.
    Concludes(Box<Conclusion>),
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
    /// Watches Restores and runs them, until `stop` fires, what runs has come to an item boundary, and what concludes to
    /// a point from where it can be taken up.
    pub async fn run(self, stop: CancellationToken) {
        let controller = Arc::new(self);
        let tasks = TaskTracker::new();
        let worker = tokio::spawn({
            let (controller, tasks, stop) = (Arc::clone(&controller), tasks.clone(), stop.clone());
            async move { controller.work(&tasks, &stop).await }
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
        // The worker first: what it has just done the items of becomes one of the tasks.
        if let Err(error) = worker.await {
            tracing::error!(%error, "the restore worker ended unexpectedly");
        }
        tasks.close();
        tasks.wait().await;
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
                    Step::Run | Step::Resume => self.restores.enqueue(&restore),
                    step @ (Step::Conclude | Step::Cancel) => {
                        let cancellation = cancel::wanted(&restore).filter(|_| step == Step::Cancel);
                        // Whoever works on it sees to its end.
                        if let Some(cancellation) = &cancellation
                            && self.restores.cancel(&restore.name_any(), cancellation.clone()).is_some()
                        {
                            return;
                        }
                        if let Some(place) = self.restores.take_up_conclusion(&restore, stop) {
                            if let Some(cancellation) = cancellation {
                                place.under_way.halt.cancel(cancellation);
                            }
                            let controller = Arc::clone(self);
                            tasks.spawn(async move { controller.conclude_again(&restore, place).await });
                        }
                    }
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
                _ => {
                    // One that runs, or whose end is awaited, is cancelled first, so that its operations stop, and nothing
                    // is uploaded after its files are removed.
                    if !self.restores.is_known(restore) {
                        return;
                    }
                    if let Some(over) = self.restores.cancel(&name, cancel::by_deletion()) {
                        over.cancelled().await;
                    }
                    if !self.restores.is_known(restore) {
                        return;
                    }
                    deletion::clean_up(&self.executor.records, &self.executor.stores, restore).await
                }
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

    async fn work(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let Some((restore, halt)) = self.restores.next(stop) else {
                tokio::select! {
                    () = self.restores.inner.queued.notified() => continue,
                    () = stop.cancelled() => return,
                }
            };
            // One of this name that was deleted a moment ago must not write into this one.
            self.restores.give_up(&restore.name_any()).await;
            let turn = match decide(&restore) {
                Step::Run => self.start(&restore, &halt).await,
                Step::Resume => self.resume(&restore, &halt).await,
                // It was on its way here from the queue when the wish came.
                Step::Cancel => self.end_cancelled(&restore, &halt).await,
                // It changed while it was waiting.
                Step::Conclude | Step::AddFinalizer | Step::CleanUp | Step::Leave => Turn::Over,
            };
            let again = matches!(turn, Turn::Again);
            match turn {
                Turn::Over => self.restores.done(&restore, true),
                Turn::Again => self.restores.done(&restore, false),
                Turn::Concludes(conclusion) => {
                    let (controller, place) = (Arc::clone(self), self.restores.hand_over(&restore, halt));
                    tasks.spawn(async move {
                        controller.executor.conclude(*conclusion, &place.under_way.halt).await;
                        drop(place);
                        controller.count();
                    });
                }
            }
            self.count();
            if again && !stop.is_cancelled() {
                tokio::select! {
                    () = tokio::time::sleep(RETRY_PAUSE) => self.restores.enqueue(&restore),
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Validates a new Restore, accepts it and runs it. Where the acceptance could not be written, all is repeated.
    async fn start(&self, restore: &Restore, halt: &Halt) -> Turn {
        let name = restore.name_any();
        let mut spec = restore.spec.clone();
        let timeout = &self.options.default_item_operation_timeout;
        let checked = tokio::select! {
            checked = check::check(&self.executor.records, &mut spec, timeout) => Some(checked),
            () = halt.work().cancelled() => None,
        };
        if let (true, Some(cause)) = (halt.work().is_cancelled(), halt.cause()) {
            self.executor.end_unbegun(restore, cause, halt.given_up()).await;
            return Turn::Over;
        }
        let Some((source, errors)) = checked else { return Turn::Over };
        let (Some(source), true) = (source, errors.is_empty()) else {
            tracing::info!(restore = name, ?errors, "the Restore is not valid");
            kube_events::refused(&self.executor, restore, &errors);
            let patch = status::failed_validation(&spec, &errors);
            self.executor.write_end(&name, &patch, halt.given_up()).await;
            self.executor.metrics.restore(RestoreEvent::Attempt, &spec.schedule_name);
            self.executor.metrics.restore(RestoreEvent::ValidationFailed, &spec.schedule_name);
            if let Some(followed) = self.executor.hub.get(&name) {
                followed.finish(Phase::FailedValidation, None);
            }
            return Turn::Over;
        };
        match self.executor.records.patch(&name, &status::in_progress(&spec, Timestamp::now())).await {
            Ok(accepted) => {
                self.executor.metrics.restore(RestoreEvent::Attempt, &spec.schedule_name);
                self.restores.remember(accepted.clone());
                self.tell(&accepted, Begin::Started);
                self.execute(&accepted, &source, halt).await
            }
            Err(error) => {
                tracing::warn!(restore = name, %error, "the Restore could not be accepted; trying again");
                Turn::Again
            }
        }
    }

    async fn execute(&self, restore: &Restore, source: &source::Source, halt: &Halt) -> Turn {
        let concludes = Box::pin(self.executor.execute(restore, source, halt)).await;
        concludes.map_or(Turn::Over, |conclusion| Turn::Concludes(Box::new(conclusion)))
    }

    /// Ends a cancelled restore in its turn.
    async fn end_cancelled(&self, restore: &Restore, halt: &Halt) -> Turn {
        if let Some(cancellation) = cancel::wanted(restore) {
            halt.cancel(cancellation);
        }
        match Box::pin(self.executor.end_found_cancelled(restore, halt)).await {
            Ok(()) => Turn::Over,
            Err(error) => {
                tracing::warn!(
                    restore = restore.name_any(),
                    error,
                    "a cancelled restore could not be ended; trying again"
                );
                Turn::Again
            }
        }
    }

    async fn resume(&self, restore: &Restore, halt: &Halt) -> Turn {
        let name = restore.name_any();
        tracing::info!(restore = name, "found in progress; taking it up again");
        match source::fetch(&self.executor.records, &restore.spec.backup_name).await {
            Ok(source) => {
                self.tell(restore, Begin::Resumed);
                if let Some(followed) = self.executor.follow(&name) {
                    followed.log(LogLevel::Warning, "controller", RUN_AGAIN);
                }
                self.execute(restore, &source, halt).await
            }
            Err(error) => {
                tracing::warn!(restore = name, error, "the backup of a running restore cannot be read; trying again");
                Turn::Again
            }
        }
    }

    /// Has Events tell of this restore from here on.
    fn tell(&self, restore: &Restore, begin: Begin) {
        if let Some(followed) = self.executor.follow(&restore.name_any()) {
            kube_events::follow(&self.executor, restore, followed, begin);
        }
    }

    /// Takes up what a process that has ended left to conclude: tried until its files can be read.
    async fn conclude_again(&self, restore: &Restore, place: Concluding) {
        self.count();
        self.tell(restore, Begin::Resumed);
        let halt = &place.under_way.halt;
        loop {
            let tried = match halt.cause() {
                Some(_) => self.executor.end_found_cancelled(restore, halt).await,
                None => self.executor.conclude_again(restore, halt).await,
            };
            let Err(error) = tried else { break };
            tracing::warn!(restore = restore.name_any(), error, "a restore could not be concluded; trying again");
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = halt.given_up().cancelled() => break,
            }
        }
        drop(place);
        self.count();
    }
}
