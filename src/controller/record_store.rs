//! The Restore objects as the façade sees them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde_json::Value;

use super::cancel;
use super::decide::phase_of;
use super::stores::OpenLocation;
use super::{Records, Restores, Stores, source};
use crate::model::{Cancellation, Phase, Results, error_chain};
use crate::service::records::{Record, Records as RecordsPort};
use crate::service::{Code, CreateRestore, Error};
use crate::storage::{self, files};
use crate::velero::{Restore, RestoreSpec};

/// Annotation that keeps the caller's request id, so that a repeated call is recognised.
pub const REQUEST_ID: &str = "reprise.dev/request-id";

/// Fields of a Restore's `spec`; anything else is a mistake that would otherwise be lost silently.
const SPEC_FIELDS: [&str; 18] = [
    "backupName",
    "scheduleName",
    "includedNamespaces",
    "excludedNamespaces",
    "includedResources",
    "excludedResources",
    "namespaceMapping",
    "labelSelector",
    "orLabelSelectors",
    "restorePVs",
    "restoreStatus",
    "preserveNodePorts",
    "includeClusterResources",
    "hooks",
    "existingResourcePolicy",
    "itemOperationTimeout",
    "resourceModifier",
    "uploaderConfig",
];

/// Restores in the cluster, their queue, and their files in the backup location.
pub struct RecordStore {
    /// Velero's objects.
    pub records: Records,
    /// What the watch knows.
    pub restores: Restores,
    /// Opens locations.
    pub stores: Stores,
    /// Whether the cluster is the sandbox.
    pub sandbox: bool,
}

impl RecordStore {
    fn record(&self, restore: &Restore) -> Record {
        let status = restore.status.clone().unwrap_or_default();
        let progress = status.progress.unwrap_or_default();
        let count = |count: i64| u64::try_from(count).unwrap_or_default();
        let name = restore.name_any();
        Record {
            queue_position: self.restores.queue_position(&name),
            namespace: restore.namespace().unwrap_or_default(),
            uid: restore.uid().unwrap_or_default(),
            backup_name: restore.spec.backup_name.clone(),
            spec: serde_json::to_value(&restore.spec).unwrap_or_default(),
            labels: restore.labels().clone(),
            annotations: restore.annotations().clone(),
            phase: phase_of(restore).unwrap_or(Phase::New),
            validation_errors: status.validation_errors,
            failure_reason: (!status.failure_reason.is_empty()).then_some(status.failure_reason),
            warnings: count(status.warnings),
            errors: count(status.errors),
            total_items: count(progress.total_items),
            items_restored: count(progress.items_restored),
            created_at: restore.metadata.creation_timestamp.as_ref().map(|time| time.0),
            started_at: status.start_timestamp.map(|time| time.0),
            completed_at: status.completion_timestamp.map(|time| time.0),
            name,
        }
    }

    /// The location's store of a restore's backup.
    async fn location(&self, name: &str) -> Result<Option<OpenLocation>, Error> {
        let Some(restore) = self.restores.get(name) else { return Ok(None) };
        let unavailable = |message: String| Error::new(Code::Unavailable, message);
        let found = source::fetch(&self.records, &restore.spec.backup_name).await;
        let found =
            found.map_err(|error| unavailable(format!("the files of restore {name} cannot be found: {error}")))?;
        self.stores.open(&self.records, &found.location).await.map(Some).map_err(unavailable)
    }

    /// A file that was looked for. That a restore which ended regularly has none must not look as if there was nothing to tell.
    fn unless_read_only<T>(
        &self,
        name: &str,
        what: &str,
        location: &OpenLocation,
        found: Result<Option<T>, storage::Error>,
    ) -> Result<Option<T>, Error> {
        let found = found.map_err(|error| from_storage(&error))?;
        let phase = self.restores.get(name).and_then(|restore| phase_of(&restore));
        let left_files = matches!(phase, Some(Phase::Completed | Phase::PartiallyFailed));
        if found.is_none() && location.read_only && left_files {
            let message = format!(
                "the {what} of restore {name} was not kept: backup storage location {:?} is read-only, so nothing was \
                 uploaded, and the service that ran the restore has ended since; let spec.accessMode be ReadWrite while \
                 restoring to keep such files",
                location.name
            );
            return Err(Error::new(Code::FailedPrecondition, message));
        }
        Ok(found)
    }
}

#[async_trait]
impl RecordsPort for RecordStore {
    async fn get(&self, name: &str) -> Result<Option<Record>, Error> {
        if let Some(restore) = self.restores.get(name) {
            return Ok(Some(self.record(&restore)));
        }
        // The watch may not have told of it yet.
        let found = self.records.restores().get_opt(name).await.map_err(|error| from_kube(&error))?;
        Ok(found.map(|restore| self.record(&restore)))
    }

    async fn list(&self, after: &str, limit: usize) -> Result<Vec<Record>, Error> {
        if !self.restores.is_synced() {
            return Err(Error::new(
                Code::Unavailable,
                "the list of Restores is not complete yet: try again in a moment",
            ));
        }
        Ok(self.restores.list(after, limit).iter().map(|restore| self.record(restore)).collect())
    }

