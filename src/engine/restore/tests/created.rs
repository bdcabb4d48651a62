//! What follows a successful create (restore-semantics 5.11), and what a run adds up to (6).

use std::time::Duration;

use serde_json::{Value, json};

use super::world::{World, config, forbidden, namespace};
use crate::archive::testing::Backup;
use crate::engine::events::{Event, VeleroCount};
use crate::engine::ports::ApiError;
use crate::model::{Outcome, ResourceLists};

fn deployment(annotation: Option<&str>) -> Value {
    let mut deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {"replicas": 3},
        "metadata": {"name": "d", "namespace": "shop"}, "spec": {}});
    if let Some(annotation) = annotation {
        deployment["metadata"]["annotations"] = json!({"velero.io/restore-status": annotation});
    }
    deployment
}

fn lists(included: &[&str], excluded: &[&str]) -> Option<ResourceLists> {
    let own = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
    Some(ResourceLists { included_resources: own(included), excluded_resources: own(excluded) })
}

fn conflict() -> ApiError {
    ApiError::status(409, "Conflict", "the object has been modified")
}

/// restore-semantics 5.11 step 1
#[tokio::test(start_paused = true)]
async fn a_status_is_restored_where_the_specification_or_the_annotation_wants_it() {
    for (status, annotation, expected) in [
        (None, None, false),
        (lists(&[], &[]), None, true),
        (lists(&["deployments"], &[]), None, true),
        (lists(&["deploy"], &[]), None, true),
        (lists(&["*"], &["deployments.apps"]), None, false),
        (lists(&["pods"], &[]), None, false),
        (None, Some("true"), true),
        (None, Some(" TRUE "), true),
        (None, Some("yes"), false),
        (lists(&[], &[]), Some("False"), false),
        (lists(&[], &[]), Some("no"), true),
    ] {
        let world = World::of(Backup::new().with(deployment(annotation))).live(&namespace("shop"));
        let done = world.spec(|spec| spec.restore_status = status.clone()).run().await;
        assert!(done.is_clean());
        let live = done.object("deployments.apps", "shop", "d");
        let wanted = if expected { json!({"replicas": 3}) } else { Value::Null };
        assert_eq!(live["status"], wanted, "{status:?} {annotation:?}");
    }
}

/// restore-semantics 5.11 step 1: nothing to put back is no request.
#[tokio::test(start_paused = true)]
async fn a_status_that_the_backup_lacks_is_not_written() {
    let done = World::of(Backup::new().with(config("c")))
        .live(&namespace("shop"))
        .spec(|spec| spec.restore_status = lists(&[], &[]))
        .run()
        .await;
    assert_eq!(done.requested("status"), [""; 0]);
}

/// restore-semantics 5.11 step 1: five tries on conflict, W in the end, and the item is `created`.
#[tokio::test(start_paused = true)]
async fn a_status_write_that_meets_a_newer_object_is_tried_five_times() {
    let world = |conflicts| {
        World::of(Backup::new().with(deployment(Some("true")))).live(&namespace("shop")).refusing(
            "status",
            conflicts,
            conflict(),
        )
    };
    let done = world(4).run().await;
    assert!(done.is_clean());
    assert_eq!(done.object("deployments.apps", "shop", "d")["status"], json!({"replicas": 3}));
    let done = world(5).run().await;
    assert_eq!(done.requested("status").len(), 5);
    assert_eq!(done.warnings(), [("ns shop".to_owned(), "the object has been modified".to_owned())]);
    assert_eq!(done.errors(), []);
    assert_eq!(done.listed(), ["apps/v1/Deployment shop/d(created)"]);
}

