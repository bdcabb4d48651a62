//! The tasks over a cluster that keeps objects, with the test as node agent, scheduler and repository maintenance.

#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::engine::discovery::Discovery;
use crate::engine::job::PodVolumeOptions;

const HOUR: Duration = Duration::from_secs(3600);

/// An object with its resource.
type Kept = (String, Value);

#[derive(Default)]
struct State {
    objects: Vec<Kept>,
    watchers: Vec<mpsc::UnboundedSender<(String, Change)>>,
    requests: Vec<String>,
    /// Answers to the next creates; whether the object is stored all the same.
    refusals: Vec<(ApiError, bool)>,
}

#[derive(Default)]
struct Fake(Mutex<State>);

fn selects(selector: &str, object: &Value) -> bool {
    selector.is_empty()
        || selector.split(',').filter_map(|part| part.split_once('=')).all(|(key, value)| {
            object.pointer("/metadata/labels").and_then(|labels| labels.get(key)).is_some_and(|label| label == value)
        })
}

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A cluster with a node agent and a repository that is ready, for pods from namespace `src`.
    fn ready() -> Arc<Self> {
        let fake = Arc::new(Self::default());
        fake.put("daemonsets", json!({"metadata": {"name": "node-agent", "namespace": "velero"}}));
        let mut repository = objects::backup_repository(&job(), "src");
        repository["status"] = json!({"phase": "Ready"});
        fake.put("backuprepositories", repository);
        fake.put(
            "persistentvolumeclaims",
            json!({"metadata": {"name": "claim", "namespace": "dst", "uid": "claim-uid"}}),
        );
        fake
    }

    fn put(&self, resource: &str, object: Value) {
        let mut state = self.state();
        state.objects.retain(|(kept, other)| {
            kept != resource || text(other, "/metadata/name") != text(&object, "/metadata/name")
        });
        state.objects.push((resource.to_owned(), object.clone()));
        state.watchers.retain(|watcher| watcher.send((resource.to_owned(), Change::Is(object.clone()))).is_ok());
    }

    fn delete(&self, resource: &str, name: &str) {
        let mut state = self.state();
        state.objects.retain(|(kept, object)| kept != resource || text(object, "/metadata/name") != name);
        let gone = Change::Gone(name.to_owned());
        state.watchers.retain(|watcher| watcher.send((resource.to_owned(), gone.clone())).is_ok());
    }

    fn all(&self, resource: &str) -> Vec<Value> {
        self.state().objects.iter().filter(|(kept, _)| kept == resource).map(|(_, object)| object.clone()).collect()
    }

    fn requests(&self, what: &str) -> usize {
        self.state().requests.iter().filter(|request| request.as_str() == what).count()
    }

    /// The PodVolumeRestore of a volume, once it is created.
    async fn restore_of(&self, volume: &str) -> Value {
        loop {
            let found = self.all("podvolumerestores");
            if let Some(found) = found.into_iter().find(|restore| text(restore, "/spec/volume") == volume) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the node agent writes.
    async fn report(&self, volume: &str, status: Value) {
        let mut restore = self.restore_of(volume).await;
        restore["status"] = status;
        self.put("podvolumerestores", restore);
    }
}

#[async_trait]
impl Cluster for Fake {
    async fn discovery(&self, _refresh: bool) -> Result<Arc<Discovery>, ApiError> {
        Ok(Arc::default())
    }

    async fn get(&self, target: &Target, name: &str) -> Result<Option<Value>, ApiError> {
        self.state().requests.push(format!("get {}", target.resource));
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let is_it =
            |object: &Value| text(object, "/metadata/name") == name && text(object, "/metadata/namespace") == namespace;
        Ok(self.all(&target.resource).into_iter().find(is_it))
    }

    async fn list(&self, target: &Target, label_selector: &str) -> Result<Vec<Value>, ApiError> {
        self.state().requests.push(format!("list {}", target.resource));
        Ok(self.all(&target.resource).into_iter().filter(|object| selects(label_selector, object)).collect())
    }

    async fn create(&self, target: &Target, object: &Value) -> Result<Value, ApiError> {
        let mut object = object.clone();
        let refusal = {
            let mut state = self.state();
            state.requests.push(format!("create {}", target.resource));
            let number = state.requests.len();
            if let Some(prefix) = object.pointer("/metadata/generateName").and_then(Value::as_str).map(str::to_owned) {
                object["metadata"]["name"] = json!(format!("{prefix}{number}"));
            }
            (!state.refusals.is_empty()).then(|| state.refusals.remove(0))
        };
        if refusal.as_ref().is_none_or(|(_, is_stored)| *is_stored) {
            self.put(&target.resource, object.clone());
        }
        refusal.map_or(Ok(object), |(error, _)| Err(error))
    }

    async fn merge_patch(&self, _target: &Target, _name: &str, _patch: &Value) -> Result<Value, ApiError> {
        Err(ApiError::status(405, "MethodNotAllowed", "nothing is patched"))
    }

    async fn delete(&self, _: &Target, _: &str) -> Result<(), ApiError> {
        unreachable!("pod volumes delete nothing")
    }

    async fn delete_collection(&self, _: &Target, _: &str) -> Result<(), ApiError> {
        unreachable!("pod volumes delete nothing")
    }

    async fn replace_status(&self, _target: &Target, _name: &str, _object: &Value) -> Result<Value, ApiError> {
        Err(ApiError::status(405, "MethodNotAllowed", "no status is written"))
    }

    async fn openapi(&self, _group: &str, _version: &str) -> Result<Value, ApiError> {
        Err(ApiError::status(404, "NotFound", "there are no documents"))
    }

    /// Like a cluster that does not know the selector: everything is told.
    fn watch<'a>(&'a self, target: &Target, _name: Option<&str>) -> BoxStream<'a, Result<Change, ApiError>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let resource = target.resource.clone();
        self.state().requests.push(format!("watch {resource}"));
        let now: Vec<_> = self.all(&resource).into_iter().map(|object| Ok(Change::Is(object))).collect();
        self.state().watchers.push(sender);
        let later =
            stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|told| (told, receiver)) });
        let later =
            later.filter_map(move |(told, change)| std::future::ready((told == resource).then_some(Ok(change))));
        stream::iter(now).chain(later).boxed()
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

