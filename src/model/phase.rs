//! The phases of a restore, as Velero names them (restore-semantics 1.1 and 1.6).

use serde::{Deserialize, Serialize};

/// `status.phase` of a Restore. An absent phase is [`Phase::New`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Not yet looked at.
    #[default]
    New,
    /// The specification is wrong; `validationErrors` says how. Terminal.
    FailedValidation,
    /// Collecting or restoring items.
    InProgress,
    /// Items are done, asynchronous operations still run.
    WaitingForPluginOperations,
    /// The same, with errors so far.
    WaitingForPluginOperationsPartiallyFailed,
    /// Wrapping up.
    Finalizing,
    /// The same, with errors so far.
    FinalizingPartiallyFailed,
    /// Done without errors. Terminal.
    Completed,
    /// Done with errors. Terminal.
    PartiallyFailed,
    /// Could not run; `failureReason` says why. Terminal.
    Failed,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 10] = [
        Self::New,
        Self::FailedValidation,
        Self::InProgress,
        Self::WaitingForPluginOperations,
        Self::WaitingForPluginOperationsPartiallyFailed,
        Self::Finalizing,
        Self::FinalizingPartiallyFailed,
        Self::Completed,
        Self::PartiallyFailed,
        Self::Failed,
    ];

    /// The name as it stands in the Restore.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::FailedValidation => "FailedValidation",
            Self::InProgress => "InProgress",
            Self::WaitingForPluginOperations => "WaitingForPluginOperations",
            Self::WaitingForPluginOperationsPartiallyFailed => "WaitingForPluginOperationsPartiallyFailed",
            Self::Finalizing => "Finalizing",
            Self::FinalizingPartiallyFailed => "FinalizingPartiallyFailed",
            Self::Completed => "Completed",
            Self::PartiallyFailed => "PartiallyFailed",
            Self::Failed => "Failed",
        }
    }

    /// The phase of this name; the empty text is `New`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::New);
        }
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }

    /// Whether nothing follows this phase.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::FailedValidation | Self::Completed | Self::PartiallyFailed | Self::Failed)
    }
}
