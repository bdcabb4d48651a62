//! Failures, the same through both doors.

use std::time::Duration;

use reprise::api::code;
use reprise::api::grpc::{field_of, pb};
use reprise::api::server::Options;
use reprise::model::Phase;
use reprise::service::{Code, Error};
use serde_json::Value;

use super::api_grpc::client;
use super::api_support::{Fake, serve, serve_with, view};

#[tokio::test]
async fn every_code_comes_through_both_doors_with_its_message_and_field() {
    let fake = Fake::with([]);
    let server = serve(&fake).await;
    let mut client = client(&server).await;
    for code in Code::ALL {
        let error = Error { field: Some("spec.hooks".into()), ..Error::new(code, format!("it is {code:?}")) };
        *fake.failure.lock().unwrap() = Some(error.clone());
        let row = code::row(code);

        let status = client.get_restore(pb::GetRestoreRequest { name: "again".into() }).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (row.grpc, error.message.as_str()));
        assert_eq!(field_of(&status), error.field);
        assert_eq!(code::from_grpc(status.code()), code);

        let answer = reqwest::get(server.url("/api/v1/restores/again")).await.unwrap();
        assert_eq!(answer.status().as_u16(), row.http.as_u16());
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        let wanted = serde_json::json!({
            "type": format!("urn:reprise:problem:{}", row.slug), "title": row.title, "status": row.http.as_u16(),
            "detail": error.message, "instance": "/api/v1/restores/again", "code": row.name, "field": "spec.hooks",
        });
        assert_eq!(problem, wanted);
    }
}

#[tokio::test]
async fn streams_fail_before_they_begin_when_the_restore_is_unknown() {
    let server = serve(&Fake::with([])).await;
    let mut client = client(&server).await;
    let watch = pb::WatchRestoreRequest { name: "lost".into(), after_sequence: None };
    assert_eq!(client.watch_restore(watch).await.unwrap_err().code(), tonic::Code::NotFound);
    let logs = pb::StreamLogsRequest { name: "lost".into(), follow: true };
    assert_eq!(client.stream_logs(logs).await.unwrap_err().code(), tonic::Code::NotFound);
    for path in ["events", "events?after=3", "logs", "logs?follow=true", "progress", "items", "results"] {
        let answer = reqwest::get(server.url(&format!("/api/v1/restores/lost/{path}"))).await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["detail"], "there is no restore lost");
    }
}

#[tokio::test]
async fn a_panic_is_a_fault_of_ours_and_the_server_lives_on() {
    let server = serve(&Fake::with([view("again", Phase::New, 0)])).await;
    let answer = reqwest::get(server.url("/api/v1/restores/panics")).await.unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["instance"]), (&"INTERNAL".into(), &"/api/v1/restores/panics".into()));
    assert!(!problem["detail"].as_str().unwrap().contains("asked to"), "{problem}");

    let mut client = client(&server).await;
    let status = client.get_restore(pb::GetRestoreRequest { name: "panics".into() }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Internal);
    client.get_restore(pb::GetRestoreRequest { name: "again".into() }).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let options = Options { request_timeout: Duration::from_millis(50), ..Options::default() };
    let server = serve_with(&Fake::with([]), options, |context| context).await;
    let answer = reqwest::get(server.url("/api/v1/restores/never-answers")).await.unwrap();
    assert_eq!(answer.status(), 504);
    let status = client(&server).await.get_restore(pb::GetRestoreRequest { name: "never-answers".into() }).await;
    assert_eq!(status.unwrap_err().code(), tonic::Code::DeadlineExceeded);
}

#[tokio::test]
async fn requests_above_the_limit_are_refused_and_not_queued() {
    let options = Options { max_requests: 0, ..Options::default() };
    let server = serve_with(&Fake::with([]), options, |context| context).await;
    let answer = reqwest::get(server.url("/api/v1/restores")).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    let status = client(&server).await.list_restores(pb::ListRestoresRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
}

#[tokio::test]
async fn an_unknown_method_of_grpc_is_unimplemented() {
    let server = serve(&Fake::with([])).await;
    let request = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let post = request.post(server.url("/reprise.v1.RestoreService/PauseRestore"));
    let answer = post.header("content-type", "application/grpc").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &"12".parse().unwrap()));
}
