//! Observe mode: Velero restores, Reprise reports and writes nothing. Velero is played by the test, which writes what
//! Velero writes (restore-semantics 6.2 and 6.3).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use http::Method;
use reprise::api::grpc::pb;
use reprise::api::grpc::pb::restore_event::Event;
use reprise::app::Options;
use reprise::model::{Bucket, Finding, Results, Severity};
use reprise::storage::files;
use reprise::velero::restore::FINALIZER;
use serde_json::{Value, json};

use super::client::{Fate, tampered};
use super::served::{PATIENCE, Served, until};
use super::world::{World, config_maps};
use crate::support;

/// A user who may do what the manifest for observe mode allows, and nothing else.
const OBSERVER: &str = "reprise-observer";

/// Gives the observer the rights of `deploy/observe/role.yaml`.
async fn allow_observing(world: &World) {
    let file = support::tests_dir().join("../deploy/observe/role.yaml");
    let role: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}", world.namespace());
    world.create(&format!("{path}/roles"), &role).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reprise"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reprise"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OBSERVER}],
    });
    world.create(&format!("{path}/rolebindings"), &binding).await;
}

/// The requests that were tried and would have written.
type Writes = Arc<Mutex<Vec<String>>>;

/// A service that observes, and what it tries to write.
async fn observe(world: &World, client: &kube::Client) -> (Served, Writes) {
    let writes = Writes::default();
    let seen = Arc::clone(&writes);
    let client = tampered(client, move |method, path| {
        if method != Method::GET {
            seen.lock().unwrap().push(format!("{method} {path}"));
        }
        Fate::Pass
    });
    (Served::start(Options { observe: true, ..world.options(client) }).await, writes)
}

fn restore(name: &str) -> Value {
    json!({
        "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": name, "finalizers": [FINALIZER]},
        "spec": {"backupName": "nightly"},
    })
}

/// What Velero writes into a Restore.
async fn velero_writes(world: &World, name: &str, status: Value) {
    let path = world.velero(&format!("restores/{name}?fieldManager=velero-server"));
    world.ask(Method::PATCH, &path, Some(&json!({"status": status}))).await.unwrap();
}

/// The progress over REST when this holds of it.
async fn shown(served: &Served, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/v1/restores/{name}/progress");
    let found = until(what, async || {
        let (code, progress) = served.get(&path).await;
        (code == 200 && holds(&progress)).then_some(progress)
    });
    found.await
}

fn numbers(progress: &Value) -> (u64, u64) {
    (progress["itemsRestored"].as_u64().unwrap(), progress["totalItems"].as_u64().unwrap())
}

/// The files that Velero leaves (restore-semantics 9.1).
fn put_files(world: &World, name: &str) {
    let list = BTreeMap::from([
        ("v1/ConfigMap".to_owned(), vec!["shop/a(created)".to_owned(), "shop/b(failed)".to_owned()]),
        ("v1/Namespace".to_owned(), vec!["shop(created)".to_owned()]),
    ]);
    let mut results = Results::default();
    let bucket = Bucket::Namespace("shop".to_owned());
    results.add(Finding { severity: Severity::Warning, bucket, message: "could not restore, it differs".to_owned() });
    let file = |suffix: &str| format!("restores/{name}/restore-{name}-{suffix}");
    world.put(&file("resource-list.json.gz"), &files::resource_list(&list).unwrap());
    world.put(&file("results.gz"), &files::results(&results).unwrap());
    world.put(&file("logs.gz"), &files::log(&b"level=info msg=first\nlevel=info msg=last\n"[..]).unwrap());
}

