//! One pod whose volumes are to be filled: orders to the node agent, and waiting for them (restore-semantics 5.13).

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

use super::super::AnnouncedWait;
use super::board::Seen;
use super::objects::{self, Told, text};
use super::{Pod, RestoredPodVolume, Shared};
use crate::engine::pod_volume_backups::VolumeBackup;
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::{Outcome, Target, Waiting};

/// How long a pod may take to be scheduled before nobody looks for its node's agent any more: Velero's own value.
const SCHEDULING_PATIENCE: Duration = Duration::from_secs(600);

/// A volume whose data is not there yet.
struct Open {
    /// Name of its PodVolumeRestore.
    restore: String,
    announced: Announced,
}

/// The announced wait for a volume, with what was last said of it.
struct Announced {
    wait: AnnouncedWait,
    reason: Option<String>,
}

impl Shared {
    /// Restores the data of a pod's volumes, or records why not.
    ///
    /// When the run is stopped, what is open stays open: the run that goes on with this restore finds the
    /// PodVolumeRestores by their labels.
    pub(super) async fn restore(&self, pod: &Pod) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = self.restore_volumes(pod) => {}
        }
    }

    async fn restore_volumes(&self, pod: &Pod) {
        let mut open = BTreeMap::new();
        let ordered = timeout_at(self.deadline, self.order(pod, &mut open)).await;
        let ordered = ordered.unwrap_or_else(|_| Err(timed_out()));
        if let Err(message) = ordered {
            let left: Vec<&str> = pod.volumes.keys().map(String::as_str).collect();
            self.give_up(pod, &left, &message);
            return;
        }
        if let Err(message) = self.wait(pod, &mut open).await {
            let left: Vec<&str> = open.keys().map(String::as_str).collect();
            self.give_up(pod, &left, &message);
        }
    }

    /// One error for all volumes of the pod that are open.
    fn give_up(&self, pod: &Pod, volumes: &[&str], message: &str) {
        let volumes = volumes.iter().filter(|volume| self.is_open(pod, volume)).copied().collect::<Vec<_>>();
        if volumes.is_empty() {
            return;
        }
        self.fail(format!("{message} (pod {}/{}, volumes {})", pod.namespace, pod.name, volumes.join(", ")));
        for volume in volumes {
            self.end(pod, volume, Outcome::Failed);
        }
    }

    /// Gives the orders, each volume on its own: one that cannot be ordered is an error and keeps no other back.
    async fn order(&self, pod: &Pod, open: &mut BTreeMap<String, Open>) -> Result<(), String> {
        self.node_agent().await?;
        self.repository(&pod.source_namespace).await?;
        // A backup may have thousands of pods, all of which come here at the same moment.
        let _slot = self.slots.acquire().await.map_err(|error| error.to_string())?;
        for (volume, backup) in &pod.volumes {
            match self.order_volume(pod, volume, backup).await {
                Ok(restore) => {
                    let waiting = waiting(pod, volume, &restore, None);
                    let announced = Announced { wait: self.announce(waiting), reason: None };
                    open.insert(volume.clone(), Open { restore, announced });
                }
                Err(message) => {
                    self.fail(format!("{message} (pod {}/{}, volume {volume})", pod.namespace, pod.name));
                    self.end(pod, volume, Outcome::Failed);
                }
            }
        }
        Ok(())
    }

    /// Gives one order, and the name of its PodVolumeRestore; one that an interrupted run of this restore gave is taken.
    async fn order_volume(&self, pod: &Pod, volume: &str, backup: &VolumeBackup) -> Result<String, String> {
        if let Some(earlier) = self.earlier().await?.get(&(pod.uid.clone(), volume.to_owned())) {
            self.info(format!("PodVolumeRestore {earlier} for volume {volume} of pod {pod} is there already"));
            return Ok(earlier.clone());
        }
        let claim_uid = match pod.claims.get(volume) {
            Some(claim) => Some(self.claim_uid(&pod.namespace, claim).await?),
            None => None,
        };
        let object = objects::pod_volume_restore(&self.job, pod, volume, backup, claim_uid.as_deref());
        let name = self.create(pod, volume, &object).await?;
        self.info(format!("PodVolumeRestore {name} is created for volume {volume} of pod {pod}"));
        Ok(name)
    }

    /// The UID of the claim behind a volume.
    async fn claim_uid(&self, namespace: &str, claim: &str) -> Result<String, String> {
        let target = Target::new("", "v1", "persistentvolumeclaims", namespace);
        let get = || self.cluster.get(&target, claim);
        let answer =
            retrying(Backoff::default(), &mut Attempts::default(), get).await.map_err(|error| error.to_string());
        let found = answer.and_then(|live| live.ok_or_else(|| format!("persistentvolumeclaims {claim:?} not found")));
        let found = found.map_err(|why| format!("error getting persistent volume claim for volume: {why}"))?;
        Ok(text(&found, "/metadata/uid").to_owned())
    }

    /// Creates a PodVolumeRestore under a generated name. A try without an answer may have succeeded, so that before the
    /// next one it is looked for: two for one volume would write into the same files.
    async fn create(&self, pod: &Pod, volume: &str, object: &Value) -> Result<String, String> {
        let backoff = Backoff::default();
        let target = objects::velero(&self.job, "podvolumerestores");
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match self.cluster.create(&target, object).await {
                Ok(created) => return Ok(text(&created, "/metadata/name").to_owned()),
                Err(error) => error,
            };
            // A generated name can be taken; the next one is another.
            let again = error.is_already_exists() || error.is_retryable();
            if !again || tried >= backoff.tries {
                return Err(format!("error creating PodVolumeRestore: {error}"));
            }
            if error.is_already_exists() {
                continue;
            }
            sleep(backoff.pause(tried, &error, getrandom::u32().unwrap_or(u32::MAX))).await;
            let selector = objects::restores_selector(&self.job, Some(&pod.uid));
            let list = || self.cluster.list(&target, &selector);
            let found = retrying(backoff, &mut Attempts::default(), list).await;
            let found = found.map_err(|error| format!("error creating PodVolumeRestore: {error}"))?;
            if let Some(made) = found.iter().find(|made| text(made, "/spec/volume") == volume) {
                return Ok(text(made, "/metadata/name").to_owned());
            }
        }
    }

    /// Waits until the node agent has an end for each volume.
    async fn wait(&self, pod: &Pod, open: &mut BTreeMap<String, Open>) -> Result<(), String> {
        let mut seen = self.board.follow(&pod.uid);
        let mut agent = pin!(self.check_agent(pod, self.board.follow(&pod.uid)));
        let mut checks = true;
        loop {
            let now = seen.borrow_and_update().clone();
            self.settle(pod, &now, open);
            if open.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                changed = seen.changed() => changed.map_err(|error| error.to_string())?,
                checked = &mut agent, if checks => {
                    checks = false;
                    checked?;
                }
                () = sleep_until(self.deadline) => return Err(timed_out()),
            }
        }
    }

    /// Ends the volumes that have an end by what was seen, and says how far the others are.
    fn settle(&self, pod: &Pod, seen: &Seen, open: &mut BTreeMap<String, Open>) {
        open.retain(|volume, open| {
            let Some(told) = seen.restores.get(&open.restore) else { return true };
            let failed = |what: &str| {
                let (restore, message) = (&open.restore, &told.message);
                format!("pod volume restore {what}: {message} (pod {pod}, volume {volume}, PodVolumeRestore {restore})")
            };
            let failure = match told.phase.as_str() {
                "Completed" => None,
                "Failed" => Some(failed("failed")),
                "Canceled" => Some(failed("canceled")),
                _ if told.is_gone => {
                    self.fail(failed("was deleted before it had ended"));
                    self.end(pod, volume, Outcome::Failed);
                    return false;
                }
                _ => {
                    self.tell(pod, volume, open, told);
                    return true;
                }
            };
            self.info(format!(
                "PodVolumeRestore {} for volume {volume} of pod {pod} has ended: {}, {} bytes",
                open.restore, told.phase, told.total_bytes
            ));
            self.restored(restored(pod, volume, told));
            let outcome = if failure.is_some() { Outcome::Failed } else { Outcome::Created };
            if let Some(message) = failure {
                self.fail(message);
            }
            self.end(pod, volume, outcome);
            false
        });
    }

    /// Says of a volume that is waited for how far it is.
    fn tell(&self, pod: &Pod, volume: &str, open: &mut Open, told: &Told) {
        let phase = if told.phase.is_empty() { "New" } else { &told.phase };
        let mut reason = phase.to_owned();
        if !told.node.is_empty() {
            reason = format!("{reason} on node {}", told.node);
        }
        if told.total_bytes > 0 {
            reason = format!("{reason}, {} of {} bytes", told.bytes_done, told.total_bytes);
        }
        if open.announced.reason.as_ref() != Some(&reason) {
            self.announce_again(&open.announced.wait, waiting(pod, volume, &open.restore, Some(reason.clone())));
            open.announced.reason = Some(reason);
        }
    }

    /// Once the pod has a node, there must be a node agent on it; nobody else can fill its volumes. A pod that gets no
    /// node for long is waited for all the same.
    async fn check_agent(&self, pod: &Pod, mut seen: watch::Receiver<Seen>) -> Result<(), String> {
        let scheduled = async { seen.wait_for(|seen| seen.node.is_some()).await.ok()?.node.clone() };
        let Ok(Some(node)) = timeout(SCHEDULING_PATIENCE, scheduled).await else {
            self.info(format!("pod {pod} is not scheduled yet; whether a node agent is on its node is not checked"));
            return Ok(());
        };
        let on_node = self.node_agent_on(&node).await;
        on_node.map_err(|why| format!("node-agent pod is not running in node {node}: {why}"))
    }
}

fn timed_out() -> String {
    "timed out waiting for all PodVolumeRestores to complete".to_owned()
}

fn waiting(pod: &Pod, volume: &str, restore: &str, reason: Option<String>) -> Waiting {
    Waiting {
        object: format!("volume {volume} of pod {pod}"),
        request: format!("restore its data (PodVolumeRestore {restore})"),
        reason,
    }
}

fn restored(pod: &Pod, volume: &str, told: &Told) -> RestoredPodVolume {
    RestoredPodVolume {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        volume: volume.to_owned(),
        claim: pod.claims.get(volume).cloned(),
        snapshot_id: told.snapshot_id.clone(),
        uploader_type: told.uploader_type.clone(),
        size: told.total_bytes,
    }
}
