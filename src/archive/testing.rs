//! Backups made of a few lines, for tests and benches.

use std::io;

use serde_json::Value;
use tar::EntryType;

use super::{Archive, Error, ReadOptions, Writer, WriterOptions};
use crate::model::{ApiVersion, GroupResource};

/// A backup tarball to be, told in the order of its entries.
///
/// ```
/// use reprise::archive::testing::Backup;
/// use serde_json::json;
///
/// let tarball = Backup::new()
///     .with(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
///     .with_as("widgets.example.com", json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "shop"}}))
///     .with_file("resources/configmaps/namespaces/shop/broken.json", "{\"kind\":")
///     .tarball();
/// assert!(tarball.is_ok());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Backup {
    parts: Vec<Part>,
    is_bare: bool,
    options: WriterOptions,
}

#[derive(Clone, Debug)]
enum Part {
    Item(GroupResource, Value),
    File(String, Vec<u8>),
    Entry(EntryType, Vec<u8>, Vec<u8>),
}

impl Backup {
    /// A backup with nothing but `metadata/version`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A tarball with nothing in it.
    #[must_use]
    pub fn bare() -> Self {
        Self { is_bare: true, ..Self::default() }
    }

    /// Writes each item once only, as a backup of format 1 did.
    #[must_use]
    pub fn without_copies(mut self) -> Self {
        self.options.copies = false;
        self
    }

    /// With this object, below the group-resource that its kind suggests (see [`group_resource_of`]).
    #[must_use]
    pub fn with(self, object: Value) -> Self {
        let group_resource = group_resource_of(&object);
        self.with_as(group_resource, object)
    }

    /// With these objects, each as [`Backup::with`].
    #[must_use]
    pub fn with_all(self, objects: impl IntoIterator<Item = Value>) -> Self {
        objects.into_iter().fold(self, Self::with)
    }

    /// With this object below this group-resource.
    #[must_use]
    pub fn with_as(mut self, group_resource: impl Into<GroupResource>, object: Value) -> Self {
        self.parts.push(Part::Item(group_resource.into(), object));
        self
    }

    /// With a file of any content; long paths are fine, those that leave the root need [`Backup::with_entry`].
    #[must_use]
    pub fn with_file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.parts.push(Part::File(path.to_owned(), content.as_ref().to_owned()));
        self
    }

    /// With a directory entry.
    #[must_use]
    pub fn with_directory(self, path: &str) -> Self {
        self.with_raw(EntryType::Directory, path, [])
    }

    /// With a symbolic link.
    #[must_use]
    pub fn with_link(self, path: &str) -> Self {
        self.with_raw(EntryType::Symlink, path, [])
    }

    /// With a file at any path of up to 100 bytes, not looked at, be it absolute, outside, or no text.
    #[must_use]
    pub fn with_entry(self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.with_raw(EntryType::Regular, path, content)
    }

    /// With a tar entry of any type (`x`: a PAX header, `L`: a long name).
    #[must_use]
    pub fn with_type(self, entry_type: u8, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.with_raw(EntryType::new(entry_type), path, content)
    }

    fn with_raw(mut self, entry_type: EntryType, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.parts.push(Part::Entry(entry_type, path.as_ref().to_owned(), content.as_ref().to_owned()));
        self
    }

    /// The tarball's bytes.
    ///
    /// # Errors
    /// An object without a name, or a path that tar cannot hold.
    pub fn tarball(&self) -> io::Result<Vec<u8>> {
        let mut writer = if self.is_bare {
            Writer::bare(Vec::new(), self.options)
        } else {
            Writer::with_options(Vec::new(), self.options)?
        };
        for part in &self.parts {
            match part {
                Part::Item(group_resource, object) => writer.item(group_resource, object)?,
                Part::File(path, content) => writer.file(path, content)?,
                Part::Entry(entry_type, path, content) => writer.entry(*entry_type, path, content)?,
            }
        }
        writer.finish()
    }

    /// Writes the tarball and reads it.
    ///
    /// # Errors
    /// As [`Archive::read`]; what cannot be written is [`Error::Source`].
    pub fn read(&self, options: &ReadOptions) -> Result<Archive, Error> {
        Archive::read(&self.tarball().map_err(Error::Source)?[..], options)
    }
}

/// The group-resource that an object's `apiVersion` and `kind` suggest: the plural as Kubernetes guesses it.
///
/// ```
/// use reprise::archive::testing::group_resource_of;
/// use serde_json::json;
/// assert_eq!(group_resource_of(&json!({"apiVersion": "v1", "kind": "Endpoints"})), "endpoints");
/// assert_eq!(group_resource_of(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"})), "networkpolicies.networking.k8s.io");
/// assert_eq!(group_resource_of(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress"})), "ingresses.networking.k8s.io");
/// ```
#[must_use]
pub fn group_resource_of(object: &Value) -> GroupResource {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let group = text("apiVersion").parse::<ApiVersion>().map(|parsed| parsed.group).unwrap_or_default();
    let singular = text("kind").to_ascii_lowercase();
    let plural = if singular == "endpoints" {
        singular
    } else if let Some(stem) = singular.strip_suffix('y') {
        format!("{stem}ies")
    } else if singular.ends_with('s') {
        format!("{singular}es")
    } else {
        format!("{singular}s")
    };
    GroupResource::new(&plural, &group)
}
