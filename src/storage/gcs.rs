//! Google Cloud Storage: the settings of Velero's GCP plugin (plugin-protocol 10.3) and what becomes of them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use object_store::client::{ReqwestConnector, StaticCredentialProvider};
use object_store::gcp::{GcpSigningCredential, GoogleCloudStorageBuilder};
use object_store::{ClientOptions, Result as StoreResult};
use serde_json::Value;

use super::client::{self, Peers};
use super::credentials::Hidden;
use super::location::{Inputs, check_keys, misconfigured};
use super::{Error, ObjectBackupStore, Options};

/// Every key that the plugin has.
const KEYS: [&str; 5] = ["credentialsFile", "serviceAccount", "kmsKeyName", "storeEndpoint", "universeDomain"];

/// The header that names the key which encrypts an object (XML API).
const KMS_HEADER: HeaderName = HeaderName::from_static("x-goog-encryption-kms-key-name");

/// How a bucket of Google Cloud Storage is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsConfig {
    /// The bucket.
    pub bucket: String,
    /// Address of the store, without the bucket; absent for Google's own.
    pub endpoint: Option<String>,
    /// Certificates to trust besides the system's, PEM.
    pub ca_cert: Option<String>,
    /// How requests are authenticated.
    pub credentials: GcsCredentials,
    /// Resource name of the key that encrypts what is written; absent for the bucket's own.
    pub kms_key_name: Option<String>,
}

/// How requests are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GcsCredentials {
    /// The key of a service account; it signs addresses too.
    ServiceAccount {
        /// The account.
        email: String,
        /// The JSON file with its private key.
        key: Hidden,
    },
    /// The login of a user, as `gcloud auth application-default login` leaves it.
    AuthorizedUser(Hidden),
    /// The metadata server of the machine, which GKE's workload identity answers for.
    Metadata {
        /// The account that signs addresses; absent for the one that the server names.
        service_account: Option<String>,
    },
}

impl GcsConfig {
    /// What `config` says of the store that holds `bucket`.
    pub(super) fn from_map(
        bucket: &str,
        config: &BTreeMap<String, String>,
        ca_cert: Option<String>,
        inputs: Inputs<'_>,
    ) -> Result<Self, Error> {
        check_keys(config, &KEYS)?;
        if bucket.is_empty() {
            return Err(misconfigured("objectStorage.bucket is empty"));
        }
        let value = |key: &str| config.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let endpoint = match (value("storeEndpoint"), value("universeDomain")) {
            (Some(url), _) => Some(endpoint(url)?),
            (None, Some("googleapis.com") | None) => None,
            (None, Some(domain)) => Some(client::endpoint("universeDomain", &format!("https://storage.{domain}"))?),
        };
        let kms_key_name = value("kmsKeyName").map(str::to_owned);
        if kms_key_name.as_deref().is_some_and(|name| HeaderValue::from_str(name).is_err()) {
            return Err(misconfigured("kmsKeyName is no resource name of a key: projects/…/cryptoKeys/…"));
        }
        let credentials = match inputs.credentials {
            Some(text) => credentials(text)?,
            None => GcsCredentials::Metadata { service_account: value("serviceAccount").map(str::to_owned) },
        };
        Ok(Self { bucket: bucket.to_owned(), endpoint, ca_cert, credentials, kms_key_name })
    }
}

/// The address of the XML API, where the plugin wants that of the JSON API, which has a path.
fn endpoint(url: &str) -> Result<String, Error> {
    let url = client::endpoint("storeEndpoint", url)?;
    Ok(url.strip_suffix("/storage/v1").unwrap_or(&url).to_owned())
}

/// What kind of credentials a JSON file holds. No error quotes it.
fn credentials(text: &str) -> Result<GcsCredentials, Error> {
    let json: Value = serde_json::from_str(text).map_err(|_| {
        misconfigured("the credentials are not JSON; provider gcp needs the key file of a service account")
    })?;
    let field = |name: &str| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = match field("type") {
        None if field("private_key").is_some() => "service_account",
        kind => kind.unwrap_or_default(),
    };
    match kind {
        "service_account" => {
            for name in ["client_email", "private_key", "private_key_id"] {
                if field(name).is_none() {
                    return Err(Error::Misconfigured(format!(
                        "the key file of the service account has no {name}; make a new one"
                    )));
                }
            }
            let email = field("client_email").unwrap_or_default().to_owned();
            Ok(GcsCredentials::ServiceAccount { email, key: Hidden(text.to_owned()) })
        }
        "authorized_user" => Ok(GcsCredentials::AuthorizedUser(Hidden(text.to_owned()))),
        "external_account" | "impersonated_service_account" | "gdch_service_account" => {
            Err(Error::Misconfigured(format!(
                "credentials of type {kind} are not supported; what works is the key file of a service account, or the \
                 workload identity of GKE without a credentials file"
            )))
        }
        // The text of an unknown type might be anything, also part of a secret.
        _ => Err(misconfigured(
            "the credentials have no type that is known; what works is the key file of a service account",
        )),
    }
}

