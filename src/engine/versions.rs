//! The choice of API versions by the feature `EnableAPIGroupVersions` (restore-semantics 3.4).
//!
//! A backup made with that feature has its items in every version that their cluster served. For each group-resource one of
//! these is chosen, and the files of its directory are restored in place of those that stand outside.

use std::collections::{BTreeMap, HashMap};

use super::discovery::{Discovery, compare_versions};
use super::job::Settings;
use super::ports::Cluster;
use super::retry::{Attempts, Backoff, retrying};
use crate::archive::{Archive, PREFERRED};
use crate::model::{GroupResource, Target};

/// The feature's name in `--features`.
pub const FEATURE: &str = "EnableAPIGroupVersions";

/// The ConfigMap in Velero's namespace with the order that users prefer, and its key.
const CONFIG_MAP: (&str, &str) = ("enableapigroupversions", "restoreResourcesVersionPriority");

/// The first format of backups with version directories. Velero compares texts, not numbers.
const FIRST_FORMAT: &str = "1.1.0";

/// How versions are chosen in one restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionPolicy {
    /// `status.formatVersion` of the Backup object; without such an object the tarball's own word holds.
    pub format_version: Option<String>,
    /// What users prefer, or why it could not be read, which ends the restore.
    pub order: Result<UserOrder, String>,
}

impl VersionPolicy {
    /// Reads what users prefer; nothing where the feature is off, or the backup is known to have no version directories.
    pub async fn read(
        cluster: &dyn Cluster,
        settings: &Settings,
        velero_namespace: &str,
        format_version: Option<String>,
    ) -> Option<Self> {
        let is_old = format_version.as_deref().is_some_and(|version| version < FIRST_FORMAT);
        if is_old || !settings.features.contains(FEATURE) {
            return None;
        }
        let target = Target::new("", "v1", "configmaps", velero_namespace);
        let (name, key) = CONFIG_MAP;
        let found = retrying(Backoff::default(), &mut Attempts::default(), || cluster.get(&target, name)).await;
        let order = found
            .map(|config_map| {
                let config_map = config_map.unwrap_or_default();
                config_map["data"][key].as_str().map(UserOrder::parse).unwrap_or_default()
            })
            .map_err(|error| {
                format!("choosing API version to restore: ConfigMap {velero_namespace}/{name} cannot be read: {error}")
            });
        Some(Self { format_version, order })
    }

    /// Whether versions are chosen in this backup, whose tarball says that it has this format.
    fn is_active(&self, archive: &Archive) -> bool {
        let format = self.format_version.as_ref().or(archive.stats().format_version.as_ref());
        format.is_some_and(|version| version.as_str() >= FIRST_FORMAT)
    }

    /// The choice for each group-resource of a backup.
    ///
    /// # Errors
    /// The message, when it could not be read what users prefer.
    pub(super) fn choose(&self, archive: &Archive, discovery: &Discovery) -> Result<Chosen, String> {
        if !self.is_active(archive) {
            return Ok(Chosen::default());
        }
        let order = self.order.as_ref().map_err(Clone::clone)?;
        let of = |group_resource: &GroupResource| {
            let directories: Vec<&str> = archive.version_directories(group_resource).collect();
            let served = discovery.groups().iter().find(|group| group.name == group_resource.group());
            let target = served.map_or_else(TargetVersions::default, |group| TargetVersions {
                versions: group.versions.iter().map(|served| served.version.as_str()).collect(),
                preferred: &group.preferred_version,
            });
            choose(&directories, &target, order.of(group_resource))
        };
        let groups = archive.group_resources();
        Ok(Chosen(groups.filter_map(|group| Some((group.clone(), of(group)?))).collect()))
    }
}

/// The chosen version directories. What has none is restored as it stands outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen(HashMap<GroupResource, String>);

impl Chosen {
    /// The directory whose files are restored.
    #[must_use]
    pub fn directory(&self, group_resource: &GroupResource) -> Option<&str> {
        self.0.get(group_resource).map(String::as_str)
    }
}

/// What users prefer: versions by group-resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserOrder(BTreeMap<String, Vec<String>>);

