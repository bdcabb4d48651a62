//! What Kubernetes takes as the key and the values of a label, with its own messages.

use super::Operator;
use crate::model::label::MAX_LABEL_VALUE;
use crate::model::names::{MAX_NAME, is_dns_subdomain};

const KEY_FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                        character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                        '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_FORM: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
                          start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
                          for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN_FORM: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                              must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
                              is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// Everything that is wrong with a requirement.
pub(super) fn requirement(key: &str, operator: Operator, values: &[String]) -> Vec<String> {
    let mut messages = Vec::new();
    let key_errors = label_key(key);
    if !key_errors.is_empty() {
        messages.push(format!("key: Invalid value: {key:?}: {}", key_errors.join("; ")));
    }
    let wrong_count = match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            Some("for 'in', 'notin' operators, values set can't be empty")
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            Some("exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            Some("values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
            Some("for 'Gt', 'Lt' operators, exactly one value is required")
        }
        _ => None,
    };
    if let Some(what) = wrong_count {
        messages.push(format!("values: Invalid value: {}: {what}", as_json(values)));
    }
    if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
        for (at, value) in values.iter().enumerate().filter(|(_, value)| value.parse::<i64>().is_err()) {
            let what = "for 'Gt', 'Lt' operators, the value must be an integer";
            messages.push(format!("values[{at}]: Invalid value: {value:?}: {what}"));
        }
    }
    for (at, value) in values.iter().enumerate() {
        let errors = label_value(value);
        if !errors.is_empty() {
            messages.push(format!("values[{at}][{key}]: Invalid value: {value:?}: {}", errors.join("; ")));
        }
    }
    messages
}

/// A list as Go prints it in JSON: an absent one is `null`.
fn as_json(values: &[String]) -> String {
    if values.is_empty() { "null".to_owned() } else { serde_json::Value::from(values).to_string() }
}

/// What is wrong with a label's key; empty when it is right.
pub(super) fn label_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {KEY_FORM} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            errors.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            if prefix.len() > MAX_NAME {
                errors.push(format!("prefix part must be no more than {MAX_NAME} bytes"));
            }
            // The form is asked for apart from the length, so that each has its message.
            if !prefix.split('.').all(|part| part.len() > MAX_NAME || is_dns_subdomain(part)) {
                errors.push(format!("prefix part {SUBDOMAIN_FORM}"));
            }
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > MAX_LABEL_VALUE {
        errors.push(format!("name part must be no more than {MAX_LABEL_VALUE} bytes"));
    }
    if !has_label_form(name) {
        errors.push(format!("name part {KEY_FORM}"));
    }
    errors
}

/// What is wrong with a label's value; empty when it is right.
pub(super) fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > MAX_LABEL_VALUE {
        errors.push(format!("must be no more than {MAX_LABEL_VALUE} bytes"));
    }
    if !value.is_empty() && !has_label_form(value) {
        errors.push(VALUE_FORM.to_owned());
    }
    errors
}

fn has_label_form(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.iter().all(is_inner)
}
