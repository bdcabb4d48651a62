//! The REST and Server-Sent Events door, under `/api/v1`, over the façade.

mod body;
mod handlers;
mod index;
pub mod json;
pub mod plan;
mod problem;
mod request;
mod spec;
mod sse;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, routing};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Context;

pub use problem::Problem;
pub use request::read_create;

/// Largest body that is taken, in bytes: a specification with many hooks has some kilobytes.
pub const MAX_BODY: usize = 4 << 20;

/// General part of the OpenAPI document; routes and schemas join from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Reprise",
        description = "Restores Velero backups into Kubernetes and streams truthful progress. Every restore is a \
                       Restore object of Velero's. Failures are RFC 9457 problem documents. Answers of a service that \
                       runs on the in-memory sandbox carry the header `reprise-sandbox: true`.",
    ),
    components(schemas(body::Event))
)]
struct General;

fn documented() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(General::openapi())
        .routes(routes!(handlers::list, handlers::create))
        .routes(routes!(handlers::get))
        .routes(routes!(handlers::cancel))
        .routes(routes!(handlers::progress))
        .routes(routes!(handlers::items))
        .routes(routes!(handlers::results))
        .routes(routes!(handlers::logs))
        .routes(routes!(plan::of_restore))
        .routes(routes!(plan::of_spec))
        .routes(routes!(sse::events))
        .routes(routes!(sse::all_events))
}

/// The OpenAPI document, generated from the handlers.
#[must_use]
pub fn openapi() -> Document {
    documented().into_openapi()
}

/// Everything that is not gRPC.
pub fn router(context: Context) -> Router {
    let (router, document) = documented().split_for_parts();
    router
        .route("/", routing::get(index::welcome))
        .route("/api/v1", routing::get(index::index))
        .route("/api/v1/openapi.json", routing::get(async move || Json(document)))
        .fallback(async || Problem::no_such_path())
        .method_not_allowed_fallback(async || Problem::wrong_method())
        .layer(middleware::from_fn(finish))
        .with_state(context)
}

/// Writes problem documents out, now that the path is known, and keeps browsers from guessing at content types.
async fn finish(request: Request, next: Next) -> Response {
    let instance = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let (parts, body) = problem.render(&instance).into_parts();
        response.headers_mut().extend(parts.headers);
        *response.status_mut() = parts.status;
        *response.body_mut() = body;
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let nosniff = (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(nosniff.0, nosniff.1);
    response
}

/// The answer when a handler panicked or a limit of the server was reached, outside of the router.
#[must_use]
pub fn failure(error: crate::service::Error, instance: &str) -> Response {
    Problem::from(error).render(instance).into_response()
}
