//! A cluster that cannot be written to.

use std::sync::Arc;

use futures::stream::BoxStream;
use serde_json::Value;

use crate::engine::discovery::Discovery;
use crate::engine::ports::{ApiError, Change, DryRun};
use crate::model::Target;

/// A cluster of which only reads and dry runs are left. That a preview writes nothing is a property of this type: it
/// gives the cluster out to nobody, and has no method that writes.
#[derive(Clone)]
pub struct ReadOnly(Arc<dyn DryRun>);

impl ReadOnly {
    /// The cluster without its writes.
    #[must_use]
    pub fn new(cluster: Arc<dyn DryRun>) -> Self {
        Self(cluster)
    }

    /// What the API server serves.
    ///
    /// # Errors
    /// Those of the API server, here and below.
    pub async fn discovery(&self, refresh: bool) -> Result<Arc<Discovery>, ApiError> {
        self.0.discovery(refresh).await
    }

    /// The object of this name.
    pub async fn get(&self, target: &Target, name: &str) -> Result<Option<Value>, ApiError> {
        self.0.get(target, name).await
    }

    /// All objects of the target that match a label selector.
    pub async fn list(&self, target: &Target, label_selector: &str) -> Result<Vec<Value>, ApiError> {
        self.0.list(target, label_selector).await
    }

    /// The OpenAPI document of a group version.
    pub async fn openapi(&self, group: &str, version: &str) -> Result<Value, ApiError> {
        self.0.openapi(group, version).await
    }

    /// The changes of an object, or of all of the target.
    #[must_use]
    pub fn watch<'a>(&'a self, target: &Target, name: Option<&str>) -> BoxStream<'a, Result<Change, ApiError>> {
        self.0.watch(target, name)
    }

    /// What a create would come to.
    pub async fn try_create(&self, target: &Target, object: &Value) -> Result<Value, ApiError> {
        self.0.create_dry_run(target, object).await
    }

    /// What a merge patch would come to.
    pub async fn try_merge_patch(&self, target: &Target, name: &str, patch: &Value) -> Result<Value, ApiError> {
        self.0.merge_patch_dry_run(target, name, patch).await
    }

    /// Whether the service may use this verb on objects of the target.
    pub async fn may(&self, verb: &str, target: &Target) -> Result<bool, ApiError> {
        self.0.may(verb, target).await
    }
}
