//! The schemas that strategic merge patches need, asked of the API server once per group version and run.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::strategic::Document;
use crate::engine::ports::{ApiError, Cluster};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::ApiVersion;

/// What a cluster publishes about its kinds, as far as a run has asked for it.
pub struct Schemas {
    cluster: Arc<dyn Cluster>,
    known: Mutex<HashMap<String, Arc<Document>>>,
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemas").finish_non_exhaustive()
    }
}

impl Schemas {
    /// The schemas of this cluster; nothing is asked yet.
    #[must_use]
    pub fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster, known: Mutex::default() }
    }

    pub(super) async fn of(&self, version: &ApiVersion) -> Result<Arc<Document>, ApiError> {
        // The lock is held over the request on purpose: items that come meanwhile want the same answer.
        let mut known = self.known.lock().await;
        let name = version.to_string();
        if let Some(document) = known.get(&name) {
            return Ok(Arc::clone(document));
        }
        // These tries write nothing, so they are not the item's.
        let mut attempts = Attempts::default();
        let ask = || self.cluster.openapi(&version.group, &version.version);
        let document = Arc::new(Document::new(retrying(Backoff::default(), &mut attempts, ask).await?));
        known.insert(name, Arc::clone(&document));
        Ok(document)
    }
}

/// Whether strategic merge patches are for kinds of this group version: those that Velero has Go types of
/// (restore-semantics 8). An API server publishes merge keys for more, but a rule must not do here what it does not do
/// there.
pub(super) fn takes_strategic_patches(version: &ApiVersion) -> bool {
    match version.group.as_str() {
        "" | "apps" | "batch" => version.version == "v1",
        group => ["velero.io", "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"].contains(&group),
    }
}
