//! A Velero backup tarball, read in one streaming pass (restore-semantics 2.2, 2.3, 4.6).
//!
//! ```text
//! input ─► gunzip ─► tar ─┬─► header of each item ─► index (memory, by the item)
//!                         └─► JSON of each item ───► spool (unlinked temporary file, by the byte)
//! ```
//!
//! # Guarantees
//! - The input is read once, from front to back, and to its end, so that gzip's checksum is looked at.
//! - Nothing is unpacked: a path in the archive is never a path of this machine.
//! - An [`Archive`] exists only of a complete tarball. What is wrong with one item is [`Damage`] of that item alone.
//! - The order of items, scopes and group-resources is that of Velero's listing, byte by byte; it does not depend on the order in
//!   the tarball. Of two entries with the same path the last one counts, as it would when they are extracted.
//! - Second copies (`<version>-preferredversion/`) and other version directories are passed over, unless
//!   [`ReadOptions::keep_versions`] asks for them.
//! - [`Limits`] end a hostile archive before it fills memory or disk.
//!
//! # Differences from Velero, on purpose
//! - Velero stops at the end mark of the tar stream; here the rest of the gzip stream is checked, so that a tarball cut off in
//!   its last bytes is [`Error::Truncated`]. What follows the gzip stream is ignored as there, and counted in [`Stats`].
//! - An item named differently in its path and its metadata is [`Damage::NameDisagrees`], unless [`NameCheck::Report`] is set;
//!   Velero restores it under the inner name.
//! - A file `x` beside `x.json` is no second item `x`.
//!
//! ```
//! use reprise::archive::{ReadOptions, testing::Backup};
//! use reprise::model::GroupResource;
//! use serde_json::json;
//!
//! # fn main() -> Result<(), reprise::archive::Error> {
//! let archive = Backup::new()
//!     .with(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "namespace": "shop"}}))
//!     .with(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
//!     .read(&ReadOptions::default())?;
//!
//! let secrets = GroupResource::from("secrets");
//! let id = archive.find(&secrets, "shop", "token").ok_or("it is there").unwrap();
//! assert_eq!(archive.entry(id).path(), "resources/secrets/namespaces/shop/token.json");
//! assert_eq!(archive.load(id)?["metadata"]["name"], "token");
//! assert_eq!(archive.namespaces().collect::<Vec<_>>(), ["shop"]);
//! # Ok(())
//! # }
//! ```

mod error;
mod header;
mod index;
mod layout;
mod limits;
mod reader;
mod source;
mod spool;
mod tarball;
pub mod testing;
mod versions;
mod writer;

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use error::{Damage, Error};
pub use layout::PREFERRED;
pub use limits::Limits;
pub use writer::{Writer, WriterOptions};

use crate::model::GroupResource;

/// How a tarball is read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// How much of it is taken.
    pub limits: Limits,
    /// Whether labels are kept: needed for label selectors only, and the largest part of the index.
    pub keep_labels: bool,
    /// Folder of the temporary file; `None` for where the system keeps its own.
    pub spool_dir: Option<PathBuf>,
    /// Set from elsewhere to end the reading with [`Error::Cancelled`].
    pub cancelled: Option<Arc<AtomicBool>>,
    /// What an item is whose metadata has another name than its path.
    pub names: NameCheck,
    /// Whether the files of version directories are kept too, for [`Archive::find_version`]. Their index is limited like that
    /// of the items, by as much again.
    pub keep_versions: bool,
}

/// What an item is whose metadata has another name than its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameCheck {
    /// Damaged.
    #[default]
    Refuse,
    /// An item like others, as for Velero; [`Entry::inner_name`] has the other name.
    Report,
}

/// The place of an item in an [`Archive`]. The order of ids is the order of listing: by group-resource, namespace and file name.
/// The files of version directories come after all items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(u32);

impl EntryId {
    /// The position among all items, counted from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The ids of one scope, in listing order.
#[derive(Clone, Debug)]
pub struct EntryIds(Range<u32>);

impl Iterator for EntryIds {
    type Item = EntryId;

