//! Namespaces that items need (restore-semantics 5.1 and 5.2).

use std::time::Duration;

use serde_json::json;

use super::world::{World, config, forbidden, namespace};
use crate::archive::testing::Backup;
use crate::engine::events::VeleroCount;
use crate::engine::ports::{ApiError, ApiErrorKind};
use crate::model::Outcome;

const TIMED_OUT: &str =
    "timed out waiting for terminating namespace shop to disappear before restoring: context deadline exceeded";

/// restore-semantics 5.2: name, labels, annotations and spec of the backup; 5.1 step 3: no item action, no modifier, no
/// restore labels.
#[tokio::test(start_paused = true)]
async fn a_missing_namespace_is_created_as_in_the_backup_and_gets_no_labels_of_the_restore() {
    let mut shop = namespace("shop");
    shop["metadata"]["labels"] = json!({"team": "a"});
    shop["metadata"]["annotations"] = json!({"note": "b"});
    shop["metadata"]["finalizers"] = json!(["example.com/f"]);
    shop["spec"] = json!({"finalizers": ["kubernetes"]});
    shop["status"] = json!({"phase": "Active"});
    let modifier =
        "- conditions: {groupResource: \"**\"}\n  patches: [{operation: add, path: /metadata/labels/x, value: y}]";
    let world = World::of(Backup::new().with(shop).with(config("a")))
        .modifiers(modifier)
        .spec(|spec| _ = spec.namespace_mapping.insert("shop".to_owned(), "store".to_owned()));
    let done = world.run().await;
    assert!(done.object("namespaces", "", "shop").is_null(), "only the target is made");
    let mut made = done.object("namespaces", "", "store");
    for server in ["managedFields", "resourceVersion"] {
        made["metadata"].as_object_mut().unwrap().remove(server);
    }
    let metadata = json!({"name": "store", "labels": {"team": "a"}, "annotations": {"note": "b"}});
    assert_eq!(
        made,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "spec": {"finalizers": ["kubernetes"]}})
    );
    assert_eq!(done.listed()[1..], ["v1/Namespace store(created)"]);
    assert_eq!(done.requested("patch namespaces"), [""; 0]);
}

/// restore-semantics 5.2
#[tokio::test(start_paused = true)]
async fn without_a_namespace_in_the_backup_a_bare_one_is_made() {
    let broken = "resources/namespaces/cluster/bank.json";
    let mut in_bank = config("b");
    in_bank["metadata"]["namespace"] = json!("bank");
    let done = World::of(Backup::new().with(config("a")).with(in_bank).with_file(broken, "{")).run().await;
    for name in ["shop", "bank"] {
        let made = done.object("namespaces", "", name);
        assert_eq!(made["metadata"].as_object().unwrap().len(), 3, "{made}");
        assert!(made.get("spec").is_none());
    }
    assert_eq!(done.listed().len(), 4);
}

/// restore-semantics 5.2: nothing is merged into a namespace that exists, and 5.1: it is not recorded.
#[tokio::test(start_paused = true)]
async fn a_namespace_that_exists_stays_as_it_is_and_is_nobodys_item() {
    let mut shop = namespace("shop");
    shop["metadata"]["labels"] = json!({"team": "a"});
    let done = World::of(Backup::new().with(shop).with(config("a"))).live(&namespace("shop")).run().await;
    assert!(done.object("namespaces", "", "shop")["metadata"].get("labels").is_none());
    assert_eq!(done.listed(), ["v1/ConfigMap shop/a(created)"]);
    assert!(done.is_clean());
}

/// restore-semantics 5.2: AlreadyExists on create is fine, and the namespace is not this restore's.
#[tokio::test(start_paused = true)]
async fn a_namespace_that_somebody_else_makes_first_is_used() {
    let world = World::of(Backup::new().with(config("a"))).meddled(|request, objects| {
        if request == "create namespaces/shop" {
            objects.insert(("namespaces".to_owned(), String::new(), "shop".to_owned()), namespace("shop"));
        }
    });
    let done = world.run().await;
    assert_eq!(done.listed(), ["v1/ConfigMap shop/a(created)"]);
    assert!(done.is_clean());
}

