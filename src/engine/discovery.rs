//! What an API server serves, and how names are resolved against it (restore-semantics 3.1 to 3.3).
//!
//! Two views are kept apart, as Velero does. All versions of all groups answer what a name may mean; the *table*, one version of
//! each resource that can be listed, created, read and deleted, says what can be restored at all.
//!
//! ```
//! use reprise::engine::discovery::{Discovery, ServedGroup, ServedResource, ServedVersion};
//! let deployments = ServedResource {
//!     name: "deployments".into(),
//!     kind: "Deployment".into(),
//!     short_names: vec!["deploy".into()],
//!     verbs: ["list", "create", "get", "delete"].map(String::from).into(),
//!     ..ServedResource::default()
//! };
//! let discovery = Discovery::new(vec![ServedGroup {
//!     name: "apps".into(),
//!     preferred_version: "v1".into(),
//!     versions: vec![ServedVersion { version: "v1".into(), resources: vec![deployments] }],
//! }]);
//! for name in ["deployments.apps", "deploy", "Deployment", "deployments", "deployment.ap"] {
//!     assert_eq!(discovery.resolve(name), "deployments.apps", "{name}");
//! }
//! assert_eq!(discovery.resolve("*.example.com"), "*.example.com"); // what is not known stays as it is
//! ```

mod custom;
#[cfg(test)]
pub(crate) mod testing;
mod version;

use std::fmt;

pub use version::compare_versions;

use crate::model::{ApiVersion, GroupResource};

/// One resource in one version, as discovery tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedResource {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name.
    pub name: String,
    /// Singular name; may be empty.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
    /// Short names, such as `po`.
    pub short_names: Vec<String>,
}

/// One version of a group, with its resources; subresources may be among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedVersion {
    /// The version, such as `v1`.
    pub version: String,
    /// Its resources.
    pub resources: Vec<ServedResource>,
}

/// One API group, in the order of discovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedGroup {
    /// The group; empty for the core group.
    pub name: String,
    /// The version it prefers.
    pub preferred_version: String,
    /// Its versions, in the order of discovery.
    pub versions: Vec<ServedVersion>,
}

impl ServedResource {
    /// The group-resource.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.name, &self.group)
    }

    /// Group and version.
    #[must_use]
    pub fn api_version(&self) -> ApiVersion {
        ApiVersion { group: self.group.clone(), version: self.version.clone() }
    }

    fn is_subresource(&self) -> bool {
        self.name.contains('/')
    }

    /// Whether objects can be restored: listed, created, read and deleted.
    fn is_restorable(&self) -> bool {
        ["list", "create", "get", "delete"].iter().all(|needed| self.verbs.iter().any(|verb| verb == needed))
    }

    /// Whether its plural or singular name is this one, which is in lower case. Where discovery has no singular, it is the kind's.
    fn is_named(&self, name: &str) -> bool {
        let is_singular = || {
            if self.singular.is_empty() { self.kind.to_lowercase() == name } else { self.singular == name }
        };
        self.name == name || is_singular()
    }
}

/// Why a name does not stand for a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No version of any group has such a resource.
    #[error("no matches for {0:?}: the API server does not serve such a resource")]
    NoMatch(String),
    /// Several resources have the name, and none comes before the others.
    #[error("{name:?} matches multiple resources: {}; write it with its group", joined(.candidates))]
    Ambiguous {
        /// The name.
        name: String,
        /// What it may mean.
        candidates: Vec<GroupResource>,
    },
    /// It is served, but not so that it can be restored: a verb is missing, or another version is preferred.
    #[error(
        "{name:?} is not found in API version {version:?} among the resources that can be listed, created, read and deleted"
    )]
    NotRestorable {
        /// The name.
        name: String,
        /// The group and version that were looked for.
        version: String,
    },
}

fn joined(candidates: &[GroupResource]) -> String {
    candidates.iter().map(GroupResource::as_str).collect::<Vec<_>>().join(", ")
}

/// What an API server serves: all it told, and the table of what can be restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    groups: Vec<ServedGroup>,
    table: Vec<ServedResource>,
    every_version: bool,
}

impl Discovery {
    /// Builds the table from what the API server tells of its groups. The group and version of a resource are those of the list
    /// that it stands in.
    #[must_use]
    pub fn new(groups: Vec<ServedGroup>) -> Self {
        Self::of(groups, false)
    }

