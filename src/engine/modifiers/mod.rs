//! Resource modifiers: rules of a ConfigMap that patch items on their way (restore-semantics 8).
//!
//! [`Modifiers::parse`] decodes strictly and validates, so a restore with a wrong rule does not begin.
//! [`Modifiers::apply`] looks at nothing but the item and, for strategic merge patches, the kind's published schema: conditions of all rules are looked at before the first patch,
//! patches are cumulative, and a rule that fails is reported while the others still apply.
//!
//! Strategic merge patches are for the kinds Velero takes them for, and an error for others: see [`Error::Strategic`].

mod apply;
mod json_patch;
mod schemas;
mod strategic;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::model::LabelSelector;

pub use apply::Modified;
pub use schemas::Schemas;

/// The rules of a restore, decoded, validated and compiled.
#[derive(Clone, Debug)]
pub struct Modifiers {
    rules: Vec<apply::Compiled>,
}

/// What the ConfigMap says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(default, deserialize_with = "text")]
    version: String,
    #[serde(default, deserialize_with = "null_as_default")]
    resource_modifier_rules: Vec<Rule>,
}

/// One rule: what it is for, and patches of one family.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    #[serde(deserialize_with = "null_as_default")]
    conditions: Conditions,
    #[serde(deserialize_with = "null_as_default")]
    patches: Vec<JsonPatch>,
    #[serde(deserialize_with = "null_as_default")]
    merge_patches: Vec<PatchData>,
    #[serde(deserialize_with = "null_as_default")]
    strategic_patches: Vec<PatchData>,
}

/// What an item must be for the rule to apply.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Conditions {
    #[serde(deserialize_with = "null_as_default")]
    namespaces: Vec<String>,
    #[serde(deserialize_with = "text")]
    group_resource: String,
    #[serde(deserialize_with = "text")]
    resource_name_regex: String,
    #[serde(deserialize_with = "null_as_default")]
    label_selector: Option<StrictSelector>,
    #[serde(deserialize_with = "null_as_default")]
    matches: Vec<Match>,
}

/// A label selector that takes no unknown field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Value")]
struct StrictSelector(LabelSelector);

impl TryFrom<Value> for StrictSelector {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let unknown = |object: &Value, known: &[&str]| {
            object.as_object().and_then(|object| object.keys().find(|key| !known.contains(&key.as_str())).cloned())
        };
        let in_expressions = |value: &Value| {
            let expressions = value["matchExpressions"].as_array();
            expressions.into_iter().flatten().find_map(|one| unknown(one, &["key", "operator", "values"]))
        };
        match unknown(&value, &["matchLabels", "matchExpressions"]).or_else(|| in_expressions(&value)) {
            Some(field) => Err(format!("unknown field `{field}` in labelSelector")),
            None => serde_json::from_value(value).map(Self).map_err(|error| error.to_string()),
        }
    }
}

/// A JSON patch `test` that must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Match {
    #[serde(deserialize_with = "text")]
    path: String,
    #[serde(deserialize_with = "text")]
    value: String,
}

/// One operation of a JSON patch (RFC 6902).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct JsonPatch {
    #[serde(deserialize_with = "text")]
    operation: String,
    #[serde(deserialize_with = "text")]
    from: String,
    #[serde(deserialize_with = "text")]
    path: String,
    #[serde(deserialize_with = "text")]
    value: String,
}

/// A patch as YAML or JSON text.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PatchData {
    #[serde(deserialize_with = "text")]
    patch_data: String,
}

