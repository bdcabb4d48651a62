//! What can go wrong with object storage, by what it means to the caller.

use std::io;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};

use crate::model::fault::{self, Ending};

/// The error below, whatever it is.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, and with which key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such object.
    #[error("{key} is not in the backup location")]
    NotFound {
        /// The key.
        key: String,
        /// What the store said.
        #[source]
        source: Source,
    },
    /// The credentials are refused, or do not reach this far.
    #[error("the backup location denies access to {key}; check its credentials and their policy")]
    Denied {
        /// The key.
        key: String,
        /// What the store said.
        #[source]
        source: Source,
    },
    /// The store was not reached, or has a passing problem.
    #[error("the backup location failed on {key}, which may pass")]
    Transient {
        /// The key.
        key: String,
        /// What the store said.
        #[source]
        source: Source,
    },
    /// Nothing came for too long.
    #[error("the backup location sent nothing of {key} for {after:?}")]
    Timeout {
        /// The key.
        key: String,
        /// How long it was waited.
        after: Duration,
    },
    /// The location is described wrongly; only a change of its configuration helps.
    #[error("{0}")]
    Misconfigured(String),
    /// The configuration looks right, but the store or its client does not take it.
    #[error("the backup location does not work as configured ({key})")]
    Unusable {
        /// The key, or the setting.
        key: String,
        /// What the store said.
        #[source]
        source: Source,
    },
    /// An object is larger than what may be held in memory.
    #[error("{key} has more than {limit} bytes, which is no such file's size")]
    TooLarge {
        /// The key.
        key: String,
        /// The most it may have.
        limit: u64,
    },
    /// An object is there and is not what it should be.
    #[error("{key} is damaged")]
    Corrupt {
        /// The key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: Source,
    },
    /// The owner of the location said that nothing is written to it.
    #[error("{key} is neither written nor removed: the backup location is read-only (spec.accessMode)")]
    ReadOnly {
        /// The key.
        key: String,
    },
    /// Anything else.
    #[error("the backup location failed on {key}")]
    Other {
        /// The key.
        key: String,
        /// What the store said.
        #[source]
        source: Source,
    },
}

impl Error {
    /// Whether the same call may go well a moment later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Timeout { .. })
    }

    /// Whether the object is simply not there.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// What `error`, met with `key`, means.
    pub(super) fn of(key: &str, error: object_store::Error) -> Self {
        use object_store::Error as Lower;
        let key = key.to_owned();
        match error {
            // A missing bucket is a 404 too, and that is no missing file; Azure calls it a container.
            Lower::NotFound { .. } if mentions(&error, "NoSuchBucket") || mentions(&error, "ContainerNotFound") => {
                Self::Unusable { key, source: error.into() }
            }
            Lower::NotFound { .. } => Self::NotFound { key, source: error.into() },
            Lower::PermissionDenied { .. } | Lower::Unauthenticated { .. } => {
                Self::Denied { key, source: error.into() }
            }
            Lower::InvalidPath { .. }
            | Lower::NotSupported { .. }
            | Lower::NotImplemented { .. }
            | Lower::UnknownConfigurationKey { .. } => Self::Unusable { key, source: error.into() },
            _ => match nature(&error) {
                Nature::Passing => Self::Transient { key, source: error.into() },
                Nature::Denied => Self::Denied { key, source: error.into() },
                Nature::Unknown => Self::Other { key, source: error.into() },
            },
        }
    }
}

enum Nature {
    Passing,
    Denied,
    Unknown,
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn mentions(error: &object_store::Error, text: &str) -> bool {
    chain(error).any(|error| error.to_string().contains(text))
}

/// Looks through the chain for the part that decides, because the client keeps it below several wrappers.
fn nature(error: &object_store::Error) -> Nature {
    for error in chain(error) {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Connect
                | HttpErrorKind::Request
                | HttpErrorKind::Timeout
                | HttpErrorKind::Interrupted
                | HttpErrorKind::Decode => Nature::Passing, // a body that broke off is one that does not decode
                _ => Nature::Unknown,
            };
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::PermissionDenied => Nature::Denied,
                io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => Nature::Passing,
                _ => Nature::Unknown,
            };
        }
        // The client's error with the status code has a private type; its text begins with the code.
        let text = error.to_string();
        if let Some(status) = text.strip_prefix("Server returned non-2xx status code: ") {
            let code = status.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default();
            if fault::classify(Ending::Answer, code, "", "").lasting.may_pass() {
                return Nature::Passing;
            }
            // Of single objects the client says so itself; of a listing it does not.
            if status.starts_with("401") || status.starts_with("403") {
                return Nature::Denied;
            }
        }
        if text.starts_with("Server returned error response: ") {
            return Nature::Passing; // only InternalError and SlowDown end like this
        }
    }
    Nature::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Source>) -> Error {
        Error::of("k", object_store::Error::Generic { store: "test", source: source.into() })
    }

    #[test]
    fn errors_are_told_apart_by_meaning() {
        let path = || "k".to_owned();
        let denied = object_store::Error::PermissionDenied { path: path(), source: "403".into() };
        assert!(matches!(Error::of("k", denied), Error::Denied { .. }));
        let missing = || object_store::Error::NotFound { path: path(), source: "<Code>NoSuchKey</Code>".into() };
        assert!(Error::of("k", missing()).is_not_found());
        let bucket = object_store::Error::NotFound { path: path(), source: "<Code>NoSuchBucket</Code>".into() };
        assert!(matches!(Error::of("k", bucket), Error::Unusable { .. }));
    }

    #[test]
    fn server_errors_and_broken_connections_may_be_retried() {
        for text in [
            "Server returned non-2xx status code: 503 Service Unavailable: SlowDown",
            "Server returned non-2xx status code: 429 Too Many Requests: ",
            "Server returned error response: <Code>InternalError</Code>",
        ] {
            assert!(generic(text).is_retryable(), "{text}");
        }
        assert!(generic(io::Error::from(io::ErrorKind::ConnectionReset)).is_retryable());
        assert!(!generic("Server returned non-2xx status code: 400 Bad Request: ").is_retryable());
        let denied = generic("Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>");
        assert!(matches!(denied, Error::Denied { .. }));
        assert!(!generic(io::Error::from(io::ErrorKind::InvalidData)).is_retryable());
        assert!(matches!(generic(io::Error::from(io::ErrorKind::PermissionDenied)), Error::Denied { .. }));
    }

    #[test]
    fn the_message_names_the_key_and_leaves_the_cause_to_the_source() {
        let error = generic("secret cause");
        assert_eq!(error.to_string(), "the backup location failed on k");
        assert!(std::error::Error::source(&error).is_some());
    }
}
