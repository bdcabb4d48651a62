//! A backup location in an S3 bucket, from its object in the cluster to the requests that leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    let env = BTreeMap::new();
    let inputs = Inputs { credentials: Some(&text), ..Inputs::of(&env) };
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
    let env = BTreeMap::new();
    let inputs = Inputs { credentials: Some(&text), ..Inputs::of(&env) };
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

/// A bucket behind TLS, with what a location says about certificates.
async fn open_tls(
    server: &S3Server,
    extra: serde_json::Value,
    ca_cert: Option<&str>,
) -> Result<Arc<dyn BackupStore>, Error> {
    let mut spec = json!({
        "provider": "aws",
        "objectStorage": {"bucket": "backups"},
        "config": {"region": REGION, "s3Url": server.url(), "s3ForcePathStyle": "true", "profile": "backups"},
    });
    for part in ["objectStorage", "config"] {
        spec[part].as_object_mut().unwrap().extend(extra[part].as_object().cloned().unwrap_or_default());
    }
    let spec: BackupStorageLocationSpec = serde_json::from_value(spec).unwrap();
    let (text, env) = (credentials(SECRET_KEY), BTreeMap::new());
    let inputs = Inputs { credentials: Some(&text), ca_cert, ..Inputs::of(&env) };
    storage::open(&ClientConfig::from_location(&spec, inputs)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_trusted_when_the_location_or_its_secret_holds_it() {
    let (server, other) = (S3Server::start_tls(&["backups"]), S3Server::start_tls(&[]));
    let in_location = json!({"objectStorage": {"caCert": STANDARD.encode(server.certificate())}});
    let by_reference = json!({"objectStorage": {"caCertRef": {"name": "ca", "key": "pem"}}});
    let unchecked = json!({"config": {"insecureSkipTLSVerify": "true"}});
    let bundle = format!("{}{}", other.certificate(), server.certificate());
    for (extra, ca_cert) in [
        (in_location, None),
        (by_reference.clone(), Some(server.certificate())),
        (by_reference.clone(), Some(bundle.as_str())),
        (unchecked, None),
    ] {
        let store = open_tls(&server, extra.clone(), ca_cert).await.unwrap();
        store.put("k", Bytes::from_static(b"x")).await.unwrap_or_else(|error| panic!("{extra}: {error:?}"));
        assert_eq!(store.get("k", 10).await.unwrap(), "x");
    }
    let store = open_tls(&server, by_reference, Some(other.certificate())).await.unwrap();
    store.exists("k").await.unwrap_err();
    let both = json!({"objectStorage": {"caCertRef": {"name": "ca", "key": "pem"}, "caCert": "eA=="}});
    let error = open_tls(&server, both, Some(server.certificate())).await.unwrap_err();
    assert!(
        matches!(&error, Error::Misconfigured(message) if message.contains("both caCert and caCertRef")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_location_is_read_and_not_written() {
    let server = S3Server::start(&["backups"]);
    server.put("backups", "k", "x");
    let spec: BackupStorageLocationSpec = serde_json::from_value(json!({
        "provider": "velero.io/aws", "accessMode": "ReadOnly", "objectStorage": {"bucket": "backups"},
        "config": {"region": REGION, "s3Url": server.url(), "s3ForcePathStyle": "true", "profile": "backups"},
    }))
    .unwrap();
    let (text, env) = (credentials(SECRET_KEY), BTreeMap::new());
    let inputs = Inputs { credentials: Some(&text), ..Inputs::of(&env) };
    let store = storage::open(&ClientConfig::from_location(&spec, inputs).unwrap()).await.unwrap();
    assert_eq!(store.get("k", 10).await.unwrap(), "x");
    assert!(matches!(store.put("k", Bytes::from_static(b"y")).await, Err(Error::ReadOnly { .. })));
    assert!(matches!(store.delete_prefix("k").await, Err(Error::ReadOnly { .. })));
    assert_eq!(server.get("backups", "k").unwrap(), "x");
}
