//! A scripted façade, and the real server over it on a port of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use reprise::api::server::Options;
use reprise::api::{Context, Readiness, Server};
use reprise::model::{
    Bucket, Cancellation, Counts, GroupResource, ItemId, ItemKey, ItemState, Origin, Outcome, Phase, Progress, Reason,
    RestoreName, Stage, TimeLeft, TypedFinding, Waiting,
};
use reprise::service::{
    Code, CreateRestore, Error, FoundItems, ItemFilter, LogLine, Page, PageRequest, PlanEvent, PlanRestore, PlanSource,
    RequestId, RestoreResults, RestoreView, Restores, WatchEvent,
};
use reprise::telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Does what the test says.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) views: Mutex<BTreeMap<String, RestoreView>>,
    pub(crate) created: Mutex<Vec<CreateRestore>>,
    /// What was cancelled, by whom and why.
    pub(crate) cancelled: Mutex<Vec<(String, Cancellation)>>,
    request_ids: Mutex<HashMap<String, Option<RequestId>>>,
    /// Events of `watch` by name, and of `watch_all` under the empty name. The stream then stays open.
    pub(crate) scripts: Mutex<HashMap<String, Vec<WatchEvent>>>,
    pub(crate) log: Mutex<Vec<String>>,
    /// What `watch` was asked to resume after.
    pub(crate) resumed_after: Mutex<Vec<Option<u64>>>,
    /// Events of `plan`. The stream then stays open.
    pub(crate) plan: Mutex<Vec<PlanEvent>>,
    /// The plans that were asked for.
    pub(crate) planned: Mutex<Vec<PlanRestore>>,
    /// Every call fails with this.
    pub(crate) failure: Mutex<Option<Error>>,
    /// Subscriptions that are open now.
    pub(crate) subscriptions: Arc<AtomicUsize>,
    pub(crate) sandbox: AtomicBool,
}

struct Subscription(Arc<AtomicUsize>);

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    pub(crate) fn with(views: impl IntoIterator<Item = RestoreView>) -> Arc<Self> {
        let fake = Self::default();
        fake.views.lock().unwrap().extend(views.into_iter().map(|view| (view.name.clone(), view)));
        Arc::new(fake)
    }

    pub(crate) fn script(&self, name: &str, events: Vec<WatchEvent>) {
        self.scripts.lock().unwrap().insert(name.to_owned(), events);
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn view(&self, name: &RestoreName) -> Result<RestoreView, Error> {
        self.check()?;
        let missing = || Error::new(Code::NotFound, format!("there is no restore {name}"));
        self.views.lock().unwrap().get(name.as_str()).cloned().ok_or_else(missing)
    }

    /// The elements, and then nothing for ever, as a subscription that counts.
    fn subscribe<T: Send + 'static>(&self, elements: Vec<T>, stays_open: bool) -> BoxStream<'static, T> {
        self.subscriptions.fetch_add(1, Ordering::SeqCst);
        let subscription = Subscription(Arc::clone(&self.subscriptions));
        let rest = if stays_open { stream::pending().boxed() } else { stream::empty().boxed() };
        stream::iter(elements)
            .chain(rest)
            .map(move |element| {
                let _held = &subscription;
                element
            })
            .boxed()
    }
}

#[async_trait]
impl Restores for Fake {
    async fn create(&self, request: CreateRestore) -> Result<RestoreView, Error> {
        self.check()?;
        self.created.lock().unwrap().push(request.clone());
        let name = request.name.to_string();
        let mut ids = self.request_ids.lock().unwrap();
        if let Some(known) = ids.get(&name) {
            if request.request_id.is_some() && *known == request.request_id {
                return Ok(self.views.lock().unwrap()[&name].clone());
            }
            return Err(Error::new(Code::AlreadyExists, format!("restore {name} is there already")));
        }
        ids.insert(name.clone(), request.request_id);
        let mut view = view(&name, Phase::New, 0);
        view.spec = request.spec;
        view.labels = request.labels;
        view.annotations = request.annotations;
        self.views.lock().unwrap().insert(name, view.clone());
        Ok(view)
    }

    async fn cancel(&self, name: &RestoreName, cancellation: Cancellation) -> Result<RestoreView, Error> {
        let view = self.view(name)?;
        self.cancelled.lock().unwrap().push((name.to_string(), cancellation));
        Ok(view)
    }

