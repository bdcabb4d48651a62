//! From a BackupStorageLocation to a client (restore-semantics 1.3, plugin-protocol 10): first to data, which is what
//! the tests look at, and from there to something that connects.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::azure::{self, AzureConfig};
use super::gcs::{self, GcsConfig};
use super::s3::{self, S3Config};
use super::{BackupStore, Error, Layout, ObjectBackupStore, ReadOnlyStore};
use crate::velero::{BackupStorageLocationSpec, ObjectStorageLocation};

/// What a location refers to and does not contain. Nothing is read here: the caller brings it.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Content of the first of [`super::credentials::sources`] that is there.
    pub credentials: Option<&'a str>,
    /// Value that `objectStorage.caCertRef` refers to.
    pub ca_cert: Option<&'a str>,
    /// Value that [`super::s3::customer_key_secret`] refers to.
    pub customer_key: Option<&'a [u8]>,
    /// The environment.
    pub env: &'a BTreeMap<String, String>,
}

impl<'a> Inputs<'a> {
    /// The environment, and nothing that a location refers to.
    #[must_use]
    pub const fn of(env: &'a BTreeMap<String, String>) -> Self {
        Self { credentials: None, ca_cert: None, customer_key: None, env }
    }
}

impl fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credentials lie in the environment as well as in files.
        f.debug_struct("Inputs")
            .field("credentials", &self.credentials.is_some())
            .field("ca_cert", &self.ca_cert.is_some())
            .field("customer_key", &self.customer_key.is_some())
            .finish_non_exhaustive()
    }
}

/// Everything that is needed to open a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Folder within the bucket, without slashes around it.
    pub prefix: String,
    /// Whether nothing is written and nothing removed.
    pub read_only: bool,
    /// The bucket, and how it is reached.
    pub backend: Backend,
}

/// A kind of store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// A bucket of an S3-compatible store.
    S3(Box<S3Config>),
    /// A bucket of Google Cloud Storage.
    Gcs(Box<GcsConfig>),
    /// A container of Azure Blob Storage.
    Azure(Box<AzureConfig>),
    /// A folder of this machine.
    Folder(PathBuf),
}

impl ClientConfig {
    /// What the location says, with Velero's rules for what it may say.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] with the setting that is wrong.
    pub fn from_location(location: &BackupStorageLocationSpec, inputs: Inputs<'_>) -> Result<Self, Error> {
        let provider = match provider(location) {
            "" => return Err(misconfigured("the backup storage location names no provider")),
            provider => provider,
        };
        let storage = &location.object_storage;
        let bucket = bucket(&storage.bucket)?;
        let prefix = storage.prefix.trim_matches('/').to_owned();
        let config = &location.config;
        let ca_cert = || ca_cert(storage, config, inputs);
        let s3 = |known_keys_only| -> Result<Backend, Error> {
            S3Config::from_map(bucket, config, known_keys_only, ca_cert()?, inputs).map(|s3| Backend::S3(Box::new(s3)))
        };
        let backend = match provider {
            "aws" => s3(true)?,
            "gcp" => Backend::Gcs(Box::new(GcsConfig::from_map(bucket, config, ca_cert()?, inputs)?)),
            "azure" => Backend::Azure(Box::new(AzureConfig::from_map(bucket, config, ca_cert()?, inputs)?)),
            "filesystem" => Backend::Folder(folder(config, bucket)?),
            _ if config.contains_key("s3Url") => s3(false)?,
            _ => {
                return Err(Error::Misconfigured(format!(
                    "provider {:?} needs a plugin of Velero's, and such plugins are not run here; what works is aws, gcp, \
                     azure, filesystem, and any S3-compatible store with config.s3Url: describe the store as one of \
                     these, or restore with Velero",
                    location.provider
                )));
            }
        };
        let read_only = match &*location.access_mode {
            "ReadOnly" => true,
            "" | "ReadWrite" => false,
            other => {
                return Err(Error::Misconfigured(format!(
                    "accessMode {other:?} is not known; it is one of ReadWrite and ReadOnly"
                )));
            }
        };
        Ok(Self { prefix, read_only, backend })
    }

    /// The keys of this location.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(&self.prefix)
    }
}

