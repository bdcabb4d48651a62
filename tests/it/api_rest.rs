//! The REST door.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reprise::model::Phase;
use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::api_support::{Fake, Running, serve, view};

async fn get(server: &Running, path: &str) -> Response {
    reqwest::get(server.url(path)).await.unwrap()
}

async fn json(server: &Running, path: &str) -> Value {
    let answer = get(server, path).await;
    assert_eq!(answer.status(), 200, "{path}");
    assert_eq!(answer.headers()["content-type"], "application/json");
    answer.json().await.unwrap()
}

async fn post(server: &Running, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
    let post = Client::new().post(server.url("/api/v1/restores")).body(body);
    let post = if content_type.is_empty() { post } else { post.header("content-type", content_type) };
    post.send().await.unwrap()
}

async fn problem(answer: Response, status: u16, code: &str) -> Value {
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{problem}");
    problem
}

#[tokio::test]
async fn a_restore_is_created_from_the_short_form() {
    let fake = Fake::with([]);
    let server = serve(&fake).await;
    let body = json!({
        "name": "again", "requestId": "one", "labels": {"team": "shop"}, "annotations": {"why": "outage"},
        "spec": {"backupName": "nightly", "restorePVs": true, "orLabelSelectors": []},
    });
    for _ in 0..2 {
        let answer = post(&server, "application/json; charset=utf-8", body.to_string()).await;
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.headers()["location"], "/api/v1/restores/again");
        let restore: Value = answer.json().await.unwrap();
        assert_eq!((&restore["name"], &restore["phase"]), (&json!("again"), &json!("New")));
        assert_eq!((&restore["spec"], &restore["labels"]), (&body["spec"], &body["labels"]));
    }
    let created = fake.created.lock().unwrap()[0].clone();
    assert_eq!(created.request_id.unwrap().as_str(), "one");
    assert_eq!(created.annotations["why"], "outage");
    let again = json!({"name": "again", "spec": {}}).to_string();
    problem(post(&server, "application/json", again).await, 409, "ALREADY_EXISTS").await;
}

#[tokio::test]
async fn a_restore_is_created_from_what_kubectl_would_take() {
    let fake = Fake::with([]);
    let server = serve(&fake).await;
    let object = json!({
        "apiVersion": "velero.io/v1", "kind": "Restore",
        "metadata": {"name": "from-json", "namespace": "velero", "labels": {"team": "shop"}},
        "spec": {"backupName": "nightly"},
    });
    assert_eq!(post(&server, "application/json", object.to_string()).await.status(), 201);
    let yaml = "apiVersion: velero.io/v1\nkind: Restore\nmetadata:\n  name: from-yaml\nspec:\n  backupName: nightly\n  \
                includedNamespaces: [shop]\n  restorePVs: false\n";
    assert_eq!(post(&server, "application/yaml", yaml).await.status(), 201);
    let created = fake.created.lock().unwrap();
    assert_eq!((created[0].name.as_str(), created[0].namespace.as_deref()), ("from-json", Some("velero")));
    assert_eq!(created[1].spec, json!({"backupName": "nightly", "includedNamespaces": ["shop"], "restorePVs": false}));
}