    /// The same with every version of every resource in the table, as with the feature `EnableAPIGroupVersions`
    /// (restore-semantics 3.1 step 2).
    #[must_use]
    pub fn with_every_version(&self) -> Self {
        Self::of(self.groups.clone(), true)
    }

    fn of(mut groups: Vec<ServedGroup>, every_version: bool) -> Self {
        for group in &mut groups {
            for version in &mut group.versions {
                for resource in &mut version.resources {
                    resource.group.clone_from(&group.name);
                    resource.version.clone_from(&version.version);
                }
            }
        }
        let table = table(&groups, every_version);
        Self { groups, table, every_version }
    }

    /// The groups, in the order of discovery.
    #[must_use]
    pub fn groups(&self) -> &[ServedGroup] {
        &self.groups
    }

    /// What can be restored, each resource in one version or in every one (restore-semantics 3.1).
    #[must_use]
    pub fn table(&self) -> &[ServedResource] {
        &self.table
    }

    /// A resource of the table, by its exact group and plural name.
    #[must_use]
    pub fn lookup(&self, group_resource: &GroupResource) -> Option<&ServedResource> {
        let (group, name) = (group_resource.group(), group_resource.resource());
        self.table.iter().find(|served| served.group == group && served.name == name)
    }

    /// A resource in exactly this version, preferred or not.
    #[must_use]
    pub fn served(&self, group: &str, version: &str, name: &str) -> Option<&ServedResource> {
        let resources = &self.version(group, version)?.resources;
        resources.iter().find(|served| served.name == name && !served.is_subresource())
    }

    /// The versions of a group, in the order of discovery; none where the group is not served.
    #[must_use]
    pub fn versions(&self, group: &str) -> Vec<&str> {
        let group = self.groups.iter().find(|served| served.name == group);
        group.map(|group| group.versions.iter().map(|served| served.version.as_str()).collect()).unwrap_or_default()
    }

    fn version(&self, group: &str, version: &str) -> Option<&ServedVersion> {
        let group = self.groups.iter().find(|served| served.name == group)?;
        group.versions.iter().find(|served| served.version == version)
    }

    /// The group-resource that a name stands for, or the name itself where it stands for none.
    #[must_use]
    pub fn resolve(&self, name: &str) -> GroupResource {
        self.resource_for(name).map_or_else(|_| GroupResource::parse(name), ServedResource::group_resource)
    }