/// restore-semantics 5.1 step 2 and 6.1: E(velero) for each item; none of them is counted, and the others go on.
#[tokio::test(start_paused = true)]
async fn items_of_a_namespace_that_cannot_be_ensured_are_errors_of_the_bucket_velero() {
    let mut elsewhere = config("c");
    elsewhere["metadata"]["namespace"] = json!("bank");
    for refused in ["get namespaces/shop", "create namespaces/shop"] {
        let backup = Backup::new().with_all([namespace("shop"), config("a"), config("b"), elsewhere.clone()]);
        let done = World::of(backup).refusing(refused, 99, forbidden()).run().await;
        let verb = if refused.starts_with("get") { "getting" } else { "creating" };
        let error = ("velero".to_owned(), format!("error {verb} namespace shop: not for you"));
        assert_eq!(done.errors(), [error.clone(), error.clone(), error], "the Namespace item and both of its items");
        assert_eq!(done.listed(), ["v1/ConfigMap bank/c(created)", "v1/Namespace bank(created)"]);
        assert_eq!(done.report.restored, 2);
        let passed_over = done.ended("v1/ConfigMap shop/a");
        assert_eq!((passed_over.outcome, passed_over.velero), (Outcome::Failed, VeleroCount::PassedOver));
        assert_eq!(done.requested("create configmaps/shop"), [""; 0]);
    }
}

/// restore-semantics 5.2; velero-differences: one-wait-per-terminating-namespace
#[tokio::test(start_paused = true)]
async fn a_terminating_namespace_is_waited_for_once_and_each_of_its_items_has_its_error() {
    let deleted = |mut namespace: serde_json::Value| {
        namespace["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        namespace
    };
    let terminating = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "status": {"phase": "Terminating"}});
    for live in [deleted(namespace("shop")), terminating] {
        let backup = Backup::new().with_all([namespace("shop"), config("a"), config("b")]);
        let done = World::of(backup).live(&live).run().await;
        assert_eq!(done.errors(), vec![("velero".to_owned(), TIMED_OUT.to_owned()); 3]);
        assert!((600..660).contains(&done.took.as_secs()), "one wait of ten minutes, not {:?}", done.took);
        assert_eq!(done.requested("watch namespaces").len(), 1);
        assert_eq!(done.listed(), [""; 0]);
    }
}

/// restore-semantics 5.2: gone in time, the namespace is made anew.
#[tokio::test(start_paused = true)]
async fn a_terminating_namespace_that_goes_in_time_is_made_anew() {
    let mut live = namespace("shop");
    live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let world = World::of(Backup::new().with(config("a"))).live(&live);
    let done = world
        .run_while(async |api| {
            tokio::time::sleep(Duration::from_secs(300)).await;
            api.remove("namespaces", "", "shop");
        })
        .await;
    assert!(done.is_clean());
    assert_eq!(done.listed(), ["v1/ConfigMap shop/a(created)", "v1/Namespace shop(created)"]);
    assert!(done.took < Duration::from_secs(360), "{:?}", done.took);
}

/// restore-semantics 5.2 would ask before each item; velero-differences: namespace-checked-once
#[tokio::test(start_paused = true)]
async fn a_namespace_is_asked_for_once_and_not_made_again_when_it_goes_in_mid_restore() {
    let names: Vec<String> = (0..50).map(|number| format!("c{number:02}")).collect();
    let done = World::of(Backup::new().with_all(names.iter().map(|name| config(name)))).run().await;
    assert_eq!(done.requested("get namespaces"), ["get namespaces/shop"]);
    assert_eq!(done.requested("create namespaces"), ["create namespaces/shop"]);

    let gone = crate::engine::ports::ApiError::status(404, "NotFound", "namespaces \"shop\" not found");
    let done = World::of(Backup::new().with(config("a"))).refusing("create configmaps", 99, gone).run().await;
    let message = "error restoring configmaps/shop/a: namespaces \"shop\" not found";
    assert_eq!(done.errors(), [("ns shop".to_owned(), message.to_owned())]);
    assert_eq!(done.requested("create namespaces").len(), 1);
}

