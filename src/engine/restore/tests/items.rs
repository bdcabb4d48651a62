//! From an item of the backup to the object that is created (restore-semantics 5.1 to 5.8).

use std::time::Duration;

use serde_json::{Value, json};

use super::world::{World, config, forbidden, namespace};
use crate::archive::testing::Backup;
use crate::model::{Outcome, Reason, ResourceLists};

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn claim(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "shop"}, "spec": {}})
}

/// A pod that wants a claim.
fn pod_with_claim(name: &str, claim: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    pod
}

/// restore-semantics 5.1, within a group-resource; velero-differences: items-of-a-tier-at-once
#[tokio::test(start_paused = true)]
async fn items_of_a_tier_are_at_work_together_up_to_the_concurrency_and_tiers_one_after_the_other() {
    let world = |concurrency| {
        let secrets = ["a", "b", "c", "d", "e"]
            .map(|name| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}}));
        let backup = Backup::new().with_all(secrets).with_all(["a", "b", "c", "d", "e"].map(config));
        World::of(backup).live(&namespace("shop")).job(|job| job.settings.concurrency = concurrency)
    };
    let at_once = world(4).run().await;
    assert_eq!(at_once.most_in_flight(), 4);
    let mut creates = at_once.requested("create");
    assert!(creates[..5].iter().all(|create| create.starts_with("create secrets")), "{creates:?}");

    let in_turn = world(1).run().await;
    assert_eq!(in_turn.most_in_flight(), 1);
    creates.sort();
    let mut listed = in_turn.requested("create");
    assert_eq!(listed[5..], ["a", "b", "c", "d", "e"].map(|name| format!("create configmaps/shop/{name}")));
    listed.sort();
    assert_eq!(listed, creates);
}

/// restore-semantics 5.3 step 1: an additional item that the resource filters reject, silently.
#[tokio::test(start_paused = true)]
async fn an_additional_item_of_an_excluded_resource_is_left_out_without_a_word() {
    let backup = Backup::new().with(pod_with_claim("p", "data")).with(claim("data"));
    let done = World::of(backup)
        .spec(|spec| spec.resources = ResourceLists { included_resources: vec!["pods".into()], ..Default::default() })
        .run()
        .await;
    assert!(done.is_clean());
    assert_eq!(done.listed(), ["v1/Namespace shop(created)", "v1/Pod shop/p(created)"]);
}

/// restore-semantics 5.3 step 2: cluster-scoped additional items are taken but for `includeClusterResources: false`; 4.5
#[tokio::test(start_paused = true)]
async fn a_cluster_scoped_additional_item_is_taken_unless_cluster_resources_are_excluded() {
    for (include, expected) in [(None, true), (Some(true), true), (Some(false), false)] {
        let mut pod = pod("p");
        pod["spec"]["priorityClassName"] = json!("high");
        let class =
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}});
        let world = World::of(Backup::new().with(pod).with(class)).spec(|spec| {
            spec.included_namespaces = vec!["shop".into()];
            spec.include_cluster_resources = include;
        });
        let done = world.run().await;
        assert!(done.is_clean());
        assert_eq!(!done.object("priorityclasses.scheduling.k8s.io", "", "high").is_null(), expected, "{include:?}");
    }
}

/// restore-semantics 5.3 step 5: restored once, before whoever wants it, and not again when its own turn comes.
#[tokio::test(start_paused = true)]
async fn an_item_that_others_want_is_restored_once_and_before_them() {
    let backup = Backup::new().with_all([pod_with_claim("p", "data"), pod_with_claim("q", "data"), claim("data")]);
    let done = World::of(backup)
        .job(|job| job.settings.priorities = "pods".parse().unwrap())
        .live(&namespace("shop"))
        .run()
        .await;
    let creates = done.requested("create");
    assert_eq!(creates[0], "create persistentvolumeclaims/shop/data");
    assert_eq!(creates.len(), 3, "{creates:?}");
    assert_eq!(done.finished().len(), 3);
}

