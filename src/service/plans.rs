//! Plans: what a restore would do to the live cluster, before it does.

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;

use super::Error;
use crate::model::{PlanEntry, PlanSummary, RestoreName};

/// A plan that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRestore {
    /// Of which restore.
    pub source: PlanSource,
    /// Whether each create and update is tried by a dry run; without, objects are only looked up and compared.
    pub dry_run: bool,
}

/// Which restore a plan is of.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanSource {
    /// A Restore that exists, in whatever phase: what it would do if it ran now.
    Restore(RestoreName),
    /// One that does not.
    Spec {
        /// The name it would have, which its labels tell; made from the backup's where it has none.
        name: Option<RestoreName>,
        /// `spec` of the Restore, in Velero's own JSON form.
        spec: Value,
    },
}

/// The begin of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanBegun {
    /// Name of the Restore, or the one it would have.
    pub restore: String,
    /// The backup that would be restored.
    pub backup: String,
    /// How many items of the backup it begins with; namespaces, additional items and those left out come on top.
    pub items: u64,
    /// Whether dry runs are made.
    pub dry_run: bool,
    /// Whether the cluster is the in-memory sandbox.
    pub sandbox: bool,
}

/// One event of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanEvent {
    /// The first.
    Begun(PlanBegun),
    /// One item, in the order of the restore.
    Entry(Box<PlanEntry>),
    /// The last: what all of it comes to.
    Ended(Box<PlanSummary>),
    /// The last of a plan that could not be made to its end.
    Failed(Error),
    /// The last when the service goes down.
    ShuttingDown,
}

/// Who makes plans.
#[async_trait]
pub trait Plans: Send + Sync {
    /// Begins a plan: what is wrong with the request is an error here. A backup that cannot be read, which is known only later,
    /// ends the stream.
    async fn plan(&self, request: PlanRestore) -> Result<BoxStream<'static, PlanEvent>, Error>;
}
