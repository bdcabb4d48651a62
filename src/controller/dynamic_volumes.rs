//! Giving volumes that were provisioned anew the reclaim policy and the labels that they had in the backup
//! (restore-semantics 5.14 step 3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, SelectAll, select_all};
use futures::{FutureExt, StreamExt};
use serde_json::{Map, Value, json};

use crate::engine::events::{Event, Events};
use crate::engine::ports::{ApiError, Change, Cluster};
use crate::model::{Bucket, Finding, Severity, Target, Waiting};
use crate::velero::volume_info::{BackupVolumeInfo, ItemOperation, PvInfo};

/// Claims that are waited for at the same time.
const AT_ONCE: usize = 3;

/// The pause before looking again where a watch ended, which it does on shutdown alone.
const WATCH_ENDED_PAUSE: Duration = Duration::from_secs(1);

/// How often a request that fails for a passing reason is tried again, and the pause before that.
const RETRIES: u32 = 10;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The item action whose unfinished operations excuse a claim.
const CSI_ACTION: &str = "velero.io/csi-pvc-restorer";

/// A restored claim whose new volume is to become like the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The target namespace.
    namespace: String,
    name: String,
    /// Name of the volume in the backup, for messages.
    old_volume: String,
    /// What the old volume was like.
    wanted: PvInfo,
}

/// The claims that this restore created and whose volumes had a pod volume backup or a CSI snapshot.
pub(super) fn claims(
    infos: &[BackupVolumeInfo],
    mapping: &BTreeMap<String, String>,
    resource_list: &BTreeMap<String, Vec<String>>,
    operations: &[ItemOperation],
) -> Vec<Claim> {
    let listed = resource_list.get("v1/PersistentVolumeClaim").into_iter().flatten();
    let created: BTreeSet<&str> = listed.filter_map(|entry| entry.strip_suffix("(created)")).collect();
    let is_provisioned =
        |info: &&BackupVolumeInfo| matches!(info.backup_method.as_str(), "PodVolumeBackup" | "CSISnapshot");
    let claim = |info: &BackupVolumeInfo| {
        let namespace = mapping.get(&info.pvc_namespace).unwrap_or(&info.pvc_namespace).clone();
        let is_wanted = created.contains(format!("{namespace}/{}", info.pvc_name).as_str())
            && !has_unfinished_operation(operations, &namespace, &info.pvc_name);
        is_wanted.then(|| info.pv.clone()).flatten().map(|wanted| Claim {
            namespace,
            name: info.pvc_name.clone(),
            old_volume: info.pv_name.clone(),
            wanted,
        })
    };
    infos.iter().filter(is_provisioned).filter_map(claim).collect()
}

fn has_unfinished_operation(operations: &[ItemOperation], namespace: &str, name: &str) -> bool {
    operations.iter().any(|operation| {
        let item = &operation.spec.resource_identifier;
        operation.spec.restore_item_action == CSI_ACTION
            && operation.status.phase != "Completed"
            && item.namespace == namespace
            && item.name == name
    })
}

/// Waits for each claim to be bound, by watch, and patches its volume; gives the errors in the order of the claims.
pub(super) async fn patch(
    cluster: &dyn Cluster,
    events: &dyn Events,
    patience: Duration,
    claims: &[Claim],
) -> Vec<Finding> {
    // Boxed one by one: as a closure over borrowed claims the compiler does not see that they may change threads.
    let mut patches: Vec<BoxFuture<'_, (usize, Vec<String>)>> = Vec::with_capacity(claims.len());
    for (number, claim) in claims.iter().enumerate() {
        patches.push(async move { (number, claim.patch_in_time(cluster, events, patience).await) }.boxed());
    }
    let mut failed: Vec<(usize, Vec<String>)> = stream::iter(patches).buffer_unordered(AT_ONCE).collect().await;
    failed.sort_unstable_by_key(|(number, _)| *number);
    let finding =
        |claim: &Claim, message| Finding { severity: Severity::Error, bucket: Bucket::of(&claim.namespace), message };
    let failed = failed.into_iter().zip(claims);
    failed.flat_map(|((_, messages), claim)| messages.into_iter().map(move |message| finding(claim, message))).collect()
}

