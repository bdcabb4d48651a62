//! What will be served once the CustomResourceDefinitions of a backup are there.

use serde_json::Value;

use super::{Discovery, ServedGroup, ServedResource, ServedVersion, compare_versions};

/// What can be done with every custom resource.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

impl Discovery {
    /// This table, and what these CustomResourceDefinitions define; what is served already stays as it is.
    ///
    /// Velero asks the API server anew after it has restored the CustomResourceDefinitions; a plan is made before. A definition
    /// that cannot be understood is passed over: the API server will say what is wrong with it.
    #[must_use]
    pub fn with_custom_resources(&self, definitions: &[Value]) -> Self {
        let mut groups = self.groups.clone();
        for definition in definitions {
            for resource in resources_of(definition) {
                add(&mut groups, resource);
            }
        }
        for group in groups.iter_mut().skip(self.groups.len()) {
            group.versions.sort_by(|a, b| compare_versions(&a.version, &b.version));
            group.preferred_version = group.versions.first().map(|first| first.version.clone()).unwrap_or_default();
        }
        Self::of(groups, self.every_version)
    }
}

/// The resource of a definition in each version that it serves.
fn resources_of(definition: &Value) -> Vec<ServedResource> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = ServedResource {
        group: text(&spec["group"]),
        version: String::new(),
        name: text(&spec["names"]["plural"]),
        singular: text(&spec["names"]["singular"]),
        kind: text(&spec["names"]["kind"]),
        namespaced: spec["scope"] == "Namespaced",
        verbs: VERBS.map(String::from).into(),
        short_names: spec["names"]["shortNames"].as_array().into_iter().flatten().map(text).collect(),
    };
    if resource.group.is_empty() || resource.name.is_empty() {
        return Vec::new();
    }
    let served = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] != false);
    let mut versions: Vec<String> = served.map(|version| text(&version["name"])).collect();
    if versions.is_empty() && spec["versions"].is_null() {
        // apiextensions.k8s.io/v1beta1 could name a single version.
        versions.push(text(&spec["version"]));
    }
    versions.retain(|version| !version.is_empty());
    versions.into_iter().map(|version| ServedResource { version, ..resource.clone() }).collect()
}

fn add(groups: &mut Vec<ServedGroup>, resource: ServedResource) {
    let at = groups.iter().position(|group| group.name == resource.group).unwrap_or_else(|| {
        groups.push(ServedGroup { name: resource.group.clone(), ..ServedGroup::default() });
        groups.len() - 1
    });
    let versions = &mut groups[at].versions;
    let at = versions.iter().position(|served| served.version == resource.version).unwrap_or_else(|| {
        versions.push(ServedVersion { version: resource.version.clone(), resources: Vec::new() });
        versions.len() - 1
    });
    let resources = &mut versions[at].resources;
    if !resources.iter().any(|served| served.name == resource.name) {
        resources.push(resource);
    }
}
