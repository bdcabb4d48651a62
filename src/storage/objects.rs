//! [`BackupStore`] over any `object_store`: S3, a folder, memory.

use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::Method;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutOptions, TagSet};

use super::stream::{Patience, resuming};
use super::{BackupStore, Error, ObjectStream};

/// How long and how often things are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The longest time without a byte of a large object; there is no limit on the whole.
    pub read_timeout: Duration,
    /// How often in a row the rest of a large object is asked for without getting a byte.
    pub stream_retries: u32,
    /// The pause before the first such try; each further one doubles it.
    pub stream_backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { read_timeout: Duration::from_secs(60), stream_retries: 5, stream_backoff: Duration::from_millis(500) }
    }
}

/// A store of objects, as a store of backups.
#[derive(Clone)]
pub struct ObjectBackupStore {
    store: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    tags: TagSet,
    options: Options,
}

impl fmt::Debug for ObjectBackupStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store's own Debug would print its credentials.
        f.debug_tuple("ObjectBackupStore").field(&self.store.to_string()).finish()
    }
}

impl ObjectBackupStore {
    /// A store over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, options: Options) -> Self {
        Self { store, signer: None, tags: TagSet::default(), options }
    }

    /// A store that signs addresses with `signer`.
    #[must_use]
    pub fn with_signer(mut self, signer: Arc<dyn Signer>) -> Self {
        self.signer = Some(signer);
        self
    }

    /// A store that puts tags on what it writes.
    #[must_use]
    pub fn with_tags<'a>(mut self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        tags.into_iter().for_each(|(key, value)| self.tags.push(key, value));
        self
    }

    /// A store in memory, empty at first.
    #[must_use]
    pub fn memory() -> Self {
        Self::new(Arc::new(InMemory::new()), Options::default())
    }

    /// A store in a folder, which must be there. Folders that become empty are removed.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn folder(path: &FilePath) -> Result<Self, Error> {
        let store = LocalFileSystem::new_with_prefix(path)
            .map_err(|error| Error::of(&path.display().to_string(), error))?
            .with_automatic_cleanup(true);
        Ok(Self::new(Arc::new(store), Options::default()))
    }

    fn patience(&self) -> Patience {
        Patience {
            read_timeout: self.options.read_timeout,
            retries: self.options.stream_retries,
            backoff: self.options.stream_backoff,
        }
    }
}

/// The path of a key. Keys with `.`, `..` or empty parts are refused, so that no name leaves the location.
fn path(key: &str) -> Result<Path, Error> {
    Path::parse(key).map_err(|error| Error::Unusable { key: key.to_owned(), source: error.into() })
}

/// The path of a folder, or nothing for the root.
fn folder_path(folder: &str) -> Result<Option<Path>, Error> {
    let folder = folder.trim_matches('/');
    if folder.is_empty() { Ok(None) } else { path(folder).map(Some) }
}

fn body(key: &str, result: GetResult) -> BoxStream<'static, Result<Bytes, Error>> {
    let key = key.to_owned();
    result.into_stream().map_err(move |error| Error::of(&key, error)).boxed()
}

#[async_trait]
impl BackupStore for ObjectBackupStore {
    async fn exists(&self, key: &str) -> Result<bool, Error> {
        match self.store.head(&path(key)?).await.map_err(|error| Error::of(key, error)) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        let too_large = || Error::TooLarge { key: key.to_owned(), limit };
        let ObjectStream { size, mut bytes } = self.stream(key).await?;
        if size > limit {
            return Err(too_large());
        }
        let mut whole = BytesMut::with_capacity(usize::try_from(size).map_err(|_| too_large())?);
        while let Some(piece) = bytes.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn stream(&self, key: &str) -> Result<ObjectStream, Error> {
        let path = path(key)?;
        let first = self.store.get(&path).await.map_err(|error| Error::of(key, error))?;
        let (size, e_tag) = (first.meta.size, first.meta.e_tag.clone());
        let (store, owned) = (Arc::clone(&self.store), key.to_owned());
        let bytes = resuming(key, size, body(key, first), self.patience(), move |position| {
            let (store, path, key, if_match) = (Arc::clone(&store), path.clone(), owned.clone(), e_tag.clone());
            async move {
                // The tag keeps the rest of another object from being glued to the first part of this one.
                let options = GetOptions { range: Some(GetRange::Offset(position)), if_match, ..GetOptions::default() };
                let rest = store.get_opts(&path, options).await.map_err(|error| Error::of(&key, error))?;
                Ok(body(&key, rest))
            }
        });
        Ok(ObjectStream { size, bytes })
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), Error> {
        let options = PutOptions { tags: self.tags.clone(), ..PutOptions::default() };
        let put = self.store.put_opts(&path(key)?, body.into(), options).await;
        put.map(drop).map_err(|error| Error::of(key, error))
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        let prefix = folder_path(folder)?;
        let listed = self.store.list(prefix.as_ref()).map_ok(|meta| meta.location.to_string());
        let mut keys: Vec<String> = listed.try_collect().await.map_err(|error| Error::of(folder, error))?;
        keys.sort_unstable();
        Ok(keys)
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        let prefix = folder_path(folder)?;
        let listed = self.store.list_with_delimiter(prefix.as_ref()).await.map_err(|error| Error::of(folder, error))?;
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.store.delete(&path(key)?).await.map_err(|error| Error::of(key, error)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String, Error> {
        let Some(signer) = &self.signer else {
            return Err(Error::Misconfigured(format!(
                "{} cannot sign addresses; read {key} from it directly",
                self.store
            )));
        };
        let url = signer.signed_url(Method::GET, &path(key)?, ttl).await;
        url.map(String::from).map_err(|error| Error::of(key, error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::testing::contract;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        contract(Arc::new(ObjectBackupStore::memory())).await;
    }

    #[tokio::test]
    async fn a_folder_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        contract(Arc::new(ObjectBackupStore::folder(folder.path()).unwrap())).await;
    }

    #[tokio::test]
    async fn a_missing_folder_is_refused_by_name() {
        let error = ObjectBackupStore::folder(FilePath::new("/no/such/folder")).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }

    #[tokio::test]
    async fn a_key_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        let store = ObjectBackupStore::folder(&inner).unwrap();
        for key in ["../secret", "a/../../secret", "a//b", "./secret"] {
            assert!(matches!(store.get(key, 10).await, Err(Error::Unusable { .. })), "{key}");
        }
    }

    #[tokio::test]
    async fn stores_without_a_signer_say_so() {
        let error = ObjectBackupStore::memory().presign_get("k", Duration::from_mins(10)).await.unwrap_err();
        assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    }
}
