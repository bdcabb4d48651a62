//! The end of the server: ordered, told to every stream, and bounded.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reprise::api::grpc::pb::{self, log_event, restore_event};
use reprise::api::server::Options;
use reprise::model::Phase;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;

use super::api_grpc::client;
use super::api_sse::Events;
use super::api_support::{Fake, PATIENCE, eventually, serve, serve_with, small_restore, view};

#[tokio::test]
async fn every_open_stream_ends_with_the_word_that_the_service_goes_down() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    fake.script("again", small_restore("again")[..2].to_vec());
    fake.script("", small_restore("again")[..1].to_vec());
    fake.log.lock().unwrap().push("one".to_owned());
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    let name = || "again".to_owned();
    let one = client.watch_restore(pb::WatchRestoreRequest { name: name(), after_sequence: None }).await.unwrap();
    let all = client.watch_restores(pb::WatchRestoresRequest {}).await.unwrap();
    let logs = client.stream_logs(pb::StreamLogsRequest { name: name(), follow: true }).await.unwrap();
    let mut one = one.into_inner();
    one.next().await.unwrap().unwrap();
    one.next().await.unwrap().unwrap();
    let mut sse = Events::open(&server, "/api/v1/restores/again/events", None).await;
    for _ in 0..3 {
        sse.next().await.unwrap();
    }
    let sse_all = Events::open(&server, "/api/v1/events", None).await;
    let text = reqwest::get(server.url("/api/v1/restores/again/logs?follow=true")).await.unwrap();
    eventually("all streams are open", || fake.subscriptions.load(Ordering::SeqCst) == 6).await;

    server.shutdown.cancel();
    let last = one.map(Result::unwrap).collect::<Vec<_>>().await.pop().unwrap();
    let shutting_down = restore_event::Event::ShuttingDown(pb::ShuttingDown {});
    assert_eq!((last.sequence, last.event), (11, Some(shutting_down.clone())));
    let last = all.into_inner().map(Result::unwrap).collect::<Vec<_>>().await.pop().unwrap();
    assert_eq!(last.event, Some(shutting_down));
    let last = logs.into_inner().map(Result::unwrap).collect::<Vec<_>>().await.pop().unwrap();
    assert_eq!(last.event, Some(log_event::Event::ShuttingDown(pb::ShuttingDown {})));
    let last = sse.rest().await.pop().unwrap();
    assert_eq!((last.event.as_str(), &last.data["sequence"]), ("shutting-down", &11.into()));
    assert_eq!(sse_all.rest().await.pop().unwrap().event, "shutting-down");
    assert!(text.text().await.unwrap().ends_with("# the service is shutting down: ask again for the rest\n"));

    assert_eq!(server.ended().await, 0);
    assert_eq!(fake.subscriptions.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let fake = Fake::with([]);
    let server = serve(&fake).await;
    let kept_alive = reqwest::Client::new();
    kept_alive.get(server.url("/api/v1")).send().await.unwrap().bytes().await.unwrap();
    let _grpc = client(&server).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"PRI * HT").await.unwrap();
    server.shutdown.cancel();
    assert_eq!(server.ended().await, 0);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_off() {
    let options = Options { grace: Duration::from_millis(50), ..Options::default() };
    let server = serve_with(&Fake::with([]), options, |context| context).await;
    let request = tokio::spawn(reqwest::get(server.url("/api/v1/restores/never-answers")));
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    raw.write_all(b"GET /api/v1/restores/never-answers HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    tokio::task::yield_now().await;
    // Both have been read once a third, sent after them, is answered.
    reqwest::get(server.url("/api/v1")).await.unwrap();
    server.shutdown.cancel();
    assert!(server.ended().await <= 2);
    assert!(tokio::time::timeout(PATIENCE, request).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn no_connection_is_taken_once_the_end_began() {
    let server = serve(&Fake::with([])).await;
    let address = server.address;
    server.shutdown.cancel();
    server.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_sends_no_request_is_let_go() {
    let options = Options { header_timeout: Duration::from_millis(20), ..Options::default() };
    let server = serve_with(&Fake::with([]), options, |context| context).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /api/v1 HTTP/1.1\r\nhost: ").await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"PRI * HT").await.unwrap();
    for (which, stream) in [("silent", &mut silent), ("slow", &mut slow), ("half", &mut half)] {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the connection of the {which} client stays open");
    }
}
