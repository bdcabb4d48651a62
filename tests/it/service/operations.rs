//! Claims whose data was moved into the backup storage: the test plays the node agent that brings it back
//! (restore-semantics 5.14 and 7.4).

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use reprise::api::grpc::pb;
use reprise::app::Options;
use reprise::archive::testing::Backup;
use reprise::engine::Settings;
use serde_json::{Value, json};

use super::client::slow;
use super::served::{Served, until};
use super::world::{World, config_maps, files_of};
use crate::support::random_suffix;

/// A service that runs the CSI actions, and asks about operations each second.
async fn serve(world: &World) -> Served {
    serve_through(world, world.client.clone()).await
}

async fn serve_through(world: &World, client: kube::Client) -> Served {
    let options = world.options(client);
    let settings = Settings { features: BTreeSet::from(["EnableCSI".to_owned()]), ..Settings::default() };
    let frequency = Duration::from_secs(1);
    Served::start(Options { settings, item_operation_sync_frequency: frequency, ..options }).await
}

/// A backup that moved the data of these claims.
async fn add_moved(world: &World, backup: &str, namespace: &str, claims: &[&str]) {
    let mut items =
        Backup::new().with(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
    for claim in claims {
        items = items
            .with(json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim, "namespace": namespace, "uid": format!("uid-of-{claim}"),
                    "annotations": {"velero.io/data-upload-name": format!("up-{claim}")}},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                    "volumeName": format!("old-{claim}")},
            }))
            .with(json!({
                "apiVersion": "velero.io/v2alpha1", "kind": "DataUpload",
                "metadata": {"name": format!("up-{claim}"), "namespace": world.namespace()},
                "spec": {"sourceNamespace": namespace, "sourcePVC": claim, "snapshotType": "CSI",
                    "backupStorageLocation": "default", "operationTimeout": "10m0s"},
                "status": {"phase": "Completed", "snapshotID": format!("snap-{claim}"), "nodeOS": "linux",
                    "progress": {"bytesDone": 100, "totalBytes": 100}},
            }));
    }
    world.add_backup(backup, &items).await;
    let spec = json!({"spec": {"snapshotMoveData": true, "csiSnapshotTimeout": "20m0s"}});
    world.ask(Method::PATCH, &world.velero(&format!("backups/{backup}")), Some(&spec)).await.unwrap();
}

fn downloads(world: &World) -> String {
    format!("/apis/velero.io/v2alpha1/namespaces/{}/datadownloads", world.namespace())
}

/// The DataDownload for a claim.
async fn download(world: &World, claim: &str) -> Value {
    let list = world.get(&downloads(world)).await.unwrap();
    let mut found = list["items"].as_array().unwrap().iter().filter(|one| one["spec"]["targetVolume"]["pvc"] == claim);
    let one = found.next().unwrap_or_else(|| panic!("no DataDownload for {claim} in {list}")).clone();
    assert!(found.next().is_none(), "two DataDownloads for {claim}");
    one
}

/// What the node agent writes.
async fn set(world: &World, claim: &str, status: Value) {
    let name = download(world, claim).await["metadata"]["name"].as_str().unwrap().to_owned();
    let path = format!("{}/{name}", downloads(world));
    world.ask(Method::PATCH, &path, Some(&json!({"status": status}))).await.unwrap();
}

/// The status once the phase is this one.
async fn phase(world: &World, restore: &str, phase: &str) -> Value {
    until(&format!("{restore} is {phase}"), async || {
        let status = world.restore(restore).await["status"].clone();
        (status["phase"] == phase).then_some(status)
    })
    .await
}

