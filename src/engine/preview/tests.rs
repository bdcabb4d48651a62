//! Previews of restores into the sandbox, behind a cluster that takes no write.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::archive::ReadOptions;
use crate::archive::testing::Backup;
use crate::cluster::KubeCluster;
use crate::engine::discovery::Discovery;
use crate::engine::events::{Event, Events, Finished};
use crate::engine::ports::exec::NoExec;
use crate::engine::ports::{Change, Cluster};
use crate::engine::{run, strip};
use crate::model::{
    ExistingResourcePolicy, ItemId, ItemKey, Origin, Outcome, PlanAction, PlanEntry, PlanSummary, Reason, RestoreSpec,
    Target, label,
};
use crate::sample::{SampleOptions, write_backup};
use crate::sandbox::{Options as SandboxOptions, Sandbox};

/// What one verb, resource and namespace is refused with.
type Rules = HashMap<(&'static str, &'static str), ApiError>;

/// The sandbox: reads and dry runs pass, a write is the end of the test. Also refuses what it is told to.
struct Guard {
    inner: KubeCluster,
    /// Refusals of dry runs, by resource and name.
    refusals: Rules,
    /// Resources that must not be created.
    denied: BTreeSet<&'static str>,
    asked: Mutex<Vec<String>>,
}

impl Guard {
    fn new(sandbox: &Sandbox) -> Self {
        Self {
            inner: KubeCluster::new(sandbox.client()),
            refusals: Rules::new(),
            denied: BTreeSet::new(),
            asked: Mutex::default(),
        }
    }

    fn note(&self, text: String) {
        self.asked.lock().unwrap().push(text);
    }

    fn asked(&self, begin: &str) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|text| text.starts_with(begin)).cloned().collect()
    }
}

#[async_trait]
impl Cluster for Guard {
    async fn discovery(&self, refresh: bool) -> Result<Arc<Discovery>, ApiError> {
        self.inner.discovery(refresh).await
    }

    async fn get(&self, target: &Target, name: &str) -> Result<Option<Value>, ApiError> {
        self.inner.get(target, name).await
    }

    async fn list(&self, target: &Target, label_selector: &str) -> Result<Vec<Value>, ApiError> {
        self.inner.list(target, label_selector).await
    }

    async fn create(&self, target: &Target, _object: &Value) -> Result<Value, ApiError> {
        panic!("a preview creates {target:?}")
    }

    async fn merge_patch(&self, target: &Target, name: &str, _patch: &Value) -> Result<Value, ApiError> {
        panic!("a preview patches {target:?} {name}")
    }

    async fn delete(&self, target: &Target, name: &str) -> Result<(), ApiError> {
        panic!("a preview deletes {target:?} {name}")
    }

    async fn delete_collection(&self, target: &Target, _label_selector: &str) -> Result<(), ApiError> {
        panic!("a preview deletes all {target:?}")
    }

    async fn replace_status(&self, target: &Target, name: &str, _object: &Value) -> Result<Value, ApiError> {
        panic!("a preview writes the status of {target:?} {name}")
    }

    async fn openapi(&self, group: &str, version: &str) -> Result<Value, ApiError> {
        self.inner.openapi(group, version).await
    }

    fn watch<'a>(&'a self, target: &Target, name: Option<&str>) -> BoxStream<'a, Result<Change, ApiError>> {
        self.inner.watch(target, name)
    }
}

#[async_trait]
impl DryRun for Guard {
    async fn create_dry_run(&self, target: &Target, object: &Value) -> Result<Value, ApiError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        self.note(format!("create {} {name}", target.group_resource()));
        let refusal =
            self.refusals.iter().find(|((resource, refused), _)| *resource == target.resource && *refused == name);
        match refusal {
            Some((_, refusal)) => Err(refusal.clone()),
            None => self.inner.create_dry_run(target, object).await,
        }
    }

    async fn merge_patch_dry_run(&self, target: &Target, name: &str, patch: &Value) -> Result<Value, ApiError> {
        self.note(format!("patch {} {name}", target.group_resource()));
        self.inner.merge_patch_dry_run(target, name, patch).await
    }

    async fn may(&self, verb: &str, target: &Target) -> Result<bool, ApiError> {
        self.note(format!("may {verb} {} {}", target.group_resource(), target.namespace.as_deref().unwrap_or("*")));
        Ok(!self.denied.contains(target.resource.as_str()))
    }
}

