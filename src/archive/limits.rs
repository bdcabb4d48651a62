//! How much of a hostile or broken tarball is taken before reading stops.

/// What a backup tarball may cost at most. Every default leaves room for a backup larger than any seen, and still ends a
/// decompression bomb before it fills the disk or the memory.
///
/// ```
/// use reprise::archive::Limits;
/// let limits = Limits { item_bytes: 1024 * 1024, ..Limits::default() };
/// assert_eq!(limits.json_depth, 127);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the gzip stream. Default 16 GiB: a million items of a real cluster compress to less than 1 GiB.
    pub compressed_bytes: u64,
    /// Bytes after decompression. Default 128 GiB: what 16 GiB become at the usual ratio of eight.
    pub uncompressed_bytes: u64,
    /// Uncompressed bytes per compressed byte, looked at once [`Limits::ratio_from_bytes`] have come out. Default 500: items
    /// that resemble each other, each written twice, reach 50 to 150; a stream of zeros reaches gzip's utmost, 1,030.
    pub ratio: u64,
    /// Uncompressed bytes below which the ratio does not matter. Default 256 MiB: no harm is done up to there.
    pub ratio_from_bytes: u64,
    /// Headers in the tar stream. Default 10 million: five million items, each there twice.
    pub entries: u64,
    /// Bytes of one item. Default 16 MiB: etcd takes 1.5 MiB per object, and up to 8 MiB where somebody insists.
    pub item_bytes: u64,
    /// Bytes of one path. Default 4,096, what Linux takes; Kubernetes' own names add up to less than 1,000.
    pub path_bytes: u64,
    /// Bytes of all names and directories that are kept in memory. Default 1 GiB: ten million names of 100 bytes.
    pub index_bytes: u64,
    /// Nesting of one item's JSON. Default and ceiling 127, the deepest that the decoder takes; the deepest CRDs need about 60.
    pub json_depth: usize,
    /// Bytes that are left free on the disk of the temporary file. Default 256 MiB: a node whose disk is full evicts its pods.
    pub free_bytes: u64,
}

/// The deepest nesting that `serde_json` decodes into a value.
pub(super) const DEEPEST: usize = 127;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

impl Default for Limits {
    fn default() -> Self {
        Self {
            compressed_bytes: 16 * GIB,
            uncompressed_bytes: 128 * GIB,
            ratio: 500,
            ratio_from_bytes: 256 * MIB,
            entries: 10_000_000,
            item_bytes: 16 * MIB,
            path_bytes: 4096,
            index_bytes: GIB,
            json_depth: DEEPEST,
            free_bytes: 256 * MIB,
        }
    }
}
