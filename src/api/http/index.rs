//! What a person sees who opens the address: the paths there are, ready to be curled.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use serde_json::{Value, json};

use super::problem::Problem;
use super::request::Params;
use crate::api::Context;

/// Plain text for `/`.
pub(super) async fn welcome(State(context): State<Context>, headers: HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1:8080");
    let notice = if context.restores.is_sandbox() {
        "\nThis is a sandbox: an in-memory Kubernetes API, not a cluster.\n"
    } else if context.restores.is_observing() {
        "\nThis server only observes: Velero executes the restores, and nothing can be started here.\n"
    } else {
        ""
    };
    format!(
        "Reprise {version} restores Velero backups and streams truthful progress.
{notice}
All restores         curl http://{host}/api/v1/restores
One restore          curl http://{host}/api/v1/restores/NAME
Its progress         curl http://{host}/api/v1/restores/NAME/progress
Its live events      curl -N http://{host}/api/v1/restores/NAME/events
Its failed items     curl 'http://{host}/api/v1/restores/NAME/items?outcome=failed'
Warnings and errors  curl http://{host}/api/v1/restores/NAME/results
Its log              curl -N 'http://{host}/api/v1/restores/NAME/logs?follow=true'
All live events      curl -N http://{host}/api/v1/events
OpenAPI document     curl http://{host}/api/v1/openapi.json
Start a restore      curl http://{host}/api/v1/restores -H content-type:application/json -d '{{\"name\":\"NAME\",\"spec\":{{\"backupName\":\"BACKUP\"}}}}'
Cancel it            curl -X POST http://{host}/api/v1/restores/NAME/cancel
What it would do     curl http://{host}/api/v1/plan -H content-type:application/json -d '{{\"spec\":{{\"backupName\":\"BACKUP\"}}}}'
The same with gRPC   grpcurl -plaintext -d '{{\"name\":\"NAME\"}}' {host} reprise.v1.RestoreService/WatchRestore
",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// The paths under `/api/v1`.
pub(super) async fn index(State(context): State<Context>, uri: Uri) -> Result<Json<Value>, Problem> {
    Params::parse(&uri, &[])?;
    Ok(Json(json!({
        "service": "reprise",
        "version": env!("CARGO_PKG_VERSION"),
        "sandbox": context.restores.is_sandbox(),
        "observing": context.restores.is_observing(),
        "restores": "/api/v1/restores",
        "restore": "/api/v1/restores/{name}",
        "cancel": "/api/v1/restores/{name}/cancel",
        "progress": "/api/v1/restores/{name}/progress",
        "restoreEvents": "/api/v1/restores/{name}/events",
        "items": "/api/v1/restores/{name}/items",
        "results": "/api/v1/restores/{name}/results",
        "logs": "/api/v1/restores/{name}/logs",
        "restorePlan": "/api/v1/restores/{name}/plan",
        "plan": "/api/v1/plan",
        "events": "/api/v1/events",
        "openapi": "/api/v1/openapi.json",
    })))
}
