//! The labels Velero puts on what it restores.

use sha2::{Digest, Sha256};

/// Label that names the backup an object came from.
pub const BACKUP_NAME: &str = "velero.io/backup-name";
/// Label that names the restore an object was created or updated by.
pub const RESTORE_NAME: &str = "velero.io/restore-name";
/// Label that carries the UID of a restore.
pub const RESTORE_UID: &str = "velero.io/restore-uid";
/// Label of a backup that belongs to a schedule.
pub const SCHEDULE_NAME: &str = "velero.io/schedule-name";

/// Longest label value that Kubernetes takes, in bytes.
pub const MAX_LABEL_VALUE: usize = 63;

/// Velero's "valid name" (restore-semantics 5.8): up to 63 bytes as is, otherwise the first 57 bytes and
/// the first six hexadecimal digits of the SHA-256 of the whole.
///
/// ```
/// use reprise::model::label::valid_name;
/// assert_eq!(valid_name("short"), "short");
/// assert_eq!(valid_name(&"x".repeat(64)).len(), 63);
/// ```
#[must_use]
pub fn valid_name(name: &str) -> String {
    if name.len() <= MAX_LABEL_VALUE {
        return name.to_owned();
    }
    let digest = Sha256::digest(name.as_bytes());
    let suffix: String = digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    // Names are ASCII; should one not be, cut at the last character boundary before byte 57.
    let cut = (0..=MAX_LABEL_VALUE - 6).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    format!("{}{suffix}", &name[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_57_bytes_and_six_digits_of_its_sha256() {
        let name = "a".repeat(63) + "b";
        // printf 'aaa…ab' | sha256sum
        let value = valid_name(&name);
        assert_eq!(value.len(), 63);
        assert!(value.starts_with(&"a".repeat(57)));
        assert!(value[57..].bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(valid_name(&"n".repeat(63)), "n".repeat(63));
    }
}
