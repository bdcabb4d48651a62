//! Structural schemas of custom resources: parsing and pruning, defaulting (validation is in `validate`).
//!
//! CEL rules (`x-kubernetes-validations`) are not evaluated: an object they would refuse is accepted.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// How the entries of a list are told apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// A schema, ready to be applied.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    pub(super) kind: Option<String>,
    pub(super) nullable: bool,
    pub(super) properties: BTreeMap<String, Schema>,
    pub(super) additional: Option<Box<Schema>>,
    additional_any: bool,
    pub(super) items: Option<Box<Schema>>,
    pub(super) required: Vec<String>,
    pub(super) allowed: Option<Vec<Value>>,
    pub(super) minimum: Option<(serde_json::Number, bool)>,
    pub(super) maximum: Option<(serde_json::Number, bool)>,
    pub(super) multiple_of: Option<serde_json::Number>,
    pub(super) length: (Option<u64>, Option<u64>),
    pub(super) count: (Option<u64>, Option<u64>),
    pub(super) size: (Option<u64>, Option<u64>),
    pub(super) unique: bool,
    pub(super) pattern: Option<regex::Regex>,
    pub(super) format: Option<String>,
    pub(super) list_type: ListType,
    pub(super) int_or_string: bool,
    preserve: bool,
    embedded: bool,
    default: Option<Value>,
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn number(value: Option<&Value>) -> Option<serde_json::Number> {
    value.and_then(Value::as_number).cloned()
}

impl Schema {
    /// Reads a schema of `apiextensions.k8s.io/v1`; the message of a failure names the place.
    pub(super) fn parse(value: &Value, path: &str) -> Result<Self, String> {
        let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
        let bounds =
            |low: &str, high: &str| (value.get(low).and_then(Value::as_u64), value.get(high).and_then(Value::as_u64));
        let nested = |key: &str| -> Result<Option<Box<Schema>>, String> {
            match value.get(key) {
                Some(inner @ Value::Object(_)) => Ok(Some(Box::new(Self::parse(inner, &format!("{path}.{key}"))?))),
                _ => Ok(None),
            }
        };
        let several = |key: &str| -> Result<Vec<Schema>, String> {
            let list = value.get(key).and_then(Value::as_array);
            list.into_iter().flatten().map(|inner| Self::parse(inner, &format!("{path}.{key}"))).collect()
        };
        let mut properties = BTreeMap::new();
        for (name, inner) in value.get("properties").and_then(Value::as_object).into_iter().flatten() {
            properties.insert(name.clone(), Self::parse(inner, &format!("{path}.properties[{name}]"))?);
        }
        let pattern = match value.get("pattern").and_then(Value::as_str) {
            Some(text) => Some(
                regex::Regex::new(text)
                    .map_err(|_| format!("{path}.pattern: must be a valid regular expression, but isn't"))?,
            ),
            None => None,
        };
        let list_type = match value.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(texts(value.get("x-kubernetes-list-map-keys"))),
            _ => ListType::Atomic,
        };
        Ok(Self {
            kind: value.get("type").and_then(Value::as_str).map(str::to_owned),
            nullable: flag("nullable"),
            properties,
            additional: nested("additionalProperties")?,
            additional_any: flag("additionalProperties"),
            items: nested("items")?,
            required: texts(value.get("required")),
            allowed: value.get("enum").and_then(Value::as_array).cloned(),
            minimum: number(value.get("minimum")).map(|limit| (limit, flag("exclusiveMinimum"))),
            maximum: number(value.get("maximum")).map(|limit| (limit, flag("exclusiveMaximum"))),
            multiple_of: number(value.get("multipleOf")),
            length: bounds("minLength", "maxLength"),
            count: bounds("minItems", "maxItems"),
            size: bounds("minProperties", "maxProperties"),
            unique: flag("uniqueItems"),
            pattern,
            format: value.get("format").and_then(Value::as_str).map(str::to_owned),
            list_type,
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: value.get("default").cloned(),
            all_of: several("allOf")?,
            any_of: several("anyOf")?,
            one_of: several("oneOf")?,
            not: nested("not")?,
        })
    }

    /// Drops what the schema does not know, naming each dropped field in `unknown`.
    pub(super) fn prune(&self, object: &mut Value, unknown: &mut Vec<String>) {
        self.prune_at(object, "", true, unknown);
        unknown.sort();
    }

    fn prune_at(&self, value: &mut Value, path: &str, is_object: bool, unknown: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                let keep = |key: &str| is_object && matches!(key, "apiVersion" | "kind" | "metadata");
                if !self.preserve && !self.additional_any && self.additional.is_none() {
                    fields.retain(|key, _| {
                        let known = keep(key) || self.properties.contains_key(key);
                        if !known {
                            unknown.push(join(path, key));
                        }
                        known
                    });
                }
                for (key, inner) in fields.iter_mut().filter(|(key, _)| !keep(key)) {
                    if let Some(schema) = self.properties.get(key).or(self.additional.as_deref()) {
                        schema.prune_at(inner, &join(path, key), schema.embedded, unknown);
                    }
                }
            }
            Value::Array(entries) => {
                if let Some(schema) = &self.items {
                    for (at, entry) in entries.iter_mut().enumerate() {
                        schema.prune_at(entry, &format!("{path}[{at}]"), schema.embedded, unknown);
                    }
                }
            }
            _ => {}
        }
    }

    /// Fills in defaults, and drops nulls where a default or the schema says that null is none.
    pub(super) fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (key, schema) in &self.properties {
                    if let Some(default) = &schema.default {
                        let absent = fields.get(key).is_none_or(|found| found.is_null() && !schema.nullable);
                        if absent {
                            fields.insert(key.clone(), default.clone());
                        }
                    }
                }
                fields.retain(|key, inner| {
                    let schema = self.properties.get(key).or(self.additional.as_deref());
                    !inner.is_null() || schema.is_none_or(|schema| schema.nullable)
                });
                for (key, inner) in fields.iter_mut() {
                    if let Some(schema) = self.properties.get(key).or(self.additional.as_deref()) {
                        schema.fill(inner);
                    }
                }
            }
            Value::Array(entries) => {
                if let Some(schema) = &self.items {
                    entries.iter_mut().for_each(|entry| schema.fill(entry));
                }
            }
            _ => {}
        }
    }
}

