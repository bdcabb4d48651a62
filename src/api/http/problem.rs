//! Failures as problem documents (RFC 9457).

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::code;
use crate::service::{Code, Error};

/// The document itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// Which kind of problem, as `urn:reprise:problem:` and a word.
    r#type: String,
    /// The same in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What went wrong, with the name of the thing and the way out.
    detail: String,
    /// The path of the request.
    instance: String,
    /// The same as a gRPC code, such as `NOT_FOUND`.
    code: String,
    /// The field, parameter or header of the request that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Everything that is wrong, where it is more than one thing: the validation errors of a Restore.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<String>,
}

/// A failure on its way to the client. The router adds the path.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    code: &'static str,
    error: Error,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let row = code::row(error.code);
        Self { status: row.http, slug: row.slug, title: row.title, code: row.name, error }
    }
}

impl Problem {
    /// A problem of HTTP itself, which gRPC does not have.
    fn of_http(status: StatusCode, slug: &'static str, title: &'static str, error: Error) -> Self {
        Self { status, slug, title, ..Self::from(error) }
    }

    pub(super) fn no_such_path() -> Self {
        let message = "there is nothing at this path: /api/v1 lists what there is";
        Self::of_http(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "There is nothing at this path",
            Error::new(Code::NotFound, message),
        )
    }

    pub(super) fn wrong_method() -> Self {
        let message = "this path does not take this method: the header Allow lists those it takes";
        Self::of_http(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "The path does not take this method",
            Error::new(Code::Unimplemented, message),
        )
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body is too large: at most {limit} bytes");
        Self::of_http(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The body is too large",
            Error::new(Code::ResourceExhausted, message),
        )
    }

    pub(super) fn wrong_content_type(got: &str) -> Self {
        let message = format!("content type {got:?} is not taken: send application/json or application/yaml");
        let error = Error { field: Some("Content-Type".to_owned()), ..Error::new(Code::InvalidArgument, message) };
        Self::of_http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The content type is wrong", error)
    }

    /// The document alone, for a stream that has begun.
    pub(super) fn document(&self, instance: &str) -> ProblemBody {
        ProblemBody {
            r#type: format!("urn:reprise:problem:{}", self.slug),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.error.message.clone(),
            instance: instance.to_owned(),
            code: self.code.to_owned(),
            field: self.error.field.clone(),
            violations: self.error.violations.clone(),
        }
    }

    /// The answer to a request for this path. A fault of ours is logged here, where it is handled.
    pub(super) fn render(self, instance: &str) -> Response {
        if self.error.code == Code::Internal {
            tracing::error!(error = %self.error, "request failed");
        }
        let document = self.document(instance);
        let text = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        if self.error.code == Code::Unavailable || self.error.code == Code::ResourceExhausted && self.status != 413 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