    async fn get(&self, name: &RestoreName) -> Result<RestoreView, Error> {
        match name.as_str() {
            "panics" => panic!("asked to"),
            "never-answers" => std::future::pending().await,
            _ => self.view(name),
        }
    }

    async fn list(&self, page: PageRequest) -> Result<Page<RestoreView>, Error> {
        self.check()?;
        let views = self.views.lock().unwrap();
        let size = if page.size == 0 { 100 } else { page.size as usize };
        let mut rest = views.values().filter(|view| view.name > page.token).cloned();
        let elements: Vec<_> = rest.by_ref().take(size).collect();
        let more = rest.next().is_some();
        let next_page_token = elements.last().filter(|_| more).map(|view| view.name.clone()).unwrap_or_default();
        Ok(Page { elements, next_page_token })
    }

    async fn watch(&self, name: &RestoreName, after: Option<u64>) -> Result<BoxStream<'static, WatchEvent>, Error> {
        self.view(name)?;
        self.resumed_after.lock().unwrap().push(after);
        let events = self.scripts.lock().unwrap().get(name.as_str()).cloned().unwrap_or_default();
        Ok(self.subscribe(events, true))
    }

    async fn watch_all(&self) -> Result<BoxStream<'static, WatchEvent>, Error> {
        self.check()?;
        Ok(self.subscribe(self.scripts.lock().unwrap().get("").cloned().unwrap_or_default(), true))
    }

    async fn items(&self, name: &RestoreName, filter: ItemFilter, page: PageRequest) -> Result<FoundItems, Error> {
        self.view(name)?;
        let matches = |item: &ItemState| {
            (filter.outcomes.is_empty() || filter.outcomes.contains(&item.outcome))
                && filter.group_resource.as_ref().is_none_or(|resource| *resource == item.group_resource)
                && filter.namespace.as_ref().is_none_or(|namespace| **namespace == *item.key.namespace)
        };
        let all: Vec<_> = items().into_iter().filter(matches).collect();
        let (begin, size) = (page.token.parse().unwrap_or(0), if page.size == 0 { 100 } else { page.size as usize });
        let end = all.len().min(begin + size);
        let next_page_token = if end < all.len() { end.to_string() } else { String::new() };
        let matching = all.len() as u64;
        Ok(FoundItems { page: Page { elements: all[begin..end].to_vec(), next_page_token }, matching })
    }

    async fn item(&self, name: &RestoreName, id: u32) -> Result<ItemState, Error> {
        self.view(name)?;
        let missing = || Error::new(Code::NotFound, format!("there is no item {id}"));
        items().into_iter().find(|item| item.id.0 == id).ok_or_else(missing)
    }

    async fn results(&self, name: &RestoreName) -> Result<RestoreResults, Error> {
        self.view(name)?;
        let finding = |bucket, reason, message: &str| TypedFinding { bucket, reason, message: message.to_owned() };
        Ok(RestoreResults {
            warnings: vec![finding(Bucket::Cluster, Reason::Conflict, "exists and differs")],
            errors: vec![
                finding(Bucket::Namespace("shop".into()), Reason::Quota, "exceeded quota"),
                finding(Bucket::Velero, Reason::Archive, "cannot be read"),
            ],
            complete: true,
        })
    }

    async fn logs(&self, name: &RestoreName, follow: bool) -> Result<BoxStream<'static, LogLine>, Error> {
        self.view(name)?;
        let lines = self.log.lock().unwrap().iter().map(|text| LogLine { text: text.clone() }).collect();
        Ok(self.subscribe(lines, follow))
    }

    async fn plan(&self, request: PlanRestore) -> Result<BoxStream<'static, PlanEvent>, Error> {
        self.check()?;
        if let PlanSource::Restore(name) = &request.source {
            self.view(name)?;
        }
        self.planned.lock().unwrap().push(request);
        Ok(self.subscribe(self.plan.lock().unwrap().clone(), true))
    }

    fn is_sandbox(&self) -> bool {
        self.sandbox.load(Ordering::SeqCst)
    }
}

