//! Plans through both doors, over a scripted façade.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use reprise::api::grpc::pb::plan_event::Event;
use reprise::api::grpc::{field_of, pb, violations_of};
use reprise::model::{
    Denied, GroupResource, ItemId, ItemKey, Origin, Phase, PlanAction, PlanCounts, PlanEntry, PlanSummary, Reason,
};
use reprise::service::{Code, Error, PlanBegun, PlanEvent, PlanRestore, PlanSource};
use serde_json::{Value, json};

use super::api_grpc::client;
use super::api_support::{Fake, Running, eventually, serve, view};

fn begun() -> PlanEvent {
    PlanEvent::Begun(PlanBegun {
        restore: "again".to_owned(),
        backup: "nightly".to_owned(),
        items: 1,
        dry_run: true,
        sandbox: false,
    })
}

fn script() -> Vec<PlanEvent> {
    let secrets = GroupResource::parse("secrets");
    let entry = PlanEntry {
        id: ItemId(3),
        group_resource: secrets.clone(),
        key: ItemKey::new("v1", "Secret", "shop", "till"),
        origin: Origin::Planned,
        action: PlanAction::Conflict,
        reason: Some(Reason::Conflict),
        message: Some("it differs".to_owned()),
        differences: vec!["/data/pin".to_owned()],
        dry_run: false,
    };
    let actions = PlanCounts::from([(PlanAction::Conflict, 1)]);
    let summary = PlanSummary {
        items: 1,
        resources: [(secrets.clone(), actions.clone())].into(),
        actions,
        denied: vec![Denied { verb: "create".to_owned(), group_resource: secrets, namespace: "shop".to_owned() }],
        findings: Vec::new(),
        warnings: 1,
        errors: 0,
    };
    vec![begun(), PlanEvent::Entry(Box::new(entry)), PlanEvent::Ended(Box::new(summary))]
}

fn fake(events: Vec<PlanEvent>) -> Arc<Fake> {
    let fake = Fake::with([view("again", Phase::Completed, 3)]);
    *fake.plan.lock().unwrap() = events;
    fake
}

async fn post(server: &Running, path: &str, body: Value) -> reqwest::Response {
    reqwest::Client::new().post(server.url(path)).json(&body).send().await.unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[tokio::test]
async fn a_plan_is_one_json_object_on_each_line_and_ends_with_its_sum() {
    let fake = fake(script());
    let server = serve(&fake).await;
    let answer = reqwest::get(server.url("/api/v1/restores/again/plan?dryRun=false")).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/x-ndjson".parse().unwrap())
    );
    let told = lines(&answer.text().await.unwrap());
    assert_eq!(
        told,
        [
            json!({"event": "begun", "restore": "again", "backup": "nightly", "items": 1, "dryRun": true, "sandbox": false}),
            json!({"event": "entry", "id": 3, "groupResource": "secrets", "apiVersionKind": "v1/Secret", "namespace": "shop",
                "name": "till", "origin": "planned", "action": "conflict", "reason": "conflict", "message": "it differs",
                "differences": ["/data/pin"], "dryRun": false}),
            json!({"event": "ended", "items": 1, "actions": {"conflict": 1}, "resources": {"secrets": {"conflict": 1}},
                "denied": [{"verb": "create", "groupResource": "secrets", "namespace": "shop"}], "findings": [],
                "warnings": 1, "errors": 0}),
        ]
    );
    let planned = fake.planned.lock().unwrap()[0].clone();
    let wanted = PlanRestore { source: PlanSource::Restore("again".parse().unwrap()), dry_run: false };
    assert_eq!(planned, wanted);
}

