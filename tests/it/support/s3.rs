//! An S3 server in the test process: path-style, signatures checked, objects in memory (so keys may be as long as S3
//! allows, 1024 bytes).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest, Sha256};
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;

/// The access key that the server takes.
pub(crate) const ACCESS_KEY: &str = "minio";
/// The secret that belongs to it.
pub(crate) const SECRET_KEY: &str = "minio123";
/// The region to sign for.
pub(crate) const REGION: &str = "us-east-1";

/// A running S3 server on a loopback port; ends when dropped.
///
/// It has a runtime and thread of its own, so that it serves tests with a runtime each and child processes alike.
pub(crate) struct S3Server {
    address: SocketAddr,
    certificate: Option<String>,
    store: Arc<Store>,
    away: Arc<AtomicBool>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl S3Server {
    /// Starts a server with these empty buckets.
    pub(crate) fn start(buckets: &[&str]) -> Self {
        Self::start_with(buckets, None)
    }

    /// Starts a server that speaks TLS, with a certificate that nobody trusts yet.
    pub(crate) fn start_tls(buckets: &[&str]) -> Self {
        Self::start_with(
            buckets,
            Some(rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).expect("a certificate")),
        )
    }

    fn start_with(buckets: &[&str], certified: Option<rcgen::CertifiedKey<rcgen::KeyPair>>) -> Self {
        let certificate = certified.as_ref().map(|certified| certified.cert.pem());
        let acceptor = certified.map(acceptor);
        let store = Arc::new(Store::default());
        store.lock().buckets.extend(buckets.iter().map(|b| ((*b).to_string(), BTreeMap::new())));
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port for the S3 server");
        listener.set_nonblocking(true).expect("a non-blocking socket");
        let address = listener.local_addr().expect("the address just bound");
        let stop = CancellationToken::new();
        let mut service = S3ServiceBuilder::new(Shared(Arc::clone(&store)));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let (stopped, away) = (stop.clone(), Arc::new(AtomicBool::new(false)));
        let is_away = Arc::clone(&away);
        let thread = std::thread::Builder::new()
            .name("s3".to_string())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async move {
                    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                    loop {
                        let (stream, _) = tokio::select! {
                            () = stopped.cancelled() => return,
                            accepted = listener.accept() => match accepted {
                                Ok(accepted) => accepted,
                                Err(_) => continue,
                            },
                        };
                        let (service, is_away, acceptor) = (service.clone(), Arc::clone(&is_away), acceptor.clone());
                        let service = hyper::service::service_fn(move |request| {
                            let (service, is_away) = (service.clone(), is_away.load(Ordering::Relaxed));
                            async move {
                                if is_away {
                                    // The connection is cut without an answer.
                                    return Err(std::io::Error::other("away"));
                                }
                                let answer = hyper::service::Service::call(&service, request).await;
                                answer.map_err(|error| std::io::Error::other(format!("{error:?}")))
                            }
                        });
                        tokio::spawn(async move {
                            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                            // A client that goes away in mid-request, or does not trust us, is its own business.
                            let _ = match acceptor {
                                None => builder.serve_connection(TokioIo::new(stream), service).await,
                                Some(acceptor) => match acceptor.accept(stream).await {
                                    Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
                                    Err(_) => Ok(()),
                                },
                            };
                        });
                    }
                });
            })
            .expect("a thread for the S3 server");
        Self { address, certificate, store, away, stop, thread: Some(thread) }
    }

    /// `http://127.0.0.1:<port>`, or `https` where the server speaks TLS.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate of a server that speaks TLS, PEM.
    pub(crate) fn certificate(&self) -> &str {
        self.certificate.as_deref().expect("a server that speaks TLS")
    }

    /// Goes away (every connection breaks off) while the value is `true`.
    pub(crate) fn away(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.away)
    }

    /// Makes a bucket; one that is there stays as it is.
    pub(crate) fn make_bucket(&self, bucket: &str) {
        self.store.lock().buckets.entry(bucket.to_string()).or_default();
    }

    /// Puts an object without asking for a signature.
    pub(crate) fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) {
        self.make_bucket(bucket);
        self.store.put(bucket, key, body.into(), None);
    }

    /// Puts every file below a folder under `<prefix>/<path>`.
    pub(crate) fn put_folder(&self, folder: &Path, bucket: &str, prefix: &str) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("reading {}: {e}", folder.display())) {
            let path = entry.expect("an entry of the folder").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            let key =
                if prefix.is_empty() { name.to_string() } else { format!("{}/{name}", prefix.trim_end_matches('/')) };
            if path.is_dir() {
                self.put_folder(&path, bucket, &key);
            } else {
                let body = std::fs::read(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
                self.put(bucket, &key, body);
            }
        }
    }

    /// All keys of a bucket with this prefix, sorted.
    pub(crate) fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let inner = self.store.lock();
        let keys = inner.buckets.get(bucket).into_iter().flat_map(BTreeMap::keys);
        keys.filter(|k| k.starts_with(prefix)).cloned().collect()
    }

    /// The content of an object.
    pub(crate) fn get(&self, bucket: &str, key: &str) -> Option<Bytes> {
        Some(self.store.lock().buckets.get(bucket)?.get(key)?.body.clone())
    }

    /// Removes an object; whether it was there.
    pub(crate) fn remove(&self, bucket: &str, key: &str) -> bool {
        self.store.lock().buckets.get_mut(bucket).is_some_and(|b| b.remove(key).is_some())
    }

    /// What Velero's credentials secret holds for this server.
    pub(crate) fn credentials_file() -> String {
        format!("[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n")
    }
}

