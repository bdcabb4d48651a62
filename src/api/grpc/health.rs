//! The standard health service (`grpc.health.v1`), over the same readiness as `/readyz`.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::pb::restore_service_server::SERVICE_NAME;
use crate::api::context::StreamGuard;
use crate::api::{Context, Readiness};
use crate::telemetry::metrics::Door;

/// How often a health watch looks for a change: well under the period of a usual probe, 10 s.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Unlike the implementation that tonic-health brings, a watch of this one ends when the service goes down, so that it
/// does not hold up the shutdown.
pub(super) struct Health {
    context: Context,
}

struct Watch {
    readiness: Readiness,
    shutdown: CancellationToken,
    told: Option<ServingStatus>,
    _guard: StreamGuard,
}

impl Health {
    pub(super) fn new(context: &Context) -> Self {
        Self { context: context.clone() }
    }
}

fn current(readiness: &Readiness, shutdown: &CancellationToken) -> ServingStatus {
    if readiness.is_ready() && !shutdown.is_cancelled() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn check_name(service: &str) -> Result<(), Status> {
    if service.is_empty() || service == SERVICE_NAME {
        return Ok(());
    }
    Err(Status::not_found(format!("there is no service {service:?} here: ask for {SERVICE_NAME:?} or \"\"")))
}

impl Watch {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let status = current(&self.readiness, &self.shutdown);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((Ok(HealthCheckResponse { status: status.into() }), self));
            }
            if self.shutdown.is_cancelled() {
                return None;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        check_name(&request.get_ref().service)?;
        let status = current(&self.context.readiness, &self.context.shutdown);
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        check_name(&request.get_ref().service)?;
        let watch = Watch {
            readiness: self.context.readiness.clone(),
            shutdown: self.context.shutdown.clone(),
            told: None,
            _guard: self.context.open_stream(Door::Grpc).map_err(super::status)?,
        };
        Ok(Response::new(stream::unfold(watch, Watch::next).boxed()))
    }
}
