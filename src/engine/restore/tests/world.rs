//! A restore into a cluster that keeps what it is given, refuses what it is told to, and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::archive::testing::{Backup, group_resource_of};
use crate::archive::{NameCheck, ReadOptions};
use crate::engine::discovery::Discovery;
use crate::engine::discovery::testing::kubernetes;
use crate::engine::events::{Event, Events, Finished, KnownItem};
use crate::engine::merge::apply_merge_patch;
use crate::engine::modifiers::Modifiers;
use crate::engine::ports::exec::NoExec;
use crate::engine::ports::{ApiError, Change, Cluster};
use crate::engine::{Job, Report, run};
use crate::model::{Outcome, RestoreSpec, Target};

/// The field manager that this API server writes into what it creates.
pub(super) const MANAGER: &str = "the-api-server";

/// Group-resource, namespace, name.
type Place = (String, String, String);

/// Another party's deed in the cluster: called with each request before it is answered.
type Meddler = Box<dyn Fn(&str, &mut BTreeMap<Place, Value>) + Send + Sync>;

/// An API server in memory.
pub(super) struct FakeApi {
    state: Mutex<State>,
    /// Moves with each change, for those who watch.
    revision: watch::Sender<u64>,
    discovery: Discovery,
    latency: Duration,
    meddler: Option<Meddler>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Place, Value>,
    requests: Vec<String>,
    /// A request that begins so is refused so many times.
    refusals: Vec<(String, usize, ApiError)>,
    version: u64,
    in_flight: usize,
    most_in_flight: usize,
}

fn place(target: &Target, name: &str) -> Place {
    let namespace = target.namespace.clone().unwrap_or_default();
    (target.group_resource().to_string(), namespace, name.to_owned())
}

fn place_of(object: &Value) -> Place {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    (group_resource_of(object).to_string(), text("namespace"), text("name"))
}

fn path((resource, namespace, name): &Place) -> String {
    let parts = [resource, namespace, name].into_iter().filter(|part| !part.is_empty());
    parts.map(String::as_str).collect::<Vec<_>>().join("/")
}

impl FakeApi {
    /// Notes a request, and answers it by a refusal where there is one.
    async fn ask(&self, request: String) -> Result<(), ApiError> {
        let refused = {
            let mut state = self.state.lock().unwrap();
            if let Some(meddler) = &self.meddler {
                meddler(&request, &mut state.objects);
            }
            let refusal = state.refusals.iter_mut().find(|(begin, times, _)| request.starts_with(begin) && *times > 0);
            let refused = refusal.map(|(_, times, error)| {
                *times -= 1;
                error.clone()
            });
            state.requests.push(request);
            state.in_flight += 1;
            state.most_in_flight = state.most_in_flight.max(state.in_flight);
            refused
        };
        tokio::time::sleep(self.latency).await;
        self.state.lock().unwrap().in_flight -= 1;
        refused.map_or(Ok(()), Err)
    }

    fn store(&self, at: Place, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.objects.insert(at, object.clone());
        drop(state);
        self.revision.send_modify(|revision| *revision += 1);
        object
    }

    /// Puts an object there, as somebody else might.
    pub(super) fn put(&self, object: &Value) {
        self.store(place_of(object), object.clone());
    }

    /// Takes an object away, as somebody else might.
    pub(super) fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let at = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().unwrap().objects.remove(&at);
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// What it was asked until now that begins so.
    pub(super) fn requests_so_far(&self, begin: &str) -> Vec<String> {
        let requests = &self.state.lock().unwrap().requests;
        requests.iter().filter(|request| request.starts_with(begin)).cloned().collect()
    }

    /// From now on refuses requests that begin so, this many times.
    pub(super) fn refuse(&self, request: &str, times: usize, error: ApiError) {
        self.state.lock().unwrap().refusals.push((request.to_owned(), times, error));
    }

