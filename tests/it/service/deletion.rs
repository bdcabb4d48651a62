//! A Restore that is deleted takes its files with it (restore-semantics 1.9).

use http::Method;
use serde_json::json;

use super::served::until;
use super::world::{World, config_maps, files_of};
use crate::support::random_suffix;

#[tokio::test(flavor = "multi_thread")]
async fn files_go_before_the_object_in_the_sandbox() {
    files_go_before_the_object(&World::sandbox().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_before_the_object_on_the_real_api_server() {
    if let Some(world) = World::cluster("deletion").await {
        files_go_before_the_object(&world).await;
    }
}

async fn files_go_before_the_object(world: &World) {
    let namespace = format!("shop-{}", random_suffix());
    world.add_backup("nightly", &config_maps(&namespace, 3)).await;
    let served = world.serve().await;
    served.run("nightly").await;
    served.create("nightly-2", json!({"backupName": "nightly"})).await;
    served.ended("nightly-2").await;
    assert_eq!(world.keys("restores/nightly/"), files_of("nightly"));

    let path = world.velero("restores/nightly");
    world.ask(Method::DELETE, &path, None).await.unwrap();
    until("the object is gone", async || {
        let gone = world.get(&path).await.is_none();
        // Asked in this order: once the object is gone, there is no file left.
        gone.then(|| assert_eq!(world.keys("restores/nightly/"), [""; 0]))
    })
    .await;
    assert_eq!(world.keys("restores/nightly-2/"), files_of("nightly-2"), "a name that begins alike is another's");
    assert_eq!(world.keys("backups/"), ["backups/nightly/nightly.tar.gz"]);
    until("the service has forgotten it", async || {
        (served.get("/api/v1/restores/nightly").await.0 == 404).then_some(())
    })
    .await;
    assert_eq!(served.get("/api/v1/restores/nightly-2").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_location_is_unavailable_stays_until_it_is_back() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 3)).await;
    let served = world.serve().await;
    served.run("nightly").await;
    let location = world.velero("backupstoragelocations/default");
    world.ask(Method::PATCH, &location, Some(&json!({"status": {"phase": "Unavailable"}}))).await.unwrap();
    let path = world.velero("restores/nightly");
    world.ask(Method::DELETE, &path, None).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(world.get(&path).await.is_some(), "its files could not be removed");
    assert_eq!(world.keys("restores/nightly/"), files_of("nightly"));
    world.ask(Method::PATCH, &location, Some(&json!({"status": {"phase": "Available"}}))).await.unwrap();
    until("the object is gone", async || world.get(&path).await.is_none().then_some(())).await;
    assert_eq!(world.keys("restores/nightly/"), [""; 0]);
}