#[tokio::test]
async fn a_restore_that_is_not_there_yet_is_planned_from_either_form_of_a_body() {
    let fake = fake(script());
    let server = serve(&fake).await;
    let spec = json!({"backupName": "nightly"});
    let object = json!({"apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "b"}, "spec": spec});
    for body in [json!({"spec": spec}), json!({"name": "b", "spec": spec}), object] {
        assert_eq!(post(&server, "/api/v1/plan", body).await.status(), 200);
    }
    let names: Vec<_> = fake
        .planned
        .lock()
        .unwrap()
        .iter()
        .map(|planned| match &planned.source {
            PlanSource::Spec { name, spec: wanted } => {
                assert_eq!((wanted, planned.dry_run), (&spec, true));
                name.as_ref().map(ToString::to_string)
            }
            PlanSource::Restore(name) => panic!("{name}"),
        })
        .collect();
    assert_eq!(names, [None, Some("b".to_owned()), Some("b".to_owned())]);
    for (body, field) in [
        (json!({"name": "Not_A_Name", "spec": {}}), "name"),
        (json!({"spec": {"backup": "b"}}), "spec.backup"),
        (json!({"spec": {}, "requestId": "one"}), "requestId"),
    ] {
        let answer = post(&server, "/api/v1/plan", body).await;
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((&problem["status"], &problem["field"]), (&json!(400), &json!(field)), "{problem}");
    }
    let answer = post(&server, "/api/v1/plan?dryRun=perhaps", json!({"spec": {}})).await;
    assert_eq!(answer.status(), 400);
}

#[tokio::test]
async fn grpc_tells_the_same_plan() {
    let fake = fake(script());
    let server = serve(&fake).await;
    let request = pb::PlanRestoreRequest { name: "again".to_owned(), spec: None, dry_run: None };
    let events: Vec<_> =
        client(&server).await.plan_restore(request).await.unwrap().into_inner().map(Result::unwrap).collect().await;
    let [Some(Event::Begun(begun)), Some(Event::Entry(entry)), Some(Event::Ended(ended))] =
        [0, 1, 2].map(|at| events[at].event.clone())
    else {
        panic!("{events:?}")
    };
    assert_eq!((begun.backup.as_str(), begun.items, events.len()), ("nightly", 1, 3));
    assert_eq!(
        (entry.action(), entry.reason(), entry.name.as_str()),
        (pb::PlanAction::Conflict, pb::Reason::Conflict, "till")
    );
    assert_eq!(entry.differences, ["/data/pin"]);
    assert_eq!((ended.items, ended.denied[0].verb.as_str(), ended.resources[0].actions[0].count), (1, "create", 1));
    assert!(fake.planned.lock().unwrap()[0].dry_run, "absent means yes");
}

#[tokio::test]
async fn every_validation_error_reaches_the_caller_through_both_doors() {
    let fake = fake(Vec::new());
    let errors = vec!["no such backup".to_owned(), "no such policy".to_owned()];
    *fake.failure.lock().unwrap() = Some(Error::invalid_spec(Code::InvalidArgument, errors.clone()));
    let server = serve(&fake).await;
    let problem: Value = post(&server, "/api/v1/plan", json!({"spec": {}})).await.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["field"]), (&json!("INVALID_ARGUMENT"), &json!("spec")));
    assert_eq!(problem["violations"], json!(errors));
    let request = pb::PlanRestoreRequest { spec: Some(pb::RestoreSpec::default()), ..Default::default() };
    let status = client(&server).await.plan_restore(request).await.unwrap_err();
    assert_eq!((status.code(), field_of(&status).as_deref()), (tonic::Code::InvalidArgument, Some("spec")));
    assert_eq!(violations_of(&status), errors);
}

#[tokio::test]
async fn a_plan_that_breaks_off_ends_with_its_error() {
    let away = PlanEvent::Failed(Error::new(Code::Unavailable, "the API server is away"));
    let server = serve(&fake(vec![begun(), away])).await;
    let text = reqwest::get(server.url("/api/v1/restores/again/plan")).await.unwrap().text().await.unwrap();
    let last = lines(&text).pop().unwrap();
    assert_eq!((&last["event"], &last["code"]), (&json!("failed"), &json!("UNAVAILABLE")));
    assert_eq!(
        (&last["detail"], &last["instance"]),
        (&json!("the API server is away"), &json!("/api/v1/restores/again/plan"))
    );
    let request = pb::PlanRestoreRequest { name: "again".to_owned(), ..Default::default() };
    let mut events = client(&server).await.plan_restore(request).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    assert_eq!(events.message().await.unwrap_err().code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn a_plan_ends_when_its_reader_goes_and_when_the_service_does() {
    let fake = fake(vec![begun()]);
    let server = serve(&fake).await;
    let request = || pb::PlanRestoreRequest { name: "again".to_owned(), ..Default::default() };
    let mut events = client(&server).await.plan_restore(request()).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    drop(events);
    eventually("the plan is dropped", || fake.subscriptions.load(Ordering::SeqCst) == 0).await;

    let mut grpc = client(&server).await.plan_restore(request()).await.unwrap().into_inner();
    assert!(grpc.message().await.unwrap().is_some());
    let rest = reqwest::get(server.url("/api/v1/restores/again/plan")).await.unwrap();
    server.shutdown.cancel();
    let last = grpc.message().await.unwrap().unwrap();
    assert!(matches!(last.event, Some(Event::ShuttingDown(_))), "{last:?}");
    assert_eq!(grpc.message().await.unwrap(), None);
    assert_eq!(lines(&rest.text().await.unwrap()).pop().unwrap(), json!({"event": "shutting-down"}));
    server.ended().await;
}

#[tokio::test]
async fn an_unknown_restore_and_a_request_for_nothing_are_refused() {
    let server = serve(&fake(Vec::new())).await;
    assert_eq!(reqwest::get(server.url("/api/v1/restores/nope/plan")).await.unwrap().status(), 404);
    let ask = async |name: &str| {
        let request = pb::PlanRestoreRequest { name: name.to_owned(), ..Default::default() };
        client(&server).await.plan_restore(request).await.unwrap_err().code()
    };
    assert_eq!((ask("nope").await, ask("").await), (tonic::Code::NotFound, tonic::Code::InvalidArgument));
}
