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

/// What is known of a target namespace.
#[derive(Debug, Default)]
struct Cell {
    /// What the first look found, and the tries it took.
    found: OnceCell<Result<(State, Attempts), String>>,
    ensured: OnceCell<Result<(), String>>,
}

/// One cell for each target namespace: the first who comes ensures it, the others share the answer.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    cells: Mutex<HashMap<String, Arc<Cell>>>,
}

impl Namespaces {
    fn cell(&self, target: &str) -> Arc<Cell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(target.to_owned()).or_default())
    }
}

/// Why a namespace can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        cell.ensured.get_or_init(|| self.ensure_namespace_once(source, target, &cell)).await.clone()
    }

    /// Whether `target` is being deleted, and nobody knows yet how that ends.
    pub(super) async fn is_terminating(&self, target: &str) -> bool {
        let cell = self.namespaces.cell(target);
        !target.is_empty()
            && cell.ensured.get().is_none()
            && matches!(self.look_at(target, &cell).await, Ok((State::Terminating, _)))
    }

    async fn look_at(&self, target: &str, cell: &Cell) -> Result<(State, Attempts), String> {
        let look = async || {
            let namespaces = Target::new("", "v1", "namespaces", "");
            let mut attempts = Attempts::default();
            let live = retrying(Backoff::default(), &mut attempts, || self.cluster.get(&namespaces, target)).await;
            let live = live.map_err(|error| format!("error getting namespace {target}: {error}"))?;
            Ok((state_of(live.as_ref()), attempts))
        };
        cell.found.get_or_init(look).await.clone()
    }

    async fn ensure_namespace_once(&self, source: &str, target: &str, cell: &Cell) -> Result<(), String> {
        let namespaces = Target::new("", "v1", "namespaces", "");
        let begun = Instant::now();
        let (state, mut attempts) = self.look_at(target, cell).await?;
        match state {
            State::Usable => return Ok(()),
            State::Absent => {}
            State::Terminating => {
                if self.wait_for_terminating(&namespaces, target).await? {
                    return Ok(());
                }
            }
        }
        let body = self.namespace_body(source, target);
        let mut creates = Attempts::default();
        let created = retrying(Backoff::default(), &mut creates, || self.cluster.create(&namespaces, &body)).await;
        attempts.0 += creates.0;
        match created {
            Ok(_) => {}
            // It was absent, and the first create may have succeeded without an answer.
            Err(error) if error.is_already_exists() && creates.0 > 1 && self.is_made_of(&namespaces, &body).await => {}
            Err(error) if error.is_already_exists() => return Ok(()),
            Err(error) => return Err(format!("error creating namespace {target}: {error}")),
        }
        let key = ItemKey::new("v1", "Namespace", "", target);
        self.ledger.record(key.clone(), Outcome::Created);
        self.report_namespace(key, attempts, begun.elapsed());
        Ok(())
    }

    /// Whether the namespace that is there has all that was to be created: it carries no label of the restore to know it by.
    async fn is_made_of(&self, namespaces: &Target, body: &Value) -> bool {
        let name = body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let live = retrying(Backoff::default(), &mut Attempts::default(), || self.cluster.get(namespaces, name)).await;
        let Ok(Some(live)) = live else { return false };
        ["/metadata/labels", "/metadata/annotations"].into_iter().all(|pointer| {
            let wanted = body.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
            wanted.into_iter().all(|(key, value)| live.pointer(pointer).and_then(|live| live.get(key)) == Some(value))
        })
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
