//! Claims whose data was moved into the backup storage (restore-semantics 7.4): a DataDownload asks the data mover to
//! bring it back, and is an operation that goes on after the claim is restored.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ensure::ensure_one;
use super::{Context, Error, fields};
use crate::engine::operations::{self, Asked, Operations, Progress};
use crate::engine::ports::{ApiError, Change, Cluster};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::{Target, label};

/// The action that starts the operations.
pub(super) const CLAIM_ACTION: &str = "velero.io/csi-pvc-restorer";

/// Label with the operation that a DataDownload is.
const OPERATION_ID: &str = "velero.io/async-operation-id";
/// Label by which the claim finds the volume that is filled for it.
const DYNAMIC_VOLUME: &str = "velero.io/dynamic-pv-restore";
/// Letters of the random end of that label's value, and what they are drawn from: those that Kubernetes draws names from,
/// which spell no words.
const RANDOM_LENGTH: usize = 5;
const RANDOM_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

fn downloads(velero_namespace: &str) -> Target {
    Target::new("velero.io", "v2alpha1", "datadownloads", velero_namespace)
}

/// The labels of the ConfigMaps with a DataUpload's result, for the claim of this name in the backup.
pub(crate) fn result_selector(restore_uid: &str, namespace: &str, claim: &str) -> String {
    let claim = label::valid_name(&format!("{namespace}.{claim}"));
    format!("velero.io/pvc-namespace-name={claim},{}", results_selector(restore_uid))
}

/// The labels of all ConfigMaps with DataUploads' results of a restore.
pub(crate) fn results_selector(restore_uid: &str) -> String {
    format!("{}={},velero.io/resource-usage=DataUpload", label::RESTORE_UID, label::valid_name(restore_uid))
}

/// The operation that fills a claim.
fn operation_id(claim_from_backup: &Value, context: &Context<'_>) -> Result<String, Error> {
    let uid = fields::text_or_empty(claim_from_backup, "metadata.uid")?;
    Ok(label::valid_name(&format!("dd-{}.{uid}", context.restore_uid)))
}

/// Makes the claim wait for a volume that is filled for it, and has it filled; gives the operation.
pub(super) async fn fill(
    claim: &mut Value,
    claim_from_backup: &Value,
    target_namespace: &str,
    context: &Context<'_>,
) -> Result<String, Error> {
    let (namespace, name) = (fields::namespace(claim_from_backup)?.to_owned(), fields::name(claim)?.to_owned());
    let Some(mover) = context.data_mover else {
        let upload = fields::annotation(claim_from_backup, super::csi::DATA_UPLOAD_NAME)?.unwrap_or_default();
        return Err(Error::NoDataMover { data_upload: upload.to_owned() });
    };
    let id = operation_id(claim_from_backup, context)?;
    let result = upload_result(&namespace, &name, context).await?;
    fields::remove(claim, "spec.volumeName")?;
    let volume = label::valid_name(&format!("{target_namespace}.{name}.{}", random_letters()));
    fields::ensure(claim, Some("spec.selector.matchLabels"))?.insert(DYNAMIC_VOLUME.to_owned(), json!(volume));

    let text = |key: &str| result.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut spec = json!({
        "targetVolume": {"pvc": name, "pv": "", "namespace": target_namespace},
        "backupStorageLocation": text("backupStorageLocation"),
        "snapshotID": text("snapshotID"),
        "sourceNamespace": text("sourceNamespace"),
        "operationTimeout": mover.operation_timeout,
    });
    for key in ["datamover", "nodeOS"] {
        if !text(key).is_empty() {
            spec[key] = json!(text(key));
        }
    }
    if let Some(size) = result.get("snapshotSize").and_then(Value::as_i64).filter(|size| *size != 0) {
        spec["snapshotSize"] = json!(size);
    }
    if !mover.config.is_empty() {
        spec["dataMoverConfig"] = json!(mover.config);
    }
    let download = json!({
        "apiVersion": "velero.io/v2alpha1",
        "kind": "DataDownload",
        "metadata": {
            "generateName": format!("{}-", context.restore_name),
            "namespace": context.velero_namespace,
            "labels": {
                label::RESTORE_NAME: label::valid_name(context.restore_name),
                label::RESTORE_UID: label::valid_name(context.restore_uid),
                OPERATION_ID: id,
            },
            "ownerReferences": [{
                "apiVersion": "velero.io/v1", "kind": "Restore", "name": context.restore_name, "uid": context.restore_uid,
                "controller": true,
            }],
        },
        "spec": spec,
    });
    let selector = format!("{OPERATION_ID}={id}");
    let ensured =
        ensure_one(context.lookup.cluster(), &downloads(context.velero_namespace), &selector, &download).await;
    ensured.map_err(|error| Error::api("create DataDownload", &error))?;
    Ok(id)
}

