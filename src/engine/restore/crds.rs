//! Waiting until restored CustomResourceDefinitions are served: all at once, by one watch (restore-semantics 5.11.5).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use serde_json::Value;

use super::Run;
use super::item::Ending;
use crate::engine::ports::Change;
use crate::model::{Bucket, Reason, Severity, Target, Waiting};

/// The group-resource whose objects are waited for.
pub(super) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Created definitions whose readiness is still open, by name.
#[derive(Default)]
pub(super) struct Waits(Mutex<HashMap<String, Ending>>);

impl Waits {
    /// Puts off the end of a created definition until it is served.
    pub(super) fn defer(&self, name: &str, ending: Ending) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), ending);
    }

    fn take(&self) -> HashMap<String, Ending> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Run {
    /// Waits for all definitions that were created since the last call, up to the resource timeout.
    ///
    /// One that does not get ready is an error of its own and stays `created`; the others go on.
    pub(super) async fn wait_for_crds(&self) {
        let mut open = self.crds.take();
        if open.is_empty() {
            return;
        }
        let begun = Instant::now();
        let mut names: Vec<&str> = open.keys().map(String::as_str).collect();
        names.sort_unstable();
        let waiting = Waiting {
            object: "CustomResourceDefinitions".to_owned(),
            request: "wait until they are established".to_owned(),
            reason: Some(names.join(", ")),
        };
        let _announced = self.announce_wait(waiting);
        let target = Target::new("apiextensions.k8s.io", "v1", "customresourcedefinitions", "");
        let mut changes = self.cluster.watch(&target, None);
        let all_ready = tokio::time::timeout(self.job.settings.resource_timeout, async {
            while !open.is_empty() {
                match changes.next().await {
                    Some(Ok(Change::Is(definition))) if is_ready(&definition) => {
                        let name = definition.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                        if let Some(ending) = open.remove(name) {
                            self.end(ending);
                        }
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
        for (name, ending) in open {
            // Created they are; whether they would have got ready is no longer asked.
            if stopped {
                self.end(ending);
                continue;
            }
            let message = format!(
                "error waiting for CRD {name} to become ready: not established within {:?}; its custom resources may fail",
                begun.elapsed()
            );
            self.find(Severity::Error, Bucket::Cluster, Reason::Timeout, message);
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
