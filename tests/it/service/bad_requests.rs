//! Requests that are wrong, and clients that go away.

use std::time::Duration;

use futures::StreamExt as _;
use reprise::api::grpc::{field_of, pb};
use serde_json::{Value, json};
use tonic::Code;
use tonic_prost::ProstCodec;

use super::client::slow;
use super::served::{Served, until};
use super::world::{World, config_maps};

async fn served() -> (World, Served) {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 3)).await;
    let served = world.serve().await;
    (world, served)
}

/// What a request is refused with: the code, the field, the text.
async fn refused(served: &Served, body: &Value) -> (u16, Value, String) {
    let answer = served.post(body).await;
    let code = answer.status().as_u16();
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{body}");
    let problem: Value = answer.json().await.unwrap();
    (code, problem["field"].clone(), problem["detail"].as_str().unwrap_or_default().to_owned())
}

async fn no_restores(world: &World) {
    assert_eq!(world.names(&world.velero("restores")).await, [""; 0], "a refused request leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_and_wrong_types_over_rest_are_named() {
    let (world, served) = served().await;
    for (spec, field) in [
        (json!({"backupName": "nightly", "includeNamespaces": ["a"]}), "spec.includeNamespaces"),
        (json!({"backupName": "nightly", "restoreStatus": {"resources": ["pods"]}}), "spec.restoreStatus.resources"),
        (json!({"backupName": 7}), "spec.backupName"),
        (json!({"backupName": "nightly", "includedNamespaces": "shop"}), "spec.includedNamespaces"),
        (json!({"backupName": "nightly", "restorePVs": "yes"}), "spec.restorePVs"),
        (json!({"backupName": "nightly", "namespaceMapping": {"a": 1}}), "spec.namespaceMapping.a"),
        (json!("nightly"), "spec"),
    ] {
        for body in [
            json!({"name": "r", "spec": spec}),
            json!({"apiVersion": "velero.io/v1", "kind": "Restore", "metadata": {"name": "r"}, "spec": spec}),
        ] {
            let (code, found, text) = refused(&served, &body).await;
            assert_eq!((code, found.as_str()), (400, Some(field)), "{body}: {text}");
        }
    }
    let (code, field, _) = refused(&served, &json!({"name": "r", "sepc": {}})).await;
    assert_eq!((code, field.as_str()), (400, Some("sepc")));
    no_restores(&world).await;
}

/// Sends any message to any method, as a client with another version of the interface does.
async fn call<Q>(served: &Served, method: &str, message: Q) -> Result<pb::Restore, tonic::Status>
where
    Q: prost::Message + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(served.channel().await);
    client.ready().await.unwrap();
    let path = format!("/reprise.v1.RestoreService/{method}").parse().unwrap();
    let codec: ProstCodec<Q, pb::Restore> = ProstCodec::default();
    client.unary(tonic::Request::new(message), path, codec).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_grpc_a_wrong_type_is_refused_and_an_unknown_field_of_a_newer_client_is_not() {
    let (world, served) = served().await;
    // The name as a number.
    let status = call(&served, "GetRestore", pb::ListRestoresRequest { page_size: 5, ..Default::default() }).await;
    let status = status.unwrap_err();
    assert!(matches!(status.code(), Code::Internal | Code::InvalidArgument), "{status:?}");
    no_restores(&world).await;

    served.create("r", json!({"backupName": "nightly"})).await;
    // Fields 5 and 6 of this message are none of GetRestoreRequest's.
    let newer = pb::ListItemsRequest { name: "r".into(), page_size: 3, page_token: "x".into(), ..Default::default() };
    assert_eq!(call(&served, "GetRestore", newer).await.unwrap().name, "r");
}

fn create(name: &str, spec: pb::RestoreSpec) -> pb::CreateRestoreRequest {
    pb::CreateRestoreRequest { name: name.to_owned(), spec: Some(spec), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_no_kubernetes_name_is_refused_at_every_door() {
    let (world, served) = served().await;
    for name in ["", "Upper", "a b", "a/b", "-a", "a.", "ü", &"x".repeat(254)] {
        let body = json!({"name": name, "spec": {"backupName": "nightly"}});
        let (code, field, text) = refused(&served, &body).await;
        assert_eq!((code, field.as_str()), (400, Some("name")), "{name:?}: {text}");
        let spec = pb::RestoreSpec { backup_name: "nightly".into(), ..Default::default() };
        let status = served.grpc().await.create_restore(create(name, spec)).await.unwrap_err();
        assert_eq!((status.code(), field_of(&status).as_deref()), (Code::InvalidArgument, Some("name")), "{status:?}");
    }
    no_restores(&world).await;
    // Longer ones are names as well, and too long for a file in this test's folder.
    let long = "x".repeat(200);
    served.create(&long, json!({"backupName": "nightly"})).await;
    assert_eq!(served.ended(&long).await.phase(), pb::Phase::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_restore_of_the_same_name_is_refused_unless_it_is_the_same_request() {
    let (_world, served) = served().await;
    let body = json!({"name": "r", "requestId": "one", "spec": {"backupName": "nightly"}});
    let first: Value = served.post(&body).await.json().await.unwrap();
    served.ended("r").await;
    let again = served.post(&body).await;
    assert_eq!(again.status(), 201);
    let again: Value = again.json().await.unwrap();
    assert_eq!((&again["uid"], &again["phase"]), (&first["uid"], &json!("Completed")));

    let spec = pb::RestoreSpec { backup_name: "nightly".into(), ..Default::default() };
    let mut request = create("r", spec);
    for id in ["", "two"] {
        let body = json!({"name": "r", "requestId": id, "spec": {"backupName": "nightly"}});
        let body = if id.is_empty() { json!({"name": "r", "spec": body["spec"]}) } else { body };
        assert_eq!(refused(&served, &body).await.0, 409);
        id.clone_into(&mut request.request_id);
        let status = served.grpc().await.create_restore(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    }
    "one".clone_into(&mut request.request_id);
    let same = served.grpc().await.create_restore(request).await.unwrap().into_inner();
    assert_eq!(Some(same.uid.as_str()), first["uid"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_restore_is_not_found_at_every_door() {
    let (_world, served) = served().await;
    for path in ["", "/progress", "/items", "/results", "/logs", "/events"] {
        let (code, problem) = served.get(&format!("/api/v1/restores/nobody{path}")).await;
        assert_eq!((code, &problem["code"]), (404, &json!("NOT_FOUND")), "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("nobody"), "{problem}");
    }
    let mut client = served.grpc().await;
    let name = || "nobody".to_owned();
    let codes = [
        client.get_restore(pb::GetRestoreRequest { name: name() }).await.map(|_| ()),
        client.watch_restore(pb::WatchRestoreRequest { name: name(), after_sequence: None }).await.map(|_| ()),
        client.list_items(pb::ListItemsRequest { name: name(), ..Default::default() }).await.map(|_| ()),
        client.get_results(pb::GetResultsRequest { name: name() }).await.map(|_| ()),
        client.stream_logs(pb::StreamLogsRequest { name: name(), follow: true }).await.map(|_| ()),
    ];
    for answer in codes {
        assert_eq!(answer.unwrap_err().code(), Code::NotFound);
    }
}

/// restore-semantics 1.4 rule 5
#[tokio::test(flavor = "multi_thread")]
async fn both_selectors_fail_validation() {
    let (world, served) = served().await;
    let labels = json!({"matchLabels": {"a": "b"}});
    let spec = json!({"backupName": "nightly", "labelSelector": labels, "orLabelSelectors": [labels]});
    served.create("rest", spec).await;
    let selector = pb::LabelSelector { match_labels: [("a".into(), "b".into())].into(), ..Default::default() };
    let spec = pb::RestoreSpec {
        backup_name: "nightly".into(),
        label_selector: Some(selector.clone()),
        or_label_selectors: vec![selector],
        ..Default::default()
    };
    served.grpc().await.create_restore(create("grpc", spec)).await.unwrap();
    for name in ["rest", "grpc"] {
        let ended = served.ended(name).await;
        assert_eq!(ended.phase(), pb::Phase::FailedValidation);
        let text = "encountered labelSelector as well as orLabelSelectors in restore spec, only one can be specified";
        assert_eq!(ended.validation_errors, [text]);
        assert_eq!(world.restore(name).await["status"]["validationErrors"], json!([text]));
    }
}

/// Velero finds out in the engine: an error of the restore, and nothing restored (restore-semantics 1.7).
#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_is_none_is_an_error_of_the_restore() {
    let (world, served) = served().await;
    for (number, expression) in [
        json!({"key": "a", "operator": "Like", "values": ["b"]}),
        json!({"key": "a", "operator": "In"}),
        json!({"key": "not a key", "operator": "Exists"}),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("r-{number}");
        let spec = json!({"backupName": "nightly", "labelSelector": {"matchExpressions": [expression]}});
        served.create(&name, spec).await;
        let ended = served.ended(&name).await;
        assert_eq!((ended.phase(), ended.errors), (pb::Phase::PartiallyFailed, 1), "{expression}: {ended:?}");
        let results = served.results(&name).await;
        assert_eq!(results.errors[0].bucket, Some(pb::finding::Bucket::Velero(true)), "{results:?}");
    }
    assert_eq!(world.get("/api/v1/namespaces/shop").await, None);
}

/// What is wrong only in Velero's eyes is kept, as kubectl would, and fails validation.
/// (restore-semantics 1.4).
#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_with_a_specification_is_told_at_once() {
    let (_world, served) = served().await;
    let spec = json!({
        "backupName": "nightly", "existingResourcePolicy": "sometimes", "includedResources": ["nodes"],
        "includedNamespaces": ["*", "shop"],
    });
    served.create("r", spec).await;
    let ended = served.ended("r").await;
    assert_eq!(ended.phase(), pb::Phase::FailedValidation);
    let all = ended.validation_errors.join("\n");
    for part in ["nodes are non-restorable resources", "namespace lists", "Invalid ExistingResourcePolicy: sometimes"] {
        assert!(all.contains(part), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_in_mid_stream_disturb_nobody() {
    let world = World::sandbox().await;
    world.add_backup("nightly", &config_maps("shop", 200)).await;
    let served = world.serve_through(slow(&world.client, Duration::from_millis(50))).await;
    served.create("nightly", json!({"backupName": "nightly"})).await;
    let subscribers = async || {
        let metrics = served.admin("/metrics").await;
        let counts = metrics.lines().filter(|line| line.starts_with("reprise_stream_subscribers{"));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum::<i64>()
    };
    let request = pb::WatchRestoreRequest { name: "nightly".into(), after_sequence: None };
    let mut grpc = served.grpc().await.watch_restore(request).await.unwrap().into_inner();
    grpc.next().await.unwrap().unwrap();
    let mut events = reqwest::get(served.url("/api/v1/restores/nightly/events")).await.unwrap().bytes_stream();
    events.next().await.unwrap().unwrap();
    let mut logs = reqwest::get(served.url("/api/v1/restores/nightly/logs?follow=true")).await.unwrap().bytes_stream();
    logs.next().await.unwrap().unwrap();
    assert_eq!(subscribers().await, 3);
    drop((grpc, events, logs));
    until("the streams are freed", async || (subscribers().await == 0).then_some(())).await;
    let (_, view) = served.get("/api/v1/restores/nightly").await;
    assert_eq!(view["phase"], "InProgress", "the restore was over before the clients went: {view}");
    let ended = served.ended("nightly").await;
    assert_eq!((ended.phase(), ended.errors), (pb::Phase::Completed, 0));
    assert_eq!(world.names("/api/v1/namespaces/shop/configmaps").await.len(), 200);
}