fn counts(status: &Value) -> [u64; 4] {
    let names = ["Attempted", "Completed", "Failed"].map(|name| format!("restoreItemOperations{name}"));
    let count = |key: &str| status.get(key).map_or(0, |count| count.as_u64().unwrap());
    [count(&names[0]), count(&names[1]), count(&names[2]), count("errors")]
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_data_is_waited_for_in_the_sandbox() {
    moved_data_is_waited_for(&World::sandbox().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_data_is_waited_for_on_the_real_api_server() {
    if let Some(world) = World::cluster("operations").await {
        moved_data_is_waited_for(&world).await;
    }
}

async fn moved_data_is_waited_for(world: &World) {
    let (namespace, other) = (format!("shop-{}", random_suffix()), format!("other-{}", random_suffix()));
    add_moved(world, "moved", &namespace, &["a", "b", "c"]).await;
    world.add_backup("other", &config_maps(&other, 3)).await;
    let served = serve(world).await;
    served.create("moved", json!({"backupName": "moved", "uploaderConfig": {"writeSparseFiles": true}})).await;
    let status = phase(world, "moved", "WaitingForPluginOperations").await;
    assert_eq!(counts(&status), [3, 0, 0, 0], "{status}");

    // What the node agent finds.
    let uid = world.restore("moved").await["metadata"]["uid"].as_str().unwrap().to_owned();
    let one = download(world, "a").await;
    assert!(one["metadata"]["name"].as_str().unwrap().starts_with("moved-"), "{one}");
    assert_eq!(one["metadata"]["ownerReferences"][0]["uid"], uid);
    assert_eq!(one["metadata"]["labels"]["velero.io/async-operation-id"], format!("dd-{uid}.uid-of-a"));
    assert_eq!(
        one["spec"],
        json!({"targetVolume": {"pvc": "a", "pv": "", "namespace": namespace}, "backupStorageLocation": "default",
            "snapshotID": "snap-a", "snapshotSize": 100, "sourceNamespace": namespace, "operationTimeout": "20m0s",
            "nodeOS": "linux", "dataMoverConfig": {"WriteSparseFiles": "true"}})
    );
    let claim = world.get(&format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/a")).await.unwrap();
    assert!(claim["spec"].get("volumeName").is_none(), "{claim}");
    let volume = claim["spec"]["selector"]["matchLabels"]["velero.io/dynamic-pv-restore"].as_str().unwrap();
    assert!(volume.starts_with(&format!("{namespace}.a.")), "{volume}");
    let results = format!(
        "/api/v1/namespaces/{}/configmaps?labelSelector=velero.io%2Fresource-usage%3DDataUpload",
        world.namespace()
    );
    assert_eq!(world.names(&results).await, [""; 0], "what the uploads left is deleted with the last item");

    // The files, and what is told meanwhile.
    assert_eq!(world.keys("restores/moved/"), files_of("moved"));
    let phases = |operations: &Value| -> Vec<String> {
        let phase = |operation: &Value| operation["status"]["phase"].as_str().unwrap().to_owned();
        operations.as_array().unwrap().iter().map(phase).collect()
    };
    let operations = world.json("moved", "itemoperations.json.gz");
    assert_eq!(phases(&operations), ["New", "New", "New"], "{operations}");
    let identifier = &operations[0]["spec"]["resourceIdentifier"];
    assert_eq!(
        (&identifier["Resource"], &identifier["Namespace"]),
        (&json!("persistentvolumeclaims"), &json!(namespace))
    );
    let volumes = world.volume_info("moved");
    assert_eq!(volumes.as_array().unwrap().len(), 3, "{volumes}");
    assert!(volumes.as_array().unwrap().iter().all(|volume| volume["snapshotDataMoved"] == true), "{volumes}");
    // The service's own view comes a moment after the object's.
    let view = until("the service tells it", async || {
        let (_, view) = served.get("/api/v1/restores/moved").await;
        (view["phase"] == "WaitingForPluginOperations").then_some(view)
    })
    .await;
    assert_eq!(view["progress"]["stage"], "plugin-operations", "{view}");
    assert_eq!(view["progress"]["stages"]["plugin-operations"]["pending"], 3, "{view}");

    // Another restore does not wait for it.
    served.create("other", json!({"backupName": "other"})).await;
    assert_eq!(served.ended("other").await.phase(), pb::Phase::Completed);
    phase(world, "moved", "WaitingForPluginOperations").await;

    // One is done: a count. One fails: a phase, an error, and the files again.
    let bytes = json!({"bytesDone": 50, "totalBytes": 100});
    set(world, "a", json!({"phase": "InProgress", "progress": bytes, "startTimestamp": "2026-01-02T03:04:05Z"})).await;
    set(world, "a", json!({"phase": "Completed", "progress": {"bytesDone": 100, "totalBytes": 100}})).await;
    until("one is completed", async || {
        let status = world.restore("moved").await["status"].clone();
        (counts(&status) == [3, 1, 0, 0]).then_some(())
    })
    .await;
    set(world, "b", json!({"phase": "Failed", "message": "no space"})).await;
    let status = phase(world, "moved", "WaitingForPluginOperationsPartiallyFailed").await;
    assert_eq!(counts(&status), [3, 1, 1, 1], "{status}");
    let errors = world.json("moved", "results.gz")["errors"].clone();
    assert_eq!(errors, json!({"velero": ["error from restore item operation: no space"]}));
    let operations = world.json("moved", "itemoperations.json.gz");
    assert_eq!(phases(&operations).into_iter().collect::<BTreeSet<_>>().len(), 3, "{operations}");

    // A service that comes later goes on.
    served.stop().await;
    phase(world, "moved", "WaitingForPluginOperationsPartiallyFailed").await;
    let served = serve(world).await;
    until("the next one knows it", async || (served.get("/api/v1/restores/moved").await.0 == 200).then_some(())).await;
    set(world, "c", json!({"phase": "Completed"})).await;
    let ended = served.ended("moved").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 1), "{ended:?}");
    let status = world.restore("moved").await["status"].clone();
    assert_eq!(counts(&status), [3, 2, 1, 1], "{status}");
    assert!(status["completionTimestamp"].is_string());
    let mut ended = phases(&world.json("moved", "itemoperations.json.gz"));
    ended.sort();
    assert_eq!(ended, ["Completed", "Completed", "Failed"]);
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{other}"), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_takes_too_long_is_cancelled_in_the_sandbox() {
    data_that_takes_too_long_is_cancelled(&World::sandbox().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_takes_too_long_is_cancelled_on_the_real_api_server() {
    if let Some(world) = World::cluster("timeout").await {
        data_that_takes_too_long_is_cancelled(&world).await;
    }
}

async fn data_that_takes_too_long_is_cancelled(world: &World) {
    let namespace = format!("slow-{}", random_suffix());
    add_moved(world, "slow", &namespace, &["data"]).await;
    let served = serve(world).await;
    served.create("slow", json!({"backupName": "slow", "itemOperationTimeout": "1s"})).await;
    let ended = served.ended("slow").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 1), "{ended:?}");
    assert_eq!(download(world, "data").await["spec"]["cancel"], true);
    assert_eq!(counts(&world.restore("slow").await["status"]), [1, 0, 1, 1]);
    let operations = world.json("slow", "itemoperations.json.gz");
    assert_eq!(operations[0]["status"]["error"], "Asynchronous action timed out", "{operations}");
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_operations_run_can_be_deleted() {
    let world = World::sandbox().await;
    add_moved(&world, "moved", "shop", &["data"]).await;
    let served = serve(&world).await;
    served.create("moved", json!({"backupName": "moved"})).await;
    phase(&world, "moved", "WaitingForPluginOperations").await;
    let path = world.velero("restores/moved");
    world.ask(Method::DELETE, &path, None).await.unwrap();
    until("it is gone", async || world.get(&path).await.is_none().then_some(())).await;
    assert_eq!(world.keys("restores/moved/"), [""; 0]);
}

/// restore-semantics 5.14: the Backup vanishes while operations run.
#[tokio::test(flavor = "multi_thread")]
async fn one_whose_backup_is_gone_ends_partially_failed() {
    let world = World::sandbox().await;
    add_moved(&world, "moved", "shop", &["data"]).await;
    let served = serve(&world).await;
    served.create("moved", json!({"backupName": "moved"})).await;
    phase(&world, "moved", "WaitingForPluginOperations").await;
    world.ask(Method::DELETE, &world.velero("backups/moved"), None).await.unwrap();
    assert_eq!(served.ended("moved").await.phase(), pb::Phase::PartiallyFailed);
    assert!(world.restore("moved").await["status"]["completionTimestamp"].is_string());
}

/// A service that goes down between the claim and the end of the items: the next one meets the claim as one that exists, and
/// must wait for its data all the same.
#[tokio::test(flavor = "multi_thread")]
async fn moved_data_is_waited_for_when_the_items_are_taken_up_again() {
    let world = World::sandbox().await;
    let mut items = Backup::new().with(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "shop", "uid": "uid-of-data",
            "annotations": {"velero.io/data-upload-name": "up"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }));
    items = items.with(json!({
        "apiVersion": "velero.io/v2alpha1", "kind": "DataUpload",
        "metadata": {"name": "up", "namespace": world.namespace()},
        "spec": {"sourceNamespace": "shop", "sourcePVC": "data"}, "status": {"snapshotID": "s"},
    }));
    // Claims come before ConfigMaps, which take a while.
    items = items.with_all((0..150).map(|number| {
        let metadata = json!({"name": format!("config-{number}"), "namespace": "shop"});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    }));
    world.add_backup("moved", &items).await;
    let spec = json!({"spec": {"snapshotMoveData": true, "csiSnapshotTimeout": "20m0s"}});
    world.ask(Method::PATCH, &world.velero("backups/moved"), Some(&spec)).await.unwrap();

    let served = serve_through(&world, slow(&world.client, Duration::from_millis(100))).await;
    served.create("moved", json!({"backupName": "moved"})).await;
    until("ConfigMaps are created", async || {
        (!world.names("/api/v1/namespaces/shop/configmaps").await.is_empty()).then_some(())
    })
    .await;
    served.stop().await;
    assert_eq!(world.restore("moved").await["status"]["phase"], "InProgress", "the restore was too fast to be stopped");
    download(&world, "data").await;

    let served = serve(&world).await;
    let status = phase(&world, "moved", "WaitingForPluginOperations").await;
    assert_eq!(counts(&status), [1, 0, 0, 0], "{status}");
    set(&world, "data", json!({"phase": "Completed"})).await;
    assert_eq!(served.ended("moved").await.phase(), pb::Phase::Completed);
}

/// restore-semantics 5.4, last paragraph: a backup without volume info, where only the result of a DataUpload tells that a
/// volume's data is to be had.
#[tokio::test(flavor = "multi_thread")]
async fn without_volume_info_an_upload_s_result_says_that_a_volume_is_provisioned_anew() {
    let world = World::sandbox().await;
    let volume = |claim: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("pv-of-{claim}")},
            "spec": {"persistentVolumeReclaimPolicy": "Retain", "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"},
                "claimRef": {"namespace": "shop", "name": claim}},
        })
    };
    let upload = json!({
        "apiVersion": "velero.io/v2alpha1", "kind": "DataUpload",
        "metadata": {"name": "up", "namespace": world.namespace()},
        "spec": {"sourceNamespace": "shop", "sourcePVC": "moved"}, "status": {"snapshotID": "s"},
    });
    world.add_backup("old", &Backup::new().with_all([volume("moved"), volume("other"), upload])).await;
    let served = serve(&world).await;
    assert_eq!(served.run("old").await.phase(), pb::Phase::Completed);
    assert_eq!(world.names("/api/v1/persistentvolumes").await, ["pv-of-other"]);
    let list = world.json("old", "resource-list.json.gz");
    assert_eq!(list["v1/PersistentVolume"], json!(["pv-of-moved(skipped)", "pv-of-other(created)"]), "{list}");
}

