//! A backup location that is down delays the files of a restore, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use reprise::api::grpc::pb;
use serde_json::json;

use super::client::{Fate, tampered};
use super::served::{Served, until};
use super::world::{World, config_maps, files_of};

/// A service whose bucket goes away with the first item of namespace `one`.
async fn serve_until_the_bucket_goes(world: &World) -> (Served, Arc<AtomicBool>) {
    let (away, switch) = (world.bucket_is_away(), world.bucket_is_away());
    let client = tampered(&world.client, move |method, path| {
        if method == Method::POST && path.contains("/namespaces/one/configmaps") {
            switch.store(true, Ordering::Relaxed);
        }
        Fate::Pass
    });
    (world.serve_through(client).await, away)
}

/// The restore `first` waits for its bucket.
async fn waits_for_its_bucket(world: &World, served: &Served) {
    until("all items of the first are there", async || {
        let (_, view) = served.get("/api/v1/restores/first").await;
        (view["progress"]["stage"] == "finalizing").then_some(())
    })
    .await;
    let status = &world.restore("first").await["status"];
    assert_eq!(status["phase"], "InProgress", "files before the phase that tells of them: {status}");
    assert_eq!(world.keys("restores/first/"), [""; 0]);
}

/// velero-differences: files-are-uploaded-until-they-are-there
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_delays_the_files_of_a_restore_and_not_the_next_restore() {
    let world = World::sandbox_with_bucket().await;
    world.add_backup("first", &config_maps("one", 3)).await;
    let folder = tempfile::tempdir().unwrap();
    let other = json!({
        "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": {"name": "other"},
        "spec": {"provider": "filesystem", "config": {"path": folder.path()}, "objectStorage": {"bucket": ""}},
        "status": {"phase": "Available"},
    });
    world.create(&world.velero("backupstoragelocations"), &other).await;
    std::fs::create_dir_all(folder.path().join("backups/second")).unwrap();
    let tarball = config_maps("two", 3).tarball().unwrap();
    std::fs::write(folder.path().join("backups/second/second.tar.gz"), tarball).unwrap();
    world.add_backup_object("second", "other").await;

    let (served, away) = serve_until_the_bucket_goes(&world).await;
    for name in ["first", "second"] {
        served.create(name, json!({"backupName": name})).await;
    }
    assert_eq!(served.ended("second").await.phase(), pb::Phase::Completed);
    waits_for_its_bucket(&world, &served).await;

    away.store(false, Ordering::Relaxed);
    let ended = served.ended("first").await;
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 0, 0), "{ended:?}");
    assert_eq!(world.keys("restores/first/"), files_of("first"));
    assert_eq!(world.names("/api/v1/namespaces/one/configmaps").await.len(), 3);
}

/// velero-differences: running-restores-are-resumed
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_stopped_before_its_files_were_there_is_run_again_and_says_what_is_lost() {
    let world = World::sandbox_with_bucket().await;
    world.add_backup("first", &config_maps("one", 3)).await;
    let (served, away) = serve_until_the_bucket_goes(&world).await;
    served.create("first", json!({"backupName": "first"})).await;
    waits_for_its_bucket(&world, &served).await;
    served.stop().await;
    assert_eq!(world.restore("first").await["status"]["phase"], "InProgress");

    away.store(false, Ordering::Relaxed);
    let served = world.serve().await;
    until("the next one knows it", async || (served.get("/api/v1/restores/first").await.0 == 200).then_some(())).await;
    let ended = served.ended("first").await;
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 0, 0), "{ended:?}");
    assert_eq!(world.keys("restores/first/"), files_of("first"));
    let log = world.text("first", "logs.gz");
    assert!(log.contains("run again from its beginning") && log.contains("the log and the findings"), "{log}");
    assert_eq!(served.items("first", &[pb::Outcome::Unchanged]).await.len(), 3);
}

/// A Restore that nobody wants any more does not wait for its bucket.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_waits_for_its_bucket_can_be_deleted() {
    let world = World::sandbox_with_bucket().await;
    world.add_backup("first", &config_maps("one", 3)).await;
    let (served, away) = serve_until_the_bucket_goes(&world).await;
    served.create("first", json!({"backupName": "first"})).await;
    waits_for_its_bucket(&world, &served).await;
    let path = world.velero("restores/first");
    world.ask(Method::DELETE, &path, None).await.unwrap();
    // Its files are removed from the bucket before the object goes.
    away.store(false, Ordering::Relaxed);
    until("it is gone", async || world.get(&path).await.is_none().then_some(())).await;
    assert_eq!(world.keys("restores/first/"), [""; 0]);
    served.stop().await;
}
