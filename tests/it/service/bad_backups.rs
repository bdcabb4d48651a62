//! Backups that are damaged, empty, missing or out of reach.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use reprise::api::grpc::pb;
use reprise::archive::testing::Backup;
use serde_json::{Value, json};

use super::served::Served;
use super::world::{World, config_maps, files_of};

/// A restore of a tarball of these bytes into the sandbox, when it has ended.
async fn restored(tarball: &[u8]) -> (World, Served, pb::Restore) {
    let world = World::sandbox().await;
    world.add_tarball("nightly", tarball).await;
    let served = world.serve().await;
    let ended = served.run("nightly").await;
    (world, served, ended)
}

/// The tarball is damaged as a whole: an error of the restore, filed under `velero`, and nothing restored
/// (restore-semantics 1.7).
async fn damaged(tarball: &[u8], complaint: &str) {
    let (world, served, ended) = restored(tarball).await;
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::PartiallyFailed, 0, 1), "{ended:?}");
    let results = served.results("nightly").await;
    let [error] = &results.errors[..] else { panic!("{results:?}") };
    assert!(error.message.contains(complaint), "{}", error.message);
    assert_eq!((error.reason(), &error.bucket), (pb::Reason::Archive, &Some(pb::finding::Bucket::Velero(true))));
    assert_eq!(world.json("nightly", "results.gz")["errors"], json!({"velero": [error.message]}));
    assert_eq!(world.keys("restores/nightly/"), files_of("nightly"));
    let status = &world.restore("nightly").await["status"];
    assert_eq!((&status["phase"], &status["errors"]), (&json!("PartiallyFailed"), &json!(1)));
    let log = world.text("nightly", "logs.gz");
    assert!(log.contains(complaint), "{log}");
    assert_eq!(world.get("/api/v1/namespaces/shop").await, None, "nothing is restored from half a backup");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_gzip_is_said_to_be_none() {
    damaged(b"this is a text and no backup", "gzip").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_ends_early() {
    damaged(b"", "unexpected EOF: the backup tarball ends early").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_gzip_stream_is_said_to_end_early() {
    let tarball = config_maps("shop", 50).tarball().unwrap();
    damaged(&tarball[..tarball.len() / 2], "unexpected EOF: the backup tarball ends early").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_stream_whose_checksum_is_wrong_is_damaged() {
    let mut tarball = config_maps("shop", 50).tarball().unwrap();
    let checksum = tarball.len() - 6;
    tarball[checksum] ^= 0xff;
    damaged(&tarball, "gzip").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_that_holds_no_tar_is_said_to_hold_none() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&b"neither header nor end ".repeat(100)).unwrap();
    damaged(&gzip.finish().unwrap(), "tar").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_leaves_the_root_spoils_the_backup() {
    for path in ["../../etc/passwd", "resources/../../x"] {
        let backup = config_maps("shop", 5).with_entry(path, b"root");
        damaged(&backup.tarball().unwrap(), path).await;
    }
}

/// restore-semantics 2.2
#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_ignored_and_the_log_says_so() {
    let backup = config_maps("shop", 5).with_link("resources/configmaps/namespaces/shop/link.json");
    let (world, _served, ended) = restored(&backup.tarball().unwrap()).await;
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 0, 0));
    assert_eq!(world.names("/api/v1/namespaces/shop/configmaps").await.len(), 5);
    let log = world.text("nightly", "logs.gz");
    assert!(log.lines().any(|line| line.contains("level=warning") && line.contains("link")), "{log}");
}

/// One broken item beside a good one: it is failed, the other restored.
async fn one_broken(backup: Backup, name: &str, complaint: &str) {
    let (world, served, ended) = restored(&backup.tarball().unwrap()).await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 1), "{ended:?}");
    let failed = served.items("nightly", &[pb::Outcome::Failed]).await;
    let [item] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!((item.name.as_str(), item.reason()), (name, pb::Reason::Archive), "{item:?}");
    assert!(item.message().contains(complaint), "{item:?}");
    let errors = world.json("nightly", "results.gz")["errors"].clone();
    assert!(errors["namespaces"]["shop"][0].as_str().unwrap().contains(complaint), "{errors}");
    assert_eq!(world.names("/api/v1/namespaces/shop/configmaps").await, ["config-000"]);
}

