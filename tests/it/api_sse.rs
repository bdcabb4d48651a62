//! Server-Sent Events.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use reprise::api::server::Options;
use reprise::model::Phase;
use reprise::telemetry::metrics::Door;
use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::api_support::{Fake, PATIENCE, Running, eventually, serve, serve_with, small_restore, view};

/// One block of an event stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Block {
    pub(crate) event: String,
    id: Option<String>,
    pub(crate) data: Value,
    comment: Option<String>,
    retry: Option<String>,
}

/// Reads blocks one at a time.
pub(crate) struct Events {
    bytes: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Events {
    pub(crate) async fn open(server: &Running, path: &str, last: Option<&str>) -> Self {
        let answer = ask(server, path, last).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        Self { bytes: answer.bytes_stream().boxed(), text: String::new() }
    }

    /// The next block; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (parse(block), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let bytes = tokio::time::timeout(PATIENCE, self.bytes.next()).await.expect("the stream goes on")?;
            self.text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        }
    }

    /// All blocks until the end that are events.
    pub(crate) async fn rest(mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        while let Some(block) = self.next().await {
            if !block.event.is_empty() {
                blocks.push(block);
            }
        }
        assert_eq!(self.text, "");
        blocks
    }
}

fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        match line.split_once(':').unwrap() {
            ("", comment) => block.comment = Some(comment.trim().to_owned()),
            ("event", name) => block.event = name.trim().to_owned(),
            ("id", id) => block.id = Some(id.trim().to_owned()),
            ("data", data) => block.data = serde_json::from_str(data).unwrap(),
            ("retry", retry) => block.retry = Some(retry.trim().to_owned()),
            other => panic!("{other:?}"),
        }
    }
    block
}

async fn ask(server: &Running, path: &str, last: Option<&str>) -> Response {
    let request = Client::new().get(server.url(path));
    let request = if let Some(last) = last { request.header("Last-Event-ID", last) } else { request };
    request.send().await.unwrap()
}

const EVENTS: &str = "/api/v1/restores/again/events";

#[tokio::test]
async fn a_stream_has_names_ids_a_hint_when_to_come_back_and_an_end() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    fake.script("again", small_restore("again"));
    let server = serve(&fake).await;
    let mut events = Events::open(&server, EVENTS, None).await;
    assert_eq!(events.next().await.unwrap().retry.as_deref(), Some("2000"));
    let blocks = events.rest().await;
    let told: Vec<_> = blocks.iter().map(|block| (block.event.as_str(), block.id.as_deref().unwrap())).collect();
    // The progress event has overtaken items, so that its id stays at the last item that was told.
    let wanted =
        [("snapshot", "10"), ("item", "11"), ("progress", "11"), ("gap", "13"), ("item", "14"), ("ended", "20")];
    assert_eq!(told, wanted);
    assert_eq!(blocks[0].data["restore"]["progress"]["percent"], 40);
    assert_eq!(blocks[1].data["item"]["name"], "web-11");
    assert_eq!((&blocks[2].data["name"], &blocks[2].data["progress"]["sequence"]), (&json!("again"), &json!(18)));
    assert_eq!(blocks[3].data, json!({"sequence": 13, "name": "again", "from": 12, "to": 13}));
    assert_eq!(blocks[5].data["restore"]["phase"], "Completed");
    eventually("the subscription is freed", || fake.subscriptions.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_stream_is_resumed_by_the_header_before_the_parameter() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    fake.script("again", small_restore("again"));
    let server = serve(&fake).await;
    for (path, header, after) in [
        (EVENTS.to_owned(), Some("7"), Some(7)),
        (format!("{EVENTS}?after=5"), None, Some(5)),
        (format!("{EVENTS}?after=5"), Some("8"), Some(8)),
        (format!("{EVENTS}?after=5"), Some(""), Some(5)),
        (EVENTS.to_owned(), None, None),
    ] {
        let blocks = Events::open(&server, &path, header).await.rest().await;
        assert_eq!(blocks[0].id.as_deref(), Some(after.unwrap_or(10).to_string().as_str()), "{path} {header:?}");
        assert_eq!(fake.resumed_after.lock().unwrap().pop(), Some(after));
    }
    let answer = ask(&server, EVENTS, Some("the-last-one")).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.json::<Value>().await.unwrap()["field"], "Last-Event-ID");
}

#[tokio::test]
async fn a_client_that_has_the_end_of_a_finished_restore_gets_204() {
    let fake = Fake::with([view("again", Phase::Completed, 20), view("runs", Phase::InProgress, 20)]);
    fake.script("again", small_restore("again"));
    let server = serve(&fake).await;
    for last in ["20", "9000"] {
        let answer = ask(&server, EVENTS, Some(last)).await;
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.bytes().await.unwrap(), "");
    }
    assert_eq!(ask(&server, EVENTS, Some("19")).await.status(), 200);
    assert_eq!(ask(&server, EVENTS, None).await.status(), 200);
    assert_eq!(ask(&server, "/api/v1/restores/runs/events", Some("20")).await.status(), 200);
}

#[tokio::test]
async fn an_idle_stream_carries_heartbeats() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    let often = Duration::from_millis(10);
    let server = serve_with(&fake, Options::default(), |context| context.with_heartbeat(often)).await;
    let mut events = Events::open(&server, EVENTS, None).await;
    events.next().await.unwrap();
    for _ in 0..3 {
        assert_eq!(events.next().await.unwrap(), Block { comment: Some("heartbeat".to_owned()), ..Block::default() });
    }
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_subscription() {
    let fake = Fake::with([view("again", Phase::InProgress, 10)]);
    fake.script("again", small_restore("again")[..2].to_vec());
    let server = serve(&fake).await;
    let mut events = Events::open(&server, EVENTS, None).await;
    events.next().await.unwrap();
    events.next().await.unwrap();
    assert_eq!((fake.subscriptions.load(Ordering::SeqCst), server.metrics.subscribers(Door::Http)), (1, 1));
    drop(events);
    eventually("the subscription is freed", || fake.subscriptions.load(Ordering::SeqCst) == 0).await;
    eventually("the gauge falls", || server.metrics.subscribers(Door::Http) == 0).await;
}

#[tokio::test]
async fn the_stream_of_all_restores_goes_on_after_one_ended() {
    let fake = Fake::with([]);
    let mut script = small_restore("again");
    script.extend(small_restore("next"));
    fake.script("", script);
    let server = serve(&fake).await;
    let mut events = Events::open(&server, "/api/v1/events", None).await;
    events.next().await.unwrap();
    let mut names = Vec::new();
    for _ in 0..12 {
        let block = events.next().await.unwrap();
        assert_eq!(block.id, None);
        names.push(block.event);
    }
    assert_eq!((names[5].as_str(), names[6].as_str(), names[11].as_str()), ("ended", "snapshot", "ended"));
}
