//! Creating, and settling with what is there (restore-semantics 5.9 and 5.10).

use serde_json::{Value, json};

use super::world::{Done, World, config, forbidden, namespace};
use crate::archive::testing::Backup;
use crate::engine::ports::ApiError;
use crate::model::{ExistingResourcePolicy, Outcome};

const POLICIES: [ExistingResourcePolicy; 3] =
    [ExistingResourcePolicy::Unset, ExistingResourcePolicy::None, ExistingResourcePolicy::Update];

/// What differs from the ConfigMap of the backup: other data, and fields of the cluster's own.
fn different() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "2", "b": "3"}, "metadata": {
        "name": "c", "namespace": "shop", "uid": "live", "labels": {"team": "live"}, "annotations": {"note": "live"}}})
}

/// The ConfigMap `c` of the backup meets `live`.
async fn meets(live: &Value, policy: ExistingResourcePolicy, refusals: &[(&str, ApiError)]) -> Done {
    let mut world = World::of(Backup::new().with(config("c")))
        .live(&namespace("shop"))
        .live(live)
        .spec(|spec| spec.existing_resource_policy = policy);
    for (request, error) in refusals {
        world = world.refusing(request, 1, error.clone());
    }
    world.run().await
}

/// restore-semantics 5.9 step 2, and velero-differences: existing-objects-are-read-live (4.7): nothing is listed, and what
/// could be created is not read.
#[tokio::test(start_paused = true)]
async fn a_new_object_takes_one_request_and_an_existing_one_is_read_when_it_is_refused() {
    let done = World::of(Backup::new().with(config("c"))).live(&namespace("shop")).run().await;
    assert_eq!(done.requests(), ["get namespaces/shop", "create configmaps/shop/c"]);
    assert_eq!(done.listed(), ["v1/ConfigMap shop/c(created)"]);

    let done = meets(&config("c"), ExistingResourcePolicy::Unset, &[]).await;
    assert_eq!(done.requests(), ["get namespaces/shop", "create configmaps/shop/c", "get configmaps/shop/c"]);
}

/// restore-semantics 5.9 step 5: whatever refused the create, an object of that name exists.
#[tokio::test(start_paused = true)]
async fn a_create_that_is_denied_counts_as_existing_when_the_object_is_there() {
    let done = meets(&config("c"), ExistingResourcePolicy::Unset, &[("create configmaps", forbidden())]).await;
    assert!(done.is_clean());
    assert_eq!(done.outcome("v1/ConfigMap shop/c"), Outcome::Unchanged);
    let done = meets(&different(), ExistingResourcePolicy::Unset, &[("create configmaps", forbidden())]).await;
    assert_eq!((done.warnings().len(), done.errors().len()), (1, 0));
}

/// restore-semantics 5.9 step 6
#[tokio::test(start_paused = true)]
async fn a_create_that_is_denied_without_an_object_of_that_name_is_an_error() {
    let world = World::of(Backup::new().with(config("c"))).live(&namespace("shop"));
    let done = world.refusing("create configmaps", 1, forbidden()).run().await;
    assert_eq!(done.errors(), [("ns shop".to_owned(), "error restoring configmaps/shop/c: not for you".to_owned())]);
    assert_eq!(done.listed(), ["v1/ConfigMap shop/c(failed)"]);
}

/// restore-semantics 5.9 step 4: it exists and cannot be read: W with the error of the look-up, whatever the policy.
#[tokio::test(start_paused = true)]
async fn an_existing_object_that_cannot_be_read_is_a_warning() {
    for policy in POLICIES {
        let done = meets(&config("c"), policy, &[("get configmaps", forbidden())]).await;
        assert_eq!(done.warnings(), [("ns shop".to_owned(), "not for you".to_owned())]);
        assert_eq!(done.errors(), []);
        assert_eq!(done.listed(), ["v1/ConfigMap shop/c(failed)"]);
    }
}

