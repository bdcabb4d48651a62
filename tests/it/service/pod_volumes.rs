//! Restores with pod volumes (restore-semantics 5.13): the test is the node agent, and maintains the repositories.

use http::Method;
use reprise::api::grpc::pb;
use reprise::archive::testing::Backup;
use serde_json::{Value, json};

use super::served::{Served, until};
use super::world::World;
use crate::support::random_suffix;

/// A backup of pod `web` in a namespace, whose volumes `data` (of claim `data`) and `scratch` were backed up by files, and
/// `token` is filled by the cluster.
async fn add_backup(world: &World, name: &str, namespace: &str) {
    let meta = |name: &str| json!({"name": name, "namespace": namespace});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": meta("web"),
        "spec": {
            "serviceAccountName": "default", "automountServiceAccountToken": false,
            "containers": [{"name": "web", "image": "registry.example.com/web:1"}],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "token", "projected": {"sources": [{"downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
            ],
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta("data"),
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}}},
    });
    let backup = Backup::new().with_all([
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("default")}),
        claim,
        pod,
    ]);
    world.add_backup(name, &backup).await;
    for volume in ["data", "scratch", "token"] {
        let backup = json!({
            "apiVersion": "velero.io/v1", "kind": "PodVolumeBackup",
            "metadata": {"name": format!("{name}-{volume}"), "labels": {"velero.io/backup-name": name}},
            "spec": {
                "node": "n1", "pod": {"kind": "Pod", "name": "web", "namespace": namespace}, "volume": volume,
                "backupStorageLocation": "default", "repoIdentifier": "", "uploaderType": "kopia",
            },
            "status": {"phase": "Completed", "snapshotID": format!("snapshot-{volume}"),
                "progress": {"totalBytes": 12, "bytesDone": 12}},
        });
        world.create(&world.velero("podvolumebackups"), &backup).await;
    }
}

/// Velero's Deployment, whose image the restore helper has, and its node agent.
async fn install_velero(world: &World) {
    let template = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "velero", "image": "registry.example.com/velero:v1.18.0"}]},
    });
    for (resource, kind, name) in [("deployments", "Deployment", "velero"), ("daemonsets", "DaemonSet", "node-agent")] {
        let object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
        });
        world.create(&format!("/apis/apps/v1/namespaces/{}/{resource}", world.namespace()), &object).await;
    }
}

async fn items(world: &World, resource: &str) -> Vec<Value> {
    let list = world.get(&world.velero(resource)).await.unwrap_or_default();
    list["items"].as_array().cloned().unwrap_or_default()
}

async fn set_status(world: &World, resource: &str, object: &Value, status: Value) {
    let path = world.velero(&format!("{resource}/{}", object["metadata"]["name"].as_str().unwrap()));
    world.ask(Method::PATCH, &path, Some(&json!({"status": status}))).await.unwrap();
}

/// Makes the repository of a namespace ready, once it is there.
async fn provision(world: &World, namespace: &str) -> Value {
    let repository = until("a repository is made", async || {
        let all = items(world, "backuprepositories").await;
        all.into_iter().find(|repository| repository["spec"]["volumeNamespace"] == namespace)
    })
    .await;
    set_status(world, "backuprepositories", &repository, json!({"phase": "Ready"})).await;
    repository
}

/// The PodVolumeRestores of both volumes, by volume, once they are there.
async fn ordered(world: &World, restore: &str) -> [Value; 2] {
    until("both volumes are ordered", async || {
        let mut all = items(world, "podvolumerestores").await;
        all.retain(|order| order["metadata"]["labels"]["velero.io/restore-name"] == restore);
        all.sort_by_key(|order| order["spec"]["volume"].to_string());
        <[Value; 2]>::try_from(all).ok()
    })
    .await
}

async fn stage(served: &Served, restore: &str) -> Value {
    served.get(&format!("/api/v1/restores/{restore}")).await.1["progress"].clone()
}

