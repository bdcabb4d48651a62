//! Where things stand in a backup tarball (restore-semantics 2.2, 2.3): pure functions of paths.

use std::borrow::Cow;

/// The suffix that is taken off a file's name, once, to get the item's.
pub(super) const SUFFIX: &str = ".json";

/// What the directory of the version that the cluster preferred ends in.
pub const PREFERRED: &str = "-preferredversion";

/// What a cleaned path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// A file in `cluster/` or `namespaces/<namespace>/`: an item.
    Item {
        /// The directory of the group-resource.
        group_resource: &'a str,
        /// Empty for `cluster/`.
        namespace: &'a str,
        /// The file's name, with its suffix.
        file: &'a str,
    },
    /// Below `<version>/` or `<version>-preferredversion/`: a second copy, or another version of an item.
    Version {
        /// The directory of the group-resource.
        group_resource: &'a str,
        /// The directory of the version.
        directory: &'a str,
        /// Namespace and file, as those of an item; nothing for a file in no scope.
        item: Option<(&'a str, &'a str)>,
    },
    /// `metadata/version`.
    FormatVersion,
    /// The directory `resources` itself.
    Resources,
    /// Something else below `resources/`, which Velero logs and ignores.
    Unexpected,
    /// Outside `resources/`.
    Outside,
}

/// The path that Go's `filepath.Join(root, path)` leads to, relative to the root; `None` when it leaves the root. An absolute
/// path is one below the root, as there. Borrowed when there was nothing to clean.
pub(super) fn clean(path: &str) -> Option<Cow<'_, str>> {
    let is_clean = !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_clean {
        return Some(Cow::Borrowed(path));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(Cow::Owned(parts.join("/")))
}

/// What the file at this cleaned path is.
pub(super) fn place(path: &str) -> Place<'_> {
    let Some(below) = path.strip_prefix("resources/") else {
        return match path {
            "metadata/version" => Place::FormatVersion,
            "resources" => Place::Resources,
            _ => Place::Outside,
        };
    };
    let Some((group_resource, rest)) = below.split_once('/') else { return Place::Unexpected };
    let Some((scope, inner)) = rest.split_once('/') else { return Place::Unexpected };
    if matches!(scope, "cluster" | "namespaces") {
        return match scoped(rest) {
            Some((namespace, file)) => Place::Item { group_resource, namespace, file },
            None => Place::Unexpected,
        };
    }
    Place::Version { group_resource, directory: scope, item: scoped(inner) }
}

/// The namespace, empty for the cluster, and the file of `cluster/<file>` or `namespaces/<namespace>/<file>`.
fn scoped(path: &str) -> Option<(&str, &str)> {
    let (namespace, file) = match path.split_once('/')? {
        ("cluster", file) => ("", file),
        ("namespaces", rest) => rest.split_once('/')?,
        _ => return None,
    };
    (!file.is_empty() && !file.contains('/')).then_some((namespace, file))
}

/// The path of an item's file, relative to the root of the archive.
pub(super) fn item_path(group_resource: &str, namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        format!("resources/{group_resource}/cluster/{name}{SUFFIX}")
    } else {
        format!("resources/{group_resource}/namespaces/{namespace}/{name}{SUFFIX}")
    }
}

/// The path of an item's file in the directory of a version.
pub(super) fn version_path(group_resource: &str, directory: &str, namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        format!("resources/{group_resource}/{directory}/cluster/{name}{SUFFIX}")
    } else {
        format!("resources/{group_resource}/{directory}/namespaces/{namespace}/{name}{SUFFIX}")
    }
}

/// The path of an item's second copy, in the directory of the version that its cluster preferred.
pub(super) fn copy_path(group_resource: &str, version: &str, namespace: &str, name: &str) -> String {
    version_path(group_resource, &format!("{version}{PREFERRED}"), namespace, name)
}

