//! One port for gRPC and REST: HTTP/1.1, and HTTP/2 with prior knowledge.
//!
//! # Guarantees
//! When the shutdown token of the [`Context`] is cancelled, no connection is accepted any more, each open stream gets
//! its shutting-down event, requests under way are answered, and [`Server::run`] returns: at the latest after
//! [`Options::grace`], with what is still open cut off.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures::FutureExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::{Context, code, grpc, http};
use crate::service::{Code, Error as Failure};
use crate::telemetry::metrics::Door;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SANDBOX: HeaderName = HeaderName::from_static("reprise-sandbox");
/// Longest request id that is taken over from a client: two UUIDs and some.
const MAX_REQUEST_ID: usize = 128;
/// Pause after a failed accept, commonly for want of file descriptors: long enough not to spin, short enough to go
/// unnoticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often an idle HTTP/2 connection is asked whether it lives, and how long the answer may take. A client that
/// vanished keeps its streams for no more than twice this.
const PING: Duration = Duration::from_secs(20);

/// How HTTP/2 with prior knowledge begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause before a preface that came in pieces is looked at again.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// Limits of a [`Server`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long open connections may take to end after the shutdown began.
    pub grace: Duration,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// How long an answer may take to begin; gRPC callers may ask for less with a deadline.
    pub request_timeout: Duration,
    /// Most connections at a time: above the limit of streams, as a browser has one connection for each.
    pub max_connections: usize,
    /// Most requests at a time whose answer has not begun; streams are not among them once they run.
    pub max_requests: usize,
    /// Most requests at a time on one HTTP/2 connection.
    pub max_requests_per_connection: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // Kubernetes kills after 30 s: time is left for the steps before and after.
            grace: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            max_connections: 16_000,
            max_requests: 1_024,
            max_requests_per_connection: 256,
        }
    }
}

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors for reflection are broken.
    #[error("read the file descriptors for gRPC reflection")]
    Descriptors(#[source] tonic_reflection::server::Error),
    /// The listener has no address.
    #[error("read the address of the listener")]
    Address(#[source] io::Error),
}

/// The server of all doors.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shutdown: tokio_util::sync::CancellationToken,
    app: Router,
    options: Options,
}

/// What the outermost layer needs.
#[derive(Clone)]
struct Edge {
    context: Context,
    requests: Arc<Semaphore>,
    request_timeout: Duration,
    grpc: Router,
    http: Router,
}

impl Server {
    /// A server on a listener that is bound already; clients may connect at once and wait until it runs.
    ///
    /// # Errors
    /// When the listener or the descriptors built into the program are broken.
    pub fn new(listener: TcpListener, context: Context, options: Options) -> Result<Self, Error> {
        Self::with_extra(listener, context, options, Router::new())
    }

