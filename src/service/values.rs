//! What the façade takes and gives: plain values, converted by each door into its own form.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
pub use crate::model::ItemFilter;
use crate::model::{ItemState, Phase, Progress, RestoreName, TypedFinding};

/// A restore to be created.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateRestore {
    /// Its name.
    pub name: RestoreName,
    /// The namespace the caller named, where it did; must be the one the service works in.
    pub namespace: Option<String>,
    /// A text of the caller's that makes repeating the call harmless.
    pub request_id: Option<RequestId>,
    /// `spec` of the Restore, in Velero's own JSON form.
    pub spec: Value,
    /// Labels of the Restore object.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Restore object.
    pub annotations: BTreeMap<String, String>,
}

/// A text of the caller's that makes repeating a call harmless: 1 to 256 bytes, no control characters.
///
/// ```
/// use reprise::service::RequestId;
/// assert!(RequestId::new("6f1c").is_ok());
/// for refused in ["", "two\nlines", &"x".repeat(257)] {
///     assert!(RequestId::new(refused).is_err(), "{refused}");
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Longest request id in bytes: long enough for two UUIDs and a path, short enough for an annotation.
    pub const MAX: usize = 256;

    /// Checks a request id.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        if text.is_empty() || text.len() > Self::MAX || text.chars().any(char::is_control) {
            let message = format!("requestId must have 1 to {} bytes and no control characters", Self::MAX);
            return Err(Error::invalid("requestId", message));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A Restore and its progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreView {
    /// Name of the Restore.
    pub name: String,
    /// Namespace of the Restore, Velero's own.
    pub namespace: String,
    /// UID of the Restore.
    pub uid: String,
    /// Name of the backup; empty until a schedule is resolved.
    pub backup_name: String,
    /// `spec`, in Velero's own JSON form.
    pub spec: Value,
    /// Labels of the Restore object.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Restore object.
    pub annotations: BTreeMap<String, String>,
    /// Phase.
    pub phase: Phase,
    /// What is wrong with the specification; only with phase `FailedValidation`.
    pub validation_errors: Vec<String>,
    /// Why it failed; only with phase `Failed`.
    pub failure_reason: Option<String>,
    /// Warnings.
    pub warnings: u64,
    /// Errors.
    pub errors: u64,
    /// When the Restore was created.
    pub created_at: Option<Timestamp>,
    /// When the run began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Where it stands.
    pub progress: Arc<Progress>,
    /// Its place in the queue, from 1; absent when it does not wait.
    pub queue_position: Option<u32>,
    /// Whether the cluster is the in-memory sandbox.
    pub sandbox: bool,
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// The state at the begin of the stream; one for each restore when all are watched.
    Snapshot(Box<RestoreView>),
    /// The newest progress; intermediate values may be left out.
    Progress {
        /// The restore.
        name: Arc<str>,
        /// Its progress.
        progress: Arc<Progress>,
    },
    /// An item changed its outcome.
    Item {
        /// The restore.
        name: Arc<str>,
        /// Number of this event; a watch resumes after it.
        sequence: u64,
        /// The item.
        item: Arc<ItemState>,
    },
    /// Items between these sequence numbers were not sent, as the reader was too slow or came back too late.
    Gap {
        /// The restore.
        name: Arc<str>,
        /// First sequence number that is missing.
        from: u64,
        /// Last sequence number that is missing.
        to: u64,
    },
    /// The restore is in a terminal phase; the last event of its stream.
    Ended(Box<RestoreView>),
    /// A Restore was deleted; the last event of its stream.
    Deleted {
        /// The restore.
        name: Arc<str>,
    },
    /// The service goes down; the client may come back after the last sequence number it saw.
    ShuttingDown,
}

/// Which page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// At most so many; 0 for the default of 100, never more than 1,000.
    pub size: u32,
    /// `next_page_token` of the page before; empty for the first.
    pub token: String,
}

impl PageRequest {
    /// Size of a page when none is asked for.
    pub const DEFAULT_SIZE: u32 = 100;
    /// Largest page: at about 300 bytes an item, an answer of some 300 kB.
    pub const MAX_SIZE: u32 = 1_000;

    /// Checks what a caller asked for.
    pub fn new(size: u32, token: impl Into<String>) -> Result<Self, Error> {
        if size > Self::MAX_SIZE {
            let message = format!("pageSize {size} is too large: at most {}", Self::MAX_SIZE);
            return Err(Error::invalid("pageSize", message));
        }
        Ok(Self { size, token: token.into() })
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The elements.
    pub elements: Vec<T>,
    /// Token of the next page; empty after the last.
    pub next_page_token: String,
}

/// A page of items.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundItems {
    /// The items of this page.
    pub page: Page<ItemState>,
    /// How many items match in all.
    pub matching: u64,
}

/// Warnings and errors of a restore.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestoreResults {
    /// The warnings that are kept.
    pub warnings: Vec<TypedFinding>,
    /// The errors that are kept.
    pub errors: Vec<TypedFinding>,
    /// Whether the restore is over, so that nothing is added any more.
    pub complete: bool,
}

/// One line of a restore's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The line, without its newline.
    pub text: String,
}
