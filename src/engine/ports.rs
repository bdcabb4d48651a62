//! What the engine needs from outside: a cluster to restore into.

pub mod exec;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;

use super::discovery::Discovery;
use crate::model::fault::{self, Ending, Fault};
use crate::model::{Reason, Target};

/// The cluster a backup is restored into.
///
/// Implementations retry nothing on their own; they classify ([`ApiError::is_retryable`]) and the engine decides.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// What the API server serves. `refresh` asks it anew, otherwise a recent answer may be given.
    ///
    /// A broken aggregated API leaves its group out; only a failure of the whole is an error.
    async fn discovery(&self, refresh: bool) -> Result<Arc<Discovery>, ApiError>;

    /// The object of this name, or `None` where there is none (404).
    async fn get(&self, target: &Target, name: &str) -> Result<Option<Value>, ApiError>;

    /// All objects of the target's resource and namespace that match a label selector (empty for all).
    async fn list(&self, target: &Target, label_selector: &str) -> Result<Vec<Value>, ApiError>;

    /// Creates the object, and returns it as the API server stored it.
    async fn create(&self, target: &Target, object: &Value) -> Result<Value, ApiError>;

    /// Patches the object by a JSON merge patch (RFC 7386), without a precondition.
    async fn merge_patch(&self, target: &Target, name: &str, patch: &Value) -> Result<Value, ApiError>;

    /// Deletes the object; one that is not there is deleted already.
    async fn delete(&self, target: &Target, name: &str) -> Result<(), ApiError>;

    /// Deletes all objects of the target's resource and namespace that match a label selector.
    async fn delete_collection(&self, target: &Target, label_selector: &str) -> Result<(), ApiError>;

    /// Replaces the object's `/status`; `object` carries the resourceVersion it is based on.
    async fn replace_status(&self, target: &Target, name: &str, object: &Value) -> Result<Value, ApiError>;

    /// The OpenAPI v3 document of one group version, which has the schemas of its kinds.
    async fn openapi(&self, group: &str, version: &str) -> Result<Value, ApiError>;

    /// The object of this name, or every object of the target where `name` is `None`: first as they are now, then
    /// each change. A named object that does not exist begins with [`Change::Gone`].
    ///
    /// Transient watch failures are repaired inside; an error tells of one, and the stream goes on.
    fn watch<'a>(&'a self, target: &Target, name: Option<&str>) -> BoxStream<'a, Result<Change, ApiError>>;

    /// Every object of the target that matches a label selector, as [`Self::watch`] tells them. Where the selector is not
    /// supported, others may be told as well.
    fn watch_selected<'a>(&'a self, target: &Target, _label_selector: &str) -> BoxStream<'a, Result<Change, ApiError>> {
        self.watch(target, None)
    }
}

/// A cluster that tells what a write would come to, and keeps nothing of it (`dryRun=All`).
#[async_trait]
pub trait DryRun: Cluster {
    /// As [`Cluster::create`], with all of the API server's checks and defaults, and without an object in the end.
    async fn create_dry_run(&self, target: &Target, object: &Value) -> Result<Value, ApiError>;

    /// As [`Cluster::merge_patch`], without a change in the end.
    async fn merge_patch_dry_run(&self, target: &Target, name: &str, patch: &Value) -> Result<Value, ApiError>;

    /// Whether the service itself may use this verb on objects of the target (a SelfSubjectAccessReview).
    async fn may(&self, verb: &str, target: &Target) -> Result<bool, ApiError>;
}

/// One step of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is there, and looks like this.
    Is(Value),
    /// The object of this name is not there, or no longer.
    Gone(String),
}

/// What kind of failure an API request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiErrorKind {
    /// The API server answered with a Status.
    Status,
    /// No answer in time.
    Timeout,
    /// The connection failed or broke.
    Connection,
    /// The answer could not be understood, or the request could not be built.
    Protocol,
}

/// An API request that failed; prints as the API server's own message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// What kind of failure.
    pub kind: ApiErrorKind,
    /// HTTP status code; 0 without an answer.
    pub code: u16,
    /// `reason` of the Status, such as `AlreadyExists`.
    pub reason: String,
    /// The message.
    pub message: String,
    /// Messages of `details.causes`.
    pub causes: Vec<String>,
    /// How long the API server asks to wait (`Retry-After`, or `details.retryAfterSeconds`).
    pub retry_after: Option<Duration>,
}

impl std::error::Error for ApiError {}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ApiError {
    /// An answer with this code, reason and message.
    #[must_use]
    pub fn status(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: ApiErrorKind::Status,
            code,
            reason: reason.to_owned(),
            message: message.into(),
            causes: Vec::new(),
            retry_after: None,
        }
    }

    /// A failure without an answer.
    #[must_use]
    pub fn transport(kind: ApiErrorKind, message: impl Into<String>) -> Self {
        Self { kind, code: 0, reason: String::new(), message: message.into(), causes: Vec::new(), retry_after: None }
    }

    /// The object, or the kind, is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// An object of this name is there already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.code == 409 && self.reason == "AlreadyExists"
    }

    /// Somebody else wrote in between.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    /// What it is, by the one rule for all failures ([`fault::classify`]).
    #[must_use]
    pub fn fault(&self) -> Fault {
        let ending = match self.kind {
            ApiErrorKind::Status => Ending::Answer,
            ApiErrorKind::Timeout => Ending::Timeout,
            ApiErrorKind::Connection => Ending::Connection,
            ApiErrorKind::Protocol => Ending::Protocol,
        };
        fault::classify(ending, self.code, &self.reason, &self.message)
    }

    /// Whether the same request may succeed later: too many requests, server trouble, timeouts, lost connections.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.fault().lasting.may_pass()
    }

    /// The typed reason that an item's failure with this error has.
    #[must_use]
    pub fn typed_reason(&self) -> Reason {
        self.fault().reason
    }
}
