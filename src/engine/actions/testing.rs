//! A bench for actions: a cluster that holds some objects, and a restore around the item.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};

use super::{BUILT_IN, Context, Error, Input, Lookup, Output};
use crate::engine::discovery::Discovery;
use crate::engine::job::DataMover;
use crate::engine::pod_volume_backups::{PodVolumeBackups, VolumeBackup};
use crate::engine::ports::{ApiError, ApiErrorKind, Change, Cluster};
use crate::model::{RestoreSpec, Target};

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A ConfigMap that configures an action.
pub(super) fn plugin_config(name: &str, action: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "velero",
        "labels": {"velero.io/plugin-config": "", action: "RestoreItemAction"}}, "data": data})
}

/// Holds objects by kind, namespace and name, and remembers what it was asked.
pub(crate) struct FakeCluster {
    objects: Vec<Value>,
    requests: Mutex<Vec<String>>,
    created: Mutex<Vec<Value>>,
    failure: Option<ApiError>,
}

impl FakeCluster {
    pub(crate) fn new(objects: impl IntoIterator<Item = Value>) -> Arc<Self> {
        Arc::new(Self {
            objects: objects.into_iter().collect(),
            requests: Mutex::default(),
            created: Mutex::default(),
            failure: None,
        })
    }

    pub(crate) fn failing(message: &str) -> Arc<Self> {
        let failure = Some(ApiError::transport(ApiErrorKind::Connection, message));
        Arc::new(Self { objects: Vec::new(), requests: Mutex::default(), created: Mutex::default(), failure })
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn note(&self, request: String) -> Result<(), ApiError> {
        self.requests.lock().unwrap().push(request);
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn select<'a>(&'a self, target: &Target) -> impl Iterator<Item = &'a Value> {
        let plural = |kind: &str| kind.to_lowercase() + if kind.ends_with('s') { "es" } else { "s" };
        let (resource, namespace) = (target.resource.clone(), target.namespace.clone());
        self.objects.iter().filter(move |object| {
            plural(object["kind"].as_str().unwrap()) == resource
                && object["metadata"]["namespace"].as_str() == namespace.as_deref()
        })
    }
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn discovery(&self, _refresh: bool) -> Result<Arc<Discovery>, ApiError> {
        Ok(Arc::default())
    }

    async fn get(&self, target: &Target, name: &str) -> Result<Option<Value>, ApiError> {
        let namespace = target.namespace.as_deref().unwrap_or_default();
        self.note(format!("get {} {namespace} {name}", target.resource))?;
        Ok(self.select(target).find(|object| object["metadata"]["name"] == name).cloned())
    }

    async fn list(&self, target: &Target, label_selector: &str) -> Result<Vec<Value>, ApiError> {
        let namespace = target.namespace.as_deref().unwrap_or_default();
        self.note(format!("list {} {namespace} {label_selector}", target.resource))?;
        // `key` or `key=value`, joined by commas.
        let has = |object: &Value, term: &str| {
            let (key, value) = term.split_once('=').map_or((term, None), |(key, value)| (key, Some(value)));
            let label = object["metadata"]["labels"].get(key);
            label.is_some_and(|label| value.is_none_or(|value| label == value))
        };
        let matches =
            |object: &&Value| label_selector.is_empty() || label_selector.split(',').all(|term| has(object, term));
        Ok(self.select(target).filter(matches).cloned().collect())
    }

    async fn create(&self, target: &Target, object: &Value) -> Result<Value, ApiError> {
        self.note(format!("create {}", target.resource))?;
        self.created.lock().unwrap().push(object.clone());
        Ok(object.clone())
    }

    async fn merge_patch(&self, target: &Target, name: &str, patch: &Value) -> Result<Value, ApiError> {
        self.note(format!("patch {} {name} {patch}", target.resource))?;
        Err(ApiError::status(405, "MethodNotAllowed", "this fake takes no patches"))
    }

    async fn delete(&self, target: &Target, name: &str) -> Result<(), ApiError> {
        self.note(format!("delete {} {name}", target.resource))
    }

    async fn delete_collection(&self, target: &Target, label_selector: &str) -> Result<(), ApiError> {
        self.note(format!("delete {} {label_selector}", target.resource))
    }

    async fn replace_status(&self, _target: &Target, _name: &str, _object: &Value) -> Result<Value, ApiError> {
        Err(ApiError::status(405, "MethodNotAllowed", "no action writes a status"))
    }

    /// An object of kind `OpenAPI` with this `groupVersion`.
    async fn openapi(&self, group: &str, version: &str) -> Result<Value, ApiError> {
        self.note(format!("openapi {group} {version}"))?;
        let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let document = self.objects.iter().find(|one| one["kind"] == "OpenAPI" && one["groupVersion"] == name);
        document.cloned().ok_or_else(|| ApiError::status(404, "NotFound", "the server has no such document"))
    }

