//! What is to be done with a Restore, as a plain function of what it looks like.

use super::cancel;
use crate::model::Phase;
use crate::velero::Restore;
use crate::velero::restore::FINALIZER;

/// The next step for a Restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add the finalizer, so that its files can be removed when it is deleted.
    AddFinalizer,
    /// It is being deleted: remove its files, then the finalizer.
    CleanUp,
    /// Validate it and run it, when its turn comes.
    Run,
    /// It was running when the process that ran it ended: run it again.
    Resume,
    /// Its items are done; what its operations, volumes and hooks come to is awaited, beside the queue.
    Conclude,
    /// It is to be cancelled: stop what runs of it, and end it.
    Cancel,
    /// Nothing.
    Leave,
}

/// Decides the next step.
#[must_use]
pub fn decide(restore: &Restore) -> Step {
    let metadata = &restore.metadata;
    let has_finalizer = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if metadata.deletion_timestamp.is_some() {
        return if has_finalizer { Step::CleanUp } else { Step::Leave };
    }
    if !has_finalizer {
        return Step::AddFinalizer;
    }
    match phase_of(restore) {
        Some(phase) if !phase.is_terminal() && cancel::wanted(restore).is_some() => Step::Cancel,
        Some(Phase::New) => Step::Run,
        Some(Phase::InProgress) => Step::Resume,
        Some(
            Phase::Finalizing
            | Phase::FinalizingPartiallyFailed
            | Phase::WaitingForPluginOperations
            | Phase::WaitingForPluginOperationsPartiallyFailed,
        ) => Step::Conclude,
        // A phase of a newer Velero is not ours to touch.
        Some(Phase::FailedValidation | Phase::Completed | Phase::PartiallyFailed | Phase::Failed) | None => Step::Leave,
    }
}

/// The phase of a Restore; `None` for one that is not known.
#[must_use]
pub fn phase_of(restore: &Restore) -> Option<Phase> {
    Phase::parse(restore.status.as_ref().map_or("", |status| status.phase.as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn restore(metadata: serde_json::Value, phase: &str) -> Restore {
        let status = json!({"phase": phase});
        serde_json::from_value(json!({"apiVersion": "velero.io/v1", "kind": "Restore", "metadata": metadata,
            "spec": {"backupName": "b"}, "status": status}))
        .unwrap()
    }

    /// restore-semantics 1.1
    #[test]
    fn the_finalizer_comes_first_in_any_phase() {
        for phase in ["", "New", "Completed", "Failed"] {
            assert_eq!(decide(&restore(json!({"name": "r"}), phase)), Step::AddFinalizer, "{phase}");
        }
    }

    /// restore-semantics 1.6 and 1.8; velero-differences: running-restores-are-resumed
    #[test]
    fn each_phase_has_its_step() {
        let with_finalizer = json!({"name": "r", "finalizers": [FINALIZER]});
        for (phase, step) in [
            ("", Step::Run),
            ("New", Step::Run),
            ("InProgress", Step::Resume),
            ("Finalizing", Step::Conclude),
            ("FinalizingPartiallyFailed", Step::Conclude),
            ("WaitingForPluginOperations", Step::Conclude),
            ("Completed", Step::Leave),
            ("FailedValidation", Step::Leave),
            ("SomethingOfTomorrow", Step::Leave),
        ] {
            assert_eq!(decide(&restore(with_finalizer.clone(), phase)), step, "{phase:?}");
        }
    }

    /// velero-differences: restores-can-be-cancelled
    #[test]
    fn one_that_is_to_be_cancelled_is_so_in_any_phase_that_is_not_the_last() {
        for (value, phase, step) in [
            ("true", "New", Step::Cancel),
            ("wrong backup", "InProgress", Step::Cancel),
            ("", "WaitingForPluginOperations", Step::Cancel),
            ("true", "FinalizingPartiallyFailed", Step::Cancel),
            ("true", "Completed", Step::Leave),
            ("true", "Failed", Step::Leave),
            ("true", "SomethingOfTomorrow", Step::Leave),
            ("false", "New", Step::Run),
        ] {
            let metadata =
                json!({"name": "r", "finalizers": [FINALIZER], "annotations": {"reprise.dev/cancel": value}});
            assert_eq!(decide(&restore(metadata, phase)), step, "{value:?} {phase}");
        }
        let being_deleted = json!({"name": "r", "finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"reprise.dev/cancel": "true"}});
        assert_eq!(decide(&restore(being_deleted, "InProgress")), Step::CleanUp, "which cancels it as well");
    }

    /// restore-semantics 1.9
    #[test]
    fn one_that_is_being_deleted_is_cleaned_up_once() {
        let deleted = |finalizers: &[&str]| {
            restore(json!({"name": "r", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers}), "New")
        };
        assert_eq!(decide(&deleted(&[FINALIZER, "other"])), Step::CleanUp);
        assert_eq!(decide(&deleted(&["other"])), Step::Leave);
    }
}
