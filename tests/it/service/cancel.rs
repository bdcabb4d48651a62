//! Restores that are cancelled: in each phase, and through each door.

use std::time::Duration;

use http::Method;
use reprise::api::grpc::pb;
use reprise::app::Options;
use reprise::velero::restore::FINALIZER;
use serde_json::{Value, json};
use tonic::Code;

use super::client::slow;
use super::served::{Served, until};
use super::world::{World, config_maps, files_of};
use crate::support::random_suffix;

const ITEMS: usize = 150;

/// How kubectl annotate writes.
async fn annotate(world: &World, name: &str, value: &str) {
    let patch = json!({"metadata": {"annotations": {"reprise.dev/cancel": value}}});
    world.ask(Method::PATCH, &world.velero(&format!("restores/{name}")), Some(&patch)).await.unwrap();
}

async fn in_mid_run(served: &Served, name: &str) {
    let done = until("some items are restored", async || {
        let (_, view) = served.get(&format!("/api/v1/restores/{name}")).await;
        view["progress"]["itemsRestored"].as_u64().filter(|&done| done > 10)
    })
    .await;
    assert!(done < ITEMS as u64, "the restore was too fast to be stopped");
}

async fn cancel(served: &Served, name: &str, body: &Value) -> (u16, Value) {
    let path = served.url(&format!("/api/v1/restores/{name}/cancel"));
    let answer = reqwest::Client::new().post(path).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Annotates a restore in mid-run, with another one in the queue.
async fn an_annotation_stops_it(world: &World) {
    let (namespace, other) = (format!("shop-{}", random_suffix()), format!("other-{}", random_suffix()));
    world.add_backup("nightly", &config_maps(&namespace, ITEMS)).await;
    world.add_backup("other", &config_maps(&other, 3)).await;
    let served = world.serve_through(slow(&world.client, Duration::from_millis(200))).await;
    for name in ["nightly", "other"] {
        served.create(name, json!({"backupName": name})).await;
    }
    in_mid_run(&served, "nightly").await;
    annotate(world, "nightly", "wrong backup").await;

    let ended = served.ended("nightly").await;
    let reason = ended.failure_reason.clone().unwrap_or_default();
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Failed, 1), "{reason}");
    let created: Vec<pb::Item> = served.items("nightly", &[pb::Outcome::Created]).await;
    let left = served.items("nightly", &[pb::Outcome::Skipped]).await;
    assert!(left.iter().all(|item| item.reason() == pb::Reason::Cancelled), "{left:?}");
    assert_eq!(served.items("nightly", &[]).await.len(), created.len() + left.len(), "each has one of both outcomes");
    let total = ITEMS + 1;
    let expected =
        format!("cancelled by annotation reprise.dev/cancel after {} of {total} items: wrong backup", created.len());
    assert_eq!(reason, expected);
    let mut listed: Vec<&str> =
        created.iter().filter(|item| item.group_resource == "configmaps").map(|item| &*item.name).collect();
    listed.sort_unstable();
    let mut there = world.names(&format!("/api/v1/namespaces/{namespace}/configmaps")).await;
    there.retain(|name| name.starts_with("config-"));
    assert_eq!(there, listed, "what is told is what is there");

    let status = world.restore("nightly").await["status"].clone();
    assert_eq!((&status["failureReason"], &status["errors"]), (&json!(expected), &json!(1)), "{status}");
    assert!(status["completionTimestamp"].is_string(), "{status}");
    assert_eq!(status["progress"]["itemsRestored"], json!(created.len()), "{status}");
    assert_eq!(world.keys("restores/nightly/"), files_of("nightly"));
    assert_eq!(world.json("nightly", "results.gz")["errors"]["velero"], json!([expected]));
    assert!(world.text("nightly", "logs.gz").contains(&expected));
    let list = world.json("nightly", "resource-list.json.gz");
    assert_eq!(list["v1/ConfigMap"].as_array().map(Vec::len), Some(listed.len()));

    assert_eq!(served.ended("other").await.phase(), pb::Phase::Completed, "the next one has its turn");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_stops_a_restore_in_its_midst_in_the_sandbox() {
    an_annotation_stops_it(&World::sandbox().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_stops_a_restore_in_its_midst_on_the_real_api_server() {
    if let Some(world) = World::cluster("cancel").await {
        an_annotation_stops_it(&world).await;
    }
}

/// Deletes a restore in mid-run.
async fn deletion_stops_it(world: &World) {
    let namespace = format!("shop-{}", random_suffix());
    world.add_backup("nightly", &config_maps(&namespace, ITEMS)).await;
    world.add_backup("other", &config_maps(&format!("other-{}", random_suffix()), 3)).await;
    let served = world.serve_through(slow(&world.client, Duration::from_millis(200))).await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    in_mid_run(&served, "nightly").await;
    let path = world.velero("restores/nightly");
    world.ask(Method::DELETE, &path, None).await.unwrap();
    until("the object is gone", async || world.get(&path).await.is_none().then_some(())).await;
    assert_eq!(world.keys("restores/nightly/"), [""; 0], "its files went before it");
    let there = world.names(&format!("/api/v1/namespaces/{namespace}/configmaps")).await;
    assert!(there.len() < ITEMS, "it was stopped and not awaited");
    until("it is forgotten", async || (served.get("/api/v1/restores/nightly").await.0 == 404).then_some(())).await;
    served.create("nightly", json!({"backupName": "other"})).await;
    assert_eq!(served.ended("nightly").await.phase(), pb::Phase::Completed, "the name is free");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_stops_a_restore_in_its_midst_in_the_sandbox() {
    deletion_stops_it(&World::sandbox().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_stops_a_restore_in_its_midst_on_the_real_api_server() {
    if let Some(world) = World::cluster("cancel-delete").await {
        deletion_stops_it(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_in_the_queue_are_cancelled_through_each_door_without_waiting_for_their_turn() {
    let world = World::sandbox().await;
    // So many that it does not end by itself while the test is at the others.
    world.add_backup("first", &config_maps("one", 20 * ITEMS)).await;
    world.add_backup("second", &config_maps("two", 5)).await;
    let served = world.serve_through(slow(&world.client, Duration::from_millis(300))).await;
    served.create("first", json!({"backupName": "first"})).await;
    in_mid_run(&served, "first").await;
    for name in ["grpc", "rest", "cli", "empty"] {
        served.create(name, json!({"backupName": "second"})).await;
    }
    let request = |by: &str, reason: &str| pb::CancelRestoreRequest {
        name: "grpc".to_owned(),
        reason: reason.to_owned(),
        by: by.to_owned(),
    };
    let mut grpc = served.grpc().await;
    grpc.cancel_restore(request("alice", "too early")).await.unwrap();
    let (code, view) = cancel(&served, "rest", &json!({"by": "bob"})).await;
    assert_eq!((code, &view["name"]), (202, &json!("rest")), "{view}");
    let answer = reqwest::Client::new().post(served.url("/api/v1/restores/empty/cancel")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    let url = served.url("");
    let told = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_reprise"));
        let arguments = ["restore", "cancel", "cli", "--wait", "--by", "carol", "--reason", "late", "--server", &url];
        command.args(arguments).output().unwrap()
    });
    let told = told.await.unwrap();
    assert_eq!(told.status.code(), Some(5), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stdout).contains("cancelled by carol"), "{told:?}");
    for (name, reason) in [
        ("grpc", "cancelled by alice before any item was restored: too early"),
        ("rest", "cancelled by bob before any item was restored"),
        ("cli", "cancelled by carol before any item was restored: late"),
        ("empty", "cancelled by a REST call before any item was restored"),
    ] {
        let ended = served.ended(name).await;
        assert_eq!((ended.phase(), ended.failure_reason.as_deref()), (pb::Phase::Failed, Some(reason)), "{name}");
        let status = world.restore(name).await["status"].clone();
        assert_eq!((&status["phase"], &status["failureReason"]), (&json!("Failed"), &json!(reason)), "{status}");
        assert!(status.get("startTimestamp").is_none(), "it never began: {status}");
    }
    assert_eq!(served.get("/api/v1/restores/first").await.1["phase"], "InProgress", "the test was too slow");

    // One that has ended stays as it is, and says so.
    let refused = grpc.cancel_restore(request("dave", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let (code, problem) = cancel(&served, "rest", &json!({})).await;
    assert_eq!(code, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("has ended (Failed)"), "{problem}");
    assert_eq!(cancel(&served, "nobody", &json!({})).await.0, 404);
    assert_eq!(cancel(&served, "first", &json!({"reason": "two\nlines"})).await.0, 400);
    assert_eq!(cancel(&served, "first", &json!({"resaon": "x"})).await.0, 400);

    // Twice is once, and the first who did is who did.
    assert_eq!(cancel(&served, "first", &json!({"by": "erin"})).await.0, 202);
    let (code, _) = cancel(&served, "first", &json!({"by": "frank"})).await;
    assert!(code == 202 || code == 409, "{code}: it may have ended by now");
    let reason = served.ended("first").await.failure_reason.unwrap();
    assert!(reason.starts_with("cancelled by erin after "), "{reason}");
    assert_eq!(world.get("/api/v1/namespaces/two").await, None);
    served.stop().await;
}

/// The wish is on the object, and so outlives the service.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_while_no_service_ran_is_ended_by_the_next_and_not_run() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 3)).await;
    let restore = |name: &str, status: Value| {
        json!({
            "apiVersion": "velero.io/v1", "kind": "Restore", "spec": {"backupName": "nightly"}, "status": status,
            "metadata": {"name": name, "finalizers": [FINALIZER],
                "annotations": {"reprise.dev/cancel": "true", "reprise.dev/cancelled-by": "alice"}},
        })
    };
    let begun = json!({"phase": "InProgress", "startTimestamp": "2026-01-02T03:04:05Z",
        "progress": {"totalItems": 9, "itemsRestored": 3}});
    let mut finalizing = begun.clone();
    finalizing["phase"] = json!("Finalizing");
    for (name, status) in [("new", json!({})), ("begun", begun), ("finalizing", finalizing)] {
        world.create(&world.velero("restores"), &restore(name, status)).await;
    }
    let _served = world.serve().await;
    for (name, reason) in [
        ("new", "cancelled by alice before any item was restored"),
        ("begun", "cancelled by alice after 3 of 9 items"),
        ("finalizing", "cancelled by alice after 3 of 9 items"),
    ] {
        let status = until("it has ended", async || {
            let status = world.restore(name).await["status"].clone();
            (status["phase"] == "Failed").then_some(status)
        })
        .await;
        assert_eq!(status["failureReason"], reason, "{status}");
    }
    assert_eq!(world.get("/api/v1/namespaces/shop").await, None, "no item is touched");
    assert_eq!(world.keys("restores/new/"), [""; 0]);
    assert_eq!(world.json("begun", "results.gz")["errors"]["velero"], json!(["cancelled by alice after 3 of 9 items"]));
    assert_eq!(world.json("finalizing", "results.gz")["errors"]["velero"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_only_observes_cancels_nothing() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 3)).await;
    let restore = json!({
        "apiVersion": "velero.io/v1", "kind": "Restore", "spec": {"backupName": "nightly"},
        "metadata": {"name": "nightly", "finalizers": [FINALIZER]}, "status": {"phase": "InProgress"},
    });
    world.create(&world.velero("restores"), &restore).await;
    let served = Served::start(Options { observe: true, ..world.options(world.client.clone()) }).await;
    until("it is known", async || (served.get("/api/v1/restores/nightly").await.0 == 200).then_some(())).await;
    let (code, problem) = cancel(&served, "nightly", &json!({})).await;
    assert_eq!(code, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("only observes"), "{problem}");
    assert!(world.restore("nightly").await["metadata"].get("annotations").is_none());
}
