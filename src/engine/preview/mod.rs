//! What a restore would do to the live cluster, item by item, without writing anything.
//!
//! There is no second engine for it: [`preview`] runs the very restore, on a cluster whose writes are dry runs
//! (`Overlay`), and tells the outcomes that its items would have. So a plan and the restore cannot differ in how an
//! object is stripped, changed, placed, compared or counted.
//!
//! # Guarantees
//! - Nothing is written: the overlay holds the cluster as [`ReadOnly`], which has no way to write.
//! - Every planned item gets exactly one entry, in the order of the plan. Additional items and namespaces come in front of
//!   what wants them, each once.
//! - The work goes on only as fast as the stream is read; dropping the stream ends it.

mod entries;
mod overlay;
mod read_only;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(in crate::engine) use overlay::Overlay;
pub use read_only::ReadOnly;

use super::job::Job;
use super::ports::exec::NoExec;
use super::ports::{ApiError, DryRun};
use super::run::{Report, run_with};
use crate::archive::Archive;
use crate::model::PlanStep;
use entries::Entries;

/// How long a preview waits for a volume that is being deleted: a glance, where a restore has patience.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a preview is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether each create and update is tried by a dry run; without, objects are looked up and compared, and the
    /// permissions asked for.
    pub dry_run: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { dry_run: true }
    }
}

/// Tells what the restore would do: first how many items it has, then each item, then the sum.
///
/// # Errors
/// The stream ends with one when the API server cannot be asked what it serves.
#[must_use]
pub fn preview(
    mut job: Job,
    archive: Arc<Archive>,
    cluster: Arc<dyn DryRun>,
    options: Options,
    stop: CancellationToken,
) -> BoxStream<'static, Result<PlanStep, ApiError>> {
    job.settings.terminating_resource_timeout = job.settings.terminating_resource_timeout.min(PATIENCE);
    let overlay = Arc::new(Overlay::new(ReadOnly::new(cluster), options));
    let (steps, received) = mpsc::unbounded_channel();
    let entries = Arc::new(Entries::new(Arc::clone(&overlay), steps, options));
    let (told, exec) = (Arc::clone(&entries) as _, Arc::new(NoExec("a preview runs nothing")));
    let run = run_with(Arc::new(job), archive, Arc::clone(&overlay) as _, exec, Some(overlay), told, stop);
    let work = Work { run: Some(Box::pin(run)), received, entries, report: None };
    stream::unfold(work, |mut work| async move { work.next().await.map(|step| (step, work)) }).boxed()
}

/// A preview on its way. The run is polled from here alone, and only when all it told so far was taken: a slow reader
/// slows the work down instead of piling it up.
struct Work {
    run: Option<BoxFuture<'static, Result<Report, ApiError>>>,
    received: mpsc::UnboundedReceiver<PlanStep>,
    entries: Arc<Entries>,
    report: Option<Report>,
}

impl Work {
    async fn next(&mut self) -> Option<Result<PlanStep, ApiError>> {
        while let Some(run) = &mut self.run {
            tokio::select! {
                biased;
                Some(step) = self.received.recv() => return Some(Ok(step)),
                ended = run => {
                    self.run = None;
                    self.entries.close();
                    match ended {
                        Ok(report) => self.report = Some(report),
                        Err(error) => return Some(Err(error)),
                    }
                }
            }
        }
        if let Ok(step) = self.received.try_recv() {
            return Some(Ok(step));
        }
        let report = self.report.take()?;
        Some(Ok(PlanStep::Ended(Box::new(self.entries.summary(&report)))))
    }
}
