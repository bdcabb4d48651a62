//! A restore made by REST, by gRPC and as an object, as kubectl makes it, goes the same way.

use http::Method;
use reprise::api::grpc::pb;
use reprise::archive::testing::Backup;
use serde_json::{Value, json};

use super::served::Served;
use super::world::{World, files_of};
use crate::support::random_suffix;

/// Items of some kinds, all in the namespace `shop`.
fn shop() -> Backup {
    let meta = |name: &str| json!({"name": name, "namespace": "shop", "labels": {"app": "web"}});
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    });
    Backup::new().with_all([
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "shop"}}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings"), "data": {"a": "b"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("key"), "data": {"k": "dmFsdWU="}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("web")}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web"),
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], "clusterIP": "10.99.0.7"}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("web"),
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}}),
    ])
}

/// How many of them count as items: the namespace is made for the others, and counts as well.
const ITEMS: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn restores_of_all_doors_end_the_same_in_the_sandbox() {
    all_doors(&World::sandbox().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_of_all_doors_end_the_same_on_the_real_api_server() {
    if let Some(world) = World::cluster("doors").await {
        all_doors(&world).await;
    }
}

async fn all_doors(world: &World) {
    world.add_backup("nightly", &shop()).await;
    let served = world.serve().await;
    let targets = ["rest", "grpc", "kubectl"].map(|door| format!("shop-{door}-{}", random_suffix()));

    let spec = json!({"backupName": "nightly", "namespaceMapping": {"shop": targets[0]}});
    let made = served.create("rest", spec).await;
    assert_eq!(
        (&made["name"], &made["phase"], &made["namespace"]),
        (&json!("rest"), &json!("New"), &json!(world.namespace()))
    );
    let request = pb::CreateRestoreRequest {
        name: "grpc".into(),
        spec: Some(pb::RestoreSpec {
            backup_name: "nightly".into(),
            namespace_mapping: [("shop".to_owned(), targets[1].clone())].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    served.grpc().await.create_restore(request).await.unwrap();
    let object = json!({
        "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "kubectl"},
        "spec": {"backupName": "nightly", "namespaceMapping": {"shop": targets[2]}},
    });
    world.create(&world.velero("restores"), &object).await;

    let mut alike = Vec::new();
    for (name, target) in ["rest", "grpc", "kubectl"].into_iter().zip(&targets) {
        wait(world, &served, name).await;
        let restore = world.restore(name).await;
        check_object(&restore);
        check_views(&served, name, &restore).await;
        check_files(world, name, target).await;
        alike.push(without_differences(restore, target));
    }
    assert_eq!(alike[0], alike[1], "REST and gRPC");
    assert_eq!(alike[0], alike[2], "REST and kubectl");
    served.stop().await;
}

/// What kubectl makes is not known to the service before its watch tells.
async fn wait(world: &World, served: &Served, name: &str) {
    let ended = served.ended(name).await;
    assert_eq!(ended.phase(), pb::Phase::Completed, "{ended:?}\n{}", world.text(name, "results.gz"));
    assert_eq!((ended.errors, ended.backup_name.as_str()), (0, "nightly"));
}

/// Finalizer, defaults, times and progress (restore-semantics 1.4, 1.6 and 1.9).
fn check_object(restore: &Value) {
    assert_eq!(restore["metadata"]["finalizers"], json!(["restores.velero.io/external-resources-finalizer"]));
    let excluded = [
        "nodes",
        "events",
        "events.events.k8s.io",
        "backups.velero.io",
        "restores.velero.io",
        "resticrepositories.velero.io",
        "csinodes.storage.k8s.io",
        "volumeattachments.storage.k8s.io",
        "backuprepositories.velero.io",
    ];
    assert_eq!(restore["spec"]["excludedResources"], json!(excluded));
    assert_eq!(restore["spec"]["itemOperationTimeout"], "4h0m0s");
    let status = &restore["status"];
    assert_eq!(status["phase"], "Completed");
    assert_eq!(status["progress"], json!({"totalItems": ITEMS, "itemsRestored": ITEMS}));
    assert_eq!(status["hookStatus"], json!({}));
    assert!(status.get("errors").is_none() && status.get("failureReason").is_none(), "{status}");
    let time = |at: &Value| at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let created = time(&restore["metadata"]["creationTimestamp"]);
    let (started, completed) = (time(&status["startTimestamp"]), time(&status["completionTimestamp"]));
    assert!(created <= started && started <= completed, "{created} {started} {completed}");
}

/// REST and gRPC show what the object says.
async fn check_views(served: &Served, name: &str, restore: &Value) {
    let (code, rest) = served.get(&format!("/api/v1/restores/{name}")).await;
    assert_eq!(code, 200);
    assert_eq!((&rest["uid"], &rest["phase"]), (&restore["metadata"]["uid"], &restore["status"]["phase"]));
    let progress = &rest["progress"];
    assert_eq!(progress["totalItems"], restore["status"]["progress"]["totalItems"]);
    assert_eq!(progress["itemsRestored"], restore["status"]["progress"]["itemsRestored"]);
    assert_eq!((&progress["percent"], &progress["stage"]), (&json!(100), &json!("done")));
    assert_eq!(
        (&progress["outcomes"]["created"], &progress["outcomes"]["pending"]),
        (&json!(ITEMS), &json!(0)),
        "{rest}"
    );
    let request = pb::GetRestoreRequest { name: name.to_owned() };
    let grpc = served.grpc().await.get_restore(request).await.unwrap().into_inner();
    assert_eq!((grpc.phase(), grpc.uid.as_str()), (pb::Phase::Completed, rest["uid"].as_str().unwrap()));
    assert!(!grpc.sandbox, "this client's cluster is not the service's own sandbox");
    let seconds = |at: &Value| at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    assert_eq!(grpc.started_at.unwrap().seconds, seconds(&restore["status"]["startTimestamp"]));
    assert_eq!(grpc.completed_at.unwrap().seconds, seconds(&restore["status"]["completionTimestamp"]));
    let items = served.items(name, &[]).await;
    assert!(items.iter().all(|item| item.outcome() == pb::Outcome::Created), "{items:#?}");
    assert_eq!(items.len() as u64, ITEMS);
}

/// The files under their keys, in Velero's formats (restore-semantics 9), and the objects themselves.
async fn check_files(world: &World, name: &str, target: &str) {
    assert_eq!(world.keys(&format!("restores/{name}/")), files_of(name));
    let created = |what: &str| json!([format!("{target}/{what}(created)")]);
    let list = json!({
        "v1/Namespace": [format!("{target}(created)")], "v1/ConfigMap": created("settings"), "v1/Secret": created("key"),
        "v1/ServiceAccount": created("web"), "v1/Service": created("web"), "apps/v1/Deployment": created("web"),
    });
    assert_eq!(world.json(name, "resource-list.json.gz"), list);
    assert_eq!(world.json(name, "results.gz")["errors"], json!({}));
    assert_eq!(world.json(name, "itemoperations.json.gz"), json!([]));
    assert!(world.text(name, "logs.gz").contains("items will be restored from backup nightly"));
    for path in [
        format!("/api/v1/namespaces/{target}/configmaps/settings"),
        format!("/api/v1/namespaces/{target}/secrets/key"),
        format!("/api/v1/namespaces/{target}/serviceaccounts/web"),
        format!("/api/v1/namespaces/{target}/services/web"),
        format!("/apis/apps/v1/namespaces/{target}/deployments/web"),
    ] {
        let object = world.get(&path).await.unwrap_or_else(|| panic!("there is no {path}"));
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["velero.io/restore-name"], name);
        assert_eq!(labels["velero.io/backup-name"], "nightly");
    }
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{target}"), None).await;
}

/// A Restore without what must differ between two of them.
fn without_differences(mut restore: Value, target: &str) -> Value {
    let metadata = restore["metadata"].as_object_mut().unwrap();
    for key in ["name", "uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
        metadata.remove(key);
    }
    assert_eq!(restore["spec"]["namespaceMapping"], json!({"shop": target}));
    // Written by typed clients such as velero's, not by kubectl.
    if restore["spec"]["hooks"] == json!({}) {
        restore["spec"].as_object_mut().unwrap().remove("hooks");
    }
    restore["spec"]["namespaceMapping"] = Value::Null;
    restore["status"]["startTimestamp"] = Value::Null;
    restore["status"]["completionTimestamp"] = Value::Null;
    restore
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_can_be_watched_right_after_it_was_made() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &shop()).await;
    let served = world.serve().await;
    for number in 0..20 {
        let name = format!("at-once-{number}");
        let spec = json!({"backupName": "nightly", "namespaceMapping": {"shop": name}});
        let object = json!({
            "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": name}, "spec": spec,
        });
        if number % 2 == 0 {
            served.create(&name, spec).await;
        } else {
            world.create(&world.velero("restores"), &object).await;
        }
        let events = served.watched(&name).await;
        let ended = events.last().and_then(|last| last.event.clone());
        let Some(pb::restore_event::Event::Ended(ended)) = ended else { panic!("{name}: {events:#?}") };
        assert_eq!(ended.phase(), pb::Phase::Completed);
        // What the last event says is what the object says.
        let status = &world.restore(&name).await["status"];
        assert_eq!(ended.progress.unwrap().items_restored, status["progress"]["itemsRestored"].as_u64().unwrap());
        assert!(ended.started_at.is_some() && ended.completed_at.is_some(), "{name}: {status}");
    }
}