/// Where a text is wanted, a plain YAML number or boolean is taken as it is written, and null as empty.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        scalar @ (Value::Bool(_) | Value::Number(_)) => Ok(scalar.to_string()),
        other => Err(serde::de::Error::custom(format_args!("want a text, found {other}"))),
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Rules that cannot be used, or that failed on an item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The ConfigMap has not exactly one data key.
    #[error("resource modifiers ConfigMap {name:?} has {found} data keys: put all rules under exactly one")]
    ConfigMap {
        /// The ConfigMap.
        name: String,
        /// How many it has.
        found: usize,
    },
    /// The text is no YAML, or does not have the fields it should.
    #[error("cannot decode resource modifiers: {0}")]
    Decode(String),
    /// The version is not known.
    #[error("unsupported resource modifier version {0:?}: use v1")]
    Version(String),
    /// There are no rules.
    #[error("resource modifier rules cannot be empty")]
    NoRules,
    /// A rule is not valid.
    #[error("resource modifier rule {number} is not valid: {message}")]
    Rule {
        /// Its number, from 1.
        number: usize,
        /// What is wrong with it.
        message: String,
    },
    /// Conditions of a rule cannot be evaluated for an item.
    #[error("cannot evaluate the conditions of resource modifier rule {number}: {message}")]
    Conditions {
        /// The rule's number, from 1.
        number: usize,
        /// Why.
        message: String,
    },
    /// A rule could not be applied to an item.
    #[error("cannot apply the patches of resource modifier rule {number}: {message}")]
    Patch {
        /// The rule's number, from 1.
        number: usize,
        /// Why.
        message: String,
    },
    /// A strategic merge patch for a kind that takes none.
    #[error(
        "cannot apply resource modifier rule {number}: strategic merge patches are not for {kind} of {api_version}, \
         only for kinds of v1, apps/v1, batch/v1, Velero and volume snapshots: write it as mergePatches or patches"
    )]
    Strategic {
        /// The rule's number, from 1.
        number: usize,
        /// The item's apiVersion.
        api_version: String,
        /// The item's kind.
        kind: String,
    },
}

impl Modifiers {
    /// Reads the one data key of a ConfigMap.
    ///
    /// # Errors
    ///
    /// There is not exactly one, or its text is no valid set of rules.
    pub fn from_config_map(config_map: &Value) -> Result<Self, Error> {
        let texts: Vec<&str> =
            config_map["data"].as_object().into_iter().flatten().filter_map(|(_, v)| v.as_str()).collect();
        match texts.as_slice() {
            [text] => Self::parse(text),
            other => Err(Error::ConfigMap {
                name: config_map["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                found: other.len(),
            }),
        }
    }

    /// Decodes and validates rules in YAML or JSON.
    ///
    /// # Errors
    ///
    /// The text does not decode strictly, or a rule is not valid.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let document = Document::decode(text)?;
        document.validate()?;
        Ok(Self { rules: document.resource_modifier_rules.into_iter().map(apply::Compiled::of).collect() })
    }
}

impl Document {
    fn decode(text: &str) -> Result<Self, Error> {
        let decode = |error: &dyn std::fmt::Display| Error::Decode(error.to_string());
        // By way of YAML's own values, which refuse a key that occurs twice.
        let yaml: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(|error| decode(&error))?;
        let json: Value = serde_yaml_ng::from_value(yaml).map_err(|error| decode(&error))?;
        let document: Option<Self> = serde_json::from_value(json).map_err(|error| decode(&error))?;
        Ok(document.unwrap_or_default())
    }

    fn validate(&self) -> Result<(), Error> {
        if !self.version.eq_ignore_ascii_case("v1") {
            return Err(Error::Version(self.version.clone()));
        }
        if self.resource_modifier_rules.is_empty() {
            return Err(Error::NoRules);
        }
        for (index, rule) in self.resource_modifier_rules.iter().enumerate() {
            rule.validate().map_err(|message| Error::Rule { number: index + 1, message })?;
        }
        Ok(())
    }
}

impl Rule {
    /// The regular expression and the globs are not looked at here, as with Velero: wrong ones fail the items.
    fn validate(&self) -> Result<(), String> {
        if self.conditions.group_resource.is_empty() {
            return Err("conditions.groupResource cannot be empty".to_owned());
        }
        let families = [!self.patches.is_empty(), !self.merge_patches.is_empty(), !self.strategic_patches.is_empty()];
        if families.into_iter().filter(|&has| has).count() > 1 {
            return Err("only one of patches, mergePatches, strategicPatches can be specified".to_owned());
        }
        self.patches.iter().try_for_each(JsonPatch::validate)
    }
}