/// The client of a bucket.
pub(super) fn open(config: &GcsConfig) -> Result<ObjectBackupStore, Error> {
    let unusable = |error: object_store::Error| Error::Unusable { key: config.bucket.clone(), source: error.into() };
    let options = client::options(&Peers {
        endpoints: [config.endpoint.as_deref(), None],
        ca_cert: config.ca_cert.as_deref(),
        insecure_skip_tls_verify: false,
    })?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&config.bucket)
        .with_client_options(options)
        .with_retry(client::retry());
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(name) = &config.kms_key_name {
        let name = HeaderValue::from_str(name)
            .map_err(|error| Error::Unusable { key: "kmsKeyName".to_owned(), source: error.into() })?;
        builder = builder.with_http_connector(KmsConnector(name));
    }
    // Lives until the client is built, which is when it is read: the client takes such credentials from files alone.
    let mut file = None;
    match &config.credentials {
        GcsCredentials::ServiceAccount { key, .. } => builder = builder.with_service_account_key(&key.0),
        GcsCredentials::AuthorizedUser(json) => {
            let io = |error: std::io::Error| Error::Unusable { key: "credentials".to_owned(), source: error.into() };
            let mut written = tempfile::NamedTempFile::new().map_err(io)?;
            written.write_all(json.0.as_bytes()).map_err(io)?;
            builder = builder.with_application_credentials(written.path().to_string_lossy());
            file = Some(written);
        }
        GcsCredentials::Metadata { service_account: None } => {}
        GcsCredentials::Metadata { service_account: Some(email) } => {
            let signing = GcpSigningCredential { email: email.clone(), private_key: None };
            builder = builder.with_signing_credentials(Arc::new(StaticCredentialProvider::new(signing)));
        }
    }
    let store = Arc::new(builder.build().map_err(unusable)?);
    drop(file);
    Ok(ObjectBackupStore::new(store.clone(), Options::default()).with_signer(store))
}

/// Connects as usual, and names the key with each object that is written: the client has no setting for that.
#[derive(Debug)]
struct KmsConnector(HeaderValue);

impl HttpConnector for KmsConnector {
    fn connect(&self, options: &ClientOptions) -> StoreResult<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(KmsService { inner, key: self.0.clone() }))
    }
}

#[derive(Debug)]
struct KmsService {
    inner: HttpClient,
    key: HeaderValue,
}

#[async_trait]
impl HttpService for KmsService {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if *request.method() == Method::PUT {
            request.headers_mut().insert(KMS_HEADER, self.key.clone());
        }
        self.inner.execute(request).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;
    use crate::storage::BackupStore;