fn job(name: &str, spec: RestoreSpec) -> Job {
    Job {
        restore_name: name.to_owned(),
        restore_uid: "11111111-2222-4333-8444-555555555555".to_owned(),
        velero_namespace: "velero".to_owned(),
        backup_name: "nightly".to_owned(),
        spec,
        ..Job::default()
    }
}

fn sample() -> Arc<Archive> {
    let folder = tempfile::tempdir().unwrap();
    let sample = write_backup(folder.path(), &SampleOptions { items: 300, ..SampleOptions::default() }).unwrap();
    Arc::new(Archive::read(std::fs::File::open(sample.tarball).unwrap(), &ReadOptions::default()).unwrap())
}

fn archive(objects: impl IntoIterator<Item = Value>) -> Arc<Archive> {
    Arc::new(Backup::new().with_all(objects).read(&ReadOptions::default()).unwrap())
}

fn object(kind: &str, namespace: &str, name: &str, more: &Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    crate::engine::merge::apply_merge_patch(&mut object, more);
    object
}

fn config(name: &str) -> Value {
    object("ConfigMap", "shop", name, &json!({"data": {"a": "b"}}))
}

async fn plan_with(
    guard: Arc<Guard>,
    archive: &Arc<Archive>,
    job: Job,
    dry_run: bool,
) -> (Vec<PlanEntry>, PlanSummary) {
    let steps = preview(job, Arc::clone(archive), guard, Options { dry_run }, CancellationToken::new());
    let steps: Vec<PlanStep> = steps.map(Result::unwrap).collect().await;
    let mut entries = Vec::new();
    let mut summary = None;
    for (place, step) in steps.into_iter().enumerate() {
        match step {
            PlanStep::Begun(_) => assert_eq!(entries.len(), place, "only what is left out comes before the begin"),
            PlanStep::Entry(entry) => entries.push(*entry),
            PlanStep::Ended(ended) => summary = Some(*ended),
        }
    }
    let summary = summary.unwrap();
    assert_eq!(summary.items, u64::try_from(entries.len()).unwrap());
    (entries, summary)
}

async fn plan(sandbox: &Sandbox, archive: &Arc<Archive>, spec: RestoreSpec) -> (Vec<PlanEntry>, PlanSummary) {
    plan_with(Arc::new(Guard::new(sandbox)), archive, job("second", spec), true).await
}

/// What became of each item.
#[derive(Default)]
struct Ends(Mutex<(HashMap<ItemId, ItemKey>, BTreeMap<String, Finished>)>);

impl Events for Ends {
    fn emit(&self, event: Event) {
        let mut state = self.0.lock().unwrap();
        match event {
            Event::Planned(items) => state.0.extend(items.into_iter().map(|item| (item.id, item.key))),
            Event::Added(item) => drop(state.0.insert(item.id, item.key)),
            Event::Finished(finished) => {
                let key = state.0[&finished.id].to_string();
                assert!(state.1.insert(key.clone(), finished).is_none(), "{key} ends twice");
            }
            _ => {}
        }
    }
}

async fn restore(sandbox: &Sandbox, archive: &Arc<Archive>, job: Job) -> (BTreeMap<String, Finished>, run::Report) {
    let (ends, cluster) = (Arc::new(Ends::default()), Arc::new(KubeCluster::new(sandbox.client())));
    let (job, stop) = (Arc::new(job), CancellationToken::new());
    let report = run::run(
        job,
        Arc::clone(archive),
        cluster,
        Arc::new(NoExec("a test runs nothing")),
        Arc::clone(&ends) as _,
        stop,
    )
    .await
    .unwrap();
    let ends = std::mem::take(&mut ends.0.lock().unwrap().1);
    (ends, report)
}

async fn patch(sandbox: &Sandbox, target: &Target, name: &str, patch: Value) {
    KubeCluster::new(sandbox.client()).merge_patch(target, name, &patch).await.unwrap();
}

