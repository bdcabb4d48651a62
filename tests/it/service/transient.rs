//! An API server that has too much to do now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use reprise::api::grpc::pb;
use reprise::model::Phase;
use serde_json::json;

use super::client::{Fate, tampered};
use super::served::until;
use super::world::{World, config_maps};

const ITEMS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn items_are_created_although_writes_are_refused_now_and_then() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", ITEMS)).await;
    let (seen, refused) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&refused);
    let client = tampered(&world.client, move |method, _| {
        if method == Method::GET {
            return Fate::Pass;
        }
        let fate = match seen.fetch_add(1, Ordering::Relaxed) % 5 {
            1 => Fate::Refused(503, None),
            3 => Fate::Refused(429, Some(0)),
            _ => return Fate::Pass,
        };
        count.fetch_add(1, Ordering::Relaxed);
        fate
    });
    let served = world.serve_through(client).await;
    let object = world.velero("restores");
    let restore = json!({
        "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "nightly"},
        "spec": {"backupName": "nightly"},
    });
    world.create(&object, &restore).await;
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 0, 0), "{ended:?}");
    assert_eq!(world.names("/api/v1/namespaces/shop/configmaps").await.len(), ITEMS);
    assert!(refused.load(Ordering::Relaxed) > ITEMS / 4, "hardly anything was refused");
    let items = served.items("nightly", &[pb::Outcome::Created]).await;
    assert_eq!(items.len(), ITEMS + 1);
    assert!(items.iter().any(|item| item.attempts > 1), "the tries are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_fail_now_and_then_change_nothing_about_the_end() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", ITEMS)).await;
    let seen = AtomicUsize::new(0);
    let client = tampered(&world.client, move |_, _| match seen.fetch_add(1, Ordering::Relaxed) % 6 {
        2 => Fate::Refused(503, None),
        _ => Fate::Pass,
    });
    let _served = world.serve_through(client).await;
    let restore = json!({
        "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "nightly"},
        "spec": {"backupName": "nightly"},
    });
    for number in 0..4 {
        let (name, mut restore) = (format!("nightly-{number}"), restore.clone());
        restore["metadata"]["name"] = name.as_str().into();
        world.create(&world.velero("restores"), &restore).await;
        let path = world.velero(&format!("restores/{name}"));
        let ended = until("it has ended", async || {
            let restore = world.get(&path).await.unwrap();
            let phase = restore["status"]["phase"].as_str().and_then(Phase::parse).unwrap_or(Phase::New);
            phase.is_terminal().then_some(restore)
        })
        .await;
        assert_eq!(ended["status"]["phase"], "Completed", "{ended}");
        assert_eq!(ended["status"].get("warnings"), None, "{}", world.text(&name, "results.gz"));
    }
    assert_eq!(world.names("/api/v1/namespaces/shop/configmaps").await.len(), ITEMS);
}

/// restore-semantics 1.6: the patch that accepts a Restore failed, so all of it is repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_acceptance_cannot_be_written_is_tried_again() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 3)).await;
    let patches = AtomicUsize::new(0);
    let client = tampered(&world.client, move |method, path| {
        let is_patch = method == Method::PATCH && path.ends_with("/restores/nightly");
        // The first adds the finalizer, the second would accept.
        if is_patch && patches.fetch_add(1, Ordering::Relaxed) == 1 { Fate::Refused(503, None) } else { Fate::Pass }
    });
    let served = world.serve_through(client).await;
    let ended = served.run("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Completed, 0), "{ended:?}");
    assert!(ended.started_at.is_some());
}