/// restore-semantics 5.1 step 3 and 6.3; velero-differences: namespaces-join-when-created
#[tokio::test(start_paused = true)]
async fn a_namespace_joins_the_numbers_when_it_is_created() {
    let mut elsewhere = config("c");
    elsewhere["metadata"]["namespace"] = json!("bank");
    let backup = Backup::new().with_all([namespace("shop"), namespace("bank"), config("a"), elsewhere]);
    let done = World::of(backup).live(&namespace("bank")).run().await;
    let known: Vec<String> = done.known().iter().map(|known| known.key.to_string()).collect();
    assert_eq!(known, ["v1/ConfigMap bank/c", "v1/ConfigMap shop/a", "v1/Namespace shop"], "bank is nobody's work");
    assert_eq!(done.finished().len(), 3);
    assert_eq!(done.report.restored, 3);
}

/// velero-differences: transient-errors-are-retried: a namespace whose first answer was lost counts as created; one that
/// somebody else made meanwhile does not.
#[tokio::test(start_paused = true)]
async fn a_namespace_whose_answer_was_lost_is_known_by_what_it_was_made_of() {
    let lost = ApiError::transport(ApiErrorKind::Connection, "connection reset");
    for (team, listed) in [
        ("a", vec!["v1/ConfigMap shop/a(created)", "v1/Namespace shop(created)"]),
        ("b", vec!["v1/ConfigMap shop/a(created)"]),
    ] {
        let mut backed_up = namespace("shop");
        backed_up["metadata"]["labels"] = json!({"team": "a"});
        let mut stored = namespace("shop");
        stored["metadata"]["labels"] = json!({"team": team, "kubernetes.io/metadata.name": "shop"});
        let done = World::of(Backup::new().with(backed_up).with(config("a")))
            .refusing("create namespaces", 1, lost.clone())
            .meddled(move |request, objects| {
                if request.starts_with("create namespaces") {
                    let at = ("namespaces".to_owned(), String::new(), "shop".to_owned());
                    objects.entry(at).or_insert_with(|| stored.clone());
                }
            })
            .run()
            .await;
        assert!(done.is_clean());
        assert_eq!(done.listed(), listed);
    }
}

/// A namespace that is being deleted holds up its own items only, of however many tiers and slots; gone in time, it is made
/// anew and gets them all, in the order of the tiers. velero-differences: one-wait-per-terminating-namespace
#[tokio::test(start_paused = true)]
async fn a_terminating_namespace_holds_up_nothing_but_its_own_items() {
    let mut live = namespace("a-first");
    live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let item = |kind: &str, namespace: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    let mut backup = Backup::new().with_all(["a-first", "shop"].map(namespace));
    for name in ["a", "b", "c", "d", "e"] {
        for kind in ["Secret", "ConfigMap"] {
            backup = backup.with_all(["a-first", "shop"].map(|namespace| item(kind, namespace, name)));
        }
    }
    let world = World::of(backup).live(&live).job(|job| job.settings.concurrency = 2);
    let done = world
        .run_while(async |api| {
            tokio::time::sleep(Duration::from_secs(30)).await;
            let begun: Vec<String> = api.requests_so_far("create");
            assert_eq!(begun.len(), 11, "the other namespace is done: {begun:?}");
            assert!(begun.iter().all(|create| !create.contains("a-first")), "{begun:?}");
            tokio::time::sleep(Duration::from_secs(270)).await;
            api.remove("namespaces", "", "a-first");
        })
        .await;
    assert!(done.is_clean(), "{:?}", done.errors());
    let creates = done.requested("create");
    assert_eq!((creates.len(), creates[11].as_str()), (22, "create namespaces/a-first"));
    assert!(creates[12..17].iter().all(|create| create.starts_with("create secrets/a-first/")), "{creates:?}");
    assert!(creates[17..].iter().all(|create| create.starts_with("create configmaps/a-first/")), "{creates:?}");
    assert!((300..320).contains(&done.took.as_secs()), "{:?}", done.took);
}
