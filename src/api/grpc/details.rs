//! Failures of the façade as gRPC statuses, with `google.rpc.BadRequest` where a field is wrong.

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

use self::rpc::BadRequest;
use self::rpc::bad_request::FieldViolation;
use crate::api::code;
use crate::service::{Code, Error};

const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// The messages generated from `proto/google/rpc/error_details.proto`.
#[allow(missing_docs, unreachable_pub, rustdoc::all, clippy::all, reason = "generated code")]
mod rpc {
    tonic::include_proto!("google.rpc");
}

/// The gRPC status of a failure. A fault of ours is logged here, where it is handled.
#[must_use]
pub fn status(error: Error) -> Status {
    let code = code::row(error.code).grpc;
    if error.code == Code::Internal {
        tracing::error!(error = %error, "call failed");
    }
    let Some(field) = error.field else {
        return Status::new(code, error.message);
    };
    let violation = |description: &String| FieldViolation { field: field.clone(), description: description.clone() };
    let violations = match error.violations.as_slice() {
        [] => vec![violation(&error.message)],
        all => all.iter().map(violation).collect(),
    };
    let bad_request = BadRequest { field_violations: violations };
    let detail = prost_types::Any { type_url: BAD_REQUEST.to_owned(), value: bad_request.encode_to_vec() };
    let whole = rpc::Status { code: code.into(), message: error.message.clone(), details: vec![detail] };
    Status::with_details(code, error.message, Bytes::from(whole.encode_to_vec()))
}

/// The field a status names as wrong, if it does: for clients.
#[must_use]
pub fn field_of(status: &Status) -> Option<String> {
    violations(status).into_iter().next().map(|violation| violation.field)
}

/// Everything a status names as wrong: for clients.
#[must_use]
pub fn violations_of(status: &Status) -> Vec<String> {
    violations(status).into_iter().map(|violation| violation.description).collect()
}

fn violations(status: &Status) -> Vec<FieldViolation> {
    let bad_request = || {
        let whole = rpc::Status::decode(status.details()).ok()?;
        let detail = whole.details.into_iter().find(|detail| detail.type_url == BAD_REQUEST)?;
        BadRequest::decode(detail.value.as_slice()).ok()
    };
    bad_request().map(|found| found.field_violations).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named_in_the_details() {
        let status = status(Error::invalid("spec.backupName", "no backup"));
        assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, "no backup"));
        assert_eq!(field_of(&status).as_deref(), Some("spec.backupName"));
    }

    #[test]
    fn every_validation_error_is_in_the_details() {
        let status = status(Error::invalid_spec(Code::InvalidArgument, vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(status.message(), "the restore is not valid: one; two");
        assert_eq!(
            (field_of(&status).as_deref(), violations_of(&status)),
            (Some("spec"), vec!["one".into(), "two".into()])
        );
    }

    #[test]
    fn every_code_becomes_the_status_of_the_table() {
        for code in Code::ALL {
            let status = status(Error::new(code, "because"));
            assert_eq!((status.code(), status.message()), (code::row(code).grpc, "because"));
            assert_eq!(field_of(&status), None);
        }
    }
}
