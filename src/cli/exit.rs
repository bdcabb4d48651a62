//! How the process ends, as a number that scripts branch on.

use std::process::ExitCode;

use crate::model::{Cancellation, Phase};
use crate::service::RestoreView;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, and if it was a restore, it completed: 0.
    Success,
    /// Something went wrong that is not the restore's outcome: 1.
    Error,
    /// The command line makes no sense: 2, as argument parsers have it.
    Usage,
    /// The restore partially failed: 3.
    PartiallyFailed,
    /// The restore failed, or its specification was refused: 4.
    Failed,
    /// The restore was cancelled: 5.
    Cancelled,
    /// Stopped by Ctrl-C while only looking on: 130, as shells have it.
    Interrupted,
}

impl Exit {
    /// The exit code of a restore that ended in this phase.
    #[must_use]
    pub const fn of(phase: Phase) -> Self {
        match phase {
            Phase::Completed => Self::Success,
            Phase::PartiallyFailed => Self::PartiallyFailed,
            Phase::Failed | Phase::FailedValidation => Self::Failed,
            Phase::New
            | Phase::InProgress
            | Phase::WaitingForPluginOperations
            | Phase::WaitingForPluginOperationsPartiallyFailed
            | Phase::Finalizing
            | Phase::FinalizingPartiallyFailed => Self::Error,
        }
    }

    /// The exit code of a restore that ended like this.
    #[must_use]
    pub fn of_view(view: &RestoreView) -> Self {
        let is_cancelled = view.failure_reason.as_deref().is_some_and(Cancellation::is_told_by);
        if view.phase == Phase::Failed && is_cancelled { Self::Cancelled } else { Self::of(view.phase) }
    }

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::PartiallyFailed => 3,
            Self::Failed => 4,
            Self::Cancelled => 5,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
