//! What a service works on: a Kubernetes API with a Velero namespace, and a backup location.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, Method, Request};
use reprise::app::{Backend, Options};
use reprise::archive;
use reprise::archive::testing::Backup;
use reprise::engine::Settings;
use reprise::sandbox::{self, Sandbox};
use serde_json::{Value, json};

use super::served::Served;
use crate::support::control_plane::ADMIN_TOKEN;
use crate::support::namespace::Namespace;
use crate::support::s3::S3Server;
use crate::support::{self, ControlPlane};

/// A JSON file as Velero packs it.
pub(super) fn gzip(content: &Value) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(content.to_string().as_bytes()).unwrap();
    packed.finish().unwrap()
}

/// The bucket of worlds with an S3 server.
const BUCKET: &str = "backups-of-a-test";

/// The files that every restore leaves (restore-semantics 9.1).
pub(super) fn files_of(restore: &str) -> Vec<String> {
    let mut files = vec![format!("restores/{restore}/{restore}-volumeinfo.json.gz")];
    for suffix in ["itemoperations.json.gz", "logs.gz", "resource-list.json.gz", "results.gz"] {
        files.push(format!("restores/{restore}/restore-{restore}-{suffix}"));
    }
    files.sort();
    files
}

/// A Kubernetes API with a Velero namespace and a backup location `default`.
pub(super) struct World {
    /// A client of the API, as a user has one.
    pub(super) client: kube::Client,
    namespace: String,
    store: Store,
    // Dropped last, in this order: the namespace is told to go while the control plane still runs.
    _namespace: Option<Namespace>,
    cluster: Option<Arc<ControlPlane>>,
}

enum Store {
    Folder(tempfile::TempDir),
    S3(S3Server),
}

impl World {
    /// The sandbox, with backups in a folder.
    pub(super) async fn sandbox() -> Self {
        let store = tempfile::tempdir().unwrap();
        let location = json!({
            "provider": "filesystem", "default": true, "config": {"path": store.path()},
            "objectStorage": {"bucket": ""},
        });
        let world = Self::sandbox_with(Store::Folder(store)).await;
        world.create_location(location).await;
        world
    }

    /// The sandbox, with backups in an S3 bucket.
    pub(super) async fn sandbox_with_bucket() -> Self {
        let s3 = S3Server::start(&[BUCKET]);
        let location = location_of(&s3);
        let world = Self::sandbox_with(Store::S3(s3)).await;
        world.create_credentials().await;
        world.create_location(location).await;
        world
    }