/// Why a volume was not patched.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The class of a claim that is not bound cannot be read.
    StorageClass(ApiError),
    /// Another request failed.
    Request(ApiError),
    /// Something is not as it should be, or took too long.
    Other(String),
}

impl Failure {
    fn is_passing(&self) -> bool {
        match self {
            Self::StorageClass(error) | Self::Request(error) => error.is_retryable(),
            Self::Other(_) => false,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Request(error)
    }
}

/// Where a claim and its volume stand.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Done,
    /// Not bound yet; to be looked at again when the claim or this volume changes.
    Wait(Option<String>),
}

impl Claim {
    fn failed(&self, why: &str) -> String {
        format!("fail to patch dynamic PV, err: {why}, PVC: {}, PV: {}", self.name, self.old_volume)
    }

    /// The messages of its errors. The time begins when it is this claim's turn.
    async fn patch_in_time(&self, cluster: &dyn Cluster, events: &dyn Events, patience: Duration) -> Vec<String> {
        let ended = tokio::time::timeout(patience, self.patch(cluster, events)).await;
        match ended.unwrap_or_else(|_| Err(Failure::Other("context deadline exceeded".to_owned()))) {
            Ok(()) => Vec::new(),
            // Velero reports it twice, and its error counts are ours.
            Err(Failure::StorageClass(error)) => vec![error.to_string(), self.failed(&error.to_string())],
            Err(Failure::Request(error)) => vec![self.failed(&error.to_string())],
            Err(Failure::Other(message)) => vec![self.failed(&message)],
        }
    }

    async fn patch(&self, cluster: &dyn Cluster, events: &dyn Events) -> Result<(), Failure> {
        let mut announced = None;
        let mut watched: Option<(Option<String>, SelectAll<_>)> = None;
        let mut failures = 0;
        loop {
            let volume = match self.step(cluster).await {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Wait(volume)) => volume,
                Err(failure) if failure.is_passing() && failures < RETRIES => {
                    failures += 1;
                    tracing::debug!(claim = self.name, ?failure, "a request failed; trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            failures = 0;
            announced.get_or_insert_with(|| AnnouncedWait::begin(events, self));
            // A watch begins with what is there now, so nothing that happened since the look is missed.
            if watched.as_ref().is_none_or(|(of, _)| *of != volume) {
                let mut watches: Vec<BoxStream<'_, Result<Change, ApiError>>> =
                    vec![cluster.watch(&self.target(), Some(&self.name))];
                if let Some(volume) = &volume {
                    watches.push(cluster.watch(&volumes(), Some(volume)));
                }
                watched = Some((volume, select_all(watches)));
            }
            let Some((_, changes)) = &mut watched else { continue };
            match changes.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::debug!(claim = self.name, %error, "watching a claim failed; going on"),
                None => tokio::time::sleep(WATCH_ENDED_PAUSE).await,
            }
        }
    }

    fn target(&self) -> Target {
        Target::new("", "v1", "persistentvolumeclaims", &self.namespace)
    }

    async fn step(&self, cluster: &dyn Cluster) -> Result<Step, Failure> {
        let claim = cluster.get(&self.target(), &self.name).await?;
        let volume = match state_of(claim.as_ref()) {
            State::Bound(volume) => volume,
            State::Unbound => return Ok(Step::Wait(None)),
            State::Pending(class) => {
                let classes = Target::new("storage.k8s.io", "v1", "storageclasses", "");
                let found = cluster.get(&classes, &class).await.map_err(Failure::StorageClass)?;
                let found = found.ok_or_else(|| {
                    let message = format!("storageclasses.storage.k8s.io {class:?} not found");
                    Failure::StorageClass(ApiError::status(404, "NotFound", message))
                })?;
                // Such a claim is bound when a pod uses it, which may be never.
                let waits = found.get("volumeBindingMode").and_then(Value::as_str) == Some("WaitForFirstConsumer");
                return Ok(if waits { Step::Done } else { Step::Wait(None) });
            }
        };
        let Some(live) = cluster.get(&volumes(), &volume).await? else { return Ok(Step::Wait(Some(volume))) };
        if !self.is_bound_to(&live).map_err(Failure::Other)? {
            return Ok(Step::Wait(Some(volume)));
        }
        if let Some(patch) = volume_patch(&live, &self.wanted) {
            cluster.merge_patch(&volumes(), &volume, &patch).await?;
        }
        Ok(Step::Done)
    }

    /// Whether the volume is bound to this claim; to another one is an error.
    fn is_bound_to(&self, volume: &Value) -> Result<bool, String> {
        let text = |pointer: &str| volume.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/spec/claimRef/namespace"), text("/spec/claimRef/name"));
        if name.is_empty() || text("/status/phase") != "Bound" {
            Ok(false)
        } else if (namespace, name) == (&*self.namespace, &*self.name) {
            Ok(true)
        } else {
            Err(format!(
                "PV was bound by unexpected PVC, unexpected PVC: {namespace}/{name}, expected PVC: {}/{}",
                self.namespace, self.name
            ))
        }
    }
}

/// What a claim tells of its binding.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// To this volume.
    Bound(String),
    /// Not yet; whether it will be depends on its class.
    Pending(String),
    /// Not there, not bound, or pending without a class: it may be given one, or meet a volume without one.
    Unbound,
}

