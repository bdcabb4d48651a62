//! Name globs and label selectors, as hooks and resource modifiers use them.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use crate::model::LabelSelector;

/// A glob of Velero (restore-semantics 4.3): `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`, `{a,b}` and `\` escapes.
#[derive(Clone, Debug)]
pub struct Glob(Regex);

/// A glob that does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern {0:?} is no glob: close its brackets and braces, and end no pattern with a backslash")]
pub struct InvalidGlob(String);

impl Glob {
    /// Compiles a glob; with a separator, `*` and `?` do not cross it, and `**` does.
    ///
    /// # Errors
    ///
    /// Brackets or braces are not closed, or nothing follows a backslash.
    pub fn new(pattern: &str, separator: Option<char>) -> Result<Self, InvalidGlob> {
        let invalid = || InvalidGlob(pattern.to_owned());
        let one =
            separator.map_or("(?s:.)".to_owned(), |separator| format!("[^{}]", regex::escape(&separator.to_string())));
        let mut regex = String::from("^");
        let mut braces = 0_u32;
        let mut chars = pattern.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    while chars.next_if_eq(&'*').is_some() {}
                    regex.push_str("(?s:.)*");
                }
                '*' => {
                    regex.push_str(&one);
                    regex.push('*');
                }
                '?' => regex.push_str(&one),
                '[' => regex.push_str(&class(&mut chars).ok_or_else(invalid)?),
                '{' => {
                    braces += 1;
                    regex.push_str("(?:");
                }
                '}' if braces > 0 => {
                    braces -= 1;
                    regex.push(')');
                }
                ',' if braces > 0 => regex.push('|'),
                '\\' => regex.push_str(&escape(chars.next().ok_or_else(invalid)?)),
                other => regex.push_str(&escape(other)),
            }
        }
        if braces > 0 {
            return Err(invalid());
        }
        regex.push('$');
        Regex::new(&regex).map(Self).map_err(|_| invalid())
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

fn escape(char: char) -> String {
    regex::escape(char.encode_utf8(&mut [0; 4]))
}

/// The rest of a character class, after its `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut class = String::from(if chars.next_if_eq(&'!').is_some() { "[^" } else { "[" });
    let start = class.len();
    loop {
        match chars.next()? {
            ']' if class.len() > start => return Some(class + "]"),
            ']' => return None,
            '\\' => class.push_str(&escape(chars.next()?)),
            '-' => class.push('-'),
            // Inside a class, regex gives these a meaning that globs do not have.
            other @ ('^' | '&' | '~' | '[') => class.extend(['\\', other]),
            other => class.push(other),
        }
    }
}

/// Includes and excludes of names without separators (restore-semantics 4.3): excludes win, no includes are all.
///
/// # Errors
///
/// A pattern does not compile. Velero then takes nothing and says nothing; here it is said.
pub fn takes(includes: &[String], excludes: &[String], name: &str) -> Result<bool, InvalidGlob> {
    let any = |patterns: &[String]| {
        patterns.iter().try_fold(false, |found, pattern| Ok(found | Glob::new(pattern, None)?.matches(name)))
    };
    Ok(!any(excludes)? && (includes.is_empty() || any(includes)?))
}

/// A requirement of a label selector that has an unknown operator or the wrong number of values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "label selector requirement on {key:?} with operator {operator:?} is not valid: use In or NotIn with values, \
     Exists or DoesNotExist without"
)]
pub struct InvalidRequirement {
    key: String,
    operator: String,
}

