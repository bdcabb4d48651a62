//! Clients that do something to requests on their way to the API.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::json;

/// What becomes of a request.
pub(super) enum Fate {
    /// It goes on.
    Pass,
    /// It goes on after a while.
    Late(Duration),
    /// It is answered with this code, and with these seconds to wait where there are any.
    Refused(u16, Option<u64>),
}

/// A client of the same API that asks what is to become of each request.
pub(super) fn tampered(
    inner: &kube::Client,
    fate: impl Fn(&Method, &str) -> Fate + Send + Sync + 'static,
) -> kube::Client {
    let (inner, fate) = (inner.clone(), Arc::new(fate));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, fate) = (inner.clone(), Arc::clone(&fate));
        async move {
            match fate(request.method(), request.uri().path()) {
                Fate::Pass => {}
                Fate::Late(pause) => tokio::time::sleep(pause).await,
                Fate::Refused(code, seconds) => return Ok(refusal(code, seconds)),
            }
            inner.send(request).await
        }
    });
    kube::Client::new(service, "default")
}

/// The answer of a server that has too much to do.
fn refusal(code: u16, seconds: Option<u64>) -> Response<Body> {
    let reason = if code == 429 { "TooManyRequests" } else { "ServiceUnavailable" };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("refused by the test with {code}"),
    });
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    if let Some(seconds) = seconds {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

/// Whether this request creates an object that is restored, and none of Velero's own.
pub(super) fn creates_item(method: &Method, path: &str) -> bool {
    method == Method::POST && !path.starts_with("/apis/velero.io/")
}

/// A client that takes so long for each item it creates.
pub(super) fn slow(inner: &kube::Client, pause: Duration) -> kube::Client {
    tampered(inner, move |method, path| if creates_item(method, path) { Fate::Late(pause) } else { Fate::Pass })
}

/// The paths of all requests that create something.
#[derive(Clone, Default)]
pub(super) struct Creates(Arc<Mutex<Vec<String>>>);

impl Creates {
    /// A client that writes them down.
    pub(super) fn counting(&self, inner: &kube::Client, pause: Duration) -> kube::Client {
        let seen = Arc::clone(&self.0);
        tampered(inner, move |method, path| {
            if !creates_item(method, path) {
                return Fate::Pass;
            }
            seen.lock().unwrap().push(path.to_owned());
            Fate::Late(pause)
        })
    }

    /// How many there were below this path.
    pub(super) fn of(&self, path: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|seen| *seen == path).count()
    }
}

/// A client of the same API that acts as this user, of no group but the authenticated ones.
pub(super) fn acting_as(inner: &kube::Client, user: &str) -> kube::Client {
    let (inner, user) = (inner.clone(), user.to_owned());
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (inner, user) = (inner.clone(), user.clone());
        async move {
            request.headers_mut().insert("impersonate-user", user.parse().unwrap());
            request.headers_mut().insert("impersonate-group", "system:authenticated".parse().unwrap());
            inner.send(request).await
        }
    });
    kube::Client::new(service, "default")
}
