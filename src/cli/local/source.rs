//! Where `--from` points to: a tarball, the folder of a backup, or a backup in a bucket.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use futures::TryStreamExt as _;
use serde_json::Value;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::one_backup::OneBackup;
use crate::archive::{self, Archive, ReadOptions};
use crate::controller::convert;
use crate::engine::BackupVolumes;
use crate::model::names::is_dns_subdomain;
use crate::storage::credentials::{self, CredentialsSource};
use crate::storage::{self, BackupStore, ClientConfig, Inputs, Layout, ObjectBackupStore, files};
use crate::velero::{Backup, BackupStorageLocationSpec, ObjectStorageLocation, PodVolumeBackup};

/// The Backup object in the folder of a backup.
const METADATA: &str = "velero-backup.json";

/// Largest `velero-backup.json` that is read; etcd would not have taken one of 2 MiB.
const MAX_METADATA: u64 = 4 << 20;

/// A backup that was found.
pub(super) struct Source {
    /// Its name: its own, or that of the tarball's file.
    pub(super) name: String,
    /// The Backup object; a tarball alone has none.
    pub(super) backup: Option<Backup>,
    content: Content,
}

enum Content {
    Tarball(PathBuf),
    Stored { store: Arc<dyn BackupStore>, layout: Layout },
}

/// What the files beside the tarball tell of volumes.
#[derive(Default)]
pub(super) struct Volumes {
    /// For the engine.
    pub(super) volumes: BackupVolumes,
    /// How many pod volumes have a copy of their files, which only a node agent can bring back.
    pub(super) pod_volume_backups: usize,
}