/// restore-semantics 5.3 step 4: a field of a wrong type is E(ns), and the item is not recorded.
#[tokio::test(start_paused = true)]
async fn a_completion_of_a_wrong_type_is_an_error_and_the_item_is_not_recorded() {
    let mut pod = pod("p");
    pod["status"] = json!({"phase": 3});
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "shop"}});
    job["status"] = json!({"completionTime": {}});
    let done = World::of(Backup::new().with(pod).with(job)).live(&namespace("shop")).run().await;
    let errors = done.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().all(|(bucket, _)| bucket == "ns shop"), "{errors:?}");
    assert!(errors.iter().any(|(_, text)| text.contains("pods/shop/p") && text.contains("status.phase")), "{errors:?}");
    assert!(errors.iter().any(|(_, text)| text.contains("jobs.batch/shop/j")), "{errors:?}");
    assert_eq!(done.listed(), [""; 0]);
    assert_eq!(done.outcome("v1/Pod shop/p"), Outcome::Failed);
    assert_eq!(done.requested("create"), [""; 0]);
}

/// restore-semantics 5.3 step 6
#[tokio::test(start_paused = true)]
async fn a_mirror_pod_is_recorded_as_skipped() {
    let mut mirror = pod("m");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    let mut plain = pod("p");
    plain["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": ""});
    let done = World::of(Backup::new().with(mirror).with(plain)).live(&namespace("shop")).run().await;
    assert_eq!(done.listed(), ["v1/Pod shop/m(skipped)", "v1/Pod shop/p(created)"]);
    assert_eq!(done.ended("v1/Pod shop/m").reason, Some(Reason::MirrorPod));
    assert!(done.is_clean());
}

/// restore-semantics 5.3 step 8: what is owned is restored, too; what the old server wrote goes, the rest stays.
#[tokio::test(start_paused = true)]
async fn an_owned_item_is_created_without_its_owner_and_keeps_labels_annotations_and_finalizers() {
    let mut owned = pod("web-abc");
    let metadata = &mut owned["metadata"];
    metadata["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web"}]);
    metadata["generateName"] = json!("web-");
    metadata["uid"] = json!("old");
    metadata["finalizers"] = json!(["example.com/f"]);
    metadata["labels"] = json!({"app": "web", "velero.io/restore-name": "earlier"});
    metadata["annotations"] = json!({"note": "n"});
    owned["status"] = json!({"phase": "Running"});
    let done = World::of(Backup::new().with(owned)).live(&namespace("shop")).run().await;
    let created = done.object("pods", "shop", "web-abc");
    let mut metadata = created["metadata"].clone();
    for server in ["managedFields", "resourceVersion"] {
        metadata.as_object_mut().unwrap().remove(server);
    }
    // restore-semantics 5.8: the restore labels overwrite, and the object keeps the name it had.
    let labels = json!({"app": "web", "velero.io/restore-name": "r", "velero.io/backup-name": "b"});
    let expected = json!({"name": "web-abc", "namespace": "shop", "finalizers": ["example.com/f"], "labels": labels,
        "annotations": {"note": "n"}});
    assert_eq!(metadata, expected);
    assert!(created.get("status").is_none());
}

/// restore-semantics 5.3 step 8: recorded under the empty name.
#[tokio::test(start_paused = true)]
async fn an_item_without_metadata_is_an_error_and_recorded_under_no_name() {
    let file = "resources/configmaps/namespaces/shop/bare.json";
    let backup = Backup::new().with_file(file, r#"{"apiVersion":"v1","kind":"ConfigMap","data":{}}"#);
    let done = World::of(backup).live(&namespace("shop")).run().await;
    assert_eq!(done.errors().len(), 1);
    assert_eq!(done.errors()[0].0, "ns shop");
    assert_eq!(done.listed(), ["v1/ConfigMap shop/(failed)"]);
}

/// restore-semantics 5.5 step 3
#[tokio::test(start_paused = true)]
async fn an_item_that_an_action_cannot_handle_is_an_error_and_is_not_created() {
    let mut broken = pod("p");
    broken["spec"]["containers"] = json!("c");
    let done = World::of(Backup::new().with(broken).with(pod("q"))).live(&namespace("shop")).run().await;
    let errors = done.errors();
    assert_eq!((errors.len(), errors[0].0.as_str()), (1, "ns shop"));
    assert!(errors[0].1.starts_with("error preparing pods/shop/p: "), "{errors:?}");
    assert_eq!(done.listed(), ["v1/Pod shop/p(failed)", "v1/Pod shop/q(created)"]);
}

/// restore-semantics 5.5 step 5, and step 1: the action has a label selector.
#[tokio::test(start_paused = true)]
async fn an_item_that_an_action_skips_is_recorded_as_skipped() {
    let service = |name: &str, labels: Value| json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name, "labels": labels}});
    let automanaged = service("v1.apps", json!({"kube-aggregator.kubernetes.io/automanaged": "true"}));
    let done = World::of(Backup::new().with(automanaged).with(service("v1.mine", json!({})))).run().await;
    let kind = "apiregistration.k8s.io/v1/APIService";
    assert_eq!(done.listed(), [format!("{kind} v1.apps(skipped)"), format!("{kind} v1.mine(created)")]);
    assert!(done.is_clean());
}

