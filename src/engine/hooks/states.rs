//! What becomes of pods whose hooks wait: one watch for each namespace, shared by its pods.
//!
//! A watch for each pod would be a connection to the API server for each; a thousand pods of one namespace would have a
//! thousand. Of each pod only its latest state is kept, and of that only what matters to hooks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::plan::PodState;
use crate::engine::ports::{Change, Cluster};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::Target;

/// The pause before watching again where a watch ended, which it does on shutdown alone, or looking again where a look
/// failed for good: nobody waits for the one, and the other is a matter of rights that somebody has to grant.
const PAUSE: Duration = Duration::from_secs(10);

/// So many failures of a watch in a row are told: with the pauses between them it is broken for about a minute, and no
/// passing matter such as a restart of the API server.
const FAILURES_TOLD: u32 = 8;

/// What is known of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Seen {
    /// Not looked at yet.
    #[default]
    Nothing,
    /// It is there.
    Pod(PodState),
    /// It is not there, or no longer.
    Gone,
}

type Pods = Arc<Mutex<HashMap<String, watch::Sender<Seen>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watches of one restore.
pub(super) struct States {
    cluster: Arc<dyn Cluster>,
    /// A namespace is watched as long as one of its pods is waited for.
    namespaces: Mutex<HashMap<String, Weak<NamespaceWatch>>>,
}

struct NamespaceWatch {
    pods: Pods,
    _task: AbortOnDropHandle<()>,
}

impl States {
    pub(super) fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster, namespaces: Mutex::default() }
    }

    /// The states of one pod from now on.
    pub(super) fn of_pod(&self, namespace: &str, name: &str) -> PodStates {
        let (sender, receiver) = watch::channel(Seen::Nothing);
        let mut namespaces = lock(&self.namespaces);
        let running = namespaces.get(namespace).and_then(Weak::upgrade);
        // The pod is entered before a new watch begins, so that its first list finds it.
        let watched = match running {
            Some(watched) => {
                lock(&watched.pods).insert(name.to_owned(), sender);
                watched
            }
            None => {
                let pods: Pods = Arc::new(Mutex::new(HashMap::from([(name.to_owned(), sender)])));
                let task = tokio::spawn(dispatch(Arc::clone(&self.cluster), namespace.to_owned(), Arc::clone(&pods)));
                let watched = Arc::new(NamespaceWatch { pods, _task: AbortOnDropHandle::new(task) });
                namespaces.retain(|_, watched| watched.strong_count() > 0);
                namespaces.insert(namespace.to_owned(), Arc::downgrade(&watched));
                watched
            }
        };
        let target = Target::new("", "v1", "pods", namespace);
        PodStates { cluster: Arc::clone(&self.cluster), target, name: name.to_owned(), watched, receiver }
    }

    /// How many namespaces are watched now.
    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        lock(&self.namespaces).values().filter(|watched| watched.strong_count() > 0).count()
    }
}

/// Hands each change of a namespace's pods to those who wait for that pod.
async fn dispatch(cluster: Arc<dyn Cluster>, namespace: String, pods: Pods) {
    let target = Target::new("", "v1", "pods", &namespace);
    let mut failures = 0_u32;
    loop {
        let mut changes = cluster.watch(&target, None);
        while let Some(change) = changes.next().await {
            failures = if change.is_ok() { 0 } else { failures.saturating_add(1) };
            let (name, seen) = match change {
                Ok(Change::Is(pod)) => {
                    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
                    (name, Seen::Pod(PodState::of(&pod)))
                }
                Ok(Change::Gone(name)) => (name, Seen::Gone),
                Err(error) => {
                    tracing::debug!(namespace, %error, "watching pods failed; going on");
                    if failures == FAILURES_TOLD {
                        tracing::warn!(
                            namespace, %error,
                            "pods whose exec hooks wait cannot be watched; the hooks wait until they can"
                        );
                    }
                    continue;
                }
            };
            if let Some(sender) = lock(&pods).get(&name) {
                sender.send_if_modified(|known| {
                    let differs = *known != seen;
                    *known = seen;
                    differs
                });
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The states of one pod; dropping it ends the interest.
pub(super) struct PodStates {
    cluster: Arc<dyn Cluster>,
    target: Target,
    name: String,
    watched: Arc<NamespaceWatch>,
    receiver: watch::Receiver<Seen>,
}

impl PodStates {
    /// The next state that differs from the one before; those between are left out.
    ///
    /// # Cancel safety
    /// No state is lost when it is dropped before its end.
    pub(super) async fn next(&mut self) -> Seen {
        // A watch that ran before this pod was entered may have told of it already: so it is looked at once, too.
        if !self.receiver.has_changed().unwrap_or_default() && *self.receiver.borrow() == Seen::Nothing {
            let (cluster, target, name) = (&*self.cluster, &self.target, &self.name);
            let look = async {
                loop {
                    match retrying(Backoff::default(), &mut Attempts::default(), || cluster.get(target, name)).await {
                        Ok(pod) => return pod,
                        Err(error) => tracing::warn!(
                            pod = name, namespace = target.namespace, %error,
                            "cannot look at a pod whose exec hooks wait; trying again"
                        ),
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            };
            tokio::select! {
                _ = self.receiver.changed() => {}
                pod = look => {
                    let seen = pod.as_ref().map_or(Seen::Gone, |pod| Seen::Pod(PodState::of(pod)));
                    if let Some(sender) = lock(&self.watched.pods).get(name) {
                        // What the watch told meanwhile is not older.
                        sender.send_if_modified(|known| {
                            let first = *known == Seen::Nothing;
                            if first {
                                *known = seen;
                            }
                            first
                        });
                    }
                    // Marks it as seen; the sender lives in a map that this value keeps.
                    let _ = self.receiver.changed().await;
                }
            }
            return self.receiver.borrow_and_update().clone();
        }
        if self.receiver.changed().await.is_err() {
            // Another pod of this name took its place, which no run of the engine does.
            return Seen::Gone;
        }
        self.receiver.borrow_and_update().clone()
    }
}

impl Drop for PodStates {
    fn drop(&mut self) {
        lock(&self.watched.pods).remove(&self.name);
    }
}