/// Opens a location. Two things may be asked for here: the region of a bucket of AWS where it is not given, and a key of a storage
/// account of Azure where that is how requests are authorized.
///
/// # Errors
/// When the configuration cannot work.
pub async fn open(config: &ClientConfig) -> Result<Arc<dyn BackupStore>, Error> {
    let store: Arc<dyn BackupStore> = match &config.backend {
        Backend::S3(s3) => Arc::new(s3::open(s3).await?),
        Backend::Gcs(gcs) => Arc::new(gcs::open(gcs)?),
        Backend::Azure(azure) => Arc::new(azure::open(azure).await?),
        Backend::Folder(path) => Arc::new(ObjectBackupStore::folder(path)?),
    };
    Ok(if config.read_only { Arc::new(ReadOnlyStore::new(store)) } else { store })
}

/// The provider of a location without Velero's own prefix: a name without `/` means `velero.io/<name>`.
pub(super) fn provider(location: &BackupStorageLocationSpec) -> &str {
    location.provider.strip_prefix("velero.io/").unwrap_or(&location.provider)
}

pub(super) fn misconfigured(message: &str) -> Error {
    Error::Misconfigured(message.to_owned())
}

/// A bucket's name without slashes around it; only an ARN may have one within.
fn bucket(bucket: &str) -> Result<&str, Error> {
    let trimmed = bucket.trim_matches('/');
    if trimmed.contains('/') && !trimmed.starts_with("arn:aws:s3:") {
        return Err(Error::Misconfigured(format!(
            "bucket {bucket:?} contains a slash; put what follows it into objectStorage.prefix"
        )));
    }
    Ok(trimmed)
}

/// The certificates to trust, as PEM text.
fn ca_cert(
    storage: &ObjectStorageLocation,
    config: &BTreeMap<String, String>,
    inputs: Inputs<'_>,
) -> Result<Option<String>, Error> {
    match (&storage.ca_cert_ref, &*storage.ca_cert) {
        (Some(_), "") => inputs
            .ca_cert
            .map(|pem| Some(pem.to_owned()))
            .ok_or_else(|| misconfigured("the Secret that objectStorage.caCertRef refers to has no such key")),
        (Some(_), _) => Err(misconfigured("objectStorage has both caCert and caCertRef; keep the latter")),
        (None, "") => Ok(config.get("caCert").filter(|pem| !pem.is_empty()).cloned()),
        (None, text) => {
            let text: String = text.split_ascii_whitespace().collect();
            let pem = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            pem.map(Some).ok_or_else(|| misconfigured("objectStorage.caCert is not PEM text in base64"))
        }
    }
}

fn folder(config: &BTreeMap<String, String>, bucket: &str) -> Result<PathBuf, Error> {
    check_keys(config, &["path"])?;
    let path = config.get("path").filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| misconfigured("provider filesystem needs config.path, the folder of the backups"))?;
    if matches!(bucket, "." | "..") {
        return Err(Error::Misconfigured(format!("bucket {bucket:?} is no folder below config.path")));
    }
    Ok(if bucket.is_empty() { PathBuf::from(path) } else { Path::new(path).join(bucket) })
}

/// Refuses settings that the provider does not have, in the words of Velero's plugins.
pub(super) fn check_keys(config: &BTreeMap<String, String>, known: &[&str]) -> Result<(), Error> {
    let mut valid: Vec<&str> = known.iter().copied().chain(["bucket", "prefix", "caCert"]).collect();
    valid.sort_unstable();
    let invalid: Vec<&str> = config.keys().map(String::as_str).filter(|key| !valid.contains(key)).collect();
    if invalid.is_empty() {
        return Ok(());
    }
    let (invalid, valid) = (invalid.join(" "), valid.join(" "));
    Err(Error::Misconfigured(format!("config has invalid keys [{invalid}]; valid keys are [{valid}]")))
}