/// restore-semantics 5.9 step 3 (b): a port that is taken means "exists" only where a GET finds the Service.
#[tokio::test(start_paused = true)]
async fn a_node_port_that_is_taken_is_an_existing_service_only_if_there_is_one() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}});
    let cause = "Invalid value: 30080: provided port is already allocated".to_owned();
    let taken = ApiError { causes: vec![cause.clone()], ..ApiError::status(422, "Invalid", cause.clone()) };
    let world = || {
        World::of(Backup::new().with(service.clone()))
            .live(&namespace("shop"))
            .spec(|spec| spec.preserve_node_ports = Some(true))
            .refusing("create services", 1, taken.clone())
    };
    let done = world().live(&service).run().await;
    assert!(done.is_clean(), "{:?}", done.warnings());
    assert_eq!(done.outcome("v1/Service shop/s"), Outcome::Unchanged);

    let refused = [("ns shop".to_owned(), format!("error restoring services/shop/s: {cause}"))];
    assert_eq!(world().run().await.errors(), refused, "the port is another Service's");
    let done = world().live(&service).refusing("get services", 1, forbidden()).run().await;
    assert_eq!(
        (done.errors().len(), done.warnings().len()),
        (1, 0),
        "a look-up that fails is E: {:?}",
        done.warnings()
    );
}

/// restore-semantics 5.10 step 3: nothing is written, and the record is `skipped`.
#[tokio::test(start_paused = true)]
async fn an_equal_object_is_left_alone_without_the_policy_update() {
    for policy in [ExistingResourcePolicy::Unset, ExistingResourcePolicy::None] {
        let done = meets(&config("c"), policy, &[]).await;
        assert!(done.is_clean());
        assert_eq!(done.listed(), ["v1/ConfigMap shop/c(skipped)"]);
        assert_eq!(done.requested("patch"), [""; 0]);
    }
}

/// restore-semantics 5.10 step 3: `update` patches the labels alone; `skipped` all the same, and `failed` when it fails.
#[tokio::test(start_paused = true)]
async fn an_equal_object_gets_the_restore_labels_with_the_policy_update() {
    let mut live = config("c");
    live["metadata"]["uid"] = json!("live");
    let done = meets(&live, ExistingResourcePolicy::Update, &[]).await;
    let labels = r#"{"velero.io/backup-name":"b","velero.io/restore-name":"r"}"#;
    let patch = format!(r#"patch configmaps/shop/c {{"metadata":{{"labels":{labels}}}}}"#);
    assert_eq!(done.requested("patch"), [patch]);
    assert!(done.is_clean());
    assert_eq!(done.listed(), ["v1/ConfigMap shop/c(skipped)"]);

    let done = meets(&live, ExistingResourcePolicy::Update, &[("patch", forbidden())]).await;
    assert_eq!(done.errors(), [("ns shop".to_owned(), "not for you".to_owned())]);
    assert_eq!(done.listed(), ["v1/ConfigMap shop/c(failed)"]);
}

/// restore-semantics 5.10 step 5: two spellings of one warning; `failed` although it is a warning.
#[tokio::test(start_paused = true)]
async fn a_different_object_is_a_warning_in_the_words_of_its_policy_and_stays() {
    for (policy, what) in
        [(ExistingResourcePolicy::Unset, "ConfigMap:c"), (ExistingResourcePolicy::None, "ConfigMap \"c\"")]
    {
        let done = meets(&different(), policy, &[]).await;
        let message = format!(
            "could not restore, {what} already exists. Warning: the in-cluster version is different than the backed-up version"
        );
        assert_eq!(done.warnings(), [("ns shop".to_owned(), message)]);
        assert_eq!(done.errors(), []);
        assert_eq!(done.listed(), ["v1/ConfigMap shop/c(failed)"]);
        assert_eq!(done.requested("patch"), [""; 0]);
    }
}

/// restore-semantics 5.10 step 5: what the backup lacks goes from the live object.
#[tokio::test(start_paused = true)]
async fn the_policy_update_makes_the_live_object_that_of_the_backup() {
    let mut live = different();
    live["metadata"]["labels"]["velero.io/restore-name"] = json!("r");
    let done = meets(&live, ExistingResourcePolicy::Update, &[]).await;
    assert!(done.is_clean());
    assert_eq!(done.listed(), ["v1/ConfigMap shop/c(updated)"]);
    let updated = done.object("configmaps", "shop", "c");
    assert_eq!(updated["data"], json!({"a": "1"}));
    let labels = json!({"velero.io/backup-name": "b", "velero.io/restore-name": "r"});
    assert_eq!(updated["metadata"]["labels"], labels);
    assert!(updated["metadata"].get("annotations").is_none());
    assert_eq!(updated["metadata"]["uid"], "live", "what the API server keeps is not touched");
    assert_eq!(done.requested("patch").len(), 1);
}

/// restore-semantics 5.10 step 5: W, then the labels alone; E when that fails, too.
#[tokio::test(start_paused = true)]
async fn an_update_that_is_refused_is_a_warning_and_the_labels_are_tried_alone() {
    let immutable = ApiError::status(422, "Invalid", "field is immutable");
    let done = meets(&different(), ExistingResourcePolicy::Update, &[("patch", immutable.clone())]).await;
    assert_eq!(done.warnings(), [("ns shop".to_owned(), "field is immutable".to_owned())]);
    assert_eq!(done.errors(), []);
    assert_eq!(done.listed(), ["v1/ConfigMap shop/c(failed)"]);
    let labels = &done.object("configmaps", "shop", "c")["metadata"]["labels"];
    assert_eq!(*labels, json!({"team": "live", "velero.io/backup-name": "b", "velero.io/restore-name": "r"}));

    let both = [("patch", immutable), ("patch", forbidden())];
    let done = meets(&different(), ExistingResourcePolicy::Update, &both).await;
    assert_eq!((done.warnings().len(), done.errors().len()), (1, 1));
    assert_eq!(done.errors()[0].1, "not for you");
}

fn account(secrets: &[&str], labels: Value) -> Value {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": secrets,
        "metadata": {"name": "default", "namespace": "shop", "labels": labels}})
}