    fn next(&mut self) -> Option<EntryId> {
        self.0.next().map(EntryId)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for EntryIds {
    fn next_back(&mut self) -> Option<EntryId> {
        self.0.next_back().map(EntryId)
    }
}

impl ExactSizeIterator for EntryIds {}

/// What selection looks at, without the whole item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `apiVersion`; empty when the item has none.
    pub api_version: Arc<str>,
    /// `kind`, never empty.
    pub kind: Arc<str>,
    /// `metadata.labels`; `None` unless [`ReadOptions::keep_labels`].
    pub labels: Option<Labels>,
    /// A pod in phase `Succeeded` or `Failed`, or a job with a `completionTime`.
    pub completed: bool,
}

/// The labels of an item, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One item of the archive, as the index knows it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The directory that it is in.
    pub group_resource: &'a GroupResource,
    /// The version directory that it is in; only for what [`Archive::find_version`] found.
    pub version_directory: Option<&'a str>,
    /// The namespace directory; empty for `cluster/`.
    pub namespace: &'a str,
    /// The file's name without one trailing `.json`.
    pub name: &'a str,
    /// Identity and labels, or why there are none.
    pub header: Result<&'a Header, &'a Damage>,
    /// The name in the metadata where it is another one; only with [`NameCheck::Report`].
    pub inner_name: Option<&'a str>,
}

impl Entry<'_> {
    /// The path that Velero opens for this item, relative to the archive's root.
    #[must_use]
    pub fn path(&self) -> String {
        let group_resource = self.group_resource.as_str();
        match self.version_directory {
            Some(directory) => layout::version_path(group_resource, directory, self.namespace, self.name),
            None => layout::item_path(group_resource, self.namespace, self.name),
        }
    }
}

/// What reading came across.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries of the tarball, of every kind.
    pub entries: u64,
    /// Items that can be asked for, damaged ones included.
    pub items: u64,
    /// Files in version directories that were passed over: second copies.
    pub skipped_copies: u64,
    /// Files in version directories that can be asked for.
    pub kept_copies: u64,
    /// Links and devices, which are ignored.
    pub links: u64,
    /// Files below `resources/` that are in no scope, which are ignored.
    pub unexpected: u64,
    /// Size of the input.
    pub compressed_bytes: u64,
    /// Size of the tar stream.
    pub uncompressed_bytes: u64,
    /// Size of the temporary file.
    pub spooled_bytes: u64,
    /// The text of `metadata/version`.
    pub format_version: Option<String>,
    /// Whether something that is no gzip followed the gzip stream.
    pub trailing_garbage: bool,
}

/// A backup tarball that has been read: an index in memory, the items in a temporary file that vanishes with this value.
#[derive(Debug)]
pub struct Archive {
    index: index::Index,
    versions: versions::Versions,
    spool: spool::Spool,
    stats: Stats,
    has_resources: bool,
}

impl Archive {
    /// Reads a tarball to its end. Blocks: not for a thread that drives futures.
    ///
    /// # Errors
    /// See [`Error`]; none of them is about a single item.
    pub fn read(input: impl Read, options: &ReadOptions) -> Result<Self, Error> {
        reader::read(input, options)
    }

    /// Whether there is a `resources/` directory; without it Velero warns of "zero items to be restored" (restore-semantics 2.3).
    #[must_use]
    pub fn has_resources_directory(&self) -> bool {
        self.has_resources
    }

    /// The group-resources with at least one item, sorted byte-wise.
    pub fn group_resources(&self) -> impl ExactSizeIterator<Item = &GroupResource> {
        self.index.groups.iter().map(|(group_resource, _)| group_resource)
    }

    /// The scopes of a group-resource that have items, sorted byte-wise by namespace (the cluster's, `""`, comes first), each with
    /// its items in listing order: by file name *including* `.json`.
    pub fn scopes(&self, group_resource: &GroupResource) -> impl ExactSizeIterator<Item = (&str, EntryIds)> {
        let scopes = self.index.scopes_of(group_resource).iter();
        scopes.map(|scope| (&*scope.namespace, EntryIds(scope.records.clone())))
    }

