#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::archive::testing::Backup;
use crate::archive::{NameCheck, ReadOptions};
use crate::engine::Job;
use crate::engine::discovery::testing::{discovery, kubernetes};
use crate::engine::versions::{FEATURE, UserOrder, VersionPolicy};
use crate::model::LabelSelector;

fn object(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

fn labelled(mut object: Value, labels: Value) -> Value {
    object["metadata"]["labels"] = labels;
    object
}

fn archive(backup: &Backup) -> Archive {
    backup.read(&ReadOptions { keep_labels: true, ..ReadOptions::default() }).unwrap()
}

fn plan_with(archive: &Archive, spec: &RestoreSpec, discovery: &Discovery, priorities: &Priorities) -> Collected {
    collect(&CollectInput { archive, spec, discovery, priorities, versions: &Chosen::default() })
}

fn plan(archive: &Archive, spec: &RestoreSpec) -> Plan {
    plan_with(archive, spec, &kubernetes(), &Priorities::default()).plan
}

/// `group-resource: target/name …` for each tier.
fn told(plan: &Plan) -> Vec<String> {
    let item = |item: &PlannedItem| format!("{}/{}", item.target_namespace, item.name);
    let tier = |tier: &Tier| {
        let items: Vec<String> = tier.items.iter().map(item).collect();
        format!("{}: {}", tier.group_resource, items.join(" "))
    };
    plan.tiers.iter().map(tier).collect()
}

fn namespaces(plan: &Plan) -> Vec<String> {
    plan.namespaces.iter().map(|namespace| format!("{}>{}", namespace.source, namespace.target)).collect()
}

fn shop() -> Backup {
    Backup::new()
        .with(object("v1", "Namespace", "", "shop"))
        .with(object("v1", "Namespace", "", "bank"))
        .with(object("v1", "ConfigMap", "shop", "b"))
        .with(object("v1", "ConfigMap", "shop", "b-a"))
        .with(object("v1", "ConfigMap", "bank", "c"))
        .with(object("v1", "Secret", "shop", "s"))
        .with(object("apps/v1", "Deployment", "shop", "web"))
        .with(object("batch/v1", "Job", "shop", "job"))
        .with(object("rbac.authorization.k8s.io/v1", "ClusterRole", "", "role"))
        .with(object("example.com/v1", "Widget", "shop", "w"))
        .with(json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wg"]},
                "versions": [{"name": "v1", "served": true, "storage": true}],
            },
        }))
}

#[test]
fn tiers_follow_the_priorities_and_items_the_listing() {
    // restore-semantics 4.1, 4.5; listing order 2.3: `b-a.json` before `b.json`
    let plan = plan(&archive(&shop()), &RestoreSpec::default());
    assert_eq!(
        told(&plan),
        [
            "customresourcedefinitions.apiextensions.k8s.io: /widgets.example.com",
            "namespaces: bank/bank shop/shop",
            "clusterroles.rbac.authorization.k8s.io: /role",
            "secrets: shop/s",
            "configmaps: bank/c shop/b-a shop/b",
            "deployments.apps: shop/web",
            "jobs.batch: shop/job",
            "widgets.example.com: shop/w",
        ]
    );
    let stages: Vec<Stage> = plan.tiers.iter().map(|tier| tier.stage).collect();
    assert_eq!(stages[0], Stage::CustomResourceDefinitions);
    assert!(stages[1..].iter().all(|stage| *stage == Stage::Items));
    assert_eq!(plan.total(), 11);
    assert_eq!(namespaces(&plan), ["bank>bank", "shop>shop"]);
    let widget = &plan.tiers[7].items[0];
    assert_eq!((&*widget.api_version, &*widget.kind), ("example.com/v1", "Widget"));
    assert!(plan.left_out.is_empty() && plan.findings.is_empty() && !plan.aborted);
}