/// A field below a path.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The fields of an object that count for its generation: all but metadata and, where it is a subresource, status.
pub(super) fn substance(object: &Value, status_apart: bool) -> Map<String, Value> {
    let mut fields = object.as_object().cloned().unwrap_or_default();
    for key in ["metadata", "apiVersion", "kind"] {
        fields.remove(key);
    }
    if status_apart {
        fields.remove("status");
    }
    fields
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_pruned_except_where_they_are_preserved() {
        let schema = Schema::parse(
            &json!({ "type": "object", "properties": {
                "spec": { "type": "object", "properties": {
                    "known": { "type": "string" },
                    "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    "map": { "type": "object", "additionalProperties": { "type": "object", "properties": { "a": {} } } },
                    "list": { "type": "array", "items": { "type": "object", "properties": { "a": {} } } },
                } } } }),
            "",
        )
        .unwrap();
        let mut object = json!({
            "apiVersion": "x/v1", "kind": "X", "metadata": { "name": "n" }, "extra": 1,
            "spec": { "known": "k", "odd": 1, "free": { "any": 1 }, "map": { "k": { "a": 1, "b": 2 } }, "list": [{ "b": 1 }] },
        });
        let mut unknown = Vec::new();
        schema.prune(&mut object, &mut unknown);
        assert_eq!(unknown, ["extra", "spec.list[0].b", "spec.map.k.b", "spec.odd"]);
        assert_eq!(
            object["spec"],
            json!({ "known": "k", "free": { "any": 1 }, "map": { "k": { "a": 1 } }, "list": [{}] })
        );
        assert_eq!(object["metadata"]["name"], "n");
    }

    #[test]
    fn defaults_fill_absent_fields_and_nulls_that_are_not_allowed() {
        let schema = Schema::parse(
            &json!({ "properties": { "spec": { "default": {}, "properties": {
                "a": { "type": "integer", "default": 3 }, "b": { "type": "string", "nullable": true, "default": "x" } } } } }),
            "",
        )
        .unwrap();
        let mut object = json!({});
        schema.fill(&mut object);
        assert_eq!(object, json!({ "spec": { "a": 3, "b": "x" } }));
        let mut object = json!({ "spec": { "a": null, "b": null } });
        schema.fill(&mut object);
        assert_eq!(object, json!({ "spec": { "a": 3, "b": null } }));
    }
}
