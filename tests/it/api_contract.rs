//! What the engine and the controller rely on from a Kubernetes API, as functions of a plain client.
//!
//! Every contract runs on every provider: the sandbox, so that it stays honest, and the real API server, so that the
//! contracts stay true. A provider is a line `provider!(NAME, EXPRESSION)` at the end of this file, whose expression
//! gives an `Option<kube::Client>` (`None` skips).

mod custom;
mod refusals;

use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::discovery::{ApiResource, Discovery};
use kube::{Api, Client, ResourceExt as _, core::DynamicObject};
use reprise::sandbox::{Options, Sandbox};
use serde_json::{Value, json};

use custom::*;
use refusals::*;

/// Longer than any answer or event should take, on a machine that is busy building.
const PATIENCE: Duration = Duration::from_secs(30);

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of the kind")
}

/// The refusal in a result.
fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> Box<Status> {
    match result {
        Err(kube::Error::Api(status)) => status,
        other => panic!("not refused by the API: {other:?}"),
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, kube::Error>, code: u16, reason: &str, message: &str) {
    let status = refusal(result);
    assert_eq!((status.code, status.reason.as_str()), (code, reason), "{status:?}");
    assert!(status.message.starts_with(message), "{:?} does not start with {message:?}", status.message);
}

async fn fresh_namespace(client: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = object(json!({ "metadata": { "generateName": "contract-" } }));
    namespaces.create(&PostParams::default(), &namespace).await.expect("create a namespace").name_any()
}

async fn config_maps(client: &Client) -> (Api<ConfigMap>, String) {
    let namespace = fresh_namespace(client).await;
    (Api::namespaced(client.clone(), &namespace), namespace)
}

fn config_map(name: &str, labels: Value) -> ConfigMap {
    object(json!({ "metadata": { "name": name, "labels": labels }, "data": { "key": "value" } }))
}

fn merge(value: Value) -> Patch<Value> {
    Patch::Merge(value)
}

/// A request without a type behind it.
async fn raw(client: &Client, method: &str, path: &str, content_type: &str, body: &str) -> Result<Value, kube::Error> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(body.as_bytes().to_vec())
        .expect("a request");
    client.request(request).await
}

async fn next_event<K: std::fmt::Debug>(
    events: &mut (impl Stream<Item = Result<WatchEvent<K>, kube::Error>> + Unpin),
) -> WatchEvent<K> {
    tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("an event in time")
        .expect("an open watch")
        .expect("an event")
}

/// Tries until the answer is there; the real server's controllers take a moment.
async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let started = tokio::time::Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn both_discoveries_agree(client: Client) {
    // Groups of CRDs come and go while other tests run, so only the built-in ones are compared.
    let legacy = Discovery::new(client.clone()).filter(&["", "apps", "autoscaling", "policy"]).run().await.unwrap();
    let aggregated =
        Discovery::new(client).filter(&["", "apps", "autoscaling", "policy"]).run_aggregated().await.unwrap();
    for discovery in [&legacy, &aggregated] {
        let autoscaling = discovery.get("autoscaling").expect("autoscaling");
        assert_eq!(autoscaling.preferred_version_or_latest(), "v2");
        assert!(autoscaling.versions().any(|version| version == "v1"));
        let apps = discovery.get("apps").expect("apps");
        let (deployments, capabilities) = apps.recommended_kind("Deployment").expect("deployments");
        assert_eq!(deployments.plural, "deployments");
        assert!(capabilities.supports_operation(kube::discovery::verbs::WATCH));
        assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural == "status"));
    }
    let names = |discovery: &Discovery| {
        let mut names: Vec<String> = discovery
            .groups()
            .flat_map(|group| group.recommended_resources())
            .map(|(resource, _)| format!("{}/{} {}", resource.api_version, resource.plural, resource.kind))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&legacy), names(&aggregated));
}