    const KEY: &str = r#"{"type": "service_account", "client_email": "velero@p.iam", "private_key_id": "1",
        "private_key": "hush", "disable_oauth": true}"#;

    fn read(bucket: &str, config: &[(&str, &str)], credentials: Option<&str>) -> Result<GcsConfig, Error> {
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let env = BTreeMap::new();
        GcsConfig::from_map(bucket, &config, None, Inputs { credentials, ..Inputs::of(&env) })
    }

    fn service_account() -> GcsCredentials {
        GcsCredentials::ServiceAccount { email: "velero@p.iam".into(), key: Hidden(KEY.into()) }
    }

    fn metadata(service_account: Option<&str>) -> GcsCredentials {
        GcsCredentials::Metadata { service_account: service_account.map(str::to_owned) }
    }

    // plugin-protocol 10.3
    #[test]
    fn every_setting_of_the_plugin_is_understood() {
        let plain = GcsConfig {
            bucket: "b".into(),
            endpoint: None,
            ca_cert: None,
            credentials: service_account(),
            kms_key_name: None,
        };
        let endpoint = |url: &str| GcsConfig { endpoint: Some(url.into()), ..plain.clone() };
        let user = r#"{"type": "authorized_user", "client_id": "i", "client_secret": "hush", "refresh_token": "r"}"#;
        let kms = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
        for (config, credentials, expected) in [
            (&[][..], Some(KEY), plain.clone()),
            (&[("credentialsFile", "/elsewhere")], Some(KEY), plain.clone()),
            // With a key of its own the account signs by itself.
            (&[("serviceAccount", "other@p.iam")], Some(KEY), plain.clone()),
            (&[("kmsKeyName", kms)], Some(KEY), GcsConfig { kms_key_name: Some(kms.into()), ..plain.clone() }),
            (&[("kmsKeyName", "")], Some(KEY), plain.clone()),
            (
                &[("storeEndpoint", "https://gcs.example.com/storage/v1/")],
                Some(KEY),
                endpoint("https://gcs.example.com"),
            ),
            (&[("storeEndpoint", "http://127.0.0.1:4443")], Some(KEY), endpoint("http://127.0.0.1:4443")),
            (&[("universeDomain", "example.goog")], Some(KEY), endpoint("https://storage.example.goog")),
            (&[("universeDomain", "googleapis.com")], Some(KEY), plain.clone()),
            (
                &[("storeEndpoint", "https://a.example"), ("universeDomain", "example.goog")],
                Some(KEY),
                endpoint("https://a.example"),
            ),
            (&[], None, GcsConfig { credentials: metadata(None), ..plain.clone() }),
            (
                &[("serviceAccount", "velero@p.iam")],
                None,
                GcsConfig { credentials: metadata(Some("velero@p.iam")), ..plain.clone() },
            ),
            (
                &[],
                Some(user),
                GcsConfig { credentials: GcsCredentials::AuthorizedUser(Hidden(user.into())), ..plain.clone() },
            ),
        ] {
            assert_eq!(read("b", config, credentials).unwrap(), expected, "{config:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_way_out() {
        let external = r#"{"type": "external_account", "audience": "hush"}"#;
        let no_key = r#"{"type": "service_account", "client_email": "hush", "private_key_id": "1"}"#;
        for (bucket, config, credentials, message) in [
            ("", &[][..], Some(KEY), "objectStorage.bucket is empty"),
            (
                "b",
                &[("region", "r")],
                Some(KEY),
                "config has invalid keys [region]; valid keys are [bucket caCert credentialsFile kmsKeyName prefix \
                 serviceAccount storeEndpoint universeDomain]",
            ),
            (
                "b",
                &[("storeEndpoint", "gs://b")],
                Some(KEY),
                "storeEndpoint \"gs://b\" is no address that begins with http:// or https://",
            ),
            (
                "b",
                &[("kmsKeyName", "a\nb")],
                Some(KEY),
                "kmsKeyName is no resource name of a key: projects/…/cryptoKeys/…",
            ),
            (
                "b",
                &[],
                Some("hush"),
                "the credentials are not JSON; provider gcp needs the key file of a service account",
            ),
            (
                "b",
                &[],
                Some(external),
                "credentials of type external_account are not supported; what works is the key file of a service \
                 account, or the workload identity of GKE without a credentials file",
            ),
            ("b", &[], Some(no_key), "the key file of the service account has no private_key; make a new one"),
            (
                "b",
                &[],
                Some(r#"{"type": "hush"}"#),
                "the credentials have no type that is known; what works is the key file of a service account",
            ),
        ] {
            assert_eq!(read(bucket, config, credentials).unwrap_err().to_string(), message);
        }
    }

    #[tokio::test]
    async fn every_kind_of_credentials_can_be_opened_and_a_broken_key_does_not_show() {
        let user = r#"{"type": "authorized_user", "client_id": "i", "client_secret": "hush", "refresh_token": "r"}"#;
        for credentials in [Some(KEY), Some(user), None] {
            let store = open(&read("b", &[], credentials).unwrap()).unwrap();
            assert!(!format!("{store:?}").contains("hush"));
        }
        let broken = KEY.replace(r#", "disable_oauth": true"#, "");
        let error = open(&read("b", &[], Some(&broken)).unwrap()).unwrap_err();
        assert!(matches!(error, Error::Unusable { .. }), "{error}");
        assert!(!crate::model::error_chain(&error).contains("hush"));
    }

    /// A store that takes everything; gives the head of each request.
    async fn listener() -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, received) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = vec![0; 16 << 10];
                let length = connection.read(&mut request).await.unwrap_or_default();
                let _ = heads.send(String::from_utf8_lossy(&request[..length]).to_ascii_lowercase());
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\netag: \"e\"\r\nx-goog-generation: 1\r\n\
                    last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n";
                let _ = connection.write_all(head.as_bytes()).await;
            }
        });
        (format!("http://{address}"), received)
    }

    #[tokio::test]
    async fn the_key_of_the_key_service_is_named_with_what_is_written_alone() {
        let (url, mut heads) = listener().await;
        let config = [("storeEndpoint", url.as_str()), ("kmsKeyName", "projects/p/cryptoKeys/k")];
        let store = open(&read("bucket", &config, Some(KEY)).unwrap()).unwrap();
        store.put("restores/r/f", Bytes::from_static(b"x")).await.unwrap();
        store.get("restores/r/f", 10).await.unwrap();
        let (put, get) = (heads.recv().await.unwrap(), heads.recv().await.unwrap());
        assert!(put.starts_with("put /bucket/restores"), "{put}");
        assert!(put.contains("x-goog-encryption-kms-key-name: projects/p/cryptokeys/k"), "{put}");
        assert!(get.starts_with("get /bucket/restores") && !get.contains("kms-key"), "{get}");
    }
}