async fn account_meets(live: &Value, policy: ExistingResourcePolicy, refusals: usize) -> Done {
    World::of(Backup::new().with(account(&["pull"], json!({"app": "backup", "new": "1"}))))
        .live(&namespace("shop"))
        .live(live)
        .spec(|spec| spec.existing_resource_policy = policy)
        .refusing("patch serviceaccounts", refusals, forbidden())
        .run()
        .await
}

/// restore-semantics 5.10 step 4: merged whatever the policy, and without the restore labels.
#[tokio::test(start_paused = true)]
async fn a_service_account_is_merged_whatever_the_policy_and_gets_no_restore_labels() {
    for policy in POLICIES {
        let done = account_meets(&account(&["own"], json!({"app": "live"})), policy, 0).await;
        assert!(done.is_clean());
        assert_eq!(done.listed(), ["v1/ServiceAccount shop/default(updated)"]);
        let merged = done.object("serviceaccounts", "shop", "default");
        assert_eq!(merged["secrets"], json!([{"name": "own"}, {"name": "pull"}]));
        assert_eq!(merged["metadata"]["labels"], json!({"app": "live", "new": "1"}));
    }
}

/// restore-semantics 5.10 step 4: nothing lacking is `skipped`; a refused patch is W, and with `update` the labels follow.
#[tokio::test(start_paused = true)]
async fn a_service_account_that_lacks_nothing_is_skipped_and_a_refused_merge_is_a_warning() {
    let has_more = account(&["pull", "own"], json!({"app": "live", "new": "2"}));
    let done = account_meets(&has_more, ExistingResourcePolicy::Unset, 0).await;
    assert!(done.is_clean());
    assert_eq!(done.listed(), ["v1/ServiceAccount shop/default(skipped)"]);
    assert_eq!(done.requested("patch"), [""; 0]);

    for (policy, refusals, patches, errors) in [
        (ExistingResourcePolicy::Unset, 1, 1, 0),
        (ExistingResourcePolicy::None, 1, 1, 0),
        (ExistingResourcePolicy::Update, 1, 2, 0),
        (ExistingResourcePolicy::Update, 2, 2, 1),
    ] {
        let done = account_meets(&account(&[], json!({})), policy, refusals).await;
        assert_eq!((done.warnings().len(), done.errors().len()), (1, errors), "{policy:?}");
        assert_eq!(done.requested("patch").len(), patches, "{policy:?}");
        assert_eq!(done.listed(), ["v1/ServiceAccount shop/default(failed)"]);
    }
}

