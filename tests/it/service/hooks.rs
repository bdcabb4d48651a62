//! Restores with exec hooks: pods that come up after they were restored, and commands that are run in them
//! (restore-semantics 5.12 and 5.14 step 5).

use std::sync::Arc;

use http::Method;
use reprise::api::grpc::pb;
use reprise::archive::testing::Backup;
use serde_json::{Value, json};

use super::served::{Served, until};
use super::world::World;
use crate::support::kubelet::Kubelet;
use crate::support::{self, ControlPlane, random_suffix};

/// The real API server with a kubelet.
async fn start(subject: &str) -> Option<(World, Arc<ControlPlane>, Kubelet)> {
    let world = World::cluster(subject).await?;
    let cluster = support::cluster().await?;
    let kubelet = Kubelet::start(&cluster).await;
    Some((world, cluster, kubelet))
}

fn pod(namespace: &str, name: &str, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "i"}, {"name": "side", "image": "i"}]}})
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A hook of the specification for the pods of one label.
fn hook(name: &str, app: &str, execs: &Value) -> Value {
    let posts: Vec<Value> = execs.as_array().unwrap().iter().map(|exec| json!({"exec": exec})).collect();
    json!({"name": name, "labelSelector": {"matchLabels": {"app": app}}, "postHooks": posts})
}