async fn discovery_tells_short_names_singulars_and_scope(client: Client) {
    let core = client.list_core_api_resources("v1").await.unwrap();
    let claims = core.resources.iter().find(|resource| resource.name == "persistentvolumeclaims").unwrap();
    assert_eq!((claims.singular_name.as_str(), claims.namespaced), ("persistentvolumeclaim", true));
    assert_eq!(claims.short_names.as_deref(), Some(&["pvc".to_owned()][..]));
    let namespaces = core.resources.iter().find(|resource| resource.name == "namespaces").unwrap();
    assert!(!namespaces.namespaced);
    assert!(!namespaces.verbs.contains(&"deletecollection".to_owned()));
    assert!(core.resources.iter().any(|resource| resource.name == "pods/status"));
}

async fn an_object_that_was_created_can_be_read(client: Client) {
    let (api, namespace) = config_maps(&client).await;
    let created = api.create(&PostParams::default(), &config_map("a", json!({ "app": "web" }))).await.unwrap();
    assert_eq!(created.namespace().as_deref(), Some(namespace.as_str()));
    assert!(created.uid().is_some() && created.resource_version().is_some());
    assert!(created.metadata.creation_timestamp.is_some());
    let read = api.get("a").await.unwrap();
    assert_eq!(read, created);
    assert_refused(api.get("b").await, 404, "NotFound", "configmaps \"b\" not found");
    let details = refusal(api.get("b").await).details.unwrap();
    assert_eq!((details.name.as_str(), details.kind.as_str()), ("b", "configmaps"));
}

async fn creating_twice_conflicts(client: Client) {
    let (api, _) = config_maps(&client).await;
    let object = config_map("a", json!({}));
    api.create(&PostParams::default(), &object).await.unwrap();
    let again = api.create(&PostParams::default(), &object).await;
    assert_refused(again, 409, "AlreadyExists", "configmaps \"a\" already exists");
}

async fn a_generated_name_starts_with_its_prefix(client: Client) {
    let (api, _) = config_maps(&client).await;
    let object: ConfigMap = object(json!({ "metadata": { "generateName": "gen-" } }));
    let one = api.create(&PostParams::default(), &object).await.unwrap().name_any();
    let other = api.create(&PostParams::default(), &object).await.unwrap().name_any();
    assert!(one.starts_with("gen-") && one.len() == 9, "{one}");
    assert_ne!(one, other);
}

async fn labels_and_fields_select(client: Client) {
    let (api, _) = config_maps(&client).await;
    for (name, labels) in [
        ("a", json!({ "app": "web", "tier": "front" })),
        ("b", json!({ "app": "web" })),
        ("c", json!({ "app": "db" })),
        ("d", json!({})),
    ] {
        api.create(&PostParams::default(), &config_map(name, labels)).await.unwrap();
    }
    for (selector, wanted) in [
        ("app=web", vec!["a", "b"]),
        ("app!=web", vec!["c", "d"]),
        ("app in (web,db),tier", vec!["a"]),
        ("app notin (web)", vec!["c", "d"]),
        ("!app", vec!["d"]),
        ("app,!tier", vec!["b", "c"]),
    ] {
        let found = api.list(&ListParams::default().labels(selector)).await.unwrap();
        assert_eq!(found.items.iter().map(|item| item.name_any()).collect::<Vec<_>>(), wanted, "{selector}");
    }
    let found = api.list(&ListParams::default().fields("metadata.name=b")).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(refusal(api.list(&ListParams::default().labels("a b")).await).code, 400);
    assert_eq!(refusal(api.list(&ListParams::default().fields("spec.x=1")).await).code, 400);
}

