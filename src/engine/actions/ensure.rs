//! Objects that the API server gives their names, and of which there must be one all the same: a create that is tried
//! again, or a restore that goes on after a restart, would otherwise make a second one.

use serde_json::Value;

use crate::engine::ports::{ApiError, Cluster};
use crate::engine::retry::{Attempts, Backoff, retrying};
use crate::model::Target;

/// The first object with these labels, or the one that is created where there is none.
pub(super) async fn ensure_one(
    cluster: &dyn Cluster,
    target: &Target,
    selector: &str,
    object: &Value,
) -> Result<Value, ApiError> {
    retrying(Backoff::default(), &mut Attempts::default(), || async move {
        match cluster.list(target, selector).await?.into_iter().next() {
            Some(found) => Ok(found),
            None => cluster.create(target, object).await,
        }
    })
    .await
}
