//! A service that runs in this process, and what its clients see.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use reprise::api::grpc::pb;
use reprise::api::grpc::pb::restore_event::Event;
use reprise::api::grpc::pb::restore_service_client::RestoreServiceClient;
use reprise::app::{Options, Running};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Long enough for a busy machine; a test that reaches it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A service; ends with the test.
pub(super) struct Served {
    address: SocketAddr,
    admin: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Served {
    pub(super) async fn start(options: Options) -> Self {
        let stop = CancellationToken::new();
        let running = Running::start(options, stop.clone()).await.unwrap();
        let (address, admin) = (running.address(), running.admin_address());
        Self { address, admin, stop, task: tokio::spawn(running.wait()) }
    }

    /// Tells it to go down, without waiting until it has.
    pub(super) fn tell_to_stop(&self) {
        self.stop.cancel();
    }

    /// Ends it, in order.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await.expect("the service ends");
        ended.unwrap().unwrap();
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) async fn grpc(&self) -> RestoreServiceClient<Channel> {
        RestoreServiceClient::new(self.channel().await)
    }

    pub(super) async fn channel(&self) -> Channel {
        Channel::from_shared(self.url("")).unwrap().connect().await.unwrap()
    }

    /// What the admin port says.
    pub(super) async fn admin(&self, path: &str) -> String {
        reqwest::get(format!("http://{}{path}", self.admin)).await.unwrap().text().await.unwrap()
    }

    pub(super) async fn post(&self, body: &Value) -> Response {
        Client::new().post(self.url("/api/v1/restores")).json(body).send().await.unwrap()
    }

    /// Code and body of an answer.
    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        let answer = reqwest::get(self.url(path)).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Creates a Restore over REST, which must succeed.
    pub(super) async fn create(&self, name: &str, spec: Value) -> Value {
        let answer = self.post(&json!({"name": name, "spec": spec})).await;
        let (code, body) = (answer.status(), answer.json().await.unwrap());
        assert_eq!(code, 201, "{body}");
        body
    }

    /// All events of one restore, from now to the last.
    pub(super) async fn watched(&self, name: &str) -> Vec<pb::RestoreEvent> {
        let request = pb::WatchRestoreRequest { name: name.to_owned(), after_sequence: None };
        let stream = answered(async || self.grpc().await.watch_restore(request.clone()).await).await;
        let events = tokio::time::timeout(PATIENCE, stream.map(Result::unwrap).collect::<Vec<_>>());
        events.await.unwrap_or_else(|_| panic!("restore {name} does not end"))
    }

    /// The restore when it has ended, as WatchRestore tells.
    pub(super) async fn ended(&self, name: &str) -> pb::Restore {
        match self.watched(name).await.pop().and_then(|last| last.event) {
            Some(Event::Ended(restore)) => restore,
            other => panic!("the stream of {name} ends with {other:?}"),
        }
    }

    /// Creates a restore of everything in a backup, of the same name, and waits for its end.
    pub(super) async fn run(&self, backup: &str) -> pb::Restore {
        self.create(backup, json!({"backupName": backup})).await;
        self.ended(backup).await
    }

    /// All items with these outcomes; all there are where none is given.
    pub(super) async fn items(&self, name: &str, outcomes: &[pb::Outcome]) -> Vec<pb::Item> {
        let outcomes = outcomes.iter().map(|&outcome| outcome.into()).collect();
        let request = pb::ListItemsRequest { name: name.to_owned(), outcomes, page_size: 1000, ..Default::default() };
        let answer = answered(async || self.grpc().await.list_items(request.clone()).await).await;
        assert_eq!((answer.matching, answer.next_page_token.as_str()), (answer.items.len() as u64, ""));
        answer.items
    }

    pub(super) async fn results(&self, name: &str) -> pb::RestoreResults {
        let request = pb::GetResultsRequest { name: name.to_owned() };
        answered(async || self.grpc().await.get_results(request.clone()).await).await
    }
}

/// Waits until something holds, and gives what was found.
pub(super) async fn until<T, R>(what: &str, mut find: impl FnMut() -> R) -> T
where
    R: Future<Output = Option<T>>,
{
    let search = async {
        loop {
            if let Some(found) = find().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// The answer to a call. UNAVAILABLE is no answer: the API server behind the service may be away for a moment, and clients of
/// gRPC call again then.
async fn answered<T>(call: impl AsyncFn() -> Result<tonic::Response<T>, Status>) -> T {
    let begun = std::time::Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) if status.code() == Code::Unavailable && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(status) => panic!("{status}"),
        }
    }
}
