//! A store whose owner said that nothing is written to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BackupStore, Error, ObjectStream};

/// Reads of another store; whatever would change it is [`Error::ReadOnly`], without a request.
///
/// Those who write ask first whether they may, and say why they do not. This is the wall behind them.
#[derive(Debug)]
pub struct ReadOnlyStore(Arc<dyn BackupStore>);

impl ReadOnlyStore {
    /// The reads of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BackupStore>) -> Self {
        Self(store)
    }
}

#[async_trait]
impl BackupStore for ReadOnlyStore {
    async fn exists(&self, key: &str) -> Result<bool, Error> {
        self.0.exists(key).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.0.get(key, limit).await
    }

    async fn stream(&self, key: &str) -> Result<ObjectStream, Error> {
        self.0.stream(key).await
    }

    async fn put(&self, key: &str, _body: Bytes) -> Result<(), Error> {
        Err(Error::ReadOnly { key: key.to_owned() })
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        self.0.list(folder).await
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        self.0.folders(folder).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        Err(Error::ReadOnly { key: key.to_owned() })
    }

    async fn delete_prefix(&self, folder: &str) -> Result<usize, Error> {
        Err(Error::ReadOnly { key: folder.to_owned() })
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String, Error> {
        self.0.presign_get(key, ttl).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::ObjectBackupStore;
    use crate::storage::testing::Probe;

    #[tokio::test]
    async fn what_is_there_is_read_and_nothing_is_changed_or_even_asked_for() {
        let inner = Arc::new(Probe::new(Arc::new(ObjectBackupStore::memory())));
        inner.put("restores/r/log", Bytes::from_static(b"x")).await.unwrap();
        let store = ReadOnlyStore::new(inner.clone());
        assert_eq!(store.get("restores/r/log", 10).await.unwrap(), "x");
        assert!(store.exists("restores/r/log").await.unwrap());
        assert_eq!(store.list("restores/").await.unwrap(), ["restores/r/log"]);
        for refused in [
            store.put("restores/r/log", Bytes::new()).await.unwrap_err(),
            store.delete("restores/r/log").await.unwrap_err(),
            store.delete_prefix("restores/r/").await.unwrap_err(),
        ] {
            assert!(matches!(refused, Error::ReadOnly { .. }) && !refused.is_retryable(), "{refused}");
            assert!(refused.to_string().contains("restores/r/") && refused.to_string().contains("read-only"));
        }
        assert_eq!((inner.calls("put"), inner.calls("delete")), (1, 0));
    }
}
