//! The Restore objects: the job records and the queue (restore-semantics 1).
//!
//! One task watches them. What is to be done with one is decided by a plain function ([`decide`]); restores run one
//! after another, in the order of their creation. What then is waited for does not hold up the next one: each restore
//! has a task of its own for that.
//!
//! # Invariants
//! - Exactly one task writes a Restore's status: the one that runs it, and after it the one that concludes it.
//! - Every write is a merge patch of fields we own, on the object itself: the CRD has no status subresource.
//! - A terminal phase is final; only deletion follows it.

mod archive_source;
pub mod cancel;
pub mod check;
mod conclude;
pub mod convert;
pub mod decide;
mod deletion;
pub mod download_requests;
mod dynamic_volumes;
pub mod execute;
mod finalize;
mod group_snapshots;
mod halt;
mod hooks;
mod kube_events;
pub mod observer;
mod operations;
mod pod_volumes;
pub mod preview;
pub mod record_store;
pub mod records;
pub mod source;
pub mod status;
pub mod stores;
#[cfg(test)]
mod testing;
pub mod unsaved;
mod upload;
pub mod validate;
mod volume_info;
mod waiting;
mod worker;

pub use conclude::FINALIZERS;
pub use execute::Executor;
pub use records::Records;
pub use stores::{OpenLocation, Stores};
pub use worker::{Controller, Options, Restores};
