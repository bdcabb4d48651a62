//! The log of one restore: its end in memory, the rest in a file without a name, readable from any place at any time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::log_line::log_line;
use crate::engine::events::LogLevel;

/// The part that stays in memory, in bytes: followers read it without touching the file. Twice as much is there
/// before the file is written to, so a small restore never has one.
const TAIL: usize = 64 * 1024;

/// How much a reader takes at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Where the log stands; what followers wait on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    end: u64,
    sealed: bool,
}

/// Why lines are missing from the log.
#[derive(Clone, Debug)]
struct Trouble {
    at: Timestamp,
    reason: String,
}

/// A piece of the log.
#[derive(Debug)]
enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes of the file.
    Filed(Arc<File>, usize),
    /// A line that says what is missing, and where the log goes on.
    Lost(String, u64),
    /// Nothing yet; whether nothing will come.
    End(bool),
}

#[derive(Debug, Default)]
struct Inner {
    tail: Vec<u8>,
    /// Where the tail begins.
    tail_start: u64,
    file: Option<Arc<File>>,
    /// How far the file goes; what is between it and the tail is lost.
    filed: u64,
    trouble: Option<Trouble>,
    sealed: bool,
    late: u64,
}

/// The log of one restore.
#[derive(Debug)]
pub(super) struct LogSpool {
    restore: String,
    folder: Option<PathBuf>,
    limit: u64,
    inner: Mutex<Inner>,
    mark: watch::Sender<Mark>,
}

impl LogSpool {
    /// An empty log; `restore` is `namespace/name`, the file comes into `folder` (or where temporary files go) and
    /// grows to `limit` bytes.
    pub(super) fn new(restore: String, folder: Option<PathBuf>, limit: u64) -> Self {
        Self { restore, folder, limit, inner: Mutex::default(), mark: watch::Sender::default() }
    }

    /// Appends a line. Followers see it with the next [`Self::announce`].
    pub(super) fn append(&self, now: Timestamp, level: LogLevel, source: &str, message: &str) {
        let line = log_line(now, level, message, source, &self.restore);
        let mut inner = self.lock();
        if inner.sealed {
            inner.late += 1;
            return;
        }
        inner.tail.extend_from_slice(line.as_bytes());
        if inner.tail.len() >= 2 * TAIL {
            self.move_to_file(&mut inner, now);
        }
    }

    /// Nothing is added any more; later lines are counted and left out.
    pub(super) fn seal(&self) {
        self.lock().sealed = true;
        self.announce();
    }

    /// Whether nothing is added any more.
    pub(super) fn is_sealed(&self) -> bool {
        self.lock().sealed
    }

    /// How many lines came after the log was sealed.
    pub(super) fn late_lines(&self) -> u64 {
        self.lock().late
    }

    /// Tells followers how far the log goes.
    pub(super) fn announce(&self) {
        let mark = {
            let inner = self.lock();
            Mark { end: inner.end(), sealed: inner.sealed }
        };
        self.mark.send_if_modified(|known| {
            let changed = *known != mark;
            *known = mark;
            changed
        });
    }

    /// Writes the tail to the file, and keeps only its second half in memory, cut at a line.
    fn move_to_file(&self, inner: &mut Inner, now: Timestamp) {
        if inner.trouble.is_none()
            && let Err(reason) = self.write(inner)
        {
            inner.trouble = Some(Trouble { at: now, reason });
        }
        let middle = inner.tail.len() - TAIL;
        let cut =
            inner.tail[middle..].iter().position(|&byte| byte == b'\n').map_or(inner.tail.len(), |at| middle + at + 1);
        inner.tail.drain(..cut);
        inner.tail_start += cut as u64;
    }

    fn write(&self, inner: &mut Inner) -> Result<(), String> {
        let end = inner.end();
        if end > self.limit {
            return Err(format!("it has reached its limit of {} bytes", self.limit));
        }
        let file = match &inner.file {
            Some(file) => Arc::clone(file),
            None => {
                let created = match &self.folder {
                    Some(folder) => tempfile::tempfile_in(folder),
                    None => tempfile::tempfile(),
                };
                let file = Arc::new(created.map_err(|error| format!("create its temporary file: {error}"))?);
                inner.file = Some(Arc::clone(&file));
                file
            }
        };
        let unwritten = usize::try_from(inner.filed - inner.tail_start).unwrap_or(usize::MAX).min(inner.tail.len());
        file.write_all_at(&inner.tail[unwritten..], inner.filed)
            .map_err(|error| format!("write its temporary file: {error}"))?;
        inner.filed = end;
        Ok(())
    }

