//! What is needed of a place that holds backups.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::Error;

/// A large object on its way.
pub struct ObjectStream {
    /// How many bytes there are in all.
    pub size: u64,
    /// The bytes, in order. After an error nothing follows; the end without one means that all `size` bytes came.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

impl fmt::Debug for ObjectStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStream").field("size", &self.size).finish_non_exhaustive()
    }
}

/// A bucket, or something like one. Keys are whole: [`super::Layout`] puts the prefix into them.
#[async_trait]
pub trait BackupStore: fmt::Debug + Send + Sync {
    /// Whether there is such an object.
    async fn exists(&self, key: &str) -> Result<bool, Error>;

    /// A whole object; [`Error::TooLarge`] when it has more than `limit` bytes.
    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error>;

    /// A large object in pieces. A passing failure is met by asking for the rest, a bounded number of times.
    async fn stream(&self, key: &str) -> Result<ObjectStream, Error>;

    /// Writes a whole object, over one that is there.
    async fn put(&self, key: &str, body: Bytes) -> Result<(), Error>;

    /// The keys of all objects below `folder`, sorted; empty for the whole bucket.
    async fn list(&self, folder: &str) -> Result<Vec<String>, Error>;

    /// The names of the folders directly below `folder`, sorted.
    async fn folders(&self, folder: &str) -> Result<Vec<String>, Error>;

    /// Removes an object; one that is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), Error>;

    /// Removes everything below `folder` and returns how many objects that were.
    async fn delete_prefix(&self, folder: &str) -> Result<usize, Error> {
        // An empty folder would mean the whole bucket, which nobody ever wants to lose.
        if folder.trim_matches('/').is_empty() {
            return Err(Error::Misconfigured("refusing to delete a whole backup location".to_owned()));
        }
        let keys = self.list(folder).await?;
        for key in &keys {
            self.delete(key).await?;
        }
        Ok(keys.len())
    }

    /// An address that anyone can read the object at, for so long. It is not checked that the object is there.
    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String, Error>;
}