#[test]
fn definitions_of_the_backup_count_for_the_order_but_not_for_the_filters() {
    // restore-semantics 4.2 and 4.3
    let priorities: Priorities = "wg,secret".parse().unwrap();
    let archive = archive(&shop());
    let default = RestoreSpec::default();
    let tiers = told(&plan_with(&archive, &default, &kubernetes(), &priorities).plan);
    assert!(tiers[1].starts_with("widgets.example.com:") && tiers[2].starts_with("secrets:"), "{tiers:?}");
    let mut spec = RestoreSpec::default();
    spec.resources.included_resources = vec!["wg".into(), "crds".into()];
    assert_eq!(told(&plan(&archive, &spec)), ["customresourcedefinitions.apiextensions.k8s.io: /widgets.example.com"]);
    spec.resources.included_resources = vec!["*.example.com".into()];
    assert_eq!(told(&plan(&archive, &spec)), ["widgets.example.com: shop/w"]);
}

/// restore-semantics 4.1: entries are resolved when they are reached, and what was processed is skipped; only what is
/// literally in a list is kept out of the middle.
#[test]
fn aliases_of_a_resource_come_once_at_the_first_that_resolves_to_it() {
    let tiers = |priorities: &str| {
        let collected =
            plan_with(&archive(&shop()), &RestoreSpec::default(), &kubernetes(), &priorities.parse().unwrap());
        let tiers = told(&collected.plan);
        tiers.iter().map(|tier| tier.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let order = tiers("secret,cm,configmaps,ConfigMap,secrets,gadgets,-,deploy");
    assert_eq!(order[1..3], ["secrets", "configmaps"]);
    assert_eq!(order.len(), 8, "{order:?}");
    // `deploy` is not literally the directory `deployments.apps`, which therefore stands in the middle.
    assert!(
        order.iter().position(|tier| tier == "deployments.apps") < order.iter().position(|tier| tier == "jobs.batch")
    );
    assert_eq!(tiers("secrets,-,deployments.apps").last().map(String::as_str), Some("deployments.apps"));
}

#[test]
fn what_the_cluster_does_not_know_is_planned_by_the_name_of_its_directory() {
    // restore-semantics 4.1: `customresourcedefinitions` stays literal, and its directory comes up by the alphabet.
    let discovery = Discovery::default();
    let plan = plan_with(&archive(&shop()), &RestoreSpec::default(), &discovery, &Priorities::default()).plan;
    let tiers = told(&plan);
    assert_eq!(tiers.len(), 8);
    assert!(tiers[0].starts_with("namespaces:") && tiers[3].starts_with("clusterroles."), "{tiers:?}");
    assert!(plan.tiers.iter().all(|tier| tier.stage == Stage::Items));
}

/// restore-semantics 4.6 and 5.1
#[test]
fn namespaces_are_mapped_and_ensured_once_for_each_target() {
    let namespace_mapping = [("shop", "bank"), ("", "x")].map(|(from, to)| (from.into(), to.into())).into();
    let mut spec = RestoreSpec { namespace_mapping, ..RestoreSpec::default() };
    let everything = plan(&archive(&shop()), &spec);
    assert_eq!(
        told(&everything)[1..4],
        ["namespaces: bank/bank bank/shop", "clusterroles.rbac.authorization.k8s.io: /role", "secrets: bank/s"]
    );
    let item = &everything.tiers[3].items[0];
    assert_eq!((&*item.source_namespace, &*item.target_namespace), ("shop", "bank"));
    assert_eq!(namespaces(&everything), ["bank>bank"]);
    // Without Namespace items the first item that is reached needs its namespace.
    spec.include_cluster_resources = Some(false);
    let namespaced = plan(&archive(&shop()), &spec);
    assert_eq!(namespaces(&namespaced), ["shop>bank"]);
    assert!(told(&namespaced).iter().all(|tier| !tier.starts_with("namespaces") && !tier.contains(" /")));
}

#[test]
fn labels_select_items_whether_the_archive_kept_them_or_not() {
    // restore-semantics 4.6
    let backup = Backup::new()
        .with(labelled(object("v1", "Secret", "shop", "yes"), json!({"app": "web", "tier": "front"})))
        .with(labelled(object("v1", "Secret", "shop", "no"), json!({"app": "db"})))
        .with(object("v1", "Secret", "shop", "bare"))
        .with(object("v1", "Namespace", "", "shop"))
        .with(object("velero.io/v2alpha1", "DataUpload", "shop", "upload"));
    let web = serde_json::from_value(json!({"matchLabels": {"app": "web"}})).unwrap();
    let mut spec = RestoreSpec { label_selector: Some(web), ..RestoreSpec::default() };
    let expected = ["datauploads.velero.io: shop/upload", "secrets: shop/yes"];
    assert_eq!(told(&plan(&archive(&backup), &spec)), expected);
    assert_eq!(told(&plan(&backup.read(&ReadOptions::default()).unwrap(), &spec)), expected);
    spec.label_selector = None;
    spec.or_label_selectors = Some(
        serde_json::from_value(json!([{"matchLabels": {"app": "db"}}, {"matchLabels": {"tier": "front"}}])).unwrap(),
    );
    assert_eq!(told(&plan(&archive(&backup), &spec))[1], "secrets: shop/no shop/yes");
}

#[test]
fn completed_pods_and_jobs_are_left_out_and_their_namespace_is_ensured() {
    // restore-semantics 5.3 step 4, 5.1 step 2
    let mut pod = object("v1", "Pod", "shop", "done");
    pod["status"] = json!({"phase": "Succeeded"});
    let mut job = object("batch/v1", "Job", "bank", "done");
    job["status"] = json!({"completionTime": "2026-01-01T00:00:00Z"});
    let backup = Backup::new().with(pod).with(job).with(object("v1", "Pod", "shop", "runs"));
    let plan = plan(&archive(&backup), &RestoreSpec::default());
    assert_eq!(told(&plan), ["pods: shop/runs"]);
    let left: Vec<_> =
        plan.left_out.iter().map(|left| (left.group_resource.as_str(), &*left.item.kind, left.reason)).collect();
    assert_eq!(left, [("pods", "Pod", Reason::Completed), ("jobs.batch", "Job", Reason::Completed)]);
    assert_eq!(namespaces(&plan), ["shop>shop", "bank>bank"]);
    assert!(plan.findings.is_empty());
}

#[test]
fn an_item_that_cannot_be_decoded_is_an_error_of_its_target_namespace() {
    // restore-semantics 4.6; the texts are recorded in conformance case 31.
    let backup = shop()
        .with_file("resources/configmaps/namespaces/shop/README.txt", "hello")
        .with_file("resources/configmaps/namespaces/shop/broken.json", "{\"kind\":")
        .with_file("resources/namespaces/cluster/odd.json", "");
    let namespace_mapping = [("shop".into(), "new".into())].into();
    let spec = RestoreSpec { namespace_mapping, ..RestoreSpec::default() };
    let plan = plan(&archive(&backup), &spec);
    let findings: Vec<_> = plan.findings.iter().map(|(finding, reason)| (finding.clone(), *reason)).collect();
    let error = |namespace: &str, message: &str| {
        let message = message.to_owned();
        (Finding { severity: Severity::Error, bucket: Bucket::of(namespace), message }, Reason::Archive)
    };
    assert_eq!(
        findings,
        [
            error("", "error decoding \"resources/namespaces/cluster/odd.json\": unexpected end of JSON input"),
            error(
                "new",
                "error decoding \"resources/configmaps/namespaces/shop/README.txt.json\": open \
                 <extracted>/resources/configmaps/namespaces/shop/README.txt.json: no such file or directory"
            ),
            error(
                "new",
                "error decoding \"resources/configmaps/namespaces/shop/broken.json\": unexpected end of JSON input"
            ),
        ]
    );
    assert_eq!(plan.total(), 11);
    assert_eq!(plan.left_out.len(), 3);
    assert!(plan.left_out.iter().all(|left| left.reason == Reason::Archive && left.item.kind.is_empty()));
    assert!(!plan.aborted);
}

/// restore-semantics 6.4, the key
#[test]
fn an_item_goes_by_the_name_in_it_where_the_archive_lets_it() {
    // Recorded in conformance case 31.
    let inner = object("v1", "Secret", "shop", "inner").to_string();
    let backup = shop().with_file("resources/secrets/namespaces/shop/outer.json", inner);
    let archive = backup.read(&ReadOptions { names: NameCheck::Report, ..ReadOptions::default() }).unwrap();
    assert_eq!(told(&plan(&archive, &RestoreSpec::default()))[3], "secrets: shop/inner shop/s");
}

/// restore-semantics 4.5 and 4.6
#[test]
fn a_damaged_item_that_the_filters_refuse_is_no_error() {
    let backup = shop().with_file("resources/configmaps/namespaces/shop/broken.json", "{");
    let mut spec = RestoreSpec { included_namespaces: vec!["bank".into()], ..RestoreSpec::default() };
    assert!(plan(&archive(&backup), &spec).findings.is_empty());
    spec.included_namespaces.clear();
    spec.resources.excluded_resources = vec!["cm".into()];
    assert!(plan(&archive(&backup), &spec).findings.is_empty());
}

#[test]
fn without_a_resources_directory_there_is_a_warning_and_nothing_to_do() {
    // restore-semantics 2.3; conformance case 31
    let mut spec = RestoreSpec { included_namespaces: vec!["{*".into()], ..RestoreSpec::default() };
    let collected = plan_with(&archive(&Backup::new()), &spec, &kubernetes(), &Priorities::default());
    let message = "zero items to be restored: directory \"<extracted>/resources\": does not exist".to_owned();
    let finding = Finding { severity: Severity::Warning, bucket: Bucket::Velero, message };
    assert_eq!(collected.plan, Plan { findings: vec![(finding, Reason::Archive)], ..Plan::default() });
    // A selector is looked at before.
    spec.label_selector =
        Some(serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})).unwrap());
    assert!(plan(&archive(&Backup::new()), &spec).aborted);
}

