//! The one behaviour behind all doors: Restore objects, joined with the progress of those that run here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};

use super::plans::{PlanEvent, PlanRestore, Plans};
use super::records::{Record, Records};
use super::{
    Code, CreateRestore, Error, FoundItems, LogLine, Page, PageRequest, RestoreResults, RestoreView, Restores,
    WatchEvent, observed,
};
use crate::model::{
    Bucket, Cancellation, GroupResource, ItemFilter, ItemId, ItemKey, ItemState, Messages, Origin, Outcome, Progress,
    Reason, RestoreName, Stage, TypedFinding,
};
use crate::progress::{Hub, KeptFindings, RestoreProgress, Update};

/// Pause before a record that could not be read is asked for again.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// Joins the records of Restores with their progress. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    pub(super) records: Arc<dyn Records>,
    hub: Hub,
    plans: Option<Arc<dyn Plans>>,
    /// Whether somebody else executes the restores.
    pub(super) observing: bool,
}

impl Service {
    /// A service over these records and this progress.
    #[must_use]
    pub fn new(records: Arc<dyn Records>, hub: Hub) -> Self {
        Self { records, hub, plans: None, observing: false }
    }

    /// Lets these make plans; without, none are made.
    #[must_use]
    pub fn with_plans(self, plans: Arc<dyn Plans>) -> Self {
        Self { plans: Some(plans), ..self }
    }

    async fn record(&self, name: &RestoreName) -> Result<Record, Error> {
        self.records.get(name.as_str()).await?.ok_or_else(|| not_found(name))
    }

    fn view(&self, record: Record) -> RestoreView {
        let followed = self.hub.get(&record.name);
        let progress = followed.map_or_else(|| Arc::new(recorded_progress(&record)), |followed| followed.latest());
        self.view_with(record, progress)
    }

    /// Progress and record are read one after the other; what the stream says of the phase is newer.
    fn view_with(&self, record: Record, progress: Arc<Progress>) -> RestoreView {
        let phase = if progress.phase.is_terminal() { progress.phase } else { record.phase };
        RestoreView {
            name: record.name,
            namespace: record.namespace,
            uid: record.uid,
            backup_name: record.backup_name,
            spec: record.spec,
            labels: record.labels,
            annotations: record.annotations,
            phase,
            validation_errors: record.validation_errors,
            failure_reason: record.failure_reason.or_else(|| progress.failure_reason.clone()),
            warnings: record.warnings.max(progress.warnings),
            errors: record.errors.max(progress.errors),
            created_at: record.created_at,
            started_at: record.started_at.or(progress.started_at),
            completed_at: record.completed_at,
            queue_position: record.queue_position,
            sandbox: self.records.is_sandbox(),
            progress,
        }
    }

    /// The view that goes with an update of a stream; `None` once the Restore is gone. That it cannot be read now says nothing
    /// of the kind: it is asked for again, as long as somebody waits for the stream.
    async fn joined(&self, name: &str, progress: Arc<Progress>) -> Option<RestoreView> {
        loop {
            match self.records.get(name).await {
                Ok(record) => return record.map(|record| self.view_with(record, progress)),
                Err(error) => {
                    tracing::debug!(restore = name, %error, "a Restore cannot be read for a stream; trying again");
                    tokio::time::sleep(READ_AGAIN).await;
                }
            }
        }
    }

    async fn event(&self, name: Arc<str>, update: Update) -> WatchEvent {
        match update {
            Update::Snapshot(progress) => match self.joined(&name, progress).await {
                Some(view) => WatchEvent::Snapshot(Box::new(view)),
                None => WatchEvent::Deleted { name },
            },
            Update::Progress(progress) => WatchEvent::Progress { name, progress },
            Update::Item { sequence, item } => WatchEvent::Item { name, sequence, item },
            Update::Gap { from, to } => WatchEvent::Gap { name, from, to },
            Update::Ended(progress) => match self.joined(&name, progress).await {
                Some(view) => WatchEvent::Ended(Box::new(view)),
                None => WatchEvent::Deleted { name },
            },
            Update::Deleted => WatchEvent::Deleted { name },
            Update::ShuttingDown => WatchEvent::ShuttingDown,
        }
    }