/// restore-semantics 5.10 step 6: no status, no managedFields, no wait for what was there before.
#[tokio::test(start_paused = true)]
async fn nothing_follows_for_an_object_that_exists() {
    let status = json!({"conditions": []});
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "status": status,
        "metadata": {"name": "widgets.example.com", "managedFields": [{"manager": "kubectl"}]}, "spec": {"group": "example.com"}});
    let done = World::of(Backup::new().with(crd.clone()))
        .live(&crd)
        .spec(|spec| spec.restore_status = Some(crate::model::ResourceLists::default()))
        .run()
        .await;
    assert!(done.is_clean());
    assert_eq!(done.requests().len(), 2, "{:?}", done.requests());
    let kind = "apiextensions.k8s.io/v1/CustomResourceDefinition";
    assert_eq!(done.listed(), [format!("{kind} widgets.example.com(skipped)")]);
}

/// restore-semantics 5.10 step 2: what Velero takes through a Go type carries a `status` and is never equal; with `update` that
/// decides what is written.
#[tokio::test(start_paused = true)]
async fn kinds_that_pass_through_a_go_type_are_never_equal_with_the_policy_update() {
    for (api_version, kind, updated) in [
        ("v1", "Pod", true),
        ("v1", "Service", true),
        ("v1", "PersistentVolumeClaim", true),
        ("batch/v1", "Job", true),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", true),
        ("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition", false),
        ("apps/v1", "Deployment", false),
        ("v1", "Secret", false),
    ] {
        let mut object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x.example.com"}, "spec": {}});
        if kind != "CustomResourceDefinition" {
            object["metadata"]["namespace"] = json!("shop");
        }
        let done = World::of(Backup::new().with(object.clone()))
            .live(&namespace("shop"))
            .live(&object)
            .spec(|spec| spec.existing_resource_policy = ExistingResourcePolicy::Update)
            .run()
            .await;
        let listed = done.listed().pop().unwrap();
        assert!(listed.ends_with(if updated { "(updated)" } else { "(skipped)" }), "{listed}");
    }
}

/// velero-differences: transient-errors-are-retried: a create whose first answer was lost counts as created, and what follows a
/// create (restore-semantics 5.11) follows it.
#[tokio::test(start_paused = true)]
async fn a_create_whose_answer_was_lost_is_known_by_the_restore_label() {
    let mut backed_up = config("c");
    backed_up["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
    let lost = ApiError::transport(crate::engine::ports::ApiErrorKind::Connection, "connection reset");
    for (restore, listed) in [("r", "(created)"), ("another", "(skipped)")] {
        let mut stored = config("c");
        stored["metadata"]["labels"] = json!({"velero.io/restore-name": restore, "velero.io/backup-name": "b"});
        let done = World::of(Backup::new().with(backed_up.clone()))
            .live(&namespace("shop"))
            .refusing("create configmaps", 1, lost.clone())
            .meddled(move |request, objects| {
                if request.starts_with("create configmaps") {
                    let at = ("configmaps".to_owned(), "shop".to_owned(), "c".to_owned());
                    objects.entry(at).or_insert_with(|| stored.clone());
                }
            })
            .run()
            .await;
        assert!(done.is_clean());
        assert_eq!(done.listed(), [format!("v1/ConfigMap shop/c{listed}")]);
        assert_eq!(done.requested("create configmaps").len(), 2);
        assert_eq!(done.requested("patch").len(), usize::from(restore == "r"), "managedFields are put back");
    }
}

/// restore-semantics 5.9 step 5: a 500 may be all there is to hear about a namesake, which is looked for before any other try.
#[tokio::test(start_paused = true)]
async fn a_create_that_fails_inside_the_server_looks_for_a_namesake_first() {
    let internal = ApiError::status(500, "InternalError", "port is already allocated");
    let done = meets(&different(), ExistingResourcePolicy::Unset, &[("create configmaps", internal.clone())]).await;
    assert_eq!((done.warnings().len(), done.requested("create configmaps").len()), (1, 1));
    let world = World::of(Backup::new().with(config("c"))).live(&namespace("shop"));
    let done = world.refusing("create configmaps", 1, internal).run().await;
    assert!(done.is_clean() && done.requested("create configmaps").len() == 2, "without one it passes");
}
