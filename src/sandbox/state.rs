//! All that the sandbox remembers, and how a request's object becomes a stored one.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::registry::{Registry, View};
use super::services::Allocator;
use super::status::{Cause, Error};
use super::store::Store;
use super::{convert, kinds};

/// What a write was asked to do besides the object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteOptions {
    /// Check everything, keep nothing.
    pub(super) dry_run: bool,
    /// Refuse fields the schema does not know, instead of warning.
    pub(super) strict: bool,
}

/// What a write came to.
#[derive(Debug)]
pub(super) struct Written {
    /// The object in its stored shape.
    pub(super) object: Arc<Value>,
    /// Whether it is new.
    pub(super) created: bool,
    /// Texts for the `Warning` header.
    pub(super) warnings: Vec<String>,
}

/// Random numbers for uids and generated names (splitmix64): reproducible from a seed, not secret.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A version 4 UUID.
    pub(super) fn uid(&mut self) -> String {
        let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }

    /// Five letters or digits of the alphabet generated names use.
    pub(super) fn suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut bits = self.next();
        let mut letter = || {
            let at = usize::try_from(bits % LETTERS.len() as u64).unwrap_or_default();
            bits /= LETTERS.len() as u64;
            char::from(LETTERS[at])
        };
        (0..5).map(|_| letter()).collect()
    }
}

/// Everything behind the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) store: Store,
    pub(super) services: Allocator,
    pub(super) random: Random,
    pub(super) clock: fn() -> jiff::Timestamp,
    /// Names of CRDs that wait to be established.
    pub(super) unestablished: Vec<String>,
    /// Whether CRDs are established in the same step as they are created.
    pub(super) establish_at_once: bool,
}

/// The metadata of an object; every object that passed `decode` has it.
pub(super) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    match &mut object["metadata"] {
        Value::Object(metadata) => metadata,
        _ => unreachable!("metadata was just made an object"),
    }
}

/// A text in the metadata; empty where absent.
pub(super) fn meta<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get("metadata").and_then(|metadata| metadata.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// Whether the object waits for finalizers.
pub(super) fn has_finalizers(object: &Value) -> bool {
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    finalizers.is_some_and(|all| !all.is_empty())
}

impl State {
    /// The time as objects carry it.
    pub(super) fn now(&self) -> String {
        (self.clock)().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Checks what was sent and brings it into the stored shape: kind and version, types of the metadata, pruning
    /// and defaults of custom resources. Returns the warnings about unknown fields.
    pub(super) fn decode(&self, view: &View, object: &mut Value, options: WriteOptions) -> Result<Vec<String>, Error> {
        let resource = &view.resource;
        let (kind, wanted) = (resource.kind.as_str(), view.api_version());
        let Some(fields) = object.as_object_mut() else {
            let why = "json: cannot unmarshal into Go value of type struct { APIVersion string; Kind string }";
            return Err(unrecognized(kind, &format!("couldn't get version/kind; json parse error: {why}")));
        };
        let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (sent_version, sent_kind) = (text("apiVersion"), text("kind"));
        if resource.custom && sent_kind.is_empty() {
            return Err(unrecognized(kind, "Object 'Kind' is missing"));
        }
        if sent_version != wanted && (resource.custom || !sent_version.is_empty()) {
            return Err(Error::bad_request(format!(
                "the API version in the data ({sent_version}) does not match the expected API version ({wanted})"
            )));
        }
        if resource.custom && sent_kind != kind {
            let name =
                fields.get("metadata").and_then(|own| own.get("name")).and_then(Value::as_str).unwrap_or_default();
            let cause = Cause::invalid("kind", &Value::from(sent_kind.as_str()), &format!("must be {kind}"));
            return Err(Error::invalid(&resource.group, &sent_kind, name, &[cause]));
        }
        if !sent_kind.is_empty() && sent_kind != kind {
            let version = &view.version().name;
            return Err(Error::bad_request(format!(
                "{sent_kind} in version \"{version}\" cannot be handled as a {kind}: kinds do not match"
            )));
        }
        fields.insert("apiVersion".to_owned(), Value::from(wanted));
        fields.insert("kind".to_owned(), Value::from(kind));
        check_metadata_types(kind, &view.version().name, fields.get("metadata"))?;
        if !resource.custom {
            check_parts(kind, &view.version().name, fields)?;
        }
        let own = metadata(object);
        own.remove("selfLink");
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::Object(inner) => inner.is_empty(),
            Value::Array(inner) => inner.is_empty(),
            Value::String(inner) => inner.is_empty(),
            _ => false,
        };
        own.retain(|_, value| !empty(value));
        if let Some(why) = kinds::type_error(resource, object).filter(|_| !resource.custom) {
            let version = &view.version().name;
            return Err(Error::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
            )));
        }
        convert::to_stored(view, object);
        let mut unknown = Vec::new();
        if let Some(schema) = &view.version().schema {
            schema.prune(object, &mut unknown);
            schema.fill(object);
        }
        let warnings: Vec<String> = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        if options.strict && !warnings.is_empty() {
            return Err(Error::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {}",
                view.version().name,
                warnings.join(", ")
            )));
        }
        Ok(warnings)
    }
}

/// 400 for a body that is no object of the kind.
pub(super) fn unrecognized(kind: &str, why: &str) -> Error {
    Error::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why}"))
}

/// The spec and status of built-in kinds are objects; a null one is none.
fn check_parts(kind: &str, version: &str, fields: &mut Map<String, Value>) -> Result<(), Error> {
    for (part, suffix) in [("spec", "Spec"), ("status", "Status")] {
        match fields.get(part) {
            None | Some(Value::Object(_)) => {}
            Some(Value::Null) => {
                fields.remove(part);
            }
            Some(_) => {
                return Err(Error::bad_request(format!(
                    "{kind} in version \"{version}\" cannot be handled as a {kind}: json: cannot unmarshal into Go struct field {kind}.{part} of type {version}.{kind}{suffix}"
                )));
            }
        }
    }
    Ok(())
}

fn check_metadata_types(kind: &str, version: &str, metadata: Option<&Value>) -> Result<(), Error> {
    let refuse = |field: &str, found: &Value, wanted: &str| {
        let found = match found {
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            _ => "object",
        };
        Err(Error::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: json: cannot unmarshal {found} into Go struct field ObjectMeta.metadata{field} of type {wanted}"
        )))
    };
    let metadata = match metadata {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(metadata)) => metadata,
        Some(other) => return refuse("", other, "v1.ObjectMeta"),
    };
    for (key, value) in metadata {
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("labels" | "annotations", Value::Object(map)) => {
                if let Some(value) = map.values().find(|value| !value.is_string() && !value.is_null()) {
                    return refuse(&format!(".{key}"), value, "string");
                }
            }
            ("labels" | "annotations", other) => return refuse(&format!(".{key}"), other, "map[string]string"),
            ("name" | "generateName" | "namespace" | "uid" | "resourceVersion" | "selfLink", value)
                if !value.is_string() =>
            {
                return refuse(&format!(".{key}"), value, "string");
            }
            ("finalizers", Value::Array(list)) => {
                if let Some(value) = list.iter().find(|value| !value.is_string()) {
                    return refuse(".finalizers", value, "string");
                }
            }
            ("finalizers" | "ownerReferences" | "managedFields", value) if !value.is_array() => {
                return refuse(&format!(".{key}"), value, "[]string");
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_uids() {
        let (mut one, mut other) = (Random(7), Random(7));
        assert_eq!(one.uid(), other.uid());
        assert_eq!(one.suffix(), other.suffix());
        assert_ne!(one.uid(), one.uid());
    }
}