/// The operation that fills a claim that exists, where this very restore started it before it was interrupted: it is
/// still to be waited for.
pub(super) async fn resumed(
    live: &Value,
    claim_from_backup: &Value,
    context: &Context<'_>,
) -> Result<Option<String>, Error> {
    let restore = live["metadata"]["labels"][label::RESTORE_NAME].as_str();
    if context.data_mover.is_none() || restore != Some(&*label::valid_name(context.restore_name)) {
        return Ok(None);
    }
    let id = operation_id(claim_from_backup, context)?;
    let (target, selector) = (downloads(context.velero_namespace), format!("{OPERATION_ID}={id}"));
    let list = || context.lookup.cluster().list(&target, &selector);
    let found = retrying(Backoff::default(), &mut Attempts::default(), list).await;
    let found = found.map_err(|error| Error::api("list DataDownloads", &error))?;
    Ok((!found.is_empty()).then_some(id))
}

/// What the DataUpload of this claim left (restore-semantics 7.1, `dataupload`): there must be exactly one.
async fn upload_result(namespace: &str, claim: &str, context: &Context<'_>) -> Result<Value, Error> {
    let config_maps = Target::new("", "v1", "configmaps", context.velero_namespace);
    let selector = result_selector(context.restore_uid, namespace, claim);
    let list = || context.lookup.cluster().list(&config_maps, &selector);
    let found = retrying(Backoff::default(), &mut Attempts::default(), list).await;
    let found = found.map_err(|error| Error::api("list the results of data uploads", &error))?;
    let unusable = |message: String| Error::Unreadable { what: "the data upload's result".to_owned(), message };
    let [config_map] = found.as_slice() else {
        let count = if found.is_empty() { "no ConfigMap" } else { "more than one ConfigMap" };
        return Err(unusable(format!("{count} with labels {selector}")));
    };
    let text = config_map["data"][context.restore_uid].as_str();
    let text = text.ok_or_else(|| unusable(format!("the ConfigMap has no key {}", context.restore_uid)))?;
    serde_json::from_str(text).map_err(|error| unusable(error.to_string()))
}

fn random_letters() -> String {
    let mut bytes = [0_u8; RANDOM_LENGTH];
    // Without a random source the value is merely less special: it begins with the claim's own name.
    let _ = getrandom::fill(&mut bytes);
    let letter = |byte: &u8| RANDOM_LETTERS.get(usize::from(*byte) % RANDOM_LETTERS.len()).copied().unwrap_or(b'x');
    bytes.iter().map(|byte| char::from(letter(byte))).collect()
}

/// The operations of the native actions: DataDownloads.
pub struct DataDownloads {
    cluster: Arc<dyn Cluster>,
    target: Target,
    restore_uid: String,
}

impl DataDownloads {
    /// Those of one restore.
    #[must_use]
    pub fn new(cluster: Arc<dyn Cluster>, velero_namespace: &str, restore_uid: &str) -> Self {
        Self { cluster, target: downloads(velero_namespace), restore_uid: restore_uid.to_owned() }
    }

    fn is_of_restore(&self, download: &Value) -> bool {
        let uid = download["metadata"]["labels"][label::RESTORE_UID].as_str();
        uid == Some(&*label::valid_name(&self.restore_uid))
    }

