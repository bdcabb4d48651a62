//! A backup location in an S3 bucket, from its object in the cluster to the requests that leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use reprise::storage::{self, BackupStore, ClientConfig, Error, Inputs};
use reprise::velero::BackupStorageLocationSpec;
use serde_json::json;

use crate::support::s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY};

/// The credentials secret of a cluster with two accounts, of which the second is the server's.
fn credentials(secret: &str) -> String {
    format!(
        "[default]\naws_access_key_id = someone\naws_secret_access_key = else\n\n\
         # the account of the backups\n[backups]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key = {secret}\n"
    )
}

async fn open(server: &S3Server, bucket: &str, prefix: &str, profile: &str, secret: &str) -> Arc<dyn BackupStore> {
    let spec: BackupStorageLocationSpec = serde_json::from_value(json!({
        "provider": "aws",
        "objectStorage": {"bucket": bucket, "prefix": prefix},
        "config": {"region": REGION, "s3Url": server.url(), "s3ForcePathStyle": "true", "profile": profile},
    }))
    .unwrap();
    let text = credentials(secret);
    let inputs = Inputs { credentials: Some(&text), ca_cert: None, env: &BTreeMap::new() };
    let config = ClientConfig::from_location(&spec, inputs).unwrap();
    assert_eq!(config.layout().root(), if prefix.is_empty() { String::new() } else { format!("{prefix}/") });
    storage::open(&config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_does_what_every_store_must_do() {
    let server = S3Server::start(&["backups"]);
    storage::testing::contract(open(&server, "backups", "", "backups", SECRET_KEY).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_the_bucket_s_own_and_a_signed_address_needs_no_credentials() {
    let server = S3Server::start(&["backups"]);
    let store = open(&server, "backups", "cluster-a", "backups", SECRET_KEY).await;
    let key = format!("cluster-a/restores/{0}/restore-{0}-results.gz", "r".repeat(253));
    store.put(&key, Bytes::from_static(b"results")).await.unwrap();
    assert_eq!(server.keys("backups", ""), std::slice::from_ref(&key));
    let address = store.presign_get(&key, std::time::Duration::from_secs(60)).await.unwrap();
    let answer = reqwest::get(&address).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.bytes().await.unwrap()), (200, Bytes::from_static(b"results")));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_denied_and_said_to_be() {
    let server = S3Server::start(&["backups"]);
    server.put("backups", "k", "x");
    for (profile, secret) in [("backups", "wrong"), ("default", SECRET_KEY)] {
        let store = open(&server, "backups", "", profile, secret).await;
        let failures = [
            store.get("k", 10).await.map(|_| ()).unwrap_err(),
            store.stream("k").await.map(|_| ()).unwrap_err(),
            store.put("k", Bytes::from_static(b"y")).await.unwrap_err(),
            store.list("").await.map(|_| ()).unwrap_err(),
            store.exists("k").await.map(|_| ()).unwrap_err(),
        ];
        for error in failures {
            assert!(matches!(error, Error::Denied { .. }), "{error:?}");
            assert!(!error.is_retryable() && error.to_string().contains("credentials"), "{error}");
        }
    }
    assert_eq!(server.get("backups", "k").unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_not_there_is_named() {
    let spec: BackupStorageLocationSpec = serde_json::from_value(json!({
        "provider": "aws", "objectStorage": {"bucket": "b"},
        "config": {"region": REGION, "s3Url": "http://127.0.0.1:1", "profile": "nobody"},
    }))
    .unwrap();
    let text = credentials(SECRET_KEY);
    let inputs = Inputs { credentials: Some(&text), ca_cert: None, env: &BTreeMap::new() };
    let error = ClientConfig::from_location(&spec, inputs).unwrap_err();
    assert!(matches!(&error, Error::Misconfigured(message) if message.contains("nobody")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_no_passing_failure() {
    let server = S3Server::start(&[]);
    let store = open(&server, "missing", "", "backups", SECRET_KEY).await;
    // S3 tells a missing bucket from a missing object only in the body, which a HEAD has not.
    let error = store.get("k", 10).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    let error = store.put("k", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    let error = store.list("").await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_is_a_passing_failure() {
    let server = S3Server::start(&["backups"]);
    let store = open(&server, "backups", "", "backups", SECRET_KEY).await;
    drop(server);
    let started = std::time::Instant::now();
    let error = store.get("k", 10).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?} after {:?}", started.elapsed());
}
