//! Asynchronous operations of item actions: work that goes on after an item has its outcome (restore-semantics 5.5
//! step 4 and 5.14, plugin-protocol 8.5).

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::model::GroupResource;

/// An operation that an item action started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Name of the action, such as `velero.io/csi-pvc-restorer`.
    pub action: String,
    /// The action's own name of the operation.
    pub id: String,
    /// Group-resource of the item it was started for.
    pub group_resource: GroupResource,
    /// Target namespace of the item; empty for a cluster-scoped one.
    pub namespace: String,
    /// Name of the item in the backup.
    pub name: String,
    /// When it was started.
    pub created: Timestamp,
}

/// An operation, as its action is asked about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Name of the action.
    pub action: &'a str,
    /// The action's own name of the operation.
    pub id: &'a str,
}

/// How far an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether it is over, well or not.
    pub completed: bool,
    /// Why it went wrong; empty where it did not.
    pub error: String,
    /// Units done.
    pub done: i64,
    /// Units there are.
    pub total: i64,
    /// What the units are.
    pub units: String,
    /// What it does now.
    pub description: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it was last heard of.
    pub updated: Option<Timestamp>,
}

/// Why an operation could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be asked now, and may be later: it is taken as running.
    #[error("{0}")]
    Unreachable(String),
    /// It is not known, or its action says that it cannot go on: it has failed.
    #[error("{0}")]
    Lost(String),
}

/// What can be asked about the operations of one restore. An operation is known by its action and its id; an implementation
/// answers for the actions that it hosts, and [`Error::Lost`] for any other.
#[async_trait]
pub trait Operations: Send + Sync {
    /// How far these are, in their order. Asked for together, as one request often answers for many.
    async fn progress(&self, operations: &[Asked<'_>]) -> Vec<Result<Progress, Error>>;

    /// Asks an operation to stop; it does so when it can.
    async fn cancel(&self, operation: Asked<'_>) -> Result<(), Error>;

    /// Yields when asking again may tell something new, beside the regular times; never ends. What cannot be watched
    /// yields nothing.
    fn changes(&self) -> BoxStream<'_, ()>;
}