    /// The resource that a plural, singular or short name stands for, with or without its group or the beginning of it
    /// (restore-semantics 3.2). The answer is in the table.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub fn resource_for(&self, name: &str) -> Result<&ServedResource, ResolveError> {
        let asked = GroupResource::parse(name);
        let expanded = self.expand_short_name(&asked).map(ServedResource::group_resource);
        let sought = expanded.as_ref().unwrap_or(&asked);
        let candidates = self.candidates(&sought.resource().to_lowercase(), sought.group());
        let winner = match candidates.as_slice() {
            [] => return Err(ResolveError::NoMatch(name.to_owned())),
            [only] => only,
            several => self.first_by_priority(several).ok_or_else(|| {
                let mut candidates: Vec<_> = several.iter().map(|served| served.group_resource()).collect();
                candidates.dedup();
                ResolveError::Ambiguous { name: name.to_owned(), candidates }
            })?,
        };
        self.in_table(&winner.group, &winner.version, &winner.name).ok_or_else(|| ResolveError::NotRestorable {
            name: name.to_owned(),
            version: winner.api_version().to_string(),
        })
    }

    /// The resource of a kind (restore-semantics 3.3). The answer is in the table.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub fn kind_for(&self, api_version: &ApiVersion, kind: &str) -> Result<&ServedResource, ResolveError> {
        let ApiVersion { group, version } = api_version;
        let is_of_version = |served: &&ServedResource| served.group == *group && served.version == *version;
        if let Some(exact) = self.table.iter().filter(is_of_version).find(|served| served.kind == kind) {
            return Ok(exact);
        }
        let resources = self.version(group, version).map(|served| served.resources.as_slice()).unwrap_or_default();
        let mapped = resources
            .iter()
            .find(|served| !served.is_subresource() && (served.kind == kind || served.kind.to_lowercase() == kind))
            .ok_or_else(|| ResolveError::NoMatch(format!("{api_version}/{kind}")))?;
        self.in_table(group, version, &mapped.name)
            .ok_or_else(|| ResolveError::NotRestorable { name: kind.to_owned(), version: api_version.to_string() })
    }

    fn in_table(&self, group: &str, version: &str, name: &str) -> Option<&ServedResource> {
        self.table.iter().find(|served| served.group == group && served.version == version && served.name == name)
    }

    /// The entry that a short name belongs to. A group that no entry has may be the beginning of one.
    fn expand_short_name(&self, asked: &GroupResource) -> Option<&ServedResource> {
        let group = asked.group();
        let has_it = |served: &&ServedResource| served.short_names.iter().any(|short| short == asked.resource());
        let of_group = self.table.iter().filter(|served| group.is_empty() || served.group == group).find(has_it);
        of_group.or_else(|| self.table.iter().filter(|served| served.group.starts_with(group)).find(has_it))
    }

    /// All resources of this name, in every version, in the order of discovery.
    fn candidates(&self, name: &str, group: &str) -> Vec<&ServedResource> {
        let named = |is_in_group: &dyn Fn(&str) -> bool| -> Vec<&ServedResource> {
            let groups = self.groups.iter().filter(|served| is_in_group(&served.name));
            let resources = groups.flat_map(|group| &group.versions).flat_map(|version| &version.resources);
            resources.filter(|served| !served.is_subresource() && served.is_named(name)).collect()
        };
        if group.is_empty() {
            return named(&|_| true);
        }
        let exact = named(&|known| known == group);
        if exact.is_empty() { named(&|known| known.starts_with(group)) } else { exact }
    }

    /// Narrows candidates by core v1, then each group's versions, the preferred one first, then each group.
    fn first_by_priority<'a>(&self, candidates: &[&'a ServedResource]) -> Option<&'a ServedResource> {
        let mut patterns: Vec<(&str, Option<&str>)> = vec![("", Some("v1"))];
        for group in &self.groups {
            let (name, preferred) = (group.name.as_str(), group.preferred_version.as_str());
            let versions = || group.versions.iter().map(|served| served.version.as_str());
            patterns.extend(versions().find(|version| *version == preferred).map(|version| (name, Some(version))));
            patterns.extend(versions().filter(|version| *version != preferred).map(|version| (name, Some(version))));
        }
        patterns.extend(self.groups.iter().map(|group| (group.name.as_str(), None)));

        let mut left = candidates.to_vec();
        for (group, version) in patterns {
            let is_hit = |served: &&&ServedResource| {
                served.group == group && version.is_none_or(|version| served.version == version)
            };
            let hits: Vec<&ServedResource> = left.iter().filter(is_hit).copied().collect();
            match hits.as_slice() {
                [] => {}
                [only] => return Some(only),
                _ => left = hits,
            }
        }
        None
    }
}

/// Each resource in the preferred version of its group, or else in the first that serves it, or in every version; those that can
/// be restored; those of group `extensions` last.
fn table(groups: &[ServedGroup], every_version: bool) -> Vec<ServedResource> {
    let mut table: Vec<ServedResource> = Vec::new();
    for group in groups {
        let is_preferred = |version: &ServedVersion| version.version == group.preferred_version;
        for (at, version) in group.versions.iter().enumerate() {
            let has = |other: &ServedVersion, name: &str| other.resources.iter().any(|served| served.name == name);
            let is_listed_elsewhere = |name: &str| {
                !is_preferred(version)
                    && (group.versions[..at].iter().any(|earlier| has(earlier, name))
                        || group.versions.iter().any(|other| is_preferred(other) && has(other, name)))
            };
            let listed = version.resources.iter().filter(|served| {
                let is_listed = every_version || !is_listed_elsewhere(&served.name);
                !served.is_subresource() && served.is_restorable() && is_listed
            });
            table.extend(listed.cloned());
        }
    }
    table.sort_by_key(|served| served.group == "extensions");
    table
}

impl fmt::Display for ServedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.group_resource(), self.version)
    }
}

#[cfg(test)]
mod tests;