impl Events for Heard {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Heard {
    fn counts(&self) -> Counts {
        let heard = self.0.lock().unwrap();
        heard
            .iter()
            .rev()
            .find_map(|event| match event {
                Event::Counts(Stage::Volumes, counts) => Some(*counts),
                _ => None,
            })
            .unwrap_or_default()
    }

    fn waits(&self) -> Vec<Waiting> {
        let heard = self.0.lock().unwrap();
        heard
            .iter()
            .filter_map(|event| match event {
                Event::Wait(waiting) => Some(waiting.clone()),
                _ => None,
            })
            .collect()
    }

    /// Waits that were announced and are not over.
    fn open_waits(&self) -> usize {
        let heard = self.0.lock().unwrap();
        let count = |is: fn(&Event) -> bool| heard.iter().filter(|event| is(event)).count();
        count(|event| matches!(event, Event::Wait(_))) - count(|event| matches!(event, Event::WaitOver(_)))
    }
}

fn job() -> Job {
    Job {
        restore_name: "r".to_owned(),
        restore_uid: "restore-uid".to_owned(),
        velero_namespace: "velero".to_owned(),
        backup_storage_location: "default".to_owned(),
        pod_volumes: Some(PodVolumeOptions::default()),
        ..Job::default()
    }
}

fn pod(name: &str, volumes: &[&str]) -> Pod {
    let backup =
        |volume: &str| VolumeBackup { snapshot_id: format!("s-{volume}"), size: 9, uploader_type: String::new() };
    Pod {
        namespace: "dst".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        source_namespace: "src".to_owned(),
        volumes: volumes.iter().map(|volume| ((*volume).to_owned(), backup(volume))).collect(),
        claims: BTreeMap::new(),
    }
}

struct Bench {
    cluster: Arc<Fake>,
    heard: Arc<Heard>,
    stop: CancellationToken,
    volumes: PodVolumes,
}

impl Bench {
    fn new(cluster: Arc<Fake>) -> Self {
        let (heard, stop) = (Arc::new(Heard::default()), CancellationToken::new());
        let (told, deadline) = (Arc::clone(&heard), Instant::now() + 4 * HOUR);
        let volumes = PodVolumes::with(Arc::new(job()), Arc::clone(&cluster) as _, told, stop.clone(), deadline);
        Self { cluster, heard, stop, volumes }
    }

