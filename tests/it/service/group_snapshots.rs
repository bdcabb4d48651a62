//! CSI snapshots that were taken in a group (restore-semantics 5.14 step 4 and 7.4).

use std::collections::BTreeSet;

use http::Method;
use reprise::api::grpc::pb;
use reprise::app::Options;
use reprise::archive::testing::Backup;
use reprise::engine::Settings;
use serde_json::{Value, json};

use super::served::{Served, until};
use super::world::World;

const STUBS: &str = "/apis/groupsnapshot.storage.k8s.io/v1beta2/volumegroupsnapshotcontents";
const CONTENTS: &str = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";

/// The kinds of the snapshot controller, without their schemas.
async fn add_snapshot_kinds(world: &World) {
    for (kind, plural, scope) in [
        ("VolumeSnapshot", "volumesnapshots", "Namespaced"),
        ("VolumeSnapshotContent", "volumesnapshotcontents", "Cluster"),
        ("VolumeSnapshotClass", "volumesnapshotclasses", "Cluster"),
    ] {
        let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.snapshot.storage.k8s.io"),
                "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
            "spec": {"group": "snapshot.storage.k8s.io", "scope": scope,
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema,
                    "subresources": {"status": {}}}]},
        });
        world.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd).await;
    }
    until("they are served", async || world.get(CONTENTS).await).await;
}

/// Two claims whose snapshots were taken together.
fn group() -> Backup {
    let mut backup = Backup::new().with(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
    for name in ["a", "b"] {
        let annotations = json!({
            "velero.io/csi-volumegroupsnapshot-handle": "group-1", "velero.io/csi-driver-name": "driver",
            "velero.io/csi-volumesnapshot-handle": format!("handle-{name}"),
        });
        backup = backup.with_all([
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": "shop",
                    "annotations": {"velero.io/volume-snapshot-name": format!("snap-{name}")}},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
            json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                "metadata": {"name": format!("snap-{name}"), "namespace": "shop", "annotations": annotations},
                "spec": {"source": {"persistentVolumeClaimName": name}},
                "status": {"boundVolumeSnapshotContentName": format!("content-{name}")}}),
            json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
                "metadata": {"name": format!("content-{name}")},
                "spec": {"driver": "driver", "deletionPolicy": "Delete", "source": {"volumeHandle": "v"},
                    "volumeSnapshotRef": {"name": format!("snap-{name}"), "namespace": "shop"}},
                "status": {"snapshotHandle": format!("handle-{name}")}}),
        ]);
    }
    backup
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_a_group_have_a_stub_until_they_are_ready() {
    let world = World::sandbox().await;
    add_snapshot_kinds(&world).await;
    world.add_backup("grouped", &group()).await;
    let settings = Settings { features: BTreeSet::from(["EnableCSI".to_owned()]), ..Settings::default() };
    let served = Served::start(Options { settings, ..world.options(world.client.clone()) }).await;
    served.create("grouped", json!({"backupName": "grouped"})).await;
    until("the restore waits for the snapshots", async || {
        (world.restore("grouped").await["status"]["phase"] == "Finalizing").then_some(())
    })
    .await;

    let [stub] = world.names(STUBS).await.try_into().unwrap();
    let stub = world.get(&format!("{STUBS}/{stub}")).await.unwrap();
    let handles = &stub["spec"]["source"]["groupSnapshotHandles"];
    assert_eq!(handles["volumeGroupSnapshotHandle"], "group-1");
    let known: BTreeSet<&str> =
        handles["volumeSnapshotHandles"].as_array().unwrap().iter().map(|handle| handle.as_str().unwrap()).collect();
    assert_eq!(known, BTreeSet::from(["handle-a", "handle-b"]), "the second snapshot extends the first one's stub");
    assert_eq!(stub["status"]["volumeGroupSnapshotHandle"], "group-1");
    let volumes: Value = world.volume_info("grouped");
    let handle = |volume: &Value| volume["csiSnapshotInfo"]["snapshotHandle"].as_str().unwrap().to_owned();
    let told: Vec<String> = volumes.as_array().unwrap().iter().map(handle).collect();
    assert_eq!(told, ["handle-a", "handle-b"], "{volumes}");

    // What the snapshot controller would write.
    for content in world.names(CONTENTS).await {
        let path = format!("{CONTENTS}/{content}/status");
        world.ask(Method::PATCH, &path, Some(&json!({"status": {"readyToUse": true}}))).await.unwrap();
    }
    let ended = served.ended("grouped").await;
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 0, 0), "{ended:?}");
    assert_eq!(world.names(STUBS).await, [""; 0]);
}
