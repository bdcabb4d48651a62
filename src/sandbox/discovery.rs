//! Discovery: the legacy documents, the aggregated one, and as much OpenAPI as `kubectl` needs to write.

use serde_json::{Value, json};

use super::registry::{Group, Registry, View, api_version};
use super::status::Error;

/// The content type of aggregated discovery.
pub(super) const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether the client takes aggregated discovery in the version that is served.
pub(super) fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|option| {
        let mut parts = option.split(';').map(str::trim);
        let json = parts.next() == Some("application/json");
        let parts: Vec<&str> = parts.collect();
        json && ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|part| parts.contains(part))
    })
}

const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

fn subresources(view: &View) -> Vec<&'static str> {
    let mut all = Vec::new();
    if view.version().status {
        all.push("status");
    }
    all
}

fn legacy_group(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions()
        .into_iter()
        .map(|version| json!({ "groupVersion": api_version(&group.name, version), "version": version }))
        .collect();
    json!({ "name": group.name, "preferredVersion": versions.first(), "versions": versions })
}

impl Registry {
    /// `/apis` as an `APIGroupList`.
    pub(super) fn group_list(&self) -> Value {
        let groups: Vec<Value> = self.groups().filter(|group| !group.name.is_empty()).map(legacy_group).collect();
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
    }

    /// `/apis/GROUP`.
    pub(super) fn one_group(&self, name: &str) -> Result<Value, Error> {
        let mut group = legacy_group(self.group(name).ok_or_else(Error::no_page)?);
        group["kind"] = json!("APIGroup");
        group["apiVersion"] = json!("v1");
        Ok(group)
    }

    /// `/apis/GROUP/VERSION` or `/api/v1`.
    pub(super) fn resource_list(&self, group: &str, version: &str) -> Result<Value, Error> {
        let mut resources = Vec::new();
        for view in self.group(group).into_iter().flat_map(|group| group.at(version)) {
            let resource = &view.resource;
            let mut own = json!({
                "name": resource.plural,
                "singularName": resource.singular,
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": resource.verbs(),
            });
            if !resource.short.is_empty() {
                own["shortNames"] = json!(resource.short);
            }
            if !resource.categories.is_empty() {
                own["categories"] = json!(resource.categories);
            }
            resources.push(own);
            for sub in subresources(&view) {
                resources.push(json!({
                    "name": format!("{}/{sub}", resource.plural),
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    "kind": resource.kind,
                    "verbs": STATUS_VERBS,
                }));
            }
        }
        if resources.is_empty() {
            let builtin = self.group(group).is_some_and(|group| group.builtin);
            return Err(if builtin { Error::no_resource() } else { Error::no_page() });
        }
        let group_version = api_version(group, version);
        Ok(
            json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources }),
        )
    }

    /// `/api` (`core`) or `/apis` as an `APIGroupDiscoveryList`.
    pub(super) fn aggregated(&self, core: bool) -> Value {
        let items: Vec<Value> = self
            .groups()
            .filter(|group| group.name.is_empty() == core)
            .map(|group| {
                let versions: Vec<Value> = group
                    .versions()
                    .into_iter()
                    .map(|version| {
                        let resources: Vec<Value> = group.at(version).map(|view| aggregated_resource(&view)).collect();
                        json!({ "version": version, "resources": resources, "freshness": "Current" })
                    })
                    .collect();
                let metadata = if core { json!({}) } else { json!({ "name": group.name }) };
                json!({ "metadata": metadata, "versions": versions })
            })
            .collect();
        json!({
            "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
        })
    }

    /// The index of OpenAPI documents.
    pub(super) fn openapi_index(&self) -> Value {
        let mut paths = serde_json::Map::new();
        for group in self.groups() {
            for version in group.versions() {
                let path = gv_path(&group.name, version);
                let entry = json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash=sandbox") });
                paths.insert(path, entry);
            }
        }
        json!({ "paths": paths })
    }

    /// An OpenAPI document without schemas: it tells `kubectl` that the server checks fields itself, so that it does
    /// not ask for schemas before it writes.
    pub(super) fn openapi(&self, path: &str) -> Result<Value, Error> {
        let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["api", version] => (String::new(), (*version).to_owned()),
            ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
            _ => return Err(Error::no_page()),
        };
        let found = self.group(&group).ok_or_else(Error::no_page)?;
        let mut paths = serde_json::Map::new();
        for view in found.at(&version) {
            let resource = &view.resource;
            let scope = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
            let gvk = json!({ "group": group, "version": version, "kind": resource.kind });
            let parameters = json!([{ "name": "fieldValidation", "in": "query", "schema": { "type": "string" } }]);
            let operation = json!({
                "x-kubernetes-group-version-kind": gvk, "parameters": parameters,
                "responses": { "200": { "description": "OK" } },
            });
            let path = format!("/{}/{scope}{}/{{name}}", gv_path(&group, &version), resource.plural);
            paths.insert(path, json!({ "patch": operation }));
        }
        let info = json!({ "title": "Reprise sandbox", "version": "v1.36.0" });
        Ok(json!({ "openapi": "3.0.0", "info": info, "paths": paths }))
    }
}

fn gv_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn aggregated_resource(view: &View) -> Value {
    let resource = &view.resource;
    // The API server leaves group and version out where they are those of the list; only custom resources tell them.
    let kind = if resource.custom {
        json!({ "group": resource.group, "version": view.version().name, "kind": resource.kind })
    } else {
        json!({ "group": "", "version": "", "kind": resource.kind })
    };
    let subs: Vec<Value> = subresources(view)
        .into_iter()
        .map(|sub| json!({ "subresource": sub, "responseKind": kind, "verbs": STATUS_VERBS }))
        .collect();
    let mut own = json!({
        "resource": resource.plural,
        "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs(),
    });
    if !resource.short.is_empty() {
        own["shortNames"] = json!(resource.short);
    }
    if !resource.categories.is_empty() {
        own["categories"] = json!(resource.categories);
    }
    if !subs.is_empty() {
        own["subresources"] = json!(subs);
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregated_discovery_is_given_only_where_its_version_is_named() {
        assert!(wants_aggregated(
            "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io,application/json"
        ));
        assert!(!wants_aggregated("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"));
        assert!(!wants_aggregated("application/json"));
    }

    #[test]
    fn both_kinds_of_discovery_name_the_same_resources() {
        let registry = Registry::builtin();
        let aggregated = registry.aggregated(false);
        let groups = registry.group_list();
        let names = |items: &Value, pointer: &str| -> Vec<String> {
            let text = |item: &Value| item.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            items.as_array().into_iter().flatten().filter_map(text).collect()
        };
        assert_eq!(names(&aggregated["items"], "/metadata/name"), names(&groups["groups"], "/name"));
    }
}