fn acceptor(certified: rcgen::CertifiedKey<rcgen::KeyPair>) -> TlsAcceptor {
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a certificate with its key");
    TlsAcceptor::from(Arc::new(config))
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Stored {
    body: Bytes,
    etag: String,
    modified: SystemTime,
    content_type: Option<String>,
}

struct Upload {
    key: String,
    bucket: String,
    parts: BTreeMap<i32, (String, Bytes)>,
}

#[derive(Default)]
struct Inner {
    buckets: BTreeMap<String, BTreeMap<String, Stored>>,
    uploads: HashMap<String, Upload>,
}

#[derive(Default)]
struct Store(Mutex<Inner>);

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Into a bucket that is there; `None` where it is not.
    fn put(&self, bucket: &str, key: &str, body: Bytes, content_type: Option<String>) -> Option<String> {
        let etag = digest(&body);
        let stored = Stored { etag: etag.clone(), body, modified: SystemTime::now(), content_type };
        self.lock().buckets.get_mut(bucket)?.insert(key.to_string(), stored);
        Some(etag)
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Stored> {
        let inner = self.lock();
        let objects = inner.buckets.get(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }

    fn page(&self, bucket: &str, prefix: &str, delimiter: &str, after: &str, limit: usize) -> S3Result<Page> {
        let inner = self.lock();
        let objects = inner.buckets.get(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        let mut page = Page::default();
        let mut prefixes = BTreeSet::new();
        for (key, stored) in objects.range(prefix.to_string()..).take_while(|(k, _)| k.starts_with(prefix)) {
            let rest = &key[prefix.len()..];
            let folder = if delimiter.is_empty() { None } else { rest.find(delimiter) }
                .map(|end| format!("{prefix}{}", &rest[..end + delimiter.len()]));
            let mark = folder.as_deref().unwrap_or(key);
            if mark <= after && !after.is_empty() || prefixes.contains(mark) {
                continue;
            }
            if page.objects.len() + prefixes.len() >= limit {
                page.truncated = true;
                break;
            }
            page.last = mark.to_string();
            match folder {
                Some(folder) => drop(prefixes.insert(folder)),
                None => page.objects.push(Object {
                    key: Some(key.clone()),
                    size: i64::try_from(stored.body.len()).ok(),
                    e_tag: Some(ETag::Strong(stored.etag.clone())),
                    last_modified: Some(stored.modified.into()),
                    ..Object::default()
                }),
            }
        }
        page.prefixes = prefixes.into_iter().map(|p| CommonPrefix { prefix: Some(p) }).collect();
        Ok(page)
    }
}

#[derive(Default)]
struct Page {
    objects: Vec<Object>,
    prefixes: Vec<CommonPrefix>,
    truncated: bool,
    last: String,
}

/// S3 promises a tag that changes with the content, not which digest it is.
fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut all = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            all.extend_from_slice(&chunk.map_err(|e| s3_error!(IncompleteBody, "{e}"))?);
        }
    }
    Ok(all.freeze())
}

/// The trait is another crate's and so is `Arc`.
struct Shared(Arc<Store>);

const PAGE: i32 = 1000;

fn page_limit(asked: Option<i32>) -> (i32, usize) {
    let limit = asked.unwrap_or(PAGE).clamp(0, PAGE);
    (limit, usize::try_from(limit).unwrap_or_default())
}

