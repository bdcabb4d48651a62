//! Progress, told truthfully: from the engine's events to what every door shows.
//!
//! [`Tracker`] is the pure state machine. [`RestoreProgress`] holds one for a restore, takes the engine's events
//! and publishes; [`Hub`] knows all of them by name. There are two kinds of stream. *Counts* are latest-value-wins:
//! whoever is slow sees fewer values and always the last. *Items* are a bounded, numbered log: whoever is too slow
//! is told which numbers are missing. The engine never waits for either.

mod findings;
mod hub;
mod item_log;
mod log_line;
mod log_spool;
mod observed;
mod rate;
mod restore;
mod subscription;
mod table;
mod tracker;

pub use findings::{KeptFindings, MAX_FINDINGS, MAX_TYPED};
pub use hub::{Hub, NamedUpdate};
pub use log_line::log_line;
pub use log_spool::{LogReader, LogStream};
pub use observed::{Numbers, Told};
pub use restore::{Options, RestoreProgress};
pub use subscription::{Subscription, Update};
pub use table::ItemPage;
pub use tracker::{STALL, Tracker};

/// A restore that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is one of this name that has not ended.
    #[error("a restore named {0:?} is already running here: wait until it has ended, or take another name")]
    Running(String),
}

#[cfg(test)]
mod tests;
