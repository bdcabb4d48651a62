//! Stubs of VolumeGroupSnapshotContents (restore-semantics 7.4): a driver that names the group of a snapshot is refused
//! by the snapshot controller unless a content with that group's handle is there. The finalizer deletes them.

use serde_json::{Value, json};

use super::{Context, Error, csi, fields};
use crate::engine::ports::ApiError;
use crate::engine::retry::{Attempts, Backoff, patiently, retrying};
use crate::model::{Target, label};

const GROUP: &str = "groupsnapshot.storage.k8s.io";
const VERSION: &str = "v1beta2";

/// Annotations of a backed-up snapshot.
const GROUP_HANDLE: &str = "velero.io/csi-volumegroupsnapshot-handle";
const SNAPSHOT_HANDLE: &str = "velero.io/csi-volumesnapshot-handle";
const DRIVER: &str = "velero.io/csi-driver-name";

/// Parameters of a group snapshot class, and the annotations that they become.
const SECRET: [(&str, &str); 2] = [
    ("csi.storage.k8s.io/group-snapshotter-secret-name", "groupsnapshot.storage.kubernetes.io/deletion-secret-name"),
    (
        "csi.storage.k8s.io/group-snapshotter-secret-namespace",
        "groupsnapshot.storage.kubernetes.io/deletion-secret-namespace",
    ),
];

fn contents() -> Target {
    Target::new(GROUP, VERSION, "volumegroupsnapshotcontents", "")
}

/// Sees to it that the stub of this snapshot's group is there and knows the snapshot. Gives a line for the log where that
/// did not work: the snapshot is restored all the same.
pub(super) async fn ensure_stub(snapshot: &Value, context: &Context<'_>) -> Result<Option<String>, Error> {
    let text = |key: &str| fields::annotation(snapshot, key).map(Option::unwrap_or_default);
    let (group, handle, driver) = (text(GROUP_HANDLE)?, text(SNAPSHOT_HANDLE)?, text(DRIVER)?);
    if group.is_empty() {
        return Ok(None);
    }
    if handle.is_empty() || driver.is_empty() {
        let missing = if handle.is_empty() { SNAPSHOT_HANDLE } else { DRIVER };
        return Ok(Some(format!(
            "the snapshot was taken in a group, and no VolumeGroupSnapshotContent is made for it, as its annotation \
             {missing} is missing"
        )));
    }
    // One at a time: two snapshots of a group that extend the same list would lose one of them.
    let _turn = context.lookup.group_snapshots().lock().await;
    let stub = Stub { name: csi::shared_name(context, group), group, handle, driver };
    let made = stub.ensure(fields::namespace(snapshot)?, context).await;
    Ok(made.err().map(|error| format!("failed to create stub VolumeGroupSnapshotContent {}: {error}", stub.name)))
}

struct Stub<'a> {
    name: String,
    group: &'a str,
    handle: &'a str,
    driver: &'a str,
}

impl Stub<'_> {
    async fn ensure(&self, namespace: &str, context: &Context<'_>) -> Result<(), ApiError> {
        let (cluster, target) = (context.lookup.cluster(), contents());
        let mut tries = Attempts::default();
        if let Some(live) = retrying(Backoff::default(), &mut tries, || cluster.get(&target, &self.name)).await? {
            return self.extend(&live, context).await;
        }
        let object = self.object(namespace, self.annotations(context).await, context);
        let created = match retrying(Backoff::default(), &mut tries, || cluster.create(&target, &object)).await {
            Err(error) if error.is_already_exists() => {
                let live = patiently(|| cluster.get(&target, &self.name)).await?.unwrap_or_default();
                return self.extend(&live, context).await;
            }
            answer => answer?,
        };
        let mut wanted = created;
        wanted["status"]["volumeGroupSnapshotHandle"] = json!(self.group);
        patiently(|| cluster.replace_status(&target, &self.name, &wanted)).await.map(|_| ())
    }

    fn object(&self, namespace: &str, annotations: Value, context: &Context<'_>) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "VolumeGroupSnapshotContent",
            // The finalizer looks for the plain name, as Velero does.
            "metadata": {
                "name": self.name, "labels": {label::RESTORE_NAME: context.restore_name}, "annotations": annotations,
            },
            "spec": {
                "deletionPolicy": "Retain",
                "driver": self.driver,
                "source": {"groupSnapshotHandles": {
                    "volumeGroupSnapshotHandle": self.group, "volumeSnapshotHandles": [self.handle],
                }},
                "volumeGroupSnapshotRef": {
                    "name": format!("stub-vgs-{}", self.name.get(..8).unwrap_or_default()), "namespace": namespace,
                },
            },
        })
    }

    /// The secret by which the driver deletes, of the first class that has this driver. Where classes cannot be listed,
    /// the stub goes without.
    async fn annotations(&self, context: &Context<'_>) -> Value {
        let target = Target::new(GROUP, VERSION, "volumegroupsnapshotclasses", "");
        let classes = context.lookup.cluster().list(&target, "").await.unwrap_or_default();
        let class = classes.iter().find(|class| class["driver"] == self.driver);
        let mut annotations = json!({});
        for (parameter, annotation) in SECRET {
            if let Some(value) = class.and_then(|class| class["parameters"][parameter].as_str()) {
                annotations[annotation] = json!(value);
            }
        }
        annotations
    }

    async fn extend(&self, live: &Value, context: &Context<'_>) -> Result<(), ApiError> {
        let known = &live["spec"]["source"]["groupSnapshotHandles"]["volumeSnapshotHandles"];
        let mut handles = known.as_array().cloned().unwrap_or_default();
        if handles.iter().any(|known| known == self.handle) {
            return Ok(());
        }
        handles.push(json!(self.handle));
        let patch = json!({"spec": {"source": {"groupSnapshotHandles": {"volumeSnapshotHandles": handles}}}});
        let cluster = context.lookup.cluster();
        let target = contents();
        let write = || cluster.merge_patch(&target, &self.name, &patch);
        retrying(Backoff::default(), &mut Attempts::default(), write).await.map(|_| ())
    }
}
