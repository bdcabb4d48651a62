//! What only a real API server does: its own speed, and its own refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use http::Method;
use reprise::api::grpc::pb;
use reprise::api::grpc::pb::restore_event::Event;
use reprise::archive::testing::Backup;
use serde_json::{Value, json};

use super::served::until;
use super::world::{World, files_of};
use crate::support::{self, random_suffix};

/// The counts of `status.progress`.
type Counts = (u64, u64);

fn progress_of(restore: &Value) -> Counts {
    let count = |key: &str| restore["status"]["progress"][key].as_u64().unwrap_or_default();
    (count("totalItems"), count("itemsRestored"))
}

/// The events of an SSE stream: their names and data.
fn parse(text: &str) -> Vec<(String, Value)> {
    let blocks = text.split("\n\n").map(|block| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        (field("event:").to_owned(), serde_json::from_str(field("data:")).unwrap_or_default())
    });
    blocks.filter(|(event, _)| !event.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_fifty_namespaces_is_restored_and_all_who_watch_see_the_same() {
    let Some(world) = World::cluster("b50").await else { return };
    world.put_folder(&support::tests_dir().join("data/b50"), "backups/b50");
    world.add_backup_object("b50", "default").await;
    let served = world.serve().await;
    let restore = json!({
        "apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "b50"}, "spec": {"backupName": "b50"},
    });
    world.create(&world.velero("restores"), &restore).await;
    let began = Instant::now();
    until("the service knows it", async || (served.get("/api/v1/restores/b50").await.0 == 200).then_some(())).await;
    let sse = reqwest::get(served.url("/api/v1/restores/b50/events")).await.unwrap();
    let sse = tokio::spawn(async move { parse(&sse.text().await.unwrap()) });
    let watched = served.watched("b50");
    let (written, watched) = tokio::join!(written_progress(&world), watched);
    let took = began.elapsed();
    let sse = sse.await.unwrap();

    let Some(Event::Ended(ended)) = watched.last().and_then(|last| last.event.clone()) else { panic!("no end") };
    let progress = ended.progress.clone().unwrap();
    let items = progress.items_restored;
    support::tools::say(&format!(
        "b50 on the real API server: {items} items in {:.1} s, {:.0} items/s ({:?}, {} warnings, {} errors)",
        took.as_secs_f64(),
        items as f64 / took.as_secs_f64(),
        ended.phase(),
        ended.warnings,
        ended.errors,
    ));
    let failed = served.items("b50", &[pb::Outcome::Failed]).await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Completed, 0), "{failed:#?}");

    // The object: progress moved while it ran, never backwards, and ends where the streams end.
    let last = (progress.total_items, progress.items_restored);
    assert_eq!(written.last(), Some(&last));
    assert_eq!(last.0, last.1, "at the end all there is to restore is restored");
    assert!(written.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{written:?}");
    let between = written.iter().filter(|(_, restored)| *restored > 0 && *restored < last.1).count();
    assert!(between > 0 || took < Duration::from_secs(3), "status.progress did not move: {written:?}");
    let restore = world.restore("b50").await;
    let count = |key: &str| restore["status"].get(key).map_or(0, |count| count.as_u64().unwrap());
    assert_eq!((count("warnings"), count("errors")), (ended.warnings, ended.errors));

    // SSE and gRPC: the same end, and each item once.
    let (event, data) = sse.last().unwrap();
    assert_eq!(event, "ended");
    let told = &data["restore"]["progress"];
    assert_eq!((told["totalItems"].as_u64(), told["itemsRestored"].as_u64()), (Some(last.0), Some(last.1)));
    let outcomes = progress.outcomes.unwrap();
    assert_eq!(told["outcomes"]["created"], json!(outcomes.created));
    assert_eq!((&told["outcomes"]["failed"], &told["outcomes"]["pending"]), (&json!(outcomes.failed), &json!(0)));
    let by_grpc = told_items(watched.iter().filter_map(|event| match &event.event {
        Some(Event::Item(item)) => Some(u64::from(item.id)),
        _ => None,
    }));
    let by_sse = told_items(
        sse.iter().filter(|(event, _)| event == "item").map(|(_, data)| data["item"]["id"].as_u64().unwrap()),
    );
    let snapshot = |told: &BTreeSet<u64>| told.len();
    assert!(snapshot(&by_grpc) > 0 && snapshot(&by_sse) > 0);
    let restored_counts: Vec<u64> = watched
        .iter()
        .filter_map(|event| match &event.event {
            Some(Event::Progress(progress)) => Some(progress.items_restored),
            _ => None,
        })
        .collect();
    assert!(restored_counts.is_sorted(), "{restored_counts:?}");

    assert_eq!(world.keys("restores/b50/"), files_of("b50"));
    let list = world.json("b50", "resource-list.json.gz");
    let listed: BTreeMap<String, usize> =
        list.as_object().unwrap().iter().map(|(kind, all)| (kind.clone(), all.as_array().unwrap().len())).collect();
    assert_eq!((listed["v1/ConfigMap"], listed["apps/v1/Deployment"], listed["v1/Namespace"]), (2050, 500, 50));
    assert_eq!(world.names("/apis/shop.example.com/v1/widgets").await.len(), 500, "custom resources are there as well");
    served.stop().await;
}