    fn matching(&self, target: &Target, name: Option<&str>) -> Vec<Value> {
        let resource = target.group_resource().to_string();
        let state = self.state.lock().unwrap();
        let here = state.objects.iter().filter(|((of, namespace, named), _)| {
            *of == resource
                && target.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
                && name.is_none_or(|wanted| wanted == named)
        });
        here.map(|(_, object)| object.clone()).collect()
    }
}

fn not_found(at: &Place) -> ApiError {
    ApiError::status(404, "NotFound", format!("{} {:?} not found", at.0, at.2))
}

#[async_trait]
impl Cluster for FakeApi {
    async fn discovery(&self, _refresh: bool) -> Result<Arc<Discovery>, ApiError> {
        self.ask("discovery".to_owned()).await?;
        Ok(Arc::new(self.discovery.clone()))
    }

    async fn get(&self, target: &Target, name: &str) -> Result<Option<Value>, ApiError> {
        let at = place(target, name);
        self.ask(format!("get {}", path(&at))).await?;
        Ok(self.state.lock().unwrap().objects.get(&at).cloned())
    }

    async fn list(&self, target: &Target, label_selector: &str) -> Result<Vec<Value>, ApiError> {
        self.ask(format!("list {} {label_selector}", path(&place(target, "")))).await?;
        let (key, value) = label_selector.split_once('=').unwrap_or((label_selector, ""));
        let selects = |object: &Value| {
            let label = object["metadata"]["labels"].get(key);
            key.is_empty() || label.is_some_and(|label| value.is_empty() || label == value)
        };
        Ok(self.matching(target, None).into_iter().filter(selects).collect())
    }

    async fn create(&self, target: &Target, object: &Value) -> Result<Value, ApiError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let at = place(target, name);
        self.ask(format!("create {}", path(&at))).await?;
        if self.state.lock().unwrap().objects.contains_key(&at) {
            return Err(ApiError::status(409, "AlreadyExists", format!("{} {name:?} already exists", at.0)));
        }
        let mut created = object.clone();
        created["metadata"]["managedFields"] = json!([{"manager": MANAGER}]);
        Ok(self.store(at, created))
    }

    async fn merge_patch(&self, target: &Target, name: &str, patch: &Value) -> Result<Value, ApiError> {
        let at = place(target, name);
        self.ask(format!("patch {} {patch}", path(&at))).await?;
        let present = self.state.lock().unwrap().objects.get(&at).cloned();
        let mut object = present.ok_or_else(|| not_found(&at))?;
        apply_merge_patch(&mut object, patch);
        Ok(self.store(at, object))
    }

    async fn delete(&self, target: &Target, name: &str) -> Result<(), ApiError> {
        let at = place(target, name);
        self.ask(format!("delete {}", path(&at))).await?;
        self.state.lock().unwrap().objects.remove(&at);
        Ok(())
    }

    async fn delete_collection(&self, target: &Target, _: &str) -> Result<(), ApiError> {
        unreachable!("no restore of these tests deletes all {target:?}")
    }

    async fn replace_status(&self, target: &Target, name: &str, object: &Value) -> Result<Value, ApiError> {
        let at = place(target, name);
        self.ask(format!("status {}", path(&at))).await?;
        let present = self.state.lock().unwrap().objects.get(&at).cloned();
        let mut live = present.ok_or_else(|| not_found(&at))?;
        if live["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
            return Err(ApiError::status(409, "Conflict", format!("{name:?} has been modified")));
        }
        live["status"] = object["status"].clone();
        Ok(self.store(at, live))
    }

    async fn openapi(&self, group: &str, version: &str) -> Result<Value, ApiError> {
        self.ask(format!("openapi {group} {version}")).await?;
        Err(ApiError::status(404, "NotFound", "the server has no such document"))
    }

    fn watch<'a>(&'a self, target: &Target, name: Option<&str>) -> BoxStream<'a, Result<Change, ApiError>> {
        let (target, name) = (target.clone(), name.map(str::to_owned));
        self.state
            .lock()
            .unwrap()
            .requests
            .push(format!("watch {}", path(&place(&target, name.as_deref().unwrap_or("")))));
        let mut revision = self.revision.subscribe();
        revision.mark_changed();
        let seen = stream::unfold((revision, target, name), move |(mut revision, target, name)| async move {
            revision.changed().await.ok()?;
            let mut changes: Vec<_> = self.matching(&target, name.as_deref()).into_iter().map(Change::Is).collect();
            if let (true, Some(name)) = (changes.is_empty(), &name) {
                changes.push(Change::Gone(name.clone()));
            }
            Some((stream::iter(changes.into_iter().map(Ok)), (revision, target, name)))
        });
        seen.flatten().boxed()
    }
}

