//! Waiting until restored CustomResourceDefinitions are served: all at once, by one watch (restore-semantics 5.11.5).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Run;
use super::item::Ending;
use crate::engine::ports::Change;
use crate::model::{Bucket, GroupResource, Reason, Severity, Target, Waiting};

/// The group-resource whose objects are waited for.
pub(super) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// How long everything else waits for definitions. Mostly they are served within a second; one that is not holds up its
/// own objects only.
const GRACE: Duration = Duration::from_secs(10);

/// Created definitions whose readiness is still open.
#[derive(Default)]
pub(super) struct Waits(Mutex<Open>);

#[derive(Default)]
struct Open {
    /// By name, which is that of their objects' group-resource.
    endings: HashMap<String, Ending>,
    /// Those of them that nobody waits for yet.
    fresh: Vec<String>,
    /// Those who wait beside all other work.
    tasks: Vec<JoinHandle<()>>,
}

impl Waits {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts off the end of a created definition until it is served.
    pub(super) fn defer(&self, name: &str, ending: Ending) {
        let mut open = self.open();
        open.endings.insert(name.to_owned(), ending);
        open.fresh.push(name.to_owned());
    }
}

impl Run {
    /// Waits for all definitions that were created since the last call: a short while here, and beside all other work up
    /// to the resource timeout.
    ///
    /// One that does not get ready is an error of its own and stays `created`; the others go on.
    pub(super) async fn wait_for_crds(self: &Arc<Self>) {
        let mut names = std::mem::take(&mut self.crds.open().fresh);
        if names.is_empty() {
            return;
        }
        names.sort_unstable();
        let run = Arc::clone(self);
        let mut task = tokio::spawn(async move { run.wait_for_definitions(names).await });
        match tokio::time::timeout(GRACE, &mut task).await {
            Ok(ended) => self.survive(ended),
            Err(_) => self.crds.open().tasks.push(task),
        }
    }

    /// Whether the definition of these objects was created, and is not served yet.
    pub(in crate::engine) fn waits_for_definition(&self, group_resource: &GroupResource) -> bool {
        self.crds.open().endings.contains_key(&group_resource.to_string())
    }

    /// Returns when no definition is waited for any more.
    pub(in crate::engine) async fn definitions_settled(&self) {
        let tasks = std::mem::take(&mut self.crds.open().tasks);
        for mut task in tasks {
            tokio::select! {
                ended = &mut task => self.survive(ended),
                () = self.stop.cancelled() => task.abort(),
            }
        }
        // What was stopped or ended unexpectedly leaves definitions that were created all the same.
        let left = std::mem::take(&mut self.crds.open().endings);
        left.into_values().for_each(|ending| self.end(ending));
    }

    async fn wait_for_definitions(&self, mut open: Vec<String>) {
        let begun = Instant::now();
        let waiting = Waiting {
            object: "CustomResourceDefinitions".to_owned(),
            request: "wait until they are established".to_owned(),
            reason: Some(open.join(", ")),
        };
        let _announced = self.announce_wait(waiting);
        let target = Target::new("apiextensions.k8s.io", "v1", "customresourcedefinitions", "");
        let mut changes = self.cluster.watch(&target, None);
        let all_ready = tokio::time::timeout(self.job.settings.resource_timeout, async {
            while !open.is_empty() {
                match changes.next().await {
                    Some(Ok(Change::Is(definition))) if is_ready(&definition) => {
                        let name = definition.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                        open.retain(|open| open != name);
                        self.settle(name);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => self.debug(format!("watching CustomResourceDefinitions: {error}")),
                    None => break,
                }
            }
        });
        // Whether it timed out or the watch ended, what is still open did not get ready.
        let stopped = tokio::select! {
            _ = all_ready => false,
            () = self.stop.cancelled() => true,
        };
        for name in open {
            // Created they are; whether they would have got ready is no longer asked.
            if stopped {
                self.settle(&name);
                continue;
            }
            let message = format!(
                "error waiting for CRD {name} to become ready: not established within {:?}; its custom resources may fail",
                begun.elapsed()
            );
            self.find(Severity::Error, Bucket::Cluster, Reason::Timeout, message);
            self.settle(&name);
        }
    }

    /// Tells the end of a definition.
    fn settle(&self, name: &str) {
        let ending = self.crds.open().endings.remove(name);
        if let Some(ending) = ending {
            self.end(ending);
        }
    }
}

/// Conditions `Established` and `NamesAccepted` are both `True`.
fn is_ready(definition: &Value) -> bool {
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    let holds = |wanted: &str| {
        conditions.is_some_and(|conditions| {
            conditions.iter().any(|condition| condition["type"] == wanted && condition["status"] == "True")
        })
    };
    holds("Established") && holds("NamesAccepted")
}