fn state_of(claim: Option<&Value>) -> State {
    let text = |pointer: &str| {
        let value = claim.and_then(|claim| claim.pointer(pointer)).and_then(Value::as_str);
        value.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let state = match text("/status/phase").as_deref() {
        Some("Bound") => text("/spec/volumeName").map(State::Bound),
        Some("Pending") => text("/spec/storageClassName").map(State::Pending),
        _ => None,
    };
    state.unwrap_or(State::Unbound)
}

/// The patch that makes the volume like the old one; nothing when the policy is right and no label is missing or
/// different. A patch replaces all labels.
fn volume_patch(volume: &Value, wanted: &PvInfo) -> Option<Value> {
    const POLICY: &str = "persistentVolumeReclaimPolicy";
    let labels = volume.pointer("/metadata/labels").and_then(Value::as_object);
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let policy = volume.get("spec").and_then(|spec| spec.get(POLICY)).and_then(Value::as_str).unwrap_or_default();
    let same_labels = wanted.labels.iter().all(|(key, value)| label(key) == Some(value));
    // A volume info without a policy does not say what to change it to.
    let same_policy = wanted.reclaim_policy.is_empty() || wanted.reclaim_policy == policy;
    if same_labels && same_policy {
        return None;
    }
    // In a merge patch a null removes the label that the old volume did not have.
    let surplus = labels.into_iter().flat_map(Map::keys).filter(|key| !wanted.labels.contains_key(*key));
    let mut patched: Map<String, Value> = surplus.map(|key| (key.clone(), Value::Null)).collect();
    patched.extend(wanted.labels.iter().map(|(key, value)| (key.clone(), json!(value))));
    let mut patch = json!({"metadata": {"labels": patched}});
    if !same_policy {
        patch["spec"] = json!({POLICY: wanted.reclaim_policy});
    }
    Some(patch)
}

fn volumes() -> Target {
    Target::new("", "v1", "persistentvolumes", "")
}

/// Ends an announced wait when it goes out of scope, whatever the way.
struct AnnouncedWait<'a> {
    events: &'a dyn Events,
    object: String,
}

impl<'a> AnnouncedWait<'a> {
    fn begin(events: &'a dyn Events, claim: &Claim) -> Self {
        let object = format!("persistentvolumeclaim {}/{}", claim.namespace, claim.name);
        events.emit(Event::Wait(Waiting {
            object: object.clone(),
            request: "wait until it is bound".to_owned(),
            reason: Some("its volume is then given the reclaim policy and labels of the backup".to_owned()),
        }));
        Self { events, object }
    }
}

