//! `--spec FILE`: a Restore or its `spec`, in YAML or JSON. A field that is not known is refused, not lost.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::velero::RestoreSpec;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SpecFile {
    /// `metadata.name`.
    pub(super) name: Option<String>,
    /// `spec`.
    pub(super) spec: Map<String, Value>,
    /// `metadata.labels`.
    pub(super) labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub(super) annotations: BTreeMap<String, String>,
}

/// A file that holds no specification.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It cannot be read.
    #[error("--spec: read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is neither YAML nor JSON.
    #[error("--spec: {path:?} is neither YAML nor JSON")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// It holds something else.
    #[error("--spec: {found}; want the spec of a Restore, or a whole Restore (velero.io/v1)")]
    Other {
        /// What it holds.
        found: String,
    },
    /// A field of the wrong type.
    #[error("spec of the Restore: {0}")]
    Type(String),
    /// Fields that a Restore does not have.
    #[error("spec of the Restore: unknown field {}; check the spelling", .0.join(", "))]
    Unknown(Vec<String>),
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<SpecFile, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let value: Value =
        serde_yaml_ng::from_str(&text).map_err(|source| Error::Syntax { path: path.to_owned(), source })?;
    parse(value)
}

fn parse(value: Value) -> Result<SpecFile, Error> {
    let Value::Object(mut object) = value else {
        return Err(Error::Other { found: "the file holds no mapping".to_owned() });
    };
    let Some(kind) = object.get("kind") else {
        // A whole object without its kind would otherwise be read as a specification with an unknown field.
        return Ok(SpecFile { spec: object, ..SpecFile::default() });
    };
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or("velero.io/v1");
    if kind != "Restore" || api_version != "velero.io/v1" {
        return Err(Error::Other { found: format!("the file holds {api_version} {kind}") });
    }
    let spec = match object.remove("spec") {
        Some(Value::Object(spec)) => spec,
        None | Some(Value::Null) => Map::new(),
        Some(other) => return Err(Error::Other { found: format!("spec is {other}") }),
    };
    let metadata = object.remove("metadata").unwrap_or_default();
    let texts = |key: &str| -> BTreeMap<String, String> {
        let entries = metadata[key].as_object().into_iter().flatten();
        entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    let name = metadata["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let mut annotations = texts("annotations");
    // What kubectl keeps for itself is not the user's.
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    Ok(SpecFile { name, spec, labels: texts("labels"), annotations })
}

/// The specification with its types, all of it.
pub(super) fn typed(value: Value) -> Result<RestoreSpec, Error> {
    let spec: RestoreSpec = serde_path_to_error::deserialize(&value).map_err(|error| Error::Type(error.to_string()))?;
    let kept = serde_json::to_value(&spec).map_err(|error| Error::Type(error.to_string()))?;
    let mut unknown = Vec::new();
    lost(&value, &kept, "spec", &mut unknown);
    if unknown.is_empty() { Ok(spec) } else { Err(Error::Unknown(unknown)) }
}

/// The paths of what is in `given` and not in `kept`; empty values do not count.
fn lost(given: &Value, kept: &Value, path: &str, found: &mut Vec<String>) {
    match given {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match kept.get(name) {
                    Some(kept) => lost(value, kept, &path, found),
                    None if is_empty(value) => {}
                    None => found.push(path),
                }
            }
        }
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                lost(element, &kept[at], &format!("{path}[{at}]"), found);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;

    use super::*;

    fn yaml(text: &str) -> Result<SpecFile, Error> {
        parse(serde_yaml_ng::from_str(text).unwrap())
    }

    #[test]
    fn a_whole_restore_and_its_spec_alone_say_the_same() {
        let whole = yaml(
            "apiVersion: velero.io/v1\nkind: Restore\nmetadata:\n  name: again\n  labels: {a: b}\n\
             spec:\n  backupName: nightly\n  includedNamespaces: [shop]\n",
        )
        .unwrap();
        let spec = yaml("backupName: nightly\nincludedNamespaces: [shop]\n").unwrap();
        assert_eq!(whole.spec, spec.spec);
        assert_eq!((whole.name.as_deref(), spec.name), (Some("again"), None));
        assert_eq!(whole.labels, BTreeMap::from([("a".into(), "b".into())]));
    }

    #[test]
    fn another_kind_is_refused() {
        let error = yaml("apiVersion: velero.io/v1\nkind: Backup\nspec: {}\n").unwrap_err().to_string();
        assert!(error.contains("velero.io/v1 \"Backup\""), "{error}");
        assert!(yaml("- a\n").is_err());
    }

    #[test]
    fn a_misspelt_field_is_named_with_its_path() {
        let value = json!({
            "backupName": "b",
            "includeNamespaces": ["a"],
            "hooks": {"resources": [{"name": "h", "postHooks": [{"exec": {"command": ["x"], "onErorr": "Fail"}}]}]},
            "restorePVs": null,
            "includedResources": [],
        });
        let error = typed(value).unwrap_err().to_string();
        assert_eq!(
            error,
            "spec of the Restore: unknown field spec.hooks.resources[0].postHooks[0].exec.onErorr, \
             spec.includeNamespaces; check the spelling"
        );
    }

    #[test]
    fn a_wrong_type_is_named_with_its_path() {
        let error = typed(json!({"includedNamespaces": "shop"})).unwrap_err().to_string();
        assert!(error.starts_with("spec of the Restore: ") && error.contains("expected a sequence"), "{error}");
    }
}