/// Keeps what the engine tells.
#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Events for Told {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// A restore `r` of the backup `b` to be, and the cluster it goes into.
pub(super) struct World {
    pub(super) job: Job,
    backup: Backup,
    api: FakeApi,
    stop: CancellationToken,
}

impl World {
    pub(super) fn of(backup: Backup) -> Self {
        let job = Job {
            restore_name: "r".to_owned(),
            restore_uid: "11111111-2222-4333-8444-555555555555".to_owned(),
            velero_namespace: "velero".to_owned(),
            backup_name: "b".to_owned(),
            ..Job::default()
        };
        let api = FakeApi {
            state: Mutex::default(),
            revision: watch::Sender::new(0),
            discovery: kubernetes(),
            latency: Duration::from_millis(10),
            meddler: None,
        };
        Self { job, backup, api, stop: CancellationToken::new() }
    }

    /// With a specification.
    pub(super) fn spec(mut self, change: impl FnOnce(&mut RestoreSpec)) -> Self {
        change(&mut self.job.spec);
        self
    }

    /// With another job.
    pub(super) fn job(mut self, change: impl FnOnce(&mut Job)) -> Self {
        change(&mut self.job);
        self
    }

    /// With the rules of a resource modifier.
    pub(super) fn modifiers(mut self, rules: &str) -> Self {
        let config_map = json!({"data": {"rules": format!("version: v1\nresourceModifierRules:\n{rules}")}});
        self.job.modifiers = Some(Arc::new(Modifiers::from_config_map(&config_map).unwrap()));
        self
    }

    /// Into a cluster that has this object.
    pub(super) fn live(self, object: &Value) -> Self {
        self.api.put(object);
        self
    }

    /// Into a cluster that refuses requests that begin so, this many times.
    pub(super) fn refusing(self, request: &str, times: usize, error: ApiError) -> Self {
        self.api.refuse(request, times, error);
        self
    }

    /// Into a cluster where somebody else does something as a request comes.
    pub(super) fn meddled(
        mut self,
        meddler: impl Fn(&str, &mut BTreeMap<Place, Value>) + Send + Sync + 'static,
    ) -> Self {
        self.api.meddler = Some(Box::new(meddler));
        self
    }

    /// Until this fires.
    pub(super) fn stopped_by(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// Restores, with nobody else at work.
    pub(super) async fn run(self) -> Done {
        self.run_while(async |_| {}).await
    }

    /// Restores, while somebody else is at work.
    pub(super) async fn run_while(self, meanwhile: impl AsyncFnOnce(&FakeApi)) -> Done {
        let options = ReadOptions { keep_labels: true, names: NameCheck::Report, ..ReadOptions::default() };
        let archive = Arc::new(self.backup.read(&options).unwrap());
        let (api, told) = (Arc::new(self.api), Arc::new(Told::default()));
        let cluster: Arc<dyn Cluster> = Arc::clone(&api) as Arc<dyn Cluster>;
        let events: Arc<dyn Events> = Arc::clone(&told) as Arc<dyn Events>;
        let begun = tokio::time::Instant::now();
        let running =
            run(Arc::new(self.job), archive, cluster, Arc::new(NoExec("nothing runs here")), events, self.stop);
        let (report, ()) = tokio::join!(running, meanwhile(&api));
        let events = std::mem::take(&mut *told.0.lock().unwrap());
        Done { report: report.unwrap(), events, api, took: begun.elapsed() }
    }
}

/// A restore that has ended.
pub(super) struct Done {
    pub(super) report: Report,
    pub(super) events: Vec<Event>,
    pub(super) took: Duration,
    api: Arc<FakeApi>,
}

impl Done {
    /// The resource list on one line for each item: `v1/ConfigMap shop/a(created)`.
    pub(super) fn listed(&self) -> Vec<String> {
        let list = self.report.resource_list.iter();
        list.flat_map(|(kind, items)| items.iter().map(move |item| format!("{kind} {item}"))).collect()
    }