/// restore-semantics 4.6
#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_not_json_fails_alone() {
    let backup = config_maps("shop", 1).with_file("resources/configmaps/namespaces/shop/broken.json", "{\"kind\": ");
    one_broken(backup, "broken", "unexpected end of JSON input").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_no_object_fails_alone() {
    let backup = config_maps("shop", 1).with_file("resources/configmaps/namespaces/shop/list.json", "[1, 2]");
    one_broken(backup, "list", "array").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_without_a_kind_fails_alone() {
    let item = json!({"apiVersion": "v1", "metadata": {"name": "kindless", "namespace": "shop"}}).to_string();
    let backup = config_maps("shop", 1).with_file("resources/configmaps/namespaces/shop/kindless.json", item);
    one_broken(backup, "kindless", "'Kind' is missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_whose_name_disagrees_with_its_path_is_restored_under_the_inner_name() {
    let item = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inner", "namespace": "shop"}});
    let backup = config_maps("shop", 1).with_file("resources/configmaps/namespaces/shop/outer.json", item.to_string());
    let (world, served, ended) = restored(&backup.tarball().unwrap()).await;
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 0, 0));
    assert_eq!(world.names("/api/v1/namespaces/shop/configmaps").await, ["config-000", "inner"]);
    let items = served.items("nightly", &[pb::Outcome::Created]).await;
    assert!(items.iter().any(|item| item.name == "inner"), "{items:?}");
}

/// restore-semantics 2.3
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_items_completes_with_a_warning() {
    for backup in [Backup::new(), Backup::bare()] {
        let (world, served, ended) = restored(&backup.tarball().unwrap()).await;
        assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 1, 0), "{ended:?}");
        let warnings = served.results("nightly").await.warnings;
        assert!(warnings[0].message.contains("zero items to be restored"), "{warnings:?}");
        let status = &world.restore("nightly").await["status"];
        assert_eq!((&status["phase"], &status["warnings"]), (&json!("Completed"), &json!(1)));
    }
}

/// The Restore when it has failed validation, which leaves no files (restore-semantics 1.4).
async fn invalid(world: &World, served: &Served, name: &str) -> Value {
    let ended = served.ended(name).await;
    assert_eq!(ended.phase(), pb::Phase::FailedValidation, "{ended:?}");
    let restore = world.restore(name).await;
    assert_eq!(restore["status"]["phase"], "FailedValidation");
    assert_eq!(restore["status"]["validationErrors"], json!(ended.validation_errors));
    assert!(restore["status"].get("startTimestamp").is_none(), "{restore}");
    assert_eq!(world.keys("restores/"), [""; 0]);
    restore["status"]["validationErrors"].clone()
}

/// restore-semantics 1.4 rule 10
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_not_there_fails_validation() {
    let world = World::sandbox().await;
    let served = world.serve().await;
    served.create("nightly", json!({"backupName": "missing"})).await;
    let errors = invalid(&world, &served, "nightly").await;
    let text = errors[0].as_str().unwrap();
    assert!(text.starts_with("Error retrieving backup:") && text.contains("missing"), "{errors}");
    assert_eq!(errors.as_array().unwrap().len(), 1);
}

/// restore-semantics 1.4 rule 10
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_location_is_not_there_fails_validation() {
    let world = World::sandbox().await;
    world.add_backup_object("nightly", "elsewhere").await;
    let served = world.serve().await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    let errors = invalid(&world, &served, "nightly").await;
    assert!(errors[0].as_str().unwrap().contains("\"elsewhere\" not found"), "{errors}");
}

