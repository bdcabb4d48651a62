//! The folder of one backup as a store, so that its files are found under the keys they have in a bucket.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::storage::{BackupStore, Error, Layout, ObjectStream};

/// A store whose root is the folder of one backup. Nothing else is in it, and nothing is written.
#[derive(Debug)]
pub(super) struct OneBackup {
    folder: Arc<dyn BackupStore>,
    prefix: String,
}

impl OneBackup {
    /// The backup of this name in this folder.
    pub(super) fn new(folder: Arc<dyn BackupStore>, name: &str) -> Self {
        Self { folder, prefix: Layout::default().backup_folder(name) }
    }

    fn key<'a>(&self, key: &'a str) -> Result<&'a str, Error> {
        key.strip_prefix(&self.prefix)
            .ok_or_else(|| Error::Misconfigured(format!("{key:?} is not a file of this backup; nothing else is here")))
    }
}

/// A restore on the spot only reads.
fn read_only<T>() -> Result<T, Error> {
    Err(Error::Misconfigured("the folder of a backup is only read".to_owned()))
}

#[async_trait]
impl BackupStore for OneBackup {
    async fn exists(&self, key: &str) -> Result<bool, Error> {
        self.folder.exists(self.key(key)?).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.folder.get(self.key(key)?, limit).await
    }

    async fn stream(&self, key: &str) -> Result<ObjectStream, Error> {
        self.folder.stream(self.key(key)?).await
    }

    async fn put(&self, _: &str, _: Bytes) -> Result<(), Error> {
        read_only()
    }

    async fn list(&self, _: &str) -> Result<Vec<String>, Error> {
        read_only()
    }

    async fn folders(&self, _: &str) -> Result<Vec<String>, Error> {
        read_only()
    }

    async fn delete(&self, _: &str) -> Result<(), Error> {
        read_only()
    }

    async fn presign_get(&self, _: &str, _: Duration) -> Result<String, Error> {
        read_only()
    }
}
