//! Restores run one after another.

use std::time::Duration;

use reprise::api::grpc::pb;
use reprise::api::grpc::pb::restore_event::Event;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::client::slow;
use super::served::{PATIENCE, Served, until};
use super::world::{World, config_maps};

async fn phase(served: &Served, name: &str) -> Value {
    served.get(&format!("/api/v1/restores/{name}")).await.1["phase"].clone()
}

/// restore-semantics 1.6, one worker
#[tokio::test(flavor = "multi_thread")]
async fn the_second_waits_and_says_at_which_place() {
    let world = World::sandbox().await;
    world.add_backup("first", &config_maps("one", 200)).await;
    world.add_backup("second", &config_maps("two", 5)).await;
    world.add_backup("third", &config_maps("three", 5)).await;
    let served = world.serve_through(slow(&world.client, Duration::from_millis(100))).await;
    served.create("first", json!({"backupName": "first"})).await;
    until("the first runs", async || (phase(&served, "first").await == "InProgress").then_some(())).await;
    for name in ["second", "third"] {
        served.create(name, json!({"backupName": name})).await;
    }
    for (name, place) in [("second", 1), ("third", 2)] {
        let view = until("it is in the queue", async || {
            let (_, view) = served.get(&format!("/api/v1/restores/{name}")).await;
            view.get("queuePosition").is_some_and(|place| !place.is_null()).then_some(view)
        })
        .await;
        assert_eq!((&view["queuePosition"], &view["phase"]), (&json!(place), &json!("New")), "{view}");
        assert_eq!(view["progress"]["stage"], "queued");
    }
    let request = pb::GetRestoreRequest { name: "second".into() };
    assert_eq!(served.grpc().await.get_restore(request).await.unwrap().into_inner().queue_position, Some(1));
    let (_, first) = served.get("/api/v1/restores/first").await;
    assert!(first.get("queuePosition").is_none_or(Value::is_null), "{first}");
    assert_eq!(first["phase"], "InProgress", "the test was too slow to see the queue");

    let events = served.watched("second").await;
    let Some(Event::Snapshot(snapshot)) = &events[0].event else { panic!("{:?}", events[0]) };
    assert_eq!((snapshot.phase(), snapshot.queue_position), (pb::Phase::New, Some(1)));
    let Some(Event::Ended(ended)) = &events[events.len() - 1].event else { panic!("{events:#?}") };
    assert_eq!((ended.phase(), ended.queue_position), (pb::Phase::Completed, None));
    served.ended("third").await;
    let time = async |name: &str, key: &str| world.restore(name).await["status"][key].as_str().unwrap().to_owned();
    // Items one restore after another; the ends are written beside the queue.
    assert!(time("first", "startTimestamp").await <= time("second", "startTimestamp").await);
    assert!(time("second", "startTimestamp").await <= time("third", "startTimestamp").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_deleted_while_it_waits_never_runs() {
    let world = World::sandbox().await;
    world.add_backup("first", &config_maps("one", 100)).await;
    world.add_backup("second", &config_maps("two", 5)).await;
    let served = world.serve_through(slow(&world.client, Duration::from_millis(100))).await;
    for name in ["first", "second"] {
        served.create(name, json!({"backupName": name})).await;
    }
    until("it is in the queue", async || {
        let (_, view) = served.get("/api/v1/restores/second").await;
        (view["queuePosition"] == 1).then_some(())
    })
    .await;
    let mut all = served.grpc().await.watch_restores(pb::WatchRestoresRequest {}).await.unwrap().into_inner();
    let path = world.velero("restores/second");
    world.ask(http::Method::DELETE, &path, None).await.unwrap();
    until("it is gone", async || world.get(&path).await.is_none().then_some(())).await;
    loop {
        let event = tokio::time::timeout(PATIENCE, all.next()).await.unwrap().unwrap().unwrap();
        if let (Some(Event::Deleted(_)), "second") = (&event.event, event.name.as_str()) {
            break;
        }
    }
    assert_eq!(served.ended("first").await.phase(), pb::Phase::Completed);
    assert_eq!(served.get("/api/v1/restores/second").await.0, 404);
    assert_eq!(world.get("/api/v1/namespaces/two").await, None);
}
