//! The flags that say how much of a backup tarball is taken (`archive::Limits`).

use bytesize::ByteSize;
use clap::Args;

use crate::archive::Limits;

/// Limits on a backup tarball. A backup that exceeds one restores nothing, and the error names the limit.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "How much of a backup tarball is taken (sizes such as 512MiB)")]
pub(super) struct ArchiveFlags {
    /// Size of the tarball as it is stored
    #[arg(long, default_value = "16GiB", value_name = "SIZE")]
    max_backup_size: ByteSize,
    /// Size of the tarball when it is decompressed
    #[arg(long, default_value = "128GiB", value_name = "SIZE")]
    max_uncompressed_size: ByteSize,
    /// Uncompressed bytes per compressed byte, once 256 MiB have come out
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..), value_name = "NUMBER")]
    max_compression_ratio: u64,
    /// Files, directories and links in the tarball; most items are in it twice
    #[arg(long, default_value_t = 10_000_000, value_name = "NUMBER")]
    max_backup_entries: u64,
    /// Size of one item
    #[arg(long, default_value = "16MiB", value_name = "SIZE")]
    max_item_size: ByteSize,
    /// Length of one path in the tarball, in bytes
    #[arg(long, default_value_t = 4096, value_name = "BYTES")]
    max_path_length: u64,
    /// Memory for the names of all items
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    max_index_size: ByteSize,
    /// Nesting of one item's JSON
    #[arg(long, default_value_t = 127, value_parser = clap::value_parser!(u8).range(1..=127), value_name = "LEVELS")]
    max_json_depth: u8,
    /// Space that is left free on the disk of the temporary folder (TMPDIR), where the items of a backup lie while it is restored
    #[arg(long, default_value = "256MiB", value_name = "SIZE")]
    min_free_disk: ByteSize,
}

impl ArchiveFlags {
    /// The limits.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            compressed_bytes: self.max_backup_size.as_u64(),
            uncompressed_bytes: self.max_uncompressed_size.as_u64(),
            ratio: self.max_compression_ratio,
            entries: self.max_backup_entries,
            item_bytes: self.max_item_size.as_u64(),
            path_bytes: self.max_path_length,
            index_bytes: self.max_index_size.as_u64(),
            json_depth: usize::from(self.max_json_depth),
            free_bytes: self.min_free_disk.as_u64(),
            ..Limits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        archive: ArchiveFlags,
    }

    fn limits(line: &str) -> Result<Limits, String> {
        Flags::try_parse_from(line.split(' ')).map(|flags| flags.archive.limits()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_the_limits_are_those_of_the_archive() {
        assert_eq!(limits("reprise").unwrap(), Limits::default());
    }

    #[test]
    fn each_flag_sets_its_limit() {
        let line = "reprise --max-backup-size 1MiB --max-uncompressed-size 2MiB --max-compression-ratio 3 \
                    --max-backup-entries 4 --max-item-size 5KiB --max-path-length 6 --max-index-size 7MiB \
                    --max-json-depth 8 --min-free-disk 0";
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = Limits {
            compressed_bytes: 1 << 20,
            uncompressed_bytes: 2 << 20,
            ratio: 3,
            entries: 4,
            item_bytes: 5 << 10,
            path_bytes: 6,
            index_bytes: 7 << 20,
            json_depth: 8,
            free_bytes: 0,
            ..Limits::default()
        };
        assert_eq!(limits(&line).unwrap(), expected);
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_name_of_the_flag() {
        for line in
            ["reprise --max-backup-size many", "reprise --max-json-depth 128", "reprise --max-compression-ratio 0"]
        {
            let error = limits(line).unwrap_err();
            let flag = line.split(' ').nth(1).unwrap();
            assert!(error.contains(flag), "{error}");
        }
    }
}