impl UserOrder {
    /// Reads lines `resource.group=v1,v2`. Spaces do not count, lines of another form are left out, and of two lines for one
    /// resource the last holds.
    ///
    /// ```
    /// use reprise::engine::versions::UserOrder;
    /// let order = UserOrder::parse("widgets.example.com = v2beta1, v1\n\nnonsense\na=b=c\n=v1\npods=\n");
    /// assert_eq!(order.of(&"widgets.example.com".into()), ["v2beta1", "v1"]);
    /// assert!(order.of(&"pods".into()).is_empty());
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let line: String = line.chars().filter(|letter| !letter.is_whitespace()).collect();
            let (resource, versions) = line.split_once('=')?;
            let is_valid = !resource.is_empty() && !versions.is_empty() && !versions.contains('=');
            is_valid.then(|| (resource.to_owned(), versions.split(',').map(str::to_owned).collect()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// The versions for a group-resource, the first one first.
    #[must_use]
    pub fn of(&self, group_resource: &GroupResource) -> &[String] {
        self.0.get(group_resource.as_str()).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The versions of a group in the cluster; none where it has no such group.
#[derive(Clone, Debug, Default)]
struct TargetVersions<'a> {
    versions: Vec<&'a str>,
    preferred: &'a str,
}

/// The directory to restore from, in the order of restore-semantics 3.4; nothing where the backup has none, or none that its
/// cluster preferred and none that both clusters know.
fn choose(directories: &[&str], target: &TargetVersions<'_>, user: &[String]) -> Option<String> {
    let source_preferred = directories.iter().find_map(|directory| directory.strip_suffix(PREFERRED));
    let mut source: Vec<&str> =
        directories.iter().map(|directory| directory.strip_suffix(PREFERRED).unwrap_or(directory)).collect();
    source.sort_unstable_by(|a, b| compare_versions(a, b));
    source.dedup();
    let mut in_target = target.versions.clone();
    in_target.sort_unstable_by(|a, b| compare_versions(a, b));
    let after_first = |versions: &[&str], sought: &str| versions.iter().skip(1).any(|version| *version == sought);

    let by_user = || user.iter().map(String::as_str).find(|asked| source.contains(asked) && in_target.contains(asked));
    let by_target = || Some(target.preferred).filter(|preferred| source.contains(preferred));
    let by_source = || source_preferred.filter(|preferred| in_target.contains(preferred));
    let common = || in_target.iter().skip(1).copied().find(|version| after_first(&source, version));
    let version =
        if in_target.is_empty() { None } else { by_user().or_else(by_target).or_else(by_source).or_else(common) };
    let version = version.or(source_preferred)?;
    Some(if Some(version) == source_preferred { format!("{version}{PREFERRED}") } else { version.to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::archive::ReadOptions;
    use crate::archive::testing::Backup;
    use crate::engine::discovery::testing::discovery;

    fn chosen(directories: &[&str], target: &[&str], user: &[&str]) -> Option<String> {
        let target =
            TargetVersions { versions: target.to_vec(), preferred: target.first().copied().unwrap_or_default() };
        let user: Vec<String> = user.iter().map(|version| (*version).to_owned()).collect();
        choose(directories, &target, &user)
    }

    // restore-semantics 3.4
    #[test]
    fn the_first_step_that_hits_chooses() {
        for (directories, target, user, expected) in [
            // 0: the user's first version that both have.
            (
                &["v1-preferredversion", "v2beta1", "v2beta2"][..],
                &["v1", "v2beta2", "v2beta1"][..],
                &["v9", "v2beta1", "v1"][..],
                "v2beta1",
            ),
            (&["v1-preferredversion", "v2"], &["v2", "v1"], &["v1", "v2"], "v1-preferredversion"),
            (&["v1-preferredversion", "v2"], &["v2", "v1"], &["v3"], "v2"),
            // 1: what the target prefers.
            (&["v1-preferredversion", "v2beta1"], &["v2beta1", "v1"], &[], "v2beta1"),
            (&["v1-preferredversion"], &["v1"], &[], "v1-preferredversion"),
            // 2: what the source preferred.
            (&["v1-preferredversion", "v2beta1"], &["v2", "v1"], &[], "v1-preferredversion"),
            // 3: the first common one beyond the first of both sorted lists.
            (&["v3-preferredversion", "v2beta1", "v1"], &["v4", "v2", "v1", "v2beta1"], &[], "v1"),
            (&["v3-preferredversion", "v2beta1", "v2alpha1"], &["v4", "v2alpha1", "v2beta1"], &[], "v2beta1"),
            (&["v3-preferredversion", "foo", "bar"], &["v4", "foo", "bar"], &[], "bar"),
            // The first of the source's list is not looked at in step 3, whoever prefers it: what is left is the default.
            (&["v2-preferredversion", "v3"], &["v4", "v3"], &[], "v2-preferredversion"),
            (&["v3-preferredversion", "v1"], &["v1alpha1", "v1"], &[], "v3-preferredversion"),
            // 4: nothing in common, or no such group at all; the user's wish needs both too.
            (&["v1-preferredversion", "v2"], &["v8", "v9"], &["v2"], "v1-preferredversion"),
            (&["v1-preferredversion", "v2"], &[], &["v2"], "v1-preferredversion"),
        ] {
            assert_eq!(
                chosen(directories, target, user).as_deref(),
                Some(expected),
                "{directories:?} {target:?} {user:?}"
            );
        }
        assert_eq!(chosen(&[], &["v1"], &["v1"]), None);
        assert_eq!(chosen(&["v1", "v2"], &["v3"], &[]), None, "no default without a preferred version");
        assert_eq!(chosen(&["v1", "v2"], &["v2"], &[]).as_deref(), Some("v2"));
    }

    proptest! {
        // restore-semantics 3.4
        #[test]
        fn a_choice_is_one_of_the_source_and_mostly_one_of_the_target(
            source in proptest::collection::btree_set("v[1-3]((alpha|beta)[12])?|foo|bar", 1..5),
            target in proptest::collection::btree_set("v[1-3]((alpha|beta)[12])?|foo|bar", 0..5),
            user in proptest::collection::vec("v[1-3]((alpha|beta)[12])?", 0..3),
            (source_at, target_at) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let source: Vec<String> = source.into_iter().collect();
            let preferred = source_at.get(&source).clone();
            let directory = |version: &String| {
                if *version == preferred { format!("{version}{PREFERRED}") } else { version.clone() }
            };
            let directories: Vec<String> = source.iter().map(directory).collect();
            let directories: Vec<&str> = directories.iter().map(String::as_str).collect();
            let versions: Vec<&str> = target.iter().map(String::as_str).collect();
            let target_preferred = if versions.is_empty() { "" } else { target_at.get(&versions) };
            let target = TargetVersions { versions: versions.clone(), preferred: target_preferred };
            let chosen = choose(&directories, &target, &user).unwrap();

            prop_assert!(directories.contains(&chosen.as_str()), "{chosen} of {directories:?}");
            let version = chosen.strip_suffix(PREFERRED).unwrap_or(&chosen);
            let is_common = |version: &str| source.iter().any(|known| known == version) && versions.contains(&version);
            prop_assert!(is_common(version) || version == preferred);
            if let Some(wish) = user.iter().find(|wish| is_common(wish)) {
                prop_assert_eq!(version, wish);
            } else if is_common(target_preferred) {
                prop_assert_eq!(version, target_preferred);
            } else if is_common(&preferred) {
                prop_assert_eq!(version, preferred.as_str());
            }
            // The order in which versions are told does not count.
            let mut reversed = directories.clone();
            reversed.reverse();
            let target = TargetVersions { versions: versions.into_iter().rev().collect(), preferred: target_preferred };
            prop_assert_eq!(choose(&reversed, &target, &user), Some(chosen));
        }
    }

    #[test]
    fn the_format_of_the_backup_decides_whether_versions_are_chosen() {
        let widget =
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "n"}});
        let backup = Backup::new().with(widget);
        let archive = backup.read(&ReadOptions { keep_versions: true, ..ReadOptions::default() }).unwrap();
        let discovery = discovery("example.com v1 widgets Widget ns");
        let of = |format: Option<&str>| {
            let policy = VersionPolicy { format_version: format.map(str::to_owned), order: Ok(UserOrder::default()) };
            policy.choose(&archive, &discovery).unwrap().directory(&"widgets.example.com".into()).map(str::to_owned)
        };
        let preferred = Some("v1-preferredversion".to_owned());
        assert_eq!(of(Some("1.1.0")), preferred);
        assert_eq!(of(Some("1.2")), preferred);
        assert_eq!(of(Some("1.10.0")), preferred, "compared as text, 1.10.0 comes after 1.1.0");
        assert_eq!(of(Some("1.0.9")), None);
        assert_eq!(of(Some("")), None, "an object without it is of format 1");
        assert_eq!(of(None), preferred, "without an object the tarball says so");
        let failed = VersionPolicy { format_version: Some("1.0.0".into()), order: Err("no".into()) };
        assert_eq!(failed.choose(&archive, &discovery), Ok(Chosen::default()), "nobody asks for it");
        let failed = VersionPolicy { format_version: None, ..failed };
        assert_eq!(failed.choose(&archive, &discovery), Err("no".into()));
    }
}
