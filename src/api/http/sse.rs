//! Server-Sent Events (the HTML standard, section 9.2).
//!
//! `id` is the number to resume after, which a browser gives back as `Last-Event-ID`. A browser comes back whenever a
//! stream ends, so that a client which has the end of a finished restore gets 204, upon which it stays away.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::BoxStream;
use futures::{StreamExt as _, future, stream};

use super::body::Event;
use super::problem::{Problem, ProblemBody};
use super::request::{Name, Params, resume_after};
use crate::api::Context;
use crate::api::watch::{self, Numbered};
use crate::telemetry::metrics::Door;

/// How long a browser waits before it comes back: longer than most restarts of a connection, shorter than anybody's
/// patience.
const RETRY: Duration = Duration::from_secs(2);

/// Follows one restore: a snapshot, then progress and items, then the end.
#[utoipa::path(
    get, path = "/api/v1/restores/{name}/events", operation_id = "watchRestore", tag = "events",
    description = "Server-Sent Events named snapshot, progress, item, gap, ended, deleted and shutting-down. `id` is \
        the number to resume after. Idle streams carry a comment every 15 seconds.",
    params(
        ("name" = String, Path, description = "Name of the Restore"),
        ("after" = Option<u64>, Query, description = "Resume after this `id`; Last-Event-ID goes before it"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Resume after this `id`"),
    ),
    responses(
        (status = 200, description = "Events", body = Event, content_type = "text/event-stream"),
        (status = 204, description = "The restore is over and the client has its end already"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(context): State<Context>,
    Name(name): Name,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = resume_after(&headers, &Params::parse(&uri, &["after"])?)?;
    if let Some(after) = after {
        let view = context.restores.get(&name).await?;
        if view.phase.is_terminal() && after >= view.progress.sequence {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    let events = watch::one(&context, Door::Http, &name, after).await?;
    Ok(response(&context, events, true))
}

/// Follows all restores: a snapshot of each, then changes of any.
#[utoipa::path(
    get, path = "/api/v1/events", operation_id = "watchRestores", tag = "events",
    description = "Server-Sent Events as for one restore, of all of them. The stream ends only with shutting-down; \
        it cannot be resumed, as it begins with a snapshot of every Restore.",
    responses(
        (status = 200, description = "Events", body = Event, content_type = "text/event-stream"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn all_events(State(context): State<Context>, uri: Uri) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    let events = watch::all(&context, Door::Http).await?;
    Ok(response(&context, events, false))
}

fn response(context: &Context, events: BoxStream<'static, Numbered>, resumable: bool) -> Response {
    let hint = stream::once(future::ready(sse::Event::default().retry(RETRY)));
    let events = hint.chain(events.map(move |event| wire(event, resumable))).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(context.heartbeat).text("heartbeat");
    // nginx and its kin hold answers back to fill a buffer unless told not to.
    ([("x-accel-buffering", "no")], Sse::new(events).keep_alive(keep_alive)).into_response()
}

fn wire(numbered: Numbered, resumable: bool) -> sse::Event {
    let sequence = numbered.sequence;
    let (name, body) = Event::new(numbered);
    // Text keys and finite numbers always have a JSON form, and its text has no line ends.
    let event = sse::Event::default().event(name).data(serde_json::to_string(&body).unwrap_or_default());
    if resumable { event.id(sequence.to_string()) } else { event }
}
