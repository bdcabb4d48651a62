//! Merge, JSON and strategic merge patches.
//!
//! Strategic merge knows the keyed lists of the built-in kinds by the name of their field (`containers` by `name`,
//! service `ports` by `port`, …) and the `$patch: delete|replace` and `$deleteFromPrimitiveList/…` directives;
//! other lists are replaced as in a merge patch. `$setElementOrder/…` is accepted and not acted on.

use serde_json::{Map, Value};

use super::status::Error;

/// The kinds of patch, by their content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Kind {
    /// The kind named by a content type; custom resources take no strategic merge patch.
    pub(super) fn of(content_type: &str, custom: bool) -> Result<Self, Error> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if !custom => Ok(Self::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => Ok(Self::Apply),
            _ if custom => Err(Error::unsupported_media(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
            _ => Err(Error::unsupported_patch()),
        }
    }
}

/// Applies a parsed patch to an object.
pub(super) fn apply(kind: Kind, object: &Value, patch: &Value, custom: bool) -> Result<Value, Error> {
    let mut patched = object.clone();
    match kind {
        Kind::Json => {
            let operations: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|why| Error::bad_request(format!("error decoding patch: {why}")))?;
            for operation in operations.0 {
                let operation = lenient(&patched, operation);
                json_patch::patch(&mut patched, &[operation]).map_err(|_| Error::unprocessable())?;
            }
        }
        Kind::Merge => json_patch::merge(&mut patched, patch),
        Kind::Strategic => merge(&mut patched, patch, ""),
        Kind::Apply if custom => json_patch::merge(&mut patched, patch),
        Kind::Apply => merge(&mut patched, patch, ""),
    }
    if patched.is_object() { Ok(patched) } else { Err(Error::unprocessable()) }
}

/// The API server's library lets `replace` set a key that is not there yet.
fn lenient(object: &Value, operation: json_patch::PatchOperation) -> json_patch::PatchOperation {
    match operation {
        json_patch::PatchOperation::Replace(replace) if object.pointer(replace.path.as_str()).is_none() => {
            json_patch::PatchOperation::Add(json_patch::AddOperation { path: replace.path, value: replace.value })
        }
        other => other,
    }
}

/// The key that tells the entries of a list field apart in the built-in kinds (`patchMergeKey` of their types).
fn merge_key(field: &str, entries: &[Value]) -> Option<&'static str> {
    let has = |key: &str| entries.iter().all(|entry| entry.get(key).is_some());
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims" => Some("name"),
        "secrets" if has("name") => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "ownerReferences" => Some("uid"),
        "conditions" => Some("type"),
        "addresses" if has("type") => Some("type"),
        "ports" if has("containerPort") => Some("containerPort"),
        "ports" if has("port") => Some("port"),
        "webhooks" | "validations" | "matchConditions" => Some("name"),
        _ => None,
    }
}

fn merge(target: &mut Value, patch: &Value, field: &str) {
    match patch {
        Value::Object(changes) => merge_fields(target, changes),
        Value::Array(entries) => {
            if let Some(key) = merge_key(field, entries) {
                merge_list(target, entries, key);
            } else if field == "finalizers" {
                merge_set(target, entries);
            } else {
                *target = patch.clone();
            }
        }
        other => *target = other.clone(),
    }
}

fn merge_fields(target: &mut Value, changes: &Map<String, Value>) {
    match changes.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let kept = changes.iter().filter(|(key, _)| !key.starts_with('$'));
            *target = Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect());
            return;
        }
        Some("delete") => {
            *target = Value::Null;
            return;
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (key, change) in changes {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(found)), Some(gone)) = (fields.get_mut(list), change.as_array()) {
                found.retain(|entry| !gone.contains(entry));
            }
        } else if key.starts_with('$') {
            // $setElementOrder and $retainKeys only order and narrow; see the module's documentation.
        } else if change.is_null() {
            fields.remove(key);
        } else {
            let below = fields.entry(key.clone()).or_insert(Value::Null);
            merge(below, change, key);
            if below.is_null() {
                fields.remove(key);
            }
        }
    }
}

fn merge_list(target: &mut Value, entries: &[Value], key: &str) {
    let replaces =
        |entry: &Value| entry.get("$patch").and_then(Value::as_str) == Some("replace") && entry.get(key).is_none();
    if !target.is_array() || entries.iter().any(replaces) {
        *target = Value::Array(Vec::new());
    }
    let Some(found) = target.as_array_mut() else { return };
    for entry in entries.iter().filter(|entry| !replaces(entry)) {
        let at = found.iter().position(|one| one.get(key).is_some() && one.get(key) == entry.get(key));
        let deletes = entry.get("$patch").and_then(Value::as_str) == Some("delete");
        match at {
            Some(at) if deletes => {
                found.remove(at);
            }
            Some(at) => merge(&mut found[at], entry, ""),
            None if deletes => {}
            None => {
                let mut added = Value::Null;
                merge(&mut added, entry, "");
                found.push(added);
            }
        }
    }
}

fn merge_set(target: &mut Value, entries: &[Value]) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    if let Some(found) = target.as_array_mut() {
        for entry in entries {
            if !found.contains(entry) {
                found.push(entry.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_null_in_a_merge_patch_deletes() {
        let patched = apply(Kind::Merge, &json!({ "a": 1, "b": { "c": 2 } }), &json!({ "b": { "c": null } }), true);
        assert_eq!(patched.unwrap(), json!({ "a": 1, "b": {} }));
    }

    #[test]
    fn a_strategic_patch_merges_containers_by_name_and_replaces_other_lists() {
        let object =
            json!({ "spec": { "containers": [{ "name": "a", "image": "x", "args": ["1", "2"] }, { "name": "b" }] } });
        let patch = json!({ "spec": { "containers": [
            { "name": "a", "args": ["3"] }, { "name": "b", "$patch": "delete" }, { "name": "c" }] } });
        let patched = apply(Kind::Strategic, &object, &patch, false).unwrap();
        assert_eq!(
            patched["spec"]["containers"],
            json!([{ "name": "a", "image": "x", "args": ["3"] }, { "name": "c" }])
        );
    }

    #[test]
    fn a_json_patch_that_does_not_fit_is_unprocessable() {
        let patch = json!([{ "op": "remove", "path": "/nothing" }]);
        assert_eq!(apply(Kind::Json, &json!({}), &patch, true).unwrap_err().code, 422);
        assert_eq!(apply(Kind::Json, &json!({}), &json!({ "op": 1 }), true).unwrap_err().code, 400);
    }

    #[test]
    fn custom_resources_take_no_strategic_patch() {
        assert_eq!(Kind::of("application/strategic-merge-patch+json", true).unwrap_err().code, 415);
        assert_eq!(Kind::of("application/strategic-merge-patch+json", false).unwrap(), Kind::Strategic);
        assert_eq!(Kind::of("application/json", false).unwrap_err().code, 415);
    }
}
