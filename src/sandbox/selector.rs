//! Label and field selectors of list, watch and deletecollection.

use serde_json::Value;

use super::status::Error;

/// One label requirement.
#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

/// What a list or watch selects.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    /// Dotted path, value, and whether they must be equal.
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    /// Parses both texts; either may be empty.
    pub(super) fn parse(
        labels: &str,
        fields: &str,
        supported: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Self, Error> {
        let labels =
            parse_labels(labels).map_err(|why| Error::bad_request(format!("unable to parse requirement: {why}")))?;
        let fields = parse_fields(fields).map_err(Error::bad_request)?;
        fields.iter().try_for_each(|(path, ..)| supported(path)).map_err(Error::bad_request)?;
        Ok(Self { labels, fields })
    }

    /// Whether everything matches.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object is selected.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|all| all.get(key)).and_then(Value::as_str);
        self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|found| values.iter().any(|one| one == found)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|found| values.iter().all(|one| one != found)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
            Requirement::Greater(key, limit) => number(label(key)).is_some_and(|found| found > *limit),
            Requirement::Less(key, limit) => number(label(key)).is_some_and(|found| found < *limit),
        }) && self.fields.iter().all(|(path, value, equal)| (field(object, path) == *value) == *equal)
    }
}

fn number(text: Option<&str>) -> Option<i64> {
    text.and_then(|text| text.parse().ok())
}

/// The text of a field; an absent one is the empty string, as in the API server's field sets.
fn field(object: &Value, path: &str) -> String {
    let mut at = object;
    for part in path.split('.') {
        match at.get(part) {
            Some(next) => at = next,
            None => return if path == "spec.unschedulable" { "false".to_owned() } else { String::new() },
        }
    }
    match at {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn parse_fields(text: &str) -> Result<Vec<(String, String, bool)>, String> {
    text.split(',')
        .filter(|term| !term.is_empty())
        .map(|term| {
            let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = term.split_once("==") {
                (path, value, true)
            } else if let Some((path, value)) = term.split_once('=') {
                (path, value, true)
            } else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            Ok((path.trim().to_owned(), value.trim().to_owned(), equal))
        })
        .collect()
}

/// Splits at the commas outside parentheses.
fn terms(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0_i32, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    found
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    terms(text).into_iter().map(|term| parse_requirement(term.trim())).collect()
}

fn checked_key(key: &str) -> Result<String, String> {
    match super::names::qualified_name(key).first() {
        Some(why) => Err(format!("key: Invalid value: {key:?}: {why}")),
        None => Ok(key.to_owned()),
    }
}

fn checked_value(value: &str) -> Result<String, String> {
    match super::names::label_value(value).first() {
        Some(why) => Err(format!("values[0][key]: Invalid value: {value:?}: {why}")),
        None => Ok(value.to_owned()),
    }
}

fn parse_requirement(term: &str) -> Result<Requirement, String> {
    if term.is_empty() {
        return Err("found ',', expected: identifier after ','".to_owned());
    }
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Requirement::Absent(checked_key(key.trim())?));
    }
    let key_end = term.find(|c: char| c.is_whitespace() || "=!<>(".contains(c)).unwrap_or(term.len());
    let (key, rest) = (checked_key(&term[..key_end])?, term[key_end..].trim());
    if rest.is_empty() {
        return Ok(Requirement::Exists(key));
    }
    if let Some(value) = rest.strip_prefix("!=") {
        return Ok(Requirement::NotIn(key, vec![checked_value(value.trim())?]));
    }
    if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        return Ok(Requirement::In(key, vec![checked_value(value.trim())?]));
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some(value) = rest.strip_prefix(sign) {
            let limit = value
                .trim()
                .parse()
                .map_err(|_| "for 'Gt', 'Lt' operators, the value must be an integer".to_owned())?;
            return Ok(if greater { Requirement::Greater(key, limit) } else { Requirement::Less(key, limit) });
        }
    }
    let (negated, set) = match (rest.strip_prefix("notin"), rest.strip_prefix("in")) {
        (Some(set), _) => (true, set),
        (None, Some(set)) => (false, set),
        (None, None) => return Err(format!("found '{rest}', expected: in, notin, =, ==, !=, gt, lt")),
    };
    let inner = set.trim().strip_prefix('(').and_then(|set| set.strip_suffix(')'));
    let inner = inner.ok_or_else(|| format!("found '{}' expected: '('", set.trim()))?;
    let values = inner.split(',').map(|value| checked_value(value.trim())).collect::<Result<Vec<_>, _>>()?;
    Ok(if negated { Requirement::NotIn(key, values) } else { Requirement::In(key, values) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    fn selects(labels: &str, object: &Value) -> bool {
        Selector::parse(labels, "", |_| Ok(())).unwrap().matches(object)
    }

    #[test]
    fn every_operator_of_the_label_syntax_works() {
        let object = json!({ "metadata": { "labels": { "app": "web", "tier": "2", "example.com/x": "" } } });
        for text in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "other!=db",
            "app in (db, web)",
            "app notin (db)",
            "other notin (db)",
            "app",
            "!other",
            "tier>1",
            "tier<3",
            "example.com/x=",
            "app in (web),tier in (2,3)",
        ] {
            assert!(selects(text, &object), "{text}");
        }
        for text in ["app=db", "app!=web", "app notin (web)", "other", "!app", "tier>2", "app=web,tier=3"] {
            assert!(!selects(text, &object), "{text}");
        }
    }

    #[test]
    fn bad_selectors_are_refused_with_400() {
        for text in ["app in web", "a b", ",", "-x=1", "app=a b"] {
            let error = Selector::parse(text, "", |_| Ok(())).unwrap_err();
            assert_eq!((error.code, error.reason), (400, "BadRequest"), "{text}");
        }
    }

    #[test]
    fn fields_are_compared_by_path() {
        let object = json!({ "metadata": { "name": "x" }, "involvedObject": { "kind": "Pod" } });
        let parse = |text: &str| Selector::parse("", text, |_| Ok(())).unwrap();
        assert!(parse("metadata.name=x,involvedObject.kind!=Node").matches(&object));
        assert!(!parse("metadata.name=y").matches(&object));
        assert!(Selector::parse("", "spec.foo=1", |_| Err(String::new())).is_err());
    }
}
