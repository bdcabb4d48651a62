//! What follows a restore's items does not hold up the next restore.

use http::Method;
use reprise::api::grpc::pb;
use reprise::archive::testing::Backup;
use serde_json::{Value, json};

use super::served::until;
use super::world::{World, config_maps, files_of, gzip};

/// A backup of a claim whose volume was snapshotted, so that the finalizer waits until it is bound
/// (restore-semantics 5.14 step 3); in the sandbox nobody binds it but the test.
async fn add_unbound_claim(world: &World, backup: &str) {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": backup},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": backup}});
    world.add_backup(backup, &Backup::new().with(namespace).with(claim)).await;
    let volumes = json!([{
        "pvcName": "data", "pvcNamespace": backup, "pvName": "old", "backupMethod": "CSISnapshot",
        "pvInfo": {"reclaimPolicy": "Retain", "labels": {"kept": "yes"}},
    }]);
    world.put(&format!("backups/{backup}/{backup}-volumeinfo.json.gz"), &gzip(&volumes));
}

async fn wait_for_phase(world: &World, restore: &str, phase: &str) -> Value {
    until(phase, async || {
        let status = world.restore(restore).await["status"].clone();
        (status["phase"] == phase).then_some(status)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_restore_runs_while_the_first_waits_for_its_volume() {
    let world = World::sandbox().await;
    add_unbound_claim(&world, "first").await;
    world.add_backup("second", &config_maps("two", 3)).await;
    let served = world.serve().await;
    for name in ["first", "second"] {
        served.create(name, json!({"backupName": name})).await;
    }
    assert_eq!(served.ended("second").await.phase(), pb::Phase::Completed);
    let status = wait_for_phase(&world, "first", "Finalizing").await;
    assert!(status.get("completionTimestamp").is_none(), "{status}");
    assert_eq!(world.keys("restores/first/"), files_of("first"), "its files are there all the same");
    let view = until("the service tells it", async || {
        let (_, view) = served.get("/api/v1/restores/first").await;
        (view["phase"] == "Finalizing").then_some(view)
    })
    .await;
    assert_eq!(view["progress"]["stage"], "finalizing", "{view}");

    // A service that goes down leaves it there, and the next one goes on.
    served.stop().await;
    wait_for_phase(&world, "first", "Finalizing").await;
    let served = world.serve().await;
    until("the next one knows it", async || (served.get("/api/v1/restores/first").await.0 == 200).then_some(())).await;
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "new"}, "status": {"phase": "Bound"},
        "spec": {
            "persistentVolumeReclaimPolicy": "Delete", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/x"}, "claimRef": {"namespace": "first", "name": "data"},
        },
    });
    world.create("/api/v1/persistentvolumes", &volume).await;
    world
        .ask(Method::PATCH, "/api/v1/persistentvolumes/new/status", Some(&json!({"status": {"phase": "Bound"}})))
        .await
        .unwrap();
    let claim = "/api/v1/namespaces/first/persistentvolumeclaims/data";
    world.ask(Method::PATCH, claim, Some(&json!({"spec": {"volumeName": "new"}}))).await.unwrap();
    world.ask(Method::PATCH, &format!("{claim}/status"), Some(&json!({"status": {"phase": "Bound"}}))).await.unwrap();
    let ended = served.ended("first").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Completed, 0), "{ended:?}");
    let volume = world.get("/api/v1/persistentvolumes/new").await.unwrap();
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(volume["metadata"]["labels"]["kept"], "yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_for_its_volume_can_be_deleted_and_made_anew() {
    let world = World::sandbox().await;
    add_unbound_claim(&world, "nightly").await;
    world.add_backup("other", &config_maps("other", 3)).await;
    let served = world.serve().await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    wait_for_phase(&world, "nightly", "Finalizing").await;
    let path = world.velero("restores/nightly");
    world.ask(Method::DELETE, &path, None).await.unwrap();
    until("it is gone", async || world.get(&path).await.is_none().then_some(())).await;
    assert_eq!(world.keys("restores/nightly/"), [""; 0]);
    until("it is forgotten", async || (served.get("/api/v1/restores/nightly").await.0 == 404).then_some(())).await;
    served.create("nightly", json!({"backupName": "other"})).await;
    assert_eq!(served.ended("nightly").await.phase(), pb::Phase::Completed);
}

/// restore-semantics 5.14 step 1.
#[tokio::test(flavor = "multi_thread")]
async fn one_whose_backup_is_gone_when_it_is_taken_up_again_ends_partially_failed() {
    let world = World::sandbox().await;
    add_unbound_claim(&world, "nightly").await;
    let served = world.serve().await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    wait_for_phase(&world, "nightly", "Finalizing").await;
    served.stop().await;
    world.ask(Method::DELETE, &world.velero("backups/nightly"), None).await.unwrap();
    let _served = world.serve().await;
    let status = wait_for_phase(&world, "nightly", "PartiallyFailed").await;
    assert!(status["completionTimestamp"].is_string(), "{status}");
}

/// velero-differences: restores-can-be-cancelled
#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_for_its_volume_can_be_cancelled() {
    let world = World::sandbox().await;
    add_unbound_claim(&world, "nightly").await;
    let served = world.serve().await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    wait_for_phase(&world, "nightly", "Finalizing").await;
    let patch = json!({"metadata": {"annotations": {"reprise.dev/cancel": ""}}});
    world.ask(Method::PATCH, &world.velero("restores/nightly"), Some(&patch)).await.unwrap();
    let status = wait_for_phase(&world, "nightly", "Failed").await;
    let reason = "cancelled by annotation reprise.dev/cancel after 2 of 2 items";
    assert_eq!((&status["failureReason"], &status["errors"]), (&json!(reason), &json!(1)), "{status}");
    assert_eq!(world.json("nightly", "results.gz")["errors"]["velero"], json!([reason]));
    assert_eq!(served.ended("nightly").await.failure_reason.as_deref(), Some(reason));
}
