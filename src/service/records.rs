//! What the façade needs from where Restores are kept.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use super::{CreateRestore, Error};
use crate::model::{Cancellation, Phase, Results};

/// A Restore object, as plain values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// UID.
    pub uid: String,
    /// Name of the backup.
    pub backup_name: String,
    /// `spec`, in Velero's own JSON form.
    pub spec: Value,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Phase.
    pub phase: Phase,
    /// `status.validationErrors`.
    pub validation_errors: Vec<String>,
    /// `status.failureReason`.
    pub failure_reason: Option<String>,
    /// `status.warnings`.
    pub warnings: u64,
    /// `status.errors`.
    pub errors: u64,
    /// `status.progress.totalItems`.
    pub total_items: u64,
    /// `status.progress.itemsRestored`.
    pub items_restored: u64,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When its run began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Its place in the queue, from 1.
    pub queue_position: Option<u32>,
}

/// The Restore objects and the files of restores that have ended.
#[async_trait]
pub trait Records: Send + Sync {
    /// The Restore of this name.
    async fn get(&self, name: &str) -> Result<Option<Record>, Error>;

    /// Up to `limit` Restores by name, those after `after`.
    async fn list(&self, after: &str, limit: usize) -> Result<Vec<Record>, Error>;

    /// Creates a Restore object.
    async fn create(&self, request: &CreateRestore) -> Result<Record, Error>;

    /// Puts the wish to cancel on a Restore, unless it is there already.
    async fn cancel(&self, name: &str, cancellation: &Cancellation) -> Result<Record, Error>;

    /// The results file of a restore; `None` where there is none.
    async fn results(&self, name: &str) -> Result<Option<Results>, Error>;

    /// The resource-list file of a restore; `None` where there is none.
    async fn resource_list(&self, name: &str) -> Result<Option<BTreeMap<String, Vec<String>>>, Error>;

    /// The log file of a restore, decompressed; `None` where there is none.
    async fn log(&self, name: &str) -> Result<Option<String>, Error>;

    /// Whether the cluster is the in-memory sandbox.
    fn is_sandbox(&self) -> bool;
}