    /// The namespaces with at least one namespaced item, sorted (the candidates of restore-semantics 4.4).
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        let all = self.index.scopes.iter().map(|scope| &*scope.namespace);
        all.filter(|namespace| !namespace.is_empty()).collect::<BTreeSet<_>>().into_iter()
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// The item whose file is `<name>.json`; `namespace` is empty for cluster scope.
    #[must_use]
    pub fn find(&self, group_resource: &GroupResource, namespace: &str, name: &str) -> Option<EntryId> {
        self.index.find(group_resource, namespace, name).map(EntryId)
    }

    /// The version directories of a group-resource, sorted; none unless [`ReadOptions::keep_versions`].
    pub fn version_directories(&self, group_resource: &GroupResource) -> impl Iterator<Item = &str> {
        self.versions.directories(group_resource)
    }

    /// The file `<name>.json` of a version directory; `namespace` is empty for cluster scope. Where it is a mere copy of the item
    /// outside, the answer is that item.
    #[must_use]
    pub fn find_version(
        &self,
        group_resource: &GroupResource,
        directory: &str,
        namespace: &str,
        name: &str,
    ) -> Option<EntryId> {
        let copy = self.versions.find(group_resource, directory, namespace, name)?;
        let record = self.versions.index().record(copy);
        let is_same = |id: &u32| {
            let item = self.index.record(*id);
            let are_sound = self.index.header(item).is_ok() && self.versions.index().header(record).is_ok();
            are_sound && (item.offset, item.len) == (record.offset, record.len)
        };
        let item = self.index.find(group_resource, namespace, name).filter(is_same);
        Some(EntryId(item.unwrap_or(copy | versions::COPY)))
    }

    /// The index that an id is of, and its record there.
    fn record(&self, id: EntryId) -> (&index::Index, &index::Record) {
        let is_copy = id.0 & versions::COPY != 0;
        let index = if is_copy { self.versions.index() } else { &self.index };
        (index, index.record(id.0 & !versions::COPY))
    }

    /// What the index knows of an item of this archive.
    ///
    /// # Panics
    /// When the id is another archive's and out of range here.
    #[must_use]
    pub fn entry(&self, id: EntryId) -> Entry<'_> {
        let (index, record) = self.record(id);
        let scope = index.scope_of(record);
        let (group_resource, version_directory) = if id.0 & versions::COPY == 0 {
            (&index.groups[scope.group as usize].0, None)
        } else {
            let (group_resource, directory) = self.versions.place(record);
            (group_resource, Some(directory))
        };
        Entry {
            group_resource,
            version_directory,
            namespace: &scope.namespace,
            name: layout::item_name(index.file(record)),
            header: index.header(record),
            inner_name: index.inner_name(record),
        }
    }

    /// The path of a file in a version directory, be it there or not.
    #[must_use]
    pub fn version_path(group_resource: &GroupResource, directory: &str, namespace: &str, name: &str) -> String {
        layout::version_path(group_resource.as_str(), directory, namespace, name)
    }

    /// The whole item. Any number of threads may load at once. Blocks for a read of the temporary file.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the item cannot be decoded, [`Error::Spool`] when the temporary file cannot be read.
    ///
    /// # Panics
    /// When the id is another archive's and out of range here.
    pub fn load(&self, id: EntryId) -> Result<serde_json::Value, Error> {
        let bytes = self.load_bytes(id)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Damaged(header::json_damage(&String::from_utf8_lossy(&bytes), &error)))
    }

    /// The JSON of an item, as it stands in the archive.
    ///
    /// # Errors
    /// As [`Archive::load`].
    ///
    /// # Panics
    /// When the id is another archive's and out of range here.
    pub fn load_bytes(&self, id: EntryId) -> Result<Vec<u8>, Error> {
        let (index, record) = self.record(id);
        index.header(record).map_err(|damage| Error::Damaged(damage.clone()))?;
        self.spool.read(record.offset, record.len as usize).map_err(Error::Spool)
    }

    /// What reading came across.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

#[cfg(test)]
mod tests;
