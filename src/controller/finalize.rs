//! The finalizing phases: what is done when all items have an outcome (restore-semantics 5.14).

use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::execute::Executor;
use super::stores::OpenLocation;
use super::{status, upload};
use crate::engine::events::{Event, Events};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::{Bucket, Finding, Phase, Reason, Results, Severity, Target, label};
use crate::progress::RestoreProgress;
use crate::velero::Restore;

/// A restore whose items are done.
pub(super) struct Finalizing<'a> {
    /// The Restore.
    pub(super) restore: &'a Restore,
    /// Where its files are.
    pub(super) location: &'a OpenLocation,
}

/// Wraps up, adds late findings to the uploaded results, and writes the terminal phase.
pub(super) async fn finalize(
    executor: &Executor,
    finalizing: &Finalizing<'_>,
    mut results: Results,
    followed: &Arc<RestoreProgress>,
    stop: &CancellationToken,
) {
    let name = finalizing.restore.metadata.name.as_deref().unwrap_or_default();
    let mut late = Vec::new();
    late.extend(stub_group_snapshots(executor, name).await);
    if !late.is_empty() {
        for finding in late {
            followed.emit(Event::Finding(finding.clone(), Reason::Other));
            results.add(finding);
        }
        upload::put_results(finalizing.location, name, &results).await;
    }
    let (warnings, errors) = (results.warnings.count(), results.errors.count());
    let phase = if errors > 0 { Phase::PartiallyFailed } else { Phase::Completed };
    executor.write_end(name, &status::ended(phase, warnings, errors, Timestamp::now()), stop).await;
    followed.finish(phase, None);
}

/// Stub VolumeGroupSnapshotContents of this restore. There are none, as CSI snapshots are not restored; what Velero
/// also does is to warn where the kind is not served, under a namespace it calls `cluster`.
async fn stub_group_snapshots(executor: &Executor, restore: &str) -> Option<Finding> {
    let target = Target::new("groupsnapshot.storage.k8s.io", "v1beta2", "volumegroupsnapshotcontents", "");
    let selector = format!("{}={restore}", label::RESTORE_NAME);
    let list = || executor.cluster.list(&target, &selector);
    let error = retrying(Backoff::default(), &mut Attempts::default(), list).await.err()?;
    let message = format!(
        "failed to list stub VolumeGroupSnapshotContents: {error} \
         (get volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io)"
    );
    Some(Finding { severity: Severity::Warning, bucket: Bucket::Namespace("cluster".to_owned()), message })
}
