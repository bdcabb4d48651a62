//! The handlers: parse, call the façade, convert.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::pb::restore_service_server::RestoreService;
use super::{convert, pb, status};
use crate::api::{Context, watch};
use crate::service::PageRequest;
use crate::telemetry::metrics::Door;

/// [`RestoreService`] over the façade.
pub(super) struct Server {
    context: Context,
}

impl Server {
    pub(super) const fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl RestoreService for Server {
    async fn create_restore(
        &self,
        request: Request<pb::CreateRestoreRequest>,
    ) -> Result<Response<pb::Restore>, Status> {
        let create = convert::create_restore(request.into_inner()).map_err(status)?;
        let view = self.context.restores.create(create).await.map_err(status)?;
        Ok(Response::new(view.into()))
    }

    async fn get_restore(&self, request: Request<pb::GetRestoreRequest>) -> Result<Response<pb::Restore>, Status> {
        let name = convert::name(&request.into_inner().name).map_err(status)?;
        let view = self.context.restores.get(&name).await.map_err(status)?;
        Ok(Response::new(view.into()))
    }

    async fn list_restores(
        &self,
        request: Request<pb::ListRestoresRequest>,
    ) -> Result<Response<pb::ListRestoresResponse>, Status> {
        let request = request.into_inner();
        let page = PageRequest::new(request.page_size, request.page_token).map_err(status)?;
        let page = self.context.restores.list(page).await.map_err(status)?;
        let restores = page.elements.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListRestoresResponse { restores, next_page_token: page.next_page_token }))
    }

    async fn cancel_restore(
        &self,
        request: Request<pb::CancelRestoreRequest>,
    ) -> Result<Response<pb::Restore>, Status> {
        let (name, cancellation) = convert::cancel_restore(&request.into_inner()).map_err(status)?;
        let view = self.context.restores.cancel(&name, cancellation).await.map_err(status)?;
        Ok(Response::new(view.into()))
    }

    type WatchRestoreStream = BoxStream<'static, Result<pb::RestoreEvent, Status>>;

    async fn watch_restore(
        &self,
        request: Request<pb::WatchRestoreRequest>,
    ) -> Result<Response<Self::WatchRestoreStream>, Status> {
        let request = request.into_inner();
        let name = convert::name(&request.name).map_err(status)?;
        let events = watch::one(&self.context, Door::Grpc, &name, request.after_sequence).await.map_err(status)?;
        Ok(Response::new(events.map(|event| Ok(event.into())).boxed()))
    }

    type WatchRestoresStream = BoxStream<'static, Result<pb::RestoreEvent, Status>>;

    async fn watch_restores(
        &self,
        _request: Request<pb::WatchRestoresRequest>,
    ) -> Result<Response<Self::WatchRestoresStream>, Status> {
        let events = watch::all(&self.context, Door::Grpc).await.map_err(status)?;
        Ok(Response::new(events.map(|event| Ok(event.into())).boxed()))
    }

    type PlanRestoreStream = BoxStream<'static, Result<pb::PlanEvent, Status>>;

    async fn plan_restore(
        &self,
        request: Request<pb::PlanRestoreRequest>,
    ) -> Result<Response<Self::PlanRestoreStream>, Status> {
        let request = super::plan::request(request.into_inner()).map_err(status)?;
        let events = crate::api::plan::plan(&self.context, Door::Grpc, request).await.map_err(status)?;
        Ok(Response::new(events.map(super::plan::event).boxed()))
    }

    async fn list_items(
        &self,
        request: Request<pb::ListItemsRequest>,
    ) -> Result<Response<pb::ListItemsResponse>, Status> {
        let (name, filter, page) = convert::list_items(request.into_inner()).map_err(status)?;
        let found = self.context.restores.items(&name, filter, page).await.map_err(status)?;
        Ok(Response::new(found.into()))
    }

    async fn get_results(
        &self,
        request: Request<pb::GetResultsRequest>,
    ) -> Result<Response<pb::RestoreResults>, Status> {
        let name = convert::name(&request.into_inner().name).map_err(status)?;
        let results = self.context.restores.results(&name).await.map_err(status)?;
        Ok(Response::new(results.into()))
    }

    type StreamLogsStream = BoxStream<'static, Result<pb::LogEvent, Status>>;

    async fn stream_logs(
        &self,
        request: Request<pb::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let request = request.into_inner();
        let name = convert::name(&request.name).map_err(status)?;
        let parts = watch::logs(&self.context, Door::Grpc, &name, request.follow).await.map_err(status)?;
        Ok(Response::new(parts.map(|part| Ok(part.into())).boxed()))
    }
}