    fn followed(&self, name: &RestoreName) -> Option<Arc<RestoreProgress>> {
        self.hub.get(name.as_str())
    }

    /// The progress of a restore that is executed here, which alone knows items, findings and log.
    fn executed(&self, name: &RestoreName) -> Option<Arc<RestoreProgress>> {
        self.followed(name).filter(|_| !self.observing)
    }

    /// The progress of a Restore that has not ended. One that was only just made can be asked for before the
    /// controller has seen it; it is followed from here on then, so that a stream of it lasts until its end.
    pub(super) fn followed_or_new(&self, name: &RestoreName, record: &Record) -> Option<Arc<RestoreProgress>> {
        match self.followed(name) {
            None if !record.phase.is_terminal() => self.hub.create(name).ok().or_else(|| self.followed(name)),
            known => known,
        }
    }

    /// Items of a restore that ended before this process began: what its resource list has kept.
    async fn recorded_items(&self, name: &RestoreName) -> Result<Vec<ItemState>, Error> {
        let record = self.record(name).await?;
        self.check_items_are_known(&record)?;
        if !record.phase.is_terminal() {
            return Ok(Vec::new());
        }
        Ok(self.records.resource_list(name.as_str()).await?.map_or_else(Vec::new, |list| items_of(&list)))
    }
}

#[async_trait]
impl Restores for Service {
    async fn create(&self, request: CreateRestore) -> Result<RestoreView, Error> {
        self.check_executes("creating a restore")?;
        let record = self.records.create(&request).await?;
        Ok(self.view(record))
    }

    async fn cancel(&self, name: &RestoreName, cancellation: Cancellation) -> Result<RestoreView, Error> {
        self.check_executes("cancelling a restore")?;
        check_goes_on(&self.record(name).await?)?;
        let record = self.records.cancel(name.as_str(), &cancellation).await?;
        // It may have ended meanwhile, by itself.
        check_goes_on(&record)?;
        Ok(self.view(record))
    }

    async fn get(&self, name: &RestoreName) -> Result<RestoreView, Error> {
        Ok(self.view(self.record(name).await?))
    }

    async fn list(&self, page: PageRequest) -> Result<Page<RestoreView>, Error> {
        let size = page_size(&page);
        // One more than asked for tells whether there is a next page.
        let mut records = self.records.list(&page.token, size + 1).await?;
        let more = records.len() > size;
        records.truncate(size);
        let next_page_token = if more { records.last().map(|last| last.name.clone()) } else { None };
        let elements = records.into_iter().map(|record| self.view(record)).collect();
        Ok(Page { elements, next_page_token: next_page_token.unwrap_or_default() })
    }

