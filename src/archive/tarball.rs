//! The tar stream: entries with their paths, without a copy and without an allocation per entry.
//!
//! The `tar` crate decodes the header blocks; walking them is done here, because its iterator takes extension headers of any
//! size into memory, and because Go's reader, which decides what Velero sees, differs in what it takes (links carry no data).

use std::io::Read;

use tar::{EntryType, Header};

use super::source::Gunzip;
use super::{Error, Limits};

const BLOCK: usize = 512;
const BUFFER: usize = 256 * 1024;
/// The most that Go's reader takes for an extended header.
const EXTENDED_HEADER_BYTES: u64 = 1024 * 1024;

/// What an entry is, as far as a backup cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// Links, devices, and what else there is: ignored (restore-semantics 2.2).
    Other,
}

/// The entries of a tar stream, one after the other.
pub(super) struct Tarball<R> {
    gunzip: Gunzip<R>,
    limits: Limits,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the current entry that have not been taken: content and padding.
    pending: u64,
    size: u64,
    path: Vec<u8>,
    long_path: Option<Vec<u8>>,
    headers: u64,
}

impl<R: Read> Tarball<R> {
    pub(super) fn new(gunzip: Gunzip<R>, limits: Limits) -> Self {
        Self {
            gunzip,
            limits,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            pending: 0,
            size: 0,
            path: Vec::new(),
            long_path: None,
            headers: 0,
        }
    }

    pub(super) fn gunzip(&self) -> &Gunzip<R> {
        &self.gunzip
    }

