//! What became of the volumes: the restore's volume-info file (restore-semantics 9.3).

use std::collections::BTreeMap;

use crate::engine::ports::Cluster;
use crate::velero::volume_info::RestoreVolumeInfo;

/// One entry for each volume whose data was restored from a pod volume backup, a native or a CSI snapshot.
///
/// None of these is restored yet (such volumes are errors that say so, or are provisioned empty), so there is no
/// entry; Velero writes an empty list in the same case.
#[allow(clippy::unused_async, reason = "it will ask the cluster for claims and volumes")]
pub(super) async fn collect(
    _cluster: &dyn Cluster,
    _resource_list: &BTreeMap<String, Vec<String>>,
) -> Vec<RestoreVolumeInfo> {
    Vec::new()
}
