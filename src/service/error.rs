//! The closed set of codes that a call can fail with.

/// What kind of failure a call met. Each has one gRPC and one HTTP status, in `api::code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is wrong and will stay wrong.
    InvalidArgument,
    /// There is no such restore, backup or item.
    NotFound,
    /// There is a restore of this name already.
    AlreadyExists,
    /// The request does not fit the state the restore is in.
    FailedPrecondition,
    /// The caller is not known.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// A limit is reached; later it may work.
    ResourceExhausted,
    /// The cluster or the storage cannot be reached now.
    Unavailable,
    /// No answer in time.
    DeadlineExceeded,
    /// The caller went away, or the restore was cancelled.
    Cancelled,
    /// This cannot be done by this build or set-up.
    Unimplemented,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 12] = [
        Self::InvalidArgument,
        Self::NotFound,
        Self::AlreadyExists,
        Self::FailedPrecondition,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Unimplemented,
        Self::Internal,
    ];
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// What went wrong, with the name of the thing and the way out.
    pub message: String,
    /// The field of the request that is wrong, where it is one.
    pub field: Option<String>,
    /// Everything that is wrong, where it is more than the message says: the validation errors of a Restore.
    pub violations: Vec<String>,
}

impl Error {
    /// A failure with this code and message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, violations: Vec::new() }
    }

    /// A name of a request that is no Kubernetes name.
    #[must_use]
    pub fn invalid_name(error: &crate::model::InvalidName) -> Self {
        Self::invalid("name", error.to_string())
    }

    /// A text of a cancellation that does not fit.
    #[must_use]
    pub fn invalid_cancellation(error: &crate::model::InvalidCancellation) -> Self {
        Self::invalid(error.field, error.to_string())
    }

    /// A wrong field of a request.
    #[must_use]
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self { field: Some(field.to_owned()), ..Self::new(Code::InvalidArgument, message) }
    }

    /// A specification with these validation errors, of which there is at least one.
    #[must_use]
    pub fn invalid_spec(code: Code, violations: Vec<String>) -> Self {
        let message = format!("the restore is not valid: {}", violations.join("; "));
        Self { field: Some("spec".to_owned()), violations, ..Self::new(code, message) }
    }
}
