#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::testing::{discovery, kubernetes};
use super::*;

#[test]
fn names_of_every_form_resolve() {
    // restore-semantics 3.2, 4.1
    let discovery = kubernetes();
    for (name, expected) in [
        ("pods", "pods"),
        ("pod", "pods"),
        ("Pod", "pods"),
        ("PODS", "pods"),
        ("po", "pods"),
        ("cm", "configmaps"),
        ("svc", "services"),
        ("deploy", "deployments.apps"),
        ("deployment", "deployments.apps"),
        ("deployments.apps", "deployments.apps"),
        ("deploy.apps", "deployments.apps"),
        ("deploy.ap", "deployments.apps"),
        ("ServiceAccount", "serviceaccounts"),
        ("ingresses.networking", "ingresses.networking.k8s.io"),
        ("ing.networking", "ingresses.networking.k8s.io"),
        ("storageclass.storage", "storageclasses.storage.k8s.io"),
        ("customresourcedefinition.apiextensions.k8s.io", "customresourcedefinitions.apiextensions.k8s.io"),
        ("crds", "customresourcedefinitions.apiextensions.k8s.io"),
        ("endpoints", "endpoints"),
        ("events", "events"),
        ("events.events.k8s.io", "events.events.k8s.io"),
        ("hpa", "horizontalpodautoscalers.autoscaling"),
    ] {
        assert_eq!(discovery.resource_for(name).unwrap().group_resource(), *expected, "{name}");
    }
}

/// restore-semantics 3.2 step 4 and 4.1
#[test]
fn names_that_stand_for_nothing_are_told_apart_and_stay_literal() {
    let discovery = kubernetes();
    for name in ["widgets", "pods.apps", "*", "", ".", "CM", "pods/status"] {
        assert_eq!(discovery.resource_for(name), Err(ResolveError::NoMatch(name.to_owned())), "{name}");
        assert_eq!(discovery.resolve(name), *name);
    }
    // Served, but it cannot be created.
    assert!(matches!(discovery.resource_for("bindings"), Err(ResolveError::NotRestorable { .. })));
    assert!(matches!(discovery.resource_for("pods.metrics.k8s.io"), Err(ResolveError::NotRestorable { .. })));
}

/// restore-semantics 3.2 step 3
#[test]
fn core_v1_comes_first_then_groups_in_the_order_of_discovery() {
    let discovery = discovery(
        "b.io v2 things Thing ns
         b.io v1 things Thing ns
         a.io v1 things Thing ns
         a.io v1 pods Pod ns
         - v1 pods Pod ns",
    );
    assert_eq!(discovery.resource_for("things").unwrap().to_string(), "things.b.io (v2)");
    assert_eq!(discovery.resource_for("things.a").unwrap().to_string(), "things.a.io (v1)");
    assert_eq!(discovery.resource_for("pods").unwrap().to_string(), "pods (v1)");
}

/// restore-semantics 3.2 step 2
#[test]
fn an_exact_group_wins_over_one_that_begins_with_it() {
    let discovery = discovery("x.io.example v1 foos Foo ns\nx.io v1 foos Foo ns");
    assert_eq!(discovery.resolve("foos.x.io"), "foos.x.io");
    assert_eq!(discovery.resolve("foos.x"), "foos.x.io.example");
}

/// restore-semantics 3.2 step 3
#[test]
fn two_resources_of_one_name_in_one_version_are_ambiguous() {
    let discovery = discovery("x.io v1 foo Bar ns\nx.io v1 foos Foo ns");
    let error = discovery.resource_for("foo").unwrap_err();
    assert_eq!(error.to_string(), "\"foo\" matches multiple resources: foo.x.io, foos.x.io; write it with its group");
    assert_eq!(discovery.resolve("foo"), "foo");
    assert_eq!(discovery.resolve("foos"), "foos.x.io");
}

/// restore-semantics 3.2 step 2
#[test]
fn a_missing_singular_is_guessed_from_the_kind() {
    let mut groups = kubernetes().groups().to_vec();
    for resource in groups.iter_mut().flat_map(|group| &mut group.versions).flat_map(|version| &mut version.resources) {
        resource.singular.clear();
    }
    let discovery = Discovery::new(groups);
    assert_eq!(discovery.resolve("networkpolicy"), "networkpolicies.networking.k8s.io");
}

#[test]
fn the_table_has_each_resource_once_in_the_right_version() {
    // restore-semantics 3.1
    let discovery = discovery(
        "extensions v1 ingresses Ingress ns
         - v1 pods Pod ns
         - v1 pods/log Pod ns
         a.io v2 foos Foo ns
         a.io v1beta1 olds Old ns
         a.io v1alpha1 olds Old ns
         a.io v1 foos Foo ns
         a.io v1 !readonlys Readonly ns",
    );
    let table: Vec<String> = discovery.table().iter().map(ToString::to_string).collect();
    assert_eq!(table, ["pods (v1)", "foos.a.io (v2)", "olds.a.io (v1beta1)", "ingresses.extensions (v1)"]);
    assert_eq!(discovery.versions("a.io"), ["v2", "v1beta1", "v1alpha1", "v1"]);
    assert!(discovery.versions("b.io").is_empty());
    assert!(discovery.served("a.io", "v1", "foos").is_some());
    assert!(discovery.served("a.io", "v3", "foos").is_none());
    assert!(discovery.served("", "v1", "pods/log").is_none());
    assert_eq!(discovery.lookup(&"foos.a.io".into()).unwrap().version, "v2");
    assert!(discovery.lookup(&"foo.a.io".into()).is_none());
}