#[test]
fn selectors_and_wildcards_that_are_not_valid_abort_the_plan() {
    // restore-semantics 1.4, 4.4; conformance cases 26 and 18
    let near = json!({"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]});
    let empty = json!([{"matchLabels": {"a": "b"}}, {"matchExpressions": [{"key": "a", "operator": "In"}]}]);
    let specs = [
        (
            RestoreSpec { label_selector: serde_json::from_value(near).unwrap(), ..RestoreSpec::default() },
            "\"Near\" is not a valid label selector operator",
        ),
        (
            RestoreSpec { or_label_selectors: serde_json::from_value(empty).unwrap(), ..RestoreSpec::default() },
            "values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty",
        ),
        (
            RestoreSpec { included_namespaces: vec!["a[*".into()], ..RestoreSpec::default() },
            "error expanding wildcard patterns in namespace includes/excludes: wildcard pattern contains unclosed bracket '['",
        ),
    ];
    for (spec, message) in specs {
        let collected = plan_with(&archive(&shop()), &spec, &kubernetes(), &Priorities::default());
        let finding = Finding { severity: Severity::Error, bucket: Bucket::Velero, message: message.to_owned() };
        assert_eq!(
            collected.plan,
            Plan { findings: vec![(finding, Reason::Invalid)], aborted: true, ..Plan::default() }
        );
        assert!(collected.filters.is_none());
    }
}

proptest! {
    /// restore-semantics 4.5; velero-differences: namespaces-in-fixed-order
    #[test]
    fn the_plan_depends_neither_on_the_order_of_the_tarball_nor_on_luck(seed in any::<u64>()) {
        let mut objects: Vec<Value> = Vec::new();
        for (kind, api_version) in [("ConfigMap", "v1"), ("Secret", "v1"), ("Deployment", "apps/v1"), ("Job", "batch/v1")] {
            for namespace in ["a", "b", "a-b"] {
                objects.extend(["x", "y"].map(|name| object(api_version, kind, namespace, name)));
            }
        }
        let sorted = plan(&archive(&Backup::new().with_all(objects.clone())), &RestoreSpec::default());
        let mut state = seed | 1;
        for at in (1..objects.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let other = usize::try_from(state >> 33).unwrap() % (at + 1);
            objects.swap(at, other);
        }
        let shuffled = plan(&archive(&Backup::new().with_all(objects)), &RestoreSpec::default());
        prop_assert_eq!(told(&sorted), told(&shuffled));
        prop_assert_eq!(sorted, shuffled);
    }
}

/// The recorded cases, where they are part of the tree.
mod recorded {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs::{self, File};
    use std::path::PathBuf;

    use serde::Deserialize;

    use super::*;

    fn case(name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/cases")).join(name);
        path.is_dir().then_some(path)
    }

    fn strings(value: &Value) -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn spec_of(restore: &Value) -> RestoreSpec {
        let spec = &restore["spec"];
        RestoreSpec {
            included_namespaces: strings(&spec["includedNamespaces"]),
            excluded_namespaces: strings(&spec["excludedNamespaces"]),
            resources: serde_json::from_value(json!({
                "includedResources": strings(&spec["includedResources"]),
                "excludedResources": strings(&spec["excludedResources"]),
            }))
            .unwrap(),
            namespace_mapping: serde_json::from_value::<Option<_>>(spec["namespaceMapping"].clone())
                .unwrap()
                .unwrap_or_default(),
            label_selector: serde_json::from_value(spec["labelSelector"].clone()).unwrap(),
            or_label_selectors: serde_json::from_value(spec["orLabelSelectors"].clone()).unwrap(),
            include_cluster_resources: spec["includeClusterResources"].as_bool(),
            ..RestoreSpec::default()
        }
    }

    type Keys = BTreeSet<String>;

    /// What is planned, and what Velero restored, for each restore of a case: `apiVersion/Kind namespace/name`.
    fn compare(name: &str, check: impl Fn(&str, &Plan, &Keys, &Keys)) {
        let Some(case) = case(name) else { return };
        let resource_list = fs::read(case.join("expected/resource-list.json")).unwrap();
        let restored: BTreeMap<String, Option<BTreeMap<String, Vec<String>>>> =
            serde_json::from_slice(&resource_list).unwrap();
        let restores = fs::read_to_string(case.join("restore.yaml")).unwrap();
        let mut compared = 0;
        for document in serde_yaml_ng::Deserializer::from_str(&restores) {
            let restore = Value::deserialize(document).unwrap();
            let (Some(name), Some(backup)) =
                (restore["metadata"]["name"].as_str(), restore["spec"]["backupName"].as_str())
            else {
                continue;
            };
            let tarball = File::open(case.join(format!("backup/{backup}/{backup}.tar.gz"))).unwrap();
            let archive = Archive::read(tarball, &ReadOptions { keep_labels: true, ..ReadOptions::default() }).unwrap();
            let plan = plan(&archive, &spec_of(&restore));
            let mut planned = Keys::new();
            for item in
                plan.tiers.iter().filter(|tier| tier.group_resource != "namespaces").flat_map(|tier| &tier.items)
            {
                let scope = if item.target_namespace.is_empty() {
                    String::new()
                } else {
                    format!("{}/", item.target_namespace)
                };
                planned.insert(format!("{}/{} {scope}{}", item.api_version, item.kind, item.name));
            }
            planned.extend(plan.namespaces.iter().map(|namespace| format!("v1/Namespace {}", namespace.target)));
            let list = restored[name].iter().flatten();
            let expected = list.flat_map(|(kind, items)| {
                items.iter().map(move |item| format!("{kind} {}", item.split('(').next().unwrap_or_default()))
            });
            check(name, &plan, &planned, &expected.collect());
            compared += 1;
        }
        assert!(compared > 0);
    }

    /// restore-semantics 4.6, recorded
    #[test]
    fn selectors_and_mapping_take_what_velero_took() {
        compare("02-selectors-mapping", |name, plan, planned, restored| {
            assert_eq!(planned, restored, "{name}");
            let tiers: Vec<&str> = plan.tiers.iter().map(|tier| tier.group_resource.as_str()).collect();
            let order = [
                "serviceaccounts",
                "secrets",
                "configmaps",
                "deployments.apps",
                "ingresses.networking.k8s.io",
                "networkpolicies.networking.k8s.io",
            ];
            assert_eq!(tiers, order);
        });
    }

    /// restore-semantics 4.4, recorded
    #[test]
    fn namespace_wildcards_take_what_velero_took_except_when_they_match_nothing() {
        compare("18-namespace-wildcards", |name, plan, planned, restored| {
            if name.starts_with("c18-no-match") {
                // nothing is taken, where Velero took everything.
                assert!(planned.is_empty() && plan.findings.is_empty() && !restored.is_empty(), "{name}");
            } else {
                assert_eq!(planned, restored, "{name}");
                assert_eq!(plan.aborted, !plan.findings.is_empty(), "{name}");
            }
        });
    }

    /// restore-semantics 4.5, recorded
    #[test]
    fn cluster_resources_are_taken_by_the_scope_rules() {
        compare("19-cluster-resources", |name, plan, planned, restored| {
            // The priority class of a pod comes as an additional item.
            let additional = "scheduling.k8s.io/v1/PriorityClass c19-prio";
            let mut expected = restored.clone();
            if !matches!(name, "c19-unset-all" | "c19-true-some") {
                expected.remove(additional);
            }
            assert_eq!(*planned, expected, "{name}");
            let is_crd = |tier: &&Tier| tier.stage == Stage::CustomResourceDefinitions;
            assert_eq!(
                plan.tiers.iter().filter(is_crd).count(),
                usize::from(matches!(name, "c19-unset-all" | "c19-true-some")),
                "{name}"
            );
        });
    }

    /// restore-semantics 2.3 and 4.6, recorded
    #[test]
    fn damaged_items_have_the_recorded_errors() {
        let Some(case) = case("31-damaged-backup") else { return };
        let expected: Value = serde_json::from_slice(&fs::read(case.join("expected/results.json")).unwrap()).unwrap();
        for (restore, namespace) in [("c31-items", "c31-items"), ("c31-no-resources-dir", "")] {
            let tarball = File::open(case.join(format!("backup/{restore}/{restore}.tar.gz"))).unwrap();
            let options = ReadOptions { names: NameCheck::Report, ..ReadOptions::default() };
            let archive = Archive::read(tarball, &options).unwrap();
            let namespace_mapping = [("c31-app".to_owned(), namespace.to_owned())].into();
            let plan = plan(&archive, &RestoreSpec { namespace_mapping, ..RestoreSpec::default() });
            let mut messages: Vec<String> = plan.findings.iter().map(|(finding, _)| finding.message.clone()).collect();
            messages.sort();
            let recorded = strings(&expected[restore]["errors"]["namespaces"][namespace]).into_iter();
            let recorded = recorded.filter(|message| message.starts_with("error decoding"));
            let recorded: Vec<String> = recorded.chain(strings(&expected[restore]["warnings"]["velero"])).collect();
            assert_eq!(messages, recorded, "{restore}");
        }
    }
}

/// A widget of version v1, and what a cluster with the feature wrote beside it.
fn versioned_widgets() -> Backup {
    let widget = |version: &str, name: &str| object(&format!("example.com/{version}"), "Widget", "shop", name);
    let v2 = |name: &str| format!("resources/widgets.example.com/v2/namespaces/shop/{name}.json");
    Backup::new()
        .with(widget("v1", "a"))
        .with(widget("v1", "b"))
        .with(widget("v1", "only-v1"))
        .with_file(&v2("a"), labelled(widget("v2", "a"), json!({"in": "v2"})).to_string())
        .with_file(&v2("b"), widget("v2", "b").to_string())
        .with_file(&v2("only-v2"), widget("v2", "only-v2").to_string())
        .with(object("v1", "ConfigMap", "shop", "c"))
}

fn plan_of_versions(served: &str, order: Result<&str, &str>, spec: &RestoreSpec) -> Plan {
    let options = ReadOptions { keep_labels: true, keep_versions: true, ..ReadOptions::default() };
    let archive = versioned_widgets().read(&options).unwrap();
    let policy = VersionPolicy {
        format_version: Some("1.1.0".to_owned()),
        order: order.map(UserOrder::parse).map_err(str::to_owned),
    };
    let mut job = Job { spec: spec.clone(), versions: Some(policy), ..Job::default() };
    job.settings.features.insert(FEATURE.to_owned());
    crate::engine::plan(&job, &archive, &discovery(served)).plan
}

const TWO_VERSIONS: &str =
    "- v1 configmaps ConfigMap ns\nexample.com v2 widgets Widget ns\nexample.com v1 widgets Widget ns";

#[test]
fn items_are_taken_from_the_chosen_version_and_named_by_the_listing() {
    // restore-semantics 2.5, 3.4 step 1: the target prefers v2
    let plan = plan_of_versions(TWO_VERSIONS, Ok(""), &RestoreSpec::default());
    assert_eq!(told(&plan), ["configmaps: shop/c", "widgets.example.com: shop/a shop/b"]);
    let versions: Vec<&str> = plan.tiers[1].items.iter().map(|item| &*item.api_version).collect();
    assert_eq!(versions, ["example.com/v2", "example.com/v2"]);
    // The file that v2 lacks is an error, and the one that only v2 has is not listed.
    let path = "resources/widgets.example.com/v2/namespaces/shop/only-v1.json";
    let message = format!("error decoding {path:?}: open <extracted>/{path}: no such file or directory");
    let finding = Finding { severity: Severity::Error, bucket: Bucket::of("shop"), message: message.clone() };
    assert_eq!(plan.findings, [(finding, Reason::Archive)]);
    assert_eq!(plan.left_out.len(), 1);
    assert_eq!((&*plan.left_out[0].item.name, &plan.left_out[0].message), ("only-v1", &message));
}

#[test]
fn labels_are_those_of_the_chosen_version() {
    let selector =
        LabelSelector { match_labels: [("in".to_owned(), "v2".to_owned())].into(), ..LabelSelector::default() };
    let spec = RestoreSpec { label_selector: Some(selector), ..RestoreSpec::default() };
    assert_eq!(told(&plan_of_versions(TWO_VERSIONS, Ok(""), &spec)), ["widgets.example.com: shop/a"]);
    assert_eq!(told(&plan_of_versions(TWO_VERSIONS, Ok("widgets.example.com=v1"), &spec)), [""; 0]);
}

#[test]
fn the_users_order_and_the_lack_of_a_group_lead_to_the_copy_that_is_the_item() {
    let spec = RestoreSpec::default();
    for (served, order) in [(TWO_VERSIONS, "widgets.example.com = v1"), ("- v1 configmaps ConfigMap ns", "")] {
        let plan = plan_of_versions(served, Ok(order), &spec);
        assert_eq!(told(&plan), ["configmaps: shop/c", "widgets.example.com: shop/a shop/b shop/only-v1"], "{order}");
        assert!(plan.tiers[1].items.iter().all(|item| &*item.api_version == "example.com/v1"));
        assert_eq!(plan.findings, []);
    }
}

#[test]
fn an_order_that_cannot_be_read_ends_the_restore() {
    // restore-semantics 3.4, last sentence
    let plan = plan_of_versions(TWO_VERSIONS, Err("forbidden"), &RestoreSpec::default());
    let finding = Finding { severity: Severity::Error, bucket: Bucket::Velero, message: "forbidden".to_owned() };
    assert_eq!((plan.findings, plan.aborted, plan.tiers.len()), (vec![(finding, Reason::Discovery)], true, 0));
}