    /// The same, with more routes beside those of REST, such as the sandbox's Kubernetes API.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_extra(listener: TcpListener, context: Context, options: Options, extra: Router) -> Result<Self, Error> {
        let address = listener.local_addr().map_err(Error::Address)?;
        let shutdown = context.shutdown.clone();
        let edge = Edge {
            grpc: grpc::routes(&context).map_err(Error::Descriptors)?.prepare().into_axum_router(),
            http: http::router(context.clone()).merge(extra),
            requests: Arc::new(Semaphore::new(options.max_requests)),
            request_timeout: options.request_timeout,
            context,
        };
        let app = Router::new()
            .fallback(dispatch)
            .layer(middleware::from_fn_with_state(edge.clone(), observe))
            .with_state(edge);
        Ok(Self { listener, address, shutdown, app, options })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the shutdown token is cancelled and the connections are done; gives the number of those that had
    /// to be cut off.
    pub async fn run(self) -> usize {
        let Self { listener, address: _, shutdown, app, options } = self;
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(options.max_connections));
        loop {
            let permit = tokio::select! {
                () = shutdown.cancelled() => break,
                permit = Arc::clone(&room).acquire_owned() => permit,
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    report(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = serve(stream, app.clone(), shutdown.clone(), options);
                    let span = tracing::debug_span!("connection", %peer);
                    connections.spawn(async move {
                        connection.instrument(span).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let drained = timeout(options.grace, async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        });
        if drained.await.is_ok() {
            return 0;
        }
        let left = connections.len();
        tracing::warn!(connections = left, grace = ?options.grace, "connections did not end in time and are cut off");
        connections.shutdown().await;
        left
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}

async fn serve(stream: TcpStream, app: Router, shutdown: tokio_util::sync::CancellationToken, options: Options) {
    // Events are small and must not wait for one another (Nagle).
    let _ = stream.set_nodelay(true);
    let protocol = tokio::select! {
        () = shutdown.cancelled() => return,
        protocol = timeout(options.header_timeout, protocol(&stream)) => protocol,
    };
    let builder = Builder::new(TokioExecutor::new());
    let mut builder = match protocol {
        Ok(Ok(Protocol::Http1)) => builder.http1_only(),
        Ok(Ok(Protocol::Http2)) => builder.http2_only(),
        Ok(Err(_)) | Err(_) => return,
    };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(options.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(options.max_requests_per_connection);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that went away, mostly.
        tracing::debug!(error, "connection ended");
    }
}

enum Protocol {
    Http1,
    Http2,
}

/// What a client speaks, from its first bytes, which stay unread. hyper finds out as well, but knows no time limit
/// until it has.
async fn protocol(stream: &TcpStream) -> io::Result<Protocol> {
    let mut bytes = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut bytes).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(&bytes[..length]) {
            return Ok(Protocol::Http1);
        }
        if length == PREFACE.len() {
            return Ok(Protocol::Http2);
        }
        // A preface that came in pieces, which is rare: peek does not wait for more.
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

async fn dispatch(State(edge): State<Edge>, request: Request) -> Response {
    let router = if is_grpc(request.headers()) { edge.grpc } else { edge.http };
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The id that a client sent, if it is fit to be logged, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_fit = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX_REQUEST_ID && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(is_fit).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// The time a gRPC caller gives: `grpc-timeout`, up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = (digits.len() <= 8).then(|| digits.parse().ok())??;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The outermost layer: request id, span, limits, panics, counting, and the word that it is a sandbox. The span names
/// the path and no more, as a query or a header may hold a secret.
async fn observe(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let door = if is_grpc(headers) { Door::Grpc } else { Door::Http };
    let limit = grpc_timeout(headers).unwrap_or(edge.request_timeout).min(edge.request_timeout);
    let id = request_id(headers);
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!(
        "request",
        door = door.as_str(),
        method = %request.method(),
        path,
        request_id = id.to_str().unwrap_or_default(),
    );
    let counted = edge.context.metrics.request(door);
    let answer = answer(&edge, limit, next.run(request)).instrument(span.clone()).await;
    let mut response = answer.unwrap_or_else(|failure| match door {
        Door::Grpc => grpc::status(failure).into_http(),
        Door::Http => http::failure(failure, &path),
    });
    let answered = answered(door, &response);
    span.in_scope(|| tracing::debug!(code = answered, "answered"));
    counted.answered(&answered);
    response.headers_mut().insert(REQUEST_ID, id);
    if edge.context.restores.is_sandbox() {
        response.headers_mut().insert(SANDBOX, HeaderValue::from_static("true"));
    }
    response
}

async fn answer(edge: &Edge, limit: Duration, work: impl Future<Output = Response>) -> Result<Response, Failure> {
    let _permit = edge
        .requests
        .try_acquire()
        .map_err(|_| Failure::new(Code::ResourceExhausted, "too many requests are under way: try again in a moment"))?;
    match timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => Err(Failure::new(Code::Internal, "a handler panicked: the log of the service says more")),
        Err(_) => Err(Failure::new(Code::DeadlineExceeded, format!("no answer within {limit:?}: try again"))),
    }
}

/// The value of the metric's label: a closed set in both cases.
fn answered(door: Door, response: &Response) -> String {
    match door {
        Door::Http => response.status().as_str().to_owned(),
        Door::Grpc => match response.headers().get("grpc-status") {
            // The status of an answer with content comes after it, where it is out of sight from here.
            None => "OK".to_owned(),
            Some(status) => match tonic::Code::from_bytes(status.as_bytes()) {
                tonic::Code::Ok => "OK".to_owned(),
                failed => code::row(code::from_grpc(failed)).name.to_owned(),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_deadline_of_grpc_is_read_in_every_unit_and_nonsense_is_none() {
        let read = |text| grpc_timeout(&headers("grpc-timeout", text));
        assert_eq!(read("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for nonsense in ["", "S", "1", "1s", "-1S", "999999999S", "1.5S"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_request_id_is_taken_over_only_if_it_is_fit_to_be_logged() {
        assert_eq!(request_id(&headers("x-request-id", "abc-1")), "abc-1");
        for unfit in ["", "two words", &"x".repeat(MAX_REQUEST_ID + 1)] {
            assert_eq!(request_id(&headers("x-request-id", unfit)).len(), 36, "{unfit}");
        }
    }
}