async fn a_list_comes_in_pages(client: Client) {
    let (api, _) = config_maps(&client).await;
    for at in 0..5 {
        api.create(&PostParams::default(), &config_map(&format!("c{at}"), json!({}))).await.unwrap();
    }
    let mut names = Vec::new();
    let mut params = ListParams::default().limit(2);
    let mut pages = 0;
    loop {
        let page = api.list(&params).await.unwrap();
        pages += 1;
        names.extend(page.items.iter().map(|item| item.name_any()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!((names, pages), (vec!["c0", "c1", "c2", "c3", "c4"].into_iter().map(str::to_owned).collect(), 3));
}

async fn a_list_of_a_built_in_kind_leaves_the_kind_of_its_items_out(client: Client) {
    let (api, namespace) = config_maps(&client).await;
    api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let list = raw(&client, "GET", &format!("/api/v1/namespaces/{namespace}/configmaps"), "", "").await.unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert!(list["items"][0].get("kind").is_none());
}

async fn a_watch_sees_what_happens(client: Client) {
    let (api, _) = config_maps(&client).await;
    api.create(&PostParams::default(), &config_map("before", json!({ "see": "1" }))).await.unwrap();
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().labels("see=1").timeout(20);
    let mut events = std::pin::pin!(api.watch(&params, &version).await.unwrap());

    api.create(&PostParams::default(), &config_map("other", json!({}))).await.unwrap();
    api.create(&PostParams::default(), &config_map("a", json!({ "see": "1" }))).await.unwrap();
    let change = merge(json!({ "data": { "key": "new" } }));
    api.patch("a", &PatchParams::default(), &change).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let unlabel = merge(json!({ "metadata": { "labels": { "see": null } } }));
    api.patch("before", &PatchParams::default(), &unlabel).await.unwrap();

    let named = |event: WatchEvent<ConfigMap>| match event {
        WatchEvent::Added(object) => format!("added {}", object.name_any()),
        WatchEvent::Modified(object) => format!("modified {}", object.name_any()),
        WatchEvent::Deleted(object) => format!("deleted {}", object.name_any()),
        other => format!("{other:?}"),
    };
    for wanted in ["added a", "modified a", "deleted a", "deleted before"] {
        assert_eq!(named(next_event(&mut events).await), wanted);
    }
}

async fn a_watch_ends_after_its_timeout(client: Client) {
    let (api, _) = config_maps(&client).await;
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().timeout(1).disable_bookmarks();
    let events = api.watch(&params, &version).await.unwrap();
    let all: Vec<_> = tokio::time::timeout(PATIENCE, events.try_collect()).await.expect("an end").unwrap();
    assert!(all.is_empty(), "{all:?}");
}

async fn a_merge_patch_deletes_with_null(client: Client) {
    let (api, _) = config_maps(&client).await;
    api.create(&PostParams::default(), &config_map("a", json!({ "x": "y" }))).await.unwrap();
    let patch = merge(json!({ "data": { "key": null, "more": "1" }, "metadata": { "labels": { "x": null } } }));
    let patched = api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(serde_json::to_value(&patched.data).unwrap(), json!({ "more": "1" }));
    assert!(patched.labels().is_empty());
    let missing = api.patch("none", &PatchParams::default(), &patch).await;
    assert_refused(missing, 404, "NotFound", "configmaps \"none\" not found");
}

async fn a_patch_without_effect_keeps_the_revision(client: Client) {
    let (api, _) = config_maps(&client).await;
    let created = api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let patch = merge(json!({ "data": { "key": "value" } }));
    let patched = api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.resource_version(), created.resource_version());
}

async fn managed_fields_can_be_put_back_by_a_patch(client: Client) {
    let (api, _) = config_maps(&client).await;
    api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let entry = json!({ "manager": "someone", "operation": "Update", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z",
        "fieldsType": "FieldsV1", "fieldsV1": { "f:data": { "f:key": {} } } });
    let patch = merge(json!({ "metadata": { "managedFields": [entry] } }));
    let patched = api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    let managers: Vec<_> = patched.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
    assert_eq!(managers, ["someone"]);
}

async fn a_json_patch_applies_or_is_refused(client: Client) {
    let (api, namespace) = config_maps(&client).await;
    api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/a");
    let kind = "application/json-patch+json";
    let patch = json!([{ "op": "test", "path": "/data/key", "value": "value" }, { "op": "add", "path": "/data/b", "value": "2" }]);
    let patched = raw(&client, "PATCH", &path, kind, &patch.to_string()).await.unwrap();
    assert_eq!(patched["data"], json!({ "key": "value", "b": "2" }));
    let failing = json!([{ "op": "test", "path": "/data/key", "value": "other" }]).to_string();
    assert_refused(
        raw(&client, "PATCH", &path, kind, &failing).await,
        422,
        "Invalid",
        "the server rejected our request",
    );
    assert_refused(raw(&client, "PATCH", &path, kind, "{}").await, 400, "BadRequest", "error decoding patch");
    let unknown = raw(&client, "PATCH", &path, "application/json", "{}").await;
    assert_refused(unknown, 415, "UnsupportedMediaType", "");
}

async fn a_strategic_patch_merges_containers_by_name(client: Client) {
    let namespace = fresh_namespace(&client).await;
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let deployment = json!({
        "metadata": { "name": "d" },
        "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "one", "image": "x:1" }, { "name": "two", "image": "y:1" }] } } },
    });
    raw(&client, "POST", &path, "application/json", &deployment.to_string()).await.unwrap();
    let patch = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "two", "image": "y:2" }] } } } });
    let kind = "application/strategic-merge-patch+json";
    let patched = raw(&client, "PATCH", &format!("{path}/d"), kind, &patch.to_string()).await.unwrap();
    let containers = patched["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let mut images: Vec<_> = containers.iter().map(|one| one["image"].as_str().unwrap()).collect();
    images.sort_unstable();
    assert_eq!(images, ["x:1", "y:2"]);
    assert_eq!(patched["metadata"]["generation"], 2);
}