/// restore-semantics 5.5 step 7: W in the bucket of its source namespace; the item goes on.
#[tokio::test(start_paused = true)]
async fn a_missing_additional_item_is_a_warning_of_its_source_namespace() {
    let world = World::of(Backup::new().with(pod_with_claim("p", "gone")))
        .spec(|spec| _ = spec.namespace_mapping.insert("shop".to_owned(), "store".to_owned()));
    let done = world.run().await;
    let warnings = done.warnings();
    assert_eq!((warnings.len(), warnings[0].0.as_str()), (1, "ns shop"));
    assert!(warnings[0].1.contains("resources/persistentvolumeclaims/namespaces/shop/gone.json"), "{warnings:?}");
    assert_eq!(done.listed(), ["v1/Namespace store(created)", "v1/Pod store/p(created)"]);
}

/// restore-semantics 5.5 step 7; velero-differences: undecodable-additional-item
#[tokio::test(start_paused = true)]
async fn an_undecodable_additional_item_is_an_error_and_whoever_wants_it_goes_on() {
    let file = "resources/persistentvolumeclaims/namespaces/shop/data.json";
    let backup = Backup::new().with(pod_with_claim("p", "data")).with_file(file, "{\"kind\":");
    // With its group-resource left to the pod, nothing but the wish of the pod leads to it.
    let done = World::of(backup)
        .spec(|spec| {
            let labels = json!({"matchLabels": {"app": "web"}});
            spec.label_selector = Some(serde_json::from_value(labels).unwrap());
        })
        .live(&namespace("shop"))
        .run()
        .await;
    assert_eq!(done.listed(), [""; 0], "the pod has no such label");

    let mut pod = pod_with_claim("p", "data");
    pod["metadata"]["labels"] = json!({"app": "web"});
    let done = World::of(Backup::new().with(pod).with_file(file, "{\"kind\":")).live(&namespace("shop")).run().await;
    let errors = done.errors();
    assert!(!errors.is_empty() && errors.iter().all(|(bucket, _)| bucket == "ns shop"), "{errors:?}");
    assert!(errors.iter().all(|(_, text)| text.contains(file)), "{errors:?}");
    assert_eq!(done.listed(), ["v1/Pod shop/p(created)"]);
}

/// restore-semantics 5.5 step 7 and 6.4: what befalls an additional item counts for the one that wants it; the additional
/// item's namespace is mapped.
#[tokio::test(start_paused = true)]
async fn findings_of_an_additional_item_make_an_item_without_an_action_failed() {
    // The live pod is the same as the one in the backup, so nothing else would make it `failed`.
    let mut live = pod_with_claim("p", "data");
    live["metadata"]["namespace"] = json!("store");
    let backup = Backup::new().with(pod_with_claim("p", "data")).with(claim("data"));
    let world = World::of(backup)
        .live(&live)
        .live(&namespace("store"))
        .refusing("create persistentvolumeclaims/store/data", 99, forbidden())
        .spec(|spec| _ = spec.namespace_mapping.insert("shop".to_owned(), "store".to_owned()))
        .job(|job| job.settings.priorities = "pods".parse().unwrap());
    let done = world.run().await;
    assert_eq!(done.errors().len(), 1);
    assert_eq!(done.listed(), ["v1/PersistentVolumeClaim store/data(failed)", "v1/Pod store/p(failed)"]);
}

