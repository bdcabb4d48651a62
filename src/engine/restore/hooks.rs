//! Beginning the exec hooks of pods that were created (restore-semantics 5.11 step 4).

use std::sync::PoisonError;

use serde_json::Value;

use super::Run;
use super::item::Item;
use crate::engine::hooks::PodHooks;
use crate::model::{Bucket, Reason, Severity};

impl Run {
    /// Begins the hooks of a pod as the API server stored it. One for a container that the pod does not have is never run,
    /// and a warning says so.
    pub(super) fn begin_exec_hooks(&self, item: &mut Item, created: &Value) {
        let namespace = item.wanted.target_namespace.to_string();
        let hooks = PodHooks::of(&self.job.spec.hooks, &namespace, created);
        if hooks.is_empty() {
            return;
        }
        let pod = item.display(&item.key.name);
        for note in &hooks.notes {
            self.info(format!("{pod}: {note}"));
        }
        for (hook, container) in &hooks.dropped {
            let message = format!("hook {hook} of {pod} is not run: the pod has no container {container}");
            item.warn(self, Reason::Other, message);
        }
        self.exec_hooks.lock().unwrap_or_else(PoisonError::into_inner).begin(&namespace, created, hooks);
    }

    /// A pod that an earlier run of this restore made had its hooks begun there, and nobody knows how they ended: they are
    /// not run again, and that is told.
    pub(super) fn warn_of_earlier_exec_hooks(&self, item: &Item, live: &Value) {
        if item.wanted.group_resource != "pods" || !self.is_ours(live) {
            return;
        }
        let namespace = &*item.wanted.target_namespace;
        if !PodHooks::of(&self.job.spec.hooks, namespace, live).is_empty() {
            let message = format!(
                "the exec hooks of {} are not run: the pod was there already, made by an earlier run of this restore \
                 that may not have run them; run their commands by hand if it has not",
                item.display(&item.key.name)
            );
            self.find(Severity::Warning, Bucket::of(namespace), Reason::Other, message);
        }
    }
}