/// velero-differences: restores-can-be-cancelled
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_restore_tells_its_operations_to_stop_and_records_them_as_failed() {
    let world = World::sandbox().await;
    add_moved(&world, "moved", "shop", &["a", "b"]).await;
    let served = serve(&world).await;
    served.create("moved", json!({"backupName": "moved"})).await;
    phase(&world, "moved", "WaitingForPluginOperations").await;
    set(&world, "a", json!({"phase": "Completed"})).await;
    until("one is over", async || (counts(&world.restore("moved").await["status"])[1] == 1).then_some(())).await;
    let patch = json!({"metadata": {"annotations": {"reprise.dev/cancel": "true"}}});
    world.ask(Method::PATCH, &world.velero("restores/moved"), Some(&patch)).await.unwrap();
    let status = phase(&world, "moved", "Failed").await;
    assert_eq!(counts(&status), [2, 1, 1, 1], "{status}");
    assert_eq!(download(&world, "a").await["spec"].get("cancel"), None);
    assert_eq!(download(&world, "b").await["spec"]["cancel"], true);
    let operations = world.json("moved", "itemoperations.json.gz");
    let failed: Vec<&Value> =
        operations.as_array().unwrap().iter().filter(|one| one["status"]["phase"] == "Failed").collect();
    assert_eq!(failed.len(), 1, "{operations}");
    assert_eq!(failed[0]["status"]["error"], status["failureReason"]);
}
