//! Making sure that target namespaces are there, each once per run (restore-semantics 5.2).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::Run;
use crate::engine::ports::Change;
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::{GroupResource, ItemKey, Outcome, Target, Waiting};

type Ensured = Arc<OnceCell<Result<(), String>>>;

/// One cell for each target namespace: the first who comes ensures it, the others share the answer.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    cells: Mutex<HashMap<String, Ensured>>,
}

impl Namespaces {
    fn cell(&self, target: &str) -> Ensured {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(target.to_owned()).or_default())
    }
}

/// Why a namespace can be waited for.
enum State {
    Absent,
    Usable,
    Terminating,
}

impl Run {
    /// Makes sure that `target` exists, created like the backup's own Namespace `source`.
    ///
    /// # Errors
    /// A message in Velero's words. Every item of the namespace gets the same one; nobody waits twice.
    pub(super) async fn ensure_namespace(&self, source: &str, target: &str) -> Result<(), String> {
        let cell = self.namespaces.cell(target);
        cell.get_or_init(|| self.ensure_namespace_once(source, target)).await.clone()
    }

    async fn ensure_namespace_once(&self, source: &str, target: &str) -> Result<(), String> {
        let namespaces = Target::new("", "v1", "namespaces", "");
        let begun = Instant::now();
        let mut attempts = Attempts::default();
        let live = retrying(Backoff::default(), &mut attempts, || self.cluster.get(&namespaces, target)).await;
        let live = live.map_err(|error| format!("error getting namespace {target}: {error}"))?;
        match state_of(live.as_ref()) {
            State::Usable => return Ok(()),
            State::Absent => {}
            State::Terminating => {
                if self.wait_for_terminating(&namespaces, target).await? {
                    return Ok(());
                }
            }
        }
        let body = self.namespace_body(source, target);
        match retrying(Backoff::default(), &mut attempts, || self.cluster.create(&namespaces, &body)).await {
            Ok(_) => {
                let key = ItemKey::new("v1", "Namespace", "", target);
                self.ledger.record(key.clone(), Outcome::Created);
                self.report_namespace(key, attempts, begun.elapsed());
                Ok(())
            }
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(format!("error creating namespace {target}: {error}")),
        }
    }

    /// Waits until a namespace that is being deleted is gone. `true` means that it is usable after all, as somebody
    /// else created it anew.
    async fn wait_for_terminating(&self, namespaces: &Target, target: &str) -> Result<bool, String> {
        let waiting = Waiting {
            object: format!("namespace {target}"),
            request: "wait until it is gone".to_owned(),
            reason: Some("it is being deleted, and its content or finalizers hold it".to_owned()),
        };
        let _announced = self.announce_wait(waiting);
        let mut changes = self.cluster.watch(namespaces, Some(target));
        let ended = tokio::time::timeout(self.job.settings.terminating_resource_timeout, async {
            while let Some(change) = changes.next().await {
                match change {
                    Ok(Change::Gone(_)) => return false,
                    Ok(Change::Is(object)) if matches!(state_of(Some(&object)), State::Usable) => return true,
                    Ok(Change::Is(_)) => {}
                    Err(error) => self.debug(format!("watching namespace {target}: {error}")),
                }
            }
            false
        });
        let ended = tokio::select! {
            ended = ended => ended,
            () = self.stop.cancelled() => {
                return Err(format!("no longer waiting for terminating namespace {target}: the restore was stopped"));
            }
        };
        ended.map_err(|_| {
            format!(
                "timed out waiting for terminating namespace {target} to disappear before restoring: \
                 context deadline exceeded"
            )
        })
    }

    /// Name, labels, annotations and spec as in the backup; a bare Namespace where that has none.
    fn namespace_body(&self, source: &str, target: &str) -> Value {
        let backed_up = self
            .archive
            .find(&GroupResource::parse("namespaces"), "", source)
            .and_then(|entry| self.archive.load(entry).ok())
            .unwrap_or(Value::Null);
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), json!(target));
        for field in ["labels", "annotations"] {
            if let Some(value) = backed_up.pointer(&format!("/metadata/{field}")).filter(|value| value.is_object()) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
        let mut body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        if let Some(spec) = backed_up.get("spec").filter(|spec| spec.is_object()) {
            body["spec"] = spec.clone();
        }
        body
    }
}

fn state_of(namespace: Option<&Value>) -> State {
    let Some(namespace) = namespace else { return State::Absent };
    let being_deleted = namespace.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    let terminating = namespace.pointer("/status/phase").and_then(Value::as_str) == Some("Terminating");
    if being_deleted || terminating { State::Terminating } else { State::Usable }
}
