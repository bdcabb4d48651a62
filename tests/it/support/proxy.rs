//! A proxy that makes trouble: an HTTP front on a loopback port, before an API server or an S3 server, that delays, cuts and
//! refuses requests by a rule of the test, and writes down what the server behind it was asked and answered.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What the test says of a request.
type Rule = Box<dyn Fn(&Asked) -> Option<Fault> + Send + Sync>;
type Stream = futures::stream::BoxStream<'static, io::Result<Bytes>>;

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is sent on after a while.
    Late(Duration),
    /// The connection is closed, and the server never hears of it.
    Dropped,
    /// The server did what it was asked, and the connection is closed before the answer.
    AnswerLost,
    /// The answer breaks off after so many bytes; a watch breaks off in the middle of an event.
    Cut(usize),
    /// The answer ends early, and well-formed as HTTP.
    Short(usize),
    /// It is answered with this code, and never sent on; `Retry-After` in seconds where there is one.
    Refused(u16, Option<u64>),
    /// A watch is told that it is too old (410 in the stream).
    Expired,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    /// How many requests came before it, through this proxy.
    pub(crate) nth: u64,
}

impl Asked {
    /// Whether it follows changes.
    pub(crate) fn is_watch(&self) -> bool {
        self.query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"))
    }

    /// Whether it creates an object that is kept, and that is none of Velero's own.
    pub(crate) fn creates_item(&self) -> bool {
        self.method == Method::POST
            && !self.path.starts_with("/apis/velero.io/")
            && !self.path.contains("/events")
            && !self.path.starts_with("/apis/authorization.k8s.io/")
            && !self.query.contains("dryRun")
    }

    /// Whether it creates, changes or deletes something.
    pub(crate) fn writes(&self) -> bool {
        self.method != Method::GET
    }
}

/// The server behind a proxy.
pub(crate) enum Server {
    /// A Kubernetes API server; the client's credentials are used.
    Kubernetes(kube::Client),
    /// A server of plain HTTP, `http://host:port`. Requests keep their `Host`, which signatures cover.
    Http(String),
}

/// What came through.
#[derive(Default)]
struct Record {
    asked: u64,
    faults: BTreeMap<String, usize>,
    created: BTreeMap<String, usize>,
}

