//! What a restore takes, decided from its specification once for both phases (restore-semantics 4.3 to 4.6, 5.3).

use crate::engine::discovery::Discovery;
use crate::model::includes::{IncludesExcludes, WILDCARD_LEAD_IN, WildcardError};
use crate::model::selector::{self, Selector};
use crate::model::{GroupResource, LabelSelector, ResourceLists, RestoreSpec};

/// Taken whatever the resource filters, the namespace filters and the label selectors say.
const MUST_HAVE: [&str; 2] = ["datauploads.velero.io", "volumesnapshotcontents.snapshot.storage.k8s.io"];

/// Why there are no filters; prints as Velero words it in the results.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A label selector is not valid.
    #[error(transparent)]
    Selector(#[from] selector::Error),
    /// A namespace wildcard is not valid.
    #[error("{WILDCARD_LEAD_IN}{0}")]
    Wildcard(WildcardError),
}

/// What a restore takes.
///
/// Resource names are resolved once, by the discovery from before the restore (restore-semantics 4.3).
#[derive(Clone, Debug)]
pub struct Filters {
    resources: IncludesExcludes,
    namespaces: IncludesExcludes,
    include_cluster: Option<bool>,
    selectors: Selectors,
}

#[derive(Clone, Debug)]
struct Selectors {
    all: Option<Selector>,
    one_of: Vec<Selector>,
}

impl Selectors {
    fn new(spec: &RestoreSpec) -> Result<Self, selector::Error> {
        let all = spec.label_selector.as_ref().map(Selector::new).transpose()?;
        let one_of: Result<_, _> = spec.or_label_selectors.iter().flatten().map(Selector::new).collect();
        Ok(Self { all, one_of: one_of? })
    }

    /// Whether they say yes without a look.
    fn is_everything(&self) -> bool {
        self.all.as_ref().is_none_or(Selector::is_everything)
            && (self.one_of.is_empty() || self.one_of.iter().any(Selector::is_everything))
    }
}

/// Whether selecting the items of a restore needs their labels, so that the archive has to keep them.
#[must_use]
pub fn needs_labels(spec: &RestoreSpec) -> bool {
    let has_any =
        |selector: &LabelSelector| !(selector.match_labels.is_empty() && selector.match_expressions.is_empty());
    spec.label_selector.iter().chain(spec.or_label_selectors.iter().flatten()).any(has_any)
}

/// Resource lists whose entries are resolved by discovery, such as those of `restoreStatus` and of hooks.
#[must_use]
pub fn resolve_resources(lists: &ResourceLists, discovery: &Discovery) -> IncludesExcludes {
    let resolve = |entry: &str| discovery.resolve(entry).as_str().to_owned();
    IncludesExcludes::resolved(&lists.included_resources, &lists.excluded_resources, resolve)
}

impl Filters {
    /// Resolves the lists and selectors of a restore; `namespaces` are those with items in the backup.
    ///
    /// # Errors
    /// [`FilterError`]; the restore then takes nothing and ends `PartiallyFailed`.
    pub fn new<'a>(
        spec: &RestoreSpec,
        discovery: &Discovery,
        namespaces: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, FilterError> {
        Ok(Self {
            selectors: Selectors::new(spec)?,
            namespaces: IncludesExcludes::namespaces(&spec.included_namespaces, &spec.excluded_namespaces, namespaces)
                .map_err(FilterError::Wildcard)?,
            resources: resolve_resources(&spec.resources, discovery),
            include_cluster: spec.include_cluster_resources,
        })
    }

    /// Whether items of a group-resource may be taken at all (restore-semantics 4.3; 5.3 step 1).
    #[must_use]
    pub fn takes_resource(&self, group_resource: &GroupResource) -> bool {
        is_must_have(group_resource) || self.resources.should_include(group_resource.as_str())
    }

    /// Whether an item may be restored that an item action asked for, or that was planned (restore-semantics 5.3 steps 1 and 2).
    /// Label selectors are not asked, and an unset `includeClusterResources` takes everything.
    ///
    /// `source_namespace` is the namespace in the backup, empty for a cluster-scoped item.
    #[must_use]
    pub fn takes_additional(&self, group_resource: &GroupResource, source_namespace: &str) -> bool {
        let takes_scope = if source_namespace.is_empty() {
            self.include_cluster != Some(false)
        } else {
            self.takes_namespace(group_resource, source_namespace)
        };
        takes_scope && self.takes_resource(group_resource)
    }

    /// Whether items in a namespace of the backup are taken (restore-semantics 4.5; 5.3 step 2).
    #[must_use]
    pub fn takes_namespace(&self, group_resource: &GroupResource, source_namespace: &str) -> bool {
        is_must_have(group_resource) || self.namespaces.should_include(source_namespace)
    }

    /// Whether items of one scope, a namespace or the cluster (`""`), are collected (restore-semantics 4.5).
    #[must_use]
    pub fn collects_scope(&self, group_resource: &GroupResource, source_namespace: &str) -> bool {
        if !source_namespace.is_empty() {
            return self.takes_namespace(group_resource, source_namespace);
        }
        self.include_cluster.unwrap_or_else(|| self.namespaces.include_everything())
    }

    /// Whether all items of a group-resource are collected whatever their labels are.
    #[must_use]
    pub fn ignores_labels(&self, group_resource: &GroupResource) -> bool {
        is_must_have(group_resource) || self.selectors.is_everything()
    }

