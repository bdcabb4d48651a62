//! S3-compatible stores: the settings of Velero's AWS plugin (plugin-protocol 10.2) and what becomes of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, resolve_bucket_region};

use super::client::{self, Peers};
use super::credentials::{self, Hidden, S3Credentials};
use super::location::{Inputs, check_keys, flag, misconfigured};
use super::{Error, ObjectBackupStore, Options};
use crate::velero::SecretKeySelector;

/// Every key that the plugin has.
const KEYS: [&str; 15] = [
    "region",
    "s3Url",
    "publicUrl",
    "kmsKeyId",
    "customerKeyEncryptionFile",
    "customerKeyEncryptionSecret",
    "s3ForcePathStyle",
    "signatureVersion",
    "credentialsFile",
    "profile",
    "serverSideEncryption",
    "insecureSkipTLSVerify",
    "enableSharedConfig",
    "tagging",
    "checksumAlgorithm",
];

/// Most tags that an object may have.
const MAX_TAGS: usize = 10;

/// How a bucket of an S3-compatible store is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// The region; absent when the store is to be asked for it.
    pub region: Option<String>,
    /// Address of the store, without the bucket; absent for AWS's own.
    pub endpoint: Option<String>,
    /// Address used in signed addresses, where it differs.
    pub public_endpoint: Option<String>,
    /// Whether the bucket stands in the path, and not in front of the host.
    pub path_style: bool,
    /// Whether the store's certificate is not looked at.
    pub insecure_skip_tls_verify: bool,
    /// Certificates to trust besides the system's, PEM.
    pub ca_cert: Option<String>,
    /// How requests are signed.
    pub credentials: S3Credentials,
    /// Checksum sent with what is written.
    pub checksum: ChecksumAlgorithm,
    /// How the store encrypts what is written.
    pub encryption: Encryption,
    /// Tags put on what is written.
    pub tags: Vec<(String, String)>,
}

/// A checksum sent along with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// None that our client can compute; the transport's own protection holds.
    None,
    /// SHA-256.
    Sha256,
    /// CRC-64/NVME.
    Crc64Nvme,
}

/// Encryption on the side of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket is set up.
    Default,
    /// With keys of the store.
    Aes256,
    /// With a key of the key service, or its default one.
    Kms(Option<String>),
    /// Twice, with a key of the key service.
    DoubleKms(Option<String>),
    /// With our own key of 32 bytes, from this file.
    CustomerKeyFile(String),
    /// With our own key of 32 bytes, in base64.
    CustomerKey(Hidden),
}

/// The Secret that `customerKeyEncryptionSecret` refers to, as `name/key`; nothing where it is not set.
///
/// # Errors
/// When it is not of that form.
pub fn customer_key_secret(config: &BTreeMap<String, String>) -> Result<Option<SecretKeySelector>, Error> {
    let Some(text) = config.get("customerKeyEncryptionSecret").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.split_once('/') {
        Some((name, key)) if !name.is_empty() && !key.is_empty() && !key.contains('/') => {
            Ok(Some(SecretKeySelector { name: name.to_owned(), key: key.to_owned(), optional: None }))
        }
        _ => Err(Error::Misconfigured(format!(
            "customerKeyEncryptionSecret {text:?} is not of the form name/key, of a Secret in Velero's namespace"
        ))),
    }
}