    fn piece(&self, position: u64) -> Piece {
        let inner = self.lock();
        if position >= inner.end() {
            return Piece::End(inner.sealed);
        }
        if position >= inner.tail_start {
            let from = usize::try_from(position - inner.tail_start).unwrap_or(usize::MAX).min(inner.tail.len());
            let to = inner.tail.len().min(from.saturating_add(CHUNK));
            return Piece::Bytes(inner.tail[from..to].to_vec());
        }
        if let Some(file) = &inner.file
            && position < inner.filed
        {
            let length = usize::try_from(inner.filed - position).unwrap_or(CHUNK).min(CHUNK);
            return Piece::Filed(Arc::clone(file), length);
        }
        let trouble = inner.trouble.clone();
        let (at, reason) = trouble.map_or((Timestamp::UNIX_EPOCH, String::new()), |known| (known.at, known.reason));
        Piece::Lost(self.lost(at, inner.tail_start - position, &reason), inner.tail_start)
    }

    fn lost(&self, at: Timestamp, bytes: u64, reason: &str) -> String {
        let message = format!("{bytes} bytes of this log are missing: {reason}");
        log_line(at, LogLevel::Warning, &message, "progress", &self.restore)
    }

    /// Reads a part of the file; where that fails, a line that says so and where the log goes on.
    fn read_file(&self, file: &File, position: u64, length: usize) -> (Vec<u8>, u64) {
        let mut bytes = vec![0; length];
        match file.read_exact_at(&mut bytes, position) {
            Ok(()) => (bytes, position + length as u64),
            Err(error) => {
                let line =
                    self.lost(Timestamp::UNIX_EPOCH, length as u64, &format!("read its temporary file: {error}"));
                (line.into_bytes(), position + length as u64)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn end(&self) -> u64 {
        self.tail_start + self.tail.len() as u64
    }
}

/// Reads a restore's log from its begin to where it ends now; blocking, for compression and upload.
#[derive(Debug)]
pub struct LogReader {
    spool: Arc<LogSpool>,
    position: u64,
    ready: io::Cursor<Vec<u8>>,
}

impl LogReader {
    pub(super) fn new(spool: Arc<LogSpool>) -> Self {
        Self { spool, position: 0, ready: io::Cursor::default() }
    }
}

impl Read for LogReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.ready.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let bytes = match self.spool.piece(self.position) {
                Piece::Bytes(bytes) => {
                    self.position += bytes.len() as u64;
                    bytes
                }
                Piece::Filed(file, length) => {
                    let (bytes, position) = self.spool.read_file(&file, self.position, length);
                    self.position = position;
                    bytes
                }
                Piece::Lost(line, position) => {
                    self.position = position;
                    line.into_bytes()
                }
                Piece::End(_) => return Ok(0),
            };
            self.ready = io::Cursor::new(bytes);
        }
    }
}

/// Lines of a restore's log: those that are there, and when following those that come, until the log is sealed or
/// the service goes down.
#[derive(Debug)]
pub struct LogStream {
    spool: Arc<LogSpool>,
    mark: watch::Receiver<Mark>,
    shutdown: CancellationToken,
    follow: bool,
    position: u64,
    rest: Vec<u8>,
    ready: VecDeque<String>,
}

impl LogStream {
    pub(super) fn new(spool: Arc<LogSpool>, shutdown: CancellationToken, follow: bool) -> Self {
        let mark = spool.mark.subscribe();
        Self { spool, mark, shutdown, follow, position: 0, rest: Vec::new(), ready: VecDeque::new() }
    }

