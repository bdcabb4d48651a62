//! Faults between the parts: a proxy before the real API server and one before S3, and an API server that goes away. Whatever
//! befalls the requests, the end is that of a run that nobody disturbed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use reprise::api::grpc::pb;
use reprise::api::grpc::pb::restore_event::Event;
use reprise::archive::testing::Backup;
use serde_json::{Value, json};

use super::client::slow;
use super::served::{Served, until};
use super::world::{World, files_of};
use crate::support::proxy::{Asked, Fault, Proxy, Server, dice, mixed};
use crate::support::{self, ControlPlane, Options, random_suffix};

/// Items of a namespace, of each of four kinds.
fn items_of_a_kind() -> usize {
    std::env::var("REPRISE_FAULT_ITEMS").ok().and_then(|items| items.parse::<usize>().ok()).unwrap_or(120) / 8
}

fn seeds() -> Vec<u64> {
    let seeds = std::env::var("REPRISE_FAULT_SEEDS").unwrap_or_else(|_| "1,2".to_owned());
    seeds.split(',').filter_map(|seed| seed.trim().parse().ok()).collect()
}

/// Namespaces, a definition with its objects, and four plain kinds; all of them named for the run, so that runs do not meet.
fn backup(run: &str) -> Backup {
    let group = format!("{run}.example.com");
    let spec = json!({
        "group": group, "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        }}}],
    });
    let mut backup = Backup::new().with(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")}, "spec": spec,
    }));
    for namespace in ["shop", "bank"] {
        let namespace = format!("{namespace}-{run}");
        backup = backup.with(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"team": "a"}},
        }));
        for number in 0..items_of_a_kind() {
            let meta = json!({"name": format!("item-{number:04}"), "namespace": namespace, "labels": {"app": "a"}});
            let port = json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]);
            backup = backup.with_all([
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"n": number.to_string()}}),
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "data": {"a": "Yg=="}}),
                json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"clusterIP": "None", "ports": port}}),
                json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": meta, "spec": {"n": number}}),
            ]);
        }
    }
    backup
}

/// How many objects that is.
fn objects() -> usize {
    3 + 8 * items_of_a_kind()
}

/// Everything that a run left, without what differs each time.
async fn left_by(world: &World, run: &str) -> Vec<String> {
    let mut paths = vec![format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.{run}.example.com")];
    for namespace in ["shop", "bank"] {
        paths.push(format!("/api/v1/namespaces/{namespace}-{run}"));
        for kind in ["configmaps", "secrets", "services"] {
            paths.push(format!("/api/v1/namespaces/{namespace}-{run}/{kind}"));
        }
        paths.push(format!("/apis/{run}.example.com/v1/namespaces/{namespace}-{run}/widgets"));
    }
    let mut left = Vec::new();
    for path in paths {
        let found = world.get(&path).await.unwrap_or_else(|| panic!("{path} is not restored"));
        let all = match found.get("items") {
            Some(Value::Array(items)) => items.clone(),
            _ => vec![found],
        };
        for mut object in all {
            object.as_object_mut().unwrap().remove("status");
            let metadata = object["metadata"].as_object_mut().unwrap();
            for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
                metadata.remove(field);
            }
            left.push(object.to_string().replace(run, "RUN"));
        }
    }
    left
}

/// What can be seen of the end of a restore, and must be the same however it was disturbed.
#[derive(Debug, PartialEq)]
struct End {
    phase: pb::Phase,
    warnings: u64,
    errors: u64,
    outcomes: Option<pb::Counts>,
    left: Vec<String>,
    files: usize,
}

async fn begin(world: &World, run: &str) {
    world.add_backup(run, &backup(run)).await;
    let restore = json!({
        "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": run}, "spec": {"backupName": run},
    });
    world.create(&world.velero("restores"), &restore).await;
}

