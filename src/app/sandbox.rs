//! Setting up the sandbox: Velero's CRDs and namespace, a location in a folder, and a Backup object for each backup.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt as _};

use crate::cluster::KubeCluster;
use crate::engine::ports::Cluster as _;
use crate::engine::ports::exec::NoExec;
use crate::model::Target;
use crate::sandbox::{Options, Sandbox};

/// Name of the location, the one `velero install` makes.
const LOCATION: &str = "default";

/// No container runs in the sandbox: exec hooks fail at once, as their pods never come up.
pub const NO_EXEC: NoExec = NoExec("the sandbox runs no containers: restore into a cluster to have exec hooks run");

/// An in-memory Kubernetes API that knows the backups of a folder.
pub(super) async fn start(namespace: &str, store: &Path) -> anyhow::Result<Sandbox> {
    let store = std::fs::canonicalize(store).with_context(|| format!("open the backup store {}", store.display()))?;
    let mut crds: Vec<Value> = crate::velero::crds()
        .into_iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()
        .context("write Velero's CRDs")?;
    crds.push(group_snapshot_contents());
    let sandbox = Sandbox::try_new(Options { crds, ..Options::default() })?;
    let cluster = KubeCluster::new(sandbox.client());
    let create = async |resource: &str, version: &str, namespace: &str, object: Value| -> anyhow::Result<()> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let target = Target::new(group, version, resource, namespace);
        cluster.create(&target, &object).await.with_context(|| format!("create {resource} in the sandbox"))?;
        Ok(())
    };
    create("namespaces", "v1", "", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
        .await?;
    let location = json!({
        "apiVersion": "velero.io/v1",
        "kind": "BackupStorageLocation",
        "metadata": {"name": LOCATION, "namespace": namespace},
        "spec": {"provider": "filesystem", "default": true, "config": {"path": store}, "objectStorage": {"bucket": ""}},
        "status": {"phase": "Available"},
    });
    create("backupstoragelocations", "velero.io/v1", namespace, location).await?;
    for backup in backups(&store)? {
        let name = backup.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        create("backups", "velero.io/v1", namespace, backup_object(backup, namespace))
            .await
            .with_context(|| format!("read backup {name:?}"))?;
    }
    Ok(sandbox)
}

/// The Backup objects of a store: every `backups/NAME/velero-backup.json`.
fn backups(store: &Path) -> anyhow::Result<Vec<Value>> {
    let folder = store.join("backups");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let entries = std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let file = entry.with_context(|| format!("list {}", folder.display()))?.path().join("velero-backup.json");
        if !file.exists() {
            continue;
        }
        let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        found.push(serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))?);
    }
    Ok(found)
}

/// What a backup's own object keeps in another cluster: name, labels, annotations, spec, status.
fn backup_object(mut backup: Value, namespace: &str) -> Value {
    let metadata = json!({
        "name": backup["metadata"]["name"],
        "namespace": namespace,
        "labels": backup["metadata"]["labels"],
        "annotations": backup["metadata"]["annotations"],
    });
    backup["spec"]["storageLocation"] = json!(LOCATION);
    json!({
        "apiVersion": "velero.io/v1",
        "kind": "Backup",
        "metadata": metadata,
        "spec": backup["spec"].take(),
        "status": backup["status"].take(),
    })
}

/// The kind whose absence Velero warns about at the end of every restore (restore-semantics 5.14 step 4); a cluster
/// with group snapshots has it.
fn group_snapshot_contents() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io"},
        "spec": {
            "group": "groupsnapshot.storage.k8s.io",
            "scope": "Cluster",
            "names": {
                "plural": "volumegroupsnapshotcontents",
                "singular": "volumegroupsnapshotcontent",
                "kind": "VolumeGroupSnapshotContent",
                "listKind": "VolumeGroupSnapshotContentList",
            },
            "versions": [{
                "name": "v1beta2",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// A client of the sandbox that waits before each create, so that a restore can be watched.
pub(super) fn paced(sandbox: &Sandbox, pace: Duration) -> Client {
    if pace.is_zero() {
        return sandbox.client();
    }
    let api = sandbox.http_service();
    let service = ServiceBuilder::new().service_fn(move |request: Request<Body>| {
        let api = api.clone();
        async move {
            // Velero's own objects are not what is watched, nor what is only asked.
            let uri = request.uri();
            let is_kept = !uri.query().is_some_and(|query| query.contains("dryRun="));
            let is_aside =
                ["/apis/velero.io", "/apis/authorization.k8s.io"].iter().any(|path| uri.path().starts_with(path));
            let restored = request.method() == Method::POST && is_kept && !is_aside;
            if restored {
                tokio::time::sleep(pace).await;
            }
            let answer: Result<Response<axum::body::Body>, std::convert::Infallible> = api.oneshot(request).await;
            answer
        }
    });
    Client::new(service, "default")
}