/// No item is told twice.
fn told_items(ids: impl Iterator<Item = u64>) -> BTreeSet<u64> {
    let mut told = BTreeSet::new();
    for id in ids {
        assert!(told.insert(id), "item {id} is told twice");
    }
    told
}

/// Every value of `status.progress` that could be seen, until the restore has ended.
async fn written_progress(world: &World) -> Vec<Counts> {
    let mut seen: Vec<Counts> = Vec::new();
    loop {
        let restore = world.restore("b50").await;
        let counts = progress_of(&restore);
        if seen.last() != Some(&counts) {
            seen.push(counts);
        }
        if restore["status"].get("completionTimestamp").is_some() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A quota for Secrets that is used up, and a policy that takes no ConfigMap with the key `forbidden`.
pub(super) async fn strict_namespace(world: &World, namespace: &str) {
    world
        .create(
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        )
        .await;
    let hard = json!({"count/secrets": "0"});
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "strict"}, "spec": {"hard": hard},
    });
    let quotas = format!("/api/v1/namespaces/{namespace}/resourcequotas");
    world.create(&quotas, &quota).await;
    // What a controller-manager would count.
    let used = json!({"status": {"hard": hard, "used": {"count/secrets": "0"}}});
    world.ask(Method::PATCH, &format!("{quotas}/strict/status"), Some(&used)).await.unwrap();
    let rules = json!([{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
    }]);
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": rules, "namespaceSelector": selector},
            "validations": [{
                "expression": "!has(object.data) || !('forbidden' in object.data)", "message": "no forbidden keys",
            }],
        },
    });
    world.create("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", &policy).await;
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace}, "spec": {"policyName": namespace, "validationActions": ["Deny"]},
    });
    world.create("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", &binding).await;
    let probes = [
        (
            "configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}, "data": {"forbidden": ""}}),
        ),
        ("secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}})),
    ];
    for (resource, probe) in probes {
        let path = format!("/api/v1/namespaces/{namespace}/{resource}?dryRun=All");
        until("quota and policy are in force", async || {
            world.ask(Method::POST, &path, Some(&probe)).await.is_err().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_is_failed_with_its_reason_and_the_rest_is_restored() {
    let Some(world) = World::cluster("refused").await else { return };
    let namespace = format!("strict-{}", random_suffix());
    strict_namespace(&world, &namespace).await;
    let meta = |name: &str| json!({"name": name, "namespace": namespace});
    let backup = Backup::new().with_all([
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("fine"), "data": {"a": "b"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("denied"), "data": {"forbidden": "x"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("too-many")}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("fine")}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("invalid"), "spec": {"ports": [{"port": 70000}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("fine"), "spec": {"ports": [{"port": 80}]}}),
        json!({"apiVersion": "shop.example.org/v1", "kind": "Unknown", "metadata": meta("unserved")}),
    ]);
    world.add_backup("nightly", &backup).await;
    let served = world.serve().await;
    let ended = served.run("nightly").await;
    let failed = served.items("nightly", &[pb::Outcome::Failed]).await;
    let failed: BTreeMap<&str, (pb::Reason, &str)> =
        failed.iter().map(|item| (item.name.as_str(), (item.reason(), item.message()))).collect();
    for (name, reason, text) in [
        ("denied", pb::Reason::DeniedByAdmission, "no forbidden keys"),
        ("too-many", pb::Reason::Quota, "exceeded quota: strict"),
        ("invalid", pb::Reason::Invalid, "70000"),
        ("unserved", pb::Reason::Discovery, ""),
    ] {
        let Some((found, message)) = failed.get(name) else { panic!("{name} is not among {failed:#?}") };
        assert_eq!(*found, reason, "{name}: {message}");
        assert!(message.contains(text), "{name}: {message}");
    }
    assert_eq!(failed.len(), 4, "{failed:#?}");
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 4), "{ended:?}");
    let reasons: Vec<(pb::Reason, u64)> =
        ended.progress.unwrap().failures.iter().map(|failure| (failure.reason(), failure.count)).collect();
    assert_eq!(reasons.iter().map(|(_, count)| count).sum::<u64>(), 4, "{reasons:?}");
    for path in ["configmaps/fine", "serviceaccounts/fine", "services/fine"] {
        let path = format!("/api/v1/namespaces/{namespace}/{path}");
        assert!(world.get(&path).await.is_some(), "{path} is not restored");
    }
    let results = world.json("nightly", "results.gz");
    assert_eq!(results["errors"]["namespaces"][&namespace].as_array().map(Vec::len), Some(4), "{results}");
    for kind in ["validatingadmissionpolicybindings", "validatingadmissionpolicies"] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}/{namespace}");
        world.ask(Method::DELETE, &path, None).await.unwrap();
    }
    let _ = world.ask(Method::DELETE, &format!("/api/v1/namespaces/{namespace}"), None).await;
}
