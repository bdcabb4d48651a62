//! Plans made fit for a door: counted among the streams, and ended when the service goes down.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::Context;
use crate::service::{Error, PlanEvent, PlanRestore};
use crate::telemetry::metrics::Door;

/// A plan; its last event is ended, failed or shutting down.
///
/// # Errors
/// Those of [`crate::service::Restores::plan`], and `ResourceExhausted` when too many streams are open.
pub async fn plan(context: &Context, door: Door, request: PlanRestore) -> Result<BoxStream<'static, PlanEvent>, Error> {
    let guard = context.open_stream(door)?;
    let source = context.restores.plan(request).await?;
    let state = Some((source, context.shutdown.clone(), guard));
    Ok(stream::unfold(state, |state| async move {
        let (mut source, shutdown, guard) = state?;
        let event = tokio::select! {
            biased;
            () = shutdown.cancelled() => PlanEvent::ShuttingDown,
            event = source.next() => event.unwrap_or(PlanEvent::ShuttingDown),
        };
        let goes_on = matches!(event, PlanEvent::Begun(_) | PlanEvent::Entry(_)).then_some((source, shutdown, guard));
        Some((event, goes_on))
    })
    .boxed())
}
