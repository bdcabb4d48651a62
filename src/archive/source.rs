//! From the input to uncompressed bytes: counts, limits, and telling apart whose fault an error is.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::GzDecoder;

use super::{Error, Limits};

const INPUT_BUFFER: usize = 128 * 1024;
/// The first byte of a gzip member (RFC 1952, 2.3.1).
const GZIP_MAGIC: u8 = 0x1f;

/// The input, buffered. The decoder passes errors on as `io::Error`, which says not whose they were; so they are kept here.
struct Input<R> {
    inner: R,
    buffer: Box<[u8]>,
    position: usize,
    filled: usize,
    bytes: u64,
    limit: u64,
    failure: Option<Error>,
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.filled {
            self.position = 0;
            self.filled = 0;
            self.filled = loop {
                match self.inner.read(&mut self.buffer) {
                    Ok(read) => break read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.failure = Some(Error::Source(error));
                        return Err(io::Error::other("the input failed"));
                    }
                }
            };
            self.bytes += self.filled as u64;
            if self.bytes > self.limit {
                self.failure = Some(Error::Limit { which: "compressed_bytes", limit: self.limit, entry: None });
                return Err(io::Error::other("the input is too long"));
            }
        }
        Ok(&self.buffer[self.position..self.filled])
    }

    fn consume(&mut self, amount: usize) {
        self.position = (self.position + amount).min(self.filled);
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(into.len());
        into[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

/// Where the decoder stands between members.
enum Member<R> {
    /// At the first byte of a member, or at the end of the input.
    Before(Input<R>),
    /// In a member.
    In(Box<GzDecoder<Input<R>>>),
    /// Nothing more comes out.
    End(Input<R>),
    /// Never seen: stands in while the state changes, and after an error.
    Moved,
}

/// The uncompressed bytes of a gzip stream of one or more members.
pub(super) struct Gunzip<R> {
    member: Member<R>,
    members: u64,
    bytes: u64,
    limits: Limits,
    cancelled: Option<Arc<AtomicBool>>,
    trailing_garbage: bool,
}

impl<R: Read> Gunzip<R> {
    pub(super) fn new(inner: R, limits: Limits, cancelled: Option<Arc<AtomicBool>>) -> Self {
        let input = Input {
            inner,
            buffer: vec![0; INPUT_BUFFER].into_boxed_slice(),
            position: 0,
            filled: 0,
            bytes: 0,
            limit: limits.compressed_bytes,
            failure: None,
        };
        Self { member: Member::Before(input), members: 0, bytes: 0, limits, cancelled, trailing_garbage: false }
    }

    /// Compressed bytes that have come in, and uncompressed bytes that have gone out.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let compressed = match &self.member {
            Member::Before(input) | Member::End(input) => input.bytes,
            Member::In(decoder) => decoder.get_ref().bytes,
            Member::Moved => 0,
        };
        (compressed, self.bytes)
    }

    /// Whether something that is no gzip followed the last member.
    pub(super) fn trailing_garbage(&self) -> bool {
        self.trailing_garbage
    }

    /// The next bytes; 0 at the end of the stream.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        loop {
            if self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
                return Err(Error::Cancelled);
            }
            match std::mem::replace(&mut self.member, Member::Moved) {
                Member::Before(input) => self.begin(input)?,
                Member::In(decoder) => {
                    let read = self.decode(decoder, into)?;
                    if read > 0 {
                        return Ok(read);
                    }
                }
                Member::End(input) => {
                    self.member = Member::End(input);
                    return Ok(0);
                }
                Member::Moved => return Ok(0),
            }
        }
    }

    fn begin(&mut self, mut input: Input<R>) -> Result<(), Error> {
        let first = match input.fill_buf() {
            Ok(available) => available.first().copied(),
            Err(error) => return Err(input.failure.take().unwrap_or(Error::Source(error))),
        };
        self.member = match first {
            Some(GZIP_MAGIC) => Member::In(Box::new(GzDecoder::new(input))),
            Some(_) if self.members == 0 => return Err(Error::NotGzip),
            Some(_) => {
                self.trailing_garbage = true;
                Member::End(input)
            }
            None if self.members == 0 => return Err(Error::Truncated { compressed_bytes: 0 }),
            None => Member::End(input),
        };
        Ok(())
    }

    fn decode(&mut self, mut decoder: Box<GzDecoder<Input<R>>>, into: &mut [u8]) -> Result<usize, Error> {
        match decoder.read(into) {
            Ok(0) => {
                self.members += 1;
                self.member = Member::Before(decoder.into_inner());
                Ok(0)
            }
            Ok(read) => {
                self.bytes += read as u64;
                let compressed = decoder.get_ref().bytes;
                self.member = Member::In(decoder);
                self.check_expansion(compressed)?;
                Ok(read)
            }
            Err(error) => {
                let has_header = decoder.header().is_some();
                let input = decoder.get_mut();
                Err(match input.failure.take() {
                    Some(failure) => failure,
                    None if error.kind() == io::ErrorKind::UnexpectedEof => {
                        Error::Truncated { compressed_bytes: input.bytes }
                    }
                    None if self.members == 0 && !has_header => Error::NotGzip,
                    None => Error::Corrupt(format!("gzip: {error}")),
                })
            }
        }
    }

    fn check_expansion(&self, compressed: u64) -> Result<(), Error> {
        let Limits { uncompressed_bytes, ratio, ratio_from_bytes, .. } = self.limits;
        if self.bytes > uncompressed_bytes {
            return Err(Error::Limit { which: "uncompressed_bytes", limit: uncompressed_bytes, entry: None });
        }
        if self.bytes > ratio_from_bytes && self.bytes / ratio.max(1) > compressed {
            return Err(Error::Limit { which: "ratio", limit: ratio, entry: None });
        }
        Ok(())
    }
}
