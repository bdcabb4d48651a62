//! What can be wrong with a tarball, and with one item in it.

use std::io;

/// Why a backup tarball, or one item of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input failed: trouble with the storage, not with the backup. Worth another try.
    #[error("read the backup tarball")]
    Source(#[source] io::Error),
    /// The input does not begin like gzip.
    #[error("the backup tarball is not gzip: gzip: invalid header; check that it is the backup's own .tar.gz")]
    NotGzip,
    /// The input ends before the archive does.
    #[error("unexpected EOF: the backup tarball ends early, after {compressed_bytes} compressed bytes")]
    Truncated {
        /// Compressed bytes that there were.
        compressed_bytes: u64,
    },
    /// The gzip stream does not hold a tar archive.
    #[error("the backup tarball is not a tar archive: archive/tar: invalid tar header")]
    NotTar,
    /// The gzip or tar stream is broken further on.
    #[error("the backup tarball is corrupt: {0}")]
    Corrupt(String),
    /// An entry would leave the directory that Velero extracts into (restore-semantics 2.2); the text is Velero's.
    #[error("invalid archive path {path:?}: escapes target directory")]
    EscapesRoot {
        /// The path as it stands in the archive.
        path: String,
    },
    /// The path of an entry is not text.
    #[error("invalid archive path {path:?}: not UTF-8")]
    PathNotUtf8 {
        /// The path with what is no text replaced.
        path: String,
    },
    /// The archive is larger than it may be; [`super::Limits`] has the name.
    #[error(
        "the backup tarball exceeds the limit {which} of {limit}{}; raise the limit if the backup is to be trusted",
        entry.as_ref().map(|entry| format!(" at {entry:?}")).unwrap_or_default()
    )]
    Limit {
        /// Name of the field in [`super::Limits`].
        which: &'static str,
        /// What it is set to.
        limit: u64,
        /// The entry at which it was exceeded, where there is one.
        entry: Option<String>,
    },
    /// The temporary file could not be made, written or read: disk full, as a rule.
    #[error("use the temporary file that holds the items of the backup; check the space in its folder")]
    Spool(#[source] io::Error),
    /// The disk of the temporary file would get too full.
    #[error(
        "the disk of the temporary folder has {free} bytes left, and {reserve} are to stay free: make room, set TMPDIR to a \
         folder with more of it, or lower the limit free_bytes"
    )]
    DiskFull {
        /// Bytes that are left.
        free: u64,
        /// Bytes that are to stay free.
        reserve: u64,
    },
    /// The caller asked to stop.
    #[error("reading the backup tarball was cancelled")]
    Cancelled,
    /// One item cannot be decoded; the others can.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// Why one item cannot be decoded. Each text is what follows `error decoding "<path>": ` in Velero's results
/// (restore-semantics 4.6), where Velero has such a case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A file without the suffix `.json`: it is listed, and looked for under a name with the suffix (restore-semantics 2.3).
    #[error("open {path}: no such file or directory")]
    NotFound {
        /// The path that does not exist, relative to the archive's root.
        path: String,
    },
    /// Not JSON.
    #[error("{0}")]
    Json(String),
    /// JSON, but no object.
    #[error("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")]
    NotAnObject {
        /// What it is instead: `array`, `string`, `number`, `bool`.
        found: &'static str,
    },
    /// An object without a `kind`.
    #[error("Object 'Kind' is missing in '{shortened}'")]
    NoKind {
        /// The beginning of the item.
        shortened: String,
    },
    /// `metadata.name` is not what the file is called. (Velero restores such an item under the inner name.)
    #[error("metadata.name is {inner:?}, but the file is that of {name:?}")]
    NameDisagrees {
        /// The name of the file.
        name: String,
        /// The name in the object.
        inner: String,
    },
    /// Nested deeper than [`super::Limits::json_depth`].
    #[error("exceeded max depth: the JSON is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
}