    async fn create(&self, request: &CreateRestore) -> Result<Record, Error> {
        let restore = self.object(request)?;
        match self.records.create(&restore).await {
            Ok(created) => {
                let record = self.record(&created);
                self.restores.remember(created);
                Ok(record)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => self.existing(request).await,
            Err(error) => Err(from_kube(&error)),
        }
    }

    async fn cancel(&self, name: &str, cancellation: &Cancellation) -> Result<Record, Error> {
        // Asked of the API server: who was first must not be overwritten because the watch is late.
        let found = self.records.restores().get_opt(name).await.map_err(|error| from_kube(&error))?;
        if let Some(restore) = found.filter(|restore| cancel::wanted(restore).is_some()) {
            return Ok(self.record(&restore));
        }
        let patched =
            self.records.patch(name, &cancel::patch(cancellation)).await.map_err(|error| from_kube(&error))?;
        let record = self.record(&patched);
        self.restores.remember(patched);
        Ok(record)
    }

    async fn results(&self, name: &str) -> Result<Option<Results>, Error> {
        let Some(location) = self.location(name).await? else { return Ok(None) };
        let found = files::restore_results(&*location.store, &location.layout, name).await;
        self.unless_read_only(name, "results", &location, found)
    }

    async fn resource_list(&self, name: &str) -> Result<Option<BTreeMap<String, Vec<String>>>, Error> {
        let Some(location) = self.location(name).await? else { return Ok(None) };
        let found = files::restore_resource_list(&*location.store, &location.layout, name).await;
        self.unless_read_only(name, "item list", &location, found)
    }

    async fn log(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(location) = self.location(name).await? else { return Ok(None) };
        let found = files::restore_log(&*location.store, &location.layout, name).await;
        self.unless_read_only(name, "log", &location, found)
    }

    fn is_sandbox(&self) -> bool {
        self.sandbox
    }
}

impl RecordStore {
    fn object(&self, request: &CreateRestore) -> Result<Restore, Error> {
        if let Some(namespace) = request.namespace.as_ref().filter(|named| *named != self.records.namespace()) {
            let message = format!(
                "namespace {namespace:?} is not the one this service works in: leave it out, or use {:?}",
                self.records.namespace()
            );
            return Err(Error::invalid("metadata.namespace", message));
        }
        let mut annotations = request.annotations.clone();
        if let Some(id) = &request.request_id {
            annotations.insert(REQUEST_ID.to_owned(), id.as_str().to_owned());
        }
        Ok(Restore {
            metadata: ObjectMeta {
                name: Some(request.name.to_string()),
                namespace: Some(self.records.namespace().to_owned()),
                labels: (!request.labels.is_empty()).then(|| request.labels.clone()),
                annotations: (!annotations.is_empty()).then_some(annotations),
                ..ObjectMeta::default()
            },
            spec: spec(&request.spec)?,
            status: None,
        })
    }

    /// A Restore of this name is there: the same call again, or another one?
    async fn existing(&self, request: &CreateRestore) -> Result<Record, Error> {
        let found = self.records.restores().get_opt(request.name.as_str()).await.map_err(|error| from_kube(&error))?;
        let same = |restore: &Restore| {
            request
                .request_id
                .as_ref()
                .is_some_and(|id| restore.annotations().get(REQUEST_ID).map(String::as_str) == Some(id.as_str()))
        };
        match found {
            Some(restore) if same(&restore) => Ok(self.record(&restore)),
            _ => {
                let message = format!("a restore named {:?} exists already: take another name", request.name.as_str());
                Err(Error { field: Some("name".to_owned()), ..Error::new(Code::AlreadyExists, message) })
            }
        }
    }
}

/// Reads a specification as callers send it.
pub(super) fn spec(value: &Value) -> Result<RestoreSpec, Error> {
    if let Some(unknown) =
        value.as_object().into_iter().flat_map(|map| map.keys()).find(|key| !SPEC_FIELDS.contains(&key.as_str()))
    {
        let message = format!("spec.{unknown} is no field of a Restore: see restores.velero.io/v1 for those there are");
        return Err(Error::invalid(&format!("spec.{unknown}"), message));
    }
    serde_json::from_value(value.clone())
        .map_err(|error| Error::invalid("spec", format!("spec cannot be read: {error}")))
}

/// The API server's failure as one of ours.
pub(super) fn from_kube(error: &kube::Error) -> Error {
    let message = source::message(error);
    let code = match error {
        kube::Error::Api(status) => match status.code {
            400 | 422 => Code::InvalidArgument,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::NotFound,
            409 => Code::AlreadyExists,
            429 => Code::ResourceExhausted,
            504 => Code::DeadlineExceeded,
            code if code >= 500 => Code::Unavailable,
            _ => Code::Internal,
        },
        _ => Code::Unavailable,
    };
    match code {
        Code::Unavailable => Error::new(code, format!("the API server cannot be reached: {message}")),
        _ => Error::new(code, message),
    }
}

fn from_storage(error: &storage::Error) -> Error {
    let code = if error.is_retryable() { Code::Unavailable } else { Code::Internal };
    Error::new(code, error_chain(error))
}
