//! The temporary file that holds the items: written once from front to back, then read anywhere by any thread.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Error;

/// Large enough that a system call is paid per hundred items, not per item.
const WRITE_BUFFER: usize = 256 * 1024;

/// Bytes between two looks at the space on the disk: often enough that little more than the reserve is ever taken, and seldom
/// enough to cost nothing.
const LOOK_EVERY: u64 = 16 * 1024 * 1024;

/// The file while it is written. It has no name: the system frees it when it is closed, whatever happens to the process.
#[derive(Debug)]
pub(super) struct Writing {
    file: BufWriter<File>,
    len: u64,
    /// Bytes of the disk that are to stay free.
    reserve: u64,
    /// Length at which the disk is looked at again.
    next_look: u64,
}

/// The file when it is complete.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
}

impl Writing {
    /// Makes the file in `folder`, or where the system keeps temporary files. So many bytes of the disk stay free.
    pub(super) fn create(folder: Option<&Path>, reserve: u64) -> Result<Self, Error> {
        let file = folder.map_or_else(tempfile::tempfile, tempfile::tempfile_in).map_err(Error::Spool)?;
        let mut writing = Self { file: BufWriter::with_capacity(WRITE_BUFFER, file), len: 0, reserve, next_look: 0 };
        writing.look()?;
        Ok(writing)
    }

    /// Looks at the space on the disk.
    fn look(&mut self) -> Result<(), Error> {
        self.next_look = self.len + LOOK_EVERY;
        // A file system that does not tell is not refused for it: a write that fails is an error all the same.
        let Ok(disk) = rustix::fs::fstatvfs(self.file.get_ref()) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < self.reserve { Err(Error::DiskFull { free, reserve: self.reserve }) } else { Ok(()) }
    }

    /// Appends and returns the offset.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        self.file.write_all(bytes).map_err(Error::Spool)?;
        let offset = self.len;
        self.len += bytes.len() as u64;
        if self.len >= self.next_look {
            self.look()?;
        }
        Ok(offset)
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Writes what is left.
    pub(super) fn finish(self) -> Result<Spool, Error> {
        let file = self.file.into_inner().map_err(|failed| Error::Spool(failed.into_error()))?;
        Ok(Spool { file })
    }
}

impl Spool {
    /// Reads without a shared position, so that threads do not wait for each other.
    pub(super) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}