/// restore-semantics 3.1 step 3: all four verbs.
#[test]
fn what_lacks_one_of_the_four_verbs_is_not_in_the_table() {
    for lacking in ["list", "create", "get", "delete", "watch"] {
        let mut groups = discovery("a.io v1 foos Foo ns").groups().to_vec();
        groups[0].versions[0].resources[0].verbs.retain(|verb| verb != lacking);
        assert_eq!(Discovery::new(groups).table().is_empty(), lacking != "watch", "{lacking}");
    }
}

/// restore-semantics 3.1 step 2
#[test]
fn the_order_of_versions_does_not_matter_for_the_preferred_one() {
    let mut groups = discovery("a.io v1 foos Foo ns\na.io v2 foos Foo ns\na.io v3 foos Foo ns").groups().to_vec();
    groups[0].preferred_version = "v2".to_owned();
    let discovery = Discovery::new(groups);
    assert_eq!(discovery.resource_for("foos").unwrap().version, "v2");
    assert_eq!(discovery.table().len(), 1);
}

#[test]
fn kinds_resolve_in_the_version_of_the_table_only() {
    // restore-semantics 3.3
    let discovery = kubernetes();
    let kind = |api_version: &str, kind: &str| {
        let found = discovery.kind_for(&api_version.parse().unwrap(), kind)?;
        Ok::<String, ResolveError>(found.group_resource().to_string())
    };
    assert_eq!(kind("apps/v1", "Deployment").unwrap(), "deployments.apps");
    assert_eq!(kind("v1", "Endpoints").unwrap(), "endpoints");
    assert_eq!(kind("v1", "pod").unwrap(), "pods");
    assert!(matches!(kind("apps/v1", "Widget"), Err(ResolveError::NoMatch(_))));
    assert!(matches!(kind("autoscaling/v1", "HorizontalPodAutoscaler"), Err(ResolveError::NotRestorable { .. })));
}

/// restore-semantics 4.2; velero-differences: crds-are-planned-before-they-are-served
#[test]
fn definitions_of_the_backup_are_served_in_the_overlay() {
    let definition = |group: &str, plural: &str, versions: serde_json::Value| {
        json!({"spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural.trim_end_matches('s'), "kind": "X", "shortNames": ["zz"]},
            "versions": versions,
        }})
    };
    let discovery = kubernetes();
    let overlay = discovery.with_custom_resources(&[
        definition(
            "c.io",
            "zones",
            json!([{"name": "v1beta1", "served": true}, {"name": "v1", "served": true}, {"name": "v2", "served": false}]),
        ),
        definition("apps", "gadgets", json!([{"name": "v9", "served": true}])),
        definition("velero.io", "backups", json!([{"name": "v1", "served": true}])),
        json!({"spec": 1}),
        json!({"spec": {"group": "old.io", "version": "v1alpha1", "names": {"plural": "olds", "kind": "Old"}}}),
    ]);
    assert_eq!(overlay.resource_for("zone").unwrap().to_string(), "zones.c.io (v1)");
    assert_eq!(overlay.resolve("zz"), "gadgets.apps"); // apps comes before c.io
    assert_eq!(overlay.resource_for("old.old").unwrap().to_string(), "olds.old.io (v1alpha1)");
    assert_eq!(overlay.served("velero.io", "v1", "backups"), discovery.served("velero.io", "v1", "backups"));
    assert_eq!(overlay.resolve("deploy"), "deployments.apps");
    assert_eq!(discovery.resolve("zone"), "zone");
    assert_eq!(discovery.with_custom_resources(&[]), discovery);
}

proptest! {
    /// restore-semantics 3.2 step 4
    #[test]
    fn what_resolves_is_in_the_table_and_resolves_to_itself(name in "[a-zA-Z]{1,12}(\\.[a-z.0-9]{0,10})?") {
        let discovery = kubernetes();
        if let Ok(found) = discovery.resource_for(&name) {
            prop_assert!(discovery.table().contains(found));
        }
        for served in discovery.table() {
            prop_assert_eq!(discovery.resolve(served.group_resource().as_str()), served.group_resource());
        }
    }
}

// restore-semantics 3.1 step 2
#[test]
fn with_every_version_the_table_has_what_is_not_preferred_too() {
    let discovery = kubernetes();
    let versions = |discovery: &Discovery| -> Vec<String> {
        let listed = discovery.table().iter().filter(|served| served.name == "horizontalpodautoscalers");
        listed.map(|served| served.version.clone()).collect()
    };
    assert_eq!(versions(&discovery), ["v2"]);
    let every = discovery.with_every_version();
    assert_eq!(versions(&every), ["v2", "v1"]);
    assert_eq!(every.groups(), discovery.groups());
    let autoscaling_v1 = "autoscaling/v1".parse().unwrap();
    assert!(discovery.kind_for(&autoscaling_v1, "HorizontalPodAutoscaler").is_err());
    let found = every.kind_for(&autoscaling_v1, "HorizontalPodAutoscaler").unwrap();
    assert_eq!((&*found.version, &*found.name), ("v1", "horizontalpodautoscalers"));
    assert_eq!(every.resolve("hpa"), discovery.resolve("hpa"));
    assert_eq!(versions(&every.with_custom_resources(&[])), ["v2", "v1"]);
}