#[async_trait::async_trait]
impl S3 for Shared {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.0.lock().buckets.entry(req.input.bucket).or_default();
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        if !self.0.lock().buckets.contains_key(&req.input.bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        _req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        if matches!(input.if_none_match, Some(ETagCondition::Any)) && self.0.find(&input.bucket, &input.key).is_ok() {
            return Err(s3_error!(PreconditionFailed));
        }
        if let Some(ETagCondition::ETag(wanted)) = &input.if_match
            && self.0.find(&input.bucket, &input.key)?.etag != wanted.value()
        {
            return Err(s3_error!(PreconditionFailed));
        }
        let body = collect(input.body).await?;
        let etag =
            self.0.put(&input.bucket, &input.key, body, input.content_type).ok_or_else(|| s3_error!(NoSuchBucket))?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(ETag::Strong(etag)), ..PutObjectOutput::default() }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let stored = self.0.find(&req.input.bucket, &req.input.key)?;
        let total = stored.body.len() as u64;
        let (body, content_range) = match req.input.range {
            Some(range) => {
                let part = range.check(total).map_err(|_| s3_error!(InvalidRange))?;
                let shown = format!("bytes {}-{}/{total}", part.start, part.end.saturating_sub(1));
                (stored.body.slice(part.start as usize..part.end as usize), Some(shown))
            }
            None => (stored.body, None),
        };
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_string()),
            content_length: i64::try_from(body.len()).ok(),
            content_range,
            content_type: stored.content_type,
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(stored.modified.into()),
            body: Some(StreamingBlob::from(s3s::Body::from(body))),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let stored = self.0.find(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_string()),
            content_length: i64::try_from(stored.body.len()).ok(),
            content_type: stored.content_type,
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(stored.modified.into()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let mut inner = self.0.lock();
        let objects = inner.buckets.get_mut(&req.input.bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        objects.remove(&req.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut inner = self.0.lock();
        let objects = inner.buckets.get_mut(&req.input.bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        let mut deleted = vec![];
        for object in req.input.delete.objects {
            objects.remove(&object.key);
            deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..DeleteObjectsOutput::default() }))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let ListObjectsInput { bucket, prefix, delimiter, marker, max_keys, .. } = req.input;
        let (limit, count) = page_limit(max_keys);
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let page = self.0.page(&bucket, &text(&prefix), &text(&delimiter), &text(&marker), count)?;
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(bucket),
            next_marker: page.truncated.then_some(page.last),
            is_truncated: Some(page.truncated),
            contents: Some(page.objects),
            common_prefixes: Some(page.prefixes),
            max_keys: Some(limit),
            prefix,
            delimiter,
            marker,
            ..ListObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let ListObjectsV2Input { bucket, prefix, delimiter, continuation_token, start_after, max_keys, .. } = req.input;
        let (limit, count) = page_limit(max_keys);
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let after = continuation_token.clone().or_else(|| start_after.clone());
        let page = self.0.page(&bucket, &text(&prefix), &text(&delimiter), &text(&after), count)?;
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(bucket),
            key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
            next_continuation_token: page.truncated.then_some(page.last),
            is_truncated: Some(page.truncated),
            contents: Some(page.objects),
            common_prefixes: Some(page.prefixes),
            max_keys: Some(limit),
            continuation_token,
            start_after,
            prefix,
            delimiter,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let (bucket, key) = (req.input.bucket, req.input.key);
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut inner = self.0.lock();
        if !inner.buckets.contains_key(&bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        let upload = Upload { key: key.clone(), bucket: bucket.clone(), parts: BTreeMap::new() };
        inner.uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let body = collect(req.input.body).await?;
        let etag = digest(&body);
        let mut inner = self.0.lock();
        let upload = inner.uploads.get_mut(&req.input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        upload.parts.insert(req.input.part_number, (etag.clone(), body));
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(ETag::Strong(etag)), ..UploadPartOutput::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let mut whole = BytesMut::new();
        {
            let mut inner = self.0.lock();
            let upload = inner.uploads.get(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
            if upload.key != input.key || upload.bucket != input.bucket {
                return Err(s3_error!(NoSuchUpload));
            }
            for part in input.multipart_upload.and_then(|m| m.parts).unwrap_or_default() {
                let stored =
                    part.part_number.and_then(|n| upload.parts.get(&n)).ok_or_else(|| s3_error!(InvalidPart))?;
                if part.e_tag.is_some_and(|t| t.value() != stored.0) {
                    return Err(s3_error!(InvalidPart));
                }
                whole.extend_from_slice(&stored.1);
            }
            inner.uploads.remove(&input.upload_id);
        }
        let etag =
            self.0.put(&input.bucket, &input.key, whole.freeze(), None).ok_or_else(|| s3_error!(NoSuchBucket))?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.0.lock().uploads.remove(&req.input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
