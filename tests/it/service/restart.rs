//! A service that goes down in mid-restore, and one that takes its work up.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt as _;
use reprise::api::grpc::pb;
use reprise::api::grpc::pb::restore_event::Event;
use serde_json::{Value, json};

use super::client::slow;
use super::served::until;
use super::world::{World, config_maps, files_of};

const ITEMS: usize = 150;

/// restore-semantics 1.8; velero-differences: running-restores-are-resumed
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_service_began_the_next_one_ends() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", ITEMS)).await;
    let served = world.serve_through(slow(&world.client, Duration::from_millis(100))).await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    let done = until("some items are restored", async || {
        let (_, view) = served.get("/api/v1/restores/nightly").await;
        view["progress"]["itemsRestored"].as_u64().filter(|&done| done > 10)
    })
    .await;
    assert!(done < ITEMS as u64, "the restore was too fast to be stopped");

    let request = pb::WatchRestoreRequest { name: "nightly".into(), after_sequence: None };
    let grpc = served.grpc().await.watch_restore(request).await.unwrap().into_inner();
    let grpc = tokio::spawn(async move { grpc.map(Result::unwrap).collect::<Vec<_>>().await });
    let all = served.grpc().await.watch_restores(pb::WatchRestoresRequest {}).await.unwrap().into_inner();
    let all = tokio::spawn(async move { all.map(Result::unwrap).collect::<Vec<_>>().await });
    let sse = reqwest::get(served.url("/api/v1/restores/nightly/events")).await.unwrap();
    let sse = tokio::spawn(async move { sse.text().await.unwrap() });
    served.tell_to_stop();
    for stream in [grpc, all] {
        let events = tokio::time::timeout(Duration::from_secs(30), stream).await.unwrap().unwrap();
        assert!(matches!(events[0].event, Some(Event::Snapshot(_))), "{:?}", events[0]);
        let last = events.last().unwrap();
        assert!(matches!(last.event, Some(Event::ShuttingDown(_))), "{last:?}");
        let ended = events.iter().filter(|event| matches!(event.event, Some(Event::Ended(_)))).count();
        assert_eq!(ended, 0, "a restore that is taken up again has not ended");
    }
    let sse = sse.await.unwrap();
    let last = sse.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("event: shutting-down") || last.contains("event:shutting-down"), "{last}");
    served.stop().await;

    let restore = world.restore("nightly").await;
    assert_eq!(restore["status"]["phase"], "InProgress", "{restore}");
    assert!(restore["status"].get("completionTimestamp").is_none());
    let left = world.names("/api/v1/namespaces/shop/configmaps").await;
    assert!(left.len() < ITEMS, "there is nothing left to do");

    let next = world.serve().await;
    until("the next one knows it", async || (next.get("/api/v1/restores/nightly").await.0 == 200).then_some(())).await;
    let ended = next.ended("nightly").await;
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 0, 0), "{ended:?}");
    assert_eq!(world.names("/api/v1/namespaces/shop/configmaps").await.len(), ITEMS);
    let after = world.restore("nightly").await;
    assert_eq!(after["status"]["startTimestamp"], restore["status"]["startTimestamp"], "it began only once");
    let total = ended.progress.unwrap().total_items;
    assert_eq!(after["status"]["progress"], json!({"totalItems": total, "itemsRestored": total}));
    assert_eq!(world.keys("restores/nightly/"), files_of("nightly"));
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_or_queued_while_no_service_runs_is_restored_by_the_next() {
    let world = World::sandbox().await;
    for name in ["a", "b"] {
        world.add_backup(name, &config_maps(name, 3)).await;
        let restore = json!({
            "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": name}, "spec": {"backupName": name},
        });
        world.create(&world.velero("restores"), &restore).await;
    }
    let served = world.serve().await;
    for name in ["a", "b"] {
        until("it has ended", async || (world.restore(name).await["status"]["phase"] == "Completed").then_some(()))
            .await;
    }
    served.stop().await;

    // A third service knows of both what their objects and files tell.
    let served = world.serve().await;
    let view: Value = until("it is known", async || {
        let (code, view) = served.get("/api/v1/restores/a").await;
        (code == 200).then_some(view)
    })
    .await;
    assert_eq!((&view["phase"], &view["progress"]["itemsRestored"]), (&json!("Completed"), &json!(4)), "{view}");
    let items = served.items("a", &[]).await;
    assert_eq!(items.iter().filter(|item| item.outcome() == pb::Outcome::Created).count(), 4, "{items:?}");
    let log = reqwest::get(served.url("/api/v1/restores/a/logs")).await.unwrap().text().await.unwrap();
    assert!(log.contains("items will be restored from backup a"), "{log}");
    let events = served.watched("a").await;
    assert!(matches!(events.last().unwrap().event, Some(Event::Ended(_))), "{events:?}");
}

/// restore-semantics 1.8: a Restore that was finalizing goes on from what is in the storage, and restores nothing again.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_finalizing_is_only_ended_by_the_next_service() {
    for (phase, errors, end) in
        [("Finalizing", "", "Completed"), ("FinalizingPartiallyFailed", r#""one""#, "PartiallyFailed")]
    {
        let world = World::sandbox().await;
        world.add_backup("nightly", &config_maps("shop", 3)).await;
        let results = format!(r#"{{"errors": {{"velero": [{errors}]}}, "warnings": {{}}}}"#);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(results.as_bytes()).unwrap();
        world.put("restores/nightly/restore-nightly-results.gz", &packed.finish().unwrap());
        let restore = json!({
            "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "nightly"},
            "spec": {"backupName": "nightly"}, "status": {"phase": phase, "startTimestamp": "2026-01-02T03:04:05Z"},
        });
        world.create(&world.velero("restores"), &restore).await;
        let _served = world.serve().await;
        let status = until("it has ended", async || {
            let status = world.restore("nightly").await["status"].take();
            (status["phase"] == end).then_some(status)
        })
        .await;
        assert_eq!(status["startTimestamp"], "2026-01-02T03:04:05Z");
        assert!(status["completionTimestamp"].is_string() && status["hookStatus"].is_object(), "{status}");
        assert_eq!(status.get("errors"), (!errors.is_empty()).then_some(&json!(1)), "{status}");
        assert_eq!(world.get("/api/v1/namespaces/shop").await, None, "no item is touched");
    }
}