    async fn list(&self, selector: &str) -> Result<Vec<Value>, operations::Error> {
        let list = || self.cluster.list(&self.target, selector);
        let found = retrying(Backoff::default(), &mut Attempts::default(), list).await;
        found.map_err(|error| failed("fail to list DataDownload", &error))
    }
}

fn failed(what: &str, error: &ApiError) -> operations::Error {
    let message = format!("{what}: {error}");
    if error.is_retryable() { operations::Error::Unreachable(message) } else { operations::Error::Lost(message) }
}

fn foreign(action: &str) -> operations::Error {
    operations::Error::Lost(format!(
        "restore item action {action:?} is not hosted here: let Velero finish this restore, or start it again"
    ))
}

#[async_trait]
impl Operations for DataDownloads {
    async fn progress(&self, operations: &[Asked<'_>]) -> Vec<Result<Progress, operations::Error>> {
        // One list for all of the restore.
        let listed = match operations.iter().any(|asked| asked.action == CLAIM_ACTION) {
            true => self.list(&format!("{}={}", label::RESTORE_UID, label::valid_name(&self.restore_uid))).await,
            false => Ok(Vec::new()),
        };
        let mut by_id: HashMap<&str, Vec<&Value>> = HashMap::new();
        for download in listed.as_ref().map(Vec::as_slice).unwrap_or_default() {
            if let Some(id) = download["metadata"]["labels"][OPERATION_ID].as_str() {
                by_id.entry(id).or_default().push(download);
            }
        }
        let answer = |asked: &Asked<'_>| {
            if asked.action != CLAIM_ACTION {
                return Err(foreign(asked.action));
            }
            listed.as_ref().map_err(Clone::clone)?;
            match by_id.get(asked.id).map(Vec::as_slice).unwrap_or_default() {
                [] => Err(operations::Error::Lost("didn't find DataDownload".to_owned())),
                [one] => Ok(progress_of(one)),
                _ => Err(operations::Error::Lost("find multiple DataDownloads".to_owned())),
            }
        };
        operations.iter().map(answer).collect()
    }

    async fn cancel(&self, operation: Asked<'_>) -> Result<(), operations::Error> {
        if operation.action != CLAIM_ACTION {
            return Err(foreign(operation.action));
        }
        for download in self.list(&format!("{OPERATION_ID}={}", operation.id)).await? {
            let name = download["metadata"]["name"].as_str().unwrap_or_default();
            let patch = json!({"spec": {"cancel": true}});
            let write = || self.cluster.merge_patch(&self.target, name, &patch);
            let written = retrying(Backoff::default(), &mut Attempts::default(), write).await;
            written.map_err(|error| failed(&format!("fail to cancel DataDownload {name}"), &error))?;
        }
        Ok(())
    }

    fn changes(&self) -> BoxStream<'_, ()> {
        let changes = self.cluster.watch(&self.target, None).filter_map(async |change| match change {
            Ok(Change::Is(download)) => self.is_of_restore(&download).then_some(()),
            Ok(Change::Gone(_)) => Some(()),
            Err(error) => {
                tracing::debug!(%error, "watching DataDownloads failed; going on");
                None
            }
        });
        changes.chain(stream::pending()).boxed()
    }
}

