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
    use proptest::prelude::*;

    use super::*;

    /// restore-semantics 5.8
    #[test]
    fn a_long_name_keeps_57_bytes_and_six_digits_of_its_sha256() {
        let shop = format!("nightly-{}2026", "backup-of-the-shop-".repeat(4));
        // The digits are what `printf %s NAME | sha256sum` begins with.
        for (name, digits) in [("a".repeat(63) + "b", "97aa7c"), ("x".repeat(64), "7ce100"), (shop, "396e9c")] {
            assert_eq!(valid_name(&name), format!("{}{digits}", &name[..57]));
        }
        assert_eq!(valid_name(&"n".repeat(63)), "n".repeat(63));
        assert_eq!(valid_name(""), "");
    }

    proptest! {
        /// restore-semantics 5.8: what fits is as it was, and whatever comes out fits.
        #[test]
        fn a_label_value_fits_begins_like_the_name_and_tells_long_names_apart(
            name in "[a-z0-9.-]{0,140}", other in "[a-z0-9.-]{64,90}",
        ) {
            let value = valid_name(&name);
            if name.len() <= 63 {
                prop_assert_eq!(&value, &name);
            } else {
                prop_assert_eq!(value.len(), 63);
                prop_assert_eq!(&value[..57], &name[..57]);
                prop_assert!(value[57..].bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
            }
            prop_assert_eq!(valid_name(&value), value.clone(), "a value that fits stays");
            prop_assert!(name == other || value != valid_name(&other));
        }
    }
}
