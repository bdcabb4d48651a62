//! Validation of custom objects against their structural schema, in the words of the API server.

use serde_json::{Number, Value};

use super::schema::{ListType, Schema, join};
use super::status::Cause;

/// The faults of a whole object; its metadata is checked elsewhere.
pub(super) fn faults(schema: &Schema, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(schema, object, "", &mut causes);
    causes
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(value: &Value, wanted: &str) -> bool {
    let found = type_of(value);
    match wanted {
        "number" => matches!(found, "number" | "integer"),
        "integer" => found == "integer" || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => found == wanted,
    }
}

fn check(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if schema.int_or_string {
        if !matches!(type_of(value), "integer" | "string") {
            let detail = format!("{path} in body must be of type integer,string: {:?}", type_of(value));
            causes.push(Cause::wrong_type(path, type_of(value), &detail));
        }
    } else if let Some(kind) = &schema.kind
        && !has_type(value, kind)
    {
        let detail = format!("{path} in body must be of type {kind}: {:?}", type_of(value));
        causes.push(Cause::wrong_type(path, type_of(value), &detail));
        return;
    }
    if let Some(allowed) = &schema.allowed
        && !allowed.contains(value)
    {
        let names: Vec<String> =
            allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        causes.push(Cause::unsupported(path, value, &names));
    }
    match value {
        Value::String(text) => check_text(schema, text, path, causes),
        Value::Number(number) => check_number(schema, number, path, causes),
        Value::Array(entries) => check_list(schema, entries, path, causes),
        Value::Object(fields) => {
            for name in schema.required.iter().filter(|name| !fields.contains_key(*name)) {
                causes.push(Cause::required(join(path, name), ""));
            }
            let count = fields.len() as u64;
            if schema.size.0.is_some_and(|least| count < least) {
                let detail = format!("{path} in body should have at least {} properties", schema.size.0.unwrap_or(0));
                causes.push(Cause::invalid(path, &Value::from(count), &detail));
            }
            if let Some(most) = schema.size.1.filter(|most| count > *most) {
                causes.push(Cause::too_many(path, fields.len(), most));
            }
            for (key, inner) in fields.iter().filter(|(key, _)| !(path.is_empty() && *key == "metadata")) {
                if let Some(below) = schema.properties.get(key).or(schema.additional.as_deref()) {
                    check(below, inner, &join(path, key), causes);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    check_logic(schema, value, path, causes);
}

fn check_text(schema: &Schema, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let letters = text.chars().count() as u64;
    let value = || Value::from(text);
    if let Some(least) = schema.length.0.filter(|least| letters < *least) {
        causes.push(Cause::invalid(path, &value(), &format!("{path} in body should be at least {least} chars long")));
    }
    if let Some(most) = schema.length.1.filter(|most| letters > *most) {
        causes.push(Cause::too_long(path, most));
    }
    if let Some(pattern) = schema.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        causes.push(Cause::invalid(path, &value(), &format!("{path} in body should match '{pattern}'")));
    }
    let misformed = match schema.format.as_deref() {
        Some("date-time") => text.parse::<jiff::Timestamp>().is_err(),
        Some("date") => text.parse::<jiff::civil::Date>().is_err(),
        _ => false,
    };
    if let Some(format) = schema.format.as_deref().filter(|_| misformed) {
        causes.push(Cause::wrong_type(path, text, &format!("{path} in body must be of type {format}: {text:?}")));
    }
}

/// Compares as integers where both are, so that large values keep all digits.
fn compare(left: &Number, right: &Number) -> std::cmp::Ordering {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => left.as_f64().partial_cmp(&right.as_f64()).unwrap_or(std::cmp::Ordering::Equal),
    }
}

fn check_number(schema: &Schema, number: &Number, path: &str, causes: &mut Vec<Cause>) {
    let value = || Value::Number(number.clone());
    if let Some((limit, exclusive)) = &schema.minimum {
        let order = compare(number, limit);
        if order.is_lt() || (*exclusive && order.is_eq()) {
            let words = if *exclusive { "greater than" } else { "greater than or equal to" };
            causes.push(Cause::invalid(path, &value(), &format!("{path} in body should be {words} {limit}")));
        }
    }
    if let Some((limit, exclusive)) = &schema.maximum {
        let order = compare(number, limit);
        if order.is_gt() || (*exclusive && order.is_eq()) {
            let words = if *exclusive { "less than" } else { "less than or equal to" };
            causes.push(Cause::invalid(path, &value(), &format!("{path} in body should be {words} {limit}")));
        }
    }
    if let (Some(step), Some(found)) = (&schema.multiple_of, number.as_f64()) {
        let ratio = found / step.as_f64().unwrap_or(1.0);
        if ratio.fract() != 0.0 {
            causes.push(Cause::invalid(path, &value(), &format!("{path} in body should be a multiple of {step}")));
        }
    }
    let narrow = match schema.format.as_deref() {
        Some("int32") => number.as_i64().is_some_and(|found| i32::try_from(found).is_err()),
        _ => false,
    };
    if narrow {
        let detail = format!("Checked value must be of type integer with format int32 in {path}");
        causes.push(Cause::invalid("<nil>", &Value::from(""), &detail));
    }
}

fn check_list(schema: &Schema, entries: &[Value], path: &str, causes: &mut Vec<Cause>) {
    if let Some(below) = &schema.items {
        for (at, entry) in entries.iter().enumerate() {
            check(below, entry, &format!("{path}[{at}]"), causes);
        }
    }
    let count = entries.len() as u64;
    if let Some(least) = schema.count.0.filter(|least| count < *least) {
        let value = Value::from(entries.len());
        causes.push(Cause::invalid(path, &value, &format!("{path} in body should have at least {least} items")));
    }
    if let Some(most) = schema.count.1.filter(|most| count > *most) {
        causes.push(Cause::too_many(path, entries.len(), most));
    }
    let identity = |entry: &Value| match &schema.list_type {
        ListType::Map(keys) => {
            Value::Object(keys.iter().filter_map(|key| entry.get(key).map(|v| (key.clone(), v.clone()))).collect())
        }
        ListType::Set | ListType::Atomic => entry.clone(),
    };
    if schema.unique || schema.list_type != ListType::Atomic {
        let mut seen: Vec<Value> = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let own = identity(entry);
            if seen.contains(&own) {
                causes.push(Cause::duplicate(format!("{path}[{at}]"), &own));
            }
            seen.push(own);
        }
    }
}

fn check_logic(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let holds = |inner: &Schema| {
        let mut found = Vec::new();
        check(inner, value, path, &mut found);
        found.is_empty()
    };
    let mut refuse = |words: &str| {
        causes.push(Cause::invalid("<nil>", &Value::from(""), &format!("{path:?} {words}")));
    };
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(holds) {
        refuse("must validate at least one schema (anyOf)");
    }
    if !schema.one_of.is_empty() {
        match schema.one_of.iter().filter(|inner| holds(inner)).count() {
            1 => {}
            0 => refuse("must validate one and only one schema (oneOf). Found none valid"),
            several => {
                refuse(&format!("must validate one and only one schema (oneOf). Found {several} valid alternatives"));
            }
        }
    }
    if schema.not.as_deref().is_some_and(holds) {
        refuse("must not validate the schema (not)");
    }
    for inner in &schema.all_of {
        check(inner, value, path, causes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sandbox::status::Error;
    use serde_json::json;

    fn message(schema: Value, spec: Value) -> String {
        let schema = Schema::parse(&json!({ "properties": { "spec": schema } }), "").unwrap();
        match faults(&schema, &json!({ "spec": spec })) {
            causes if causes.is_empty() => String::new(),
            causes => Error::invalid("g", "K", "n", &causes).message.replacen("K.g \"n\" is invalid: ", "", 1),
        }
    }

    #[test]
    fn each_rule_has_its_words() {
        for (schema, spec, words) in [
            (
                json!({ "type": "integer" }),
                json!("3"),
                "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\"",
            ),
            (json!({ "type": "object", "required": ["a"] }), json!({}), "spec.a: Required value"),
            (
                json!({ "enum": ["a", "b"] }),
                json!("c"),
                "spec: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (
                json!({ "minimum": 1 }),
                json!(0),
                "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
            ),
            (
                json!({ "maximum": 1, "exclusiveMaximum": true }),
                json!(1),
                "spec: Invalid value: 1: spec in body should be less than 1",
            ),
            (json!({ "pattern": "^a+$" }), json!("b"), "spec: Invalid value: \"b\": spec in body should match '^a+$'"),
            (json!({ "maxItems": 1 }), json!([1, 2]), "spec: Too many: 2: must have at most 1 item"),
            (
                json!({ "type": "string" }),
                json!(null),
                "spec: Invalid value: \"null\": spec in body must be of type string: \"null\"",
            ),
        ] {
            assert_eq!(message(schema, spec), words);
        }
    }

    #[test]
    fn what_fits_has_no_faults() {
        for (schema, spec) in [
            (json!({ "type": "string", "nullable": true }), json!(null)),
            (json!({ "x-kubernetes-int-or-string": true }), json!("80%")),
            (json!({ "type": "integer" }), json!(3.0)),
            (json!({ "type": "number" }), json!(3)),
            (json!({ "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] }), json!({ "a": 1 })),
            (json!({ "format": "date-time", "type": "string" }), json!("2026-01-02T03:04:05Z")),
        ] {
            assert_eq!(message(schema, spec), "");
        }
    }

    #[test]
    fn a_keyed_list_has_no_key_twice() {
        let schema = json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {} });
        let words = message(schema, json!([{ "name": "a", "x": 1 }, { "name": "a" }]));
        assert_eq!(words, "spec[1]: Duplicate value: {\"name\":\"a\"}");
    }
}
