//! Which rules apply to an item, and applying them.

use regex::Regex;
use serde_json::Value;

use super::json_patch::{self, Failure};
use super::schemas::{Schemas, takes_strategic_patches};
use super::{Error, Match, Modifiers, PatchData, Rule, strategic};
use crate::engine::merge::apply_merge_patch;
use crate::model::glob::Glob;
use crate::model::includes::IncludesExcludes;
use crate::model::selector::Selector;
use crate::model::{ApiVersion, GroupResource};

/// An item after all rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Modified {
    /// The item; changed by the rules that applied, and created even if some failed.
    pub item: Value,
    /// What failed, in the order of the rules.
    pub errors: Vec<Error>,
    /// Lines for the restore's log: rules that a failing `test` turned into nothing.
    pub notes: Vec<String>,
}

impl Modifiers {
    /// Applies all rules to an item, which is still in its source namespace and without restore labels. The
    /// group-resource is that of the backup, whatever actions made of the item.
    pub async fn apply(&self, item: Value, group_resource: &GroupResource, schemas: &Schemas) -> Modified {
        let mut errors = Vec::new();
        let mut applicable = Vec::new();
        for (number, rule) in (1..).zip(&self.rules) {
            match rule.hold(&item, group_resource) {
                Ok(true) => applicable.push((number, &rule.rule)),
                Ok(false) => {}
                Err(message) => errors.push(Error::Conditions { number, message }),
            }
        }
        let mut modified = Modified { item, errors, notes: Vec::new() };
        for (number, rule) in applicable {
            modified.patch(number, rule, schemas).await;
        }
        modified
    }
}

impl Modified {
    async fn patch(&mut self, number: usize, rule: &Rule, schemas: &Schemas) {
        let patched = if !rule.patches.is_empty() {
            match json_patch::apply(&self.item, &rule.patches) {
                Err(Failure::Test) => {
                    let kept = "a test of its patches does not hold, the item stays as it is";
                    self.notes.push(format!("resource modifier rule {number}: {kept}"));
                    return;
                }
                Err(Failure::Missing) => Err("the path of a test does not lead anywhere".to_owned()),
                Err(Failure::Other(message)) => Err(message),
                Ok(patched) => Ok(patched),
            }
        } else if !rule.merge_patches.is_empty() {
            merge(&self.item, &rule.merge_patches)
        } else if !rule.strategic_patches.is_empty() {
            match self.strategic(number, &rule.strategic_patches, schemas).await {
                Ok(patched) => self.item = patched,
                Err(error) => self.errors.push(error),
            }
            return;
        } else {
            Err("the rule has no patches".to_owned())
        };
        match patched {
            Ok(patched) => self.item = patched,
            Err(message) => self.errors.push(Error::Patch { number, message }),
        }
    }

    /// The item after strategic merge patches, by the schema of the kind it is now.
    async fn strategic(&self, number: usize, patches: &[PatchData], schemas: &Schemas) -> Result<Value, Error> {
        let failed = |message: String| Error::Patch { number, message };
        let text = |key: &str| self.item[key].as_str().unwrap_or_default();
        let kind = text("kind");
        let version = text("apiVersion").parse::<ApiVersion>().map_err(|error| failed(error.to_string()))?;
        if !takes_strategic_patches(&version) {
            return Err(Error::Strategic { number, api_version: version.to_string(), kind: kind.to_owned() });
        }
        let asked = schemas.of(&version).await;
        let document =
            asked.map_err(|error| failed(format!("cannot read the schema of {kind} of {version}: {error}")))?;
        let schema = document.kind(&version.group, &version.version, kind).ok_or_else(|| {
            failed(format!(
                "strategic merge patches need the schema of {kind} of {version}, which the API server does not publish: \
                 write it as mergePatches or patches"
            ))
        })?;
        let mut patched = self.item.clone();
        for patch in patches {
            match decode(patch).map_err(failed)? {
                // Velero's own reading of no document at all.
                Value::Null => {}
                Value::Object(patch) => {
                    let applied = strategic::apply(&patched, &patch, schema);
                    patched = applied.map_err(|failure| failed(failure.to_string()))?;
                }
                _ => return Err(failed("patchData is no object".to_owned())),
            }
        }
        Ok(patched)
    }
}

fn decode(PatchData { patch_data }: &PatchData) -> Result<Value, String> {
    serde_yaml_ng::from_str(patch_data).map_err(|error| format!("patchData is no YAML or JSON ({error})"))
}