impl S3Config {
    /// What `config` says of the store that holds `bucket`. Keys that are not the plugin's are refused, unless it is
    /// the configuration of another provider.
    pub(super) fn from_map(
        bucket: &str,
        config: &BTreeMap<String, String>,
        known_keys_only: bool,
        ca_cert: Option<String>,
        inputs: Inputs<'_>,
    ) -> Result<Self, Error> {
        if known_keys_only {
            check_keys(config, &KEYS)?;
        }
        if bucket.is_empty() {
            return Err(misconfigured("objectStorage.bucket is empty"));
        }
        if bucket.starts_with("arn:") {
            return Err(Error::Misconfigured(format!(
                "bucket {bucket:?} is an access point, which is not supported; give the name of a bucket"
            )));
        }
        let value = |key: &str| config.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let resolved = credentials::resolve(inputs.credentials, value("profile"), inputs.env)?;
        let endpoint_of = |key: &str| value(key).map(|text| client::endpoint(key, text)).transpose();
        let endpoint = endpoint_of("s3Url")?;
        let variable = |name: &str| inputs.env.get(name).filter(|value| !value.is_empty()).cloned();
        let region = value("region")
            .map(str::to_owned)
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .or(resolved.region)
            // Signatures need one; stores other than AWS mostly take any.
            .or_else(|| endpoint.is_some().then(|| "us-east-1".to_owned()));
        let path_style = flag(config, "s3ForcePathStyle")? || needs_path_style(bucket, endpoint.as_deref());
        Ok(Self {
            bucket: bucket.to_owned(),
            region,
            public_endpoint: endpoint_of("publicUrl")?,
            endpoint,
            path_style,
            insecure_skip_tls_verify: flag(config, "insecureSkipTLSVerify")?,
            ca_cert,
            credentials: resolved.credentials,
            checksum: checksum(config.get("checksumAlgorithm").map(String::as_str))?,
            encryption: encryption(config, inputs.customer_key)?,
            tags: value("tagging").map_or_else(|| Ok(Vec::new()), tags)?,
        })
    }
}

/// Whether the bucket cannot stand in front of the host, as the SDK decides it.
fn needs_path_style(bucket: &str, endpoint: Option<&str>) -> bool {
    let uri = endpoint.and_then(|endpoint| endpoint.parse::<Uri>().ok());
    let host_is_address =
        uri.as_ref().and_then(Uri::host).is_some_and(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok());
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = bucket.as_bytes();
    let is_label = (3..=63).contains(&bytes.len())
        && bytes.iter().all(|&byte| plain(byte) || byte == b'-')
        && matches!((bytes.first(), bytes.last()), (Some(&first), Some(&last)) if plain(first) && plain(last));
    host_is_address || !is_label
}

fn checksum(algorithm: Option<&str>) -> Result<ChecksumAlgorithm, Error> {
    match algorithm {
        Some("SHA256") => Ok(ChecksumAlgorithm::Sha256),
        Some("CRC64NVME") => Ok(ChecksumAlgorithm::Crc64Nvme),
        // The plugin's default is CRC32, which our client does not have.
        None | Some("" | "CRC32" | "CRC32C" | "SHA1") => Ok(ChecksumAlgorithm::None),
        Some(other) => Err(Error::Misconfigured(format!(
            "checksumAlgorithm {other:?} is not known; it is one of CRC32, CRC32C, SHA1, SHA256, CRC64NVME or empty"
        ))),
    }
}

fn encryption(config: &BTreeMap<String, String>, customer_key: Option<&[u8]>) -> Result<Encryption, Error> {
    let value = |key: &str| config.get(key).filter(|value| !value.is_empty()).cloned();
    let keys = ["kmsKeyId", "customerKeyEncryptionFile", "customerKeyEncryptionSecret"];
    if let [one, another, ..] = keys.into_iter().filter(|key| value(key).is_some()).collect::<Vec<_>>()[..] {
        return Err(Error::Misconfigured(format!("{one} and {another} exclude each other; keep one of them")));
    }
    if let Some(secret) = customer_key_secret(config)? {
        let what = format!("key {:?} of Secret {:?} (customerKeyEncryptionSecret)", secret.key, secret.name);
        let key = customer_key.ok_or_else(|| Error::Misconfigured(format!("{what} is not there; create it")))?;
        return encoded_key(&what, key).map(Hidden).map(Encryption::CustomerKey);
    }
    if let Some(file) = value("customerKeyEncryptionFile") {
        return Ok(Encryption::CustomerKeyFile(file));
    }
    match (value("serverSideEncryption").as_deref(), value("kmsKeyId")) {
        (None, None) => Ok(Encryption::Default),
        (Some("aws:kms:dsse"), key) => Ok(Encryption::DoubleKms(key)),
        (Some("aws:kms"), key) => Ok(Encryption::Kms(key)),
        (None | Some("AES256"), Some(key)) => Ok(Encryption::Kms(Some(key))),
        (Some("AES256"), None) => Ok(Encryption::Aes256),
        (Some(other), _) => Err(Error::Misconfigured(format!(
            "serverSideEncryption {other:?} is not known; it is one of AES256, aws:kms and aws:kms:dsse"
        ))),
    }
}

