//! The test set-up itself: what every other integration test stands on.

use std::time::Duration;

use futures::TryStreamExt;
use http::{Method, Request};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::signer::Signer;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::{Value, json};

use crate::support::control_plane::{Options, User};
use crate::support::s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY};
use crate::support::{self, ControlPlane, process};

async fn get(client: &kube::Client, path: &str) -> kube::Result<Value> {
    client.request(Request::get(path).body(vec![]).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_serves_kubernetes_and_veleros_crds() {
    let Some(cluster) = support::cluster().await else { return };
    let client = cluster.client().await;

    let version = client.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
    assert!(version.git_version.starts_with("v1.36."), "{}", version.git_version);

    let served = support::control_plane::listable(&client).await;
    let served: Vec<String> = served.iter().map(|l| format!("{} {}", l.api_version(), l.kind)).collect();
    for kind in [
        "v1 Pod",
        "apps/v1 Deployment",
        "velero.io/v1 Backup",
        "velero.io/v1 BackupStorageLocation",
        "velero.io/v1 DownloadRequest",
        "velero.io/v1 Restore",
        "velero.io/v2alpha1 DataDownload",
        "velero.io/v2alpha1 DataUpload",
    ] {
        assert!(served.iter().any(|s| s == kind), "{kind} is not served, but {served:?}");
    }
    assert_eq!(get(&client, "/api/v1/namespaces/velero").await.unwrap()["metadata"]["name"], "velero");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_a_tests_own_can_be_worked_in_and_shown() {
    let Some(cluster) = support::cluster().await else { return };
    let client = cluster.client().await;
    let namespace = support::namespace(&client, "testbed").await;
    let body = json!({"metadata": {"name": "hello"}, "data": {"greeting": "there"}});
    let request = Request::post(format!("/api/v1/namespaces/{namespace}/configmaps"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&body).unwrap())
        .unwrap();
    client.request::<Value>(request).await.unwrap();
    let shown = support::namespace::dump(&client, namespace.name()).await;
    assert!(shown.contains("configmaps/hello") && shown.contains("there"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_of_a_tests_own_has_its_users_audit_log_and_controllers_and_ends_when_dropped() {
    if !support::cluster_tests_enabled() {
        return;
    }
    let reader = User { token: "reader-token".into(), name: "reader".into(), groups: vec!["readers".into()] };
    let options = Options {
        users: vec![reader],
        audit: true,
        controller_manager: true,
        velero_crds: false,
        ..Options::default()
    };
    let cluster = tokio::task::spawn_blocking(|| ControlPlane::start(options)).await.unwrap().unwrap();

    let reader = cluster.token_client("reader-token").await;
    match get(&reader, "/api/v1/secrets").await.unwrap_err() {
        kube::Error::Api(status) => {
            assert_eq!(status.code, 403);
            assert!(status.message.contains("\"reader\""), "{}", status.message);
        }
        other => panic!("{other}"),
    }

    let client = cluster.client().await;
    let namespace = support::namespace(&client, "moving").await;
    // Only a controller-manager makes this.
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    let mut made = false;
    for _ in 0..300 {
        made = get(&client, &path).await.is_ok();
        if made {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(made, "{}", cluster.log_tails(30));

    let audit = std::fs::read_to_string(cluster.audit_log()).unwrap();
    assert!(audit.contains(namespace.name()));
    drop(namespace);

    let (url, folder) = (cluster.url().to_string(), cluster.folder().to_path_buf());
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();
    let address = url.strip_prefix("https://").unwrap().to_string();
    assert!(std::net::TcpStream::connect(address).is_err(), "the API server still answers");
    for _ in 0..100 {
        if !folder.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} is still there", folder.display());
}

/// A shell that says its process id and goes on until it is ended, with this reaction to SIGTERM.
fn endless(on_term: &str) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("trap '{on_term}' TERM; echo pid $$; while :; do sleep 0.05; done")]);
    command
}

fn pid_in(log: &std::path::Path) -> String {
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if let Some(pid) = text.lines().find_map(|l| l.strip_prefix("pid ")) {
            break pid.to_string();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn alive(pid: &str) -> bool {
    std::process::Command::new("kill").args(["-0", pid]).stderr(std::process::Stdio::null()).status().unwrap().success()
}

fn ends(pid: &str) -> bool {
    (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        !alive(pid)
    })
}

#[test]
fn a_child_process_ends_when_it_is_told_to_and_when_its_keeper_loses_its_parent() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let command = endless("echo bye; exit 3");

    let mut told = process::Process::start("told", &command, &log).unwrap();
    pid_in(&log);
    let status = told.terminate(Duration::from_secs(10)).unwrap();
    assert_eq!(status.code(), Some(3));
    assert!(std::fs::read_to_string(&log).unwrap().contains("bye"));

    let lost = process::Process::start("lost", &command, &log).unwrap();
    let child = pid_in(&log);
    drop(lost);
    assert!(ends(&child), "process {child} is still there");
}

#[test]
fn a_child_process_that_ignores_a_signal_to_its_group_still_ends_with_its_parent() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let stubborn = process::Process::start("stubborn", &endless(""), &log).unwrap();
    let child = pid_in(&log);
    let group = format!("-{}", stubborn.group());
    assert!(std::process::Command::new("kill").args(["-TERM", "--", &group]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    assert!(alive(&child), "it ignores SIGTERM, so this test would prove nothing");
    drop(stubborn);
    assert!(ends(&child), "process {child} is still there");
}

fn s3_client(server: &S3Server, bucket: &str, secret: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(server.url())
        .with_allow_http(true)
        .with_region(REGION)
        .with_bucket_name(bucket)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(secret)
        .with_virtual_hosted_style_request(false)
        .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() })
        .build()
        .unwrap()
}

#[tokio::test]
async fn the_s3_server_keeps_gives_lists_and_deletes_objects() {
    let server = S3Server::start(&["velero"]);
    let store = s3_client(&server, "velero", SECRET_KEY);

    // As a restore with a name of 253 characters makes it; a server with a file per object could not keep it.
    let long = Key::from(format!("restores/{}/results.gz", "r".repeat(300 - "restores//results.gz".len())));
    assert_eq!(long.as_ref().len(), 300);
    store.put(&long, PutPayload::from_static(b"0123456789")).await.unwrap();
    assert_eq!(store.get(&long).await.unwrap().bytes().await.unwrap().as_ref(), b"0123456789");
    assert_eq!(store.get_range(&long, 2..5).await.unwrap().as_ref(), b"234");
    assert_eq!(store.head(&long).await.unwrap().size, 10);
    assert_eq!(server.get("velero", long.as_ref()).unwrap().as_ref(), b"0123456789");

    for n in 0..1005 {
        server.put("velero", &format!("many/{n:04}/a"), "x");
        server.put("velero", &format!("many/{n:04}/b"), "y");
    }
    let all: Vec<_> = store.list(Some(&Key::from("many"))).try_collect().await.unwrap();
    assert_eq!(all.len(), 2010, "three pages");
    let folders = store.list_with_delimiter(Some(&Key::from("many"))).await.unwrap();
    assert_eq!((folders.objects.len(), folders.common_prefixes.len()), (0, 1005), "two pages");

    store.delete(&long).await.unwrap();
    assert!(matches!(store.get(&long).await, Err(object_store::Error::NotFound { .. })));
    let gone = s3_client(&server, "nowhere", SECRET_KEY);
    assert!(gone.get(&long).await.is_err());
}

#[tokio::test]
async fn the_s3_server_takes_uploads_in_parts_and_bulk_deletes() {
    use tokio::io::AsyncWriteExt;

    let server = S3Server::start(&["velero"]);
    let store = std::sync::Arc::new(s3_client(&server, "velero", SECRET_KEY));
    let key = Key::from("backups/big/big.tar.gz");
    let body: Vec<u8> = (0..12_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut writer = object_store::buffered::BufWriter::with_capacity(store.clone(), key.clone(), 5 * 1024 * 1024);
    writer.write_all(&body).await.unwrap();
    writer.shutdown().await.unwrap();
    assert!(server.get("velero", key.as_ref()).unwrap().as_ref() == body.as_slice());

    server.put("velero", "backups/big/other", "x");
    let keys = futures::stream::iter(vec![Ok(key), Ok(Key::from("backups/big/other"))]);
    let deleted: Vec<_> = store.delete_stream(Box::pin(keys)).try_collect().await.unwrap();
    assert_eq!(deleted.len(), 2);
    assert!(server.keys("velero", "").is_empty());
}

#[tokio::test]
async fn the_s3_server_checks_signatures_also_of_presigned_addresses() {
    let server = S3Server::start(&[]);
    server.put_folder(&support::tests_dir().join("data/b50"), "velero", "backups/b50");
    assert_eq!(server.keys("velero", "backups/b50/").len(), 9);
    let key = Key::from("backups/b50/velero-backup.json");

    assert!(s3_client(&server, "velero", "wrong").get(&key).await.is_err());

    let store = s3_client(&server, "velero", SECRET_KEY);
    let url = store.signed_url(Method::GET, &key, Duration::from_secs(60)).await.unwrap();
    let body: Value = reqwest::get(url.as_str()).await.unwrap().error_for_status().unwrap().json().await.unwrap();
    assert_eq!(body["kind"], "Backup");

    let tampered = url.as_str().replace("velero-backup.json", "b50.tar.gz");
    assert_eq!(reqwest::get(tampered).await.unwrap().status(), 403);
    let unsigned = reqwest::get(format!("{}/velero/{key}", server.url())).await.unwrap();
    assert_eq!(unsigned.status(), 403);
}