/// The progresses of a stream, and how it ended.
fn told(events: &[pb::RestoreEvent]) -> Vec<pb::Progress> {
    let progress = |event: &pb::RestoreEvent| match event.event.clone()? {
        Event::Snapshot(restore) | Event::Ended(restore) => restore.progress,
        Event::Progress(progress) => Some(progress),
        _ => None,
    };
    events.iter().filter_map(progress).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_by_velero_is_told_from_begin_to_end_with_rights_to_read_only() {
    let Some(world) = World::cluster("observe").await else { return };
    allow_observing(&world).await;
    world.add_backup("nightly", &config_maps("shop", 3)).await;
    let (served, writes) = observe(&world, &world.client_as(OBSERVER).await).await;
    world.create(&world.velero("restores"), &restore("nightly")).await;
    let queued = shown(&served, "nightly", "it is known", |_| true).await;
    assert_eq!((&queued["phase"], &queued["stage"]), (&json!("New"), &json!("queued")));

    let sse = reqwest::get(served.url("/api/v1/restores/nightly/events")).await.unwrap();
    let sse = tokio::spawn(sse.text());
    let request = pb::WatchRestoreRequest { name: "nightly".to_owned(), after_sequence: None };
    let stream = served.grpc().await.watch_restore(request).await.unwrap().into_inner();
    let stream = tokio::spawn(stream.map(Result::unwrap).collect::<Vec<_>>());
    let cli = tokio::process::Command::new(env!("CARGO_BIN_EXE_reprise"))
        .args(["restore", "watch", "nightly", "--server", &served.url("")])
        .kill_on_drop(true)
        .output();
    let cli = tokio::spawn(cli);

    velero_writes(&world, "nightly", json!({"phase": "InProgress", "startTimestamp": "2026-01-01T00:00:00Z"})).await;
    let begun = shown(&served, "nightly", "it began", |progress| progress["phase"] == "InProgress").await;
    assert_eq!((&begun["stage"], &begun["startedAt"]), (&json!("collecting"), &json!("2026-01-01T00:00:00Z")));

    // Velero's total rises with additional items, and falls with items that are left out.
    for (restored, total) in [(3, 40), (12, 43), (20, 38), (31, 38), (38, 38)] {
        velero_writes(&world, "nightly", json!({"progress": {"itemsRestored": restored, "totalItems": total}})).await;
        let progress = shown(&served, "nightly", "the numbers", |told| numbers(told) == (restored, total)).await;
        assert_eq!((&progress["stage"], progress.get("outcomes")), (&json!("items"), None), "{progress}");
        assert!(progress["percent"].as_u64().unwrap() < 100, "{progress}");
        assert!(progress["lastProgressAt"].is_string(), "{progress}");
    }
    // Nobody knows single items yet, and that is said; the log is waited for.
    for path in ["items", "items?outcome=failed", "logs"] {
        let (code, problem) = served.get(&format!("/api/v1/restores/nightly/{path}")).await;
        assert_eq!((code, &problem["code"]), (409, &json!("FAILED_PRECONDITION")), "{path}: {problem}");
    }
    let log = reqwest::get(served.url("/api/v1/restores/nightly/logs?follow=true")).await.unwrap();
    assert_eq!(served.results("nightly").await, pb::RestoreResults::default());

    put_files(&world, "nightly");
    velero_writes(&world, "nightly", json!({"phase": "Finalizing", "warnings": 1})).await;
    let finalizing = shown(&served, "nightly", "finalizing", |told| told["stage"] == "finalizing").await;
    assert_eq!((&finalizing["warnings"], &finalizing["percent"]), (&json!(1), &json!(99)));
    let end = json!({"phase": "Completed", "completionTimestamp": "2026-01-01T00:01:30Z", "hookStatus": {}});
    velero_writes(&world, "nightly", end).await;

    let events = tokio::time::timeout(PATIENCE, stream).await.expect("the stream ends").unwrap();
    assert!(matches!(events.first().unwrap().event, Some(Event::Snapshot(_))), "{events:?}");
    let Some(Event::Ended(ended)) = events.last().unwrap().event.clone() else { panic!("no end: {events:?}") };
    let progress = told(&events);
    assert!(progress.windows(2).all(|pair| pair[0].items_restored <= pair[1].items_restored), "{progress:#?}");
    assert!(progress.windows(2).all(|pair| pair[0].percent <= pair[1].percent), "{progress:#?}");
    let (last, before) = progress.split_last().unwrap();
    assert!(before.iter().all(|value| value.percent < 100 && value.outcomes.is_none_or(|none| none.created == 0)));
    assert_eq!((last.percent, last.items_restored, last.total_items, last.outcomes), (100, 38, 38, None));
    assert_eq!(last.elapsed.unwrap().seconds, 90, "it took as long as its object says");
    assert_eq!((ended.phase(), ended.warnings, ended.errors), (pb::Phase::Completed, 1, 0));
    let sse = sse.await.unwrap().unwrap();
    let names: Vec<&str> = sse.lines().filter_map(|line| line.strip_prefix("event:")).map(str::trim).collect();
    assert_eq!((names.first(), names.last()), (Some(&"snapshot"), Some(&"ended")), "{names:?}");

    let cli = tokio::time::timeout(PATIENCE, cli).await.expect("the command line ends").unwrap().unwrap();
    let shown = String::from_utf8_lossy(&cli.stdout);
    assert!(cli.status.success(), "{cli:?}");
    for part in ["Restore nightly completed after 1 m 30 s: 38 items", "v1/ConfigMap shop/b", "1 warning:"] {
        assert!(shown.contains(part) && !shown.contains("created 0"), "{part} is not in {shown}");
    }

    // From here on the files tell.
    let items = served.items("nightly", &[]).await;
    let items: Vec<_> = items.iter().map(|item| (item.name.as_str(), item.outcome())).collect();
    let (created, failed) = (pb::Outcome::Created, pb::Outcome::Failed);
    assert_eq!(items, [("a", created), ("b", failed), ("shop", created)]);
    let results = served.results("nightly").await;
    assert!(results.complete && results.warnings.len() == 1 && results.errors.is_empty(), "{results:?}");
    let log = log.text().await.unwrap();
    assert!(log.contains("msg=first") && log.contains("msg=last"), "{log}");
    let again = reqwest::get(served.url("/api/v1/restores/nightly/logs")).await.unwrap().text().await.unwrap();
    assert_eq!(again.lines().count(), 2);

    // Nothing was written, nor tried: the rights alone would not show an attempt.
    assert_eq!(*writes.lock().unwrap(), [""; 0]);
    let object = world.restore("nightly").await;
    let fields = object["metadata"]["managedFields"].as_array().unwrap();
    assert!(fields.iter().all(|of| of["manager"] != "reprise"), "{fields:?}");
    assert_eq!(world.keys("restores/").len(), 3);
    let metrics = served.admin("/metrics").await;
    for line in ["velero_restore_total 1", "reprise_restores_running 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    assert!(metrics.contains(r#"reprise_restore_duration_seconds_count{phase="Completed"} 1"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_velero_does_not_do_is_not_done_either() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 3)).await;
    let (served, writes) = observe(&world, &world.client).await;
    // Without its finalizer, not valid, and new: all that the executing controller would write to.
    let mut bare = restore("bare");
    bare["metadata"]["finalizers"] = json!([]);
    let mut wrong = restore("wrong");
    wrong["spec"] = json!({});
    for object in [&restore("again"), &bare, &wrong] {
        world.create(&world.velero("restores"), object).await;
    }
    for name in ["again", "bare", "wrong"] {
        let progress = shown(&served, name, "it is known", |_| true).await;
        assert_eq!((&progress["phase"], &progress["stage"]), (&json!("New"), &json!("queued")));
    }
    let before = world.restore("bare").await;
    assert_eq!(served.get("/api/v1").await.1["observing"], true);

    // What writes is refused, and says the way out.
    let refused = served.post(&json!({"name": "mine", "spec": {"backupName": "nightly"}})).await;
    let (code, problem): (_, Value) = (refused.status(), refused.json().await.unwrap());
    assert_eq!((code.as_u16(), &problem["code"]), (409, &json!("FAILED_PRECONDITION")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("only observes"), "{problem}");
    let request = pb::CreateRestoreRequest {
        name: "mine".into(),
        spec: Some(pb::RestoreSpec { backup_name: "nightly".into(), ..Default::default() }),
        ..Default::default()
    };
    let status = served.grpc().await.create_restore(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");

    // Deleting waits for Velero, whose finalizer it is; when the object is gone, its streams say so.
    let path = world.velero("restores/again");
    let request = pb::WatchRestoreRequest { name: "again".to_owned(), after_sequence: None };
    let stream = served.grpc().await.watch_restore(request).await.unwrap().into_inner();
    world.ask(Method::DELETE, &path, None).await.unwrap();
    // What is written to another one later is seen, so this was seen as well.
    velero_writes(&world, "wrong", json!({"phase": "FailedValidation", "validationErrors": ["no backup"]})).await;
    shown(&served, "wrong", "it is refused", |told| told["phase"] == "FailedValidation").await;
    assert_eq!(served.get("/api/v1/restores/again").await.0, 200);
    assert!(world.get(&path).await.is_some(), "the finalizer is Velero's to take away");
    world.ask(Method::PATCH, &path, Some(&json!({"metadata": {"finalizers": []}}))).await.unwrap();
    let events = tokio::time::timeout(PATIENCE, stream.map(Result::unwrap).collect::<Vec<_>>());
    let events = events.await.expect("the stream ends");
    assert!(matches!(events.last().unwrap().event, Some(Event::Deleted(_))), "{events:?}");
    assert_eq!(served.get("/api/v1/restores/again").await.0, 404);

    served.stop().await;
    assert_eq!(*writes.lock().unwrap(), [""; 0]);
    assert_eq!(world.restore("bare").await, before);
    assert_eq!(world.keys("restores/"), [""; 0]);
    assert!(world.get("/api/v1/namespaces/shop").await.is_none());
}
