//! The service's own sandbox, as `reprise serve --sandbox` has it.

use std::time::Duration;

use reprise::api::grpc::pb;
use reprise::app::Backend;
use serde_json::json;

use super::served::Served;
use super::world::{World, config_maps};

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_a_folder_are_restored_into_the_sandbox_and_it_says_that_it_is_one() {
    let world = World::sandbox().await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backups/nightly");
    std::fs::create_dir_all(&backup).unwrap();
    std::fs::write(backup.join("nightly.tar.gz"), config_maps("shop", 20).tarball().unwrap()).unwrap();
    let object = json!({
        "apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "nightly", "namespace": "elsewhere"},
        "spec": {"storageLocation": "elsewhere"}, "status": {"phase": "Completed"},
    });
    std::fs::write(backup.join("velero-backup.json"), object.to_string()).unwrap();
    let backend = Backend::Sandbox { store: folder.path().to_owned(), pace: Duration::ZERO };
    let served = Served::start(reprise::app::Options { backend, ..world.options(world.client.clone()) }).await;

    let ended = served.run("nightly").await;
    assert_eq!((ended.phase(), ended.sandbox, ended.warnings), (pb::Phase::Completed, true, 0));
    let (code, list) = served.get("/sandbox/api/v1/namespaces/shop/configmaps").await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 20));
    assert!(folder.path().join("restores/nightly/restore-nightly-logs.gz").is_file());
    let answer = reqwest::get(served.url("/api/v1/restores/nightly")).await.unwrap();
    assert_eq!(answer.headers()["reprise-sandbox"], "true");
    served.stop().await;
}
