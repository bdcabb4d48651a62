//! Plans of restores against the live cluster: the use case behind `PlanRestore`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use kube::api::ObjectMeta;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::check;
use super::execute::Executor;
use super::record_store::{from_kube, spec};
use super::source::Source;
use crate::archive;
use crate::engine::ports::{ApiError, DryRun};
use crate::engine::preview;
use crate::model::{PlanStep, RestoreName, error_chain};
use crate::service::plans::{PlanBegun, PlanEvent, PlanRestore, PlanSource, Plans};
use crate::service::{Code, Error};
use crate::velero::Restore;

/// How many plans are made at a time. Each has a download, a spool file and requests in flight like a restore.
pub const AT_ONCE: usize = 2;

/// Events between the work and a reader.
const WINDOW: usize = 256;

/// How long a reader may take nothing, before its plan is given up and makes room for another.
const READER_PATIENCE: Duration = Duration::from_secs(60);

/// Makes plans with what restores are executed with.
pub struct Previews {
    executor: Executor,
    cluster: Arc<dyn DryRun>,
    default_item_operation_timeout: String,
    sandbox: bool,
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Previews {
    /// Plans on this cluster, until `stop` fires.
    #[must_use]
    pub fn new(
        executor: Executor,
        cluster: Arc<dyn DryRun>,
        default_item_operation_timeout: &str,
        sandbox: bool,
        stop: CancellationToken,
    ) -> Self {
        let default_item_operation_timeout = default_item_operation_timeout.to_owned();
        let room = Arc::new(Semaphore::new(AT_ONCE));
        Self { executor, cluster, default_item_operation_timeout, sandbox, room, stop }
    }

    /// The Restore that is asked for, valid and with what it is restored from.
    async fn restore(&self, wanted: PlanSource) -> Result<(Restore, Source), Error> {
        let (mut restore, code) = match wanted {
            PlanSource::Restore(name) => (self.existing(&name).await?, Code::FailedPrecondition),
            PlanSource::Spec { name, spec: wanted } => {
                let metadata = ObjectMeta { name: name.map(|name| name.to_string()), ..ObjectMeta::default() };
                (Restore { metadata, spec: spec(&wanted)?, status: None }, Code::InvalidArgument)
            }
        };
        let timeout = &self.default_item_operation_timeout;
        let (source, errors) = check::check(&self.executor.records, &mut restore.spec, timeout).await;
        let (Some(source), true) = (source, errors.is_empty()) else {
            return Err(Error::invalid_spec(code, errors));
        };
        let backup = source.backup.metadata.name.as_deref().unwrap_or_default();
        // As Velero names a restore that is given no name.
        let made = || format!("{backup}-{}", Timestamp::now().strftime("%Y%m%d%H%M%S"));
        restore.metadata.name.get_or_insert_with(made);
        // Names and labels are made of it; that of a restore to come is another, and as good.
        restore.metadata.uid.get_or_insert_with(|| uuid::Uuid::new_v4().to_string());
        Ok((restore, source))
    }

    async fn existing(&self, name: &RestoreName) -> Result<Restore, Error> {
        if let Some(known) = self.executor.restores.get(name.as_str()) {
            return Ok(Restore::clone(&known));
        }
        let found = self.executor.records.restores().get_opt(name.as_str()).await.map_err(|error| from_kube(&error))?;
        found.ok_or_else(|| {
            let name = name.as_str();
            Error::new(Code::NotFound, format!("there is no restore named {name:?}: list them, or plan a spec"))
        })
    }
}

/// A plan whose request is right; the backup is still to be read, which may take longer than an answer may.
struct Wanted {
    executor: Executor,
    cluster: Arc<dyn DryRun>,
    restore: Restore,
    source: Source,
    dry_run: bool,
    sandbox: bool,
    stop: CancellationToken,
}

impl Wanted {
    async fn prepare(self) -> Result<Prepared, Error> {
        let Self { executor, cluster, restore, source, dry_run, sandbox, stop } = self;
        let backup = source.backup.metadata.name.clone().unwrap_or_default();
        let unavailable = |message: String| Error::new(Code::Unavailable, message);
        let location = executor.stores.open(&executor.records, &source.location).await.map_err(unavailable)?;
        let (job, _) = executor.job(&restore, &source, &location, &backup).await.map_err(unavailable)?;
        let archive = executor.download(&location, &backup, &job, || (), &stop).await.map_err(|error| match error {
            archive::Error::Cancelled => unavailable("the service is shutting down: try again in a moment".to_owned()),
            archive::Error::Source(error) => unavailable(format!("download backup {backup}: {}", error_chain(&error))),
            damage => Error::new(Code::FailedPrecondition, format!("read backup {backup}: {}", error_chain(&damage))),
        })?;
        let begun = PlanBegun { restore: job.restore_name.clone(), backup, items: 0, dry_run, sandbox };
        let steps = preview::preview(job, Arc::new(archive), cluster, preview::Options { dry_run }, stop);
        Ok(Prepared { begun, steps })
    }

