//! The handlers: parse, call the façade, convert.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;

use super::body::{ItemList, Progress, Restore, RestoreList, Results};
use super::problem::{Problem, ProblemBody};
use super::request::{self, Name, Params};
use crate::api::Context;
use crate::api::watch::{self, LogPart};
use crate::telemetry::metrics::Door;

/// Lists Restores by name, a page at a time.
#[utoipa::path(
    get, path = "/api/v1/restores", operation_id = "listRestores", tag = "restores",
    params(
        ("pageSize" = Option<u32>, Query, description = "At most so many; 0 for 100, no more than 1,000"),
        ("pageToken" = Option<String>, Query, description = "`nextPageToken` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of Restores", body = RestoreList),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(context): State<Context>, uri: Uri) -> Result<Json<RestoreList>, Problem> {
    let page = Params::parse(&uri, &["pageSize", "pageToken"])?.page()?;
    Ok(Json(context.restores.list(page).await?.into()))
}

/// Creates a Restore. The same name with the same `requestId` gives the Restore that is there already.
#[utoipa::path(
    post, path = "/api/v1/restores", operation_id = "createRestore", tag = "restores",
    request_body(content(
        (request::CreateRequest = "application/json"),
        (request::CreateRequest = "application/yaml"),
    )),
    responses(
        (status = 201, description = "The Restore", body = Restore,
            headers(("location" = String, description = "Path of the Restore"))),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(context): State<Context>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::parse(&uri, &[])?;
    let create = request::create(&headers, body).await?;
    let location = format!("/api/v1/restores/{}", create.name);
    let restore = Restore::from(context.restores.create(create).await?);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(restore)).into_response())
}

/// Gives one Restore and its progress.
#[utoipa::path(
    get, path = "/api/v1/restores/{name}", operation_id = "getRestore", tag = "restores",
    params(("name" = String, Path, description = "Name of the Restore")),
    responses(
        (status = 200, description = "The Restore", body = Restore),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(State(context): State<Context>, Name(name): Name, uri: Uri) -> Result<Json<Restore>, Problem> {
    Params::parse(&uri, &[])?;
    Ok(Json(context.restores.get(&name).await?.into()))
}

/// Cancels a restore that has not ended. It answers before the restore has ended; again, it changes nothing.
#[utoipa::path(
    post, path = "/api/v1/restores/{name}/cancel", operation_id = "cancelRestore", tag = "restores",
    params(("name" = String, Path, description = "Name of the Restore")),
    request_body(content = Option<request::CancelBody>, description = "May be left out"),
    responses(
        (status = 202, description = "The Restore", body = Restore),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cancel(
    State(context): State<Context>,
    Name(name): Name,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Restore>), Problem> {
    Params::parse(&uri, &[])?;
    let cancellation = request::cancel(&headers, body).await?;
    Ok((StatusCode::ACCEPTED, Json(context.restores.cancel(&name, cancellation).await?.into())))
}

/// Gives the progress of one restore.
#[utoipa::path(
    get, path = "/api/v1/restores/{name}/progress", operation_id = "getProgress", tag = "restores",
    params(("name" = String, Path, description = "Name of the Restore")),
    responses(
        (status = 200, description = "Its progress", body = Progress),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn progress(
    State(context): State<Context>,
    Name(name): Name,
    uri: Uri,
) -> Result<Json<Progress>, Problem> {
    Params::parse(&uri, &[])?;
    Ok(Json((&*context.restores.get(&name).await?.progress).into()))
}

/// Lists items of one restore in their order, a page at a time.
#[utoipa::path(
    get, path = "/api/v1/restores/{name}/items", operation_id = "listItems", tag = "restores",
    params(
        ("name" = String, Path, description = "Name of the Restore"),
        ("outcome" = Option<Vec<String>>, Query, description = "Only these outcomes: repeated, or with commas"),
        ("resource" = Option<String>, Query, description = "Only this group-resource, such as `deployments.apps`"),
        ("namespace" = Option<String>, Query, description = "Only this target namespace; empty for cluster scope"),
        ("pageSize" = Option<u32>, Query, description = "At most so many; 0 for 100, no more than 1,000"),
        ("pageToken" = Option<String>, Query, description = "`nextPageToken` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of items", body = ItemList),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn items(
    State(context): State<Context>,
    Name(name): Name,
    uri: Uri,
) -> Result<Json<ItemList>, Problem> {
    let params = Params::parse(&uri, &["outcome", "resource", "namespace", "pageSize", "pageToken"])?;
    Ok(Json(context.restores.items(&name, params.filter()?, params.page()?).await?.into()))
}

/// Gives warnings and errors of one restore, each with a typed reason.
#[utoipa::path(
    get, path = "/api/v1/restores/{name}/results", operation_id = "getResults", tag = "restores",
    params(("name" = String, Path, description = "Name of the Restore")),
    responses(
        (status = 200, description = "Its results", body = Results),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn results(
    State(context): State<Context>,
    Name(name): Name,
    uri: Uri,
) -> Result<Json<Results>, Problem> {
    Params::parse(&uri, &[])?;
    Ok(Json(context.restores.results(&name).await?.into()))
}

/// Gives the log of one restore, and with `follow` what is still to come.
#[utoipa::path(
    get, path = "/api/v1/restores/{name}/logs", operation_id = "getLogs", tag = "restores",
    params(
        ("name" = String, Path, description = "Name of the Restore"),
        ("follow" = Option<bool>, Query, description = "Whether to wait for what is still to come"),
    ),
    responses(
        (status = 200, description = "Its log", body = String, content_type = "text/plain"),
        (status = "default", description = "A problem", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn logs(State(context): State<Context>, Name(name): Name, uri: Uri) -> Result<Response, Problem> {
    let follow = Params::parse(&uri, &["follow"])?.flag("follow")?;
    let parts = watch::logs(&context, Door::Http, &name, follow).await?;
    let body = Body::from_stream(parts.map(|part| Ok::<_, std::convert::Infallible>(log_text(part))));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// Plain text has no events, so that the end by a shutdown is told by a line; the end of the log is the end.
fn log_text(part: LogPart) -> Bytes {
    match part {
        LogPart::Lines(lines) => {
            let mut text = String::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
            for line in lines {
                text.push_str(&line.text);
                text.push('\n');
            }
            text.into()
        }
        LogPart::Ended => Bytes::new(),
        LogPart::ShuttingDown => Bytes::from_static(b"# the service is shutting down: ask again for the rest\n"),
    }
}