/// The name of the item that a file is listed as: without one trailing `.json`.
pub(super) fn item_name(file: &str) -> &str {
    file.strip_suffix(SUFFIX).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// restore-semantics 2.2
    #[test]
    fn paths_are_cleaned_as_go_joins_them() {
        for (path, cleaned) in [
            ("a/b", "a/b"),
            ("./a/b", "a/b"),
            ("a/../b", "b"),
            ("a//b/", "a/b"),
            ("/a/b", "a/b"),
            ("a/b/..", "a"),
            ("a/..", ""),
            (".", ""),
            ("", ""),
            ("..a/b..", "..a/b.."),
            ("a/./b/../../c", "c"),
        ] {
            assert_eq!(clean(path).as_deref(), Some(cleaned), "{path:?}");
        }
    }

    /// restore-semantics 2.2
    #[test]
    fn a_path_that_leaves_the_root_is_none() {
        for path in ["..", "../escape.json", "a/../../b", "./..", "/..", "a/../..", "resources/../../resources/x"] {
            assert_eq!(clean(path), None, "{path:?}");
        }
    }

    /// restore-semantics 2.2 and 2.3
    #[test]
    fn items_are_the_files_of_the_two_scopes() {
        assert_eq!(
            place("resources/pods/namespaces/shop/web.json"),
            Place::Item { group_resource: "pods", namespace: "shop", file: "web.json" }
        );
        assert_eq!(
            place("resources/clusterroles.rbac.authorization.k8s.io/cluster/system:node"),
            Place::Item {
                group_resource: "clusterroles.rbac.authorization.k8s.io",
                namespace: "",
                file: "system:node"
            }
        );
    }

    /// restore-semantics 2.2 and 2.3
    #[test]
    fn everything_else_has_its_own_place() {
        let version = |directory, item| Place::Version { group_resource: "pods", directory, item };
        for (path, expected) in [
            ("metadata/version", Place::FormatVersion),
            ("metadata/other", Place::Outside),
            ("resources", Place::Resources),
            ("resources/README", Place::Unexpected),
            ("resources/pods/README", Place::Unexpected),
            ("resources/pods/namespaces", Place::Unexpected),
            ("resources/pods/namespaces/README", Place::Unexpected),
            ("resources/pods/namespaces/shop/deeper/x.json", Place::Unexpected),
            ("resources/pods/cluster/deeper/x.json", Place::Unexpected),
            (
                "resources/pods/v1-preferredversion/namespaces/shop/web.json",
                version("v1-preferredversion", Some(("shop", "web.json"))),
            ),
            ("resources/pods/v1/cluster/web.json", version("v1", Some(("", "web.json")))),
            ("resources/pods/v1/cluster/deeper/web.json", version("v1", None)),
            ("resources/pods/v1/README", version("v1", None)),
            ("resources/pods/v1/other/web.json", version("v1", None)),
            ("resourcesx/pods/cluster/a.json", Place::Outside),
            ("README", Place::Outside),
        ] {
            assert_eq!(place(path), expected, "{path}");
        }
    }

    /// restore-semantics 2.3
    #[test]
    fn one_suffix_is_taken_off() {
        for (file, name) in [("a.json", "a"), ("a.json.json", "a.json"), ("README.txt", "README.txt"), (".json", "")] {
            assert_eq!(item_name(file), name);
        }
    }

    proptest! {
        #[test]
        fn a_cleaned_path_is_clean_and_stays(path in "[a./]{0,12}") {
            if let Some(cleaned) = clean(&path) {
                let cleaned = cleaned.into_owned();
                prop_assert!(cleaned.is_empty() || cleaned.split('/').all(|part| !matches!(part, "" | "." | "..")));
                let again = clean(&cleaned).map(Cow::into_owned);
                prop_assert_eq!(again, Some(cleaned));
            }
        }

        #[test]
        fn an_item_is_found_where_it_is_put(group_resource in "[a-z]{1,8}(\\.[a-z]{1,5}){0,2}", namespace in "([a-z]{1,8})?", name in "[a-z:.-]{1,9}x") {
            let path = item_path(&group_resource, &namespace, &name);
            let file = format!("{name}{SUFFIX}");
            prop_assert_eq!(place(&path), Place::Item { group_resource: &group_resource, namespace: &namespace, file: &file });
            let copy = copy_path(&group_resource, "v1", &namespace, &name);
            let item = Some((namespace.as_str(), file.as_str()));
            prop_assert_eq!(place(&copy), Place::Version { group_resource: &group_resource, directory: "v1-preferredversion", item });
        }
    }
}
