//! Refusals as the API server words them: `Status` objects with reason, code and details.

use serde_json::{Value, json};

/// One field's fault in a 422 answer (`field.Error` of apimachinery).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cause {
    reason: &'static str,
    field: String,
    message: String,
}

/// A JSON value as Go's `%#v`-like rendering in field errors prints it: strings quoted, the rest as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

impl Cause {
    /// A required value is absent; `detail` may be empty.
    pub(super) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    /// The value breaks a rule.
    pub(super) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let message = format!("Invalid value: {}: {detail}", shown(value));
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    /// The value has the wrong type.
    pub(super) fn wrong_type(field: impl Into<String>, found: &str, detail: &str) -> Self {
        Self {
            reason: "FieldValueTypeInvalid",
            field: field.into(),
            message: format!("Invalid value: {found:?}: {detail}"),
        }
    }

    /// The value is not one of the allowed ones.
    pub(super) fn unsupported(field: impl Into<String>, value: &Value, allowed: &[String]) -> Self {
        let quoted: Vec<String> = allowed.iter().map(|one| format!("{one:?}")).collect();
        let mut message = format!("Unsupported value: {}", shown(value));
        if !quoted.is_empty() {
            message.push_str(": supported values: ");
            message.push_str(&quoted.join(", "));
        }
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    /// The same key occurs twice.
    pub(super) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            field: field.into(),
            message: format!("Duplicate value: {}", shown(value)),
        }
    }

    /// The field may not be set or changed.
    pub(super) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {detail}") }
    }

    /// A string is longer than allowed.
    pub(super) fn too_long(field: impl Into<String>, limit: u64) -> Self {
        Self {
            reason: "FieldValueTooLong",
            field: field.into(),
            message: format!("Too long: may not be more than {limit} bytes"),
        }
    }

    /// A list has more entries than allowed.
    pub(super) fn too_many(field: impl Into<String>, found: usize, limit: u64) -> Self {
        Self {
            reason: "FieldValueTooMany",
            field: field.into(),
            message: format!("Too many: {found}: must have at most {limit} item{}", if limit == 1 { "" } else { "s" }),
        }
    }

    fn text(&self) -> String {
        if self.field.is_empty() { self.message.clone() } else { format!("{}: {}", self.field, self.message) }
    }
}

/// A refusal: what the client receives as a failed `Status`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Error {
    /// HTTP status code.
    pub(super) code: u16,
    /// `Status.reason`; empty where the API server gives none.
    pub(super) reason: &'static str,
    /// `Status.message`.
    pub(super) message: String,
    details: Option<Value>,
    /// Whether the answer is the plain text page of an unserved path instead of a `Status`.
    pub(super) plain: bool,
}

/// A resource as messages call it: `plural` or `plural.group`.
pub(super) fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

fn details(name: &str, group: &str, kind: &str) -> Value {
    let mut details = serde_json::Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details.insert(key.to_owned(), Value::from(value));
        }
    }
    Value::Object(details)
}

impl Error {
    fn new(code: u16, reason: &'static str, message: String, details: Option<Value>) -> Self {
        Self { code, reason, message, details, plain: false }
    }

    /// 404 for an object.
    pub(super) fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(plural, group));
        Self::new(404, "NotFound", message, Some(details(name, group, plural)))
    }

    /// 404 for a resource that a served group version does not have.
    pub(super) fn no_resource() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self::new(404, "NotFound", message, Some(json!({})))
    }

    /// 404 for a path nobody serves: text, not a `Status`.
    pub(super) fn no_page() -> Self {
        Self { plain: true, ..Self::new(404, "", "404 page not found\n".to_owned(), None) }
    }

    /// 409 for a name that is taken.
    pub(super) fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(plural, group));
        Self::new(409, "AlreadyExists", message, Some(details(name, group, plural)))
    }

    /// 409 for a write on a stale or wrong object.
    pub(super) fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(plural, group));
        Self::new(409, "Conflict", message, Some(details(name, group, plural)))
    }

    /// 409 for a stale `resourceVersion`.
    pub(super) fn stale(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// 403.
    pub(super) fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", qualified(plural, group));
        Self::new(403, "Forbidden", message, Some(details(name, group, plural)))
    }

    /// 403 for a create in a namespace that is on its way out.
    pub(super) fn terminating(group: &str, plural: &str, name: &str, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = Self::forbidden(group, plural, name, &why);
        if let Some(details) = error.details.as_mut() {
            details["causes"] = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            }]);
        }
        error
    }

    /// 422 with its causes.
    pub(super) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> = causes.iter().map(Cause::text).collect();
        let all = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let mut details = details(name, group, kind);
        details["causes"] = causes
            .iter()
            .map(|cause| json!({ "reason": cause.reason, "message": cause.message, "field": cause.field }))
            .collect();
        let message = format!("{} \"{name}\" is invalid: {all}", qualified(kind, group));
        Self::new(422, "Invalid", message, Some(details))
    }

    /// 422 for a patch that does not apply to the object.
    pub(super) fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request".to_owned();
        Self::new(422, "Invalid", message, Some(json!({})))
    }

    /// 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into(), None)
    }

    /// 405.
    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    /// 406: nothing the client accepts can be produced.
    pub(super) fn not_acceptable() -> Self {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json".to_owned();
        Self::new(406, "NotAcceptable", message, Some(json!({})))
    }

    /// 410 for a watch from before the kept history.
    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"), None)
    }

    /// 413.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message, None)
    }

    /// 415 naming what is accepted.
    pub(super) fn unsupported_media(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", message, None)
    }

    /// 415 for a patch of a built-in kind.
    pub(super) fn unsupported_patch() -> Self {
        let message = "415: Unsupported Media Type".to_owned();
        Self::new(415, "UnsupportedMediaType", message, Some(json!({})))
    }

    /// 500 without a reason, as errors of the storage layer come out.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "", message.into(), None)
    }

    /// The `Status` object.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = Value::from(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_stands_alone_and_several_are_bracketed() {
        let causes = [Cause::required("spec.a", ""), Cause::invalid("spec.b", &json!(3), "must be even")];
        let one = Error::invalid("velero.io", "Restore", "x", &causes[..1]);
        assert_eq!(one.message, "Restore.velero.io \"x\" is invalid: spec.a: Required value");
        let two = Error::invalid("", "Pod", "x", &causes);
        assert_eq!(
            two.message,
            "Pod \"x\" is invalid: [spec.a: Required value, spec.b: Invalid value: 3: must be even]"
        );
        assert_eq!(two.status()["details"]["causes"][1]["field"], "spec.b");
        assert_eq!(two.status()["code"], 422);
    }

    #[test]
    fn a_group_is_part_of_the_resource_in_messages() {
        assert_eq!(Error::not_found("apps", "deployments", "x").message, "deployments.apps \"x\" not found");
        assert_eq!(Error::already_exists("", "pods", "x").message, "pods \"x\" already exists");
    }
}
