//! The two-phase engine: collect a plan from the archive, then restore it.
//!
//! It knows neither kube nor tonic nor axum: what it needs from outside stands in [`ports`], what it tells
//! the outside in [`events`].

pub mod actions;
mod call_off;
pub mod collect;
pub mod compare;
pub mod discovery;
pub mod events;
mod hooks;
pub mod job;
pub mod managed_fields;
pub mod merge;
pub mod modifiers;
pub mod operations;
pub mod plan;
mod pod_volume_backups;
pub mod ports;
pub mod preview;
#[cfg(test)]
mod recorded;
mod restore;
pub mod retry;
mod run;
pub mod strip;
pub mod versions;

pub use actions::DataDownloads;
pub use call_off::call_off;
pub use hooks::{ExecHooks, HooksOutcome};
pub use job::{BackupMethod, BackupVolumes, DataMover, Job, NativeSnapshot, PodVolumeOptions, Settings};
pub use pod_volume_backups::{PodVolumeBackups, VolumeBackup};
pub use restore::RestoredPodVolume;
pub use run::{Report, plan, run};