    /// The next line, without its newline; `None` at the end.
    ///
    /// Not cancel-safe: a line may be missing when the future is dropped half-way. Use it in a loop of its own, or
    /// as a [`Self::into_stream`], which keeps the future.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            match self.spool.piece(self.position) {
                Piece::Bytes(bytes) => {
                    self.position += bytes.len() as u64;
                    self.take(&bytes);
                }
                Piece::Filed(file, length) => {
                    let (spool, position) = (Arc::clone(&self.spool), self.position);
                    // The runtime refuses only when it goes down.
                    let read = tokio::task::spawn_blocking(move || spool.read_file(&file, position, length));
                    let (bytes, position) = read.await.ok()?;
                    self.position = position;
                    self.take(&bytes);
                }
                Piece::Lost(line, position) => {
                    self.position = position;
                    self.take(line.as_bytes());
                }
                Piece::End(sealed) => {
                    if sealed || !self.follow {
                        return None;
                    }
                    tokio::select! {
                        () = self.shutdown.cancelled() => self.follow = false,
                        changed = self.mark.changed() => changed.ok()?,
                    }
                }
            }
        }
    }

    /// The lines as a stream.
    pub fn into_stream(self) -> impl Stream<Item = String> + Send + 'static {
        futures::stream::unfold(self, |mut lines| async move { Some((lines.next().await?, lines)) })
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else { return };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        self.ready.extend(String::from_utf8_lossy(&lines).lines().map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;

    fn spool(limit: u64) -> Arc<LogSpool> {
        Arc::new(LogSpool::new("velero/r".to_owned(), None, limit))
    }

    fn write(spool: &LogSpool, numbers: std::ops::Range<u32>) {
        for number in numbers {
            spool.append(Timestamp::UNIX_EPOCH, LogLevel::Info, "engine", &format!("line-{number}"));
        }
    }

    async fn all(spool: &Arc<LogSpool>) -> Vec<String> {
        let mut lines = LogStream::new(Arc::clone(spool), CancellationToken::new(), false);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await {
            found.push(line);
        }
        found
    }

    fn number(line: &str) -> Option<u32> {
        line.split_once("msg=line-")?.1.split_once(' ')?.0.parse().ok()
    }

    #[tokio::test]
    async fn a_long_log_is_read_whole_from_file_and_memory() {
        let spool = spool(u64::MAX);
        write(&spool, 0..10_000);
        assert!(spool.lock().file.is_some());
        assert!(spool.lock().tail.len() < 2 * TAIL);
        let lines = all(&spool).await;
        assert!(lines.iter().filter_map(|line| number(line)).eq(0..10_000));
        let mut text = String::new();
        LogReader::new(Arc::clone(&spool)).read_to_string(&mut text).unwrap();
        assert!(text.lines().eq(lines.iter().map(String::as_str)));
    }

    #[tokio::test]
    async fn a_small_log_has_no_file() {
        let spool = spool(u64::MAX);
        write(&spool, 0..10);
        assert!(spool.lock().file.is_none());
        assert_eq!(all(&spool).await.len(), 10);
    }

    #[tokio::test]
    async fn where_the_log_is_full_one_line_says_how_much_is_missing_and_its_end_is_there() {
        let spool = spool(300_000);
        write(&spool, 0..20_000);
        let lines = all(&spool).await;
        let numbers: Vec<_> = lines.iter().filter_map(|line| number(line)).collect();
        assert_eq!((numbers.first(), numbers.last()), (Some(&0), Some(&19_999)));
        let notes: Vec<_> = lines.iter().filter(|line| number(line).is_none()).collect();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("bytes of this log are missing: it has reached its limit of 300000 bytes"));
        assert!(numbers.is_sorted());
    }

    #[tokio::test]
    async fn without_a_place_for_the_file_the_end_of_the_log_is_still_there() {
        let nowhere = PathBuf::from("/nonexistent/place");
        let spool = Arc::new(LogSpool::new("velero/r".to_owned(), Some(nowhere), u64::MAX));
        write(&spool, 0..10_000);
        let lines = all(&spool).await;
        assert!(lines[0].contains("create its temporary file"), "{}", lines[0]);
        assert_eq!(number(lines.last().unwrap()), Some(9_999));
    }

    #[tokio::test]
    async fn followers_get_what_comes_and_end_with_the_seal() {
        let spool = spool(u64::MAX);
        write(&spool, 0..3);
        let lines = LogStream::new(Arc::clone(&spool), CancellationToken::new(), true);
        let reader = tokio::spawn(futures::StreamExt::collect::<Vec<_>>(lines.into_stream()));
        tokio::task::yield_now().await;
        write(&spool, 3..6);
        spool.announce();
        tokio::task::yield_now().await;
        write(&spool, 6..8);
        spool.seal();
        write(&spool, 8..9);
        let lines = tokio::time::timeout(Duration::from_secs(5), reader).await.unwrap().unwrap();
        assert!(lines.iter().filter_map(|line| number(line)).eq(0..8));
        assert_eq!(spool.late_lines(), 1);
    }

    #[tokio::test]
    async fn followers_end_when_the_service_goes_down() {
        let spool = spool(u64::MAX);
        write(&spool, 0..3);
        let shutdown = CancellationToken::new();
        let mut lines = LogStream::new(Arc::clone(&spool), shutdown.clone(), true);
        shutdown.cancel();
        let mut count = 0;
        while lines.next().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 3);
    }
}
