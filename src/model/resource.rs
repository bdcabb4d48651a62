//! What an item is called: group-resources, versions and the keys that tell items apart.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A group-resource as Velero renders it: `resource.group`, or only `resource` for the core group.
///
/// It is the directory name in the backup tarball and the key of all include/exclude matching
/// (restore-semantics, "Conventions").
///
/// ```
/// use reprise::model::GroupResource;
/// let deployments = GroupResource::parse("deployments.apps");
/// assert_eq!((deployments.resource(), deployments.group()), ("deployments", "apps"));
/// assert_eq!(GroupResource::parse("pods").to_string(), "pods");
/// assert_eq!(GroupResource::parse("a.b.c").group(), "b.c"); // split at the first dot
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct GroupResource(Arc<str>);

impl GroupResource {
    /// Splits at the first dot; everything is accepted, because an unknown name is kept literally.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// Joins a plural resource name and an API group (empty for the core group).
    #[must_use]
    pub fn new(resource: &str, group: &str) -> Self {
        if group.is_empty() { Self(Arc::from(resource)) } else { Self(Arc::from(format!("{resource}.{group}"))) }
    }

    /// The plural resource name.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.0.split_once('.').map_or(&*self.0, |(resource, _)| resource)
    }

    /// The API group; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, group)| group)
    }

    /// The whole text, `resource.group`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for GroupResource {
    fn from(text: &str) -> Self {
        Self::parse(text)
    }
}

impl From<String> for GroupResource {
    fn from(text: String) -> Self {
        Self(Arc::from(text))
    }
}

impl From<GroupResource> for String {
    fn from(gr: GroupResource) -> Self {
        gr.0.to_string()
    }
}

impl PartialEq<str> for GroupResource {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for GroupResource {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

/// An `apiVersion` (`v1`, `apps/v1`) split into its group and version.
///
/// ```
/// use reprise::model::ApiVersion;
/// let apps: ApiVersion = "apps/v1".parse().unwrap();
/// assert_eq!((apps.group.as_str(), apps.version.as_str()), ("apps", "v1"));
/// assert_eq!("v1".parse::<ApiVersion>().unwrap().group, "");
/// assert!("a/b/c".parse::<ApiVersion>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiVersion {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version in the group, such as `v1beta1`.
    pub version: String,
}

/// An `apiVersion` with more than one slash, or none of its parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected apiVersion {0:?}: want VERSION or GROUP/VERSION")]
pub struct InvalidApiVersion(String);

impl FromStr for ApiVersion {
    type Err = InvalidApiVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (group, version) = text.split_once('/').unwrap_or(("", text));
        if version.is_empty() || version.contains('/') {
            return Err(InvalidApiVersion(text.to_owned()));
        }
        Ok(Self { group: group.to_owned(), version: version.to_owned() })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

/// Where an item is requested from the API server: always the version of the object itself and the
/// collected resource name, without conversion (restore-semantics 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// The namespace; `None` for a cluster-scoped object.
    pub namespace: Option<String>,
}

impl Target {
    /// Names a resource by its parts; `namespace` is empty for cluster scope.
    #[must_use]
    pub fn new(group: &str, version: &str, resource: &str, namespace: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        }
    }

    /// The group-resource of this target.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.resource, &self.group)
    }
}

/// What makes a restored item itself: `apiVersion/Kind`, target namespace and the name in the backup
/// (restore-semantics 5.3 step 5 and 6.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ItemKey {
    /// `v1/Pod`, `apps/v1/Deployment`: the key of the resource list (restore-semantics 6.5).
    pub api_version_kind: Arc<str>,
    /// Target namespace; empty for a cluster-scoped item.
    pub namespace: Arc<str>,
    /// Name in the backup.
    pub name: Arc<str>,
}

impl ItemKey {
    /// A key from its parts.
    #[must_use]
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            api_version_kind: Arc::from(format!("{api_version}/{kind}")),
            namespace: Arc::from(namespace),
            name: Arc::from(name),
        }
    }

    /// The kind alone.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.api_version_kind.rsplit_once('/').map_or(&*self.api_version_kind, |(_, kind)| kind)
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.api_version_kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}
