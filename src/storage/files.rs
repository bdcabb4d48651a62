//! The files beside a backup's tarball, and those that a restore leaves (restore-semantics 2.4, 9.1 to 9.3).
//!
//! All are gzip; all but the logs hold one JSON value and a newline.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{BackupStore, Error, Layout};
use crate::model::Results;
use crate::velero::Backup;
use crate::velero::volume_info::{BackupVolumeInfo, ItemOperation, NativeSnapshot, RestoreVolumeInfo};

/// The most that a side file may have in the store.
pub const MAX_SIDE_FILE: u64 = 64 << 20;

/// The most that a side file may unpack to: gzip makes a thousand bytes of one.
pub const MAX_UNPACKED: u64 = 512 << 20;

/// The most that `velero-backup.json` may have; the API server takes no object of that size.
const MAX_BACKUP_OBJECT: u64 = 8 << 20;

/// What was done with each item, as a file: `v1/Pod` → `ns/name(created)`, sorted (restore-semantics 6.5).
///
/// # Errors
/// Never in practice: texts can always be written.
pub fn resource_list(list: &BTreeMap<String, Vec<String>>) -> io::Result<Bytes> {
    json(list)
}

/// The file of warnings and errors.
///
/// # Errors
/// Never in practice: texts can always be written.
pub fn results(results: &Results) -> io::Result<Bytes> {
    json(results)
}

/// The file of asynchronous operations; `[]` when there were none.
///
/// # Errors
/// When a timestamp cannot be written.
pub fn item_operations(operations: &[ItemOperation]) -> io::Result<Bytes> {
    json(operations)
}

/// The file of restored volumes; `[]` when there were none.
///
/// # Errors
/// Never in practice: texts and numbers can always be written.
pub fn volume_info(volumes: &[RestoreVolumeInfo]) -> io::Result<Bytes> {
    json(volumes)
}

/// The log as a file, read to its end. Blocks.
///
/// # Errors
/// When the log cannot be read.
pub fn log(mut text: impl Read) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    io::copy(&mut text, &mut encoder)?;
    encoder.finish().map(Bytes::from)
}

fn json<T: Serialize + ?Sized>(value: &T) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    serde_json::to_writer(&mut encoder, value)?;
    encoder.write_all(b"\n")?;
    encoder.finish().map(Bytes::from)
}

/// The Backup object of a backup.
///
/// # Errors
/// [`Error::NotFound`] when there is no such backup, [`Error::Corrupt`] when the file is no Backup.
pub async fn backup(store: &dyn BackupStore, layout: &Layout, backup: &str) -> Result<Backup, Error> {
    let key = layout.backup_metadata(backup);
    let body = store.get(&key, MAX_BACKUP_OBJECT).await?;
    serde_json::from_slice(&body).map_err(|error| Error::Corrupt { key, source: error.into() })
}

/// The volumes of a backup; none when the file is not there.
///
/// # Errors
/// [`Error::Corrupt`] when the file is there and cannot be read, which is fatal to a restore (restore-semantics 1.7).
pub async fn backup_volume_info(
    store: &dyn BackupStore,
    layout: &Layout,
    backup: &str,
) -> Result<Vec<BackupVolumeInfo>, Error> {
    list(store, &layout.backup_volume_info(backup)).await
}

/// The native snapshots of a backup; none when the file is not there.
///
/// # Errors
/// As [`backup_volume_info`].
pub async fn backup_volume_snapshots(
    store: &dyn BackupStore,
    layout: &Layout,
    backup: &str,
) -> Result<Vec<NativeSnapshot>, Error> {
    list(store, &layout.backup_volume_snapshots(backup)).await
}

/// The VolumeSnapshots of an older backup, as they are; none when the file is not there.
///
/// # Errors
/// As [`backup_volume_info`].
pub async fn backup_csi_volume_snapshots(
    store: &dyn BackupStore,
    layout: &Layout,
    backup: &str,
) -> Result<Vec<Value>, Error> {
    list(store, &layout.backup_csi_volume_snapshots(backup)).await
}

/// The results of a restore; nothing when they are not there.
///
/// # Errors
/// As [`backup_volume_info`].
pub async fn restore_results(
    store: &dyn BackupStore,
    layout: &Layout,
    restore: &str,
) -> Result<Option<Results>, Error> {
    value(store, &layout.restore_results(restore)).await
}

/// The resource list of a restore; `None` when the file is not there.
///
/// # Errors
/// As [`backup_volume_info`].
pub async fn restore_resource_list(
    store: &dyn BackupStore,
    layout: &Layout,
    restore: &str,
) -> Result<Option<BTreeMap<String, Vec<String>>>, Error> {
    value(store, &layout.restore_resource_list(restore)).await
}

