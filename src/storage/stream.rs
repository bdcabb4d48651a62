//! Reading a large object to its end, in spite of passing failures.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::Error;

/// How stubbornly a large object is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// The longest time without a byte.
    pub(super) read_timeout: Duration,
    /// How often in a row it is tried again without getting a byte.
    pub(super) retries: u32,
    /// The first pause; each further one without progress is twice as long.
    pub(super) backoff: Duration,
}

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

struct State<F> {
    key: String,
    size: u64,
    position: u64,
    current: Option<BoxStream<'static, Result<Bytes, Error>>>,
    fruitless: u32,
    patience: Patience,
    fetch: F,
}

/// The bytes of an object of `size` bytes. `fetch(n)` opens it at byte `n`; it is called again where a stream breaks
/// off, so no byte comes twice.
pub(super) fn resuming<F, O>(
    key: &str,
    size: u64,
    first: BoxStream<'static, Result<Bytes, Error>>,
    patience: Patience,
    fetch: F,
) -> BoxStream<'static, Result<Bytes, Error>>
where
    F: Fn(u64) -> O + Send + 'static,
    O: Future<Output = Result<BoxStream<'static, Result<Bytes, Error>>, Error>> + Send,
{
    let state = State { key: key.to_owned(), size, position: 0, current: Some(first), fruitless: 0, patience, fetch };
    stream::try_unfold(state, |mut state| async move { Ok(state.next().await?.map(|bytes| (bytes, state))) }).boxed()
}

impl<F, O> State<F>
where
    F: Fn(u64) -> O + Send,
    O: Future<Output = Result<BoxStream<'static, Result<Bytes, Error>>, Error>> + Send,
{
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.position >= self.size {
                return Ok(None);
            }
            match self.read().await {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return self.accept(bytes).map(Some),
                Err(error) if error.is_retryable() && self.fruitless < self.patience.retries => {
                    let pause = self.patience.backoff.saturating_mul(1 << self.fruitless.min(16)).min(LONGEST_PAUSE);
                    self.fruitless += 1;
                    self.current = None;
                    tracing::warn!(
                        key = self.key, position = self.position, size = self.size, attempt = self.fruitless,
                        error = %chain(&error), "reading on after a failure of the backup location"
                    );
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One piece, opening the object at the current position where that is needed.
    async fn read(&mut self) -> Result<Bytes, Error> {
        let after = self.patience.read_timeout;
        let timeout = |key: &str| Error::Timeout { key: key.to_owned(), after };
        let current = match &mut self.current {
            Some(current) => current,
            current => {
                let opened = tokio::time::timeout(after, (self.fetch)(self.position)).await;
                current.insert(opened.map_err(|_| timeout(&self.key))??)
            }
        };
        match tokio::time::timeout(after, current.next()).await.map_err(|_| timeout(&self.key))? {
            Some(result) => result,
            None => Err(Error::Transient {
                key: self.key.clone(),
                source: format!("it ended after {} of {} bytes", self.position, self.size).into(),
            }),
        }
    }

    fn accept(&mut self, bytes: Bytes) -> Result<Bytes, Error> {
        self.fruitless = 0;
        self.position += bytes.len() as u64;
        if self.position <= self.size {
            return Ok(bytes);
        }
        Err(Error::Corrupt {
            key: self.key.clone(),
            source: format!("it goes on after its {} bytes", self.size).into(),
        })
    }
}

/// An error with its causes, for the log.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::TryStreamExt;

    use super::*;

    const PATIENCE: Patience =
        Patience { read_timeout: Duration::from_millis(400), retries: 3, backoff: Duration::from_millis(1) };

    fn passing() -> Error {
        Error::Transient { key: "k".into(), source: "reset".into() }
    }

    /// Yields `data[from..]` three bytes at a time and fails with `failure` after `good` pieces.
    fn breaking(
        data: &'static [u8],
        from: u64,
        good: usize,
        failure: fn() -> Error,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        let pieces = data[usize::try_from(from).unwrap()..].chunks(3).map(|piece| Ok(Bytes::from_static(piece)));
        let pieces: Vec<_> = pieces.take(good).chain([Err(failure())]).collect();
        stream::iter(pieces).boxed()
    }

    async fn read(data: &'static [u8], good: usize, failure: fn() -> Error) -> (Result<Vec<u8>, Error>, usize) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let stream = resuming("k", data.len() as u64, breaking(data, 0, good, failure), PATIENCE, move |position| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok(breaking(data, position, good, failure)) }
        });
        let read = stream.try_fold(Vec::new(), |mut all, bytes| async move {
            all.extend_from_slice(&bytes);
            Ok(all)
        });
        (read.await, calls.load(Ordering::Relaxed))
    }

    const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog";

    #[tokio::test]
    async fn a_broken_stream_is_taken_up_where_it_stopped() {
        let (read, calls) = read(TEXT, 2, passing).await;
        assert_eq!(read.unwrap(), TEXT);
        assert_eq!(calls, TEXT.len() / 6); // six bytes for each opening, however many that takes
    }

    #[tokio::test]
    async fn it_gives_up_after_so_many_fruitless_tries() {
        let (read, calls) = read(TEXT, 0, passing).await;
        assert!(read.unwrap_err().is_retryable());
        assert_eq!(calls, 3);
    }

    #[tokio::test]
    async fn a_lasting_failure_is_not_retried() {
        let (read, calls) = read(TEXT, 1, || Error::Denied { key: "k".into(), source: "403".into() }).await;
        assert!(matches!(read, Err(Error::Denied { .. })));
        assert_eq!(calls, 0);
    }

    #[tokio::test]
    async fn an_early_end_counts_as_a_failure() {
        let short = || stream::iter([Ok(Bytes::from_static(b"the "))]).boxed();
        let stream = resuming("k", 9, short(), PATIENCE, |position| async move {
            assert_eq!(position, 4);
            Ok(stream::iter([Ok(Bytes::from_static(b"quick"))]).boxed())
        });
        let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"the quick");
    }

    #[tokio::test]
    async fn silence_is_a_timeout_and_the_whole_may_take_longer_than_one() {
        let silent = stream::pending().boxed();
        let pieces = resuming("k", 6, silent, PATIENCE, |position| async move {
            let rest = &b"abcdef"[usize::try_from(position).unwrap()..];
            let slow = stream::iter(rest.chunks(2)).then(|piece| async move {
                tokio::time::sleep(Duration::from_millis(200)).await; // 600 ms in all, 400 allowed at a time
                Ok(Bytes::from_static(piece))
            });
            Ok(slow.boxed())
        });
        let started = tokio::time::Instant::now();
        let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"abcdef");
        assert!(started.elapsed() >= Duration::from_millis(400 + 600));
    }
}
