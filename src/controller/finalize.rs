//! The finalizing phases: what is done when all items have an outcome (restore-semantics 5.14).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::execute::Executor;
use super::halt::Halt;
use super::stores::OpenLocation;
use super::upload::Uploads;
use super::{dynamic_volumes, group_snapshots, hooks, status};
use crate::engine::ExecHooks;
use crate::engine::events::{Event, Events};
use crate::model::{Bucket, Finding, Messages, Phase, Reason, Results, Severity};
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
    /// Warnings and errors that are counted in the status and in no file; see [`counted`].
    pub(super) unfiled: (usize, usize),
}

/// The warnings and errors that the status counts: all that a restarted service knows of findings that were not filed, as a
/// location that is read-only has no files.
pub(super) fn counted(restore: &Restore) -> (usize, usize) {
    let count = |count: i64| usize::try_from(count).unwrap_or_default();
    restore.status.as_ref().map_or((0, 0), |status| (count(status.warnings), count(status.errors)))
}

/// What a restarted service cannot do without the list of what was restored, where there is something to do.
pub(super) fn unlisted(location: &OpenLocation, volumes: &[BackupVolumeInfo]) -> Option<Finding> {
    let has_provisioned = volumes
        .iter()
        .any(|info| info.pv.is_some() && matches!(&*info.backup_method, "PodVolumeBackup" | "CSISnapshot"));
    (location.read_only && has_provisioned).then(|| {
        let message = format!(
            "reclaim policies and labels of volumes that were provisioned anew are not put back: the service was restarted \
             in the midst of it, and the list of what was restored was not kept, as backup storage location {:?} is \
             read-only",
            location.name
        );
        Finding { severity: Severity::Warning, bucket: Bucket::Velero, message }
    })
}

/// Wraps up, adds late findings to the uploaded results, and writes the terminal phase.
///
/// # Cancellation
/// `false` when it is given up or cancelled: the Restore is left in its finalizing phase, to be finalized again or ended.
pub(super) async fn finalize(
    executor: &Executor,
    finalizing: &Finalizing<'_>,
    results: &mut Results,
    exec_hooks: ExecHooks,
    followed: &Arc<RestoreProgress>,
    halt: &Halt,
) -> bool {
    let name = finalizing.restore.metadata.name.as_deref().unwrap_or_default();
    let mapping = &finalizing.restore.spec.namespace_mapping;
    let claims = dynamic_volumes::claims(finalizing.volumes, mapping, finalizing.resource_list, finalizing.operations);
    let patience = executor.settings.resource_timeout;
    // Held for what ends within its time only: other waits must not keep restores from being finalized.
    let work = async {
        let _permit = executor.finalizers.acquire().await;
        let cluster = &*executor.cluster;
        let volumes = dynamic_volumes::patch(cluster, &**followed, patience, &claims).await;
        (volumes, group_snapshots::clean_up(cluster, &**followed, name, patience).await)
    };
    // Side by side: neither can help or hinder the other, and both may take long.
    let ((volumes, stubs), hooks) = tokio::select! {
        found = async { tokio::join!(work, hooks::wait(exec_hooks, &**followed)) } => found,
        () = halt.work().cancelled() => return false,
    };
    let mut late: Vec<(Finding, Reason)> = volumes.into_iter().map(|finding| (finding, Reason::Volume)).collect();
    late.extend(stubs.into_iter().map(|finding| (finding, Reason::Other)));
    late.extend(hooks.findings.into_iter().map(|finding| (finding, Reason::Other)));
    // A process that ended between the upload and the last status has filed its findings already.
    late.retain(|(finding, _)| !is_filed(results, finding));
    if !late.is_empty() {
        for (finding, reason) in late {
            followed.emit(Event::Finding(finding.clone(), reason));
            results.add(finding);
        }
        let (events, stop) = (&**followed, halt.given_up());
        let uploads = Uploads { location: finalizing.location, restore: name, events, patient: true, stop };
        if uploads.or_finding(uploads.results(results).await, "results", results).is_err() {
            return false;
        }
    }
    let (warnings, errors) = finalizing.unfiled;
    let (warnings, errors) = (warnings + results.warnings.count(), errors + results.errors.count());
    let phase = if errors > 0 { Phase::PartiallyFailed } else { Phase::Completed };
    let patch = status::ended(phase, warnings, errors, &hooks.status, Timestamp::now());
    executor.write_end(name, &patch, halt.given_up()).await;
    followed.finish(phase, None);
    true
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
