//! What the watches tell, by pod: one watch for all PodVolumeRestores of the restore and one for its pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::objects::{self, Told};

/// What is known of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The node it is scheduled on.
    pub(super) node: Option<String>,
    /// Its PodVolumeRestores, by name.
    pub(super) restores: BTreeMap<String, Told>,
}

/// Pods by their UID. What is told of a pod before anybody follows it is kept.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pods: HashMap<String, watch::Sender<Seen>>,
    /// The pod of each PodVolumeRestore: of a deleted one only the name is told.
    pod_of: HashMap<String, String>,
}

impl State {
    fn change(&mut self, pod_uid: &str, change: impl FnOnce(&mut Seen)) {
        let pod = self.pods.entry(pod_uid.to_owned()).or_default();
        pod.send_if_modified(|seen| {
            let before = seen.clone();
            change(seen);
            *seen != before
        });
    }
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a pod, now and later.
    pub(super) fn follow(&self, pod_uid: &str) -> watch::Receiver<Seen> {
        self.state().pods.entry(pod_uid.to_owned()).or_default().subscribe()
    }

    /// A PodVolumeRestore is there, and looks like this.
    pub(super) fn take_restore(&self, restore_uid: &str, object: &Value) {
        let Some((pod_uid, name, told)) = objects::read_restore(restore_uid, object) else { return };
        let mut state = self.state();
        state.pod_of.insert(name.clone(), pod_uid.clone());
        state.change(&pod_uid, |seen| {
            seen.restores.insert(name, told);
        });
    }

    /// A PodVolumeRestore is there no longer.
    pub(super) fn restore_gone(&self, name: &str) {
        let mut state = self.state();
        if let Some(pod_uid) = state.pod_of.get(name).cloned() {
            state.change(&pod_uid, |seen| {
                seen.restores.entry(name.to_owned()).or_default().is_gone = true;
            });
        }
    }

    /// A pod is there, and looks like this. The first node is what counts.
    pub(super) fn take_pod(&self, pod: &Value) {
        if let Some(node) = objects::scheduled_on(pod) {
            let uid = objects::text(pod, "/metadata/uid");
            self.state().change(uid, |seen| {
                seen.node.get_or_insert_with(|| node.to_owned());
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn restore(name: &str, pod: &str, phase: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"velero.io/restore-uid": "r", "velero.io/pod-uid": pod}},
            "spec": {"volume": "data"}, "status": {"phase": phase, "progress": {"bytesDone": 3, "totalBytes": 9}}})
    }

    #[test]
    fn each_pod_hears_of_its_own_restores_only_and_of_what_was_told_before() {
        let board = Board::default();
        board.take_restore("r", &restore("r-1", "a", "InProgress"));
        let (mut a, b) = (board.follow("a"), board.follow("b"));
        let told = a.borrow_and_update().restores["r-1"].clone();
        assert_eq!((told.phase.as_str(), told.bytes_done, told.total_bytes), ("InProgress", 3, 9));
        board.take_restore("r", &restore("r-1", "a", "InProgress"));
        assert!(!a.has_changed().unwrap(), "nothing new was told");
        board.take_restore("r", &restore("r-1", "a", "Completed"));
        board.take_restore("another", &restore("x-1", "b", "Failed"));
        assert!(a.has_changed().unwrap() && !b.has_changed().unwrap());
        board.restore_gone("r-1");
        board.restore_gone("unknown");
        assert!(a.borrow().restores["r-1"].is_gone);
    }

    #[test]
    fn the_first_node_of_a_pod_counts() {
        let board = Board::default();
        let pod =
            |node: &str| json!({"metadata": {"uid": "a"}, "spec": {"nodeName": node}, "status": {"phase": "Pending"}});
        board.take_pod(&json!({"metadata": {"uid": "a"}, "status": {"phase": "Pending"}}));
        assert_eq!(board.follow("a").borrow().node, None);
        board.take_pod(&pod("n1"));
        board.take_pod(&pod("n2"));
        assert_eq!(board.follow("a").borrow().node.as_deref(), Some("n1"));
    }
}
