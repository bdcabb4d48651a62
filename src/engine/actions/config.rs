//! What some actions need from outside: plugin configuration, storage classes, the cluster.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Mutex;

use super::{Error, fields};
use crate::engine::ports::{ApiError, Cluster};
use crate::engine::retry::patiently;
use crate::model::{Reason, Target};

/// `data` of the ConfigMap that configures an action.
pub type PluginConfig = BTreeMap<String, String>;

/// What actions may ask for. Made once per restore.
///
/// Plugin configuration (restore-semantics 7.0) is read once, when the restore begins, and not per item: a change
/// during a restore is seen by the next one, and all items of one restore are treated alike.
pub struct Lookup {
    cluster: Arc<dyn Cluster>,
    velero_namespace: String,
    configs: Result<Vec<LabelledConfig>, ApiError>,
    /// Classes known to exist. One that is missing is asked for again: another item may bring it.
    storage_classes: Mutex<HashSet<String>>,
    /// Held while a stub of a group snapshot is made or extended.
    group_snapshots: Mutex<()>,
}

struct LabelledConfig {
    name: String,
    labels: BTreeMap<String, String>,
    data: PluginConfig,
}

impl Lookup {
    /// Reads the plugin configuration with one request.
    ///
    /// Failing to read it is no error yet: it becomes one for the items whose action is configured that way.
    pub async fn read(cluster: Arc<dyn Cluster>, velero_namespace: &str) -> Self {
        let config_maps = Target::new("", "v1", "configmaps", velero_namespace);
        let listed = patiently(|| cluster.list(&config_maps, "velero.io/plugin-config")).await;
        let configs = listed.map(|objects| objects.iter().map(LabelledConfig::of).collect());
        Self {
            cluster,
            velero_namespace: velero_namespace.to_owned(),
            configs,
            storage_classes: Mutex::default(),
            group_snapshots: Mutex::default(),
        }
    }

    /// Held while a stub of a group snapshot is made or extended.
    pub(super) fn group_snapshots(&self) -> &Mutex<()> {
        &self.group_snapshots
    }

    /// The cluster.
    pub(super) fn cluster(&self) -> &dyn Cluster {
        &*self.cluster
    }

    /// The configuration of the action, if there is one.
    ///
    /// # Errors
    ///
    /// There is more than one, or none could be read: every item the action takes fails then.
    pub fn config(&self, action: &str) -> Result<Option<&PluginConfig>, Error> {
        let configs = self.configs.as_ref().map_err(|error| Error::ConfigUnavailable {
            action: action.to_owned(),
            message: error.message.clone(),
            reason: error.typed_reason(),
        })?;
        let is_for_action =
            |config: &&LabelledConfig| config.labels.get(action).is_some_and(|kind| kind == "RestoreItemAction");
        let found: Vec<_> = configs.iter().filter(is_for_action).collect();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(&one.data)),
            many => Err(Error::AmbiguousConfig {
                action: action.to_owned(),
                names: many.iter().map(|config| config.name.clone()).collect(),
            }),
        }
    }

    /// Succeeds if a StorageClass of this name exists.
    pub(super) async fn require_storage_class(&self, name: &str) -> Result<(), Error> {
        // Held across the request, so that a thousand claims of one class ask for it once.
        let mut known = self.storage_classes.lock().await;
        if known.contains(name) {
            return Ok(());
        }
        let target = Target::new("storage.k8s.io", "v1", "storageclasses", "");
        let failed = |message: String, reason| Error::StorageClass { name: name.to_owned(), message, reason };
        match patiently(|| self.cluster.get(&target, name)).await {
            Ok(Some(_)) => {
                known.insert(name.to_owned());
                Ok(())
            }
            Ok(None) => Err(failed(format!("storageclasses.storage.k8s.io {name:?} not found"), Reason::NotFound)),
            Err(error) => Err(failed(error.message.clone(), error.typed_reason())),
        }
    }

    /// The image of the first container of Velero's own Deployment.
    pub(super) async fn velero_image(&self) -> Result<String, Error> {
        const WHAT: &str = "get the Deployment velero, whose image is that of the restore helper";
        let target = Target::new("apps", "v1", "deployments", &self.velero_namespace);
        let deployment = patiently(|| self.cluster.get(&target, "velero"))
            .await
            .map_err(|error| Error::api(WHAT, &error))?
            .ok_or_else(|| Error::Api {
                what: WHAT.to_owned(),
                message: "deployments.apps \"velero\" not found".to_owned(),
                reason: Reason::NotFound,
            })?;
        fields::list(&deployment, "spec.template.spec.containers")?
            .first()
            .and_then(|container| container["image"].as_str())
            .filter(|image| !image.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| Error::Missing {
                path: "spec.template.spec.containers[0].image in the Deployment velero".to_owned(),
                purpose: "restoring the data of pod volumes",
            })
    }
}

impl LabelledConfig {
    fn of(config_map: &Value) -> Self {
        Self {
            name: config_map["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            labels: texts(&config_map["metadata"]["labels"]),
            data: texts(&config_map["data"]),
        }
    }
}

/// The text values of an object; the API server lets no other into labels and `data`.
fn texts(object: &Value) -> BTreeMap<String, String> {
    object
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::{FakeCluster, block_on, plugin_config};
    use super::*;

    /// restore-semantics 7.0, plugin config; velero-differences: plugin-config-read-once
    #[test]
    fn configuration_is_read_with_one_request_for_all_actions() {
        let cluster = FakeCluster::new([
            plugin_config("one", "velero.io/a", json!({"k": "v"})),
            plugin_config("two", "velero.io/b", json!({})),
        ]);
        let lookup = block_on(Lookup::read(cluster.clone(), "velero"));
        assert_eq!(lookup.config("velero.io/a").unwrap().unwrap()["k"], "v");
        assert!(lookup.config("velero.io/b").unwrap().unwrap().is_empty());
        assert!(lookup.config("velero.io/c").unwrap().is_none());
        assert_eq!(cluster.requests(), ["list configmaps velero velero.io/plugin-config"]);
    }

    /// restore-semantics 7.0, plugin config
    #[tokio::test(start_paused = true)]
    async fn configuration_that_cannot_be_listed_fails_the_items_and_says_why() {
        let lookup = Lookup::read(FakeCluster::failing("etcd is away"), "velero").await;
        let error = lookup.config("velero.io/a").unwrap_err();
        assert!(error.to_string().contains("velero.io/a: etcd is away"), "{error}");
    }
}
