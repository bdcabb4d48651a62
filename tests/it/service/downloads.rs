//! DownloadRequests are answered with addresses that work (restore-semantics 9.4).

use std::io::Read as _;

use flate2::read::GzDecoder;
use http::Method;
use reprise::app::Options;
use serde_json::{Value, json};

use super::served::{Served, until};
use super::world::{World, config_maps};
use crate::support::random_suffix;

/// A service that answers DownloadRequests.
async fn serve(world: &World) -> Served {
    Served::start(Options { download_requests: true, ..world.options(world.client.clone()) }).await
}

fn request(name: &str, kind: &str, target: &str) -> Value {
    json!({
        "apiVersion": "velero.io/v1", "kind": "DownloadRequest", "metadata": {"name": name},
        "spec": {"target": {"kind": kind, "name": target}},
    })
}

/// Asks for a file as Velero's clients do, and gives the status once there is anything in it.
async fn ask(world: &World, name: &str, kind: &str, target: &str) -> Value {
    world.create(&world.velero("downloadrequests"), &request(name, kind, target)).await;
    told(world, name, "/status/expiration").await
}

/// The status of a request once this member of it is there.
async fn told(world: &World, name: &str, pointer: &str) -> Value {
    let path = world.velero(&format!("downloadrequests/{name}"));
    let what = format!("{name} has {pointer}");
    let request =
        until(&what, async || world.get(&path).await.filter(|request| request.pointer(pointer).is_some())).await;
    request["status"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_restore_can_be_fetched_at_the_signed_addresses() {
    let Some(world) = World::cluster("downloads").await else { return };
    let namespace = format!("shop-{}", random_suffix());
    world.add_backup("nightly", &config_maps(&namespace, 3)).await;
    let served = serve(&world).await;
    served.run("nightly").await;

    for (kind, file) in [
        ("RestoreLog", "restores/nightly/restore-nightly-logs.gz"),
        ("RestoreResults", "restores/nightly/restore-nightly-results.gz"),
        ("RestoreResourceList", "restores/nightly/restore-nightly-resource-list.json.gz"),
        ("RestoreItemOperations", "restores/nightly/restore-nightly-itemoperations.json.gz"),
        ("RestoreVolumeInfo", "restores/nightly/nightly-volumeinfo.json.gz"),
        ("BackupContents", "backups/nightly/nightly.tar.gz"),
    ] {
        let name = format!("nightly-{}", kind.to_lowercase());
        let before = jiff::Timestamp::now();
        let status = ask(&world, &name, kind, "nightly").await;
        assert_eq!(status["phase"], "Processed", "{kind}: {status}");
        let expiration: jiff::Timestamp = status["expiration"].as_str().unwrap().parse().unwrap();
        let minutes = expiration.duration_since(before).as_secs_f64() / 60.0;
        assert!((9.9..=12.0).contains(&minutes), "{kind}: {minutes} minutes");
        let url = status["downloadURL"].as_str().unwrap();
        assert!(url.contains(file) && url.contains("X-Amz-Expires=600"), "{kind}: {url}");
        let body = reqwest::get(url).await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
        let mut text = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut text).unwrap();
        if kind == "RestoreResourceList" {
            let list: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(list["v1/ConfigMap"].as_array().map(Vec::len), Some(3), "{list}");
        }
    }
    // The address is made without looking whether there is such a file.
    let status = ask(&world, "absent", "BackupLog", "nightly").await;
    assert_eq!(reqwest::get(status["downloadURL"].as_str().unwrap()).await.unwrap().status(), 404);
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_stays_unprocessed_with_an_expiration_on_the_real_api_server() {
    let Some(world) = World::cluster("downloads-missing").await else { return };
    what_is_not_there_stays_unprocessed(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_stays_unprocessed_with_an_expiration_in_the_sandbox() {
    what_is_not_there_stays_unprocessed(&World::sandbox().await).await;
}

async fn what_is_not_there_stays_unprocessed(world: &World) {
    world.add_backup_object("elsewhere", "no-such-location").await;
    let path = world.velero("restores");
    for (name, backup) in [("orphan", "gone"), ("lost", "elsewhere")] {
        let restore = json!({
            "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": name},
            "spec": {"backupName": backup}, "status": {"phase": "Completed"},
        });
        world.create(&path, &restore).await;
    }
    let _served = serve(world).await;
    for (name, kind, target) in [
        ("no-restore", "RestoreLog", "no-such"),
        ("no-backup", "BackupLog", "no-such"),
        ("no-backup-of-restore", "RestoreResults", "orphan"),
        ("no-location", "RestoreLog", "lost"),
        ("no-name", "BackupLog", "../../../namespaces/kube-system"),
    ] {
        let status = ask(world, name, kind, target).await;
        assert_eq!((status.get("phase"), status.get("downloadURL")), (None, None), "{name}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_signs_nothing_and_what_is_expired_goes() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 1)).await;
    let path = world.velero("downloadrequests");
    for (name, status) in [
        ("over", json!({"phase": "Processed", "downloadURL": "x", "expiration": "2020-01-01T00:00:00Z"})),
        ("over-unprocessed", json!({"expiration": "2020-01-01T00:00:00Z"})),
        ("in-use", json!({"phase": "Processed", "downloadURL": "x", "expiration": "2999-01-01T00:00:00Z"})),
    ] {
        let mut request = request(name, "BackupLog", "nightly");
        request["status"] = status;
        world.create(&path, &request).await;
    }
    let _served = serve(&world).await;
    let status = ask(&world, "folder", "BackupContents", "nightly").await;
    assert_eq!((status.get("phase"), status.get("downloadURL")), (None, None), "{status}");
    until("only those that are not expired are left", async || {
        (world.names(&path).await == ["folder", "in-use"]).then_some(())
    })
    .await;
    let kept = world.get(&world.velero("downloadrequests/in-use")).await.unwrap();
    assert_eq!(kept["status"]["downloadURL"], "x", "one that was answered is not answered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_came_too_early_is_answered_when_its_backup_is_there() {
    let Some(world) = World::cluster("downloads-early").await else { return };
    let _served = serve(&world).await;
    assert_eq!(ask(&world, "early", "BackupContents", "nightly").await.get("phase"), None);
    world.add_backup("nightly", &config_maps("shop", 1)).await;
    // It is looked at each minute, and when somebody touches it.
    let path = world.velero("downloadrequests/early");
    world.ask(Method::PATCH, &path, Some(&json!({"metadata": {"labels": {"touched": "yes"}}}))).await.unwrap();
    let status = told(&world, "early", "/status/downloadURL").await;
    assert_eq!(status["phase"], "Processed");
    let url = status["downloadURL"].as_str().unwrap();
    assert_eq!(reqwest::get(url).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_flag_requests_are_left_to_veleros_own_server() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 1)).await;
    let served = world.serve().await;
    world.create(&world.velero("downloadrequests"), &request("theirs", "BackupLog", "nightly")).await;
    served.run("nightly").await;
    let request = world.get(&world.velero("downloadrequests/theirs")).await.unwrap();
    assert_eq!(request.get("status"), None, "{request}");
}