impl JsonPatch {
    fn validate(&self) -> Result<(), String> {
        if self.operation.is_empty() {
            return Err("operation cannot be empty".to_owned());
        }
        // Only here in any case: `Add` fails when it is applied.
        if !["add", "remove", "replace", "move", "copy", "test"].contains(&self.operation.to_lowercase().as_str()) {
            return Err(format!(
                "unknown operation {:?}: use add, remove, replace, move, copy or test",
                self.operation
            ));
        }
        if self.path.is_empty() {
            return Err("path cannot be empty".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn rule(rest: &str) -> String {
        format!("version: v1\nresourceModifierRules:\n- conditions: {{groupResource: pods}}\n  {rest}")
    }

    fn error(text: &str) -> String {
        Modifiers::parse(text).unwrap_err().to_string()
    }

    /// restore-semantics 8
    #[test]
    fn the_text_is_decoded_strictly() {
        for (text, part) in [
            ("version: v1\nresourceModifierRules: []\nextra: 1".to_owned(), "unknown field `extra`"),
            (rule("patchs: []"), "unknown field `patchs`"),
            (rule("patches: [{operation: add, path: /a, vale: x}]"), "unknown field `vale`"),
            (rule("mergePatches: [{patchData: {a: b}}]"), "want a text"),
            (rule("patches: [{operation: add, path: /a}]\n  patches: []"), "duplicate"),
            ("version: v1\nresourceModifierRules: text".to_owned(), "invalid type"),
            ("version: [".to_owned(), "cannot decode"),
            (
                "version: v1\nresourceModifierRules: [{conditions: {groupResource: a, labelSelector: {labels: {}}}}]"
                    .to_owned(),
                "unknown field `labels`",
            ),
        ] {
            assert!(error(&text).contains(part), "{text}: {}", error(&text));
        }
    }

    #[test]
    fn numbers_and_booleans_are_taken_as_text_where_text_is_wanted() {
        let modifiers =
            Document::decode(&rule("patches: [{operation: replace, path: /spec/replicas, value: 3}]")).unwrap();
        assert_eq!(modifiers.resource_modifier_rules[0].patches[0].value, "3");
        assert_eq!(Document::decode(&rule("patches: null").replace("v1", "V1")).unwrap().version, "V1");
    }

    /// restore-semantics 8, validation
    #[test]
    fn rules_that_are_not_valid_are_named_by_number() {
        for (text, message) in [
            (
                "version: v2\nresourceModifierRules: [{}]".to_owned(),
                "unsupported resource modifier version \"v2\": use v1",
            ),
            ("version: v1".to_owned(), "resource modifier rules cannot be empty"),
            (String::new(), "unsupported resource modifier version \"\": use v1"),
            (
                "version: v1\nresourceModifierRules: [{patches: []}]".to_owned(),
                "resource modifier rule 1 is not valid: conditions.groupResource cannot be empty",
            ),
            (
                rule("patches: [{operation: add, path: /a}]\n  mergePatches: [{patchData: '{}'}]"),
                "resource modifier rule 1 is not valid: only one of patches, mergePatches, strategicPatches can be \
                 specified",
            ),
            (
                rule("patches: [{operation: merge, path: /a}]"),
                "resource modifier rule 1 is not valid: unknown operation \"merge\": use add, remove, replace, move, \
                 copy or test",
            ),
            (rule("patches: [{path: /a}]"), "resource modifier rule 1 is not valid: operation cannot be empty"),
            (rule("patches: [{operation: add}]"), "resource modifier rule 1 is not valid: path cannot be empty"),
        ] {
            assert_eq!(error(&text), message, "{text}");
        }
    }

    /// restore-semantics 8
    #[test]
    fn a_config_map_has_exactly_one_data_key() {
        let config_map = |data: Value| json!({"metadata": {"name": "m"}, "data": data});
        assert!(Modifiers::from_config_map(&config_map(json!({"any": rule("patches: []")}))).is_ok());
        for data in [json!({}), json!({"a": "", "b": ""}), Value::Null] {
            let error = Modifiers::from_config_map(&config_map(data)).unwrap_err().to_string();
            assert!(error.contains("\"m\"") && error.contains("exactly one"), "{error}");
        }
    }
}