/// Follows a restore to its end; counts never fall meanwhile, and are right at each moment.
async fn followed(world: &World, served: &Served, run: &str) -> End {
    let path = format!("/api/v1/restores/{run}");
    until("the service knows it", async || (served.get(&path).await.0 == 200).then_some(())).await;
    let events = served.watched(run).await;
    let mut seen = (0, 0);
    for event in &events {
        if let Some(Event::Progress(progress)) = &event.event {
            let next = (progress.total_items, progress.items_restored);
            assert!(next.0 >= seen.0 && next.1 >= seen.1, "{next:?} after {seen:?}");
            seen = next;
        }
    }
    let Some(Event::Ended(ended)) = events.last().and_then(|last| last.event.clone()) else { panic!("no end") };
    if ended.phase() != pb::Phase::Completed {
        let failed = served.items(run, &[pb::Outcome::Failed]).await;
        panic!("{ended:#?}\n{:#?}\n{:#?}", &failed[..failed.len().min(5)], served.results(run).await);
    }
    let progress = ended.progress.clone().unwrap();
    assert_eq!((progress.total_items, progress.items_restored), (objects() as u64, objects() as u64));
    let written = world.restore(run).await["status"].take();
    assert_eq!(written["phase"], "Completed", "{written}");
    let counts = json!({"totalItems": objects(), "itemsRestored": objects()});
    assert_eq!(written["progress"], counts, "what is written and what is streamed end alike");
    assert_eq!(world.keys(&format!("restores/{run}/")), files_of(run));
    End {
        phase: ended.phase(),
        warnings: ended.warnings,
        errors: ended.errors,
        outcomes: progress.outcomes,
        left: left_by(world, run).await,
        files: files_of(run).len(),
    }
}

/// Takes away what a run left, so that the shared API server does not fill.
async fn clean(world: &World, run: &str) {
    let definition = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.{run}.example.com");
    let _ = world.ask(Method::DELETE, &definition, None).await;
    for namespace in ["shop", "bank"] {
        let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}-{run}"), None).await;
    }
}

fn run_name(class: &str) -> String {
    format!("{class}-{}", random_suffix())
}

async fn undisturbed(world: &World) -> End {
    let run = run_name("calm");
    let served = world.serve().await;
    begin(world, &run).await;
    let end = followed(world, &served, &run).await;
    served.stop().await;
    clean(world, &run).await;
    end
}

/// Runs a restore through a proxy with this rule; its end must be `calm`.
async fn disturbed(
    world: &World,
    class: &str,
    calm: &End,
    rule: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static,
) {
    let begun = Instant::now();
    let run = run_name(class);
    let proxy = Proxy::start(Server::Kubernetes(world.client.clone()), rule).await;
    let served = world.serve_through(proxy.client()).await;
    begin(world, &run).await;
    let end = followed(world, &served, &run).await;
    assert_eq!(&end, calm, "{class}: {:#?}", served.results(&run).await);
    let created = proxy.created();
    let twice: BTreeMap<_, _> = created.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{class}: created twice: {twice:?}");
    assert_eq!(created.len(), objects(), "{class}");
    let faults = proxy.faults();
    assert!(faults.values().sum::<usize>() > 0, "{class}: nothing was disturbed");
    let tried = served.items(&run, &[pb::Outcome::Created]).await.iter().filter(|item| item.attempts > 1).count();
    support::tools::say(&format!(
        "faults, {class}: {} items in {:.1} s, {tried} of them tried more than once; {faults:?}",
        objects(),
        begun.elapsed().as_secs_f64(),
    ));
    served.stop().await;
    clean(world, &run).await;
}

/// velero-differences: transient-errors-are-retried
#[tokio::test(flavor = "multi_thread")]
async fn each_class_of_fault_before_the_api_server_leaves_the_same_end() {
    let Some(world) = World::cluster("faults").await else { return };
    let calm = undisturbed(&world).await;
    assert_eq!((calm.phase, calm.errors), (pb::Phase::Completed, 0));
    let every = |number: u64, fault: Fault| move |asked: &Asked| (asked.nth % number == 1).then_some(fault);
    disturbed(&world, "late", &calm, every(3, Fault::Late(Duration::from_millis(80)))).await;
    disturbed(&world, "dropped", &calm, every(4, Fault::Dropped)).await;
    disturbed(&world, "lost", &calm, |asked| {
        (asked.writes() && asked.nth.is_multiple_of(3)).then_some(Fault::AnswerLost)
    })
    .await;
    disturbed(&world, "cut", &calm, every(4, Fault::Cut(30))).await;
    disturbed(&world, "short", &calm, |asked| (!asked.is_watch() && asked.nth % 4 == 1).then_some(Fault::Short(30)))
        .await;
}

