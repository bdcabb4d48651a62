//! Asking the API server what it serves: aggregated discovery, with the older documents as the fallback.

use futures::stream::{self, StreamExt};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use super::request::{protocol, send, transport, undecodable};
use crate::engine::discovery::{ServedGroup, ServedResource, ServedVersion};
use crate::engine::ports::ApiError;

/// Aggregated first; an old API server ignores the first media type and sends its own document.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// How many documents the fallback asks for at once.
const FALLBACK_CONCURRENCY: usize = 8;

/// The groups of the API server in discovery order: the core group first, then those of `/apis`.
pub(super) async fn fetch(client: &Client) -> Result<Vec<ServedGroup>, ApiError> {
    let (core, named) = futures::join!(document(client, "/api"), document(client, "/apis"));
    let (core, named) = (core?, named?);
    let is_aggregated = |document: &Value| text(document, "kind") == "APIGroupDiscoveryList";
    if is_aggregated(&core) && is_aggregated(&named) {
        let items =
            [core, named].into_iter().flat_map(|mut document| match document.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            });
        return Ok(items.map(|item| aggregated_group(&item)).collect());
    }
    legacy(client, &core, &named).await
}

async fn document(client: &Client, path: &str) -> Result<Value, ApiError> {
    let method = Method::GET;
    let request = Request::get(path)
        .header(header::ACCEPT, AGGREGATED)
        .body(Body::empty())
        .map_err(|error| protocol(&method, path, &error))?;
    let response = client.send(request).await.map_err(|error| transport(&method, path, &error))?;
    if !response.status().is_success() {
        return send(client, method, path, None).await;
    }
    let bytes = response.into_body().collect().await.map_err(|error| transport(&method, path, &error))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| undecodable(&method, path, &error))
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(|element| element.as_str().map(str::to_owned)).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn aggregated_group(item: &Value) -> ServedGroup {
    let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let versions: Vec<ServedVersion> = list(item, "versions")
        .iter()
        .map(|version| ServedVersion {
            version: text(version, "version"),
            resources: list(version, "resources")
                .iter()
                .map(|resource| ServedResource {
                    group: name.clone(),
                    version: text(version, "version"),
                    name: text(resource, "resource"),
                    singular: text(resource, "singularResource"),
                    kind: resource.get("responseKind").map_or_else(String::new, |kind| text(kind, "kind")),
                    namespaced: text(resource, "scope") == "Namespaced",
                    verbs: texts(resource, "verbs"),
                    short_names: texts(resource, "shortNames"),
                })
                .collect(),
        })
        .collect();
    // Aggregated discovery lists the versions by preference.
    let preferred_version = versions.first().map_or_else(String::new, |version| version.version.clone());
    ServedGroup { name, preferred_version, versions }
}

async fn legacy(client: &Client, core: &Value, named: &Value) -> Result<Vec<ServedGroup>, ApiError> {
    let core_versions = texts(core, "versions");
    let mut groups = vec![ServedGroup {
        name: String::new(),
        preferred_version: core_versions.first().cloned().unwrap_or_default(),
        versions: core_versions.into_iter().map(|version| ServedVersion { version, resources: Vec::new() }).collect(),
    }];
    groups.extend(list(named, "groups").iter().map(|group| {
        ServedGroup {
            name: text(group, "name"),
            preferred_version: group
                .get("preferredVersion")
                .map_or_else(String::new, |version| text(version, "version")),
            versions: list(group, "versions")
                .iter()
                .map(|version| ServedVersion { version: text(version, "version"), resources: Vec::new() })
                .collect(),
        }
    }));
    let paths = groups.iter().flat_map(|group| {
        group.versions.iter().map(|version| match group.name.as_str() {
            "" => format!("/api/{}", version.version),
            name => format!("/apis/{name}/{}", version.version),
        })
    });
    let paths: Vec<String> = paths.collect();
    let mut documents = stream::iter(paths)
        .map(|path| async move { send(client, Method::GET, &path, None).await })
        .buffered(FALLBACK_CONCURRENCY);
    for group in &mut groups {
        for version in &mut group.versions {
            // One broken aggregated API must not take the others with it (restore-semantics 3.1 step 2).
            match documents.next().await {
                Some(Ok(document)) => version.resources = legacy_resources(&group.name, &version.version, &document),
                Some(Err(error)) => {
                    tracing::warn!(group = group.name, version = version.version, %error, "discovery leaves out an API version");
                }
                None => {}
            }
        }
    }
    Ok(groups)
}

fn legacy_resources(group: &str, version: &str, document: &Value) -> Vec<ServedResource> {
    list(document, "resources")
        .iter()
        .map(|resource| ServedResource {
            group: group.to_owned(),
            version: version.to_owned(),
            name: text(resource, "name"),
            singular: text(resource, "singularName"),
            kind: text(resource, "kind"),
            namespaced: resource.get("namespaced").and_then(Value::as_bool).unwrap_or_default(),
            verbs: texts(resource, "verbs"),
            short_names: texts(resource, "shortNames"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Response;
    use serde_json::json;

    use super::*;

    /// A server that answers each path by one of these documents, and all others by 503.
    fn server(documents: &[(&'static str, Value)]) -> Client {
        let documents = documents.to_vec();
        let service = tower::service_fn(move |request: Request<Body>| {
            let found = documents.iter().find(|(path, _)| *path == request.uri().path()).map(|(_, document)| document);
            let code = if found.is_some() { 200 } else { 503 };
            let body = Body::from(found.map(ToString::to_string).unwrap_or_default().into_bytes());
            let response = Response::builder().status(code).body(body).map_err(std::io::Error::other);
            async move { response }
        });
        Client::new(service, "default")
    }

    fn group(name: &str, versions: &[&str]) -> Value {
        let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
        json!({"name": name, "versions": versions.iter().map(version).collect::<Vec<_>>(), "preferredVersion": version(&versions[0])})
    }

    fn resources(names: &[&str]) -> Value {
        let verbs = ["create", "delete", "get", "list"];
        let resource = |name: &&str| json!({"name": name, "kind": name, "namespaced": true, "verbs": verbs});
        json!({"kind": "APIResourceList", "resources": names.iter().map(resource).collect::<Vec<_>>()})
    }

    /// restore-semantics 3.1 step 2: a group whose API does not answer costs the others nothing.
    #[tokio::test]
    async fn a_broken_api_is_left_out_and_the_others_are_there() {
        let client = server(&[
            ("/api", json!({"kind": "APIVersions", "versions": ["v1"]})),
            (
                "/apis",
                json!({"kind": "APIGroupList", "groups": [
                    group("broken.example.com", &["v1"]), group("apps", &["v1", "v1beta1"]),
                ]}),
            ),
            ("/api/v1", resources(&["pods"])),
            ("/apis/apps/v1", resources(&["deployments"])),
        ]);
        let groups = fetch(&client).await.unwrap();
        let told: Vec<String> = groups
            .iter()
            .flat_map(|group| group.versions.iter().map(move |version| (group, version)))
            .map(|(group, version)| format!("{}/{}: {}", group.name, version.version, version.resources.len()))
            .collect();
        assert_eq!(told, ["/v1: 1", "broken.example.com/v1: 0", "apps/v1: 1", "apps/v1beta1: 0"]);
    }

    /// restore-semantics 3.1 step 2: only when nothing can be asked there is no table.
    #[tokio::test]
    async fn a_server_that_does_not_answer_at_all_is_an_error() {
        assert!(fetch(&server(&[])).await.is_err());
    }
}