/// A place that holds no backup, or not one that can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is nothing.
    #[error("--from: read {path:?}")]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder with something else in it.
    #[error("--from: {path:?} is no folder of a backup, as {METADATA} is missing{}", hint(.backups))]
    NoBackup {
        /// The folder.
        path: PathBuf,
        /// Backups below it.
        backups: Vec<String>,
    },
    /// The Backup object cannot be read.
    #[error("--from: {what} is no Backup object")]
    Metadata {
        /// The file.
        what: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// An address of a kind that is not supported.
    #[error(
        "--from: {0:?} cannot be opened: want a tarball, the folder of a backup, or s3://BUCKET/[PREFIX/]backups/NAME; download others first"
    )]
    Scheme(String),
    /// An S3 address that does not name a backup.
    #[error("--from: {0:?} names no backup: want s3://BUCKET/[PREFIX/]backups/NAME")]
    Address(String),
    /// The file with credentials cannot be read.
    #[error("read the credentials file {path:?}")]
    Credentials {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bucket, or a file in it.
    #[error("--from")]
    Storage(#[from] storage::Error),
}

fn hint(backups: &[String]) -> String {
    match backups {
        [] => String::new(),
        names => format!("; there are backups below it: {}", names.join(", ")),
    }
}

impl Source {
    /// Finds the backup.
    pub(super) async fn open(from: &str, environment: &BTreeMap<String, String>) -> Result<Self, Error> {
        match from.split_once("://") {
            Some(("s3", rest)) => Self::in_bucket(from, rest, environment).await,
            Some(("file", path)) => Self::in_files(Path::new(path)),
            Some(_) => Err(Error::Scheme(from.to_owned())),
            None => Self::in_files(Path::new(from)),
        }
    }

    fn in_files(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(read)?.is_dir() {
            // Opened once, so that trouble is told before a restore begins.
            File::open(path).map_err(read)?;
            let content = Content::Tarball(path.to_owned());
            return Ok(Self { name: name_of_tarball(path), backup: None, content });
        }
        let metadata = path.join(METADATA);
        let text = match fs::read(&metadata) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoBackup { path: path.to_owned(), backups: backups_below(path) });
            }
            Err(source) => return Err(Error::Read { path: metadata, source }),
        };
        let backup = backup_of(&text, &metadata.display().to_string())?;
        let folder = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = backup.metadata.name.clone().filter(|name| !name.is_empty()).unwrap_or(folder);
        let store = OneBackup::new(Arc::new(ObjectBackupStore::folder(path)?), &name);
        let content = Content::Stored { store: Arc::new(store), layout: Layout::default() };
        Ok(Self { name, backup: Some(backup), content })
    }

    async fn in_bucket(from: &str, rest: &str, environment: &BTreeMap<String, String>) -> Result<Self, Error> {
        let wrong = || Error::Address(from.to_owned());
        let Address { bucket, prefix, name } = Address::parse(rest).ok_or_else(wrong)?;
        let location = location(bucket, prefix, environment);
        let mut text = None;
        for source in credentials::sources(&location, environment) {
            // There is no cluster to take a Secret from.
            let CredentialsSource::File { path, optional } = source else { continue };
            match fs::read_to_string(&path) {
                Ok(found) => text = Some(found),
                Err(_) if optional => {}
                Err(source) => return Err(Error::Credentials { path, source }),
            }
            break;
        }
        let inputs = Inputs { credentials: text.as_deref(), ..Inputs::of(environment) };
        let config = ClientConfig::from_location(&location, inputs)?;
        let store = storage::open(&config).await?;
        let layout = config.layout();
        let key = layout.backup_metadata(name);
        let backup = backup_of(&store.get(&key, MAX_METADATA).await?, &key)?;
        Ok(Self { name: name.to_owned(), backup: Some(backup), content: Content::Stored { store, layout } })
    }

    /// What the files beside the tarball tell of volumes; nothing where there is only the tarball.
    pub(super) async fn volumes(&self) -> Result<Volumes, Error> {
        let Content::Stored { store, layout } = &self.content else { return Ok(Volumes::default()) };
        let (store, name) = (&**store, self.name.as_str());
        let native = files::backup_volume_snapshots(store, layout, name).await?;
        let infos = files::backup_volume_info(store, layout, name).await?;
        let csi = files::backup_csi_volume_snapshots(store, layout, name).await?;
        let pod_volumes = pod_volume_backups(store, &layout.backup_pod_volume_backups(name)).await?;
        let claims = csi.iter().filter_map(|snapshot: &Value| {
            let text = |pointer: &str| snapshot.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            text("/metadata/namespace").zip(text("/spec/source/persistentVolumeClaimName"))
        });
        let volumes = convert::backup_volumes(&infos, &native, &pod_volumes, claims);
        Ok(Volumes { volumes, pod_volume_backups: pod_volumes.len() })
    }

    /// Reads the tarball, in one pass.
    pub(super) async fn read(&self, options: ReadOptions) -> Result<Archive, archive::Error> {
        let reader: Box<dyn Read + Send> = match &self.content {
            Content::Tarball(path) => Box::new(BufReader::new(File::open(path).map_err(archive::Error::Source)?)),
            Content::Stored { store, layout } => {
                let stream = store.stream(&layout.backup_contents(&self.name)).await;
                let stream = stream.map_err(|error| archive::Error::Source(io::Error::other(error)))?;
                Box::new(SyncIoBridge::new(StreamReader::new(stream.bytes.map_err(io::Error::other))))
            }
        };
        let read = tokio::task::spawn_blocking(move || Archive::read(reader, &options));
        read.await.unwrap_or_else(|error| Err(archive::Error::Source(io::Error::other(error))))
    }
}

/// Go writes a nil list as `null`.
async fn pod_volume_backups(store: &dyn BackupStore, key: &str) -> Result<Vec<PodVolumeBackup>, Error> {
    let body = match store.get(key, files::MAX_SIDE_FILE).await {
        Ok(body) => body,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    let corrupt =
        |source: Box<dyn std::error::Error + Send + Sync>| storage::Error::Corrupt { key: key.to_owned(), source };
    let unpacked = MultiGzDecoder::new(&*body).take(files::MAX_UNPACKED).read_to_end(&mut text);
    unpacked.map_err(|error| corrupt(error.into()))?;
    let list: Option<Vec<PodVolumeBackup>> = serde_json::from_slice(&text).map_err(|error| corrupt(error.into()))?;
    Ok(list.unwrap_or_default())
}

fn backup_of(text: &[u8], what: &str) -> Result<Backup, Error> {
    serde_json::from_slice(text).map_err(|source| Error::Metadata { what: what.to_owned(), source })
}

/// `velero backup download` calls the tarball of `nightly` `nightly-data.tar.gz`.
fn name_of_tarball(path: &Path) -> String {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = [".tar.gz", ".tgz", ".gz"].iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(&file);
    let stem = stem.strip_suffix("-data").unwrap_or(stem).to_lowercase();
    // Restores are named after it, and labels on what they create.
    let is_fit = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '.';
    let name: String = stem.chars().map(|letter| if is_fit(letter) { letter } else { '-' }).collect();
    let name = name.trim_matches(['-', '.']);
    if is_dns_subdomain(name) { name.to_owned() } else { "backup".to_owned() }
}

/// Backups that may have been meant: in the folder itself, or in its `backups`.
fn backups_below(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = [folder.to_owned(), folder.join("backups")]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path())
        .filter(|path| path.join(METADATA).exists())
        .map(|path| path.display().to_string())
        .collect();
    found.sort();
    found.truncate(20);
    found
}

