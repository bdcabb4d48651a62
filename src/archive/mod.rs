//! Placeholder for the archive's index number until the reader is merged.

/// Number of an entry in the archive's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u32);
