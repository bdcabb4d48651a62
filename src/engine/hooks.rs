//! Exec hooks: commands that are run in restored pods once these are up (restore-semantics 5.12).
//!
//! Each pod with hooks has a task of its own, which begins when the pod is created and may outlive the engine's run: who
//! wraps up takes [`ExecHooks`] from the report and waits.
//!
//! # Invariants
//! - What befalls the hooks of one pod does not touch those of another.
//! - Every hook that is counted is recorded once its task ends, so that nobody waits for a hook that nobody runs.
//! - The tasks end with the value that holds them.

mod plan;
mod pod;
mod states;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};

use super::events::{Event, Events};
use super::ports::Cluster;
use super::ports::exec::PodExec;
use crate::model::{Bucket, Finding, Severity, Waiting};
pub(crate) use plan::PodHooks;
use pod::Pod;
use states::States;

/// Commands that run at the same time. Each is a connection through the API server to a kubelet, and both are busy with the
/// restore; the pause of a hook that comes later is seconds. Waiting takes no place.
const EXECS_AT_ONCE: usize = 64;

/// Pods that are told of while their hooks are waited for; progress shows ten waits.
const TOLD_AT_ONCE: usize = 10;

/// What the tasks of one restore share.
struct Shared {
    exec: Arc<dyn PodExec>,
    events: Arc<dyn Events>,
    states: States,
    execs: Semaphore,
}

/// The exec hooks of a restore that were begun, and what became of those that ended.
///
/// Dropping it ends the tasks; commands that run then go on in their containers.
#[derive(Default)]
pub struct ExecHooks {
    shared: Option<Arc<Shared>>,
    tasks: JoinSet<Vec<String>>,
    /// The pods of the tasks, and how many hooks they have.
    pods: HashMap<Id, (Pod, usize)>,
    attempted: usize,
}

impl fmt::Debug for ExecHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecHooks").field("attempted", &self.attempted).finish_non_exhaustive()
    }
}

/// What the exec hooks of a restore came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HooksOutcome {
    /// Hooks that were to run, in pods that were created.
    pub attempted: usize,
    /// Hooks that failed, or could not be run.
    pub failed: usize,
    /// An error for each of those, by pod.
    pub findings: Vec<Finding>,
}

impl ExecHooks {
    pub(crate) fn new(cluster: Arc<dyn Cluster>, exec: Arc<dyn PodExec>, events: Arc<dyn Events>) -> Self {
        let shared = Shared { exec, events, states: States::new(cluster), execs: Semaphore::new(EXECS_AT_ONCE) };
        Self { shared: Some(Arc::new(shared)), ..Self::default() }
    }

    /// Begins the hooks of a pod as it was created.
    pub(crate) fn begin(&mut self, namespace: &str, pod: &Value, hooks: PodHooks) {
        let Some(shared) = self.shared.clone().filter(|_| hooks.count() > 0) else { return };
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pod = Pod { namespace: namespace.to_owned(), name: text("/metadata/name"), uid: text("/metadata/uid") };
        let count = hooks.count();
        let task = self.tasks.spawn(pod::run(shared, pod.clone(), hooks));
        self.pods.insert(task.id(), (pod, count));
        self.attempted += count;
    }

    /// Whether no hook was begun.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempted == 0
    }

    /// Waits until every hook has run or failed, without limit, and tells `events` which pods are waited for.
    ///
    /// # Cancellation
    /// Dropped before its end, what is still to run is not run.
    pub async fn wait(mut self, events: &dyn Events) -> HooksOutcome {
        let mut outcome = HooksOutcome { attempted: self.attempted, ..HooksOutcome::default() };
        let mut failures: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        let mut told = Told { events, objects: HashMap::new() };
        // Those that have ended meanwhile are not waited for.
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.record(ended, &mut failures);
        }
        loop {
            told.tell(&self.pods);
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            let id = self.record(ended, &mut failures);
            told.over(id);
        }
        for ((namespace, _), messages) in failures {
            outcome.failed += messages.len();
            let finding = |message| Finding { severity: Severity::Error, bucket: Bucket::of(&namespace), message };
            outcome.findings.extend(messages.into_iter().map(finding));
        }
        outcome
    }

    fn record(
        &mut self,
        ended: Result<(Id, Vec<String>), JoinError>,
        failures: &mut BTreeMap<(String, String), Vec<String>>,
    ) -> Id {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((pod, count)) = self.pods.remove(&id) else { return id };
        let messages = match ended {
            Ok((_, messages)) => messages,
            // A panic must not take hooks with it unseen; how many of them had run is not known.
            Err(error) => vec![format!("the task of the exec hooks of pod {pod} ended unexpectedly: {error}"); count],
        };
        if !messages.is_empty() {
            failures.insert((pod.namespace, pod.name), messages);
        }
        id
    }
}

/// Waits that were announced, and are over when they are dropped.
struct Told<'a> {
    events: &'a dyn Events,
    objects: HashMap<Id, String>,
}

impl Told<'_> {
    fn tell(&mut self, pods: &HashMap<Id, (Pod, usize)>) {
        for (id, (pod, count)) in pods {
            if self.objects.len() >= TOLD_AT_ONCE {
                return;
            }
            if self.objects.contains_key(id) {
                continue;
            }
            let object = format!("pod {pod}");
            let waiting = Waiting {
                object: object.clone(),
                request: "wait until its exec hooks have run".to_owned(),
                reason: Some(format!("{count} exec hooks wait for its containers, or are being run")),
            };
            self.events.emit(Event::Wait(waiting));
            self.objects.insert(*id, object);
        }
    }

    fn over(&mut self, id: Id) {
        if let Some(object) = self.objects.remove(&id) {
            self.events.emit(Event::WaitOver(object));
        }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        for (_, object) in self.objects.drain() {
            self.events.emit(Event::WaitOver(object));
        }
    }
}