    /// Whether an item with labels that are looked up by key is collected (restore-semantics 4.6).
    #[must_use]
    pub fn collects_labels<'a>(&self, group_resource: &GroupResource, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let Selectors { all, one_of } = &self.selectors;
        is_must_have(group_resource)
            || (all.as_ref().is_none_or(|selector| selector.matches_by(&label))
                && (one_of.is_empty() || one_of.iter().any(|selector| selector.matches_by(&label))))
    }
}

fn is_must_have(group_resource: &GroupResource) -> bool {
    MUST_HAVE.contains(&group_resource.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::engine::discovery::testing::kubernetes;

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    fn filters(spec: &RestoreSpec) -> Filters {
        Filters::new(spec, &kubernetes(), ["a", "b"]).unwrap()
    }

    #[test]
    fn the_scope_rules_are_those_of_velero() {
        // restore-semantics 4.5 and 5.3 step 2: includes, includeClusterResources, then what is collected of the cluster and
        // what of it is taken as an additional item.
        for (included, excluded, cluster, collected, additional) in [
            (vec![], vec![], None, true, true),
            (vec!["*"], vec![], None, true, true),
            (vec!["a"], vec![], None, false, true),
            (vec![], vec!["b"], None, false, true),
            (vec!["none-*"], vec![], None, false, true),
            (vec![], vec![], Some(false), false, false),
            (vec!["a"], vec![], Some(true), true, true),
            (vec!["none-*"], vec![], Some(true), true, true),
        ] {
            let spec = RestoreSpec {
                included_namespaces: list(&included),
                excluded_namespaces: list(&excluded),
                include_cluster_resources: cluster,
                ..RestoreSpec::default()
            };
            let filters = filters(&spec);
            for gr in ["persistentvolumes", "namespaces", MUST_HAVE[1]].map(GroupResource::from) {
                assert_eq!(filters.collects_scope(&gr, ""), collected, "{gr} {spec:?}");
                assert_eq!(filters.takes_additional(&gr, ""), additional, "{gr} {spec:?}");
            }
        }
    }

    #[test]
    fn must_haves_pass_every_filter_but_that_of_the_cluster() {
        // restore-semantics 4.3
        let spec = RestoreSpec {
            included_namespaces: list(&["a"]),
            resources: ResourceLists {
                included_resources: list(&["pods"]),
                excluded_resources: list(&["datauploads.velero.io"]),
            },
            label_selector: Some(serde_json::from_value(json!({"matchLabels": {"x": "y"}})).unwrap()),
            ..RestoreSpec::default()
        };
        let filters = filters(&spec);
        let (upload, pods, secrets) = (MUST_HAVE[0].into(), "pods".into(), "secrets".into());
        assert!(
            filters.takes_resource(&upload)
                && filters.takes_additional(&upload, "b")
                && filters.ignores_labels(&upload)
        );
        assert!(filters.collects_scope(&upload, "b") && filters.collects_labels(&upload, |_| None));
        assert!(
            filters.takes_resource(&pods)
                && !filters.collects_scope(&pods, "b")
                && !filters.collects_labels(&pods, |_| None)
        );
        assert!(filters.takes_additional(&pods, "a") && !filters.takes_additional(&pods, "b"));
        assert!(!filters.takes_resource(&secrets) && !filters.takes_additional(&secrets, "a"));
        assert!(!filters.collects_scope(&MUST_HAVE[1].into(), ""));
    }

    #[test]
    fn one_of_the_alternatives_must_match_where_there_are_any() {
        // restore-semantics 4.6
        let with = |all: serde_json::Value, one_of: serde_json::Value| RestoreSpec {
            label_selector: serde_json::from_value(all).unwrap(),
            or_label_selectors: serde_json::from_value(one_of).unwrap(),
            ..RestoreSpec::default()
        };
        let a = |value: &str| json!({"matchLabels": {"a": value}});
        for (spec, expected, needed) in [
            (with(json!(null), json!(null)), true, false),
            (with(json!({}), json!([])), true, false),
            (with(json!(null), json!([{}])), true, false),
            (with(a("1"), json!(null)), true, true),
            (with(a("2"), json!(null)), false, true),
            (with(json!(null), json!([a("2"), a("1")])), true, true),
            (with(json!(null), json!([a("2"), a("3")])), false, true),
            (with(json!(null), json!([a("2"), {}])), true, true),
        ] {
            let filters = filters(&spec);
            let pods = "pods".into();
            assert_eq!(filters.collects_labels(&pods, |key| (key == "a").then_some("1")), expected, "{spec:?}");
            assert_eq!(needs_labels(&spec), needed, "{spec:?}");
            assert!(needed || filters.ignores_labels(&pods));
        }
    }

    /// restore-semantics 4.3
    #[test]
    fn lists_are_resolved_by_discovery() {
        let lists =
            ResourceLists { included_resources: list(&["deploy", "*.example.com"]), excluded_resources: list(&["*"]) };
        let resolved = resolve_resources(&lists, &kubernetes());
        assert!(resolved.should_include("deployments.apps") && resolved.should_include("foos.example.com"));
        assert!(!resolved.should_include("pods"));
    }

    /// restore-semantics 4.4
    #[test]
    fn errors_are_worded_as_velero_words_them() {
        let spec = RestoreSpec { included_namespaces: list(&["a**"]), ..RestoreSpec::default() };
        let error = Filters::new(&spec, &kubernetes(), []).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error expanding wildcard patterns in namespace includes/excludes: wildcard pattern contains consecutive asterisks \
             (only single * allowed)"
        );
    }
}