/// velero-differences: transient-errors-are-retried
#[tokio::test(flavor = "multi_thread")]
async fn each_class_of_refusal_by_the_api_server_leaves_the_same_end() {
    let Some(world) = World::cluster("refusals").await else { return };
    let calm = undisturbed(&world).await;
    let every = |number: u64, fault: Fault| move |asked: &Asked| (asked.nth % number == 1).then_some(fault);
    disturbed(&world, "busy", &calm, every(8, Fault::Refused(429, Some(1)))).await;
    disturbed(&world, "inner", &calm, every(4, Fault::Refused(500, None))).await;
    disturbed(&world, "away", &calm, every(4, Fault::Refused(503, None))).await;
    disturbed(&world, "watch", &calm, |asked| {
        let fault = [Fault::Cut(400), Fault::Expired, Fault::Dropped][usize::try_from(asked.nth % 3).unwrap()];
        // Each third one gets through.
        (asked.is_watch() && !dice(7, asked.nth).is_multiple_of(3)).then_some(fault)
    })
    .await;
    // Longer than all else waits for a definition: its objects come last, and come.
    disturbed(&world, "definition", &calm, |asked| {
        let fault = Fault::Late(Duration::from_secs(12));
        (asked.path.ends_with("/customresourcedefinitions") && asked.method == Method::GET).then_some(fault)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_all_classes_together_leave_the_same_end() {
    let Some(world) = World::cluster("mixed").await else { return };
    let calm = undisturbed(&world).await;
    for seed in seeds() {
        disturbed(&world, &format!("seed{seed}"), &calm, move |asked| mixed(seed, asked)).await;
    }
}

/// velero-differences: transient-errors-are-retried
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_stopped_and_started_in_mid_restore_costs_nothing() {
    if !support::cluster_tests_enabled() {
        return;
    }
    let started = tokio::task::spawn_blocking(|| ControlPlane::start(Options::default()).map(Arc::new)).await.unwrap();
    let cluster = started.unwrap_or_else(|why| panic!("no control plane: {why}"));
    let world = World::on(Arc::clone(&cluster), "restart").await;
    let calm = undisturbed(&world).await;
    let run = run_name("again");
    let served = world.serve_through(slow(&world.client, Duration::from_millis(150))).await;
    begin(&world, &run).await;
    let path = format!("/api/v1/restores/{run}");
    let done = until("some items are restored", async || {
        let (_, view) = served.get(&path).await;
        view["progress"]["itemsRestored"].as_u64().filter(|&done| done > 5)
    })
    .await;
    assert!(done < objects() as u64, "the restore was too fast to be disturbed");
    let away = Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || {
        away.stop_apiserver();
        std::thread::sleep(Duration::from_secs(2));
        away.start_apiserver()
    })
    .await
    .unwrap()
    .unwrap();
    let (code, view) = served.get(&path).await;
    assert_eq!((code, &view["phase"]), (200, &json!("InProgress")), "{view}");
    assert_eq!(followed(&world, &served, &run).await, calm, "{}", cluster.log_tails(20));
    served.stop().await;
}

/// A tarball that does not come in one piece, and files that are taken at the third try.
#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_break_off_and_uploads_that_fail_leave_the_same_end() {
    let Some(world) = World::cluster("storage").await else { return };
    let calm = undisturbed(&world).await;
    let run = run_name("s3");
    let (cuts, puts) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<BTreeMap<String, usize>>>::default());
    let (counted, tarball) = (Arc::clone(&cuts), format!("/{run}.tar.gz"));
    let proxy = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&proxy);
    world
        .put_before_storage(|url| async move {
            let front = Proxy::start(Server::Http(url), move |asked| match asked.method {
                Method::GET if asked.path.ends_with(&tarball) => match counted.fetch_add(1, Ordering::Relaxed) {
                    0 => Some(Fault::Refused(503, None)),
                    1 => Some(Fault::Cut(1000)),
                    2 => Some(Fault::Dropped),
                    3 => Some(Fault::Cut(700)),
                    _ => None,
                },
                Method::PUT => {
                    let mut puts = puts.lock().unwrap();
                    let times = puts.entry(asked.path.clone()).or_default();
                    *times += 1;
                    match *times {
                        1 => Some(Fault::Refused(500, None)),
                        2 => Some(Fault::AnswerLost),
                        _ => None,
                    }
                }
                Method::GET | Method::HEAD if asked.nth % 4 == 3 => Some(Fault::Refused(503, None)),
                _ => None,
            })
            .await;
            let url = front.url();
            *kept.lock().unwrap() = Some(front);
            url
        })
        .await;
    let served = world.serve().await;
    begin(&world, &run).await;
    let end = followed(&world, &served, &run).await;
    assert_eq!(end, calm, "{:#?}", served.results(&run).await);
    assert!(cuts.load(Ordering::Relaxed) >= 5, "the tarball was read on after each cut");
    let faults = proxy.lock().unwrap().as_ref().unwrap().faults();
    assert_eq!(faults["Cut"], 2, "{faults:?}");
    assert!(faults["AnswerLost"] >= 5, "{faults:?}");
    served.stop().await;
    clean(&world, &run).await;
}
