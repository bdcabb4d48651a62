//! The copies of items in version directories (restore-semantics 2.2, 2.5), kept only where versions are chosen.
//!
//! They have an index like that of the items, in which a group-resource and one of its directories, `pods/v1-preferredversion`,
//! take the place of a group-resource. A copy that says the same as the item written next to it shares its bytes in the spool:
//! Velero writes both one after the other, so that keeping copies costs little but for versions that differ.

use super::index::{Index, Record};
use crate::model::GroupResource;

/// Set in the id of a copy, so that ids tell copies from items.
pub(super) const COPY: u32 = 1 << 31;

/// All copies.
#[derive(Debug)]
pub(super) struct Versions {
    index: Index,
    /// For each group of the index what it stands for.
    places: Vec<(GroupResource, Box<str>)>,
}

/// What stands for a directory of a group-resource in the index: neither of the two has a slash.
pub(super) fn group(group_resource: &str, directory: &str) -> String {
    format!("{group_resource}/{directory}")
}

impl Versions {
    pub(super) fn new(index: Index) -> Self {
        let place = |group: &GroupResource| {
            let (group_resource, directory) = group.as_str().split_once('/').unwrap_or((group.as_str(), ""));
            (GroupResource::parse(group_resource), Box::from(directory))
        };
        let places = index.groups.iter().map(|(group, _)| place(group)).collect();
        Self { index, places }
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// The directories of a group-resource, sorted.
    pub(super) fn directories(&self, group_resource: &GroupResource) -> impl Iterator<Item = &str> {
        self.places.iter().filter(move |(of, _)| of == group_resource).map(|(_, directory)| &**directory)
    }

    /// The copy of this name in a directory.
    pub(super) fn find(
        &self,
        group_resource: &GroupResource,
        directory: &str,
        namespace: &str,
        name: &str,
    ) -> Option<u32> {
        let group = GroupResource::from(group(group_resource.as_str(), directory));
        // A number with the upper bit would be another's: two thousand million copies are beyond all limits.
        self.index.find(&group, namespace, name).filter(|at| at & COPY == 0)
    }

    /// The group-resource of a copy, and the directory that it is in.
    pub(super) fn place(&self, record: &Record) -> (&GroupResource, &str) {
        let (group_resource, directory) = &self.places[self.index.scope_of(record).group as usize];
        (group_resource, directory)
    }
}