/// A flag, with the spellings that Go's `strconv.ParseBool` takes; absent or empty is `false`.
pub(super) fn flag(config: &BTreeMap<String, String>, key: &str) -> Result<bool, Error> {
    match config.get(key).map_or("", String::as_str) {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        other => Err(Error::Misconfigured(format!("could not parse {key} (expected bool): {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::velero::SecretKeySelector;

    fn location(provider: &str, bucket: &str, config: &[(&str, &str)]) -> BackupStorageLocationSpec {
        BackupStorageLocationSpec {
            provider: provider.into(),
            config: config.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            object_storage: ObjectStorageLocation { bucket: bucket.into(), ..ObjectStorageLocation::default() },
            ..BackupStorageLocationSpec::default()
        }
    }

    fn read(location: &BackupStorageLocationSpec, ca_cert: Option<&str>) -> Result<ClientConfig, Error> {
        let env = BTreeMap::new();
        ClientConfig::from_location(location, Inputs { ca_cert, ..Inputs::of(&env) })
    }

    fn s3(location: &BackupStorageLocationSpec, ca_cert: Option<&str>) -> S3Config {
        match read(location, ca_cert).unwrap().backend {
            Backend::S3(s3) => *s3,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(location: &BackupStorageLocationSpec) -> String {
        read(location, None).unwrap_err().to_string()
    }

    #[test]
    fn slashes_are_trimmed_from_bucket_and_prefix() {
        let mut spec = location("velero.io/aws", "/b/", &[("region", "r")]);
        spec.object_storage.prefix = "/p/q/".into();
        let config = read(&spec, None).unwrap();
        assert_eq!((config.prefix.as_str(), config.layout().root()), ("p/q", "p/q/"));
        assert_eq!(s3(&spec, None).bucket, "b");
    }

    #[test]
    fn a_slash_within_the_bucket_is_refused() {
        assert!(refusal(&location("aws", "a/b", &[])).contains("contains a slash"));
        // An ARN passes this rule and is refused for what it is.
        assert!(refusal(&location("aws", "arn:aws:s3:::x/y", &[])).contains("access point"));
    }

    #[test]
    fn unknown_keys_are_refused_in_the_plugin_s_words() {
        let message = refusal(&location("filesystem", "", &[("path", "/x"), ("zone", "a"), ("depth", "1")]));
        assert_eq!(message, "config has invalid keys [depth zone]; valid keys are [bucket caCert path prefix]");
        assert!(refusal(&location("aws", "b", &[("Region", "r")])).starts_with("config has invalid keys [Region]; "));
    }

    #[test]
    fn a_folder_takes_the_bucket_as_a_sub_folder() {
        let folder = |bucket| match read(&location("filesystem", bucket, &[("path", "/data")]), None).unwrap().backend {
            Backend::Folder(path) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(folder(""), Path::new("/data"));
        assert_eq!(folder("b"), Path::new("/data/b"));
        assert!(refusal(&location("filesystem", "..", &[("path", "/data")])).contains("no folder"));
        assert!(refusal(&location("filesystem", "b", &[])).contains("config.path"));
    }

    #[test]
    fn providers_are_known_or_s3_compatible_or_refused() {
        assert!(refusal(&location("", "b", &[])).contains("no provider"));
        assert!(refusal(&location("velero.io/", "b", &[])).contains("no provider"));
        // A name without a slash is one of Velero's own; another's of the same name is not.
        for provider in ["example.com/tape", "example.com/aws", "alibabacloud"] {
            let message = refusal(&location(provider, "b", &[("theirs", "x")]));
            assert!(message.contains(provider) && message.contains("config.s3Url"), "{message}");
        }
        let other = location("example.com/oss", "b", &[("s3Url", "http://127.0.0.1:9000"), ("theirs", "x")]);
        assert_eq!(s3(&other, None).endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        for provider in ["gcp", "velero.io/gcp"] {
            let read = read(&location(provider, "/b/", &[]), None).unwrap();
            assert!(matches!(read.backend, Backend::Gcs(gcs) if gcs.bucket == "b"));
        }
        for provider in ["azure", "velero.io/azure"] {
            let read = read(&location(provider, "b", &[("storageAccount", "a"), ("useAAD", "1")]), None).unwrap();
            assert!(matches!(read.backend, Backend::Azure(azure) if azure.container == "b"));
        }
    }

    #[test]
    fn access_is_read_only_where_the_location_says_so() {
        let mut spec = location("filesystem", "", &[("path", "/x")]);
        for (mode, read_only) in [("", false), ("ReadWrite", false), ("ReadOnly", true)] {
            spec.access_mode = mode.into();
            assert_eq!(read(&spec, None).unwrap().read_only, read_only, "{mode}");
        }
        spec.access_mode = "readonly".into();
        assert!(refusal(&spec).contains("accessMode \"readonly\""), "a typo does not make a location writable");
    }

    #[test]
    fn certificates_come_from_the_location_the_secret_or_the_config() {
        let mut spec = location("aws", "b", &[("caCert", "from config")]);
        assert_eq!(s3(&spec, None).ca_cert.as_deref(), Some("from config"));
        spec.object_storage.ca_cert = "ZnJvbSB0aGUg\nbG9jYXRpb24=".into();
        assert_eq!(s3(&spec, None).ca_cert.as_deref(), Some("from the location"));
        spec.object_storage.ca_cert_ref = Some(SecretKeySelector::default());
        assert!(refusal(&spec).contains("both caCert and caCertRef"));
        spec.object_storage.ca_cert = String::new();
        assert_eq!(s3(&spec, Some("from the secret")).ca_cert.as_deref(), Some("from the secret"));
        assert!(refusal(&spec).contains("caCertRef"));
        spec.object_storage.ca_cert_ref = None;
        spec.object_storage.ca_cert = "%".into();
        assert!(refusal(&spec).contains("base64"));
    }

    /// Everything that a reader of logs may get to see of a location.
    async fn shown(provider: &str, config: &[(&str, &str)], credentials: &str) -> String {
        let env = BTreeMap::from([("AWS_SECRET_ACCESS_KEY".to_owned(), credentials.to_owned())]);
        let customer_key = Some(credentials.as_bytes());
        let inputs = Inputs { credentials: Some(credentials), customer_key, ..Inputs::of(&env) };
        let read = ClientConfig::from_location(&location(provider, "b", config), inputs);
        let opened = match &read {
            Ok(config) => Some(super::open(config).await),
            Err(_) => None,
        };
        let chain = |error: &Error| format!("{error:?} {}", crate::model::error_chain(error));
        let errors =
            [read.as_ref().err().map(chain), opened.as_ref().and_then(|opened| opened.as_ref().err()).map(chain)];
        let store = opened.and_then(Result::ok).map(|store| format!("{store:?}"));
        format!("{inputs:?} {read:?} {store:?} {errors:?}")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn no_secret_is_in_a_value_or_an_error(
            secret in "[A-Z0-9]{4}[a-z0-9]{12}zz9[#;= ]{0,2}[a-z]{3}",
            around in "[ \"'=:\\n\\[]{0,2}",
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let key = STANDARD.encode(&secret);
            let texts = [
                format!("{around}{secret}"),
                format!("[default]\naws_access_key_id = id\naws_secret_access_key = {around}{secret}\n"),
                format!("[default]\naws_session_token = {secret}\n{around}{secret}\n"),
                serde_json::json!({"type": "service_account", "client_email": "e", "private_key_id": "i",
                    "private_key": secret}).to_string(),
                serde_json::json!({"type": secret, "private_key": secret}).to_string(),
                serde_json::json!({"type": "authorized_user", "refresh_token": secret}).to_string(),
                format!("K={key}\nAZURE_CLIENT_SECRET={around}{secret}\n"),
                format!("K={around}{secret}\nAZURE_TENANT_ID=t\nAZURE_CLIENT_ID=c\nAZURE_CLIENT_SECRET={secret}\n"),
                format!("AZURE_CLOUD_NAME={secret}"),
            ];
            let azure = ("storageAccount", "a");
            for text in &texts {
                for (provider, config) in [
                    ("aws", &[("region", "r")][..]),
                    ("aws", &[("region", "r"), ("profile", "default")]),
                    ("aws", &[("region", "r"), ("customerKeyEncryptionSecret", "a/b")]),
                    ("gcp", &[]),
                    ("azure", &[azure, ("storageAccountKeyEnvVar", "K")]),
                    ("azure", &[azure, ("useAAD", "true")]),
                ] {
                    let shown = runtime.block_on(shown(provider, config, text));
                    for hidden in [&secret[..19], key.trim_end_matches('=')] {
                        prop_assert!(!shown.contains(hidden), "{provider} {config:?}: {shown}");
                    }
                }
            }
        }
    }

    #[test]
    fn flags_have_go_s_spellings() {
        let of = |value: &str| flag(&BTreeMap::from([("f".to_owned(), value.to_owned())]), "f");
        assert!(["1", "t", "T", "TRUE", "true", "True"].iter().all(|value| of(value).unwrap()));
        assert!(["", "0", "f", "F", "FALSE", "false", "False"].iter().all(|value| !of(value).unwrap()));
        assert_eq!(of("yes").unwrap_err().to_string(), r#"could not parse f (expected bool): "yes""#);
    }
}