fn merge(item: &Value, patches: &[PatchData]) -> Result<Value, String> {
    let mut merged = item.clone();
    for patch in patches {
        let patch = decode(patch)?;
        if !patch.is_object() {
            return Err("patchData is no object".to_owned());
        }
        apply_merge_patch(&mut merged, &patch);
    }
    Ok(merged)
}

/// A rule whose conditions are compiled once for all items. What does not compile is an error of the items that get
/// as far as that condition (restore-semantics 8).
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    rule: Rule,
    groups: Result<Glob, String>,
    namespaces: IncludesExcludes,
    name: Result<Option<Regex>, String>,
    selector: Result<Option<Selector>, String>,
    matches: Vec<Result<(String, Value), String>>,
}

impl Compiled {
    pub(super) fn of(rule: Rule) -> Self {
        let conditions = &rule.conditions;
        let name = Some(&conditions.resource_name_regex).filter(|regex| !regex.is_empty());
        let selector = conditions.label_selector.as_ref();
        let wanted = |wanted: &Match| match wanted.path.as_str() {
            "" => Err("the path of a match cannot be empty".to_owned()),
            path => Ok((path.to_owned(), json_patch::typed(&wanted.value)?)),
        };
        Self {
            groups: Glob::with_separators(&conditions.group_resource, &['.']).map_err(|error| error.to_string()),
            namespaces: IncludesExcludes::new(conditions.namespaces.iter().map(String::as_str), []),
            name: name.map(|regex| Regex::new(regex)).transpose().map_err(|error| error.to_string()),
            selector: selector.map(|it| Selector::new(&it.0)).transpose().map_err(|error| error.to_string()),
            matches: conditions.matches.iter().map(wanted).collect(),
            rule,
        }
    }