    /// The path of the current entry, as it stands in the archive.
    pub(super) fn path(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.path).map_err(|_| Error::PathNotUtf8 { path: self.path_for_humans() })
    }

    /// Content bytes of the current entry.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Goes to the next entry, past what is left of this one.
    pub(super) fn next(&mut self) -> Result<Option<Kind>, Error> {
        let mut pax_size = None;
        self.long_path = None;
        loop {
            self.skip_pending()?;
            let Some(header) = self.header()? else {
                return if self.long_path.is_some() || pax_size.is_some() { Err(self.truncated()) } else { Ok(None) };
            };
            let kind = header.entry_type();
            let declared = header.entry_size().map_err(|_| self.broken())?;
            match kind {
                EntryType::GNULongName => {
                    let bytes = self.extension(declared, self.limits.path_bytes.saturating_add(1), "path_bytes")?;
                    let path = bytes.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
                    self.long_path = Some(path);
                }
                EntryType::XHeader => {
                    let records = self.extension(declared, EXTENDED_HEADER_BYTES, "path_bytes")?.to_vec();
                    for (key, value) in pax_records(&records).ok_or_else(|| self.broken())? {
                        match key {
                            b"path" if value.contains(&0) => return Err(self.broken()),
                            b"path" if !value.is_empty() => self.long_path = Some(value.to_vec()),
                            b"size" => {
                                let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                                pax_size = Some(size.ok_or_else(|| self.broken())?);
                            }
                            key if key.starts_with(b"GNU.sparse.") => return Err(sparse()),
                            _ => {}
                        }
                    }
                }
                EntryType::XGlobalHeader | EntryType::GNULongLink => self.set_content(declared)?,
                EntryType::GNUSparse => return Err(sparse()),
                kind => {
                    match self.long_path.take() {
                        Some(path) => self.path = path,
                        None => {
                            self.path.clear();
                            self.path.extend_from_slice(&header.path_bytes());
                        }
                    }
                    self.check_path()?;
                    let kind = match kind {
                        EntryType::Directory => Kind::Directory,
                        // Archives of old have no type for directories.
                        EntryType::Regular if header.as_bytes()[156] == 0 && self.path.ends_with(b"/") => {
                            Kind::Directory
                        }
                        EntryType::Regular => Kind::File,
                        _ => Kind::Other,
                    };
                    let has_no_content = matches!(
                        header.entry_type(),
                        EntryType::Directory
                            | EntryType::Link
                            | EntryType::Symlink
                            | EntryType::Char
                            | EntryType::Block
                            | EntryType::Fifo
                    );
                    self.set_content(if has_no_content { 0 } else { pax_size.unwrap_or(declared) })?;
                    return Ok(Some(kind));
                }
            }
        }
    }

    /// The whole content of the current entry, in place.
    pub(super) fn content(&mut self) -> Result<&[u8], Error> {
        let too_large = |limit| Error::Limit { which: "item_bytes", limit, entry: Some(self.path_for_humans()) };
        if self.size > self.limits.item_bytes {
            return Err(too_large(self.limits.item_bytes));
        }
        let size = usize::try_from(self.size).map_err(|_| too_large(self.limits.item_bytes))?;
        if !self.fill(size)? {
            return Err(self.truncated());
        }
        let from = self.start;
        self.start += size;
        self.pending -= size as u64;
        Ok(&self.buffer[from..from + size])
    }

    /// Reads to the end of the gzip stream, so that its checksum is looked at.
    pub(super) fn drain(&mut self) -> Result<(), Error> {
        while self.gunzip.read(&mut self.buffer)? > 0 {}
        Ok(())
    }

    /// The next header block, checked; `None` at the end of the archive: two blocks of zeros, or just the end, as in Go.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        self.headers += 1;
        if self.headers > self.limits.entries {
            let entry = Some(self.path_for_humans());
            return Err(Error::Limit { which: "entries", limit: self.limits.entries, entry });
        }
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|&byte| byte == 0) {
            return match self.block()? {
                Some(second) if second.iter().any(|&byte| byte != 0) => Err(self.broken()),
                _ => Ok(None),
            };
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        let bytes = header.as_bytes();
        let sum = |value: fn(u8) -> i64| -> i64 {
            let fields = bytes[..148].iter().chain(&bytes[156..]);
            fields.map(|&byte| value(byte)).sum::<i64>() + 8 * i64::from(b' ')
        };
        // Some writers of old summed signed bytes.
        let is_right = header.cksum().is_ok_and(|stored| {
            i64::from(stored) == sum(i64::from) || i64::from(stored) == sum(|byte| i64::from(byte.cast_signed()))
        });
        if is_right { Ok(Some(header)) } else { Err(self.broken()) }
    }

    fn block(&mut self) -> Result<Option<&[u8]>, Error> {
        if !self.fill(BLOCK)? {
            return if self.start == self.end { Ok(None) } else { Err(self.truncated()) };
        }
        let from = self.start;
        self.start += BLOCK;
        Ok(Some(&self.buffer[from..self.start]))
    }

    /// The content of an extended header.
    fn extension(&mut self, size: u64, limit: u64, which: &'static str) -> Result<&[u8], Error> {
        if size > limit {
            return Err(Error::Limit { which, limit, entry: Some(self.path_for_humans()) });
        }
        self.set_content(size)?;
        self.content()
    }

    fn set_content(&mut self, size: u64) -> Result<(), Error> {
        self.size = size;
        self.pending = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| self.broken())?;
        Ok(())
    }

    fn skip_pending(&mut self) -> Result<(), Error> {
        while self.pending > 0 {
            if self.start == self.end && !self.fill(1)? {
                return Err(self.truncated());
            }
            let available = (self.end - self.start) as u64;
            let skipped = available.min(self.pending);
            self.start += usize::try_from(skipped).unwrap_or(self.end - self.start);
            self.pending -= skipped;
        }
        Ok(())
    }

    /// Has at least `wanted` bytes in one piece in the buffer; false when the stream ends before. The buffer grows by what
    /// arrives, not by what a header declares, and goes back to its size after a large item.
    fn fill(&mut self, wanted: usize) -> Result<bool, Error> {
        if self.end - self.start >= wanted {
            return Ok(true);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if wanted <= BUFFER && self.end <= BUFFER && self.buffer.len() > BUFFER {
            self.buffer.truncate(BUFFER);
            self.buffer.shrink_to_fit();
        }
        while self.end < wanted {
            if self.end == self.buffer.len() {
                let larger = (self.buffer.len() * 2).min(wanted.max(BUFFER));
                self.buffer.resize(larger, 0);
            }
            match self.gunzip.read(&mut self.buffer[self.end..])? {
                0 => return Ok(false),
                read => self.end += read,
            }
        }
        Ok(true)
    }

    fn check_path(&self) -> Result<(), Error> {
        if self.path.len() as u64 > self.limits.path_bytes {
            let entry = Some(self.path_for_humans());
            return Err(Error::Limit { which: "path_bytes", limit: self.limits.path_bytes, entry });
        }
        Ok(())
    }

    /// The path for a message: text whatever it is, and not long.
    fn path_for_humans(&self) -> String {
        String::from_utf8_lossy(&self.path[..self.path.len().min(512)]).into_owned()
    }

    fn truncated(&self) -> Error {
        if self.gunzip.trailing_garbage() {
            return Error::Corrupt("gzip: invalid header".to_owned());
        }
        Error::Truncated { compressed_bytes: self.gunzip.bytes().0 }
    }

    fn broken(&self) -> Error {
        if self.headers <= 1 {
            return Error::NotTar;
        }
        Error::Corrupt(format!("archive/tar: invalid tar header after {:?}", self.path_for_humans()))
    }
}

fn sparse() -> Error {
    Error::Corrupt("a sparse file is no part of a backup".to_owned())
}

/// The records `length key=value\n` of a PAX header (POSIX pax, "Extended Header"); `None` when malformed.
fn pax_records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|&byte| byte == b' ')?;
        let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[len..];
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_are_read_by_their_length() {
        let bytes = b"12 path=a\nb\n8 size=\n";
        assert_eq!(pax_records(bytes), Some(vec![(&b"path"[..], &b"a\nb"[..]), (&b"size"[..], &b""[..])]));
    }

    #[test]
    fn malformed_pax_records_are_none() {
        for bytes in [&b"x path=a\n"[..], b"99 path=a\n", b"0 path=a\n", b"8 path=a\n", b"5 pat\n", b"3 "] {
            assert_eq!(pax_records(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