/// `key=value&key=value`, as in a query.
fn tags(text: &str) -> Result<Vec<(String, String)>, Error> {
    let wrong = || Error::Misconfigured(format!("tagging {text:?} is not of the form key=value&key2=value2"));
    let tags: Vec<_> = text
        .split('&')
        .map(|pair| {
            let (key, value) = pair.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(wrong)?;
            Ok((decode(key).ok_or_else(wrong)?, decode(value).ok_or_else(wrong)?))
        })
        .collect::<Result<_, Error>>()?;
    if tags.len() > MAX_TAGS {
        return Err(Error::Misconfigured(format!("tagging has {} tags; S3 takes {MAX_TAGS}", tags.len())));
    }
    Ok(tags)
}

/// Query text without its escapes.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// The client of a bucket. Asks AWS for the region where none is given.
pub(super) async fn open(config: &S3Config) -> Result<ObjectBackupStore, Error> {
    let unusable = |error: object_store::Error| Error::Unusable { key: config.bucket.clone(), source: error.into() };
    let options = client_options(config)?;
    let region = match &config.region {
        Some(region) => region.clone(),
        None => resolve_bucket_region(&config.bucket, &options).await.map_err(unusable)?,
    };
    let customer_key = customer_key(&config.encryption).await?;
    let build = |endpoint: Option<&str>| -> Result<AmazonS3, Error> {
        let customer_key = customer_key.as_deref();
        builder(config, &region, endpoint, customer_key).with_client_options(options.clone()).build().map_err(unusable)
    };
    let store = Arc::new(build(config.endpoint.as_deref())?);
    let signer = match &config.public_endpoint {
        Some(public) => Arc::new(build(Some(public))?),
        None => Arc::clone(&store),
    };
    let tags = config.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Ok(ObjectBackupStore::new(store, Options::default()).with_signer(signer).with_tags(tags))
}

/// The key of SSE-C, in base64.
async fn customer_key(encryption: &Encryption) -> Result<Option<String>, Error> {
    match encryption {
        Encryption::CustomerKey(key) => Ok(Some(key.0.clone())),
        Encryption::CustomerKeyFile(path) => {
            let read = tokio::fs::read(path).await;
            let key = read.map_err(|error| Error::Unusable { key: path.to_owned(), source: error.into() })?;
            encoded_key(&format!("customerKeyEncryptionFile {path:?}"), &key).map(Some)
        }
        _ => Ok(None),
    }
}

fn encoded_key(what: &str, key: &[u8]) -> Result<String, Error> {
    if key.len() == 32 {
        Ok(STANDARD.encode(key))
    } else {
        Err(Error::Misconfigured(format!("{what} has {} bytes and not 32", key.len())))
    }
}

fn client_options(config: &S3Config) -> Result<ClientOptions, Error> {
    client::options(&Peers {
        endpoints: [config.endpoint.as_deref(), config.public_endpoint.as_deref()],
        ca_cert: config.ca_cert.as_deref(),
        insecure_skip_tls_verify: config.insecure_skip_tls_verify,
    })
}