/// A sandbox in which half of the sample is restored, and one of its ConfigMaps was changed since.
async fn half_restored(archive: &Arc<Archive>) -> (Sandbox, String) {
    let sandbox = Sandbox::new(SandboxOptions::default());
    let configmaps = crate::model::GroupResource::parse("configmaps");
    let namespace = archive.scopes(&configmaps).map(|(namespace, _)| namespace.to_owned()).next().unwrap();
    let entry = archive.scopes(&configmaps).next().unwrap().1.next().unwrap();
    let name = archive.entry(entry).name.to_owned();
    let half = RestoreSpec { included_namespaces: vec![namespace.clone()], ..RestoreSpec::default() };
    restore(&sandbox, archive, job("first", half)).await;
    let target = Target::new("", "v1", "configmaps", &namespace);
    patch(&sandbox, &target, &name, json!({"data": {"changed": "since"}})).await;
    (sandbox, format!("v1/ConfigMap {namespace}/{name}"))
}

#[tokio::test]
async fn the_restore_does_item_by_item_what_the_plan_said_and_the_plan_writes_nothing() {
    let archive = sample();
    for policy in [ExistingResourcePolicy::default(), ExistingResourcePolicy::Update] {
        let (sandbox, changed) = half_restored(&archive).await;
        let spec = RestoreSpec { existing_resource_policy: policy, ..RestoreSpec::default() };
        let (entries, summary) = plan(&sandbox, &archive, spec.clone()).await;
        let (ends, report) = restore(&sandbox, &archive, job("second", spec)).await;

        let planned: BTreeMap<String, &PlanEntry> =
            entries.iter().map(|entry| (entry.key.to_string(), entry)).collect();
        assert_eq!(planned.len(), entries.len(), "each item once");
        assert_eq!(planned.keys().collect::<Vec<_>>(), ends.keys().collect::<Vec<_>>());
        for (key, entry) in &planned {
            let end = &ends[key];
            let wanted = match entry.action {
                PlanAction::Create | PlanAction::Unknown => Outcome::Created,
                PlanAction::Update => Outcome::Updated,
                PlanAction::Unchanged => Outcome::Unchanged,
                PlanAction::Skip => Outcome::Skipped,
                PlanAction::Conflict | PlanAction::Forbidden | PlanAction::Invalid | PlanAction::Fail => {
                    Outcome::Failed
                }
            };
            assert_eq!(end.outcome, wanted, "{entry:?} {end:?}");
            if entry.action != PlanAction::Unknown && end.outcome != Outcome::Created {
                assert_eq!(end.reason, entry.reason, "{entry:?}");
            }
        }
        let count = |action| summary.actions.get(&action).copied().unwrap_or_default();
        let updates = policy == ExistingResourcePolicy::Update;
        assert_eq!(planned[&changed].action, if updates { PlanAction::Update } else { PlanAction::Conflict });
        assert_eq!(planned[&changed].differences, ["/data/changed"]);
        assert!(count(PlanAction::Create) > 100 && count(PlanAction::Skip) > 0, "{summary:?}");
        assert!(updates || count(PlanAction::Unchanged) > 5, "{summary:?}");
        assert!(summary.denied.is_empty() && summary.findings.is_empty(), "{summary:?}");
        let counted = |messages: usize| u64::try_from(messages).unwrap();
        assert_eq!(
            (summary.errors, summary.warnings),
            (counted(report.results.errors.count()), counted(report.results.warnings.count()))
        );
    }
}

#[tokio::test]
async fn entries_come_in_the_order_of_the_restore_with_namespaces_and_additional_items_in_front() {
    let archive = sample();
    let (entries, _) = plan(&Sandbox::new(SandboxOptions::default()), &archive, RestoreSpec::default()).await;
    let place = |key: &str| entries.iter().position(|entry| entry.key.to_string() == key);
    for (at, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.action == PlanAction::Create) {
        if !entry.key.namespace.is_empty() {
            let namespace = format!("v1/Namespace {}", entry.key.namespace);
            assert!(place(&namespace).is_none_or(|place| place < at), "{namespace} comes after {entry:?}");
        }
    }
    let mut last = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.origin == Origin::Planned && entry.action != PlanAction::Skip) {
        let before = last.insert(&entry.group_resource, entry.id);
        assert!(before.is_none_or(|before| before < entry.id), "{entry:?} is told after {before:?}");
    }
}