/// restore-semantics 5.7: each failure is E(ns), and the item is created as it stands then.
#[tokio::test(start_paused = true)]
async fn an_item_whose_modifier_fails_is_created_all_the_same() {
    let rules = "
- conditions: {groupResource: configmaps}
  patches: [{operation: remove, path: /data/none}]
- conditions: {groupResource: configmaps}
  patches: [{operation: replace, path: /data/a, value: \"\\\"2\\\"\"}]
";
    let done = World::of(Backup::new().with(config("c"))).modifiers(rules).live(&namespace("shop")).run().await;
    let errors = done.errors();
    assert_eq!((errors.len(), errors[0].0.as_str()), (1, "ns shop"), "{errors:?}");
    assert_eq!(done.object("configmaps", "shop", "c")["data"], json!({"a": "2"}));
    assert_eq!(done.listed(), ["v1/ConfigMap shop/c(created)"]);
}

/// restore-semantics 7.0 and 5.10 step 2; velero-differences: actions-keep-unknown-fields
#[tokio::test(start_paused = true)]
async fn a_field_that_no_go_type_of_velero_knows_passes_all_actions() {
    let mut pod = pod("p");
    pod["spec"]["fieldOfTomorrow"] = json!({"deep": [1, null, ""]});
    pod["spec"]["containers"][0]["another"] = json!(true);
    pod["spec"]["nodeName"] = json!("gone");
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop"}});
    service["spec"] = json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80, "new": {}}], "fieldOfTomorrow": {}});
    let done = World::of(Backup::new().with(pod).with(service)).live(&namespace("shop")).run().await;
    let spec = json!({"containers": [{"name": "c", "image": "i", "another": true}],
        "fieldOfTomorrow": {"deep": [1, null, ""]}});
    assert_eq!(done.object("pods", "shop", "p")["spec"], spec);
    let spec = json!({"ports": [{"port": 80, "new": {}}], "fieldOfTomorrow": {}});
    assert_eq!(done.object("services", "shop", "s")["spec"], spec);
}

/// restore-semantics 3.5: the version of the object itself, whatever the cluster prefers.
#[tokio::test(start_paused = true)]
async fn an_item_is_created_in_its_own_version() {
    // This cluster serves Deployments in apps/v1 alone.
    let old = json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "shop"}});
    let backup = Backup::new().with_as("deployments.apps", old);
    let done = World::of(backup).live(&namespace("shop")).run().await;
    assert_eq!(done.requested("create"), ["create deployments.extensions/shop/d"]);
}

/// restore-semantics 3.5: the kind that an item has after its changes is looked up; failing that E(ns).
#[tokio::test(start_paused = true)]
async fn an_item_of_a_changed_kind_goes_to_the_resource_of_that_kind() {
    let rules = |kind: &str| {
        format!(
            "\n- conditions: {{groupResource: configmaps}}\n  patches: [{{operation: replace, path: /kind, value: {kind}}}]\n"
        )
    };
    let world = |kind| World::of(Backup::new().with(config("c"))).modifiers(&rules(kind)).live(&namespace("shop"));
    let done = world("Secret").run().await;
    assert_eq!(done.requested("create"), ["create secrets/shop/c"]);
    let done = world("Gadget").run().await;
    assert_eq!(done.requested("create"), [""; 0]);
    assert_eq!(done.errors()[0].0, "ns shop");
    assert_eq!(done.listed(), ["v1/ConfigMap shop/c(failed)"], "recorded under the kind of the backup (6.4)");
}

/// restore-semantics 11.3 has Velero give up at once; velero-differences: transient-errors-are-retried
#[tokio::test(start_paused = true)]
async fn a_create_that_is_refused_for_a_passing_reason_is_tried_again_and_the_tries_are_counted() {
    let busy = crate::engine::ports::ApiError::status(503, "ServiceUnavailable", "busy");
    let world = || World::of(Backup::new().with(config("c"))).live(&namespace("shop"));
    let done = world().refusing("create configmaps", 3, busy.clone()).run().await;
    assert!(done.is_clean());
    assert_eq!(done.ended("v1/ConfigMap shop/c").attempts, 4);
    let done = world().refusing("create configmaps", 999, busy).run().await;
    assert_eq!(done.errors(), [("ns shop".to_owned(), "error restoring configmaps/shop/c: busy".to_owned())]);
    assert!(done.took < Duration::from_secs(120), "{:?}", done.took);
}
