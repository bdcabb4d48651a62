//! What a restore is asked to do: the domain twin of the Restore's `spec` (restore-semantics 1.1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A label selector as written in an object: unchecked, see [`super::selector::Selector`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements, all of which must hold.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub match_expressions: Vec<SelectorRequirement>,
}

/// One requirement of a [`LabelSelector`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelectorRequirement {
    /// The label key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values of `In` and `NotIn`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub values: Vec<String>,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// What to do with an object that exists already and differs from the backup (restore-semantics 5.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExistingResourcePolicy {
    /// Not set: leave it and warn.
    #[default]
    Unset,
    /// `none`: leave it and warn.
    None,
    /// `update`: patch it to the backed-up version.
    Update,
}

/// Which resources, by group-resource patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceLists {
    /// Taken; empty or `*` for all.
    pub included_resources: Vec<String>,
    /// Left out; wins over the included ones.
    pub excluded_resources: Vec<String>,
}

/// The checked specification of one restore, as the engine takes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestoreSpec {
    /// Source namespaces to take; empty or `*` for all; globs allowed.
    pub included_namespaces: Vec<String>,
    /// Source namespaces to leave out; globs allowed.
    pub excluded_namespaces: Vec<String>,
    /// Resources to take and leave out.
    pub resources: ResourceLists,
    /// Source namespace to target namespace.
    pub namespace_mapping: BTreeMap<String, String>,
    /// Labels an item must have.
    pub label_selector: Option<LabelSelector>,
    /// Alternatives, of which an item must match one; `None` is absent, which differs from empty.
    pub or_label_selectors: Option<Vec<LabelSelector>>,
    /// Whether persistent volumes are restored; absent means yes.
    pub restore_pvs: Option<bool>,
    /// Whose status is restored; absent means nobody's.
    pub restore_status: Option<ResourceLists>,
    /// Whether services keep their node ports; absent means no.
    pub preserve_node_ports: Option<bool>,
    /// Whether cluster-scoped resources are restored; absent means as far as they are needed.
    pub include_cluster_resources: Option<bool>,
    /// What happens to existing objects.
    pub existing_resource_policy: ExistingResourcePolicy,
    /// Init and exec hooks by specification.
    pub hooks: Vec<Value>,
}

impl RestoreSpec {
    /// The namespace that items of a source namespace are restored into.
    #[must_use]
    pub fn target_namespace<'a>(&'a self, source: &'a str) -> &'a str {
        self.namespace_mapping.get(source).map_or(source, String::as_str)
    }

    /// Whether volumes may be restored (`restorePVs` is not explicitly false).
    #[must_use]
    pub fn restores_volumes(&self) -> bool {
        self.restore_pvs != Some(false)
    }
}