pub(crate) fn progress(phase: Phase, sequence: u64) -> Progress {
    let outcomes = Counts { pending: 6, created: 3, failed: 1, ..Counts::default() };
    Progress {
        sequence,
        phase,
        stage: if phase.is_terminal() { Stage::Done } else { Stage::Items },
        total_items: 10,
        items_restored: 4,
        outcomes,
        added: 1,
        stages: BTreeMap::from([(Stage::Items, outcomes)]),
        resources: BTreeMap::from([(GroupResource::parse("deployments.apps"), outcomes)]),
        namespaces: BTreeMap::from([(String::new(), Counts::default()), ("shop".to_owned(), outcomes)]),
        failures: BTreeMap::from([(Reason::DeniedByAdmission, 1)]),
        warnings: 2,
        errors: 1,
        items_per_second: Some(12.5),
        started_at: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        elapsed_seconds: 1.5,
        last_progress_at: Some("2026-01-02T03:04:06.5Z".parse().unwrap()),
        time_left: Some(TimeLeft { low_seconds: 3, high_seconds: 8 }),
        waiting_for: vec![Waiting { object: "namespace shop".into(), request: "create".into(), reason: None }],
        failure_reason: None,
    }
}

pub(crate) fn view(name: &str, phase: Phase, sequence: u64) -> RestoreView {
    RestoreView {
        name: name.to_owned(),
        namespace: "velero".to_owned(),
        uid: "6f1c".to_owned(),
        backup_name: "nightly".to_owned(),
        spec: serde_json::json!({"backupName": "nightly", "restorePVs": false}),
        labels: BTreeMap::from([("team".to_owned(), "shop".to_owned())]),
        annotations: BTreeMap::new(),
        phase,
        validation_errors: Vec::new(),
        failure_reason: None,
        warnings: 2,
        errors: 1,
        created_at: Some("2026-01-02T03:04:04Z".parse().unwrap()),
        started_at: None,
        completed_at: None,
        progress: Arc::new(progress(phase, sequence)),
        queue_position: None,
        sandbox: false,
    }
}

pub(crate) fn item(id: u32, outcome: Outcome, reason: Option<Reason>) -> ItemState {
    ItemState {
        id: ItemId(id),
        group_resource: GroupResource::parse("deployments.apps"),
        key: ItemKey::new("apps/v1", "Deployment", "shop", &format!("web-{id}")),
        origin: Origin::Planned,
        outcome,
        reason,
        message: reason.map(|_| "because".to_owned()),
        attempts: 1,
        duration: Duration::from_millis(1_250),
    }
}

fn items() -> Vec<ItemState> {
    vec![
        item(0, Outcome::Created, None),
        item(1, Outcome::Failed, Some(Reason::Quota)),
        item(2, Outcome::Skipped, Some(Reason::MirrorPod)),
        item(3, Outcome::Failed, Some(Reason::DeniedByAdmission)),
    ]
}

/// What a watch of a small restore tells: a snapshot at 10, items 11 and 14 with a gap between, the end at 20.
pub(crate) fn small_restore(name: &str) -> Vec<WatchEvent> {
    let named: Arc<str> = Arc::from(name);
    let item = |sequence, outcome, reason| WatchEvent::Item {
        name: Arc::clone(&named),
        sequence,
        item: Arc::new(item(u32::try_from(sequence).unwrap(), outcome, reason)),
    };
    vec![
        WatchEvent::Snapshot(Box::new(view(name, Phase::InProgress, 10))),
        item(11, Outcome::Created, None),
        WatchEvent::Progress { name: Arc::clone(&named), progress: Arc::new(progress(Phase::InProgress, 18)) },
        WatchEvent::Gap { name: Arc::clone(&named), from: 12, to: 13 },
        item(14, Outcome::Failed, Some(Reason::Quota)),
        WatchEvent::Ended(Box::new(view(name, Phase::Completed, 20))),
    ]
}

/// The real server on a port of its own.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) task: JoinHandle<usize>,
}

impl Running {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits for the end of the server; gives the number of connections that were cut off.
    pub(crate) async fn ended(self) -> usize {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the server ends").unwrap()
    }
}

pub(crate) async fn serve(fake: &Arc<Fake>) -> Running {
    serve_with(fake, Options::default(), |context| context).await
}

pub(crate) async fn serve_with(fake: &Arc<Fake>, options: Options, change: impl FnOnce(Context) -> Context) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (shutdown, metrics, readiness) = (CancellationToken::new(), Metrics::default(), Readiness::default());
    let restores: Arc<dyn Restores> = Arc::clone(fake) as _;
    let context =
        Context::new(restores, shutdown.clone()).with_metrics(metrics.clone()).with_readiness(readiness.clone());
    let server = Server::new(listener, change(context), options).unwrap();
    let address = server.address();
    Running { address, shutdown, metrics, readiness, task: tokio::spawn(server.run()) }
}

/// Waits until something holds that another task brings about.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}
