//! What the engine tells while it works. It does not know who listens, and never waits for them.

use std::time::Duration;

use crate::model::{Counts, Finding, GroupResource, ItemId, ItemKey, Origin, Outcome, Reason, Stage, Waiting};

/// Takes the engine's events; implementations must return at once.
pub trait Events: Send + Sync {
    /// Something happened.
    fn emit(&self, event: Event);
}

/// An item that is known of, with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownItem {
    /// Number within the restore.
    pub id: ItemId,
    /// Its group-resource.
    pub group_resource: GroupResource,
    /// Kind, target namespace and name.
    pub key: ItemKey,
    /// The stage it is restored in.
    pub stage: Stage,
    /// How it came into the restore.
    pub origin: Origin,
}

/// How Velero's own two numbers count a finished item (restore-semantics 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VeleroCount {
    /// It entered the map of restored items: `itemsRestored` counts it.
    Restored,
    /// It was visited and left no trace; it leaves `totalItems`.
    Dropped,
    /// It was passed over, as its namespace could not be ensured; it stays in `totalItems` until the end.
    PassedOver,
}

/// How an item ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The item's number.
    pub id: ItemId,
    /// What became of it; never `Pending`.
    pub outcome: Outcome,
    /// Why, for `Skipped` and `Failed`.
    pub reason: Option<Reason>,
    /// More about it.
    pub message: Option<String>,
    /// How many requests were tried to write it.
    pub attempts: u32,
    /// How long it took.
    pub duration: Duration,
    /// How Velero's numbers count it.
    pub velero: VeleroCount,
}

/// Severity of a line in the restore's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogLevel {
    /// Of interest when something is wrong.
    Debug,
    /// What is done.
    Info,
    /// A warning of the results.
    Warning,
    /// An error of the results.
    Error,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new stage began.
    Stage(Stage),
    /// Phase 1 is over: these items will be restored.
    Planned(Vec<KnownItem>),
    /// One more item, which the plan did not have.
    Added(KnownItem),
    /// Work on an item began.
    Started(ItemId),
    /// An item ended.
    Finished(Finished),
    /// A wait began that may be long; it ends with [`Event::WaitOver`] of the same object.
    Wait(Waiting),
    /// The wait for this object is over.
    WaitOver(String),
    /// The counts of a stage whose work is no items, such as pod volumes; they take the place of those told before.
    Counts(Stage, Counts),
    /// A warning or error was recorded, with its typed reason.
    Finding(Finding, Reason),
    /// A line for the restore's log.
    Log(LogLevel, String),
    /// What is known of an item beside its outcome; in a preview only.
    Foreseen(ItemId, Foreseen),
}

/// What a preview knows of an item beside the outcome that it would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// The live object differs in these places (JSON pointers, the first few).
    Differs(Vec<String>),
    /// The create was not tried by a dry run.
    Untried(Untried),
}

/// Why a create was not tried by a dry run, or its answer does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untried {
    /// No dry runs were asked for.
    NotAsked,
    /// The namespace comes with the restore: there is nothing in it that could be in the way.
    NewNamespace,
    /// The object is being deleted, and the restore waits for its end.
    Leaving,
    /// The kind is served only once the restore has brought its CustomResourceDefinition.
    NewKind,
    /// The API server refuses it for lack of something that the restore brings first; with its words.
    Lacks(String),
}