#[tokio::test]
async fn an_item_that_another_one_wants_comes_in_front_of_it_and_once() {
    let sandbox = with_namespace().await;
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    let spec = json!({"spec": {"containers": [{"name": "c", "image": "i"}], "volumes": volumes}});
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let archive = archive([
        object("Pod", "shop", "web-0", &spec),
        object("Pod", "shop", "web-1", &spec),
        object("PersistentVolumeClaim", "shop", "data", &claim),
    ]);
    let mut job = job("r", RestoreSpec::default());
    job.settings.priorities = "pods".parse().unwrap();
    let (entries, _) = plan_with(Arc::new(Guard::new(&sandbox)), &archive, job, true).await;
    let told: Vec<_> = entries.iter().map(|entry| (&*entry.key.name, entry.action)).collect();
    let created = |name| (name, PlanAction::Create);
    assert_eq!(told, [created("data"), created("web-0"), created("web-1")]);
}

#[tokio::test]
async fn what_cannot_be_tried_is_told_with_the_reason_and_without_a_request() {
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "tills.shop.example.org"},
        "spec": {"group": "shop.example.org", "scope": "Cluster", "names": {"plural": "tills", "kind": "Till"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let till = json!({"apiVersion": "shop.example.org/v1", "kind": "Till", "metadata": {"name": "one"}});
    let other = json!({"apiVersion": "nobody.example.org/v1", "kind": "Thing", "metadata": {"name": "one"}});
    let archive = Arc::new(
        Backup::new()
            .with_all([config("a"), crd])
            .with_as("tills.shop.example.org", till)
            .with_as("things.nobody.example.org", other)
            .read(&ReadOptions::default())
            .unwrap(),
    );
    let guard = Arc::new(Guard::new(&Sandbox::new(SandboxOptions::default())));
    let all = RestoreSpec { include_cluster_resources: Some(true), ..RestoreSpec::default() };
    let (entries, summary) = plan_with(Arc::clone(&guard), &archive, job("r", all), true).await;
    let told: BTreeMap<String, (PlanAction, bool, Option<Reason>)> =
        entries.iter().map(|entry| (entry.key.to_string(), (entry.action, entry.dry_run, entry.reason))).collect();
    assert_eq!(
        told,
        BTreeMap::from([
            ("v1/Namespace shop".to_owned(), (PlanAction::Create, true, None)),
            ("v1/ConfigMap shop/a".to_owned(), (PlanAction::Create, false, None)),
            (
                "apiextensions.k8s.io/v1/CustomResourceDefinition tills.shop.example.org".to_owned(),
                (PlanAction::Create, true, None)
            ),
            ("shop.example.org/v1/Till one".to_owned(), (PlanAction::Unknown, false, Some(Reason::Other))),
            ("nobody.example.org/v1/Thing one".to_owned(), (PlanAction::Fail, false, Some(Reason::Discovery))),
        ])
    );
    let message = |name: &str| entries.iter().find(|entry| entry.group_resource == name).unwrap().message.clone();
    assert!(message("configmaps").unwrap().contains("namespace is not there yet"));
    assert!(message("tills.shop.example.org").unwrap().contains("CustomResourceDefinition"));
    assert_eq!((summary.errors, summary.has_trouble()), (1, true));
    let tried = ["namespaces shop", "customresourcedefinitions.apiextensions.k8s.io tills", "things.nobody"];
    let asked = guard.asked("create");
    assert_eq!(asked.len(), tried.len(), "{asked:?}");
    assert!(tried.iter().all(|tried| asked.iter().any(|asked| asked.contains(tried))), "{asked:?}");
}

async fn with_namespace() -> Sandbox {
    let sandbox = Sandbox::new(SandboxOptions::default());
    let cluster = KubeCluster::new(sandbox.client());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    cluster.create(&Target::new("", "v1", "namespaces", ""), &namespace).await.unwrap();
    sandbox
}

#[tokio::test]
async fn what_the_service_may_not_do_is_asked_once_and_forbidden_for_each_item() {
    for dry_run in [true, false] {
        let sandbox = with_namespace().await;
        let guard = Arc::new(Guard { denied: ["secrets"].into(), ..Guard::new(&sandbox) });
        let secrets = (0..20).map(|number| object("Secret", "shop", &format!("s{number}"), &json!({})));
        let archive = archive(secrets.chain([config("a")]));
        let (entries, summary) =
            plan_with(Arc::clone(&guard), &archive, job("r", RestoreSpec::default()), dry_run).await;
        for entry in &entries {
            let wanted = if entry.group_resource == "secrets" { PlanAction::Forbidden } else { PlanAction::Create };
            assert_eq!(entry.action, wanted, "{entry:?}");
        }
        assert_eq!(guard.asked("may create secrets"), ["may create secrets *", "may create secrets shop"]);
        assert_eq!(guard.asked("create").len(), usize::from(dry_run), "none is tried where it is known");
        let [denied] = summary.denied.as_slice() else { panic!("{summary:?}") };
        assert_eq!((denied.verb.as_str(), denied.namespace.as_str()), ("create", "shop"));
        assert_eq!((summary.actions[&PlanAction::Forbidden], summary.errors), (20, 20));
    }
}

#[tokio::test]
async fn a_refusal_for_lack_of_what_the_restore_brings_first_is_not_held_against_an_item() {
    let message =
        "pods \"web\" is forbidden: error looking up service account shop/clerk: serviceaccount \"clerk\" not found";
    let lacking = ApiError::status(403, "Forbidden", message);
    let pod = object("Pod", "shop", "web", &json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let clerk = object("ServiceAccount", "shop", "clerk", &json!({}));
    for (objects, wanted) in [(vec![pod.clone(), clerk], PlanAction::Unknown), (vec![pod], PlanAction::Forbidden)] {
        let sandbox = with_namespace().await;
        let refusals = Rules::from([(("pods", "web"), lacking.clone())]);
        let guard = Arc::new(Guard { refusals, ..Guard::new(&sandbox) });
        let (entries, _) = plan_with(guard, &archive(objects), job("r", RestoreSpec::default()), true).await;
        let pod = entries.iter().find(|entry| entry.group_resource == "pods").unwrap();
        assert_eq!(pod.action, wanted, "{pod:?}");
        assert!(pod.message.as_ref().unwrap().contains("service account shop/clerk"), "{pod:?}");
    }
}

#[tokio::test]
async fn what_the_dry_run_refuses_is_invalid_with_the_api_servers_words() {
    let sandbox = with_namespace().await;
    let refusals = Rules::from([
        (("configmaps", "a"), ApiError::status(403, "Forbidden", "configmaps \"a\" is forbidden: exceeded quota: q")),
        (("configmaps", "b"), ApiError::status(422, "Invalid", "ConfigMap \"b\" is invalid: data")),
        (("configmaps", "c"), ApiError::status(400, "BadRequest", "admission webhook \"w\" denied the request: no")),
    ]);
    let guard = Arc::new(Guard { refusals, ..Guard::new(&sandbox) });
    let archive = archive(["a", "b", "c", "d"].map(config));
    let (entries, summary) = plan_with(guard, &archive, job("r", RestoreSpec::default()), true).await;
    let told: Vec<_> = entries.iter().map(|entry| (entry.action, entry.reason, entry.dry_run)).collect();
    assert_eq!(
        told,
        [
            (PlanAction::Invalid, Some(Reason::Quota), false),
            (PlanAction::Invalid, Some(Reason::Invalid), false),
            (PlanAction::Invalid, Some(Reason::DeniedByAdmission), false),
            (PlanAction::Create, None, true),
        ]
    );
    assert!(entries[0].message.as_ref().unwrap().contains("exceeded quota: q"));
    assert!(summary.denied.is_empty(), "a quota is no permission: {summary:?}");
}

#[tokio::test]
async fn without_dry_runs_objects_are_looked_up_and_compared() {
    let sandbox = with_namespace().await;
    let cluster = KubeCluster::new(sandbox.client());
    let target = Target::new("", "v1", "configmaps", "shop");
    for (name, value) in [("same", "b"), ("other", "c")] {
        let mut live = object("ConfigMap", "shop", name, &json!({"data": {"a": value}}));
        strip::set_restore_labels(&mut live, "nightly", "first").unwrap();
        cluster.create(&target, &live).await.unwrap();
    }
    let guard = Arc::new(Guard::new(&sandbox));
    let archive = archive(["same", "other", "new"].map(config));
    let (entries, _) = plan_with(Arc::clone(&guard), &archive, job("r", RestoreSpec::default()), false).await;
    let told: BTreeMap<&str, (PlanAction, bool)> =
        entries.iter().map(|entry| (&*entry.key.name, (entry.action, entry.dry_run))).collect();
    let wanted = [
        ("new", (PlanAction::Create, false)),
        ("other", (PlanAction::Conflict, false)),
        ("same", (PlanAction::Unchanged, false)),
    ];
    assert_eq!(told, BTreeMap::from(wanted));
    assert!(guard.asked("create").is_empty() && guard.asked("patch").is_empty());
}

#[tokio::test]
async fn a_namespace_that_is_going_is_not_waited_for() {
    let sandbox = Sandbox::new(SandboxOptions::default());
    let cluster = KubeCluster::new(sandbox.client());
    let namespaces = Target::new("", "v1", "namespaces", "");
    let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    cluster.create(&namespaces, &shop).await.unwrap();
    let held = object("ConfigMap", "shop", "held", &json!({"metadata": {"finalizers": ["example.org/hold"]}}));
    cluster.create(&Target::new("", "v1", "configmaps", "shop"), &held).await.unwrap();
    let delete = http::Request::delete("/api/v1/namespaces/shop").body(Vec::new()).unwrap();
    sandbox.client().request::<Value>(delete).await.unwrap();
    let (entries, _) = plan(&sandbox, &archive([config("a")]), RestoreSpec::default()).await;
    let told: Vec<_> = entries.iter().map(|entry| (entry.key.to_string(), entry.action, entry.dry_run)).collect();
    assert_eq!(
        told,
        [
            ("v1/Namespace shop".to_owned(), PlanAction::Create, false),
            ("v1/ConfigMap shop/a".to_owned(), PlanAction::Create, false)
        ]
    );
    assert!(entries[0].message.as_ref().unwrap().contains("is being deleted"));
}

#[tokio::test]
async fn what_an_action_makes_for_another_is_found_by_its_labels_and_not_there() {
    let sandbox = with_namespace().await;
    for dry_run in [true, false] {
        let overlay = Overlay::new(ReadOnly::new(Arc::new(Guard::new(&sandbox))), Options { dry_run });
        let target = Target::new("", "v1", "configmaps", "shop");
        for of in ["one", "two"] {
            let metadata = json!({"generateName": "result-", "namespace": "shop", "labels": {"of": of}});
            let made = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
            overlay.create(&target, &made).await.unwrap();
        }
        let found = overlay.list(&target, "of=two").await.unwrap();
        let [found] = found.as_slice() else { panic!("{found:?}") };
        let name = found["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("result-") && name.len() > "result-".len(), "{name}");
        assert_eq!(overlay.get(&target, name).await.unwrap().as_ref(), Some(found));
        assert!(KubeCluster::new(sandbox.client()).list(&target, "of").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_stops_the_work() {
    let guard = Arc::new(Guard::new(&with_namespace().await));
    let archive = archive((0..500).map(|number| config(&format!("c{number:03}"))));
    let job = job("r", RestoreSpec::default());
    let bound = 2 * job.settings.concurrency + 2;
    let mut steps = preview(job, archive, Arc::clone(&guard) as _, Options::default(), CancellationToken::new());
    assert_eq!(steps.next().await.unwrap().unwrap(), PlanStep::Begun(500));
    assert!(matches!(steps.next().await, Some(Ok(PlanStep::Entry(_)))));
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    let under_way = guard.asked("create").len();
    assert!(under_way <= bound, "{under_way} of 500 were tried while one was taken");
    drop(steps);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(guard.asked("create").len() <= under_way + 1);
}

#[tokio::test]
async fn a_plan_that_is_aborted_says_why_and_has_no_items() {
    let archive = archive([config("a")]);
    let spec = RestoreSpec { included_namespaces: vec!["[".to_owned()], ..RestoreSpec::default() };
    let (entries, summary) = plan(&Sandbox::new(SandboxOptions::default()), &archive, spec).await;
    assert!(entries.is_empty());
    assert_eq!((summary.findings.len(), summary.has_trouble()), (1, true), "{summary:?}");
}

#[tokio::test]
async fn the_labels_of_the_restore_are_no_difference() {
    let sandbox = with_namespace().await;
    let archive = archive([config("a")]);
    restore(&sandbox, &archive, job("first", RestoreSpec::default())).await;
    let (entries, _) = plan(&sandbox, &archive, RestoreSpec::default()).await;
    assert_eq!(entries[0].action, PlanAction::Unchanged, "{entries:?}");
    let live = KubeCluster::new(sandbox.client()).get(&Target::new("", "v1", "configmaps", "shop"), "a").await.unwrap();
    assert_eq!(live.unwrap()["metadata"]["labels"][label::RESTORE_NAME], "first");
}