async fn a_stale_replace_conflicts(client: Client) {
    let (api, _) = config_maps(&client).await;
    let mut object = api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let stale = object.clone();
    object.data.as_mut().unwrap().insert("key".to_owned(), "changed".to_owned());
    let replaced = api.replace("a", &PostParams::default(), &object).await.unwrap();
    assert_ne!(replaced.resource_version(), stale.resource_version());
    let refused = api.replace("a", &PostParams::default(), &stale).await;
    assert_refused(
        refused,
        409,
        "Conflict",
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified",
    );
    let other = api.replace("b", &PostParams::default(), &replaced).await;
    let message = "the name of the object (a) does not match the name on the URL (b)";
    assert_refused(other, 400, "BadRequest", message);
}

async fn finalizers_hold_a_deleted_object(client: Client) {
    let (api, _) = config_maps(&client).await;
    let held: ConfigMap = object(json!({ "metadata": { "name": "a", "finalizers": ["example.com/hold"] } }));
    api.create(&PostParams::default(), &held).await.unwrap();
    let waiting = api.delete("a", &DeleteParams::default()).await.unwrap().left().expect("the object, still there");
    assert!(waiting.metadata.deletion_timestamp.is_some());
    assert!(api.get("a").await.unwrap().metadata.deletion_timestamp.is_some());
    let more = merge(json!({ "metadata": { "finalizers": ["example.com/hold", "example.com/more"] } }));
    assert_eq!(refusal(api.patch("a", &PatchParams::default(), &more).await).code, 422);
    let free = merge(json!({ "metadata": { "finalizers": null } }));
    api.patch("a", &PatchParams::default(), &free).await.unwrap();
    assert_refused(api.get("a").await, 404, "NotFound", "configmaps \"a\" not found");
}

async fn a_delete_can_name_the_object_it_means(client: Client) {
    let (api, _) = config_maps(&client).await;
    let uid = api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap().uid();
    let preconditions = |uid| DeleteParams {
        preconditions: Some(kube::api::Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    };
    let other = api.delete("a", &preconditions(Some("other".to_owned()))).await;
    assert_refused(other, 409, "Conflict", "Operation cannot be fulfilled on");
    assert!(api.delete("a", &preconditions(uid)).await.unwrap().is_right());
    assert_refused(api.delete("a", &DeleteParams::default()).await, 404, "NotFound", "configmaps \"a\" not found");
}

async fn a_collection_is_deleted_by_selector(client: Client) {
    let (api, _) = config_maps(&client).await;
    for (name, label) in [("a", "1"), ("b", "1"), ("c", "2")] {
        api.create(&PostParams::default(), &config_map(name, json!({ "n": label }))).await.unwrap();
    }
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("n=1")).await.unwrap();
    let left = api.list(&ListParams::default().labels("n")).await.unwrap();
    assert_eq!(left.items.iter().map(|item| item.name_any()).collect::<Vec<_>>(), ["c"]);
}