    async fn watch(&self, name: &RestoreName, after: Option<u64>) -> Result<BoxStream<'static, WatchEvent>, Error> {
        let record = self.record(name).await?;
        let Some(followed) = self.followed_or_new(name, &record) else {
            let view = self.view(record);
            return Ok(ended_before(view));
        };
        let (service, name) = (self.clone(), Arc::clone(followed.name()));
        let updates = followed.subscribe(after).into_stream();
        Ok(updates
            .then(move |update| {
                let (service, name) = (service.clone(), Arc::clone(&name));
                async move { service.event(name, update).await }
            })
            .boxed())
    }

    async fn watch_all(&self) -> Result<BoxStream<'static, WatchEvent>, Error> {
        let mut recorded = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.records.list(&after, PageRequest::MAX_SIZE as usize).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.name);
            recorded.extend(page);
        }
        // Those that are followed come with their own snapshot.
        let ended = recorded.into_iter().filter(|record| self.hub.get(&record.name).is_none());
        let snapshots: Vec<WatchEvent> =
            ended.map(|record| WatchEvent::Snapshot(Box::new(self.view(record)))).collect();
        let service = self.clone();
        let live = self.hub.watch_all(false).then(move |named| {
            let service = service.clone();
            async move { service.event(named.name.unwrap_or_default(), named.update).await }
        });
        Ok(stream::iter(snapshots).chain(live).boxed())
    }

    async fn items(&self, name: &RestoreName, filter: ItemFilter, page: PageRequest) -> Result<FoundItems, Error> {
        let after = match page.token.as_str() {
            "" => None,
            token => {
                let number = token.parse().map_err(|_| {
                    Error::invalid(
                        "pageToken",
                        format!("{token:?} is no page token: take nextPageToken of the page before"),
                    )
                })?;
                Some(ItemId(number))
            }
        };
        let size = page_size(&page);
        let (elements, matching, more) = match self.executed(name) {
            Some(followed) => {
                let found = followed.items(&filter, after, size);
                (found.items, found.matching, found.next.is_some())
            }
            None => {
                let all = self.recorded_items(name).await?;
                let matching: Vec<ItemState> = all.into_iter().filter(|item| filter.matches(item)).collect();
                let count = u64::try_from(matching.len()).unwrap_or(u64::MAX);
                let mut rest = matching.into_iter().filter(|item| after.is_none_or(|after| item.id > after));
                let elements: Vec<ItemState> = rest.by_ref().take(size).collect();
                (elements, count, rest.next().is_some())
            }
        };
        let last = elements.last().map(|item| item.id.0.to_string());
        let next_page_token = if more { last.unwrap_or_default() } else { String::new() };
        Ok(FoundItems { page: Page { elements, next_page_token }, matching })
    }

    async fn item(&self, name: &RestoreName, id: u32) -> Result<ItemState, Error> {
        let found = match self.executed(name) {
            Some(followed) => followed.item(ItemId(id)),
            None => self.recorded_items(name).await?.into_iter().find(|item| item.id == ItemId(id)),
        };
        found.ok_or_else(|| Error::new(Code::NotFound, format!("restore {name} has no item {id}")))
    }

    async fn results(&self, name: &RestoreName) -> Result<RestoreResults, Error> {
        let record = self.record(name).await?;
        if let Some(followed) = self.executed(name) {
            let KeptFindings { warnings, errors, .. } = followed.findings();
            return Ok(RestoreResults { warnings, errors, complete: followed.has_ended() });
        }
        let results = self.records.results(name.as_str()).await?.unwrap_or_default();
        Ok(RestoreResults {
            warnings: typed(results.warnings),
            errors: typed(results.errors),
            complete: record.phase.is_terminal(),
        })
    }

    async fn logs(&self, name: &RestoreName, follow: bool) -> Result<BoxStream<'static, LogLine>, Error> {
        let record = self.record(name).await?;
        if self.observing {
            return self.observed_log(name, &record, follow).await;
        }
        if let Some(followed) = self.followed_or_new(name, &record) {
            return Ok(followed.log_lines(follow).into_stream().map(|text| LogLine { text }).boxed());
        }
        let text = self.records.log(name.as_str()).await?.ok_or_else(|| no_log(name))?;
        Ok(stream::iter(observed::lines(&text)).boxed())
    }

    async fn plan(&self, request: PlanRestore) -> Result<BoxStream<'static, PlanEvent>, Error> {
        match &self.plans {
            Some(plans) => plans.plan(request).await,
            None if self.observing => {
                let message = "this service only observes (--observe), and cannot ask the cluster by dry runs: make the plan with \
                               `reprise restore plan --from … --against-cluster`, or with a service that executes restores";
                Err(Error::new(Code::FailedPrecondition, message))
            }
            None => Err(Error::new(Code::Unimplemented, "this service makes no plans")),
        }
    }

    fn is_sandbox(&self) -> bool {
        self.records.is_sandbox()
    }

    fn is_observing(&self) -> bool {
        self.observing
    }
}