#[tokio::test]
async fn bad_bodies_are_refused_each_with_its_message() {
    let fake = Fake::with([]);
    let server = serve(&fake).await;
    let cases = [
        ("{", "", "is not JSON"),
        ("[]", "", "must be an object"),
        (r#"{"spec":{}}"#, "", "missing field `name`"),
        (r#"{"name":"a"}"#, "", "missing field `spec`"),
        (r#"{"name":"A_b","spec":{}}"#, "name", "is not a Kubernetes name"),
        (r#"{"name":"a","spec":{},"colour":"red"}"#, "colour", "unknown field `colour`"),
        (r#"{"name":"a","spec":{"backup":"b"}}"#, "spec.backup", "unknown field `backup`"),
        (r#"{"name":"a","spec":{"restorePVs":"yes"}}"#, "spec.restorePVs", "expected a boolean"),
        (r#"{"name":"a","spec":{"includedNamespaces":"x"}}"#, "spec.includedNamespaces", "expected a sequence"),
        (r#"{"name":"a","spec":{},"requestId":""}"#, "requestId", "1 to 256 bytes"),
        (r#"{"kind":"Restore","metadata":{"name":"a"},"spec":{}}"#, "", "missing field `apiVersion`"),
        (r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{}}"#, "apiVersion", "use velero.io/v1"),
    ];
    for (body, field, text) in cases {
        let problem = problem(post(&server, "application/json", body).await, 400, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(text), "{body}: {problem}");
        assert_eq!(problem["instance"], "/api/v1/restores");
    }
    let yaml = problem(post(&server, "application/yaml", "a: [").await, 400, "INVALID_ARGUMENT").await;
    assert!(yaml["detail"].as_str().unwrap().contains("is not YAML"), "{yaml}");
    for content_type in ["", "text/plain", "application/x-www-form-urlencoded"] {
        let problem = problem(post(&server, content_type, "{}").await, 415, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], "Content-Type");
    }
    assert!(fake.created.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_whether_or_not_its_length_is_told() {
    let server = serve(&Fake::with([])).await;
    let body = " ".repeat((4 << 20) + 1);
    let told = problem(post(&server, "application/json", body.clone()).await, 413, "RESOURCE_EXHAUSTED").await;
    assert!(told["detail"].as_str().unwrap().contains("at most 4194304 bytes"));
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(body)]);
    let chunked = reqwest::Body::wrap_stream(chunks);
    problem(post(&server, "application/json", chunked).await, 413, "RESOURCE_EXHAUSTED").await;
}

#[tokio::test]
async fn bad_paths_methods_names_and_queries_are_refused() {
    let server = serve(&Fake::with([view("again", Phase::New, 0)])).await;
    for path in ["/nothing", "/api/v1/nothing", "/api/v1/restores/again/nothing", "/api/v1/restores/"] {
        let problem = problem(get(&server, path).await, 404, "NOT_FOUND").await;
        assert_eq!(
            (&problem["instance"], &problem["type"]),
            (&json!(path), &json!("urn:reprise:problem:no-such-path"))
        );
    }
    let answer = Client::new().put(server.url("/api/v1/restores")).send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "GET,HEAD,POST");
    problem(answer, 405, "UNIMPLEMENTED").await;

    let cases = [
        ("/api/v1/restores/Bad_Name", "name"),
        ("/api/v1/restores/%FF", "name"),
        ("/api/v1/restores?colour=red", "colour"),
        ("/api/v1/restores?pageSize=many", "pageSize"),
        ("/api/v1/restores?pageSize=1001", "pageSize"),
        ("/api/v1/restores/again?verbose=true", "verbose"),
        ("/api/v1/restores/again/items?outcome=lost", "outcome"),
        ("/api/v1/restores/again/items?resource=a&resource=b", "resource"),
        ("/api/v1/restores/again/logs?follow=maybe", "follow"),
        ("/api/v1/restores/again/events?after=-1", "after"),
        ("/api/v1/events?after=1", "after"),
    ];
    for (path, field) in cases {
        let problem = problem(get(&server, path).await, 400, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field, "{path}: {problem}");
    }
}

#[tokio::test]
async fn a_restore_and_its_progress_are_told_in_camel_case() {
    let server = serve(&Fake::with([view("again", Phase::InProgress, 10)])).await;
    let restore = json(&server, "/api/v1/restores/again").await;
    assert_eq!(
        (&restore["backupName"], &restore["createdAt"], &restore["sandbox"]),
        (&json!("nightly"), &json!("2026-01-02T03:04:04Z"), &json!(false))
    );
    let progress = json(&server, "/api/v1/restores/again/progress").await;
    assert_eq!(progress, restore["progress"]);
    let counts = json!({"pending": 6, "created": 3, "updated": 0, "unchanged": 0, "skipped": 0, "failed": 1});
    let nothing = json!({"pending": 0, "created": 0, "updated": 0, "unchanged": 0, "skipped": 0, "failed": 0});
    assert_eq!(
        progress,
        json!({
            "sequence": 10, "phase": "InProgress", "stage": "items", "percent": 40, "totalItems": 10,
            "itemsRestored": 4, "outcomes": counts, "added": 1, "stages": {"items": counts},
            "resources": {"deployments.apps": counts}, "namespaces": {"": nothing, "shop": counts},
            "failures": {"denied-by-admission": 1}, "warnings": 2, "errors": 1, "itemsPerSecond": 12.5,
            "startedAt": "2026-01-02T03:04:05Z", "elapsedSeconds": 1.5, "lastProgressAt": "2026-01-02T03:04:06.5Z",
            "timeLeft": {"lowSeconds": 3, "highSeconds": 8},
            "waitingFor": [{"object": "namespace shop", "request": "create"}],
        })
    );
}

#[tokio::test]
async fn restores_and_items_come_a_page_at_a_time() {
    let server = serve(&Fake::with(["a", "b", "c"].map(|name| view(name, Phase::Completed, 1)))).await;
    let first = json(&server, "/api/v1/restores?pageSize=2").await;
    assert_eq!((first["restores"].as_array().unwrap().len(), &first["nextPageToken"]), (2, &json!("b")));
    let second = json(&server, "/api/v1/restores?pageSize=2&pageToken=b").await;
    assert_eq!((&second["restores"][0]["name"], &second["nextPageToken"]), (&json!("c"), &json!("")));

    let items = json(&server, "/api/v1/restores/a/items?outcome=failed&outcome=skipped&pageSize=2").await;
    assert_eq!((&items["matching"], &items["nextPageToken"]), (&json!(3), &json!("2")));
    let wanted = json!({
        "id": 1, "groupResource": "deployments.apps", "apiVersionKind": "apps/v1/Deployment", "namespace": "shop",
        "name": "web-1", "origin": "planned", "outcome": "failed", "reason": "quota", "message": "because",
        "attempts": 1, "durationMilliseconds": 1250,
    });
    assert_eq!(items["items"][0], wanted);
    let rest = json(&server, "/api/v1/restores/a/items?outcome=failed,skipped&pageSize=2&pageToken=2").await;
    assert_eq!((&rest["items"][0]["id"], &rest["nextPageToken"]), (&json!(3), &json!("")));
    for (filter, matching) in [("resource=pods", 0), ("namespace=", 0), ("namespace=shop&resource=deployments.apps", 4)]
    {
        let found = json(&server, &format!("/api/v1/restores/a/items?{filter}")).await;
        assert_eq!(found["matching"], matching, "{filter}");
    }
}

#[tokio::test]
async fn results_and_logs_are_told() {
    let fake = Fake::with([view("again", Phase::PartiallyFailed, 10)]);
    fake.log.lock().unwrap().extend(["one".to_owned(), "two".to_owned()]);
    let server = serve(&fake).await;
    let wanted = json!({
        "warnings": [{"bucket": "cluster", "reason": "conflict", "message": "exists and differs"}],
        "errors": [
            {"bucket": "namespace", "namespace": "shop", "reason": "quota", "message": "exceeded quota"},
            {"bucket": "velero", "reason": "archive", "message": "cannot be read"},
        ],
        "complete": true,
    });
    assert_eq!(json(&server, "/api/v1/restores/again/results").await, wanted);
    let log = get(&server, "/api/v1/restores/again/logs").await;
    assert_eq!(log.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(log.text().await.unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn the_openapi_document_mentions_every_route_and_resolves_every_schema() {
    let server = serve(&Fake::with([])).await;
    let document = json(&server, "/api/v1/openapi.json").await;
    let index = json(&server, "/api/v1").await;
    let told: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let paths = index.as_object().unwrap().iter().filter(|(name, _)| *name != "openapi");
    let indexed: BTreeSet<_> =
        paths.filter_map(|(_, path)| path.as_str()).filter(|path| path.starts_with("/api/v1/")).collect();
    assert_eq!(told, indexed);
    assert!(document["paths"]["/api/v1/restores"]["post"]["requestBody"]["content"]["application/yaml"].is_object());

    let text = document.to_string();
    let references = text.split("\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
    for name in references {
        assert!(document["components"]["schemas"][name].is_object(), "schema {name} is missing");
    }
    let spec = &document["components"]["schemas"]["RestoreSpec"]["properties"];
    assert_eq!(spec["includedNamespaces"]["items"]["type"], "string");
    for field in ["backupName", "restorePVs", "orLabelSelectors", "itemOperationTimeout", "uploaderConfig"] {
        assert!(spec[field].is_object(), "{field} is missing: {spec}");
    }
    assert_eq!(document["components"]["schemas"]["Phase"]["enum"].as_array().unwrap().len(), Phase::ALL.len());
}

#[tokio::test]
async fn the_first_page_can_be_copied_from_and_the_sandbox_says_that_it_is_one() {
    let fake = Fake::with([]);
    let server = serve(&fake).await;
    let answer = get(&server, "/").await;
    assert!(answer.headers().get("reprise-sandbox").is_none());
    let text = answer.text().await.unwrap();
    assert!(text.contains(&format!("curl -N http://{}/api/v1/events", server.address)), "{text}");
    assert!(!text.contains("sandbox"), "{text}");
    fake.sandbox.store(true, Ordering::SeqCst);
    let answer = get(&server, "/").await;
    assert_eq!(answer.headers()["reprise-sandbox"], "true");
    assert!(answer.text().await.unwrap().contains("This is a sandbox"));
    assert_eq!(json(&server, "/api/v1").await["sandbox"], true);
}

#[tokio::test]
async fn a_request_id_is_given_back_or_made_up() {
    let server = serve(&Fake::with([])).await;
    let asked = Client::new().get(server.url("/api/v1")).header("x-request-id", "mine").send().await.unwrap();
    assert_eq!(asked.headers()["x-request-id"], "mine");
    let first = get(&server, "/nothing").await.headers()["x-request-id"].clone();
    let second = get(&server, "/nothing").await.headers()["x-request-id"].clone();
    assert_ne!(first, second);
}

#[tokio::test]
async fn rest_speaks_http_2_with_prior_knowledge_on_the_same_port() {
    let fake = Fake::with([]);
    let server = serve(&Arc::clone(&fake)).await;
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let answer = client.get(server.url("/api/v1/restores")).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 200));
}

#[tokio::test]
async fn a_cancellation_needs_no_body_and_a_form_of_a_page_is_refused() {
    let fake = Fake::with([view("nightly", Phase::InProgress, 1)]);
    let server = serve(&fake).await;
    let post = || reqwest::Client::new().post(server.url("/api/v1/restores/nightly/cancel"));
    assert_eq!(post().send().await.unwrap().status().as_u16(), 202);
    let json = post().header("content-type", "application/json");
    assert_eq!(json.body(r#"{"reason":"wrong backup","by":"alice"}"#).send().await.unwrap().status().as_u16(), 202);
    let form = post().header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(form.send().await.unwrap().status().as_u16(), 415);
    let told = fake.cancelled.lock().unwrap().clone();
    let told: Vec<_> = told.iter().map(|(name, cancelled)| (&**name, cancelled.by(), cancelled.reason())).collect();
    assert_eq!(told, [("nightly", "a REST call", ""), ("nightly", "alice", "wrong backup")]);
}