/// The whole way of one restore whose node agent does its work.
async fn fills_volumes(world: &World, namespace: &str) {
    install_velero(world).await;
    add_backup(world, "nightly", namespace).await;
    let served = world.serve().await;
    let uploader = json!({"writeSparseFiles": true, "parallelFilesDownload": 4});
    served.create("nightly", json!({"backupName": "nightly", "uploaderConfig": uploader})).await;
    let repository = provision(world, namespace).await;
    assert_eq!(repository["metadata"]["name"], format!("{namespace}-default-kopia"));
    let [data, scratch] = ordered(world, "nightly").await;

    let restore = world.restore("nightly").await;
    let uid = &restore["metadata"]["uid"];
    let pod = world.get(&format!("/api/v1/namespaces/{namespace}/pods/web")).await.unwrap();
    let wait = &pod["spec"]["initContainers"][0];
    assert_eq!((&wait["name"], &wait["args"]), (&json!("restore-wait"), &json!([uid])));
    let claim = world.get(&format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/data")).await.unwrap();
    assert_eq!(data["metadata"]["labels"]["velero.io/pvc-uid"], claim["metadata"]["uid"]);
    assert_eq!(data["metadata"]["labels"]["velero.io/pod-uid"], pod["metadata"]["uid"]);
    assert_eq!(data["metadata"]["ownerReferences"][0]["uid"], *uid);
    assert_eq!(
        data["spec"],
        json!({
            "pod": {"kind": "Pod", "namespace": namespace, "name": "web", "uid": pod["metadata"]["uid"]},
            "volume": "data", "backupStorageLocation": "default", "repoIdentifier": "", "uploaderType": "kopia",
            "snapshotID": "snapshot-data", "snapshotSize": 12, "sourceNamespace": namespace,
            "uploaderSettings": {"WriteSparseFiles": "true", "ParallelFilesDownload": "4"},
        })
    );

    // All items have an outcome, and the last progress is written before the volumes are awaited (restore-semantics 6.2).
    set_status(
        world,
        "podvolumerestores",
        &data,
        json!({"phase": "InProgress", "node": "n1", "progress": {"totalBytes": 12, "bytesDone": 5}}),
    )
    .await;
    until("the volumes are awaited", async || {
        let written = world.restore("nightly").await["status"].clone();
        let progress = &written["progress"];
        let is_last = progress["totalItems"].is_u64() && progress["totalItems"] == progress["itemsRestored"];
        let told = stage(&served, "nightly").await;
        (written["phase"] == "InProgress" && is_last && told["stage"] == "volumes").then_some(())
    })
    .await;
    assert_eq!(stage(&served, "nightly").await["stages"]["volumes"]["pending"], 2);
    assert!(world.keys("restores/nightly/").is_empty(), "files are written after the volumes");

    for order in [&data, &scratch] {
        let status = json!({"phase": "Completed", "node": "n1", "progress": {"totalBytes": 12, "bytesDone": 12}});
        set_status(world, "podvolumerestores", order, status).await;
    }
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Completed, 0), "{:?}", served.results("nightly").await);
    let progress = ended.progress.unwrap();
    let volumes = progress.stages.iter().find(|counts| counts.stage() == pb::Stage::Volumes).unwrap();
    let volumes = volumes.counts.as_ref().unwrap();
    assert_eq!((volumes.pending, volumes.created, volumes.failed), (0, 2, 0));
    let infos: Value = serde_json::from_str(&world.unpacked("restores/nightly/nightly-volumeinfo.json.gz")).unwrap();
    assert_eq!(
        infos,
        json!([{"pvcName": "data", "pvcNamespace": namespace, "restoreMethod": "PodVolumeRestore",
            "snapshotDataMoved": false, "pvrInfo": {"snapshotHandle": "snapshot-data", "size": 12,
                "uploaderType": "kopia", "volumeName": "data", "podName": "web", "podNamespace": namespace,
                "Phase": ""}}])
    );
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_volumes_are_filled_by_the_node_agent_and_awaited() {
    fills_volumes(&World::sandbox().await, "shop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_volumes_are_filled_and_awaited_on_a_real_cluster() {
    let Some(world) = World::cluster("volumes").await else { return };
    let namespace = format!("volumes-{}", random_suffix());
    fills_volumes(&world, &namespace).await;
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
}

/// restore-semantics 5.13: a failed PodVolumeRestore is an error of bucket `velero`.
async fn tells_a_failure(world: &World, namespace: &str) {
    install_velero(world).await;
    add_backup(world, "broken", namespace).await;
    let served = world.serve().await;
    served.create("broken", json!({"backupName": "broken"})).await;
    provision(world, namespace).await;
    let [data, scratch] = ordered(world, "broken").await;
    set_status(world, "podvolumerestores", &data, json!({"phase": "Failed", "message": "no such snapshot"})).await;
    set_status(world, "podvolumerestores", &scratch, json!({"phase": "Completed"})).await;
    let ended = served.ended("broken").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 1));
    let errors = world.json("broken", "results.gz")["errors"].clone();
    assert_eq!(errors["velero"].as_array().map(Vec::len), Some(1), "{errors}");
    let message = errors["velero"][0].as_str().unwrap();
    assert!(message.starts_with("pod volume restore failed: no such snapshot"), "{message}");
    assert!(world.text("broken", "logs.gz").contains("has ended: Failed"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_volume_that_fails_is_an_error_of_the_restore_on_a_real_cluster() {
    let Some(world) = World::cluster("volume-fails").await else { return };
    let namespace = format!("volume-fails-{}", random_suffix());
    tells_a_failure(&world, &namespace).await;
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
}

/// A restore whose service goes down while volumes are filled, and the next one.
async fn goes_on(world: &World, namespace: &str) {
    install_velero(world).await;
    add_backup(world, "nightly", namespace).await;
    let served = world.serve().await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    provision(world, namespace).await;
    let orders = ordered(world, "nightly").await;
    until("the volumes are awaited", async || (stage(&served, "nightly").await["stage"] == "volumes").then_some(()))
        .await;
    served.stop().await;
    assert_eq!(world.restore("nightly").await["status"]["phase"], "InProgress");
    // The node agent works on meanwhile.
    set_status(world, "podvolumerestores", &orders[0], json!({"phase": "Completed"})).await;

    let served = world.serve().await;
    until("the volumes are awaited again", async || {
        let progress = stage(&served, "nightly").await;
        let counts = &progress["stages"]["volumes"];
        (progress["stage"] == "volumes" && counts["pending"] == 1 && counts["created"] == 1).then_some(())
    })
    .await;
    set_status(world, "podvolumerestores", &orders[1], json!({"phase": "Completed"})).await;
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Completed, 0), "{:?}", served.results("nightly").await);
    assert_eq!(items(world, "podvolumerestores").await.len(), 2, "nothing is ordered twice");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_goes_on_with_a_restore_takes_the_orders_that_are_there() {
    goes_on(&World::sandbox().await, "shop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orders_of_a_stopped_service_are_taken_on_a_real_cluster() {
    let Some(world) = World::cluster("volumes-go-on").await else { return };
    let namespace = format!("volumes-go-on-{}", random_suffix());
    goes_on(&world, &namespace).await;
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
}

/// restore-semantics 5.11 step 3: where claims or volumes are left out, nobody is asked for the data. The pod does not
/// wait for it either.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_leaves_out_volumes_orders_nothing_and_its_pods_do_not_wait() {
    let world = World::sandbox().await;
    add_backup(&world, "nightly", "shop").await;
    let served = world.serve().await;
    served.create("nightly", json!({"backupName": "nightly", "excludedResources": ["persistentvolumes"]})).await;
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Completed, 0), "{:?}", served.results("nightly").await);
    let pod = world.get("/api/v1/namespaces/shop/pods/web").await.unwrap();
    assert!(pod["spec"].get("initContainers").is_none(), "{pod}");
    assert!(items(&world, "podvolumerestores").await.is_empty());
    assert!(world.text("nightly", "logs.gz").contains("the data of its volumes data, scratch is not restored"));
    served.stop().await;
}