    async fn sandbox_with(store: Store) -> Self {
        let mut crds: Vec<Value> =
            reprise::velero::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        // Without this kind every restore ends with a warning (restore-semantics 5.14 step 4).
        let group_snapshots = support::tests_dir().join("conformance/vgsc-crd.yaml");
        crds.push(serde_yaml_ng::from_str(&std::fs::read_to_string(group_snapshots).unwrap()).unwrap());
        let sandbox = Sandbox::try_new(sandbox::Options { crds, ..sandbox::Options::default() }).unwrap();
        let world =
            Self { client: sandbox.client(), namespace: "velero".to_owned(), store, _namespace: None, cluster: None };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "velero"}});
        world.create("/api/v1/namespaces", &namespace).await;
        world
    }

    /// The real API server, with a Velero namespace of the test's own and backups in an S3 bucket; `None` where
    /// cluster tests are switched off.
    pub(super) async fn cluster(subject: &str) -> Option<Self> {
        Some(Self::on(support::cluster().await?, subject).await)
    }

    /// The same on this control plane.
    pub(super) async fn on(cluster: Arc<ControlPlane>, subject: &str) -> Self {
        let client = cluster.client().await;
        let namespace = support::namespace(&client, &format!("velero-{subject}")).await;
        let s3 = S3Server::start(&[BUCKET]);
        let location = location_of(&s3);
        let world = Self {
            client,
            namespace: namespace.name().to_owned(),
            store: Store::S3(s3),
            _namespace: Some(namespace),
            cluster: Some(cluster),
        };
        world.create_credentials().await;
        world.create_location(location).await;
        world
    }

    async fn create_credentials(&self) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"},
            "stringData": {"cloud": S3Server::credentials_file()},
        });
        self.create(&format!("/api/v1/namespaces/{}/secrets", self.namespace), &secret).await;
    }

    /// Switches the S3 server of the bucket off and on.
    pub(super) fn bucket_is_away(&self) -> Arc<AtomicBool> {
        match &self.store {
            Store::Folder(_) => panic!("a folder is always there"),
            Store::S3(s3) => s3.away(),
        }
    }

    /// Puts something before the S3 server, which it is given the address of.
    pub(super) async fn put_before_storage<R: Future<Output = String>>(&self, front: impl FnOnce(String) -> R) {
        let Store::S3(s3) = &self.store else { panic!("backups are in a folder") };
        let patch = json!({"spec": {"config": {"s3Url": front(s3.url()).await}}});
        self.ask(Method::PATCH, &self.velero("backupstoragelocations/default"), Some(&patch)).await.unwrap();
    }

    async fn create_location(&self, spec: Value) {
        let location = json!({
            "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": {"name": "default"},
            "spec": spec, "status": {"phase": "Available"},
        });
        self.create(&self.velero("backupstoragelocations"), &location).await;
    }

    /// A client of the API for a user of this name, who has no rights but what is bound to the name. Not in the sandbox.
    pub(super) async fn client_as(&self, user: &str) -> kube::Client {
        let cluster = self.cluster.as_ref().expect("the sandbox knows no users");
        let mut config = cluster.config(ADMIN_TOKEN).await;
        config.headers.push((HeaderName::from_static("impersonate-user"), HeaderValue::from_str(user).unwrap()));
        kube::Client::try_from(config).unwrap()
    }

    /// The path of a resource of Velero's namespace, or of one object.
    pub(super) fn velero(&self, resource: &str) -> String {
        format!("/apis/velero.io/v1/namespaces/{}/{resource}", self.namespace)
    }

    /// Velero's namespace.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Sends a request to the API.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> kube::Result<Value> {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| serde_json::to_vec(body).unwrap()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        self.client.request(request.body(body).unwrap()).await
    }

    /// Creates an object, which must succeed.
    pub(super) async fn create(&self, path: &str, object: &Value) -> Value {
        let created = self.ask(Method::POST, path, Some(object)).await;
        created.unwrap_or_else(|error| panic!("creating at {path}: {error}"))
    }

    /// An object; `None` where there is none.
    pub(super) async fn get(&self, path: &str) -> Option<Value> {
        match self.ask(Method::GET, path, None).await {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// The Restore object of this name.
    pub(super) async fn restore(&self, name: &str) -> Value {
        self.get(&self.velero(&format!("restores/{name}")))
            .await
            .unwrap_or_else(|| panic!("there is no Restore {name}"))
    }

    /// Names of the objects at a path, sorted.
    pub(super) async fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path).await.unwrap_or_default();
        let names = list["items"].as_array().into_iter().flatten();
        let mut names: Vec<String> = names.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Writes a backup, and the Backup object that goes with it.
    pub(super) async fn add_backup(&self, name: &str, backup: &Backup) {
        self.add_tarball(name, &backup.tarball().unwrap()).await;
    }

    /// A backup whose tarball has these bytes.
    pub(super) async fn add_tarball(&self, name: &str, tarball: &[u8]) {
        self.put(&format!("backups/{name}/{name}.tar.gz"), tarball);
        self.add_backup_object(name, "default").await;
    }

    /// A Backup object and nothing that it tells of.
    pub(super) async fn add_backup_object(&self, name: &str, location: &str) {
        let backup = json!({
            "apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": name},
            "spec": {"storageLocation": location}, "status": {"phase": "Completed", "formatVersion": "1.1.0"},
        });
        self.create(&self.velero("backups"), &backup).await;
    }

    /// Puts a file into the location.
    pub(super) fn put(&self, key: &str, content: &[u8]) {
        match &self.store {
            Store::Folder(folder) => {
                let path = folder.path().join(key);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Store::S3(s3) => s3.put(BUCKET, key, content.to_vec()),
        }
    }

    /// Puts the files of a folder into the location.
    pub(super) fn put_folder(&self, folder: &Path, prefix: &str) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            self.put(&format!("{prefix}/{name}"), &std::fs::read(&path).unwrap());
        }
    }

    /// The keys below a prefix, sorted.
    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        match &self.store {
            Store::Folder(folder) => {
                let mut found = Vec::new();
                walk(folder.path(), &mut found);
                let keys = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap());
                let mut keys: Vec<String> = keys.filter(|key| key.starts_with(prefix)).map(str::to_owned).collect();
                keys.sort();
                keys
            }
            Store::S3(s3) => s3.keys(BUCKET, prefix),
        }
    }

    /// The unpacked text of a file of a restore, such as `logs.gz`.
    pub(super) fn text(&self, restore: &str, suffix: &str) -> String {
        self.unpacked(&format!("restores/{restore}/restore-{restore}-{suffix}"))
    }

    /// The volumes of a restore, whose file is named otherwise.
    pub(super) fn volume_info(&self, restore: &str) -> Value {
        serde_json::from_str(&self.unpacked(&format!("restores/{restore}/{restore}-volumeinfo.json.gz"))).unwrap()
    }

    pub(super) fn unpacked(&self, key: &str) -> String {
        let packed = match &self.store {
            Store::Folder(folder) => std::fs::read(folder.path().join(key)).ok(),
            Store::S3(s3) => s3.get(BUCKET, key).map(|body| body.to_vec()),
        };
        let packed = packed.unwrap_or_else(|| panic!("{key} is not there"));
        let mut text = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        text
    }

    /// A JSON file of a restore, such as `results.gz`.
    pub(super) fn json(&self, restore: &str, suffix: &str) -> Value {
        serde_json::from_str(&self.text(restore, suffix)).unwrap()
    }

    /// A service with a client of the API.
    pub(super) async fn serve(&self) -> Served {
        Served::start(self.options(self.client.clone())).await
    }

    /// A service with this client.
    pub(super) async fn serve_through(&self, client: kube::Client) -> Served {
        Served::start(self.options(client)).await
    }

    /// What a service for this world is started with.
    pub(super) fn options(&self, client: kube::Client) -> Options {
        Options {
            listen: ([127, 0, 0, 1], 0).into(),
            admin_listen: ([127, 0, 0, 1], 0).into(),
            backend: Backend::Cluster(client),
            namespace: self.namespace.clone(),
            settings: Settings::default(),
            limits: archive::Limits::default(),
            default_item_operation_timeout: "4h0m0s".to_owned(),
            item_operation_sync_frequency: std::time::Duration::from_secs(10),
            stall_after: reprise::progress::STALL,
            download_requests: false,
            observe: false,
            environment: BTreeMap::new(),
        }
    }
}

/// The location of the bucket.
fn location_of(s3: &S3Server) -> Value {
    json!({
        "provider": "aws", "default": true, "objectStorage": {"bucket": BUCKET},
        "config": {"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": s3.url()},
        "credential": {"name": "credentials", "key": "cloud"},
    })
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// A namespace with `count` ConfigMaps, `config-000` and so on.
pub(super) fn config_maps(namespace: &str, count: usize) -> Backup {
    Backup::new().with(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).with_all(
        (0..count).map(|number| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": {"number": number.to_string()},
                "metadata": {"name": format!("config-{number:03}"), "namespace": namespace},
            })
        }),
    )
}
