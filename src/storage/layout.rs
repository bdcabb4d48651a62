//! Where the files of backups and restores are (restore-semantics 2.1).

/// Folders that Velero has below the prefix; any other makes a location invalid for it.
pub const TOP_LEVEL: [&str; 6] = ["backups", "restores", "restic", "kopia", "metadata", "plugins"];

/// The keys below one prefix. Nothing but text: no key is looked up here.
///
/// ```
/// use reprise::storage::Layout;
/// let layout = Layout::new("/cluster-a/");
/// assert_eq!(layout.backup_contents("b"), "cluster-a/backups/b/b.tar.gz");
/// assert_eq!(Layout::new("").restore_log("r"), "restores/r/restore-r-logs.gz");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    root: String,
}

impl Layout {
    /// The keys below `prefix`; slashes at both ends do not count.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        Self { root: if prefix.is_empty() { String::new() } else { format!("{prefix}/") } }
    }

    /// What all keys begin with: empty, or the prefix and a slash.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Folder of all backups, with a slash.
    #[must_use]
    pub fn backups(&self) -> String {
        format!("{}backups/", self.root)
    }

    /// Folder of all restores, with a slash.
    #[must_use]
    pub fn restores(&self) -> String {
        format!("{}restores/", self.root)
    }

    /// Folder of one backup, with a slash.
    #[must_use]
    pub fn backup_folder(&self, backup: &str) -> String {
        format!("{}backups/{backup}/", self.root)
    }

    /// Folder of one restore, with a slash; all of it goes when the Restore is deleted (restore-semantics 1.9).
    #[must_use]
    pub fn restore_folder(&self, restore: &str) -> String {
        format!("{}restores/{restore}/", self.root)
    }

    /// The Backup object as plain JSON; that it is there is what makes a backup exist.
    #[must_use]
    pub fn backup_metadata(&self, backup: &str) -> String {
        format!("{}velero-backup.json", self.backup_folder(backup))
    }

    /// The tarball.
    #[must_use]
    pub fn backup_contents(&self, backup: &str) -> String {
        self.backup_file(backup, ".tar.gz")
    }

    /// The backup's log.
    #[must_use]
    pub fn backup_log(&self, backup: &str) -> String {
        self.backup_file(backup, "-logs.gz")
    }

    /// The backup's warnings and errors.
    #[must_use]
    pub fn backup_results(&self, backup: &str) -> String {
        self.backup_file(backup, "-results.gz")
    }

    /// The PodVolumeBackups of the backup.
    #[must_use]
    pub fn backup_pod_volume_backups(&self, backup: &str) -> String {
        self.backup_file(backup, "-podvolumebackups.json.gz")
    }

    /// The native volume snapshots of the backup.
    #[must_use]
    pub fn backup_volume_snapshots(&self, backup: &str) -> String {
        self.backup_file(backup, "-volumesnapshots.json.gz")
    }

    /// The asynchronous operations of the backup.
    #[must_use]
    pub fn backup_item_operations(&self, backup: &str) -> String {
        self.backup_file(backup, "-itemoperations.json.gz")
    }

    /// The names of all items of the backup.
    #[must_use]
    pub fn backup_resource_list(&self, backup: &str) -> String {
        self.backup_file(backup, "-resource-list.json.gz")
    }

    /// What became of each volume of the backup.
    #[must_use]
    pub fn backup_volume_info(&self, backup: &str) -> String {
        self.backup_file(backup, "-volumeinfo.json.gz")
    }

    /// The VolumeSnapshots of an older backup.
    #[must_use]
    pub fn backup_csi_volume_snapshots(&self, backup: &str) -> String {
        self.backup_file(backup, "-csi-volumesnapshots.json.gz")
    }

    /// The VolumeSnapshotContents of the backup.
    #[must_use]
    pub fn backup_csi_volume_snapshot_contents(&self, backup: &str) -> String {
        self.backup_file(backup, "-csi-volumesnapshotcontents.json.gz")
    }

    /// The VolumeSnapshotClasses of an older backup.
    #[must_use]
    pub fn backup_csi_volume_snapshot_classes(&self, backup: &str) -> String {
        self.backup_file(backup, "-csi-volumesnapshotclasses.json.gz")
    }

    /// The restore's log.
    #[must_use]
    pub fn restore_log(&self, restore: &str) -> String {
        self.restore_file(restore, "-logs.gz")
    }

    /// The restore's warnings and errors.
    #[must_use]
    pub fn restore_results(&self, restore: &str) -> String {
        self.restore_file(restore, "-results.gz")
    }

    /// What was done with each item.
    #[must_use]
    pub fn restore_resource_list(&self, restore: &str) -> String {
        self.restore_file(restore, "-resource-list.json.gz")
    }

    /// The asynchronous operations of the restore.
    #[must_use]
    pub fn restore_item_operations(&self, restore: &str) -> String {
        self.restore_file(restore, "-itemoperations.json.gz")
    }

    /// What became of each volume. The only restore file whose name does not begin with `restore-`.
    #[must_use]
    pub fn restore_volume_info(&self, restore: &str) -> String {
        format!("{}{restore}-volumeinfo.json.gz", self.restore_folder(restore))
    }

    fn backup_file(&self, backup: &str, suffix: &str) -> String {
        format!("{}{backup}{suffix}", self.backup_folder(backup))
    }

    fn restore_file(&self, restore: &str, suffix: &str) -> String {
        format!("{}restore-{restore}{suffix}", self.restore_folder(restore))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// restore-semantics 2.1
    #[test]
    fn the_keys_are_velero_s() {
        let layout = Layout::new("p/q");
        for (key, expected) in [
            (layout.backups(), "p/q/backups/"),
            (layout.restores(), "p/q/restores/"),
            (layout.backup_metadata("b"), "p/q/backups/b/velero-backup.json"),
            (layout.backup_contents("b"), "p/q/backups/b/b.tar.gz"),
            (layout.backup_log("b"), "p/q/backups/b/b-logs.gz"),
            (layout.backup_results("b"), "p/q/backups/b/b-results.gz"),
            (layout.backup_pod_volume_backups("b"), "p/q/backups/b/b-podvolumebackups.json.gz"),
            (layout.backup_volume_snapshots("b"), "p/q/backups/b/b-volumesnapshots.json.gz"),
            (layout.backup_item_operations("b"), "p/q/backups/b/b-itemoperations.json.gz"),
            (layout.backup_resource_list("b"), "p/q/backups/b/b-resource-list.json.gz"),
            (layout.backup_volume_info("b"), "p/q/backups/b/b-volumeinfo.json.gz"),
            (layout.backup_csi_volume_snapshots("b"), "p/q/backups/b/b-csi-volumesnapshots.json.gz"),
            (layout.backup_csi_volume_snapshot_contents("b"), "p/q/backups/b/b-csi-volumesnapshotcontents.json.gz"),
            (layout.backup_csi_volume_snapshot_classes("b"), "p/q/backups/b/b-csi-volumesnapshotclasses.json.gz"),
            (layout.restore_log("r"), "p/q/restores/r/restore-r-logs.gz"),
            (layout.restore_results("r"), "p/q/restores/r/restore-r-results.gz"),
            (layout.restore_resource_list("r"), "p/q/restores/r/restore-r-resource-list.json.gz"),
            (layout.restore_item_operations("r"), "p/q/restores/r/restore-r-itemoperations.json.gz"),
        ] {
            assert_eq!(key, expected);
        }
    }

    /// restore-semantics 2.1
    #[test]
    fn volume_info_of_a_restore_has_no_restore_prefix() {
        assert_eq!(Layout::new("").restore_volume_info("r"), "restores/r/r-volumeinfo.json.gz");
    }

    /// restore-semantics 1.3 and 2.1
    #[test]
    fn slashes_around_the_prefix_do_not_count() {
        for prefix in ["a", "/a", "a/", "//a//"] {
            assert_eq!(Layout::new(prefix).root(), "a/");
        }
        assert_eq!(Layout::new("/").root(), "");
    }
}