/// restore-semantics 1.4 rule 11
#[tokio::test(flavor = "multi_thread")]
async fn a_location_that_is_unavailable_fails_validation() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 1)).await;
    let patch = json!({"status": {"phase": "Unavailable"}});
    world.ask(Method::PATCH, &world.velero("backupstoragelocations/default"), Some(&patch)).await.unwrap();
    let served = world.serve().await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    let errors = invalid(&world, &served, "nightly").await;
    assert_eq!(errors, json!(["The BSL default is unavailable, cannot retrieve the backup"]));
}

/// restore-semantics 1.7
#[tokio::test(flavor = "multi_thread")]
async fn a_tarball_that_is_not_there_fails_the_restore() {
    let world = World::sandbox().await;
    world.add_backup_object("nightly", "default").await;
    let served = world.serve().await;
    let ended = served.run("nightly").await;
    assert_eq!(ended.phase(), pb::Phase::Failed, "{ended:?}");
    let reason = ended.failure_reason();
    assert!(reason.starts_with("error downloading backup") && reason.contains("nightly.tar.gz"), "{reason}");
    let status = &world.restore("nightly").await["status"];
    assert_eq!((&status["phase"], status["failureReason"].as_str()), (&json!("Failed"), Some(reason)));
    assert!(status["completionTimestamp"].is_string());
}

/// restore-semantics 1.7
#[tokio::test(flavor = "multi_thread")]
async fn a_location_with_settings_that_cannot_work_fails_the_restore_and_names_them() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 1)).await;
    let patch = json!({"spec": {"provider": "aws", "config": {"regoin": "us-east-1", "path": null}}});
    world.ask(Method::PATCH, &world.velero("backupstoragelocations/default"), Some(&patch)).await.unwrap();
    let served = world.serve().await;
    let ended = served.run("nightly").await;
    assert_eq!(ended.phase(), pb::Phase::Failed, "{ended:?}");
    assert!(ended.failure_reason().contains("regoin") && ended.failure_reason().contains("default"), "{ended:?}");
}

/// restore-semantics 1.7: absence is fine, damage is fatal, and nothing is uploaded.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_side_file_fails_the_restore_and_leaves_no_files() {
    for suffix in ["volumesnapshots.json.gz", "csi-volumesnapshots.json.gz", "volumeinfo.json.gz"] {
        let world = World::sandbox().await;
        world.add_backup("nightly", &config_maps("shop", 2)).await;
        world.put(&format!("backups/nightly/nightly-{suffix}"), b"no gzip");
        let served = world.serve().await;
        let ended = served.run("nightly").await;
        assert_eq!((ended.phase(), ended.errors), (pb::Phase::Failed, 0), "{suffix}: {ended:?}");
        let status = &world.restore("nightly").await["status"];
        assert!(status["failureReason"].as_str().unwrap().contains(suffix), "{status}");
        assert!(status["startTimestamp"].is_string() && status["completionTimestamp"].is_string(), "{status}");
        assert_eq!(world.keys("restores/"), [""; 0]);
        assert_eq!(world.get("/api/v1/namespaces/shop").await, None);
    }
}

/// restore-semantics 9.1: that the log cannot be uploaded is an error in the results, which are uploaded after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_uploaded_is_an_error_in_the_results() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 2)).await;
    // A folder stands where the file is to be.
    world.put("restores/nightly/restore-nightly-logs.gz/in-the-way", b"");
    let served = world.serve().await;
    let ended = served.run("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 1), "{ended:?}");
    let errors = &world.json("nightly", "results.gz")["errors"];
    let [error] = &errors["velero"].as_array().unwrap()[..] else { panic!("{errors}") };
    assert!(error.as_str().unwrap().starts_with("error uploading log file to backup storage: "), "{error}");
    assert_eq!(world.names("/api/v1/namespaces/shop/configmaps").await.len(), 2);
}
