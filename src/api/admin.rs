//! The port for those who run the service: `/livez`, `/readyz` and `/metrics`.
//!
//! It has no part in the shutdown: it answers until the process ends, so that a service which goes down is seen to be
//! alive and not ready.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::Readiness;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why the port for administration ended.
#[derive(Debug, thiserror::Error)]
#[error("serve health and metrics")]
pub struct Error(#[source] io::Error);

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
}

/// Health and metrics as a router.
pub fn router(readiness: Readiness, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Admin { readiness, registry })
}

/// Serves health and metrics until the returned future is dropped.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, readiness: Readiness, registry: Arc<Registry>) -> Result<(), Error> {
    axum::serve(listener, router(readiness, registry)).await.map_err(Error)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let is_ready = admin.readiness.is_ready();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let end = if is_ready { "ready" } else { "not ready" };
    (status, format!("{}{end}\n", admin.readiness)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written: see the log\n").into_response()
        }
    }
}
