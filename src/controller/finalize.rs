//! The finalizing phases: what is done when all items have an outcome (restore-semantics 5.14).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::execute::Executor;
use super::stores::OpenLocation;
use super::{dynamic_volumes, status, upload};
use crate::engine::events::{Event, Events};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::{Bucket, Finding, Messages, Phase, Reason, Results, Severity, Target, label};
use crate::progress::RestoreProgress;
use crate::velero::Restore;
use crate::velero::volume_info::{BackupVolumeInfo, ItemOperation};

/// A restore whose items are done.
pub(super) struct Finalizing<'a> {
    /// The Restore.
    pub(super) restore: &'a Restore,
    /// Where its files are.
    pub(super) location: &'a OpenLocation,
    /// What the backup tells of its volumes.
    pub(super) volumes: &'a [BackupVolumeInfo],
    /// What was restored.
    pub(super) resource_list: &'a BTreeMap<String, Vec<String>>,
    /// The asynchronous operations of the restore.
    pub(super) operations: &'a [ItemOperation],
}

/// Wraps up, adds late findings to the uploaded results, and writes the terminal phase.
///
/// # Cancellation
/// When `stop` fires, the Restore is left in its finalizing phase, to be finalized again.
pub(super) async fn finalize(
    executor: &Executor,
    finalizing: &Finalizing<'_>,
    mut results: Results,
    followed: &Arc<RestoreProgress>,
    stop: &CancellationToken,
) {
    let name = finalizing.restore.metadata.name.as_deref().unwrap_or_default();
    let mapping = &finalizing.restore.spec.namespace_mapping;
    let claims = dynamic_volumes::claims(finalizing.volumes, mapping, finalizing.resource_list, finalizing.operations);
    let patience = executor.settings.resource_timeout;
    let volumes = tokio::select! {
        found = dynamic_volumes::patch(&*executor.cluster, &**followed, patience, &claims) => found,
        () = stop.cancelled() => return,
    };
    let mut late: Vec<(Finding, Reason)> = volumes.into_iter().map(|finding| (finding, Reason::Volume)).collect();
    late.extend(stub_group_snapshots(executor, name).await.map(|finding| (finding, Reason::Other)));
    // A process that ended between the upload and the last status has filed its findings already.
    late.retain(|(finding, _)| !is_filed(&results, finding));
    if !late.is_empty() {
        for (finding, reason) in late {
            followed.emit(Event::Finding(finding.clone(), reason));
            results.add(finding);
        }
        upload::put_results(finalizing.location, name, &results).await;
    }
    let (warnings, errors) = (results.warnings.count(), results.errors.count());
    let phase = if errors > 0 { Phase::PartiallyFailed } else { Phase::Completed };
    executor.write_end(name, &status::ended(phase, warnings, errors, Timestamp::now()), stop).await;
    followed.finish(phase, None);
}

fn is_filed(results: &Results, finding: &Finding) -> bool {
    let Messages { velero, cluster, namespaces } = match finding.severity {
        Severity::Warning => &results.warnings,
        Severity::Error => &results.errors,
    };
    let bucket = match &finding.bucket {
        Bucket::Velero => Some(velero),
        Bucket::Cluster => Some(cluster),
        Bucket::Namespace(namespace) => namespaces.get(namespace),
    };
    bucket.is_some_and(|messages| messages.contains(&finding.message))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// restore-semantics 5.14 step 6; velero-differences: late-findings-are-filed-once
    #[test]
    fn a_finding_that_is_in_the_results_is_not_filed_again() {
        let finding = |severity, namespace: &str, message: &str| Finding {
            severity,
            bucket: Bucket::of(namespace),
            message: message.to_owned(),
        };
        let mut results = Results::default();
        results.add(finding(Severity::Error, "app", "slow"));
        assert!(is_filed(&results, &finding(Severity::Error, "app", "slow")));
        assert!(!is_filed(&results, &finding(Severity::Warning, "app", "slow")));
        assert!(!is_filed(&results, &finding(Severity::Error, "", "slow")));
        assert!(!is_filed(&results, &finding(Severity::Error, "app", "other")));
    }
}