/// Whether labels match a selector; an empty selector matches all.
///
/// # Errors
///
/// A requirement is not valid.
pub fn labels_match(selector: &LabelSelector, labels: &BTreeMap<&str, &str>) -> Result<bool, InvalidRequirement> {
    let mut matches =
        selector.match_labels.iter().all(|(key, value)| labels.get(key.as_str()) == Some(&value.as_str()));
    for requirement in &selector.match_expressions {
        let value = labels.get(requirement.key.as_str());
        let listed = value.is_some_and(|value| requirement.values.iter().any(|allowed| allowed == value));
        matches &= match (requirement.operator.as_str(), requirement.values.is_empty()) {
            ("In", false) => listed,
            ("NotIn", false) => !listed,
            ("Exists", true) => value.is_some(),
            ("DoesNotExist", true) => value.is_none(),
            _ => {
                let (key, operator) = (requirement.key.clone(), requirement.operator.clone());
                return Err(InvalidRequirement { key, operator });
            }
        };
    }
    Ok(matches)
}

/// The labels of an object.
#[must_use]
pub fn labels_of(object: &Value) -> BTreeMap<&str, &str> {
    let labels = object["metadata"]["labels"].as_object();
    labels.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn matches(pattern: &str, separator: Option<char>, text: &str) -> bool {
        Glob::new(pattern, separator).unwrap().matches(text)
    }

    #[test]
    fn a_star_crosses_everything_without_a_separator_and_no_dot_with_it() {
        // restore-semantics 4.3 and 8
        assert!(matches("*.apps", None, "a.b.apps"));
        assert!(matches("*.apps", Some('.'), "deployments.apps"));
        assert!(!matches("*.*", Some('.'), "ingresses.networking.k8s.io"));
        assert!(matches("**", Some('.'), "ingresses.networking.k8s.io"));
        assert!(matches("*", Some('.'), "pods"));
        assert!(!matches("*", Some('.'), "deployments.apps"));
        assert!(!matches("a?c", Some('.'), "a.c"));
    }

    #[test]
    fn classes_alternatives_and_escapes_are_those_of_4_3() {
        for (pattern, yes, no) in [
            ("team-[ab]", "team-a", "team-c"),
            ("team-[a-c]", "team-b", "team-d"),
            ("team-[!abc]", "team-d", "team-a"),
            ("{dev,test}-*", "test-1", "prod-1"),
            (r"a\*", "a*", "ab"),
            ("a.c", "a.c", "abc"),
            ("x}", "x}", "x"),
        ] {
            assert!(matches(pattern, None, yes) && !matches(pattern, None, no), "{pattern}");
        }
        for broken in ["[", "[]", "{a", "a\\", "[z-a]"] {
            assert!(Glob::new(broken, None).is_err(), "{broken}");
        }
    }

    #[test]
    fn excludes_win_over_includes() {
        let list = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(takes(&[], &list(&["kube-*"]), "app").unwrap());
        assert!(!takes(&list(&["*"]), &list(&["kube-*"]), "kube-system").unwrap());
        assert!(!takes(&list(&["a", "b"]), &[], "c").unwrap());
        assert!(takes(&list(&["["]), &[], "c").is_err());
    }

    #[test]
    fn selectors_match_as_kubernetes_has_it() {
        let object = json!({"metadata": {"labels": {"app": "db", "tier": "back"}}});
        let labels = labels_of(&object);
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "db"}}), true),
            (json!({"matchLabels": {"app": "db", "x": "y"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}), true),
            (json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["db"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), true),
        ] {
            let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(labels_match(&parsed, &labels).unwrap(), expected, "{selector}");
        }
        let wrong = json!({"matchExpressions": [{"key": "app", "operator": "Has"}]});
        assert!(labels_match(&serde_json::from_value(wrong).unwrap(), &labels).is_err());
    }

    proptest! {
        #[test]
        fn any_pattern_compiles_or_is_refused_and_a_plain_name_matches_itself_alone(
            pattern in "\\PC{0,12}", name in "[a-z0-9.-]{1,12}", other in "[a-z0-9.-]{1,12}",
        ) {
            let _ = Glob::new(&pattern, Some('.'));
            prop_assert!(matches(&name, None, &name) && matches(&name, Some('.'), &name));
            prop_assert_eq!(matches(&name, None, &other), name == other);
        }
    }
}