/// A backup in a bucket.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    bucket: &'a str,
    prefix: &'a str,
    name: &'a str,
}

impl<'a> Address<'a> {
    /// Takes `BUCKET/[PREFIX/]backups/NAME` apart.
    fn parse(text: &'a str) -> Option<Self> {
        let (bucket, path) = text.trim_end_matches('/').split_once('/')?;
        let (folder, name) = path.rsplit_once('/')?;
        let prefix = folder.strip_suffix("backups")?;
        let is_whole = prefix.is_empty() || prefix.ends_with('/');
        let prefix = prefix.trim_end_matches('/');
        (is_whole && !bucket.is_empty() && !name.is_empty()).then_some(Self { bucket, prefix, name })
    }
}

/// The location that stands for an address; AWS's own environment variables say how the store is reached.
fn location(bucket: &str, prefix: &str, environment: &BTreeMap<String, String>) -> BackupStorageLocationSpec {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
    let mut config = BTreeMap::new();
    if let Some(endpoint) = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL")) {
        config.insert("s3Url".to_owned(), endpoint);
        // What is not AWS seldom has a host for each bucket.
        config.insert("s3ForcePathStyle".to_owned(), "true".to_owned());
    }
    BackupStorageLocationSpec {
        provider: "aws".to_owned(),
        config,
        object_storage: ObjectStorageLocation {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            ..ObjectStorageLocation::default()
        },
        ..BackupStorageLocationSpec::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::model::error_chain;

    async fn refusal(from: &str) -> String {
        error_chain(&Source::open(from, &BTreeMap::new()).await.err().unwrap())
    }

    #[test]
    fn an_address_has_a_bucket_perhaps_a_prefix_and_a_name() {
        let parse = |text| Address::parse(text).map(|Address { bucket, prefix, name }| (bucket, prefix, name));
        assert_eq!(parse("b/backups/n"), Some(("b", "", "n")));
        assert_eq!(parse("b/p/q/backups/n/"), Some(("b", "p/q", "n")));
        for wrong in ["b", "b/n", "b/backups", "b/mybackups/n", "/backups/n"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_tarball_is_called_after_its_backup() {
        for (file, name) in [
            ("a/nightly.tar.gz", "nightly"),
            ("nightly-data.tar.gz", "nightly"),
            ("x.tgz", "x"),
            ("My Backup_2.tar.gz", "my-backup-2"),
            ("...", "backup"),
            ("y", "y"),
        ] {
            assert_eq!(name_of_tarball(Path::new(file)), name);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_named_with_the_way_out() {
        assert!(refusal("no/such/file.tar.gz").await.starts_with("--from: read \"no/such/file.tar.gz\": "));
        assert!(refusal("gs://bucket/backups/n").await.contains("download others first"));
        assert!(refusal("s3://bucket/n").await.contains("s3://BUCKET/[PREFIX/]backups/NAME"));
    }

    #[tokio::test]
    async fn the_folder_above_names_the_backups_below() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("backups/nightly");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(METADATA), r#"{"metadata":{"name":"nightly"},"spec":{}}"#).unwrap();
        let refused = refusal(&store.path().display().to_string()).await;
        assert!(refused.contains("backups/nightly"), "{refused}");
        let found = Source::open(&folder.display().to_string(), &BTreeMap::new()).await.unwrap();
        assert_eq!((found.name.as_str(), found.backup.is_some()), ("nightly", true));
    }
}