    fn hold(&self, item: &Value, group_resource: &GroupResource) -> Result<bool, String> {
        if !self.groups.as_ref().map_err(Clone::clone)?.matches(group_resource.as_str()) {
            return Ok(false);
        }
        let metadata = |key: &str| item["metadata"][key].as_str().unwrap_or_default();
        let namespace = metadata("namespace");
        if !namespace.is_empty() && !self.namespaces.should_include(namespace) {
            return Ok(false);
        }
        let name = self.name.as_ref().map_err(Clone::clone)?;
        if name.as_ref().is_some_and(|regex| !regex.is_match(metadata("name"))) {
            return Ok(false);
        }
        let selector = self.selector.as_ref().map_err(Clone::clone)?;
        if selector.as_ref().is_some_and(|selector| !selector.matches_object(item)) {
            return Ok(false);
        }
        for wanted in &self.matches {
            let (path, value) = wanted.as_ref().map_err(Clone::clone)?;
            match json_patch::test(item, path, value) {
                Ok(()) => {}
                Err(Failure::Test | Failure::Missing) => return Ok(false),
                Err(Failure::Other(message)) => return Err(message),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::engine::actions::testing::{FakeCluster, block_on};

    fn rules(rules: &Value) -> Modifiers {
        Modifiers::parse(&json!({"version": "v1", "resourceModifierRules": rules}).to_string()).unwrap()
    }

    fn touch(conditions: Value) -> Value {
        json!({"conditions": conditions, "mergePatches": [{"patchData": "touched: true"}]})
    }

    fn apply_all(all: &Modifiers, item: Value, group_resource: &str) -> Modified {
        let cluster = FakeCluster::new([strategic::tests::openapi()]);
        block_on(all.apply(item, &GroupResource::parse(group_resource), &Schemas::new(cluster)))
    }

    fn apply(one: Value, item: Value, group_resource: &str) -> Modified {
        apply_all(&rules(&json!([one])), item, group_resource)
    }

    fn applies(conditions: Value, item: &Value, group_resource: &str) -> bool {
        let modified = apply(touch(conditions), item.clone(), group_resource);
        assert_eq!(modified.errors, []);
        modified.item != *item
    }

    /// restore-semantics 8, groupResource
    #[test]
    fn the_group_resource_glob_does_not_cross_dots() {
        for (glob, group_resource, expected) in [
            ("*", "pods", true),
            ("*", "deployments.apps", false),
            ("*.apps", "deployments.apps", true),
            ("*.*", "ingresses.networking.k8s.io", false),
            ("**", "ingresses.networking.k8s.io", true),
        ] {
            assert_eq!(applies(json!({"groupResource": glob}), &json!({}), group_resource), expected, "{glob}");
        }
    }

    /// restore-semantics 8, conditions
    #[test]
    fn every_condition_must_hold_and_namespaces_are_those_of_the_source() {
        let item = json!({"metadata": {"name": "web-front", "namespace": "app", "labels": {"tier": "front"}},
            "data": {"mode": "dev", "n": 1}});
        let with = |key: &str, value: Value| {
            let mut conditions = json!({"groupResource": "pods"});
            conditions[key] = value;
            applies(conditions, &item, "pods")
        };
        assert!(with("namespaces", json!(["a*"])) && !with("namespaces", json!(["dst"])));
        assert!(with("resourceNameRegex", json!("fr.nt")) && !with("resourceNameRegex", json!("^front")));
        assert!(with("labelSelector", json!({"matchLabels": {"tier": "front"}})));
        assert!(!with("labelSelector", json!({"matchLabels": {"tier": "back"}})));
        assert!(with("matches", json!([{"path": "/data/mode", "value": "dev"}, {"path": "/data/n", "value": "1"}])));
        assert!(!with(
            "matches",
            json!([{"path": "/data/mode", "value": "dev"}, {"path": "/data/n", "value": "\"1\""}])
        ));
        assert!(!with("matches", json!([{"path": "/none/deep", "value": "dev"}])));
        let cluster_scoped = json!({"metadata": {"name": "x"}});
        assert!(applies(json!({"groupResource": "pods", "namespaces": ["none"]}), &cluster_scoped, "pods"));
    }

    /// restore-semantics 8, conditions
    #[test]
    fn conditions_that_cannot_be_evaluated_are_errors_and_other_rules_still_apply() {
        let item = json!({"metadata": {"name": "n"}});
        for broken in [
            json!({"groupResource": "pods", "resourceNameRegex": "("}),
            json!({"groupResource": "["}),
            json!({"groupResource": "pods", "matches": [{"value": "x"}]}),
            json!({"groupResource": "pods", "matches": [{"path": "/a", "value": "True"}]}),
            json!({"groupResource": "pods", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Has"}]}}),
        ] {
            let both = rules(&json!([touch(broken.clone()), touch(json!({"groupResource": "pods"}))]));
            let modified = apply_all(&both, item.clone(), "pods");
            assert!(matches!(modified.errors.as_slice(), [Error::Conditions { number: 1, .. }]), "{broken}");
            assert_eq!(modified.item["touched"], true, "{broken}");
        }
    }

    /// restore-semantics 8, more than one rule
    #[test]
    fn conditions_look_at_the_item_before_any_rule_and_patches_are_cumulative() {
        let step = |value: &str, patch: Value| {
            let mut rule = json!({"conditions": {"groupResource": "configmaps",
                "matches": [{"path": "/data/step", "value": value}]}});
            rule.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
            rule
        };
        let all = rules(&json!([
            step("\"0\"", json!({"mergePatches": [{"patchData": "{\"data\":{\"step\":\"1\"}}"}]})),
            step("\"0\"", json!({"patches": [{"operation": "copy", "from": "/data/step", "path": "/data/seen"}]})),
            step("\"1\"", json!({"patches": [{"operation": "add", "path": "/data/never", "value": "x"}]})),
        ]));
        let modified = apply_all(&all, json!({"data": {"step": "0"}}), "configmaps");
        assert_eq!((modified.item, modified.errors), (json!({"data": {"step": "1", "seen": "1"}}), vec![]));
    }

    /// restore-semantics 8, a failing `test`
    #[test]
    fn a_failing_test_makes_the_whole_rule_nothing_and_other_failures_are_errors() {
        let item = json!({"data": {"a": "1"}});
        let patches = |patches: Value| {
            let rule = json!({"conditions": {"groupResource": "configmaps"}, "patches": patches});
            apply(rule, item.clone(), "configmaps")
        };
        let add = json!({"operation": "add", "path": "/data/before", "value": "x"});
        let tested = patches(json!([add, {"operation": "test", "path": "/data/a", "value": "\"2\""}]));
        assert_eq!((tested.item, tested.errors.len(), tested.notes.len()), (item.clone(), 0, 1));
        let failed = patches(json!([add, {"operation": "remove", "path": "/data/none"}]));
        assert_eq!((&failed.item, failed.errors.len()), (&item, 1));
        let none = patches(json!([]));
        assert_eq!(
            none.errors[0].to_string(),
            "cannot apply the patches of resource modifier rule 1: the rule has no patches"
        );
    }

    /// restore-semantics 8, merge patches
    #[test]
    fn merge_patches_apply_one_after_the_other_and_a_broken_one_undoes_all() {
        let item = json!({"data": {"a": "1", "drop": "x"}});
        let merge = |patches: [&str; 2]| {
            let data: Vec<_> = patches.iter().map(|patch| json!({"patchData": patch})).collect();
            apply(json!({"conditions": {"groupResource": "*"}, "mergePatches": data}), item.clone(), "configmaps")
        };
        let modified = merge(["data:\n  drop: null\n  b: \"22\"\n", "{\"data\":{\"c\":\"3\"}}"]);
        assert_eq!(modified.item, json!({"data": {"a": "1", "b": "22", "c": "3"}}));
        for broken in ["[", "[1]", "text"] {
            let failed = merge(["data: {a: null}", broken]);
            assert_eq!((&failed.item, failed.errors.len()), (&item, 1), "{broken}");
        }
    }

    fn strategic(patches: &[&str]) -> Value {
        let patches: Vec<_> = patches.iter().map(|patch| json!({"patchData": patch})).collect();
        json!({"conditions": {"groupResource": "**"}, "strategicPatches": patches})
    }

    /// restore-semantics 8, strategic patches; velero-differences: merge-keys-come-from-the-api-server
    #[test]
    fn strategic_patches_apply_one_after_the_other_by_the_published_schema() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}]}});
        let patches = ["spec: {containers: [{name: c, env: [{name: B, value: '2'}]}]}", "", "spec: {nodeName: n}"];
        let modified = apply(strategic(&patches), pod.clone(), "pods");
        assert_eq!(modified.errors, []);
        let env = json!([{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]);
        assert_eq!(modified.item["spec"], json!({"containers": [{"name": "c", "env": env}], "nodeName": "n"}));
        for broken in ["[", "[1]", "text", "spec: {containers: [{image: i}]}"] {
            let failed = apply(strategic(&["spec: {nodeName: n}", broken]), pod.clone(), "pods");
            assert!(matches!(failed.errors.as_slice(), [Error::Patch { number: 1, .. }]), "{broken}");
            assert_eq!(failed.item, pod, "{broken}");
        }
    }

