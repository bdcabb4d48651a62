//! What an API server serves, and how names are resolved against it (restore-semantics 3.1 to 3.3).

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

/// The resource table of an API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    groups: Vec<ServedGroup>,
}

impl Discovery {
    /// Builds the table from what the API server tells of its groups.
    #[must_use]
    pub fn new(groups: Vec<ServedGroup>) -> Self {
        Self { groups }
    }

    /// The groups, as they were given.
    #[must_use]
    pub fn groups(&self) -> &[ServedGroup] {
        &self.groups
    }
}
