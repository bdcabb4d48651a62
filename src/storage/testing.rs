//! For tests: what every store must do, and a store that fails, waits and counts.
//!
//! It stands here and not in the tests so that it is kept up with the trait.

#![allow(clippy::unwrap_used, reason = "a contract is broken by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;

use super::{BackupStore, Error, ObjectStream};

/// A store that fails a few times, takes its time, and counts its calls, over another that does the work.
#[derive(Debug)]
pub struct Probe {
    inner: Arc<dyn BackupStore>,
    failures: AtomicU32,
    refuses: bool,
    delay: Duration,
    calls: Mutex<BTreeMap<&'static str, usize>>,
}

impl Probe {
    /// Counts only.
    #[must_use]
    pub fn new(inner: Arc<dyn BackupStore>) -> Self {
        Self { inner, failures: AtomicU32::new(0), refuses: false, delay: Duration::ZERO, calls: Mutex::default() }
    }

    /// Fails the next `count` calls with a passing error.
    #[must_use]
    pub fn failing(self, count: u32) -> Self {
        self.failures.store(count, Ordering::Relaxed);
        self
    }

    /// Refuses the next `count` calls for good.
    #[must_use]
    pub fn refusing(self, count: u32) -> Self {
        Self { refuses: true, ..self.failing(count) }
    }

    /// Waits so long before each call.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// How often a method of [`BackupStore`] was called.
    #[must_use]
    pub fn calls(&self, method: &str) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(method).copied().unwrap_or_default()
    }

    async fn call(&self, method: &'static str, key: &str) -> Result<&dyn BackupStore, Error> {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(method).or_default() += 1;
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let less_one = |left: u32| left.checked_sub(1);
        match self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less_one) {
            Ok(_) if self.refuses => {
                Err(Error::Denied { key: key.to_owned(), source: "made to fail by a test".into() })
            }
            Ok(_) => Err(Error::Transient { key: key.to_owned(), source: "made to fail by a test".into() }),
            Err(_) => Ok(&*self.inner),
        }
    }
}

#[async_trait]
impl BackupStore for Probe {
    async fn exists(&self, key: &str) -> Result<bool, Error> {
        self.call("exists", key).await?.exists(key).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.call("get", key).await?.get(key, limit).await
    }

    async fn stream(&self, key: &str) -> Result<ObjectStream, Error> {
        self.call("stream", key).await?.stream(key).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), Error> {
        self.call("put", key).await?.put(key, body).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        self.call("list", folder).await?.list(folder).await
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        self.call("folders", folder).await?.folders(folder).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.call("delete", key).await?.delete(key).await
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String, Error> {
        self.call("presign_get", key).await?.presign_get(key, ttl).await
    }
}

/// What every store must do. `store` must be empty, and is so again afterwards.
///
/// # Panics
/// When the store does something else.
pub async fn contract(store: Arc<dyn BackupStore>) {
    absence_is_told_from_failure(&*store).await;
    objects_are_written_read_and_overwritten(&*store).await;
    large_objects_are_streamed(&*store).await;
    folders_are_listed_by_whole_names(&*store).await;
    deletion_stays_within_its_folder(&*store).await;
    assert_eq!(store.list("").await.unwrap(), Vec::<String>::new(), "the contract cleans up after itself");
}

async fn absence_is_told_from_failure(store: &dyn BackupStore) {
    assert!(!store.exists("c/none").await.unwrap());
    assert!(store.get("c/none", 10).await.unwrap_err().is_not_found());
    assert!(store.stream("c/none").await.unwrap_err().is_not_found());
    store.delete("c/none").await.unwrap();
    assert_eq!(store.delete_prefix("c/none").await.unwrap(), 0);
    assert_eq!(store.list("c/none/").await.unwrap(), Vec::<String>::new());
    assert_eq!(store.folders("c/none/").await.unwrap(), Vec::<String>::new());
}

async fn objects_are_written_read_and_overwritten(store: &dyn BackupStore) {
    let key = "c/backups/b.1/velero-backup.json";
    for body in [&b"first, and longer"[..], b"second", b""] {
        store.put(key, Bytes::copy_from_slice(body)).await.unwrap();
        assert!(store.exists(key).await.unwrap());
        assert_eq!(store.get(key, body.len() as u64).await.unwrap(), body);
    }
    store.put(key, Bytes::from_static(b"12345")).await.unwrap();
    let error = store.get(key, 4).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 4, .. }), "{error}");
    store.delete(key).await.unwrap();
    assert!(!store.exists(key).await.unwrap());
}

async fn large_objects_are_streamed(store: &dyn BackupStore) {
    let key = "c/large";
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    store.put(key, Bytes::from(body.clone())).await.unwrap();
    let stream = store.stream(key).await.unwrap();
    assert_eq!(stream.size, body.len() as u64);
    let pieces: Vec<Bytes> = stream.bytes.try_collect().await.unwrap();
    assert!(pieces.concat() == body, "the stream has the bytes of the object");
    store.delete(key).await.unwrap();
}

async fn folders_are_listed_by_whole_names(store: &dyn BackupStore) {
    let keys = ["c/b/one/x", "c/b/one/y/z", "c/b/one-more/x", "c/b/two/x", "c/b/file"];
    for key in keys {
        store.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(store.list("c/b/one/").await.unwrap(), ["c/b/one/x", "c/b/one/y/z"]);
    assert_eq!(store.list("c/b/one").await.unwrap(), ["c/b/one/x", "c/b/one/y/z"]);
    assert_eq!(store.folders("c/b/").await.unwrap(), ["one", "one-more", "two"]);
    assert_eq!(store.folders("").await.unwrap(), ["c"]);
    for key in keys {
        store.delete(key).await.unwrap();
    }
}

async fn deletion_stays_within_its_folder(store: &dyn BackupStore) {
    for key in ["c/r/one/a", "c/r/one/b", "c/r/one-more/a"] {
        store.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(store.delete_prefix("c/r/one/").await.unwrap(), 2);
    assert_eq!(store.list("c/").await.unwrap(), ["c/r/one-more/a"]);
    assert!(matches!(store.delete_prefix("/").await, Err(Error::Misconfigured(_))));
    assert_eq!(store.delete_prefix("c/r").await.unwrap(), 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ObjectBackupStore;

    #[tokio::test]
    async fn a_probe_fails_waits_and_counts() {
        let probe = Probe::new(Arc::new(ObjectBackupStore::memory())).failing(2).delayed(Duration::from_millis(20));
        let started = tokio::time::Instant::now();
        assert!(probe.exists("k").await.unwrap_err().is_retryable());
        assert!(probe.exists("k").await.unwrap_err().is_retryable());
        assert!(!probe.exists("k").await.unwrap());
        assert_eq!((probe.calls("exists"), probe.calls("get")), (3, 0));
        assert!(started.elapsed() >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn a_probe_that_does_not_fail_keeps_the_contract() {
        contract(Arc::new(Probe::new(Arc::new(ObjectBackupStore::memory())))).await;
    }
}