    /// What the API server was asked, without the plugin configuration.
    pub(super) fn requests(&self) -> Vec<String> {
        let requests = self.api.state.lock().unwrap().requests.clone();
        requests.into_iter().filter(|request| !request.contains("plugin-config") && request != "discovery").collect()
    }

    /// Those of them that begin so.
    pub(super) fn requested(&self, begin: &str) -> Vec<String> {
        self.requests().into_iter().filter(|request| request.starts_with(begin)).collect()
    }

    /// The object as the cluster has it; null where there is none.
    pub(super) fn object(&self, resource: &str, namespace: &str, name: &str) -> Value {
        let at = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.api.state.lock().unwrap().objects.get(&at).cloned().unwrap_or_default()
    }

    /// How often the API server was asked what it serves.
    pub(super) fn discoveries(&self) -> usize {
        self.api.state.lock().unwrap().requests.iter().filter(|request| *request == "discovery").count()
    }

    /// How many requests were under way at once at most.
    pub(super) fn most_in_flight(&self) -> usize {
        self.api.state.lock().unwrap().most_in_flight
    }

    /// How an item ended, by `v1/ConfigMap shop/a`; every item ends once.
    pub(super) fn ended(&self, item: &str) -> Finished {
        let known = self.known().into_iter().find(|known| known.key.to_string() == item);
        let id = known.unwrap_or_else(|| panic!("{item} is not known")).id;
        let mut ends = self.finished().into_iter().filter(|finished| finished.id == id);
        let end = ends.next().unwrap_or_else(|| panic!("{item} did not end"));
        assert!(ends.next().is_none(), "{item} ended twice");
        end
    }

    pub(super) fn outcome(&self, item: &str) -> Outcome {
        self.ended(item).outcome
    }

    /// Every item that was told of.
    pub(super) fn known(&self) -> Vec<KnownItem> {
        let known = self.events.iter().flat_map(|event| match event {
            Event::Planned(items) => items.clone(),
            Event::Added(item) => vec![item.clone()],
            _ => vec![],
        });
        known.collect()
    }

    /// Every end of an item.
    pub(super) fn finished(&self) -> Vec<Finished> {
        let finished = self.events.iter().filter_map(|event| match event {
            Event::Finished(finished) => Some(finished.clone()),
            _ => None,
        });
        finished.collect()
    }

    /// All warnings, with their buckets, in the order of buckets.
    pub(super) fn warnings(&self) -> Vec<(String, String)> {
        in_buckets(&self.report.results.warnings)
    }

    /// All errors.
    pub(super) fn errors(&self) -> Vec<(String, String)> {
        in_buckets(&self.report.results.errors)
    }

    /// Nothing was found wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.warnings().is_empty() && self.errors().is_empty()
    }
}

fn in_buckets(messages: &crate::model::Messages) -> Vec<(String, String)> {
    let of = |bucket: &str, messages: &[String]| {
        messages.iter().map(|message| (bucket.to_owned(), message.clone())).collect::<Vec<_>>()
    };
    let mut all = of("velero", &messages.velero);
    all.extend(of("cluster", &messages.cluster));
    for (namespace, messages) in &messages.namespaces {
        all.extend(of(&format!("ns {namespace}"), messages));
    }
    all
}

/// A ConfigMap of namespace `shop`.
pub(super) fn config(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}, "data": {"a": "1"}})
}

/// A namespace that is in use.
pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A refusal that does not pass.
pub(super) fn forbidden() -> ApiError {
    ApiError::status(403, "Forbidden", "not for you")
}
