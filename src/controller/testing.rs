//! Velero's objects behind a client whose answers a test makes up.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use super::Records;

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Resource, and name where there is one: what follows the namespace.
    pub(super) path: String,
    pub(super) query: String,
    pub(super) body: Value,
}

/// What came, in order.
pub(super) type Log = Arc<Mutex<Vec<Asked>>>;

/// The objects of namespace `velero` behind this server.
pub(super) fn records(answer: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> (Records, Log) {
    let (log, answer) = (Log::default(), Arc::new(answer));
    let seen = Arc::clone(&log);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let path = parts.uri.path().rsplit_once("/namespaces/velero/").map_or("", |(_, path)| path).to_owned();
            let asked = Asked {
                method: parts.method,
                path,
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let (code, mut body) = answer(&asked);
            if code >= 400 {
                body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "reason": if code == 404 { "NotFound" } else { "Test" }, "message": body});
            }
            seen.lock().unwrap().push(asked);
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            response.map_err(std::io::Error::other)
        }
    });
    (Records::new(kube::Client::new(service, "velero"), "velero"), log)
}

/// The answer of a server that has these objects; `plural/name` finds one, `plural` lists them.
pub(super) fn serving(objects: &[Value]) -> impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static {
    let objects = objects.to_vec();
    move |asked| {
        let plural_of = |object: &Value| format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
        match asked.path.split_once('/') {
            Some((plural, name)) => {
                let is_it = |object: &&Value| plural_of(object) == plural && object["metadata"]["name"] == name;
                match objects.iter().find(is_it) {
                    Some(object) => (200, object.clone()),
                    None => (404, json!(format!("{plural} {name:?} not found"))),
                }
            }
            None => {
                let items: Vec<&Value> = objects.iter().filter(|object| plural_of(object) == asked.path).collect();
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
        }
    }
}

/// A Backup in location `default`.
pub(super) fn backup(name: &str, status: &Value) -> Value {
    json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": name, "namespace": "velero"},
        "spec": {"storageLocation": "default"}, "status": status})
}

/// The location `default`.
pub(super) fn location(phase: &str) -> Value {
    json!({"apiVersion": "velero.io/v1", "kind": "BackupStorageLocation",
        "metadata": {"name": "default", "namespace": "velero"},
        "spec": {"provider": "aws", "objectStorage": {"bucket": "b"}, "accessMode": "ReadWrite"},
        "status": {"phase": phase}})
}
