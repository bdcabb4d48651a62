//! The gRPC door, through the generated client.

use std::sync::atomic::Ordering;

use reprise::api::grpc::field_of;
use reprise::api::grpc::pb::restore_event::Event;
use reprise::api::grpc::pb::restore_service_client::RestoreServiceClient;
use reprise::api::grpc::pb::{self, log_event};
use reprise::api::server::Options;
use reprise::model::Phase;
use reprise::service::{PageRequest, WatchEvent};
use reprise::telemetry::metrics::Door;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;

use super::api_support::{Fake, PATIENCE, Running, eventually, serve, serve_with, small_restore, view};

pub(crate) async fn client(server: &Running) -> RestoreServiceClient<Channel> {
    RestoreServiceClient::new(channel(server).await)
}

async fn channel(server: &Running) -> Channel {
    Channel::from_shared(server.url("")).unwrap().connect().await.unwrap()
}

fn create(name: &str, request_id: &str) -> pb::CreateRestoreRequest {
    pb::CreateRestoreRequest {
        name: name.to_owned(),
        request_id: request_id.to_owned(),
        spec: Some(pb::RestoreSpec {
            backup_name: "nightly".to_owned(),
            included_namespaces: vec!["shop".to_owned()],
            restore_pvs: Some(false),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn watch(name: &str, after_sequence: Option<u64>) -> pb::WatchRestoreRequest {
    pb::WatchRestoreRequest { name: name.to_owned(), after_sequence }
}

#[tokio::test]
async fn a_created_restore_has_veleros_spec_and_is_given_back_with_its_progress() {
    let fake = Fake::with([]);
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    let restore = client.create_restore(create("again", "")).await.unwrap().into_inner();
    assert_eq!(restore.phase(), pb::Phase::New);
    assert_eq!(restore.spec.unwrap(), create("again", "").spec.unwrap());
    let created = fake.created.lock().unwrap().pop().unwrap();
    let velero = serde_json::json!({"backupName": "nightly", "includedNamespaces": ["shop"], "restorePVs": false});
    assert_eq!((created.name.as_str(), created.request_id, created.spec), ("again", None, velero));

    let restore = client.get_restore(pb::GetRestoreRequest { name: "again".into() }).await.unwrap().into_inner();
    let progress = restore.progress.unwrap();
    assert_eq!((progress.percent, progress.total_items, progress.added), (40, 10, 1));
    assert_eq!(progress.resources["deployments.apps"].created, 3);
    assert_eq!(progress.namespaces["shop"].pending, 6);
    assert_eq!((progress.failures[0].reason(), progress.failures[0].count), (pb::Reason::DeniedByAdmission, 1));
    assert_eq!(progress.elapsed, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
    assert_eq!(progress.time_left.unwrap().high.unwrap().seconds, 8);
    assert_eq!(progress.waiting_for[0].object, "namespace shop");
}

#[tokio::test]
async fn the_same_request_id_makes_repeating_harmless_and_another_is_refused() {
    let fake = Fake::with([]);
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    let first = client.create_restore(create("again", "one")).await.unwrap().into_inner();
    let second = client.create_restore(create("again", "one")).await.unwrap().into_inner();
    assert_eq!(first, second);
    for other in ["two", ""] {
        let status = client.create_restore(create("again", other)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::AlreadyExists, "restore again is there already"));
    }
}

#[tokio::test]
async fn bad_requests_name_their_field() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    let check = |status: tonic::Status, field: &str, text: &str| {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(field_of(&status).as_deref(), Some(field), "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    };
    for name in ["", "Upper", "a/b", &"x".repeat(254)] {
        check(client.create_restore(create(name, "")).await.unwrap_err(), "name", "is not a Kubernetes name");
        check(client.watch_restore(watch(name, None)).await.unwrap_err(), "name", "is not a Kubernetes name");
    }
    let without = pb::CreateRestoreRequest { spec: None, ..create("again", "") };
    check(client.create_restore(without).await.unwrap_err(), "spec", "spec is missing");
    check(client.create_restore(create("a", &"x".repeat(257))).await.unwrap_err(), "requestId", "1 to 256 bytes");
    let large = pb::CreateRestoreRequest { labels: [("a".into(), "x".repeat(4 << 20))].into(), ..create("a", "") };
    assert_eq!(client.create_restore(large).await.unwrap_err().code(), Code::OutOfRange);
    let list = pb::ListRestoresRequest { page_size: 1_001, ..Default::default() };
    check(client.list_restores(list).await.unwrap_err(), "pageSize", "at most 1000");
    let items = pb::ListItemsRequest { name: "again".into(), outcomes: vec![99], ..Default::default() };
    check(client.list_items(items).await.unwrap_err(), "outcomes", "outcome 99 is not known");
}

#[tokio::test]
async fn restores_and_items_come_a_page_at_a_time() {
    let fake = Fake::with(["a", "b", "c"].map(|name| view(name, Phase::Completed, 1)));
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let request = pb::ListRestoresRequest { page_size: 2, page_token: token };
        let page = client.list_restores(request).await.unwrap().into_inner();
        names.extend(page.restores.into_iter().map(|restore| restore.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"]);

    let request = pb::ListItemsRequest {
        name: "a".into(),
        outcomes: vec![pb::Outcome::Failed.into()],
        resource: "deployments.apps".into(),
        namespace: Some("shop".into()),
        page_size: 1,
        page_token: String::new(),
    };
    let page = client.list_items(request.clone()).await.unwrap().into_inner();
    assert_eq!((page.items.len(), page.matching, page.next_page_token.as_str()), (1, 2, "1"));
    let item = &page.items[0];
    assert_eq!((item.id, item.reason(), item.message()), (1, pb::Reason::Quota, "because"));
    assert_eq!((item.api_version_kind.as_str(), item.name.as_str()), ("apps/v1/Deployment", "web-1"));
    let nowhere = pb::ListItemsRequest { namespace: Some(String::new()), ..request };
    assert_eq!(client.list_items(nowhere).await.unwrap().into_inner().matching, 0);
    assert_eq!(PageRequest::default().size, 0);
}

#[tokio::test]
async fn results_have_buckets_and_reasons() {
    let fake = Fake::with([view("again", Phase::PartiallyFailed, 10)]);
    let server = serve(&fake).await;
    let request = pb::GetResultsRequest { name: "again".into() };
    let results = client(&server).await.get_results(request).await.unwrap().into_inner();
    assert!(results.complete);
    assert_eq!(results.warnings[0].bucket, Some(pb::finding::Bucket::Cluster(true)));
    assert_eq!(results.errors[0].bucket, Some(pb::finding::Bucket::Namespace("shop".into())));
    assert_eq!((results.errors[0].reason(), results.errors[1].reason()), (pb::Reason::Quota, pb::Reason::Archive));
}

#[tokio::test]
async fn a_watch_begins_with_a_snapshot_numbers_its_events_and_ends_by_itself() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    fake.script("again", small_restore("again"));
    let server = serve(&fake).await;
    let stream = client(&server).await.watch_restore(watch("again", None)).await.unwrap().into_inner();
    let events: Vec<_> = stream.map(Result::unwrap).collect().await;
    let sequences: Vec<_> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [10, 11, 11, 13, 14, 20]);
    assert!(events.iter().all(|event| event.name == "again"));
    let mut kinds = events.into_iter().map(|event| event.event.unwrap());
    assert!(matches!(kinds.next(), Some(Event::Snapshot(restore)) if restore.phase() == pb::Phase::InProgress));
    assert!(matches!(kinds.next(), Some(Event::Item(item)) if item.outcome() == pb::Outcome::Created));
    assert!(matches!(kinds.next(), Some(Event::Progress(progress)) if progress.sequence == 18));
    assert!(matches!(kinds.next(), Some(Event::Gap(pb::Gap { from: 12, to: 13 }))));
    assert!(matches!(kinds.next(), Some(Event::Item(item)) if item.reason() == pb::Reason::Quota));
    assert!(matches!(kinds.next(), Some(Event::Ended(restore)) if restore.phase() == pb::Phase::Completed));
    eventually("the subscription is freed", || fake.subscriptions.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_watch_is_resumed_after_a_sequence() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    fake.script("again", small_restore("again"));
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    let mut stream = client.watch_restore(watch("again", Some(7))).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().sequence, 7);
    assert_eq!(stream.next().await.unwrap().unwrap().sequence, 11);
    client.watch_restore(watch("again", Some(0))).await.unwrap();
    assert_eq!(*fake.resumed_after.lock().unwrap(), [Some(7), Some(0)]);
}

#[tokio::test]
async fn a_deleted_restore_ends_its_watch_and_not_the_watch_of_all() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    let mut script = small_restore("again");
    *script.last_mut().unwrap() = WatchEvent::Deleted { name: "again".into() };
    fake.script("again", script.clone());
    script.push(WatchEvent::Snapshot(Box::new(view("next", Phase::New, 1))));
    fake.script("", script);
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    let one = client.watch_restore(watch("again", None)).await.unwrap().into_inner();
    let last = one.map(Result::unwrap).collect::<Vec<_>>().await.pop().unwrap();
    assert_eq!((last.sequence, last.event), (14, Some(Event::Deleted(pb::Deleted {}))));
    let all = client.watch_restores(pb::WatchRestoresRequest {}).await.unwrap().into_inner();
    let events: Vec<_> = all.take(7).map(Result::unwrap).collect().await;
    assert_eq!((events[6].name.as_str(), events[6].sequence), ("next", 1));
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_subscription() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    fake.script("again", small_restore("again")[..2].to_vec());
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    let mut stream = client.watch_restore(watch("again", None)).await.unwrap().into_inner();
    stream.next().await.unwrap().unwrap();
    assert_eq!((fake.subscriptions.load(Ordering::SeqCst), server.metrics.subscribers(Door::Grpc)), (1, 1));
    drop(stream);
    eventually("the subscription is freed", || fake.subscriptions.load(Ordering::SeqCst) == 0).await;
    eventually("the gauge falls", || server.metrics.subscribers(Door::Grpc) == 0).await;
}

#[tokio::test]
async fn too_many_streams_are_refused_and_room_comes_back() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    let server = serve_with(&fake, Options::default(), |context| context.with_max_streams(1)).await;
    let mut client = client(&server).await;
    let stream = client.watch_restore(watch("again", None)).await.unwrap();
    let status = client.watch_restores(pb::WatchRestoresRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("too many streams"), "{status:?}");
    drop(stream);
    eventually("the subscription is freed", || server.metrics.subscribers(Door::Grpc) == 0).await;
    client.watch_restores(pb::WatchRestoresRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_log_comes_in_lines_and_says_where_it_ends() {
    let fake = Fake::with([view("again", Phase::Completed, 10)]);
    fake.log.lock().unwrap().extend((0..600).map(|number| format!("line {number}")));
    let server = serve(&fake).await;
    let request = pb::StreamLogsRequest { name: "again".into(), follow: false };
    let stream = client(&server).await.stream_logs(request).await.unwrap().into_inner();
    let mut events: Vec<_> = stream.map(|event| event.unwrap().event.unwrap()).collect().await;
    assert_eq!(events.pop(), Some(log_event::Event::Ended(pb::LogEnded {})));
    let lines: Vec<String> = events
        .into_iter()
        .flat_map(|event| match event {
            log_event::Event::Lines(lines) => lines.lines,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((lines.len(), lines[599].as_str()), (600, "line 599"));
}

#[tokio::test]
async fn health_follows_readiness_and_knows_its_services() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let server = serve(&Fake::with([])).await;
    let mut client = HealthClient::new(channel(&server).await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let status = client.check(ask("reprise.v1.RestoreService")).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
    server.readiness.not_ready("cluster", "no answer yet");
    assert_eq!(client.check(ask("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    assert_eq!(client.check(ask("another")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    server.readiness.ready("cluster");
    let next = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
    assert_eq!(next.unwrap().unwrap().status(), ServingStatus::Serving);
    server.shutdown.cancel();
    let rest: Vec<_> = watch.map(|status| status.unwrap().status()).collect().await;
    assert_eq!(rest, [ServingStatus::NotServing]);
}

#[tokio::test]
async fn reflection_lists_the_services_for_new_and_old_clients() {
    let server = serve(&Fake::with([])).await;
    let wanted = ["grpc.health.v1.Health", "reprise.v1.RestoreService"];
    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let mut client = ServerReflectionClient::new(channel(&server).await);
            let message_request = Some(MessageRequest::ListServices(String::new()));
            let request =
                tonic_reflection::pb::$version::ServerReflectionRequest { host: String::new(), message_request };
            let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
            match answers.next().await.unwrap().unwrap().message_response {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    let details = reprise::api::grpc::DESCRIPTORS;
    let text = String::from_utf8_lossy(details);
    assert!(text.contains("FieldViolation"), "the details of a failure cannot be read by reflection");
    for names in [services!(v1), services!(v1alpha)] {
        assert!(wanted.iter().all(|wanted| names.iter().any(|name| name == wanted)), "{names:?}");
    }
}

#[tokio::test]
async fn the_sandbox_says_so_in_the_metadata() {
    let fake = Fake::with([view("again", Phase::Completed, 10)]);
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    let get = || pb::GetRestoreRequest { name: "again".into() };
    assert!(client.get_restore(get()).await.unwrap().metadata().get("reprise-sandbox").is_none());
    fake.sandbox.store(true, Ordering::SeqCst);
    assert_eq!(client.get_restore(get()).await.unwrap().metadata().get("reprise-sandbox").unwrap(), "true");
}
