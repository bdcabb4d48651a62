//! The rules for names, labels and annotations, in the API server's words.

use serde_json::{Map, Value};

use super::status::Cause;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Sum of the bytes of all annotations that one object may have.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether all bytes are alphanumeric (by `ends`) or among `middle`, and first and last are alphanumeric.
fn shaped(text: &str, ends: fn(u8) -> bool, middle: &[u8]) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            ends(*first) && ends(*last) && bytes.iter().all(|byte| ends(*byte) || middle.contains(byte))
        }
        _ => false,
    }
}

/// Names are measured in characters, keys and values in bytes; both are ASCII where they are valid.
fn name_too_long(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

fn dns_label(name: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if name.len() > 63 {
        faults.push(name_too_long(63));
    }
    if !shaped(name, lower_or_digit, b"-") {
        let only_dots = subdomain(name).is_empty();
        faults.push(if only_dots { "must not contain dots".to_owned() } else { LABEL.to_owned() });
    }
    faults
}

/// The faults of a DNS-1123 subdomain.
pub(super) fn subdomain(name: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if name.len() > 253 {
        faults.push(name_too_long(253));
    }
    if !name.split('.').all(|part| shaped(part, lower_or_digit, b"-")) {
        faults.push(SUBDOMAIN.to_owned());
    }
    faults
}

/// The faults of a name that only has to fit in a path (RBAC).
fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].iter().filter(|part| name.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// The faults of an object's name, by its resource.
pub(super) fn object_name(group: &str, plural: &str, name: &str) -> Vec<String> {
    match (group, plural) {
        ("", "namespaces" | "services") | ("apps", "statefulsets") => dns_label(name),
        ("rbac.authorization.k8s.io", _) => path_segment(name),
        ("networking.k8s.io", "ipaddresses") => Vec::new(),
        _ => subdomain(name),
    }
}

/// The faults of a label key or annotation key.
pub(super) fn qualified_name(key: &str) -> Vec<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let mut faults = Vec::new();
    match prefix {
        Some("") => faults.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => faults.extend(subdomain(prefix).into_iter().map(|fault| format!("prefix part {fault}"))),
        None => {}
    }
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        faults.push(format!("name part {}", too_long(63)));
    }
    if !shaped(name, |byte| byte.is_ascii_alphanumeric(), b"-_.") {
        faults.push(QUALIFIED.to_owned());
    }
    faults
}

/// The faults of a label's value.
pub(super) fn label_value(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 63 {
        faults.push(too_long(63));
    }
    if !value.is_empty() && !shaped(value, |byte| byte.is_ascii_alphanumeric(), b"-_.") {
        faults.push(LABEL_VALUE.to_owned());
    }
    faults
}

/// The causes in an object's metadata.
pub(super) fn check_metadata(group: &str, plural: &str, metadata: &Map<String, Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        causes.extend(
            object_name(group, plural, name)
                .iter()
                .map(|fault| Cause::invalid("metadata.name", &Value::from(name), fault)),
        );
    }
    if let Some(Value::Object(labels)) = metadata.get("labels") {
        for (key, value) in labels {
            let value = value.as_str().unwrap_or_default();
            for fault in qualified_name(key) {
                causes.push(Cause::invalid("metadata.labels", &Value::from(key.as_str()), &fault));
            }
            for fault in label_value(value) {
                causes.push(Cause::invalid("metadata.labels", &Value::from(value), &fault));
            }
        }
    }
    if let Some(Value::Object(annotations)) = metadata.get("annotations") {
        let mut size = 0;
        for (key, value) in annotations {
            size += key.len() + value.as_str().map_or(0, str::len);
            for fault in qualified_name(&key.to_ascii_lowercase()) {
                causes.push(Cause::invalid("metadata.annotations", &Value::from(key.as_str()), &fault));
            }
        }
        if size > ANNOTATIONS_LIMIT {
            causes.push(Cause::too_long("metadata.annotations", ANNOTATIONS_LIMIT as u64));
        }
    }
    if let Some(Value::Array(owners)) = metadata.get("ownerReferences") {
        for owner in owners {
            for key in ["apiVersion", "kind", "name", "uid"] {
                if owner.get(key).and_then(Value::as_str).unwrap_or_default().is_empty() {
                    let field = format!("metadata.ownerReferences.{key}");
                    let why = if key == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                    causes.push(Cause::invalid(field, &Value::from(""), why));
                }
            }
        }
    }
    causes
}

/// The causes in the finalizers of a built-in kind, whose names are standard ones or have a domain.
pub(super) fn check_finalizers(metadata: &Map<String, Value>) -> Vec<Cause> {
    let finalizers = metadata.get("finalizers").and_then(Value::as_array).into_iter().flatten();
    let text = finalizers.enumerate().filter_map(|(at, finalizer)| Some((at, finalizer.as_str()?)));
    text.filter(|(_, name)| !name.contains('/') && !matches!(*name, "kubernetes" | "orphan" | "foregroundDeletion"))
        .map(|(at, name)| {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            Cause::invalid(format!("metadata.finalizers[{at}]"), &Value::from(name), why)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_of_their_resource() {
        assert!(object_name("", "configmaps", "kube-root-ca.crt").is_empty());
        assert_eq!(object_name("", "namespaces", "a.b"), ["must not contain dots"]);
        assert_eq!(object_name("", "namespaces", "A.b"), [LABEL]);
        assert!(object_name("rbac.authorization.k8s.io", "roles", "system:x").is_empty());
        assert_eq!(object_name("", "pods", "Bad_Name"), [SUBDOMAIN]);
        assert_eq!(object_name("", "pods", &"a".repeat(254)), ["must be no more than 253 characters"]);
    }

    #[test]
    fn label_keys_and_values_are_checked() {
        assert!(qualified_name("app.kubernetes.io/name").is_empty());
        assert!(!qualified_name("a/b/c").is_empty());
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert!(label_value("").is_empty());
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(label_value("-a"), [LABEL_VALUE]);
    }
}
