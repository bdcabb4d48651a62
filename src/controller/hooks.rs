//! The end of a restore waits for its exec hooks (restore-semantics 5.14 step 5).

use crate::engine::ExecHooks;
use crate::engine::events::{Event, Events};
use crate::model::{Finding, Stage};
use crate::velero::{HookStatus, Restore};

/// What the exec hooks of a restore came to.
pub(super) struct Hooks {
    /// `status.hookStatus`.
    pub(super) status: HookStatus,
    /// An error for each that failed.
    pub(super) findings: Vec<Finding>,
}

/// The stage after the items: finalizing may begin with hooks that still run.
pub(super) fn stage(hooks: &ExecHooks) -> Stage {
    if hooks.is_empty() { Stage::Finalizing } else { Stage::Hooks }
}

/// A Restore that is finalized again has lost sight of its hooks: they count as finished (restore-semantics 1.8), and
/// that is told where the specification has some. Those of annotations are not known here.
pub(super) fn warn_of_lost(restore: &Restore) {
    let hooks = restore.spec.hooks.resources.iter().flat_map(|resource| &resource.post_hooks);
    if hooks.filter(|hook| hook.exec.is_some()).count() > 0 {
        tracing::warn!(
            restore = restore.metadata.name,
            "the process that waited for exec hooks of this restore has ended: those that had not run by then were not \
             run; run their commands by hand"
        );
    }
}

/// Waits until all have run or failed, without limit; what is waited for is told.
///
/// # Cancellation
/// Dropped before its end, hooks that did not run yet are not run.
pub(super) async fn wait(hooks: ExecHooks, events: &dyn Events) -> Hooks {
    let outcome = hooks.wait(events).await;
    events.emit(Event::Stage(Stage::Finalizing));
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let status = HookStatus { hooks_attempted: count(outcome.attempted), hooks_failed: count(outcome.failed) };
    Hooks { status, findings: outcome.findings }
}