    /// Makes the plan, as fast as it is taken.
    async fn make(self, events: mpsc::Sender<PlanEvent>) {
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared,
            () = events.closed() => return,
        };
        match prepared {
            Ok(prepared) => prepared.pump(events).await,
            // Nobody listens any more where it cannot be sent.
            Err(error) => drop(events.send(PlanEvent::Failed(error)).await),
        }
    }
}

struct Prepared {
    begun: PlanBegun,
    steps: BoxStream<'static, Result<PlanStep, ApiError>>,
}

impl Prepared {
    fn event(&self, step: Result<PlanStep, ApiError>) -> PlanEvent {
        match step {
            Ok(PlanStep::Begun(items)) => PlanEvent::Begun(PlanBegun { items, ..self.begun.clone() }),
            Ok(PlanStep::Entry(entry)) => PlanEvent::Entry(entry),
            Ok(PlanStep::Ended(summary)) => PlanEvent::Ended(summary),
            Err(error) => {
                let message = format!("error asking the API server what it serves: {error}");
                PlanEvent::Failed(Error::new(Code::Unavailable, message))
            }
        }
    }

    /// Hands the events over, as fast as they are taken.
    async fn pump(mut self, events: mpsc::Sender<PlanEvent>) {
        while let Some(step) = self.steps.next().await {
            let event = self.event(step);
            match events.send_timeout(event, READER_PATIENCE).await {
                Ok(()) => {}
                Err(mpsc::error::SendTimeoutError::Closed(_)) => return,
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                    tracing::info!(restore = self.begun.restore, "a plan is given up, as its reader takes nothing");
                    return;
                }
            }
        }
    }
}

/// The reader's end: dropping it ends the work.
struct Reader {
    events: mpsc::Receiver<PlanEvent>,
    stop: CancellationToken,
    _stops_with_it: DropGuard,
    task: Option<JoinHandle<()>>,
}

impl Reader {
    async fn next(&mut self) -> Option<PlanEvent> {
        let event = match self.events.recv().await {
            Some(event) => event,
            None => self.broken_off().await?,
        };
        if !matches!(event, PlanEvent::Begun(_) | PlanEvent::Entry(_)) {
            self.task = None;
        }
        Some(event)
    }

    /// The last event where the work ended without one; `None` after the last.
    async fn broken_off(&mut self) -> Option<PlanEvent> {
        let ended = self.task.take()?.await;
        Some(match ended {
            _ if self.stop.is_cancelled() => PlanEvent::ShuttingDown,
            Ok(()) => {
                let message = format!(
                    "nothing of the plan was taken for {} seconds, so it was given up: ask again, and read faster",
                    READER_PATIENCE.as_secs()
                );
                PlanEvent::Failed(Error::new(Code::DeadlineExceeded, message))
            }
            Err(error) => {
                PlanEvent::Failed(Error::new(Code::Internal, format!("making the plan ended unexpectedly: {error}")))
            }
        })
    }
}

#[async_trait]
impl Plans for Previews {
    async fn plan(&self, request: PlanRestore) -> Result<BoxStream<'static, PlanEvent>, Error> {
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            let message = format!("{AT_ONCE} plans are being made, which is as many as may be: try again in a while");
            Error::new(Code::ResourceExhausted, message)
        })?;
        let PlanRestore { source, dry_run } = request;
        let stop = self.stop.child_token();
        let guard = stop.clone().drop_guard();
        let (restore, source) = self.restore(source).await?;
        let wanted = Wanted {
            executor: self.executor.clone(),
            cluster: Arc::clone(&self.cluster),
            restore,
            source,
            dry_run,
            sandbox: self.sandbox,
            stop,
        };
        let (sender, events) = mpsc::channel(WINDOW);
        // Owned by the reader, which it does not outlive by more than the requests that are under way.
        let task = tokio::spawn(async move {
            wanted.make(sender).await;
            drop(room);
        });
        let reader = Reader { events, stop: self.stop.clone(), _stops_with_it: guard, task: Some(task) };
        let events =
            stream::unfold(reader, |mut reader| async move { reader.next().await.map(|event| (event, reader)) });
        Ok(events.boxed())
    }
}