/// A timeout that has passed at once: the order is given up before anybody could carry it out.
#[tokio::test(flavor = "multi_thread")]
async fn the_annotation_of_a_restore_limits_its_pod_volumes() {
    let world = World::sandbox().await;
    install_velero(&world).await;
    add_backup(&world, "nightly", "shop").await;
    let served = world.serve().await;
    let restore = json!({
        "apiVersion": "velero.io/v1", "kind": "Restore", "spec": {"backupName": "nightly"},
        "metadata": {"name": "nightly", "annotations": {"velero.io/pod-volume-timeout": "1s"}},
    });
    world.create(&world.velero("restores"), &restore).await;
    until("the service knows it", async || (served.get("/api/v1/restores/nightly").await.0 == 200).then_some(())).await;
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 1));
    let errors = world.json("nightly", "results.gz")["errors"].clone();
    let message = errors["velero"][0].as_str().unwrap();
    assert!(message.starts_with("timed out waiting for all PodVolumeRestores to complete"), "{message}");
    served.stop().await;
}

/// velero-differences: restores-can-be-cancelled
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_restore_tells_the_node_agent_to_stop() {
    let world = World::sandbox().await;
    install_velero(&world).await;
    add_backup(&world, "nightly", "shop").await;
    let served = world.serve().await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    provision(&world, "shop").await;
    let orders = ordered(&world, "nightly").await;
    until("the volumes are awaited", async || (stage(&served, "nightly").await["stage"] == "volumes").then_some(()))
        .await;
    set_status(&world, "podvolumerestores", &orders[0], json!({"phase": "Completed"})).await;
    until("one is there", async || {
        (stage(&served, "nightly").await["stages"]["volumes"]["pending"] == 1).then_some(())
    })
    .await;
    let patch = json!({"metadata": {"annotations": {"reprise.dev/cancel": "true"}}});
    world.ask(Method::PATCH, &world.velero("restores/nightly"), Some(&patch)).await.unwrap();
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Failed, 1), "{:?}", served.results("nightly").await);
    let [done, open] = ordered(&world, "nightly").await;
    assert_eq!((done["spec"].get("cancel"), &open["spec"]["cancel"]), (None, &json!(true)));
    assert_eq!(world.volume_info("nightly").as_array().map(Vec::len), Some(1), "what was done is recorded");
}