    fn watch<'a>(&'a self, _target: &Target, _name: Option<&str>) -> BoxStream<'a, Result<Change, ApiError>> {
        stream::empty().boxed()
    }
}

/// A restore named `r` of backup `b`, around one item.
pub(super) struct Bench {
    spec: RestoreSpec,
    objects: Vec<Value>,
    from_backup: Option<Value>,
    pod_volume_backups: Option<PodVolumeBackups>,
    snapshot_move_data: bool,
    data_mover: Option<DataMover>,
    cluster: Mutex<Option<Arc<FakeCluster>>>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            spec: RestoreSpec::default(),
            objects: Vec::new(),
            from_backup: None,
            pod_volume_backups: Some(PodVolumeBackups::default()),
            snapshot_move_data: false,
            data_mover: None,
            cluster: Mutex::default(),
        }
    }

    pub(super) fn with(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    pub(super) fn backed_up_as(mut self, item: Value) -> Self {
        self.from_backup = Some(item);
        self
    }

    pub(super) fn mapping(mut self, source: &str, target: &str) -> Self {
        self.spec.namespace_mapping = BTreeMap::from([(source.to_owned(), target.to_owned())]);
        self
    }

    pub(super) fn hooks(mut self, hooks: Value) -> Self {
        self.spec.hooks = hooks.as_array().unwrap().clone();
        self
    }

    pub(super) fn preserve_node_ports(mut self) -> Self {
        self.spec.preserve_node_ports = Some(true);
        self
    }

    pub(super) fn without_volumes(mut self) -> Self {
        self.spec.restore_pvs = Some(false);
        self
    }

    pub(super) fn moving_data(mut self) -> Self {
        self.snapshot_move_data = true;
        self.data_mover = Some(DataMover {
            operation_timeout: "10m0s".to_owned(),
            config: BTreeMap::from([("WriteSparseFiles".to_owned(), "true".to_owned())]),
        });
        self
    }

    /// As a run that ends with its items.
    pub(super) fn unfollowed(mut self) -> Self {
        self.data_mover = None;
        self
    }

    pub(super) fn pod_volume_backup(mut self, backup: Value) -> Self {
        let text = |pointer: &str| backup.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let snapshot_id = text("/status/snapshotID").to_owned();
        let snapshot = VolumeBackup { snapshot_id, size: 0, uploader_type: String::new() };
        let backups = self.pod_volume_backups.get_or_insert_default();
        backups.insert(text("/spec/pod/namespace"), text("/spec/pod/name"), text("/spec/volume"), snapshot);
        self
    }

    pub(super) fn without_pod_volume_restores(mut self) -> Self {
        self.pod_volume_backups = None;
        self
    }

    /// What the cluster was asked in the last run, apart from the configuration.
    pub(super) fn requests(&self) -> Vec<String> {
        let cluster = self.cluster.lock().unwrap();
        let requests = cluster.as_ref().map(|cluster| cluster.requests()).unwrap_or_default();
        requests.into_iter().filter(|request| !request.contains("plugin-config")).collect()
    }

    /// What was created in the last run.
    pub(super) fn created(&self) -> Vec<Value> {
        let cluster = self.cluster.lock().unwrap();
        cluster.as_ref().map(|cluster| cluster.created.lock().unwrap().clone()).unwrap_or_default()
    }

    pub(super) fn run(&self, action: &str, item: Value) -> Result<Output, Error> {
        self.run_all(action, &[item]).pop().unwrap()
    }

    pub(super) fn run_all(&self, action: &str, items: &[Value]) -> Vec<Result<Output, Error>> {
        let action = BUILT_IN.iter().find(|candidate| candidate.name == action).expect(action);
        let cluster = FakeCluster::new(self.objects.clone());
        *self.cluster.lock().unwrap() = Some(cluster.clone());
        block_on(async {
            let lookup = Lookup::read(cluster, "velero").await;
            let context = self.context(&lookup);
            let mut outputs = Vec::new();
            for item in items {
                let item_from_backup = self.from_backup.as_ref().unwrap_or(item);
                outputs.push(action.execute(Input { item: item.clone(), item_from_backup, context: &context }).await);
            }
            outputs
        })
    }

    pub(super) fn context<'a>(&'a self, lookup: &'a Lookup) -> Context<'a> {
        Context {
            spec: &self.spec,
            restore_name: "r",
            restore_uid: "11111111-2222-4333-8444-555555555555",
            velero_namespace: "velero",
            backup_name: "b",
            backup_storage_location: "default",
            snapshot_move_data: self.snapshot_move_data,
            data_mover: self.data_mover.as_ref(),
            csi: true,
            pod_volume_backups: self.pod_volume_backups.as_ref(),
            lookup,
        }
    }
}
