//! What every handler has at hand.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Readiness;
use crate::service::{Code, Error, Restores};
use crate::telemetry::metrics::{Door, Metrics, Subscriber};

/// How often an idle SSE stream carries a comment. Proxies commonly cut a silent connection after 30 to 60 s.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// How many streams may be open at a time: ten thousand subscribers, which a restore must bear, and some room.
pub const MAX_STREAMS: usize = 12_000;

/// What every handler has at hand; cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The façade.
    pub restores: Arc<dyn Restores>,
    /// Cancelled when the service goes down: every stream ends then.
    pub shutdown: CancellationToken,
    /// Where streams and requests are counted.
    pub metrics: Metrics,
    /// Whether the service is ready; gRPC health tells it.
    pub readiness: Readiness,
    /// How often an idle SSE stream carries a comment.
    pub heartbeat: Duration,
    streams: Arc<Semaphore>,
}

impl Context {
    /// A context with the default limits, metrics that nobody reads, and a service that is ready at once.
    #[must_use]
    pub fn new(restores: Arc<dyn Restores>, shutdown: CancellationToken) -> Self {
        Self {
            restores,
            shutdown,
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            heartbeat: HEARTBEAT,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// Counts into these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Tells this readiness.
    #[must_use]
    pub fn with_readiness(self, readiness: Readiness) -> Self {
        Self { readiness, ..self }
    }

    /// Sends heartbeats this often.
    #[must_use]
    pub fn with_heartbeat(self, heartbeat: Duration) -> Self {
        Self { heartbeat, ..self }
    }

    /// Allows so many open streams.
    #[must_use]
    pub fn with_max_streams(self, streams: usize) -> Self {
        Self { streams: Arc::new(Semaphore::new(streams)), ..self }
    }

    /// Room for one more stream.
    ///
    /// # Errors
    /// [`Code::ResourceExhausted`] when too many are open, [`Code::Unavailable`] when the service goes down.
    pub fn open_stream(&self, door: Door) -> Result<StreamGuard, Error> {
        if self.shutdown.is_cancelled() {
            return Err(Error::new(Code::Unavailable, "the service is shutting down: try again in a moment"));
        }
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Error::new(Code::ResourceExhausted, "too many streams are open: close some, or try again later")
        })?;
        Ok(StreamGuard { _permit: permit, _subscriber: self.metrics.subscriber(door) })
    }
}

/// The room of one open stream; dropping it makes room for another.
#[derive(Debug)]
pub struct StreamGuard {
    _permit: OwnedSemaphorePermit,
    _subscriber: Subscriber,
}