/// restore-semantics 5.11 step 1: any other failure is W at once, and managedFields are still put back.
#[tokio::test(start_paused = true)]
async fn a_status_write_that_is_refused_is_a_warning_and_the_rest_goes_on() {
    let mut deployment = deployment(Some("true"));
    deployment["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
    let world = World::of(Backup::new().with(deployment)).live(&namespace("shop"));
    let done = world.refusing("status", 1, forbidden()).run().await;
    assert_eq!((done.warnings().len(), done.errors().len()), (1, 0));
    assert_eq!(done.requested("status").len(), 1);
    let live = done.object("deployments.apps", "shop", "d");
    assert_eq!(live["metadata"]["managedFields"], json!([{"manager": "kubectl"}]));
}

/// restore-semantics 5.11 step 2: W for NotFound, E for any other failure, `created` in both.
#[tokio::test(start_paused = true)]
async fn recorded_managers_are_put_back_and_a_failure_leaves_the_item_created() {
    let mut config = config("c");
    config["metadata"]["managedFields"] = json!([{"manager": "kubectl", "operation": "Update"}]);
    let world = || World::of(Backup::new().with(config.clone())).live(&namespace("shop"));
    let done = world().run().await;
    assert!(done.is_clean());
    let live = done.object("configmaps", "shop", "c");
    assert_eq!(live["metadata"]["managedFields"], config["metadata"]["managedFields"]);
    assert_eq!(done.requested("patch").len(), 1);

    let gone = ApiError::status(404, "NotFound", "gone");
    for (error, warnings, errors) in [(gone, 1, 0), (forbidden(), 0, 1)] {
        let done = world().refusing("patch configmaps", 1, error).run().await;
        assert_eq!((done.warnings().len(), done.errors().len()), (warnings, errors));
        assert_eq!(done.listed(), ["v1/ConfigMap shop/c(created)"]);
        assert_eq!(done.outcome("v1/ConfigMap shop/c"), Outcome::Created);
    }
}

/// restore-semantics 5.11 step 2 has a patch of null there; velero-differences: no-empty-patch-of-managed-fields
#[tokio::test(start_paused = true)]
async fn without_recorded_managers_no_patch_is_sent() {
    for managers in [Value::Null, json!({})] {
        let mut config = config("c");
        config["metadata"]["managedFields"] = managers;
        let done = World::of(Backup::new().with(config)).live(&namespace("shop")).run().await;
        assert!(done.is_clean());
        assert_eq!(done.requests(), ["get namespaces/shop", "create configmaps/shop/c"]);
    }
}

fn definition(name: &str) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{name}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": name, "kind": "K"},
            "versions": [{"name": "v1", "served": true, "storage": true}]}})
}

fn served(name: &str, accepted: &str, established: &str) -> Value {
    let mut definition = definition(name);
    definition["status"]["conditions"] =
        json!([{"type": "NamesAccepted", "status": accepted}, {"type": "Established", "status": established}]);
    definition
}

/// restore-semantics 5.11 step 5: both conditions; velero-differences: crds-awaited-together
#[tokio::test(start_paused = true)]
async fn definitions_are_awaited_together_with_one_watch_and_one_that_does_not_get_ready_is_an_error_of_its_own() {
    let backup = Backup::new().with_all(["as", "bs", "cs"].map(definition)).with(config("x"));
    let done = World::of(backup)
        .run_while(async |api| {
            tokio::time::sleep(Duration::from_secs(60)).await;
            api.put(&served("as", "True", "True"));
            api.put(&served("bs", "True", "True"));
            api.put(&served("cs", "False", "True"));
        })
        .await;
    let creates = done.requested("create customresourcedefinitions").len();
    assert_eq!((creates, done.requested("watch customresourcedefinitions").len()), (3, 1));
    assert_eq!(done.requested("get customresourcedefinitions"), [""; 0], "nobody polls");
    let errors = done.errors();
    assert_eq!((errors.len(), errors[0].0.as_str()), (1, "cluster"), "{errors:?}");
    assert!(errors[0].1.contains("cs.example.com"), "{errors:?}");
    let kind = "apiextensions.k8s.io/v1/CustomResourceDefinition";
    let names = ["as", "bs", "cs"].map(|name| format!("{kind} {name}.example.com(created)"));
    assert_eq!(done.listed()[..3], names, "what did not get ready is created all the same");
    assert!((600..660).contains(&done.took.as_secs()), "one wait for all, not {:?}", done.took);
    assert_eq!(done.object("configmaps", "shop", "x")["data"], json!({"a": "1"}), "the others go on");
}

