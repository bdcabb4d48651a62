//! A stand-in for a kubelet: it serves `/exec` by the websocket remote command protocol, behind the real API server.
//!
//! The API server hands websockets through to kubelets that declare the feature `ExtendWebSocketsToKubelet` (1.36 and
//! newer), and would translate them to SPDY for others.

use std::fs;
use std::sync::{Arc, Mutex};

use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::ControlPlane;

/// Channels of the remote command protocol.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// The subprotocol in which either side can say that a channel has ended.
const PROTOCOL: &str = "v5.channel.k8s.io";

/// Bytes that the command `flood` writes.
pub(crate) const FLOOD: usize = 1 << 20;

type Commands = Arc<Mutex<Vec<String>>>;

/// A kubelet with a Node of its own. Commands are what they do: `say WORD`, `exit CODE`, `fail`, `vanish`, `flood` and `hang`.
pub(crate) struct Kubelet {
    node: String,
    client: kube::Client,
    commands: Commands,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    /// Listens, and tells the API server where.
    pub(crate) async fn start(cluster: &ControlPlane) -> Self {
        // The API server does not check the certificate of a kubelet unless it is told to, so its own will do.
        let pki = cluster.folder().join("pki");
        let certificate = fs::read(pki.join("apiserver.crt")).unwrap();
        let certificates = CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(&fs::read(pki.join("apiserver.key")).unwrap()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let commands = Commands::default();
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&commands)));
        let this =
            Self { node: format!("node-{}", super::random_suffix()), client: cluster.client().await, commands, task };
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": this.node},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
                "declaredFeatures": ["ExtendWebSocketsToKubelet"],
            },
        });
        this.send("POST", "/api/v1/nodes", &node).await;
        this
    }

    /// Puts a pod on this node, and says that its containers run, as a scheduler and a kubelet would.
    pub(crate) async fn run_pod(&self, namespace: &str, name: &str, containers: &[&str]) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.node},
        });
        self.send("POST", &format!("{path}/binding"), &binding).await;
        let status = |name: &&str| {
            json!({"name": name, "ready": true, "restartCount": 0, "image": "i", "imageID": "",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
        };
        let statuses: Vec<Value> = containers.iter().map(status).collect();
        let status = json!({"status": {"phase": "Running", "containerStatuses": statuses}});
        self.send("PATCH", &format!("{path}/status"), &status).await;
    }

    /// The commands that were run: subprotocol, namespace, pod, container and words.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.commands.lock().unwrap().clone()
    }

    /// Takes the Node away.
    pub(crate) async fn stop(self) {
        self.send("DELETE", &format!("/api/v1/nodes/{}", self.node), &json!({})).await;
    }

    async fn send(&self, method: &str, path: &str, body: &Value) {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, content_type);
        let request = request.body(serde_json::to_vec(body).unwrap()).unwrap();
        self.client.request::<Value>(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, commands: Commands) {
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        let (tls, commands) = (tls.clone(), Arc::clone(&commands));
        tokio::spawn(async move {
            let Ok(connection) = tls.accept(connection).await else { return };
            let service = hyper::service::service_fn(|request| {
                let answer = answer(request, &commands);
                async { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(connection), service)
                .with_upgrades();
            let _ = connection.await;
        });
    }
}

/// `/exec/NAMESPACE/POD/CONTAINER?command=…`
fn answer(mut request: Request<Incoming>, commands: &Commands) -> Response<Empty<bytes::Bytes>> {
    let text = |name: header::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (key, offered) = (text(header::SEC_WEBSOCKET_KEY), text(header::SEC_WEBSOCKET_PROTOCOL).unwrap_or_default());
    let place = request.uri().path().strip_prefix("/exec/");
    let (Some(place), Some(key), true) = (place, key, offered.split(", ").any(|one| one == PROTOCOL)) else {
        let mut refusal = Response::new(Empty::new());
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return refusal;
    };
    let query: Vec<(String, String)> = pairs(request.uri().query().unwrap_or_default()).collect();
    let words: Vec<String> = query.into_iter().filter(|(name, _)| name == "command").map(|(_, word)| word).collect();
    commands.lock().unwrap().push(format!("{PROTOCOL} {place}: {}", words.join(" ")));
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Empty::new())
        .unwrap();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            run(socket, &words).await;
        }
    });
    response
}

/// Names and values of a query.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let decode = |text: &str| {
        let mut bytes = text.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            decoded.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                byte => byte,
            });
        }
        String::from_utf8(decoded).unwrap()
    };
    query.split('&').filter_map(|pair| pair.split_once('=')).map(move |(name, value)| (decode(name), decode(value)))
}

async fn run(mut socket: WebSocketStream<TokioIo<Upgraded>>, words: &[String]) {
    let frame = |channel: u8, bytes: &[u8]| Message::binary([&[channel], bytes].concat());
    let failure = |reason: &str, message: String, code: &str| {
        json!({"status": "Failure", "reason": reason, "message": message,
            "details": {"causes": [{"reason": "ExitCode", "message": code}]}})
    };
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let status = match word(0) {
        "say" => {
            let _ = socket.send(frame(STDOUT, format!("{}\n", word(1)).as_bytes())).await;
            let _ = socket.send(frame(STDERR, b"beware\n")).await;
            json!({"metadata": {}, "status": "Success"})
        }
        "exit" => {
            let _ = socket.send(frame(STDERR, b"it went wrong\n")).await;
            failure("NonZeroExitCode", format!("command terminated with non-zero exit code {}", word(1)), word(1))
        }
        "fail" => json!({"status": "Failure", "reason": "InternalError", "message": "no such container runtime"}),
        "flood" => {
            for _ in 0..FLOOD / 4096 {
                let _ = socket.send(frame(STDOUT, &[b'x'; 4096])).await;
            }
            json!({"status": "Success"})
        }
        "hang" => {
            // Until the other side goes away.
            while let Some(Ok(_)) = socket.next().await {}
            return;
        }
        // Gone without a word.
        _ => return,
    };
    let _ = socket.send(frame(STATUS, status.to_string().as_bytes())).await;
    let _ = socket.close(None).await;
}