/// A running proxy; ends with its runtime, or when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    record: Arc<Mutex<Record>>,
    stop: CancellationToken,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Proxy {
    /// A proxy before `server`, whose requests fare as `rule` says.
    pub(crate) async fn start(server: Server, rule: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port for the proxy");
        let address = listener.local_addr().expect("the address just bound");
        let (record, stop) = (Arc::<Mutex<Record>>::default(), CancellationToken::new());
        let shared =
            Arc::new(Shared { server, plain: reqwest::Client::new(), rule: Box::new(rule), record: record.clone() });
        let stopped = stop.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => match accepted {
                        Ok(accepted) => accepted,
                        Err(_) => continue,
                    },
                };
                let (shared, stopped) = (shared.clone(), stopped.clone());
                tokio::spawn(async move {
                    // HTTP/1 only: a request has its connection to itself, so that closing it hits nobody else.
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http1_only();
                    let service = service_fn(move |request| {
                        let shared = shared.clone();
                        async move { shared.fare(request).await }
                    });
                    tokio::select! {
                        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        Self { address, record, stop }
    }

    /// `http://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of the API server behind it.
    pub(crate) fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(self.url().parse().expect("the address of the proxy"));
        config.default_retry = false;
        config.read_timeout = Some(Duration::from_secs(60));
        kube::Client::try_from(config).expect("a client of plain HTTP")
    }

    /// How often each kind of fault befell a request.
    pub(crate) fn faults(&self) -> BTreeMap<String, usize> {
        self.record.lock().unwrap().faults.clone()
    }

    /// What the server answered 201 to, and how often: `path/name` of items.
    pub(crate) fn created(&self) -> BTreeMap<String, usize> {
        self.record.lock().unwrap().created.clone()
    }
}

struct Shared {
    server: Server,
    plain: reqwest::Client,
    rule: Rule,
    record: Arc<Mutex<Record>>,
}

type Body = StreamBody<futures::stream::BoxStream<'static, io::Result<Frame<Bytes>>>>;

fn body(stream: Stream) -> Body {
    StreamBody::new(stream.map_ok(Frame::data).boxed())
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    body(futures::stream::iter([Ok(bytes)]).boxed())
}

fn broken() -> io::Error {
    io::Error::other("closed by the proxy of the test")
}

impl Shared {
    /// An error closes the connection.
    async fn fare(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (parts, incoming) = request.into_parts();
        let sent = incoming.collect().await.map_err(io::Error::other)?.to_bytes();
        let mut asked = Asked {
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            nth: 0,
        };
        let fault = {
            let mut record = self.record.lock().unwrap();
            asked.nth = record.asked;
            record.asked += 1;
            let fault = (self.rule)(&asked);
            if let Some(fault) = fault {
                let name = format!("{fault:?}");
                let name = name.split('(').next().unwrap_or_default().to_owned();
                *record.faults.entry(name).or_default() += 1;
            }
            fault
        };
        match fault {
            Some(Fault::Late(pause)) => tokio::time::sleep(pause).await,
            Some(Fault::Dropped) => return Err(broken()),
            Some(Fault::Refused(code, seconds)) => return Ok(self.refusal(code, seconds)),
            Some(Fault::Expired) => return Ok(expired()),
            _ => {}
        }
        let (status, headers, stream) = self.send_on(&parts, sent.clone()).await.map_err(io::Error::other)?;
        if asked.creates_item() && status == StatusCode::CREATED {
            let object: Value = serde_json::from_slice(&sent).unwrap_or_default();
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            *self.record.lock().unwrap().created.entry(format!("{}/{name}", asked.path)).or_default() += 1;
        }
        let mut response = Response::builder().status(status);
        for (name, value) in &headers {
            if !matches!(name.as_str(), "connection" | "transfer-encoding" | "keep-alive") {
                response = response.header(name, value);
            }
        }
        let stream = match fault {
            Some(Fault::AnswerLost) => {
                // The server is heard to its end, so that it has done what it was asked.
                let _: Vec<_> = stream.collect().await;
                return Err(broken());
            }
            Some(Fault::Cut(bytes)) => cut(stream, bytes, Some(broken)),
            Some(Fault::Short(bytes)) => {
                if let Some(headers) = response.headers_mut() {
                    headers.remove(header::CONTENT_LENGTH);
                }
                cut(stream, bytes, None)
            }
            _ => stream,
        };
        response.body(body(stream)).map_err(io::Error::other)
    }

    async fn send_on(
        &self,
        parts: &http::request::Parts,
        sent: Bytes,
    ) -> Result<(StatusCode, HeaderMap, Stream), Box<dyn std::error::Error + Send + Sync>> {
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        match &self.server {
            Server::Kubernetes(client) => {
                let mut request = Request::builder().method(parts.method.clone()).uri(target);
                for name in [header::ACCEPT, header::CONTENT_TYPE, header::USER_AGENT] {
                    if let Some(value) = parts.headers.get(&name) {
                        request = request.header(name, value);
                    }
                }
                let answer = client.send(request.body(kube::client::Body::from(sent.to_vec()))?).await?;
                let (head, body) = answer.into_parts();
                Ok((head.status, head.headers, body.into_data_stream().map_err(io::Error::other).boxed()))
            }
            Server::Http(url) => {
                let mut headers = parts.headers.clone();
                headers.remove(header::CONTENT_LENGTH);
                headers.remove(header::TRANSFER_ENCODING);
                let request = self.plain.request(parts.method.clone(), format!("{url}{target}"));
                let answer = request.headers(headers).body(sent).send().await?;
                let (status, headers) = (answer.status(), answer.headers().clone());
                Ok((status, headers, answer.bytes_stream().map_err(io::Error::other).boxed()))
            }
        }
    }

    fn refusal(&self, code: u16, seconds: Option<u64>) -> Response<Body> {
        let mut response = Response::builder().status(code);
        if let Some(seconds) = seconds {
            response = response.header(header::RETRY_AFTER, seconds);
        }
        let text = match &self.server {
            Server::Kubernetes(_) => {
                let reason = match code {
                    429 => "TooManyRequests",
                    500 => "InternalError",
                    504 => "Timeout",
                    _ => "ServiceUnavailable",
                };
                response = response.header(header::CONTENT_TYPE, "application/json");
                let message = format!("refused by the proxy of the test with {code}");
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
                       "reason": reason, "message": message})
                .to_string()
            }
            Server::Http(_) => {
                response = response.header(header::CONTENT_TYPE, "application/xml");
                let name = if code == 503 { "SlowDown" } else { "InternalError" };
                format!("<?xml version=\"1.0\"?><Error><Code>{name}</Code><Message>by the test</Message></Error>")
            }
        };
        response.body(whole(text)).unwrap_or_else(|_| Response::new(whole("")))
    }
}

/// What a watch hears whose resourceVersion the server no longer has.
fn expired() -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
                        "reason": "Expired", "message": "too old resource version: 1 (2)"});
    let event = json!({"type": "ERROR", "object": status});
    let mut response = Response::new(whole(format!("{event}\n")));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// The first so many bytes of a stream, and then its end or an error.
fn cut(stream: Stream, bytes: usize, error: Option<fn() -> io::Error>) -> Stream {
    // What is enough is not asked for more: a watch may have nothing to tell for long.
    let kept = futures::stream::unfold((stream, bytes), |(mut stream, left)| async move {
        if left == 0 {
            return None;
        }
        match stream.next().await? {
            Ok(mut piece) => {
                piece.truncate(left);
                let left = left - piece.len();
                Some((Ok(piece), (stream, left)))
            }
            Err(error) => Some((Err(error), (stream, 0))),
        }
    });
    match error {
        None => kept.boxed(),
        // A moment, so that what was sent is on its way before the connection is closed.
        Some(error) => kept
            .chain(futures::stream::once(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Err(error())
            }))
            .boxed(),
    }
}

/// A number that looks random, the same each time for a seed and a place.
pub(crate) fn dice(seed: u64, nth: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(nth.wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Faults of every kind for one request in eight, by the seed.
pub(crate) fn mixed(seed: u64, asked: &Asked) -> Option<Fault> {
    let thrown = dice(seed, asked.nth);
    if !thrown.is_multiple_of(8) {
        return None;
    }
    let bytes = usize::try_from(thrown >> 20 & 0x1ff).unwrap_or_default();
    Some(match (thrown >> 8) % 9 {
        0 => Fault::Late(Duration::from_millis(thrown >> 40 & 0xff)),
        1 => Fault::Dropped,
        2 if !asked.is_watch() => Fault::AnswerLost,
        3 => Fault::Cut(bytes),
        4 if !asked.is_watch() => Fault::Short(bytes.min(40)),
        5 => Fault::Refused(429, Some(0)),
        6 => Fault::Refused(500, None),
        7 if asked.is_watch() => Fault::Expired,
        _ => Fault::Refused(503, None),
    })
}