/// restore-semantics 4.2: discovery is asked anew when the first pass created something, and only then.
#[tokio::test(start_paused = true)]
async fn discovery_is_refreshed_after_definitions_were_created() {
    let ready = |name| {
        async move |api: &super::world::FakeApi| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            api.put(&served(name, "True", "True"));
        }
    };
    let backup = || Backup::new().with(definition("as")).with(config("x"));
    let done = World::of(backup()).run_while(ready("as")).await;
    assert_eq!(done.discoveries(), 2);
    let done = World::of(backup()).live(&definition("as")).run().await;
    assert_eq!(done.discoveries(), 1);

    // velero-differences: transient-errors-are-retried: one that fails for a moment is none.
    let busy = ApiError::status(503, "ServiceUnavailable", "busy");
    let done = World::of(backup())
        .run_while(async |api| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            api.refuse("discovery", 2, busy);
            api.put(&served("as", "True", "True"));
        })
        .await;
    assert!(done.is_clean());

    // restore-semantics 4.2: a refresh that fails is W(cluster).
    let busy = ApiError::status(500, "InternalError", "busy");
    let done = World::of(backup())
        .run_while(async |api| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            api.refuse("discovery", 99, busy);
            api.put(&served("as", "True", "True"));
        })
        .await;
    assert_eq!(done.warnings().len(), 1);
    assert_eq!(done.warnings()[0].0, "cluster");
    assert_eq!(done.errors(), []);
}

/// restore-semantics 6.1, 6.4 and 6.5: what is in `R` and in the list: created, updated, skipped and failed items, additional
/// items and created namespaces.
#[tokio::test(start_paused = true)]
async fn the_resource_list_holds_every_item_that_was_begun_with_its_action() {
    let mut mirror = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mirror", "namespace": "shop"}});
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let completed = json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Succeeded"},
        "metadata": {"name": "done", "namespace": "shop"}});
    let mut other = config("differs");
    other["data"] = json!({"a": "2"});
    let backup = Backup::new()
        .with_all(["new", "same", "differs", "refused"].map(config))
        .with_all([mirror, completed, deployment(None), namespace("shop")])
        .with_file("resources/secrets/namespaces/shop/broken.json", "{");
    let done = World::of(backup)
        .live(&config("same"))
        .live(&other)
        .refusing("create configmaps/shop/refused", 9, forbidden())
        .run()
        .await;
    assert_eq!(
        done.listed(),
        [
            "apps/v1/Deployment shop/d(created)",
            "v1/ConfigMap shop/differs(failed)",
            "v1/ConfigMap shop/new(created)",
            "v1/ConfigMap shop/refused(failed)",
            "v1/ConfigMap shop/same(skipped)",
            "v1/Namespace shop(created)",
            "v1/Pod shop/mirror(skipped)",
        ]
    );
    assert_eq!(done.report.restored, 7);
    let counted = |count| done.finished().iter().filter(|finished| finished.velero == count).count();
    assert_eq!(counted(VeleroCount::Restored), 7, "what events tell is what the list holds");
    assert_eq!(counted(VeleroCount::Dropped), 2, "the completed pod and the broken secret");
}

/// restore-semantics 6.2 and 2.3: an early end plans nothing, and so writes no progress.
#[tokio::test(start_paused = true)]
async fn an_early_end_plans_nothing() {
    let done = World::of(Backup::bare()).run().await;
    assert!(!done.report.planned);
    assert_eq!(done.warnings().len(), 1);
    let wildcard =
        World::of(Backup::new().with(config("c"))).spec(|spec| spec.included_namespaces = vec!["a**".into()]);
    let done = wildcard.run().await;
    assert!(!done.report.planned && done.errors().len() == 1);
    assert!(!done.events.iter().any(|event| matches!(event, Event::Planned(_))));
    assert_eq!(done.requests(), [""; 0]);
}

/// A definition that does not get ready holds up its own objects only, which are tried when its time is over. velero-differences: crds-awaited-together
#[tokio::test(start_paused = true)]
async fn a_definition_that_is_not_ready_holds_up_nothing_but_its_own_objects() {
    let object = |kind: &str| json!({"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "o", "namespace": "shop"}});
    let backup = Backup::new().with_all(["as", "bs"].map(definition)).with(config("x")).with(object("A"));
    let done = World::of(backup)
        .live(&namespace("shop"))
        .run_while(async |api| {
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(api.requests_so_far("create configmaps").len(), 1, "the others are done");
            tokio::time::sleep(Duration::from_secs(30)).await;
            api.put(&served("as", "True", "True"));
        })
        .await;
    let errors = done.errors();
    assert!(errors.iter().any(|(_, message)| message.contains("error waiting for CRD bs.example.com")), "{errors:?}");
    assert!(!errors.iter().any(|(_, message)| message.contains("CRD as.example.com")), "{errors:?}");
    assert_eq!(done.requested("watch customresourcedefinitions").len(), 1, "one watch for all of them");
    assert!((600..620).contains(&done.took.as_secs()), "{:?}", done.took);
    assert_eq!(done.object("configmaps", "shop", "x")["data"], json!({"a": "1"}));
}
