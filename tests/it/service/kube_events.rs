//! Kubernetes Events tell of a restore, and cost it nothing.

use std::time::Duration;

use http::Method;
use reprise::api::grpc::pb;
use reprise::app::Options;
use serde_json::{Value, json};

use super::client::{Fate, tampered};
use super::served::{Served, until};
use super::world::{World, config_maps};

/// The Events on a Restore in the order of their times, once one has this reason.
async fn events(world: &World, restore: &str, last: &str) -> Vec<Value> {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", world.namespace());
    until(last, async || {
        let list = world.get(&path).await.unwrap();
        let mut events: Vec<Value> = list["items"].as_array().unwrap().clone();
        events.retain(|event| event["regarding"]["name"] == restore && event["regarding"]["kind"] == "Restore");
        events.sort_by_key(|event| event["eventTime"].as_str().unwrap_or_default().to_owned());
        events.iter().any(|event| event["reason"] == last).then_some(events)
    })
    .await
}

fn told(events: &[Value]) -> Vec<String> {
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| ["type", "reason", "action"].map(|key| text(event, key)).join(" ")).collect()
}

async fn events_tell_of_a_restore_in_order(world: &World, namespace: &str) {
    world.add_backup("nightly", &config_maps(namespace, 3)).await;
    let served = world.serve().await;
    assert_eq!(served.run("nightly").await.phase(), pb::Phase::Completed);
    let found = events(world, "nightly", "Completed").await;
    assert_eq!(
        told(&found),
        [
            "Normal Started Restore",
            "Normal StageStarted Items",
            "Normal StageStarted Finalizing",
            "Normal Completed Restore"
        ]
    );
    let note = |event: &Value| event["note"].as_str().unwrap().to_owned();
    assert_eq!(note(&found[0]), "Restoring backup nightly");
    let counts = note(&found[3]);
    assert!(counts.contains("4 items: 4 created; ") && counts.ends_with("0 errors"), "{counts}");
    let uid = &world.restore("nightly").await["metadata"]["uid"];
    assert!(found.iter().all(|event| &event["regarding"]["uid"] == uid && event["reportingController"] == "reprise"));

    served.create("wrong", json!({"backupName": "none"})).await;
    let found = events(world, "wrong", "FailedValidation").await;
    assert_eq!(told(&found), ["Warning FailedValidation Validate"]);
    assert!(note(&found[0]).contains("none"), "{found:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_of_a_restore_in_order_in_the_sandbox() {
    events_tell_of_a_restore_in_order(&World::sandbox().await, "shop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_of_a_restore_in_order_on_the_real_api_server() {
    let Some(world) = World::cluster("events").await else { return };
    let namespace = format!("{}-shop", world.namespace());
    events_tell_of_a_restore_in_order(&world, &namespace).await;
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_told_once_and_names_what_is_waited_for() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 1)).await;
    let client = tampered(&world.client, |method, path| {
        let is_item = method == Method::POST && path.ends_with("/namespaces/shop/configmaps");
        if is_item { Fate::Late(Duration::from_secs(4)) } else { Fate::Pass }
    });
    let options = Options { stall_after: Duration::from_secs(1), ..world.options(client) };
    let served = Served::start(options).await;
    assert_eq!(served.run("nightly").await.phase(), pb::Phase::Completed);
    let found = events(&world, "nightly", "Completed").await;
    let stalls: Vec<&Value> = found.iter().filter(|event| event["reason"] == "Stalled").collect();
    let [stall] = stalls[..] else { panic!("one stall: {found:?}") };
    assert_eq!((&stall["type"], &stall["action"]), (&json!("Warning"), &json!("Items")));
    assert_eq!(stall.get("series"), None, "{stall}");
    let note = stall["note"].as_str().unwrap();
    assert!(note.contains("ConfigMap shop/config-000"), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_takes_no_events_costs_a_restore_nothing() {
    let world = World::sandbox().await;
    for name in ["refused", "hanging"] {
        world.add_backup(name, &config_maps(name, 3)).await;
        let client = tampered(&world.client, move |_, path| match name {
            _ if !path.starts_with("/apis/events.k8s.io/") => Fate::Pass,
            "refused" => Fate::Refused(503, None),
            _ => Fate::Late(Duration::from_secs(3600)),
        });
        let served = world.serve_through(client).await;
        let ended = served.run(name).await;
        assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 0, 0), "{ended:?}");
        served.stop().await;
    }
    assert_eq!(world.names("/apis/events.k8s.io/v1/namespaces/velero/events").await, [""; 0]);
}
