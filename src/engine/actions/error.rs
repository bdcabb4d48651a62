//! Why an action gave up on an item.

use crate::engine::ports::ApiError;
use crate::model::Reason;

/// An item that an action cannot handle; it is not created (restore-semantics 5.5 step 3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field of the item has a wrong type.
    #[error("cannot convert the item: {path} is {found}, want {want}")]
    Convert {
        /// Path of the field, such as `spec.containers[0].image`.
        path: String,
        /// What it is, such as `a string`.
        found: &'static str,
        /// What it should be.
        want: &'static str,
    },
    /// A field that must be there is not.
    #[error("the item has no {path}, which {purpose} needs")]
    Missing {
        /// Path of the field.
        path: String,
        /// What needs it.
        purpose: &'static str,
    },
    /// A text inside the item, such as an annotation, does not parse.
    #[error("cannot read {what}: {message}")]
    Unreadable {
        /// Which text.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// More than one ConfigMap configures an action (restore-semantics 7.0).
    #[error(
        "found more than one ConfigMap matching label selector \"velero.io/plugin-config,{action}=RestoreItemAction\": \
         [{}]",
        names.join(" ")
    )]
    AmbiguousConfig {
        /// The action.
        action: String,
        /// The ConfigMaps.
        names: Vec<String>,
    },
    /// The ConfigMaps that configure actions could not be listed when the restore began.
    #[error("cannot list the plugin configuration of {action}: {message}")]
    ConfigUnavailable {
        /// The action.
        action: String,
        /// The API server's message.
        message: String,
        /// The typed reason.
        reason: Reason,
    },
    /// The configuration of an action cannot be used.
    #[error("cannot use the plugin configuration of {action}: {message}")]
    InvalidConfig {
        /// The action.
        action: &'static str,
        /// What is wrong with it, and the way out.
        message: String,
    },
    /// The StorageClass that a claim, volume or template is changed to could not be read.
    #[error("error getting storage class {name} from API: {message}")]
    StorageClass {
        /// The StorageClass.
        name: String,
        /// The API server's message.
        message: String,
        /// The typed reason.
        reason: Reason,
    },
    /// An API request that the action needs failed.
    #[error("cannot {what}: {message}")]
    Api {
        /// What was tried, such as `get serviceaccount default`.
        what: String,
        /// The API server's message.
        message: String,
        /// The typed reason.
        reason: Reason,
    },
    /// A hook of the restore's specification is wrong.
    #[error("hook {hook:?}: {message}")]
    Hook {
        /// Name of the hook.
        hook: String,
        /// What is wrong with it.
        message: String,
    },
    /// The data of this claim was moved to the backup storage, and nobody would follow the operation that moves it back.
    #[error(
        "the data of this claim was moved into the backup storage (data upload {data_upload}); moving it back goes on \
         after the items are restored, which needs a Restore object: restore this claim through a service \
         (`reprise serve`), or set restorePVs to false for an empty volume"
    )]
    NoDataMover {
        /// Name of the DataUpload.
        data_upload: String,
    },
}

/// The name of [`Error`] beside other errors.
pub type ActionError = Error;

impl Error {
    /// A failed request.
    pub(super) fn api(what: impl Into<String>, error: &ApiError) -> Self {
        Self::Api { what: what.into(), message: error.message.clone(), reason: error.typed_reason() }
    }

    /// The same error, met inside the field at `prefix`.
    #[must_use]
    pub(crate) fn within(self, prefix: &str) -> Self {
        let join = |path: String| if path.is_empty() { prefix.to_owned() } else { format!("{prefix}.{path}") };
        match self {
            Self::Convert { path, found, want } => Self::Convert { path: join(path), found, want },
            Self::Missing { path, purpose } => Self::Missing { path: join(path), purpose },
            other => other,
        }
    }

    /// The typed reason of the item's failure.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::StorageClass { reason, .. } | Self::Api { reason, .. } | Self::ConfigUnavailable { reason, .. } => {
                *reason
            }
            Self::NoDataMover { .. } => Reason::Volume,
            _ => Reason::ItemAction,
        }
    }
}
