//! The sample as a backup folder in a store, with all the files Velero writes (restore-semantics 2.1).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::draft::{Forge, timestamp};
use super::{SampleOptions, objects};
use crate::archive::{Writer, WriterOptions};
use crate::model::{GroupResource, names};

/// Why a sample cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup's name would not do for a Kubernetes object, or for a folder.
    #[error("{0:?} is no name for a backup: use lower-case letters, digits, '-' and '.'")]
    Name(String),
    /// A file of the backup.
    #[error("write {path}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleSummary {
    /// The backup's folder.
    pub folder: PathBuf,
    /// The tarball in it.
    pub tarball: PathBuf,
    /// Size of the tarball.
    pub tarball_bytes: u64,
    /// How many objects there are.
    pub items: usize,
    /// How many of each group-resource.
    pub group_resources: BTreeMap<GroupResource, usize>,
    /// The namespaces with objects.
    pub namespaces: BTreeSet<String>,
}

/// Writes `backups/<name>/` below the root of a store. `velero-backup.json`, by which a backup is known to exist, comes last.
///
/// # Errors
/// A name that will not do, or trouble with the folder.
pub fn write_backup(store: &Path, options: &SampleOptions) -> Result<SampleSummary, Error> {
    let name = &options.name;
    if !names::is_dns_subdomain(name) {
        return Err(Error::Name(name.clone()));
    }
    let folder = store.join("backups").join(name);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    fs::create_dir_all(&folder).map_err(at(&folder))?;

    let tarball = folder.join(format!("{name}.tar.gz"));
    let mut summary = SampleSummary {
        folder: folder.clone(),
        tarball: tarball.clone(),
        tarball_bytes: 0,
        items: 0,
        group_resources: BTreeMap::new(),
        namespaces: BTreeSet::new(),
    };
    let resource_list = write_tarball(&tarball, options, &mut summary).map_err(at(&tarball))?;
    summary.tarball_bytes = fs::metadata(&tarball).map_err(at(&tarball))?.len();

    let results = json!({"errors": {}, "warnings": {}}).to_string() + "\n";
    let resource_list = json!(resource_list).to_string() + "\n";
    for (suffix, content) in [
        ("itemoperations.json", "[]\n"),
        ("logs", log(options, summary.items).as_str()),
        ("podvolumebackups.json", "null\n"),
        ("resource-list.json", resource_list.as_str()),
        ("results", results.as_str()),
        ("volumeinfo.json", "[]\n"),
        ("volumesnapshots.json", "null\n"),
    ] {
        let path = folder.join(format!("{name}-{suffix}.gz"));
        gzip(content).and_then(|bytes| fs::write(&path, bytes)).map_err(at(&path))?;
    }
    let path = folder.join("velero-backup.json");
    fs::write(&path, format!("{:#}", backup(options, summary.items))).map_err(at(&path))?;
    Ok(summary)
}

/// Writes the items and returns the resource list: names by `apiVersion/Kind`.
fn write_tarball(
    path: &Path,
    options: &SampleOptions,
    summary: &mut SampleSummary,
) -> io::Result<BTreeMap<String, BTreeSet<String>>> {
    let modified = u64::try_from(options.taken_at).unwrap_or(0);
    let file = BufWriter::new(File::create(path)?);
    let mut writer = Writer::with_options(file, WriterOptions { modified, ..WriterOptions::default() })?;
    let mut resource_list: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (group_resource, object) in objects(options) {
        writer.item(&group_resource, &object)?;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let full_name = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        resource_list.entry(format!("{}/{}", text("/apiVersion"), text("/kind"))).or_default().insert(full_name);
        if !namespace.is_empty() {
            summary.namespaces.insert(namespace.to_owned());
        }
        *summary.group_resources.entry(group_resource).or_default() += 1;
        summary.items += 1;
    }
    writer.finish()?.flush()?;
    Ok(resource_list)
}

fn gzip(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

/// How long the backup is said to have taken, in seconds.
const DURATION: i64 = 42;

/// The log, in the form of Velero's (restore-semantics 9.1).
fn log(options: &SampleOptions, items: usize) -> String {
    let line = |seconds: i64, message: &str| {
        let time = timestamp(options.taken_at - DURATION + seconds);
        format!("time=\"{time}\" level=info msg=\"{message}\" backup=velero/{}\n", options.name)
    };
    [
        line(0, "Setting up backup temp file"),
        line(1, "Writing backup version file"),
        line(1, "Including namespaces: *"),
        line(1, "Excluding namespaces: <none>"),
        line(DURATION, &format!("Backed up a total of {items} items")),
    ]
    .concat()
}

/// The Backup object.
fn backup(options: &SampleOptions, items: usize) -> Value {
    let forge = Forge { seed: options.seed, taken_at: options.taken_at };
    let started = forge.time(DURATION);
    json!({
        "apiVersion": "velero.io/v1",
        "kind": "Backup",
        "metadata": {
            "name": options.name,
            "namespace": "velero",
            "uid": forge.uid("backups.velero.io", "velero", &options.name),
            "resourceVersion": "91000000",
            "generation": 9,
            "creationTimestamp": started,
            "labels": {"velero.io/storage-location": "default"},
            "annotations": {
                "velero.io/resource-timeout": "10m0s",
                "velero.io/source-cluster-k8s-gitversion": "v1.36.1",
                "velero.io/source-cluster-k8s-major-version": "1",
                "velero.io/source-cluster-k8s-minor-version": "36",
            },
        },
        "spec": {
            "metadata": {},
            "includedNamespaces": ["*"],
            "snapshotVolumes": false,
            "ttl": "720h0m0s",
            "volumeGroupSnapshotLabelKey": "velero.io/volume-group",
            "includeClusterResources": true,
            "hooks": {},
            "storageLocation": "default",
            "defaultVolumesToFsBackup": false,
            "csiSnapshotTimeout": "10m0s",
            "itemOperationTimeout": "4h0m0s",
            "snapshotMoveData": false,
        },
        "status": {
            "version": 1,
            "formatVersion": "1.1.0",
            "expiration": forge.time(-720 * 3600),
            "phase": "Completed",
            "startTimestamp": started,
            "completionTimestamp": forge.time(0),
            "progress": {"totalItems": items, "itemsBackedUp": items},
            "hookStatus": {},
        },
    })
}
