//! A client of a running service, over gRPC.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::decode;
use crate::api::grpc::pb::{self, restore_service_client::RestoreServiceClient};
use crate::model::ItemState;
use crate::service::{PageRequest, RestoreResults, RestoreView};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an idle stream is looked after, so that a dead connection is noticed within a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Largest answer that is taken: a page of 1,000 Restores, each with counts of many namespaces.
const MAX_ANSWER: usize = 64 << 20;

/// Where the service is.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// Address of the service
    #[arg(long, env = "REPRISE_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(super) server: String,
}

/// A connection to a service.
#[derive(Clone, Debug)]
pub(super) struct Client {
    inner: RestoreServiceClient<Channel>,
    server: String,
}

/// Which items are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct ItemQuery {
    /// Only these outcomes; empty for all.
    pub(super) outcomes: Vec<pb::Outcome>,
    /// Only this group-resource; empty for all.
    pub(super) resource: String,
    /// Only this target namespace.
    pub(super) namespace: Option<String>,
    /// At most so many of a page; 0 for as many as a page can have.
    pub(super) page_size: u32,
}

/// A page of items.
pub(super) struct Items {
    pub(super) items: Vec<ItemState>,
    pub(super) next_page_token: String,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When there is no service at this address.
    pub(super) async fn connect(server: &str) -> anyhow::Result<Self> {
        let url = address(server)?;
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| anyhow!("--server: {server:?} is no address ({error}); want http://HOST:PORT"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.with_context(|| {
            format!("reach a service at {url}: start one with `reprise serve`, or name its address with --server")
        })?;
        let inner = RestoreServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        Ok(Self { inner, server: url })
    }

    /// Its address.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    pub(super) async fn create(&self, request: pb::CreateRestoreRequest) -> anyhow::Result<RestoreView> {
        let answer = self.inner.clone().create_restore(request).await.map_err(|status| told(&status))?;
        Ok(decode::restore(answer.into_inner())?)
    }

    pub(super) async fn get(&self, name: &str) -> anyhow::Result<RestoreView> {
        let request = pb::GetRestoreRequest { name: name.to_owned() };
        let answer = self.inner.clone().get_restore(request).await.map_err(|status| told(&status))?;
        Ok(decode::restore(answer.into_inner())?)
    }

    pub(super) async fn cancel(&self, request: pb::CancelRestoreRequest) -> anyhow::Result<RestoreView> {
        let answer = self.inner.clone().cancel_restore(request).await.map_err(|status| told(&status))?;
        Ok(decode::restore(answer.into_inner())?)
    }

    /// All Restores, page by page.
    pub(super) async fn list(&self) -> anyhow::Result<Vec<RestoreView>> {
        let mut found = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListRestoresRequest { page_size: PageRequest::MAX_SIZE, page_token };
            let answer = self.inner.clone().list_restores(request).await.map_err(|status| told(&status))?.into_inner();
            for restore in answer.restores {
                found.push(decode::restore(restore)?);
            }
            if answer.next_page_token.is_empty() {
                return Ok(found);
            }
            page_token = answer.next_page_token;
        }
    }

    /// One page of items.
    pub(super) async fn items(&self, name: &str, query: &ItemQuery, page_token: String) -> anyhow::Result<Items> {
        let request = pb::ListItemsRequest {
            name: name.to_owned(),
            outcomes: query.outcomes.iter().map(|outcome| i32::from(*outcome)).collect(),
            resource: query.resource.clone(),
            namespace: query.namespace.clone(),
            page_size: if query.page_size == 0 { PageRequest::MAX_SIZE } else { query.page_size },
            page_token,
        };
        let answer = self.inner.clone().list_items(request).await.map_err(|status| told(&status))?.into_inner();
        let items = answer.items.into_iter().map(decode::item).collect::<Result<_, _>>()?;
        Ok(Items { items, next_page_token: answer.next_page_token })
    }

    pub(super) async fn results(&self, name: &str) -> anyhow::Result<RestoreResults> {
        let request = pb::GetResultsRequest { name: name.to_owned() };
        let answer = self.inner.clone().get_results(request).await.map_err(|status| told(&status))?;
        Ok(decode::results(answer.into_inner()))
    }

    pub(super) async fn logs(&self, name: &str, follow: bool) -> anyhow::Result<Streaming<pb::LogEvent>> {
        let request = pb::StreamLogsRequest { name: name.to_owned(), follow };
        let answer = self.inner.clone().stream_logs(request).await.map_err(|status| told(&status))?;
        Ok(answer.into_inner())
    }

    pub(super) async fn plan(&self, request: pb::PlanRestoreRequest) -> anyhow::Result<Streaming<pb::PlanEvent>> {
        let answer = self.inner.clone().plan_restore(request).await.map_err(|status| told(&status))?;
        Ok(answer.into_inner())
    }

    /// Opens a watch; the caller tells passing trouble from lasting.
    pub(super) async fn watch(&self, name: &str, after: Option<u64>) -> Result<Streaming<pb::RestoreEvent>, Status> {
        let request = pb::WatchRestoreRequest { name: name.to_owned(), after_sequence: after };
        Ok(self.inner.clone().watch_restore(request).await?.into_inner())
    }
}

/// The service's own words; what the code adds is only said where there are none.
pub(super) fn told(status: &Status) -> anyhow::Error {
    if status.message().is_empty() {
        anyhow!("the service answered {}", status.code())
    } else {
        anyhow!("{}", status.message())
    }
}

/// Whether the same call may succeed a little later.
pub(super) fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled
    )
}

fn address(server: &str) -> anyhow::Result<String> {
    if server.starts_with("https://") {
        bail!(
            "--server: {server:?}: this client does not speak TLS; forward the port, as with kubectl port-forward, \
             and use http://127.0.0.1:PORT"
        );
    }
    Ok(if server.contains("://") { server.to_owned() } else { format!("http://{server}") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn an_address_may_go_without_its_scheme() {
        assert_eq!(address("127.0.0.1:8080").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(address("http://reprise:80").unwrap(), "http://reprise:80");
        assert!(address("https://reprise").unwrap_err().to_string().contains("TLS"));
    }

    #[tokio::test]
    async fn where_nobody_listens_the_address_and_the_way_out_are_named() {
        let error = Client::connect("http://127.0.0.1:1").await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("http://127.0.0.1:1") && text.contains("--server"), "{text}");
    }
}