    /// restore-semantics 8, strategic patches
    #[test]
    fn a_strategic_patch_is_refused_for_kinds_that_velero_has_no_types_of() {
        let patch = strategic(&["{}"]);
        let error = |api_version: &str, kind: &str| {
            let modified = apply(patch.clone(), json!({"apiVersion": api_version, "kind": kind}), "any.example.com");
            modified.errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            error("networking.k8s.io/v1", "Ingress"),
            [
                "cannot apply resource modifier rule 1: strategic merge patches are not for Ingress of networking.k8s.io/v1, \
              only for kinds of v1, apps/v1, batch/v1, Velero and volume snapshots: write it as mergePatches or patches"
            ]
        );
        assert_eq!(
            error("apps/v1", "Deployment"),
            [
                "cannot apply the patches of resource modifier rule 1: cannot read the schema of Deployment of apps/v1: the \
              server has no such document"
            ]
        );
        assert_eq!(
            error("v1", "Secret"),
            [
                "cannot apply the patches of resource modifier rule 1: strategic merge patches need the schema of Secret of \
              v1, which the API server does not publish: write it as mergePatches or patches"
            ]
        );
        assert_eq!(error("a/b/c", "Pod").len(), 1);
    }

    #[test]
    fn schemas_are_asked_for_only_where_a_strategic_patch_applies_and_once() {
        let cluster = FakeCluster::new([strategic::tests::openapi()]);
        let schemas = Schemas::new(cluster.clone());
        let all = rules(&json!([strategic(&["metadata: {labels: {a: b}}"])]));
        let none = rules(&json!([touch(json!({"groupResource": "pods"}))]));
        let pod = json!({"apiVersion": "v1", "kind": "Pod"});
        let pods = GroupResource::parse("pods");
        block_on(none.apply(pod.clone(), &pods, &schemas));
        assert_eq!(cluster.requests(), [""; 0]);
        for _ in 0..2 {
            let modified = block_on(all.apply(pod.clone(), &pods, &schemas));
            assert_eq!(modified.item["metadata"]["labels"]["a"], "b");
        }
        assert_eq!(cluster.requests(), ["openapi  v1"]);
    }
}