/// What a DataDownload tells of itself.
fn progress_of(download: &Value) -> Progress {
    let status = &download["status"];
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    let time = |key: &str| status[key].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    let phase = text("phase");
    if matches!(phase.as_str(), "" | "New") {
        return Progress::default();
    }
    let bytes = |key: &str| status["progress"][key].as_i64().unwrap_or_default();
    let (completed, error) = match phase.as_str() {
        "Completed" => (true, String::new()),
        "Canceled" => (true, "DataDownload is canceled".to_owned()),
        "Failed" => {
            let message = text("message");
            let unsaid = || "the DataDownload failed and does not say why: see the log of the node agent".to_owned();
            (true, if message.is_empty() { unsaid() } else { message })
        }
        _ => (false, String::new()),
    };
    Progress {
        completed,
        error,
        done: bytes("bytesDone"),
        total: bytes("totalBytes"),
        units: "Bytes".to_owned(),
        description: phase,
        started: time("startTimestamp"),
        updated: time("completionTimestamp"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{Bench, FakeCluster, block_on};
    use super::*;

    const UID: &str = "11111111-2222-4333-8444-555555555555";

    fn result(text: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {UID: text},
            "metadata": {"name": "b-x1-abc", "namespace": "velero", "labels": {
                "velero.io/restore-uid": UID, "velero.io/pvc-namespace-name": "app.data",
                "velero.io/resource-usage": "DataUpload"}}})
    }

    fn moved() -> Value {
        json!({"metadata": {"name": "data", "namespace": "app", "uid": "c1a1",
                "annotations": {"velero.io/data-upload-name": "b-x1", "velero.io/volume-snapshot-name": "snap"}},
            "spec": {"volumeName": "pv-1", "selector": {"matchLabels": {"a": "b"}}}})
    }

    fn bench() -> Bench {
        let text = json!({"backupStorageLocation": "default", "snapshotID": "s1", "sourceNamespace": "app",
            "nodeOS": "linux", "snapshotSize": 7});
        Bench::new().moving_data().mapping("app", "dst").with(result(&text.to_string())).backed_up_as(moved())
    }

    /// restore-semantics 7.4: the DataDownload, the claim and the operation id.
    #[test]
    fn a_claim_whose_data_was_moved_waits_for_a_volume_that_a_data_download_fills() {
        let bench = bench();
        let output = bench.run(CLAIM_ACTION, moved()).unwrap();
        let id = format!("dd-{UID}.c1a1");
        assert_eq!(output.operation_id.as_deref(), Some(&*id));
        assert_eq!(output.additional_items, []);
        let spec = &output.item["spec"];
        assert!(spec.get("volumeName").is_none(), "{spec}");
        let volume = spec["selector"]["matchLabels"][DYNAMIC_VOLUME].as_str().unwrap();
        let random = volume.strip_prefix("dst.data.").unwrap();
        assert!(random.len() == 5 && random.bytes().all(|byte| RANDOM_LETTERS.contains(&byte)), "{volume}");
        assert_eq!(spec["selector"]["matchLabels"]["a"], "b");
        let [download] = bench.created().try_into().unwrap();
        assert_eq!(
            download,
            json!({"apiVersion": "velero.io/v2alpha1", "kind": "DataDownload",
                "metadata": {"generateName": "r-", "namespace": "velero",
                    "labels": {"velero.io/restore-name": "r", "velero.io/restore-uid": UID, OPERATION_ID: id},
                    "ownerReferences": [{"apiVersion": "velero.io/v1", "kind": "Restore", "name": "r", "uid": UID,
                        "controller": true}]},
                "spec": {"targetVolume": {"pvc": "data", "pv": "", "namespace": "dst"}, "snapshotID": "s1",
                    "backupStorageLocation": "default", "sourceNamespace": "app", "operationTimeout": "10m0s",
                    "nodeOS": "linux", "snapshotSize": 7, "dataMoverConfig": {"WriteSparseFiles": "true"}}})
        );
    }

    #[test]
    fn a_download_that_was_started_before_an_interruption_is_not_started_again() {
        let download = json!({"kind": "DataDownload", "metadata": {"name": "r-1", "namespace": "velero",
            "labels": {OPERATION_ID: format!("dd-{UID}.c1a1")}}});
        let before_the_claim = bench().with(download.clone());
        assert!(before_the_claim.run(CLAIM_ACTION, moved()).unwrap().operation_id.is_some());
        assert_eq!(before_the_claim.created(), [Value::Null; 0]);
        let live = |restore: &str| {
            json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "dst",
                "labels": {"velero.io/restore-name": restore}}})
        };
        let after_the_claim = bench().with(download.clone()).with(live("r"));
        let output = after_the_claim.run(CLAIM_ACTION, moved()).unwrap();
        assert_eq!((output.operation_id.is_some(), output.item), (true, moved()));
        let of_another = bench().with(download).with(live("other"));
        assert_eq!(of_another.run(CLAIM_ACTION, moved()).unwrap().operation_id, None);
    }

    #[test]
    fn a_claim_without_exactly_one_upload_result_is_an_error() {
        let none = Bench::new().moving_data().backed_up_as(moved()).run(CLAIM_ACTION, moved()).unwrap_err();
        assert!(none.to_string().contains("no ConfigMap with labels velero.io/pvc-namespace-name=app.data"), "{none}");
        let two = bench().with(result("{}")).run(CLAIM_ACTION, moved()).unwrap_err();
        assert!(two.to_string().contains("more than one"), "{two}");
        let broken = Bench::new().moving_data().with(result("{")).backed_up_as(moved());
        assert!(broken.run(CLAIM_ACTION, moved()).is_err());
    }

    #[test]
    fn a_run_that_nobody_follows_refuses_such_a_claim_rather_than_restoring_it_empty() {
        let error = Bench::new().moving_data().unfollowed().run(CLAIM_ACTION, moved()).unwrap_err();
        assert!(error.to_string().contains("data upload b-x1"), "{error}");
    }

    fn download(id: &str, status: Value) -> Value {
        json!({"kind": "DataDownload", "metadata": {"name": id, "namespace": "velero",
            "labels": {OPERATION_ID: id, "velero.io/restore-uid": UID}}, "status": status})
    }

    #[test]
    fn progress_is_bytes_and_the_phases_end_as_7_4_says() {
        let bytes = json!({"bytesDone": 3, "totalBytes": 9});
        let cluster = FakeCluster::new([
            download("new", json!({})),
            download(
                "runs",
                json!({"phase": "InProgress", "progress": bytes, "startTimestamp": "2026-01-02T03:04:05Z"}),
            ),
            download("done", json!({"phase": "Completed", "completionTimestamp": "2026-01-02T03:04:06Z"})),
            download("canceled", json!({"phase": "Canceled"})),
            download("failed", json!({"phase": "Failed", "message": "no space"})),
            download("twice", json!({})),
            download("twice", json!({})),
        ]);
        let downloads = DataDownloads::new(cluster.clone(), "velero", UID);
        let asked = |id| Asked { action: CLAIM_ACTION, id };
        let ids = ["new", "runs", "done", "canceled", "failed", "twice", "gone"].map(asked);
        let answers = block_on(downloads.progress(&ids));
        assert_eq!(answers[0], Ok(Progress::default()), "what was not taken up tells nothing");
        let runs = answers[1].clone().unwrap();
        assert_eq!((runs.done, runs.total, runs.units.as_str()), (3, 9, "Bytes"));
        assert!(!runs.completed && runs.started.is_some() && runs.description == "InProgress", "{runs:?}");
        let done = answers[2].clone().unwrap();
        assert!(done.completed && done.error.is_empty() && done.updated.is_some(), "{done:?}");
        assert_eq!(answers[3].clone().unwrap().error, "DataDownload is canceled");
        assert_eq!(answers[4].clone().unwrap().error, "no space");
        let lost = |text: &str| Err(operations::Error::Lost(text.to_owned()));
        assert_eq!(answers[5], lost("find multiple DataDownloads"));
        assert_eq!(answers[6], lost("didn't find DataDownload"));
        assert_eq!(cluster.requests(), [format!("list datadownloads velero velero.io/restore-uid={UID}")]);
    }

    #[test]
    fn an_action_that_is_not_hosted_has_no_operations() {
        let downloads = DataDownloads::new(FakeCluster::new([]), "velero", UID);
        let asked = Asked { action: "example.com/other", id: "x" };
        assert!(matches!(&block_on(downloads.progress(&[asked]))[..], [Err(operations::Error::Lost(_))]));
        assert!(block_on(downloads.cancel(asked)).is_err());
    }

    #[test]
    fn an_api_server_that_cannot_be_reached_does_not_make_an_operation_fail() {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(
            async {
                let downloads = DataDownloads::new(FakeCluster::failing("refused"), "velero", UID);
                let answers = downloads.progress(&[Asked { action: CLAIM_ACTION, id: "x" }]).await;
                assert!(matches!(&answers[..], [Err(operations::Error::Unreachable(_))]), "{answers:?}");
            },
        );
    }
}