    /// The errors, and the counts.
    async fn errors(&self) -> (Vec<String>, Vec<RestoredPodVolume>) {
        let ended = self.volumes.under_way().wait().await;
        assert_eq!(ended.results.warnings.count(), 0);
        let errors = ended.results.errors;
        assert_eq!(errors.count(), errors.velero.len(), "all of them are Velero's own");
        assert_eq!(self.heard.open_waits(), 0);
        (errors.velero, ended.volumes)
    }
}

fn counts(pending: u64, created: u64, failed: u64) -> Counts {
    Counts { pending, created, failed, ..Counts::default() }
}

#[track_caller]
fn assert_one(errors: &[String], parts: &[&str]) {
    assert_eq!(errors.len(), 1, "{errors:?}");
    for part in parts {
        assert!(errors[0].contains(part), "{part:?} is not in {:?}", errors[0]);
    }
}

/// restore-semantics 5.13.
#[tokio::test(start_paused = true)]
async fn volumes_are_ordered_and_awaited_and_the_wait_tells_the_bytes() {
    let bench = Bench::new(Fake::ready());
    let mut web = pod("web", &["data", "logs"]);
    web.claims.insert("data".to_owned(), "claim".to_owned());
    bench.volumes.start(web);
    let ordered = bench.cluster.restore_of("data").await;
    assert_eq!(ordered["metadata"]["labels"]["velero.io/pvc-uid"], "claim-uid");
    let progress = json!({"bytesDone": 3, "totalBytes": 9});
    bench.cluster.report("data", json!({"phase": "InProgress", "node": "n1", "progress": progress})).await;
    tokio::time::sleep(HOUR).await;
    let waits = bench.heard.waits();
    let last = waits.iter().rev().find(|wait| wait.object == "volume data of pod dst/web").unwrap();
    assert_eq!(last.reason.as_deref(), Some("InProgress on node n1, 3 of 9 bytes"));
    assert_eq!((bench.heard.open_waits(), bench.heard.counts()), (2, counts(2, 0, 0)));
    for volume in ["data", "logs"] {
        bench.cluster.report(volume, json!({"phase": "Completed", "progress": {"totalBytes": 9}})).await;
    }
    let (errors, volumes) = bench.errors().await;
    assert_eq!((errors.len(), bench.heard.counts()), (0, counts(0, 2, 0)));
    let told: Vec<_> =
        volumes.iter().map(|volume| (volume.volume.as_str(), volume.claim.as_deref(), volume.size)).collect();
    assert_eq!(told, [("data", Some("claim"), 9), ("logs", None, 9)]);
    assert_eq!(bench.cluster.requests("watch podvolumerestores"), 1);
}

/// restore-semantics 5.13: an error in `velero` for each pod; the DaemonSet is asked for once.
#[tokio::test(start_paused = true)]
async fn without_a_node_agent_each_pod_is_an_error_and_nothing_is_ordered() {
    let bench = Bench::new(Arc::new(Fake::default()));
    bench.volumes.start(pod("a", &["data", "logs"]));
    bench.volumes.start(pod("b", &["data"]));
    let (errors, volumes) = bench.errors().await;
    assert_eq!((errors.len(), volumes.len(), bench.heard.counts()), (2, 0, counts(0, 0, 3)));
    assert!(errors.iter().all(|error| error.starts_with("error to check node agent status: daemonset not found")));
    assert_eq!(bench.cluster.requests("get daemonsets"), 1);
    assert!(bench.cluster.all("podvolumerestores").is_empty() && bench.cluster.all("backuprepositories").is_empty());
}

/// restore-semantics 5.13: the BackupRepository is made once per source namespace, and waited for up to the resource timeout.
#[tokio::test(start_paused = true)]
async fn a_repository_that_never_gets_ready_is_an_error_of_each_pod_from_its_namespace() {
    let fake = Fake::ready();
    fake.delete("backuprepositories", "src-default-kopia");
    let bench = Bench::new(fake);
    let begun = Instant::now();
    for name in ["a", "b"] {
        bench.volumes.start(pod(name, &["data"]));
    }
    let (errors, _) = bench.errors().await;
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error.starts_with("failed to wait BackupRepository, timeout exceeded")));
    assert!(begun.elapsed() >= job().settings.resource_timeout);
    assert_eq!(bench.cluster.all("backuprepositories"), [objects::backup_repository(&job(), "src")]);
    assert_eq!(bench.cluster.requests("create backuprepositories"), 1);
    assert!(bench.cluster.all("podvolumerestores").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_repository_is_waited_for_until_it_is_ready_and_one_that_is_not_ready_is_an_error_at_once() {
    let fake = Fake::ready();
    let mut repository = objects::backup_repository(&job(), "src");
    fake.put("backuprepositories", repository.clone());
    let bench = Bench::new(fake);
    bench.volumes.start(pod("a", &["data"]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bench.cluster.all("podvolumerestores").is_empty());
    assert_eq!(bench.heard.waits().last().unwrap().object, "BackupRepository src-default-kopia");
    repository["status"] = json!({"phase": "Ready"});
    bench.cluster.put("backuprepositories", repository.clone());
    bench.cluster.report("data", json!({"phase": "Completed"})).await;
    assert_eq!(bench.errors().await.0.len(), 0);

    let fake = Fake::ready();
    repository["status"] = json!({"phase": "NotReady", "message": "no such bucket"});
    fake.put("backuprepositories", repository);
    let bench = Bench::new(fake);
    bench.volumes.start(pod("a", &["data"]));
    assert_one(&bench.errors().await.0, &["errored early: backup repository is not ready: no such bucket", "dst/a"]);
}

#[tokio::test(start_paused = true)]
async fn two_repositories_for_one_namespace_are_an_error_that_names_them() {
    let fake = Fake::ready();
    let mut second = objects::backup_repository(&job(), "src");
    second["metadata"]["name"] = json!("second");
    fake.put("backuprepositories", second);
    let bench = Bench::new(fake);
    bench.volumes.start(pod("a", &["data"]));
    assert_one(&bench.errors().await.0, &["more than one BackupRepository", "src-default-kopia, second"]);
}

/// restore-semantics 5.13: `Failed` and `Canceled` are an error each.
#[tokio::test(start_paused = true)]
async fn one_failed_and_one_canceled_volume_of_three_are_two_errors_and_the_third_is_restored() {
    let bench = Bench::new(Fake::ready());
    bench.volumes.start(pod("web", &["data", "logs", "tmp"]));
    bench.cluster.report("data", json!({"phase": "Failed", "message": "disk full"})).await;
    bench.cluster.report("logs", json!({"phase": "Canceled", "message": "by hand"})).await;
    bench.cluster.report("tmp", json!({"phase": "Completed"})).await;
    let (mut errors, volumes) = bench.errors().await;
    errors.sort();
    assert_eq!((errors.len(), volumes.len(), bench.heard.counts()), (2, 3, counts(0, 1, 2)));
    assert!(errors[0].starts_with("pod volume restore canceled: by hand (pod dst/web, volume logs"), "{errors:?}");
    assert!(errors[1].starts_with("pod volume restore failed: disk full (pod dst/web, volume data"), "{errors:?}");
}

/// restore-semantics 5.13: one deadline for all, counted from the start of the engine.
#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_is_open_is_an_error_of_its_pod() {
    let bench = Bench::new(Fake::ready());
    tokio::time::sleep(3 * HOUR).await;
    let begun = Instant::now();
    bench.volumes.start(pod("web", &["data", "logs", "tmp"]));
    bench.cluster.report("data", json!({"phase": "Completed"})).await;
    let (errors, volumes) = bench.errors().await;
    assert_one(&errors, &["timed out waiting for all PodVolumeRestores to complete", "dst/web", "logs, tmp"]);
    assert_eq!((volumes.len(), bench.heard.counts()), (1, counts(0, 1, 2)));
    assert!(begun.elapsed() < 2 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn what_an_interrupted_run_has_ordered_is_not_ordered_again() {
    let fake = Fake::ready();
    let web = pod("web", &["data", "logs"]);
    let mut earlier = objects::pod_volume_restore(&job(), &web, "data", &web.volumes["data"], None);
    earlier["metadata"]["name"] = json!("r-earlier");
    earlier["status"] = json!({"phase": "Completed", "progress": {"totalBytes": 5}});
    fake.put("podvolumerestores", earlier);
    let bench = Bench::new(fake);
    bench.volumes.start(web);
    bench.cluster.report("logs", json!({"phase": "Completed"})).await;
    let (errors, volumes) = bench.errors().await;
    assert_eq!((errors.len(), volumes.len(), volumes[0].size), (0, 2, 5));
    assert_eq!(bench.cluster.requests("create podvolumerestores"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_answer_was_lost_is_found_and_not_given_twice() {
    let fake = Fake::ready();
    let busy = ApiError::status(503, "ServiceUnavailable", "busy");
    let taken = ApiError::status(409, "AlreadyExists", "already exists");
    fake.state().refusals = vec![(taken, false), (busy.clone(), false), (busy, true)];
    let bench = Bench::new(fake);
    bench.volumes.start(pod("web", &["data"]));
    bench.cluster.report("data", json!({"phase": "Completed"})).await;
    assert_eq!(bench.errors().await.0.len(), 0);
    assert_eq!(bench.cluster.requests("create podvolumerestores"), 3);
    assert_eq!(bench.cluster.all("podvolumerestores").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_ordered_keeps_no_other_back() {
    let fake = Fake::ready();
    fake.state().refusals = vec![(ApiError::status(403, "Forbidden", "not you"), false)];
    let bench = Bench::new(fake);
    let mut web = pod("web", &["data", "logs", "tmp"]);
    web.claims.insert("logs".to_owned(), "gone".to_owned());
    bench.volumes.start(web);
    bench.cluster.report("tmp", json!({"phase": "Completed"})).await;
    let (errors, _) = bench.errors().await;
    assert_eq!((errors.len(), bench.heard.counts()), (2, counts(0, 1, 2)), "{errors:?}");
    assert!(errors[0].starts_with("error creating PodVolumeRestore: not you"), "{errors:?}");
    let claim = "error getting persistent volume claim for volume: persistentvolumeclaims \"gone\" not found";
    assert!(errors[1].starts_with(claim), "{errors:?}");
}

/// A pod of the restore with a node, as the scheduler leaves it.
fn scheduled(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "dst", "uid": format!("uid-{name}"),
            "labels": {"velero.io/restore-name": "r"}},
        "spec": {"nodeName": node}, "status": {"phase": "Pending"}})
}

/// restore-semantics 5.13: once a pod is scheduled there must be a node agent on its node.
#[tokio::test(start_paused = true)]
async fn a_pod_on_a_node_without_agent_is_given_up_and_one_with_agent_is_not() {
    let fake = Fake::ready();
    let agent = json!({"metadata": {"name": "node-agent-1", "namespace": "velero", "labels": {"role": "node-agent"}},
        "spec": {"nodeName": "good"}, "status": {"phase": "Running"}});
    fake.put("pods", agent);
    let bench = Bench::new(fake);
    for (name, volume) in [("a", "data-a"), ("b", "data-b"), ("c", "data-c")] {
        bench.volumes.start(pod(name, &[volume]));
        bench.cluster.restore_of(volume).await;
    }
    for (name, node) in [("a", "bad"), ("b", "good"), ("c", "good")] {
        bench.cluster.put("pods", scheduled(name, node));
    }
    tokio::time::sleep(HOUR).await;
    assert_eq!(bench.heard.counts(), counts(2, 0, 1));
    for volume in ["data-b", "data-c"] {
        bench.cluster.report(volume, json!({"phase": "Completed"})).await;
    }
    let parts = ["node-agent pod is not running in node bad: daemonset pod not found", "dst/a", "data-a"];
    assert_one(&bench.errors().await.0, &parts);
    assert_eq!(bench.cluster.requests("list pods"), 2, "one for each node");
}

/// restore-semantics 5.13: after ten minutes nobody looks for the node any more, and the volumes are still waited for.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_scheduled_late_is_waited_for_all_the_same() {
    let bench = Bench::new(Fake::ready());
    bench.volumes.start(pod("a", &["data"]));
    tokio::time::sleep(Duration::from_secs(601)).await;
    bench.cluster.put("pods", scheduled("a", "bad"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.heard.counts(), counts(1, 0, 0));
    bench.cluster.report("data", json!({"phase": "Completed"})).await;
    assert_eq!(bench.errors().await.0.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_somebody_deletes_is_an_error_and_no_wait_without_end() {
    let bench = Bench::new(Fake::ready());
    bench.volumes.start(pod("a", &["data"]));
    let ordered = bench.cluster.restore_of("data").await;
    // Deletion is told once the watch has seen the object.
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.cluster.delete("podvolumerestores", text(&ordered, "/metadata/name"));
    let (errors, volumes) = bench.errors().await;
    assert_one(&errors, &["was deleted before it had ended", "dst/a", "data"]);
    assert!(volumes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_waiting_without_an_error_and_leaves_the_orders() {
    let bench = Bench::new(Fake::ready());
    bench.volumes.start(pod("a", &["data"]));
    bench.cluster.restore_of("data").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.stop.cancel();
    assert!(bench.volumes.under_way().wait().await.stopped);
    assert_eq!((bench.heard.open_waits(), bench.heard.counts()), (0, counts(1, 0, 0)));
    let findings = bench.heard.0.lock().unwrap().iter().filter(|event| matches!(event, Event::Finding(..))).count();
    assert_eq!((findings, bench.cluster.all("podvolumerestores").len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn without_pod_volumes_nothing_is_asked_and_no_stage_begins() {
    let bench = Bench::new(Arc::new(Fake::default()));
    let (errors, volumes) = bench.errors().await;
    assert!(errors.is_empty() && volumes.is_empty());
    assert!(bench.heard.0.lock().unwrap().is_empty() && bench.cluster.state().requests.is_empty());
}
