//! The Restore objects: the job records and the queue (restore-semantics 1).
//!
//! One task watches them. What is to be done with one is decided by a plain function ([`decide`]); restores run one
//! after another, in the order of their creation.
//!
//! # Invariants
//! - Exactly one task writes a Restore's status: the one that runs it.
//! - Every write is a merge patch of fields we own, on the object itself: the CRD has no status subresource.
//! - A terminal phase is final; only deletion follows it.

pub mod convert;
pub mod decide;
mod deletion;
mod dynamic_volumes;
pub mod execute;
mod finalize;
pub mod record_store;
pub mod records;
pub mod source;
pub mod status;
pub mod stores;
#[cfg(test)]
mod testing;
mod upload;
pub mod validate;
mod worker;

pub use execute::Executor;
pub use records::Records;
pub use stores::{OpenLocation, Stores};
pub use worker::{Controller, Options, Restores};
