//! A location that is read-only: nothing is written to it, and those who ask for files are told why there are none
//! (restore-semantics 1.3 and 9.1, and docs/velero-differences.md).

use http::Method;
use serde_json::{Value, json};

use super::served::until;
use super::world::{World, config_maps};

async fn make_read_only(world: &World) {
    let location = world.velero("backupstoragelocations/default");
    world.ask(Method::PATCH, &location, Some(&json!({"spec": {"accessMode": "ReadOnly"}}))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_from_it_leaves_no_files_and_says_so() {
    let world = World::sandbox().await;
    make_read_only(&world).await;
    world.add_backup("nightly", &config_maps("shop", 3)).await;
    let keys = world.keys("");
    let served = world.serve().await;
    served.run("nightly").await;
    let (_, view) = served.get("/api/v1/restores/nightly").await;
    assert_eq!(view["phase"], "Completed", "{view}");
    assert_eq!(world.keys(""), keys, "nothing is written");

    // As long as the service runs it knows all the same.
    let log = reqwest::get(served.url("/api/v1/restores/nightly/logs")).await.unwrap().text().await.unwrap();
    assert!(log.contains("backup storage location \\\"default\\\" is read-only"), "{log}");
    assert_eq!(served.get("/api/v1/restores/nightly/results").await.0, 200);
    served.stop().await;

    let served = world.serve().await;
    until("it is known", async || (served.get("/api/v1/restores/nightly").await.0 == 200).then_some(())).await;
    for path in ["results", "items", "logs"] {
        let (code, problem) = served.get(&format!("/api/v1/restores/nightly/{path}")).await;
        let text = problem.to_string();
        assert!(
            code >= 400 && text.contains("is read-only") && text.contains("spec.accessMode"),
            "{path}: {code} {text}"
        );
    }

    // Files of before stay, and the Restore goes all the same.
    world.put("restores/nightly/restore-nightly-results.gz", b"of before");
    let path = world.velero("restores/nightly");
    world.ask(Method::DELETE, &path, None).await.unwrap();
    until("the object is gone", async || world.get(&path).await.is_none().then_some(())).await;
    assert_eq!(world.keys("restores/"), ["restores/nightly/restore-nightly-results.gz"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_finalizing_keeps_the_counts_that_no_file_tells() {
    let world = World::sandbox().await;
    make_read_only(&world).await;
    world.add_backup("nightly", &config_maps("shop", 1)).await;
    let restore = json!({
        "apiVersion": "velero.io/v1", "kind": "Restore",
        "metadata": {"name": "nightly", "finalizers": ["restores.velero.io/external-resources-finalizer"]},
        "spec": {"backupName": "nightly"},
        "status": {"phase": "FinalizingPartiallyFailed", "warnings": 2, "errors": 3},
    });
    world.create(&world.velero("restores"), &restore).await;
    let served = world.serve().await;
    let status: Value = until("it has ended", async || {
        let status = world.restore("nightly").await["status"].clone();
        status.get("completionTimestamp").is_some().then_some(status)
    })
    .await;
    assert_eq!((&status["phase"], &status["errors"]), (&json!("PartiallyFailed"), &json!(3)), "{status}");
    assert!(status["warnings"].as_u64() >= Some(2), "{status}");
    assert_eq!(world.keys("restores/"), [""; 0]);
    served.stop().await;
}
