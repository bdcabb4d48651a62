//! Which resources are served: the built-in ones and those of the established CRDs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::builtin;
use super::schema::Schema;

/// Names the table that keeps a resource's objects.
pub(super) type TableId = u32;

/// A version under which a resource is served.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) name: String,
    /// Whether there is a `/status` subresource.
    pub(super) status: bool,
    /// The schema of a custom resource.
    pub(super) schema: Option<Arc<Schema>>,
    /// Fields of a custom resource that field selectors may name.
    pub(super) selectable: Vec<String>,
}

/// A resource as it is served.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) kind: String,
    pub(super) list_kind: String,
    pub(super) namespaced: bool,
    pub(super) short: Vec<String>,
    pub(super) categories: Vec<String>,
    /// Served versions, the preferred one first.
    pub(super) versions: Vec<Version>,
    pub(super) generation: bool,
    pub(super) review: bool,
    pub(super) custom: bool,
    pub(super) table: TableId,
}

impl Resource {
    /// The verbs of discovery.
    pub(super) fn verbs(&self) -> &'static [&'static str] {
        if self.review {
            &["create"]
        } else if self.is("", "componentstatuses") {
            &["get", "list"]
        } else if self.is("", "namespaces") {
            &["create", "delete", "get", "list", "patch", "update", "watch"]
        } else if self.custom {
            &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }

    /// Whether this is the named resource.
    pub(super) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// One resource at one version: what a request addresses.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) resource: Arc<Resource>,
    at: usize,
}

impl View {
    /// The version addressed.
    pub(super) fn version(&self) -> &Version {
        &self.resource.versions[self.at]
    }

    /// `group/version`, or only the version for the core group.
    pub(super) fn api_version(&self) -> String {
        api_version(&self.resource.group, &self.version().name)
    }
}

/// Joins group and version.
pub(super) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A group and its resources.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) builtin: bool,
    pub(super) resources: BTreeMap<String, Arc<Resource>>,
}

impl Group {
    /// Every version any resource of the group has, the preferred one first.
    pub(super) fn versions(&self) -> Vec<&str> {
        let mut versions: Vec<&str> =
            self.resources.values().flat_map(|resource| resource.versions.iter().map(|v| v.name.as_str())).collect();
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        versions.dedup();
        versions
    }

    /// The resources of one version.
    pub(super) fn at<'a>(&'a self, version: &'a str) -> impl Iterator<Item = View> + 'a {
        self.resources.values().filter_map(move |resource| view(resource, version))
    }
}

fn view(resource: &Arc<Resource>, version: &str) -> Option<View> {
    let at = resource.versions.iter().position(|one| one.name == version)?;
    Some(View { resource: Arc::clone(resource), at })
}

/// Orders versions as Kubernetes does: GA before beta before alpha, higher numbers first, other names last.
pub(super) fn priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        if tail.is_empty() {
            return Some((3, major, 0));
        }
        let (stage, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (_, Some(minor)) => (1, minor),
            _ => return None,
        };
        Some((stage, major, minor.parse().ok()?))
    });
    let (stage, major, minor) = parsed.unwrap_or((0, 0, 0));
    (stage, major, minor, std::cmp::Reverse(version.to_owned()))
}

/// All that is served.
#[derive(Debug)]
pub(super) struct Registry {
    groups: Vec<Group>,
    by_name: HashMap<String, usize>,
    next_table: TableId,
    /// Names of the tables of CRDs that went and may come back.
    tables: HashMap<(String, String), TableId>,
}

impl Registry {
    /// The built-in resources alone.
    pub(super) fn builtin() -> Self {
        let mut registry = Self { groups: Vec::new(), by_name: HashMap::new(), next_table: 0, tables: HashMap::new() };
        for row in builtin::ROWS {
            // Both groups' Events are one set of objects.
            let table = if row.group == "events.k8s.io" {
                registry.table("", "events")
            } else {
                registry.table(row.group, row.plural)
            };
            let version = |name: &&str| Version {
                name: (*name).to_owned(),
                status: row.status,
                schema: None,
                selectable: Vec::new(),
            };
            let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
            registry.add(
                Resource {
                    group: row.group.to_owned(),
                    plural: row.plural.to_owned(),
                    singular: row.kind.to_lowercase(),
                    kind: row.kind.to_owned(),
                    list_kind: builtin::list_kind(row.kind),
                    namespaced: row.namespaced,
                    short: owned(row.short),
                    categories: owned(row.categories),
                    versions: row.versions.iter().map(version).collect(),
                    generation: row.generation,
                    review: row.review,
                    custom: false,
                    table,
                },
                true,
            );
        }
        registry
    }

    /// The table of a resource; the same one whenever it is asked for.
    pub(super) fn table(&mut self, group: &str, plural: &str) -> TableId {
        *self.tables.entry((group.to_owned(), plural.to_owned())).or_insert_with(|| {
            self.next_table += 1;
            self.next_table
        })
    }

    /// Adds or replaces a resource.
    pub(super) fn add(&mut self, resource: Resource, builtin: bool) {
        let at = *self.by_name.entry(resource.group.clone()).or_insert_with(|| {
            self.groups.push(Group { name: resource.group.clone(), builtin, resources: BTreeMap::new() });
            self.groups.len() - 1
        });
        self.groups[at].resources.insert(resource.plural.clone(), Arc::new(resource));
    }

    /// Stops serving a resource.
    pub(super) fn remove(&mut self, group: &str, plural: &str) {
        if let Some(at) = self.by_name.get(group) {
            self.groups[*at].resources.remove(plural);
        }
    }

    /// The groups that serve something, in the order of discovery.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| !group.resources.is_empty())
    }

    /// One group, if it serves something.
    pub(super) fn group(&self, name: &str) -> Option<&Group> {
        self.by_name.get(name).map(|at| &self.groups[*at]).filter(|group| !group.resources.is_empty())
    }

    /// One resource at one version.
    pub(super) fn view(&self, group: &str, version: &str, plural: &str) -> Option<View> {
        self.group(group).and_then(|group| group.resources.get(plural)).and_then(|resource| view(resource, version))
    }

    /// A resource whatever its version.
    pub(super) fn resource(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.group(group).and_then(|group| group.resources.get(plural))
    }

    /// Every resource that keeps objects in namespaces.
    pub(super) fn namespaced(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.groups.iter().flat_map(|group| group.resources.values()).filter(|one| one.namespaced && !one.review)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_sort_by_stability_then_number() {
        let mut versions = vec!["v1alpha1", "v10beta3", "foo1", "v1", "v11alpha2", "v2", "v3beta1", "v12alpha1", "v10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "v1alpha1", "foo1"]);
    }

    #[test]
    fn autoscaling_prefers_v2_and_both_events_share_a_table() {
        let registry = Registry::builtin();
        assert_eq!(registry.group("autoscaling").unwrap().versions(), ["v2", "v1"]);
        let core = registry.view("", "v1", "events").unwrap();
        let new = registry.view("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(core.resource.table, new.resource.table);
        assert!(registry.view("apps", "v1beta1", "deployments").is_none());
    }
}
