//! A client that cannot write: in observe mode nothing in this process can change the cluster, whatever it tries.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tower::service_fn;

/// A client of the same API that lets through what reads, and answers the rest itself with 403.
pub(super) fn read_only(inner: &Client) -> Client {
    let (inner, namespace) = (inner.clone(), inner.default_namespace().to_owned());
    let service = service_fn(move |request: Request<Body>| {
        let inner = inner.clone();
        async move {
            if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
                return inner.send(request).await;
            }
            tracing::error!(method = %request.method(), path = request.uri().path(), "a write was kept back: this server only observes");
            Ok(refusal())
        }
    });
    Client::new(service, namespace)
}

fn refusal() -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": "this server only observes and writes nothing: start it without --observe to restore with it",
    });
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{DeleteParams, Patch, PatchParams, PostParams};

    use super::*;
    use crate::sandbox::{Options, Sandbox};

    #[tokio::test]
    async fn what_reads_goes_through_and_what_writes_is_kept_back() {
        let sandbox = Sandbox::try_new(Options::default()).unwrap();
        let client = read_only(&sandbox.client());
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap();
        let theirs: Api<ConfigMap> = Api::namespaced(sandbox.client(), "default");
        theirs.create(&PostParams::default(), &map).await.unwrap();

        assert_eq!(maps.list(&kube::api::ListParams::default()).await.unwrap().items.len(), 1);
        let patch = Patch::Merge(json!({"data": {"a": "b"}}));
        let refused = [
            maps.create(&PostParams::default(), &map).await.err(),
            maps.replace("m", &PostParams::default(), &map).await.err(),
            maps.patch("m", &PatchParams::default(), &patch).await.err(),
            maps.delete("m", &DeleteParams::default()).await.err(),
        ];
        for error in refused {
            match error.unwrap() {
                kube::Error::Api(status) => {
                    assert_eq!(status.code, 403);
                    assert!(status.message.contains("only observes"), "{}", status.message);
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(theirs.get("m").await.unwrap().data, None);
    }
}
