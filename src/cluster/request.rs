//! One request: its path, its sending, and what its failure means.

use std::time::Duration;

use http::{Method, Request, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use crate::engine::ports::{ApiError, ApiErrorKind};
use crate::model::Target;

/// How long one request may take. The API server ends ordinary requests after 60 s
/// (`--request-timeout`); a little more lets its own answer arrive first.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);

/// Form of a request body.
#[derive(Clone, Copy, Debug)]
pub(super) enum ContentType {
    /// A whole object.
    Json,
    /// RFC 7386.
    MergePatch,
}

impl ContentType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MergePatch => "application/merge-patch+json",
        }
    }
}

/// `/api/v1/namespaces/ns/pods/name/status?query`, with everything from outside percent-encoded.
pub(super) fn path_of(
    target: &Target,
    name: Option<&str>,
    subresource: Option<&str>,
    query: &[(&str, &str)],
) -> String {
    let mut path = if target.group.is_empty() {
        format!("/api/{}", encode(&target.version))
    } else {
        format!("/apis/{}/{}", encode(&target.group), encode(&target.version))
    };
    if let Some(namespace) = &target.namespace {
        path.push_str("/namespaces/");
        path.push_str(&encode(namespace));
    }
    for segment in [Some(target.resource.as_str()), name, subresource].into_iter().flatten() {
        path.push('/');
        path.push_str(&encode(segment));
    }
    for (index, (key, value)) in query.iter().enumerate() {
        path.push(if index == 0 { '?' } else { '&' });
        path.push_str(key);
        path.push('=');
        path.push_str(&encode(value));
    }
    path
}

/// `/openapi/v3/apis/apps/v1`, or `/openapi/v3/api/v1` for the core group.
pub(super) fn openapi_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("/openapi/v3/api/{}", encode(version)),
        group => format!("/openapi/v3/apis/{}/{}", encode(group), encode(version)),
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters. A segment of dots only is encoded too, lest it be
/// taken for a step up.
fn encode(text: &str) -> String {
    let only_dots = text.bytes().all(|byte| byte == b'.');
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
        if unreserved || (byte == b'.' && !only_dots) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Sends one request and decodes the answer.
pub(super) async fn send(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<(ContentType, &Value)>,
) -> Result<Value, ApiError> {
    let mut request = Request::builder().method(method.clone()).uri(path).header(header::ACCEPT, "application/json");
    let bytes = match body {
        Some((content_type, value)) => {
            request = request.header(header::CONTENT_TYPE, content_type.as_str());
            serde_json::to_vec(value).map_err(|error| protocol(&method, path, &error))?
        }
        None => Vec::new(),
    };
    let request = request.body(Body::from(bytes)).map_err(|error| protocol(&method, path, &error))?;
    match tokio::time::timeout(REQUEST_TIMEOUT, answer(client, request, &method, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::transport(
            ApiErrorKind::Timeout,
            format!("{method} {path}: no answer within {} seconds", REQUEST_TIMEOUT.as_secs()),
        )),
    }
}

async fn answer(client: &Client, request: Request<Body>, method: &Method, path: &str) -> Result<Value, ApiError> {
    let response = client.send(request).await.map_err(|error| transport(method, path, &error))?;
    let (parts, body) = response.into_parts();
    let retry_after = parts
        .headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    let bytes = body.collect().await.map_err(|error| transport(method, path, &error))?.to_bytes();
    if parts.status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|error| undecodable(method, path, &error));
    }
    Err(failure(parts.status.as_u16(), &bytes, retry_after))
}

/// What a `Status` answer says; a body that is no Status (a proxy's page) is kept as text.
fn failure(code: u16, body: &[u8], retry_after: Option<Duration>) -> ApiError {
    let status: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let message = match text("message") {
        message if message.is_empty() => plain_message(code, body),
        message => message,
    };
    let causes = status.pointer("/details/causes").and_then(Value::as_array).map_or_else(Vec::new, |causes| {
        causes.iter().filter_map(|cause| cause.get("message")?.as_str().map(str::to_owned)).collect()
    });
    let asked = status.pointer("/details/retryAfterSeconds").and_then(Value::as_u64).map(Duration::from_secs);
    ApiError {
        kind: ApiErrorKind::Status,
        code,
        reason: text("reason"),
        message,
        causes,
        retry_after: retry_after.or(asked),
    }
}

fn plain_message(code: u16, body: &[u8]) -> String {
    if code == 404 {
        // What client-go makes of a path that is not served, and so what Velero's results say.
        return "the server could not find the requested resource".to_owned();
    }
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().take(200).collect();
    if text.is_empty() { format!("the server answered {code}") } else { text }
}

pub(super) fn protocol(method: &Method, path: &str, error: &dyn std::error::Error) -> ApiError {
    ApiError::transport(ApiErrorKind::Protocol, format!("{method} {path}: {error}"))
}

/// A good answer that cannot be read. One that breaks off, as somebody between us and the API server may leave it, is a broken
/// connection: the next may be whole.
pub(super) fn undecodable(method: &Method, path: &str, error: &serde_json::Error) -> ApiError {
    let kind = if error.is_eof() { ApiErrorKind::Connection } else { ApiErrorKind::Protocol };
    ApiError::transport(kind, format!("{method} {path}: {error}"))
}

/// A failure below HTTP. kube's errors name only the outermost layer, so the innermost cause is told.
pub(super) fn transport(method: &Method, path: &str, error: &kube::Error) -> ApiError {
    ApiError::transport(ApiErrorKind::Connection, format!("{method} {path}: {}", innermost(error)))
}

/// The innermost cause of an error; the error itself where it has none.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_encodes_what_comes_from_the_backup() {
        let target = Target::new("apps", "v1", "deployments", "a/../b");
        assert_eq!(
            path_of(&target, Some("x?y"), None, &[("labelSelector", "a=b,c")]),
            "/apis/apps/v1/namespaces/a%2F..%2Fb/deployments/x%3Fy?labelSelector=a%3Db%2Cc"
        );
        assert_eq!(path_of(&Target::new("", "v1", "nodes", ""), Some(".."), None, &[]), "/api/v1/nodes/%2E%2E");
    }

    #[test]
    fn a_status_answer_keeps_its_reason_causes_and_retry_after() {
        let body = br#"{"kind":"Status","message":"slow down","reason":"TooManyRequests",
            "details":{"retryAfterSeconds":3,"causes":[{"message":"busy"}]}}"#;
        let error = failure(429, body, None);
        assert_eq!(error.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(error.causes, ["busy"]);
        assert!(error.is_retryable());
    }

    #[test]
    fn a_page_that_is_no_status_becomes_a_message() {
        assert_eq!(
            failure(404, b"404 page not found\n", None).message,
            "the server could not find the requested resource"
        );
        assert_eq!(failure(502, b"<html>bad gateway</html>", None).message, "<html>bad gateway</html>");
        assert_eq!(failure(500, b"", None).message, "the server answered 500");
    }

    #[test]
    fn a_good_answer_that_breaks_off_is_asked_for_again_and_one_that_is_no_json_is_not() {
        for (body, retried) in [(r#"{"metadata": {"na"#, true), ("", true), ("<html>", false)] {
            let error = serde_json::from_str::<Value>(body).unwrap_err();
            assert_eq!(undecodable(&Method::POST, "/api/v1/namespaces", &error).is_retryable(), retried, "{body}");
        }
    }
}