/// Waits until the restore has its items and waits for hooks; the Restore object says that it is finalizing.
async fn waits_for_hooks(world: &World, served: &Served, name: &str) {
    until("the restore waits for its hooks", async || {
        let (_, restore) = served.get(&format!("/api/v1/restores/{name}")).await;
        (restore["progress"]["stage"] == "hooks" && restore["phase"] == "Finalizing").then_some(())
    })
    .await;
    let restore = world.restore(name).await;
    assert_eq!((&restore["status"]["phase"], restore["status"].get("hookStatus")), (&json!("Finalizing"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_run_when_their_pods_come_up_and_the_restore_waits_for_them() {
    let Some((world, _cluster, kubelet)) = start("hooks").await else { return };
    let target = format!("hooked-{}", random_suffix());
    let own = json!({"post.hook.restore.velero.io/command": r#"["say", "own"]"#,
        "post.hook.restore.velero.io/container": "side"});
    let backup = Backup::new().with_all([
        namespace("source"),
        pod("source", "db", &json!({})),
        pod("source", "web", &own),
        pod("source", "plain", &json!({})),
    ]);
    world.add_backup("nightly", &backup).await;
    let served = world.serve().await;
    let mut migrate = hook(
        "migrate",
        "db",
        &json!([{"command": ["say", "first"]}, {"command": ["say", "second"], "waitForReady": true, "waitTimeout": "1h"}]),
    );
    migrate["includedNamespaces"] = json!([target]);
    let elsewhere = json!({"name": "elsewhere", "includedNamespaces": ["source"], "postHooks": [{"exec": {"command": ["exit", "1"]}}]});
    let spec = json!({"backupName": "nightly", "namespaceMapping": {"source": target},
        "hooks": {"resources": [migrate, elsewhere]}});
    served.create("nightly", spec).await;
    waits_for_hooks(&world, &served, "nightly").await;
    assert!(kubelet.commands().is_empty());
    kubelet.run_pod(&target, "db", &["main", "side"]).await;
    kubelet.run_pod(&target, "web", &["main", "side"]).await;
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors, ended.warnings), (pb::Phase::Completed, 0, world_warnings(&world).await));
    assert_eq!(world.restore("nightly").await["status"]["hookStatus"], json!({"hooksAttempted": 3}));
    let mut commands = kubelet.commands();
    commands.sort_by_key(|command| command.contains("/web/"));
    let place = format!("v5.channel.k8s.io {target}");
    let expected = ["/db/main: say first", "/db/main: say second", "/web/side: say own"];
    assert_eq!(commands, expected.map(|command| format!("{place}{command}")));
    kubelet.stop().await;
    served.stop().await;
}

/// One where the API server does not serve group snapshots (restore-semantics 5.14 step 4).
async fn world_warnings(world: &World) -> u64 {
    let path = "/apis/groupsnapshot.storage.k8s.io/v1beta2/volumegroupsnapshotcontents";
    u64::from(world.get(path).await.is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_hook_is_an_error_in_the_namespace_of_its_pod_and_other_pods_have_theirs() {
    let Some((world, _cluster, kubelet)) = start("hooks-fail").await else { return };
    let target = format!("hooked-{}", random_suffix());
    let backup = Backup::new().with_all([
        namespace(&target),
        pod(&target, "bad", &json!({})),
        pod(&target, "good", &json!({})),
        pod(&target, "odd", &json!({})),
    ]);
    world.add_backup("nightly", &backup).await;
    let served = world.serve().await;
    let bad = json!([{"command": ["exit", "7"], "onError": "Fail"}, {"command": ["say", "never"]}]);
    let hooks = [
        hook("h", "bad", &bad),
        hook("h", "good", &json!([{"command": ["say", "fine"]}])),
        // Velero would wait for it for ever.
        hook("h", "odd", &json!([{"command": ["say", "lost"], "container": "nobody"}])),
    ];
    served.create("nightly", json!({"backupName": "nightly", "hooks": {"resources": hooks}})).await;
    waits_for_hooks(&world, &served, "nightly").await;
    kubelet.run_pod(&target, "bad", &["main", "side"]).await;
    until("the hook of the bad pod is run", async || (kubelet.commands().len() == 1).then_some(())).await;
    kubelet.run_pod(&target, "good", &["main"]).await;
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 2), "{ended:?}");
    let status = world.restore("nightly").await["status"].clone();
    assert_eq!(status["hookStatus"], json!({"hooksAttempted": 3, "hooksFailed": 2}), "{status}");
    assert_eq!(status["errors"], 2);
    let results = world.json("nightly", "results.gz");
    let failed = format!(
        "hook h in container main in pod {target}/bad failed to execute, err: command terminated with exit code 7"
    );
    let left = format!(
        "hook h in container main in pod {target}/bad not executed: hook h in container main failed, and its onError is Fail"
    );
    assert_eq!(results["errors"]["namespaces"][&target], json!([failed, left]), "{results}");
    let dropped = format!("hook h of pods/{target}/odd is not run: the pod has no container nobody");
    assert_eq!(results["warnings"]["namespaces"][&target], json!([dropped]), "{results}");
    assert_eq!(kubelet.commands().len(), 2, "{:?}", kubelet.commands());
    kubelet.stop().await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_the_wait_for_hooks_and_the_next_start_regards_them_as_finished() {
    let world = World::sandbox().await;
    let backup = Backup::new().with_all([namespace("app"), pod("app", "db", &json!({}))]);
    world.add_backup("nightly", &backup).await;
    let served = world.serve().await;
    let hooks = [hook("h", "db", &json!([{"command": ["true"]}]))];
    served.create("nightly", json!({"backupName": "nightly", "hooks": {"resources": hooks}})).await;
    waits_for_hooks(&world, &served, "nightly").await;
    served.stop().await;
    let status = world.restore("nightly").await["status"].clone();
    assert_eq!((&status["phase"], status.get("completionTimestamp")), (&json!("Finalizing"), None));
    // restore-semantics 1.8: tracking of hooks is lost with the process.
    let served = world.serve().await;
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Completed, 0));
    assert_eq!(world.restore("nightly").await["status"]["hookStatus"], json!({}));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_of_a_pod_that_an_earlier_run_made_are_not_run_and_that_is_told() {
    let world = World::sandbox().await;
    let backup =
        Backup::new().with_all([namespace("app"), pod("app", "db", &json!({})), pod("app", "other", &json!({}))]);
    world.add_backup("nightly", &backup).await;
    world.create("/api/v1/namespaces", &namespace("app")).await;
    let mut earlier = pod("app", "db", &json!({}));
    earlier["metadata"]["labels"]["velero.io/restore-name"] = json!("nightly");
    world.create("/api/v1/namespaces/app/pods", &earlier).await;
    world.create("/api/v1/namespaces/app/pods", &pod("app", "other", &json!({}))).await;
    let served = world.serve().await;
    let hooks = ["db", "other"].map(|app| hook("h", app, &json!([{"command": ["true"]}])));
    served.create("nightly", json!({"backupName": "nightly", "hooks": {"resources": hooks}})).await;
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Completed, 0), "{ended:?}");
    assert_eq!(world.restore("nightly").await["status"]["hookStatus"], json!({}));
    let results = world.json("nightly", "results.gz");
    let warnings = results["warnings"]["namespaces"]["app"].as_array().unwrap().iter();
    let told: Vec<&str> = warnings.filter_map(Value::as_str).filter(|message| message.contains("exec hooks")).collect();
    assert_eq!(told.len(), 1, "{results}");
    assert!(told[0].starts_with("the exec hooks of pods/app/db are not run: the pod was there already"), "{told:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_the_api_refuses_is_an_error_that_says_so() {
    let world = World::sandbox().await;
    let backup = Backup::new().with_all([namespace("app"), pod("app", "db", &json!({}))]);
    world.add_backup("nightly", &backup).await;
    let served = world.serve().await;
    let hooks = [hook("h", "db", &json!([{"command": ["true"]}]))];
    served.create("nightly", json!({"backupName": "nightly", "hooks": {"resources": hooks}})).await;
    waits_for_hooks(&world, &served, "nightly").await;
    // A pod that runs on an API without kubelets.
    let running =
        json!({"status": {"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {}}}]}});
    world.ask(Method::PATCH, "/api/v1/namespaces/app/pods/db/status", Some(&running)).await.unwrap();
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 1));
    let results = world.json("nightly", "results.gz");
    let error = results["errors"]["namespaces"]["app"][0].as_str().unwrap().to_owned();
    assert!(error.starts_with("hook h in container main in pod app/db failed to execute, err: "), "{error}");
    assert!(error.contains("could not find the requested resource"), "{error}");
    served.stop().await;
}
