//! The one table from service codes to gRPC and HTTP.

use http::StatusCode;
use tonic::Code as Grpc;

use crate::service::Code;

/// What a service code is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The gRPC status code.
    pub grpc: Grpc,
    /// The HTTP status.
    pub http: StatusCode,
    /// The name of the code, as gRPC spells it; `code` of a problem document.
    pub name: &'static str,
    /// Last part of `type` of a problem document (RFC 9457 section 3.1.1).
    pub slug: &'static str,
    /// `title` of a problem document.
    pub title: &'static str,
}

/// What a code is on the wire.
///
/// `FailedPrecondition` is 409 and not 412, as the latter speaks of conditional request headers (RFC 9110 section
/// 15.5.13). 499 is nobody's standard but understood by most proxies, and never seen by the client that went away.
#[must_use]
pub fn row(code: Code) -> Row {
    let (grpc, http, name, slug, title) = match code {
        Code::InvalidArgument => {
            (Grpc::InvalidArgument, 400, "INVALID_ARGUMENT", "invalid-argument", "The request is wrong")
        }
        Code::NotFound => (Grpc::NotFound, 404, "NOT_FOUND", "not-found", "There is no such thing"),
        Code::AlreadyExists => (Grpc::AlreadyExists, 409, "ALREADY_EXISTS", "already-exists", "The name is in use"),
        Code::FailedPrecondition => (
            Grpc::FailedPrecondition,
            409,
            "FAILED_PRECONDITION",
            "failed-precondition",
            "The request does not fit the present state",
        ),
        Code::Unauthenticated => {
            (Grpc::Unauthenticated, 401, "UNAUTHENTICATED", "unauthenticated", "The caller is not known")
        }
        Code::PermissionDenied => {
            (Grpc::PermissionDenied, 403, "PERMISSION_DENIED", "permission-denied", "The caller may not do this")
        }
        Code::ResourceExhausted => {
            (Grpc::ResourceExhausted, 429, "RESOURCE_EXHAUSTED", "resource-exhausted", "A limit is reached")
        }
        Code::Unavailable => (Grpc::Unavailable, 503, "UNAVAILABLE", "unavailable", "Not available now"),
        Code::DeadlineExceeded => {
            (Grpc::DeadlineExceeded, 504, "DEADLINE_EXCEEDED", "deadline-exceeded", "No answer in time")
        }
        Code::Cancelled => (Grpc::Cancelled, 499, "CANCELLED", "cancelled", "Cancelled"),
        Code::Unimplemented => (Grpc::Unimplemented, 501, "UNIMPLEMENTED", "unimplemented", "This cannot be done here"),
        Code::Internal => (Grpc::Internal, 500, "INTERNAL", "internal", "A fault of the service"),
    };
    let http = StatusCode::from_u16(http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Row { grpc, http, name, slug, title }
}

/// The service code of a gRPC status code: what a client of ours makes of an answer.
#[must_use]
pub const fn from_grpc(code: Grpc) -> Code {
    match code {
        Grpc::InvalidArgument | Grpc::OutOfRange => Code::InvalidArgument,
        Grpc::NotFound => Code::NotFound,
        Grpc::AlreadyExists => Code::AlreadyExists,
        Grpc::FailedPrecondition | Grpc::Aborted => Code::FailedPrecondition,
        Grpc::Unauthenticated => Code::Unauthenticated,
        Grpc::PermissionDenied => Code::PermissionDenied,
        Grpc::ResourceExhausted => Code::ResourceExhausted,
        Grpc::Unavailable => Code::Unavailable,
        Grpc::DeadlineExceeded => Code::DeadlineExceeded,
        Grpc::Cancelled => Code::Cancelled,
        Grpc::Unimplemented => Code::Unimplemented,
        Grpc::Ok | Grpc::Unknown | Grpc::Internal | Grpc::DataLoss => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_row_of_its_own_and_comes_back_from_grpc() {
        let mut slugs = BTreeSet::new();
        for code in Code::ALL {
            let row = row(code);
            assert_eq!(from_grpc(row.grpc), code);
            assert!(row.http.is_client_error() || row.http.is_server_error(), "{code:?}");
            assert_eq!(row.name.to_lowercase().replace('_', "-"), row.slug);
            assert!(!row.title.is_empty() && slugs.insert(row.slug), "{code:?}");
        }
    }

    #[test]
    fn a_fault_of_the_caller_is_4xx_and_one_of_ours_is_5xx() {
        let ours = [Code::Unavailable, Code::DeadlineExceeded, Code::Unimplemented, Code::Internal];
        for code in Code::ALL {
            assert_eq!(row(code).http.is_server_error(), ours.contains(&code), "{code:?}");
        }
    }
}
