//! The order in which group-resources are restored (restore-semantics 4.1).

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use crate::model::GroupResource;

const HIGH: [&str; 23] = [
    "customresourcedefinitions",
    "namespaces",
    "storageclasses",
    "volumesnapshotclass.snapshot.storage.k8s.io",
    "volumesnapshotcontents.snapshot.storage.k8s.io",
    "volumesnapshots.snapshot.storage.k8s.io",
    "datauploads.velero.io",
    "persistentvolumes",
    "persistentvolumeclaims",
    "clusterroles",
    "roles",
    "serviceaccounts",
    "clusterrolebindings",
    "rolebindings",
    "secrets",
    "configmaps",
    "limitranges",
    "priorityclasses",
    "pods",
    "replicasets.apps",
    "clusterclasses.cluster.x-k8s.io",
    "endpoints",
    "services",
];

const LOW: [&str; 5] = [
    "clusterbootstraps.run.tanzu.vmware.com",
    "clusters.cluster.x-k8s.io",
    "clusterresourcesets.addons.cluster.x-k8s.io",
    "apps.kappctrl.k14s.io",
    "packageinstalls.packaging.carvel.dev",
];

const SEPARATOR: &str = "-";

/// A list of priorities with more than one separator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "multiple priority separator {SEPARATOR:?} found in {0:?}: at most one separates what comes first from what comes last"
)]
pub struct InvalidPriorities(String);

/// Which group-resources come first and which last; those between follow the alphabet.
///
/// As text it is a comma list, in which a single `-` separates the first from the last. A side that is not written keeps its
/// default:
///
/// ```
/// use reprise::engine::collect::Priorities;
/// let defaults = Priorities::default();
/// let first: Priorities = "secrets,pods".parse().unwrap();
/// assert_eq!((first.high.len(), &first.low), (2, &defaults.low));
/// let last: Priorities = "-,pods".parse().unwrap();
/// assert_eq!((&last.high, last.low.len()), (&defaults.high, 1));
/// assert!("a,-,b,-,c".parse::<Priorities>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priorities {
    /// Restored first, in this order.
    pub high: Vec<String>,
    /// Restored last, in this order.
    pub low: Vec<String>,
}

impl Default for Priorities {
    fn default() -> Self {
        Self { high: HIGH.map(String::from).into(), low: LOW.map(String::from).into() }
    }
}

impl Priorities {
    /// The first; then of the group-resources of a backup those that are in neither list, literally, by the alphabet; then the last.
    pub(super) fn order<'a>(&'a self, backup: impl Iterator<Item = &'a GroupResource>) -> Vec<&'a str> {
        let listed: HashSet<&str> = self.high.iter().chain(&self.low).map(String::as_str).collect();
        let mut between: Vec<&str> = backup.map(GroupResource::as_str).filter(|name| !listed.contains(name)).collect();
        between.sort_unstable();
        let (high, low) = (self.high.iter().map(String::as_str), self.low.iter().map(String::as_str));
        high.chain(between).chain(low).collect()
    }
}

impl FromStr for Priorities {
    type Err = InvalidPriorities;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries: Vec<&str> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        let mut sides = entries.split(|entry| *entry == SEPARATOR);
        let (high, low) = (sides.next().unwrap_or_default(), sides.next().unwrap_or_default());
        if sides.next().is_some() {
            return Err(InvalidPriorities(text.to_owned()));
        }
        let side = |entries: &[&str], default| {
            if entries.is_empty() { default } else { entries.iter().map(|entry| (*entry).to_owned()).collect() }
        };
        let default = Self::default();
        Ok(Self { high: side(high, default.high), low: side(low, default.low) })
    }
}

impl fmt::Display for Priorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{SEPARATOR},{}", self.high.join(","), self.low.join(","))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flag_replaces_the_side_that_it_writes() {
        // restore-semantics 4.1
        let default = Priorities::default();
        for (text, high, low) in [
            ("", None, None),
            ("-", None, None),
            ("a,b", Some(vec!["a", "b"]), None),
            ("a,-", Some(vec!["a"]), None),
            ("-,x", None, Some(vec!["x"])),
            ("a, b ,-,x", Some(vec!["a", "b"]), Some(vec!["x"])),
        ] {
            let parsed: Priorities = text.parse().unwrap();
            assert_eq!(
                parsed.high,
                high.map_or(default.high.clone(), |it| it.iter().map(ToString::to_string).collect()),
                "{text}"
            );
            assert_eq!(
                parsed.low,
                low.map_or(default.low.clone(), |it| it.iter().map(ToString::to_string).collect()),
                "{text}"
            );
        }
        for text in ["-,-", "a,-,b,-", "-,a,-"] {
            let error = text.parse::<Priorities>().unwrap_err().to_string();
            assert!(error.starts_with("multiple priority separator \"-\" found"), "{error}");
        }
        assert_eq!(default.to_string().parse::<Priorities>().unwrap(), default);
    }

    /// restore-semantics 4.1
    #[test]
    fn what_is_in_neither_list_literally_stands_between_by_the_alphabet() {
        let priorities = Priorities { high: vec!["b".into(), "pod".into()], low: vec!["y".into()] };
        let backup: Vec<GroupResource> = ["y", "z.io", "pods", "b", "a-b", "a.b", "B"].map(GroupResource::from).into();
        assert_eq!(priorities.order(backup.iter()), ["b", "pod", "B", "a-b", "a.b", "pods", "z.io", "y"]);
    }

    proptest! {
        #[test]
        fn the_order_holds_everything_once_and_does_not_depend_on_the_listing(
            mut backup in proptest::collection::btree_set("[a-f]{1,2}", 0..8).prop_map(|set| set.into_iter().map(GroupResource::from).collect::<Vec<_>>()),
            high in proptest::collection::btree_set("[a-c]", 0..3),
            low in proptest::collection::btree_set("[d-f]", 0..3),
        ) {
            let priorities = Priorities { high: high.into_iter().collect(), low: low.into_iter().collect() };
            let order: Vec<String> = priorities.order(backup.iter()).into_iter().map(str::to_owned).collect();
            for gr in &backup {
                prop_assert_eq!(order.iter().filter(|name| *gr == ***name).count(), 1);
            }
            backup.reverse();
            prop_assert_eq!(priorities.order(backup.iter()), order);
        }
    }
}