async fn status_changes_only_through_its_subresource(client: Client) {
    let namespace = fresh_namespace(&client).await;
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let pod: Pod = object(json!({
        "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "x:1" }] },
        "status": { "phase": "Running" },
    }));
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    let created = pods.create(&PostParams::default(), &pod).await.unwrap();
    assert_eq!(phase(&created).as_deref(), Some("Pending"));
    let patch = merge(json!({ "status": { "phase": "Running" } }));
    let ignored = pods.patch("p", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(phase(&ignored).as_deref(), Some("Pending"));
    let changed = pods.patch_status("p", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(phase(&changed).as_deref(), Some("Running"));
    assert_eq!(changed.metadata.generation, created.metadata.generation);
}

async fn a_pod_needs_a_container(client: Client) {
    let namespace = fresh_namespace(&client).await;
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let pod: Pod = object(json!({ "metadata": { "name": "p" }, "spec": { "containers": [] } }));
    let refused = pods.create(&PostParams::default(), &pod).await;
    assert_refused(refused, 422, "Invalid", "Pod \"p\" is invalid: spec.containers: Required value");
}

async fn a_missing_namespace_refuses_what_is_created_in_it(client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client, "contract-nowhere");
    let refused = api.create(&PostParams::default(), &config_map("a", json!({}))).await;
    assert_refused(refused, 404, "NotFound", "namespaces \"contract-nowhere\" not found");
}

async fn a_new_namespace_is_active_and_labelled(client: Client) {
    let name = fresh_namespace(&client).await;
    let namespaces: Api<Namespace> = Api::all(client);
    let namespace = namespaces.get(&name).await.unwrap();
    assert_eq!(namespace.status.clone().unwrap().phase.as_deref(), Some("Active"));
    assert_eq!(namespace.spec.clone().unwrap().finalizers.unwrap(), ["kubernetes"]);
    assert_eq!(namespace.labels()["kubernetes.io/metadata.name"], name);
}

async fn a_terminating_namespace_takes_nothing_new(client: Client) {
    let (api, name) = config_maps(&client).await;
    let held: ConfigMap = object(json!({ "metadata": { "name": "a", "finalizers": ["example.com/hold"] } }));
    api.create(&PostParams::default(), &held).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
    let namespace = namespaces.get(&name).await.unwrap();
    assert!(namespace.metadata.deletion_timestamp.is_some());
    assert_eq!(namespace.status.unwrap().phase.as_deref(), Some("Terminating"));
    let status = refusal(api.create(&PostParams::default(), &config_map("b", json!({}))).await);
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    let message = format!(
        "configmaps \"b\" is forbidden: unable to create new content in namespace {name} because it is being terminated"
    );
    assert_eq!(status.message, message);
    assert_eq!(status.details.unwrap().causes[0].reason, "NamespaceTerminating");
    let free = merge(json!({ "metadata": { "finalizers": null } }));
    api.patch("a", &PatchParams::default(), &free).await.unwrap();
    let kept = namespaces.delete("default", &DeleteParams::default()).await;
    assert_refused(kept, 403, "Forbidden", "namespaces \"default\" is forbidden: this namespace may not be deleted");
}

async fn services_get_addresses_and_do_not_share_node_ports(client: Client) {
    let namespace = fresh_namespace(&client).await;
    let services: Api<Service> = Api::namespaced(client, &namespace);
    let create = async |name: &str, spec: Value| {
        services.create(&PostParams::default(), &object(json!({ "metadata": { "name": name }, "spec": spec }))).await
    };
    let first = create("a", json!({ "type": "NodePort", "ports": [{ "port": 80 }] })).await.unwrap().spec.unwrap();
    let (ip, port) = (first.cluster_ip.unwrap(), first.ports.unwrap()[0].node_port.unwrap());
    assert!(ip.starts_with("10.0.") && (30_000..=32_767).contains(&port), "{ip} {port}");
    let taken = create("b", json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": port }] })).await;
    let message = format!(
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated"
    );
    assert_refused(taken, 422, "Invalid", &message);
    let same = create("a", json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": port }] })).await;
    assert_eq!(refusal(same).code, 422, "the port is looked at before the name");
    let taken = create("b", json!({ "clusterIP": ip, "ports": [{ "port": 80 }] })).await;
    let message = format!(
        "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: provided IP is already allocated"
    );
    assert_refused(taken, 422, "Invalid", &message);
    let again = create("a", json!({ "ports": [{ "port": 80 }] })).await;
    assert_refused(again, 409, "AlreadyExists", "services \"a\" already exists");
    let headless = create("c", json!({ "clusterIP": "None", "ports": [{ "port": 80 }] })).await.unwrap();
    assert_eq!(headless.spec.unwrap().cluster_ip.as_deref(), Some("None"));
    services.delete("a", &DeleteParams::default()).await.unwrap();
    create("b", json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": port }] })).await.unwrap();
}

async fn the_metadata_alone_can_be_asked_for(client: Client) {
    let (api, _) = config_maps(&client).await;
    api.create(&PostParams::default(), &config_map("a", json!({ "x": "y" }))).await.unwrap();
    let metadata = api.get_metadata("a").await.unwrap();
    assert_eq!(metadata.metadata.labels.unwrap()["x"], "y");
    let listed = api.list_metadata(&ListParams::default().labels("x=y")).await.unwrap();
    assert_eq!(listed.items.len(), 1);
}

async fn an_access_review_is_answered(client: Client) {
    let review = json!({ "spec": { "resourceAttributes": { "verb": "create", "resource": "pods" } } }).to_string();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = raw(&client, "POST", path, "application/json", &review).await.unwrap();
    assert_eq!(answer["status"]["allowed"], true);
    assert_refused(raw(&client, "GET", path, "", "").await, 405, "MethodNotAllowed", "");
}

async fn a_dry_run_leaves_nothing(client: Client) {
    let (api, _) = config_maps(&client).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&dry, &config_map("a", json!({}))).await.unwrap();
    assert_refused(api.get("a").await, 404, "NotFound", "configmaps \"a\" not found");
}

async fn a_dry_run_of_a_patch_tells_what_it_would_make_and_changes_nothing(client: Client) {
    let (api, _) = config_maps(&client).await;
    let created = api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let patched = api.patch("a", &dry, &merge(json!({ "data": { "key": "new" } }))).await.unwrap();
    assert_eq!(serde_json::to_value(&patched.data).unwrap(), json!({ "key": "new" }));
    assert_eq!(api.get("a").await.unwrap(), created);
    let missing = api.patch("none", &dry, &merge(json!({}))).await;
    assert_refused(missing, 404, "NotFound", "configmaps \"none\" not found");
}

async fn a_dry_run_is_refused_as_the_write_would_be(client: Client) {
    let (api, _) = config_maps(&client).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let again = api.create(&dry, &config_map("a", json!({}))).await;
    assert_refused(again, 409, "AlreadyExists", "configmaps \"a\" already exists");
    assert_eq!(refusal(api.create(&dry, &config_map("Bad_Name", json!({}))).await).code, 422);
    let elsewhere: Api<ConfigMap> = Api::namespaced(client.clone(), "contract-nowhere");
    assert_eq!(refusal(elsewhere.create(&dry, &config_map("a", json!({}))).await).code, 404);
}

async fn a_dry_run_of_a_namespace_a_crd_and_a_service_takes_nothing_up(client: Client) {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = object(json!({ "metadata": { "name": "contract-dry" } }));
    namespaces.create(&dry, &namespace).await.unwrap();
    assert_eq!(refusal(namespaces.get("contract-dry").await).code, 404);

    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = format!("dries.dry{}.example.com", fresh_namespace(&client).await);
    let group = name.split_once('.').unwrap().1;
    let crd = object(json!({
        "metadata": { "name": name },
        "spec": { "group": group, "scope": "Cluster", "names": { "plural": "dries", "kind": "Dry" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object" } } }] },
    }));
    crds.create(&dry, &crd).await.unwrap();
    assert_eq!(refusal(crds.get(&name).await).code, 404);
    assert_eq!(refusal(raw(&client, "GET", &format!("/apis/{group}/v1/dries"), "", "").await).code, 404);

    let namespace = fresh_namespace(&client).await;
    let services: Api<Service> = Api::namespaced(client, &namespace);
    let service: Service = object(json!({
        "metadata": { "name": "a" }, "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30999 }] },
    }));
    services.create(&dry, &service).await.unwrap();
    let created = services.create(&PostParams::default(), &service).await.expect("the port is free");
    services.delete(&created.name_any(), &DeleteParams::default()).await.unwrap();
}

/// One module of tests with the name of the provider.
macro_rules! contracts {
    ($provider:ident, $client:expr; $($contract:ident),* $(,)?) => {
        mod $provider {
            $(
                #[tokio::test]
                async fn $contract() {
                    let client: Option<kube::Client> = $client;
                    if let Some(client) = client {
                        super::$contract(client).await;
                    }
                }
            )*
        }
    };
}

/// Every contract on one provider.
macro_rules! provider {
    ($provider:ident, $client:expr) => {
        contracts! { $provider, $client;
            both_discoveries_agree,
            discovery_tells_short_names_singulars_and_scope,
            an_object_that_was_created_can_be_read,
            creating_twice_conflicts,
            a_generated_name_starts_with_its_prefix,
            labels_and_fields_select,
            a_list_comes_in_pages,
            a_list_of_a_built_in_kind_leaves_the_kind_of_its_items_out,
            a_watch_sees_what_happens,
            a_watch_ends_after_its_timeout,
            a_merge_patch_deletes_with_null,
            a_patch_without_effect_keeps_the_revision,
            managed_fields_can_be_put_back_by_a_patch,
            a_json_patch_applies_or_is_refused,
            a_strategic_patch_merges_containers_by_name,
            a_stale_replace_conflicts,
            finalizers_hold_a_deleted_object,
            a_delete_can_name_the_object_it_means,
            a_collection_is_deleted_by_selector,
            status_changes_only_through_its_subresource,
            a_pod_needs_a_container,
            a_crd_brings_a_kind_at_run_time,
            custom_objects_are_validated_by_their_schema,
            a_custom_kind_with_a_status_subresource_keeps_it_apart,
            a_custom_kind_without_a_status_subresource_takes_it_like_any_field,
            a_custom_kind_is_replaced_at_a_revision_and_takes_no_strategic_patch,
            a_missing_namespace_refuses_what_is_created_in_it,
            a_new_namespace_is_active_and_labelled,
            a_terminating_namespace_takes_nothing_new,
            bad_names_and_labels_are_refused,
            bodies_that_are_no_object_of_the_kind_are_refused,
            unserved_paths_and_methods_are_refused,
            services_get_addresses_and_do_not_share_node_ports,
            the_metadata_alone_can_be_asked_for,
            an_access_review_is_answered,
            a_dry_run_leaves_nothing,
            a_dry_run_of_a_patch_tells_what_it_would_make_and_changes_nothing,
            a_dry_run_is_refused_as_the_write_would_be,
            a_dry_run_of_a_namespace_a_crd_and_a_service_takes_nothing_up,
        }
    };
}

/// A sandbox whose CRDs are established a moment after their creation, as in a cluster.
fn sandbox() -> Option<Client> {
    let options = Options { crd_delay: Duration::from_millis(20), ..Options::default() };
    Some(Sandbox::new(options).client())
}

/// The shared control plane of the test run.
async fn real() -> Option<Client> {
    Some(crate::support::cluster().await?.client().await)
}

provider!(sandbox, super::sandbox());
provider!(real, super::real().await);