fn check_goes_on(record: &Record) -> Result<(), Error> {
    if !record.phase.is_terminal() {
        return Ok(());
    }
    let message = format!(
        "restore {} has ended ({}) and can no longer be cancelled: what it restored stays; delete the Restore to remove its \
         files",
        record.name,
        record.phase.as_str()
    );
    Err(Error::new(Code::FailedPrecondition, message))
}

fn not_found(name: &RestoreName) -> Error {
    Error::new(
        Code::NotFound,
        format!("there is no restore named {name:?}: list them to see which there are", name = name.as_str()),
    )
}

pub(super) fn no_log(name: &RestoreName) -> Error {
    Error::new(Code::NotFound, format!("restore {name} has no log: it did not get as far as writing one"))
}

fn page_size(page: &PageRequest) -> usize {
    let size = if page.size == 0 { PageRequest::DEFAULT_SIZE } else { page.size.min(PageRequest::MAX_SIZE) };
    size as usize
}

/// What a Restore tells of its progress when nobody here followed it.
fn recorded_progress(record: &Record) -> Progress {
    let elapsed = record.started_at.zip(record.completed_at).map(|(begun, ended)| ended.duration_since(begun));
    Progress {
        phase: record.phase,
        stage: if record.phase.is_terminal() { Stage::Done } else { Stage::Queued },
        total_items: record.total_items,
        items_restored: record.items_restored,
        warnings: record.warnings,
        errors: record.errors,
        started_at: record.started_at,
        elapsed_seconds: elapsed.map_or(0.0, |elapsed| elapsed.as_secs_f64()),
        last_progress_at: record.completed_at,
        failure_reason: record.failure_reason.clone(),
        ..Progress::default()
    }
}

/// The stream of a restore that ended before this process began, or longer ago than is kept: its state, and the end.
fn ended_before(view: RestoreView) -> BoxStream<'static, WatchEvent> {
    let view = Box::new(view);
    stream::iter([WatchEvent::Snapshot(view.clone()), WatchEvent::Ended(view)]).boxed()
}

/// A results file has no typed reasons.
fn typed(messages: Messages) -> Vec<TypedFinding> {
    let finding =
        |bucket: Bucket| move |message| TypedFinding { bucket: bucket.clone(), reason: Reason::Other, message };
    let velero = messages.velero.into_iter().map(finding(Bucket::Velero));
    let cluster = messages.cluster.into_iter().map(finding(Bucket::Cluster));
    let namespaces = messages
        .namespaces
        .into_iter()
        .flat_map(|(namespace, messages)| messages.into_iter().map(finding(Bucket::Namespace(namespace))));
    velero.chain(cluster).chain(namespaces).collect()
}

/// Items from a resource list: `apiVersion/Kind` to `namespace/name(action)` (restore-semantics 6.5).
fn items_of(list: &BTreeMap<String, Vec<String>>) -> Vec<ItemState> {
    let entries = list.iter().flat_map(|(kind, entries)| entries.iter().map(move |entry| (kind, entry)));
    (0_u32..).zip(entries).filter_map(|(number, (kind, entry))| item_of(ItemId(number), kind, entry)).collect()
}

fn item_of(id: ItemId, api_version_kind: &str, entry: &str) -> Option<ItemState> {
    let (path, action) = entry.strip_suffix(')')?.rsplit_once('(')?;
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    let (api_version, kind) = api_version_kind.rsplit_once('/')?;
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let outcome = match action {
        "created" => Outcome::Created,
        "updated" => Outcome::Updated,
        "skipped" => Outcome::Skipped,
        _ => Outcome::Failed,
    };
    Some(ItemState {
        id,
        // The list names kinds; the plural is not in it, so the kind stands for the resource.
        group_resource: GroupResource::new(&kind.to_lowercase(), group),
        key: ItemKey::new(api_version, kind, namespace, name),
        origin: Origin::Planned,
        outcome,
        reason: None,
        message: None,
        attempts: 0,
        duration: std::time::Duration::ZERO,
    })
}