/// The log of a restore; `None` when the file is not there.
///
/// # Errors
/// As [`backup_volume_info`].
pub async fn restore_log(store: &dyn BackupStore, layout: &Layout, restore: &str) -> Result<Option<String>, Error> {
    let key = layout.restore_log(restore);
    let body = match store.get(&key, MAX_SIDE_FILE).await {
        Ok(body) => body,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    match unpack(&body, MAX_UNPACKED) {
        Ok(Some(text)) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Ok(None) => Err(Error::TooLarge { key, limit: MAX_UNPACKED }),
        Err(error) => Err(Error::Corrupt { key, source: error.into() }),
    }
}

/// The asynchronous operations of a restore; none when the file is not there.
///
/// # Errors
/// As [`backup_volume_info`].
pub async fn restore_item_operations(
    store: &dyn BackupStore,
    layout: &Layout,
    restore: &str,
) -> Result<Vec<ItemOperation>, Error> {
    list(store, &layout.restore_item_operations(restore)).await
}

/// Go writes a nil list as `null`.
async fn list<T: DeserializeOwned>(store: &dyn BackupStore, key: &str) -> Result<Vec<T>, Error> {
    Ok(value::<Option<Vec<T>>>(store, key).await?.flatten().unwrap_or_default())
}

/// The value in a file, or nothing where there is no file. It is not asked beforehand whether there is one.
async fn value<T: DeserializeOwned>(store: &dyn BackupStore, key: &str) -> Result<Option<T>, Error> {
    let body = match store.get(key, MAX_SIDE_FILE).await {
        Ok(body) => body,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let corrupt = |source: super::Source| Error::Corrupt { key: key.to_owned(), source };
    let text = unpack(&body, MAX_UNPACKED)
        .map_err(|error| corrupt(error.into()))?
        .ok_or_else(|| Error::TooLarge { key: key.to_owned(), limit: MAX_UNPACKED })?;
    serde_json::from_slice(&text).map(Some).map_err(|error| corrupt(error.into()))
}

/// What is in a gzip; nothing when it is more than `limit` bytes.
fn unpack(body: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    MultiGzDecoder::new(body).take(limit + 1).read_to_end(&mut text)?;
    Ok((text.len() as u64 <= limit).then_some(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::{Bucket, Finding, Severity};
    use crate::storage::ObjectBackupStore;

    fn text(file: io::Result<Bytes>) -> String {
        String::from_utf8(unpack(&file.unwrap(), 1 << 20).unwrap().unwrap()).unwrap()
    }

    /// restore-semantics 9.2
    #[test]
    fn results_are_one_json_object_and_a_newline() {
        let mut found = Results::default();
        found.add(Finding { severity: Severity::Warning, bucket: Bucket::of("n"), message: "m".into() });
        assert_eq!(text(results(&found)), "{\"errors\":{},\"warnings\":{\"namespaces\":{\"n\":[\"m\"]}}}\n");
    }

    /// restore-semantics 9.3 and 6.5
    #[test]
    fn empty_lists_are_written_as_such() {
        assert_eq!(text(item_operations(&[])), "[]\n");
        assert_eq!(text(volume_info(&[])), "[]\n");
        assert_eq!(text(resource_list(&BTreeMap::new())), "{}\n");
        assert_eq!(text(log(&b""[..])), "");
    }

    #[test]
    fn what_unpacks_to_too_much_is_not_kept() {
        let bomb = log(&vec![0; 4096][..]).unwrap();
        assert!(unpack(&bomb, 4095).unwrap().is_none());
        assert_eq!(unpack(&bomb, 4096).unwrap().unwrap().len(), 4096);
    }

    /// restore-semantics 2.1, last sentence, and 1.7
    #[tokio::test]
    async fn side_files_that_are_not_there_are_empty() {
        let (store, layout) = (ObjectBackupStore::memory(), Layout::new("p"));
        assert_eq!(backup_volume_info(&store, &layout, "b").await.unwrap(), []);
        assert_eq!(backup_volume_snapshots(&store, &layout, "b").await.unwrap(), []);
        assert_eq!(backup_csi_volume_snapshots(&store, &layout, "b").await.unwrap(), Vec::<Value>::new());
        assert_eq!(restore_results(&store, &layout, "r").await.unwrap(), None);
        assert!(backup(&store, &layout, "b").await.unwrap_err().is_not_found());
    }

    /// restore-semantics 1.7
    #[tokio::test]
    async fn a_damaged_side_file_is_an_error_with_its_key() {
        let (store, layout) = (ObjectBackupStore::memory(), Layout::new(""));
        let key = layout.backup_volume_info("b");
        let whole = json(&[BackupVolumeInfo::default()]).unwrap();
        for body in [Bytes::from_static(b"no gzip"), whole.slice(..whole.len() - 9), log(&b"{"[..]).unwrap()] {
            store.put(&key, body).await.unwrap();
            let error = backup_volume_info(&store, &layout, "b").await.unwrap_err();
            assert!(matches!(&error, Error::Corrupt { .. }) && error.to_string().contains(&key), "{error}");
        }
        store.put(&key, whole).await.unwrap();
        assert_eq!(backup_volume_info(&store, &layout, "b").await.unwrap().len(), 1);
        store.put(&key, log(&b"null\n"[..]).unwrap()).await.unwrap();
        assert_eq!(backup_volume_info(&store, &layout, "b").await.unwrap(), []);
    }

    #[tokio::test]
    async fn the_backup_object_is_read() {
        let (store, layout) = (ObjectBackupStore::memory(), Layout::new(""));
        let body = r#"{"kind":"Backup","apiVersion":"velero.io/v1","metadata":{"name":"b","managedFields":[]},
            "spec":{"metadata":{},"ttl":"720h0m0s","hooks":{},"storageLocation":"default"},
            "status":{"version":1,"formatVersion":"1.1.0","phase":"Completed","hookStatus":{}}}"#;
        store.put(&layout.backup_metadata("b"), Bytes::from_static(body.as_bytes())).await.unwrap();
        let read = backup(&store, &layout, "b").await.unwrap();
        assert_eq!(read.spec.storage_location, "default");
        assert_eq!(read.status.unwrap().format_version, "1.1.0");
    }
}
