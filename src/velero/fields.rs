//! How single fields are read and written, where serde's own way is not Velero's.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads `null` as the default, because a Go client may write a nil list, map or struct as `null`.
pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Writes a duration that is never left out: Go's `omitempty` does not hold for structs, so zero is `0s`.
#[allow(clippy::ptr_arg, reason = "serde hands over a reference to the field's own type")]
pub(super) fn duration<S: Serializer>(text: &String, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if text.is_empty() { "0s" } else { text })
}

/// Whether a count is left out when written.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
pub(super) fn is_zero(count: &i64) -> bool {
    *count == 0
}

/// Whether a flag is left out when written.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
pub(super) fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Bytes moved so far, as every data mover object reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataProgress {
    /// All bytes there are to move.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub total_bytes: i64,
    /// Bytes moved.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub bytes_done: i64,
}

/// What hooks have come to, in the status of a Backup or a Restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HookStatus {
    /// Hooks tried, whether they went well or not.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub hooks_attempted: i64,
    /// Hooks that failed.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_default")]
    pub hooks_failed: i64,
}

/// A reference to an object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectReference {
    /// API group of the kind; absent for the core group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub api_group: Option<String>,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
}

/// A reference to an object, with all the fields that Kubernetes has for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// Kind of the object.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub kind: String,
    /// Namespace of the object.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub namespace: String,
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub name: String,
    /// UID of the object.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub uid: String,
    /// Version of the kind.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub api_version: String,
    /// Version of the object.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub resource_version: String,
    /// A field within the object.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub field_path: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn null_counts_read_as_zero_and_zero_is_not_written() {
        let status: HookStatus = serde_json::from_str(r#"{"hooksAttempted":null,"later":1}"#).unwrap();
        assert_eq!(status, HookStatus::default());
        assert_eq!(serde_json::to_string(&status).unwrap(), "{}");
    }
}