impl Drop for AnnouncedWait<'_> {
    fn drop(&mut self) {
        self.events.emit(Event::WaitOver(std::mem::take(&mut self.object)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::*;
    use crate::engine::actions::testing::FakeCluster;
    use crate::velero::volume_info::{ItemOperationSpec, ItemOperationStatus, ResourceIdentifier};

    fn info(claim: &str, method: &str) -> BackupVolumeInfo {
        BackupVolumeInfo {
            pvc_name: claim.to_owned(),
            pvc_namespace: "app".to_owned(),
            pv_name: format!("pv-{claim}"),
            backup_method: method.to_owned(),
            pv: Some(wanted()),
            ..BackupVolumeInfo::default()
        }
    }

    fn wanted() -> PvInfo {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        PvInfo { reclaim_policy: "Retain".to_owned(), labels }
    }

    fn claim(name: &str) -> Claim {
        Claim { namespace: "dst".to_owned(), name: name.to_owned(), old_volume: format!("pv-{name}"), wanted: wanted() }
    }

    fn live_claim(name: &str, spec: Value, phase: &str) -> Value {
        json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "dst"}, "spec": spec,
            "status": {"phase": phase}})
    }

    fn live_volume(bound_to: &str, policy: &str, labels: &Value) -> Value {
        json!({"kind": "PersistentVolume", "metadata": {"name": "new", "labels": labels}, "status": {"phase": "Bound"},
            "spec": {"persistentVolumeReclaimPolicy": policy, "claimRef": {"namespace": "dst", "name": bound_to}}})
    }

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Events for Heard {
        fn emit(&self, event: Event) {
            self.0.lock().unwrap().push(match event {
                Event::Wait(waiting) => format!("wait {}", waiting.object),
                Event::WaitOver(object) => format!("over {object}"),
                other => format!("{other:?}"),
            });
        }
    }

    /// restore-semantics 5.14 step 3
    #[test]
    fn only_created_claims_with_data_and_a_described_volume_are_waited_for() {
        let mut without_info = info("bare", "PodVolumeBackup");
        without_info.pv = None;
        let infos = [
            info("files", "PodVolumeBackup"),
            info("snapshot", "CSISnapshot"),
            info("native", "NativeSnapshot"),
            info("skipped", ""),
            info("existing", "PodVolumeBackup"),
            info("absent", "PodVolumeBackup"),
            info("moving", "CSISnapshot"),
            without_info,
        ];
        let created = ["files", "snapshot", "native", "skipped", "bare", "moving"];
        let mut entries: Vec<String> = created.iter().map(|name| format!("dst/{name}(created)")).collect();
        entries.push("dst/existing(skipped)".to_owned());
        let list = BTreeMap::from([("v1/PersistentVolumeClaim".to_owned(), entries)]);
        let operation = |name: &str, phase: &str| ItemOperation {
            spec: ItemOperationSpec {
                restore_item_action: CSI_ACTION.to_owned(),
                resource_identifier: ResourceIdentifier {
                    resource: "persistentvolumeclaims".to_owned(),
                    namespace: "dst".to_owned(),
                    name: name.to_owned(),
                    ..ResourceIdentifier::default()
                },
                ..ItemOperationSpec::default()
            },
            status: ItemOperationStatus { phase: phase.to_owned(), ..ItemOperationStatus::default() },
        };
        let operations = [operation("moving", "Failed"), operation("snapshot", "Completed")];
        let mapping = BTreeMap::from([("app".to_owned(), "dst".to_owned())]);
        assert_eq!(claims(&infos, &mapping, &list, &operations), [claim("files"), claim("snapshot")]);
        assert_eq!(claims(&infos, &BTreeMap::new(), &list, &operations), []);
    }

    /// restore-semantics 5.14 step 3
    #[test]
    fn a_claim_tells_its_volume_or_its_class_or_is_waited_for() {
        let state = |spec: Value, phase: &str| state_of(Some(&live_claim("data", spec, phase)));
        assert_eq!(
            state(json!({"volumeName": "new", "storageClassName": "fast"}), "Bound"),
            State::Bound("new".into())
        );
        assert_eq!(state(json!({"storageClassName": "fast"}), "Pending"), State::Pending("fast".into()));
        assert_eq!(state(json!({"storageClassName": "fast"}), "Lost"), State::Unbound);
        assert_eq!(state(json!({}), "Pending"), State::Unbound, "without a class nothing is looked up");
        assert_eq!(state_of(None), State::Unbound);
    }

    /// restore-semantics 5.14 step 3
    #[test]
    fn policy_and_labels_are_set_together_and_only_where_one_is_wrong() {
        let right = live_volume("data", "Retain", &json!({"a": "b", "zone": "z"}));
        assert_eq!(volume_patch(&right, &wanted()), None, "a further label alone is no reason");
        let wrong_policy = live_volume("data", "Delete", &json!({"a": "b", "zone": "z"}));
        let patch = volume_patch(&wrong_policy, &wanted()).unwrap();
        assert_eq!(
            patch,
            json!({"metadata": {"labels": {"a": "b", "zone": null}}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}})
        );
        let no_labels = live_volume("data", "Retain", &Value::Null);
        assert_eq!(volume_patch(&no_labels, &wanted()), Some(json!({"metadata": {"labels": {"a": "b"}}})));
    }

    /// restore-semantics 5.14 step 3
    #[test]
    fn a_volume_is_bound_to_its_claim_to_another_or_not_yet() {
        let volume = live_volume("data", "Retain", &json!({}));
        assert_eq!(claim("data").is_bound_to(&volume), Ok(true));
        let error = claim("other").is_bound_to(&volume).unwrap_err();
        assert!(error.contains("unexpected PVC: dst/data, expected PVC: dst/other"), "{error}");
        let mut available = volume;
        available["status"]["phase"] = json!("Available");
        assert_eq!(claim("data").is_bound_to(&available), Ok(false));
    }

    /// restore-semantics 5.14 step 3
    #[tokio::test(start_paused = true)]
    async fn each_claim_ends_as_5_14_says_and_waits_are_announced() {
        let class = |name: &str, mode: &str| json!({"kind": "StorageClass", "metadata": {"name": name}, "volumeBindingMode": mode});
        let cluster = FakeCluster::new([
            class("now", "Immediate"),
            class("later", "WaitForFirstConsumer"),
            live_claim("classless", json!({}), "Pending"),
            live_claim("first-consumer", json!({"storageClassName": "later"}), "Pending"),
            live_claim("unknown", json!({"storageClassName": "manual"}), "Pending"),
            live_claim("slow", json!({"storageClassName": "now"}), "Pending"),
            live_claim("done", json!({"volumeName": "new"}), "Bound"),
            live_volume("done", "Retain", &json!({"a": "b"})),
        ]);
        let heard = Heard::default();
        let claims = ["classless", "first-consumer", "unknown", "slow", "done"].map(claim);
        let found = patch(&*cluster, &heard, Duration::from_secs(15), &claims).await;
        let messages: Vec<&str> = found.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "fail to patch dynamic PV, err: context deadline exceeded, PVC: classless, PV: pv-classless",
                "storageclasses.storage.k8s.io \"manual\" not found",
                "fail to patch dynamic PV, err: storageclasses.storage.k8s.io \"manual\" not found, PVC: unknown, PV: pv-unknown",
                "fail to patch dynamic PV, err: context deadline exceeded, PVC: slow, PV: pv-slow",
            ]
        );
        assert!(found.iter().all(|finding| finding.bucket == Bucket::Namespace("dst".to_owned())));
        let mut heard = heard.0.into_inner().unwrap();
        heard.sort();
        assert_eq!(
            heard,
            [
                "over persistentvolumeclaim dst/classless",
                "over persistentvolumeclaim dst/slow",
                "wait persistentvolumeclaim dst/classless",
                "wait persistentvolumeclaim dst/slow",
            ]
        );
    }
}
