//! The service's own sandbox, as `reprise serve --sandbox` has it.

use std::time::Duration;

use reprise::api::grpc::pb;
use reprise::app::Backend;
use reprise::archive::testing::Backup;
use serde_json::json;

use super::served::Served;
use super::world::{World, config_maps};

/// A sandbox with the backup `nightly` in a folder.
async fn serve(backup: &Backup) -> (tempfile::TempDir, Served) {
    let world = World::sandbox().await;
    let store = tempfile::tempdir().unwrap();
    let folder = store.path().join("backups/nightly");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("nightly.tar.gz"), backup.tarball().unwrap()).unwrap();
    let object = json!({
        "apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "nightly", "namespace": "elsewhere"},
        "spec": {"storageLocation": "elsewhere"}, "status": {"phase": "Completed"},
    });
    std::fs::write(folder.join("velero-backup.json"), object.to_string()).unwrap();
    let backend = Backend::Sandbox { store: store.path().to_owned(), pace: Duration::ZERO };
    let served = Served::start(reprise::app::Options { backend, ..world.options(world.client.clone()) }).await;
    (store, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_a_folder_are_restored_into_the_sandbox_and_it_says_that_it_is_one() {
    let (folder, served) = serve(&config_maps("shop", 20)).await;
    let ended = served.run("nightly").await;
    assert_eq!((ended.phase(), ended.sandbox, ended.warnings), (pb::Phase::Completed, true, 0));
    let (code, list) = served.get("/sandbox/api/v1/namespaces/shop/configmaps").await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 20));
    assert!(folder.path().join("restores/nightly/restore-nightly-logs.gz").is_file());
    let answer = reqwest::get(served.url("/api/v1/restores/nightly")).await.unwrap();
    assert_eq!(answer.headers()["reprise-sandbox"], "true");
    served.stop().await;
}

// No container runs there, so that nobody waits for one (restore-semantics 5.12 would, without limit).
#[tokio::test(flavor = "multi_thread")]
async fn exec_hooks_fail_at_once_in_the_sandbox_and_say_why() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"containers": [{"name": "main", "image": "i"}]}});
    let (_folder, served) = serve(&config_maps("shop", 2).with(pod)).await;
    let hook = json!({"name": "h", "postHooks": [{"exec": {"command": ["true"]}}]});
    served.create("nightly", json!({"backupName": "nightly", "hooks": {"resources": [hook]}})).await;
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 1));
    let results = served.results("nightly").await;
    let told = format!("{results:?}");
    assert!(
        told.contains("hook h in container main in pod shop/db not executed: the sandbox runs no containers"),
        "{told}"
    );
    served.stop().await;
}