fn builder(config: &S3Config, region: &str, endpoint: Option<&str>, customer_key: Option<&str>) -> AmazonS3Builder {
    use AmazonS3ConfigKey as Key;
    let set = |builder: AmazonS3Builder, key: Key, value: &Option<String>| match value {
        Some(value) => builder.with_config(key, value),
        None => builder,
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(region)
        .with_virtual_hosted_style_request(!config.path_style)
        .with_retry(client::retry());
    let endpoint = endpoint.map(str::to_owned).or_else(|| {
        // The client knows the addresses of AWS's first partition only.
        region.starts_with("cn-").then(|| format!("https://s3.{region}.amazonaws.com.cn"))
    });
    if let Some(endpoint) = endpoint {
        builder =
            builder.with_endpoint(if config.path_style { endpoint } else { with_bucket(&endpoint, &config.bucket) });
    }
    builder = match &config.credentials {
        S3Credentials::Static { access_key_id, secret_access_key, session_token } => {
            let builder = builder.with_access_key_id(access_key_id).with_secret_access_key(&secret_access_key.0);
            set(builder, Key::Token, &session_token.as_ref().map(|token| token.0.clone()))
        }
        S3Credentials::WebIdentity { role_arn, token_file, session_name } => {
            let builder =
                builder.with_config(Key::RoleArn, role_arn).with_config(Key::WebIdentityTokenFile, token_file);
            let sts = region.starts_with("cn-").then(|| format!("https://sts.{region}.amazonaws.com.cn"));
            set(set(builder, Key::StsEndpoint, &sts), Key::RoleSessionName, session_name)
        }
        S3Credentials::Container { uri, relative: true, .. } => {
            builder.with_config(Key::ContainerCredentialsRelativeUri, uri)
        }
        S3Credentials::Container { uri, relative: false, token_file } => {
            let builder = builder.with_config(Key::ContainerCredentialsFullUri, uri);
            set(builder, Key::ContainerAuthorizationTokenFile, token_file)
        }
        S3Credentials::Instance => builder,
    };
    builder = match config.checksum {
        ChecksumAlgorithm::None => builder,
        ChecksumAlgorithm::Sha256 => builder.with_checksum_algorithm(Checksum::SHA256),
        ChecksumAlgorithm::Crc64Nvme => builder.with_checksum_algorithm(Checksum::CRC64NVME),
    };
    let encryption = |builder: AmazonS3Builder, kind: &str, key: &Option<String>| {
        let key_of = |name: &str| name.parse::<Key>().ok();
        let builder = match key_of("aws_server_side_encryption") {
            Some(name) => builder.with_config(name, kind),
            None => builder,
        };
        match (key_of("aws_sse_kms_key_id"), key) {
            (Some(name), Some(key)) => builder.with_config(name, key),
            _ => builder,
        }
    };
    match (&config.encryption, customer_key) {
        (Encryption::Default, _) | (Encryption::CustomerKeyFile(_) | Encryption::CustomerKey(_), None) => builder,
        (Encryption::Aes256, _) => encryption(builder, "AES256", &None),
        (Encryption::Kms(key), _) => encryption(builder, "aws:kms", key),
        (Encryption::DoubleKms(key), _) => encryption(builder, "aws:kms:dsse", key),
        (Encryption::CustomerKeyFile(_) | Encryption::CustomerKey(_), Some(key)) => builder.with_ssec_encryption(key),
    }
}

/// `https://host` as `https://bucket.host`: our client wants that done for it.
fn with_bucket(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
        None => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use object_store::RetryConfig;

    use super::*;
    use crate::storage::BackupStore;

    const FILE: &str = "[default]\naws_access_key_id=AKID\naws_secret_access_key=hush\nregion=eu-file-1\n";

    fn read(bucket: &str, config: &[(&str, &str)], env: &[(&str, &str)]) -> Result<S3Config, Error> {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
        };
        let env = map(env);
        S3Config::from_map(bucket, &map(config), true, None, Inputs { credentials: Some(FILE), ..Inputs::of(&env) })
    }

    fn refusal(config: &[(&str, &str)]) -> String {
        read("bucket", config, &[]).unwrap_err().to_string()
    }

    #[test]
    fn every_setting_of_the_plugin_is_understood() {
        let config = read(
            "bucket",
            &[
                ("region", "eu-1"),
                ("s3Url", "https://s3.example.com:9000/"),
                ("publicUrl", "https://public.example.com"),
                ("s3ForcePathStyle", "T"),
                ("insecureSkipTLSVerify", "1"),
                ("profile", "default"),
                ("checksumAlgorithm", "SHA256"),
                ("kmsKeyId", "key-1"),
                ("tagging", "team=a%20b&cost=1"),
                ("enableSharedConfig", "true"),
                ("signatureVersion", "4"),
                ("credentialsFile", "/ignored/here"),
            ],
            &[],
        )
        .unwrap();
        let expected = S3Config {
            bucket: "bucket".into(),
            region: Some("eu-1".into()),
            endpoint: Some("https://s3.example.com:9000".into()),
            public_endpoint: Some("https://public.example.com".into()),
            path_style: true,
            insecure_skip_tls_verify: true,
            ca_cert: None,
            credentials: S3Credentials::Static {
                access_key_id: "AKID".into(),
                secret_access_key: Hidden("hush".into()),
                session_token: None,
            },
            checksum: ChecksumAlgorithm::Sha256,
            encryption: Encryption::Kms(Some("key-1".into())),
            tags: vec![("team".into(), "a b".into()), ("cost".into(), "1".into())],
        };
        assert_eq!(config, expected);
        assert!(!format!("{config:?}").contains("hush"));
    }

    // plugin-protocol 10.2
    #[test]
    fn each_setting_of_encryption_and_checksum_means_what_it_means_to_the_plugin() {
        let of = |pairs: &[(&str, &str)]| read("bucket", pairs, &[]).unwrap();
        let kms = |key: Option<&str>| Encryption::Kms(key.map(str::to_owned));
        for (pairs, encryption) in [
            (&[][..], Encryption::Default),
            (&[("serverSideEncryption", "")], Encryption::Default),
            (&[("serverSideEncryption", "AES256")], Encryption::Aes256),
            (&[("serverSideEncryption", "aws:kms")], kms(None)),
            (&[("serverSideEncryption", "AES256"), ("kmsKeyId", "k")], kms(Some("k"))),
            (&[("kmsKeyId", "alias/k")], kms(Some("alias/k"))),
            (&[("serverSideEncryption", "aws:kms:dsse"), ("kmsKeyId", "k")], Encryption::DoubleKms(Some("k".into()))),
            (&[("customerKeyEncryptionFile", "/f")], Encryption::CustomerKeyFile("/f".into())),
        ] {
            assert_eq!(of(pairs).encryption, encryption, "{pairs:?}");
        }
        for (algorithm, checksum) in [
            ("", ChecksumAlgorithm::None),
            ("CRC32", ChecksumAlgorithm::None),
            ("CRC32C", ChecksumAlgorithm::None),
            ("SHA1", ChecksumAlgorithm::None),
            ("SHA256", ChecksumAlgorithm::Sha256),
            ("CRC64NVME", ChecksumAlgorithm::Crc64Nvme),
        ] {
            assert_eq!(of(&[("checksumAlgorithm", algorithm)]).checksum, checksum, "{algorithm}");
        }
    }

    #[test]
    fn the_region_comes_from_config_environment_profile_in_this_order() {
        let region =
            |config: &[(&str, &str)], env: &[(&str, &str)]| read("bucket", config, env).unwrap().region.unwrap();
        let env = [("AWS_REGION", "env-1"), ("AWS_DEFAULT_REGION", "env-2")];
        assert_eq!(region(&[("region", "c")], &env), "c");
        assert_eq!(region(&[], &env), "env-1");
        assert_eq!(region(&[], &env[1..]), "env-2");
        assert_eq!(region(&[], &[]), "eu-file-1");
    }

    #[test]
    fn the_bucket_stands_in_the_path_where_it_cannot_stand_before_the_host() {
        let style = |bucket: &str, url: &str| read(bucket, &[("s3Url", url)], &[]).unwrap().path_style;
        assert!(!style("bucket", "https://s3.example.com"));
        assert!(style("bucket", "http://127.0.0.1:9000"));
        assert!(style("bucket", "http://[::1]:9000"));
        assert!(style("my.bucket", "https://s3.example.com"));
        assert!(style("My_Bucket", "https://s3.example.com"));
        assert_eq!(with_bucket("https://s3.example.com:9", "b"), "https://b.s3.example.com:9");
    }

    #[test]
    fn wrong_settings_are_refused_by_name() {
        for (config, part) in [
            (&[("s3Url", "ftp://x")][..], "s3Url"),
            (&[("s3Url", "s3.example.com")], "s3Url"),
            (&[("publicUrl", "nowhere")], "publicUrl"),
            (&[("s3ForcePathStyle", "yes")], "could not parse s3ForcePathStyle"),
            (&[("checksumAlgorithm", "MD5")], "checksumAlgorithm"),
            (&[("serverSideEncryption", "rot13")], "serverSideEncryption"),
            (&[("kmsKeyId", "k"), ("customerKeyEncryptionFile", "/f")], "kmsKeyId and customerKeyEncryptionFile"),
            (&[("customerKeyEncryptionSecret", "s/k")], "key \"k\" of Secret \"s\""),
            (&[("customerKeyEncryptionSecret", "k")], "name/key"),
            (&[("tagging", "novalue")], "tagging"),
            (&[("tagging", "a=%zz")], "tagging"),
            (&[("tagging", "a=1&a=1&a=1&a=1&a=1&a=1&a=1&a=1&a=1&a=1&a=1")], "11 tags"),
            (&[("profile", "absent")], "no profile \"absent\""),
        ] {
            let message = refusal(config);
            assert!(message.contains(part), "{message}");
        }
        assert!(read("", &[], &[]).unwrap_err().to_string().contains("bucket is empty"));
    }

    #[tokio::test]
    async fn every_kind_of_configuration_can_be_opened_and_signs_for_the_public_address() {
        for extra in [
            &[][..],
            &[("checksumAlgorithm", "CRC64NVME"), ("serverSideEncryption", "AES256")],
            &[("serverSideEncryption", "aws:kms")],
            &[("serverSideEncryption", "aws:kms:dsse"), ("kmsKeyId", "k")],
            &[("kmsKeyId", "k"), ("tagging", "a=b")],
        ] {
            let config = [&[("region", "eu-1"), ("publicUrl", "https://public.example.com")], extra].concat();
            let store = open(&read("bucket", &config, &[]).unwrap()).await.unwrap();
            let url = store.presign_get("backups/b/b.tar.gz", Duration::from_mins(10)).await.unwrap();
            assert!(url.starts_with("https://bucket.public.example.com/backups/b/b.tar.gz?"), "{url}");
            assert!(url.contains("X-Amz-Expires=600") && !format!("{store:?}").contains("hush"), "{url}");
        }
    }

    #[tokio::test]
    async fn a_customer_key_must_have_32_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let config = read("bucket", &[("customerKeyEncryptionFile", path)], &[]).unwrap();
        std::fs::write(path, [7; 31]).unwrap();
        assert!(open(&config).await.unwrap_err().to_string().contains("31 bytes"));
        std::fs::write(path, [7; 32]).unwrap();
        open(&config).await.unwrap();
    }

    #[tokio::test]
    async fn a_customer_key_may_come_from_a_secret_and_does_not_show() {
        let config = BTreeMap::from([("customerKeyEncryptionSecret".to_owned(), "keys/bucket".to_owned())]);
        let selector = customer_key_secret(&config).unwrap().unwrap();
        assert_eq!((&*selector.name, &*selector.key), ("keys", "bucket"));
        assert_eq!(
            encryption(&config, Some(&[7; 33])).unwrap_err().to_string().split(" has ").nth(1).unwrap(),
            "33 bytes and not 32"
        );
        let encryption = encryption(&config, Some(&[7; 32])).unwrap();
        assert_eq!(encryption, Encryption::CustomerKey(Hidden(STANDARD.encode([7; 32]))));
        assert!(!format!("{encryption:?}").contains(&STANDARD.encode([7; 32])));
        open(&S3Config { encryption, ..read("bucket", &[], &[]).unwrap() }).await.unwrap();
    }

    #[tokio::test]
    async fn certificates_that_are_none_are_refused() {
        let mut config = read("bucket", &[], &[]).unwrap();
        config.ca_cert = Some("not a certificate".into());
        assert!(open(&config).await.unwrap_err().to_string().contains("caCert"));
    }

    /// A store that speaks just enough HTTP: the key says what becomes of a request for it.
    async fn scripted() -> std::net::SocketAddr {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = vec![0; 16 << 10];
                let length = connection.read(&mut request).await.unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..length]).to_ascii_lowercase();
                let answer = |status: &str, body: &str| {
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                };
                let object = "etag: \"e\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nconnection: close\r\n";
                let answer = match request.split([' ', '/', '?']).nth(3).unwrap_or_default() {
                    "busy" => answer("503 Service Unavailable", "<Error><Code>SlowDown</Code></Error>"),
                    "throttled" => answer("429 Too Many Requests", ""),
                    "denied" => answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"),
                    "missing" => answer("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"),
                    "no-bucket" => answer("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>"),
                    "cut" if request.contains("range: bytes=5-") => format!(
                        "HTTP/1.1 206 Partial Content\r\n{object}content-range: bytes 5-9/10\r\ncontent-length: 5\r\n\r\nfghij"
                    ),
                    "cut" => format!("HTTP/1.1 200 OK\r\n{object}content-length: 10\r\n\r\nabcde"),
                    other => answer("400 Bad Request", other),
                };
                let _ = connection.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    async fn without_retries(address: std::net::SocketAddr) -> ObjectBackupStore {
        let config = read("bucket", &[("s3Url", &format!("http://{address}"))], &[]).unwrap();
        let builder = builder(&config, "eu-1", config.endpoint.as_deref(), None);
        let builder = builder.with_client_options(client_options(&config).unwrap());
        let store = builder.with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() }).build().unwrap();
        ObjectBackupStore::new(
            Arc::new(store),
            Options { stream_backoff: Duration::from_millis(1), ..Options::default() },
        )
    }

    #[tokio::test]
    async fn what_a_store_answers_is_told_apart_by_meaning() {
        let store = without_retries(scripted().await).await;
        let failure = async |key| store.get(key, 100).await.unwrap_err();
        assert!(failure("busy").await.is_retryable());
        assert!(failure("throttled").await.is_retryable());
        assert!(matches!(failure("denied").await, Error::Denied { .. }));
        assert!(failure("missing").await.is_not_found());
        assert!(matches!(failure("no-bucket").await, Error::Unusable { .. }));
        assert!(matches!(failure("strange").await, Error::Other { .. }));
        let nobody = without_retries("127.0.0.1:1".parse().unwrap()).await;
        assert!(nobody.get("k", 100).await.unwrap_err().is_retryable());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_read_on_by_range() {
        let store = without_retries(scripted().await).await;
        assert_eq!(store.get("cut", 10).await.unwrap(), "abcdefghij");
    }
}
