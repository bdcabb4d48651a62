//! Label selectors, as Kubernetes checks, writes and matches them.
//!
//! There are two ways in: the structured selector of an object ([`Selector::new`]) and the text that `kubectl -l` and
//! Velero's `--selector` take ([`Selector::parse`]). The error texts are Kubernetes' own, because a bad selector of a
//! Restore is reported in its results (restore-semantics 1.4).
//!
//! ```
//! use reprise::model::selector::Selector;
//! let selector = Selector::parse("app=web, tier in (front,back), !canary").unwrap();
//! assert!(selector.matches([("app", "web"), ("tier", "front")]));
//! assert!(!selector.matches([("app", "web"), ("tier", "front"), ("canary", "")]));
//! assert!(Selector::parse("tier in front").is_err());
//! ```

mod syntax;
mod validation;

use std::fmt;

use serde_json::Value;

use super::{LabelSelector, SelectorRequirement};

/// Why a selector is refused; prints as Kubernetes words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An operator that no structured selector has.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    /// A key, or values, that no requirement can have.
    #[error("{}", aggregate(.0))]
    Invalid(Vec<String>),
    /// A text that is no selector.
    #[error("{0}")]
    Syntax(String),
    /// A part of a text that is no requirement.
    #[error("unable to parse requirement: {0}")]
    Requirement(Box<Error>),
    /// An operator that a text may have and a structured selector may not.
    #[error("{0:?} isn't supported in label selectors")]
    Unsupported(&'static str),
    /// Two values for a label in one text, of which a structured selector can keep only one.
    #[error("the label {key:?} is required to be {first:?} and {second:?} at once; name it once")]
    Contradiction {
        /// The label.
        key: String,
        /// The value that was named first.
        first: String,
        /// The other value.
        second: String,
    },
}

/// Several messages as one, as Kubernetes joins them.
fn aggregate(messages: &[String]) -> String {
    match messages {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// How a requirement relates its key and its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label has the value (`=`).
    Equals,
    /// The label has the value (`==`).
    DoubleEquals,
    /// The label is absent or has another value.
    NotEquals,
    /// The label is an integer greater than the value.
    GreaterThan,
    /// The label is an integer less than the value.
    LessThan,
}

impl Operator {
    /// How the operator is written in a text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::NotIn => "notin",
            Self::Exists => "exists",
            Self::DoesNotExist => "!",
            Self::Equals => "=",
            Self::DoubleEquals => "==",
            Self::NotEquals => "!=",
            Self::GreaterThan => "gt",
            Self::LessThan => "lt",
        }
    }
}

/// One requirement of a selector; valid once it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// A requirement, if Kubernetes would have it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong with the key and the values.
    pub fn new(key: impl Into<String>, operator: Operator, values: Vec<String>) -> Result<Self, Error> {
        let key = key.into();
        let messages = validation::requirement(&key, operator, &values);
        if messages.is_empty() { Ok(Self { key, operator, values }) } else { Err(Error::Invalid(messages)) }
    }

    /// The label's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The operator.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values, as they were given.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label with this value (`None` where it is absent) meets the requirement.
    #[must_use]
    pub fn is_met_by(&self, label: Option<&str>) -> bool {
        let is_listed = |value: &str| self.values.iter().any(|known| known == value);
        let compare = |value: &str| -> Option<std::cmp::Ordering> {
            let wanted: i64 = self.values.first()?.parse().ok()?;
            Some(value.parse::<i64>().ok()?.cmp(&wanted))
        };
        match (self.operator, label) {
            (Operator::Exists, label) => label.is_some(),
            (Operator::DoesNotExist, label) => label.is_none(),
            (Operator::In | Operator::Equals | Operator::DoubleEquals, label) => label.is_some_and(is_listed),
            (Operator::NotIn | Operator::NotEquals, label) => !label.is_some_and(is_listed),
            (Operator::GreaterThan, label) => label.and_then(compare).is_some_and(std::cmp::Ordering::is_gt),
            (Operator::LessThan, label) => label.and_then(compare).is_some_and(std::cmp::Ordering::is_lt),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::In | Operator::NotIn => write!(f, "{key} {} ({values})", self.operator.as_str()),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals => {
                write!(f, "{key}{}{values}", self.operator.as_str())
            }
        }
    }
}

/// Requirements on labels, all of which must hold; without any, everything matches.
///
/// It prints as text that [`Selector::parse`] and the API server's `labelSelector` parameter take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// Checks the structured selector of an object; an empty one matches everything.
    ///
    /// # Errors
    /// [`Error::Operator`] or [`Error::Invalid`] about the first requirement that is wrong, labels before expressions.
    pub fn new(selector: &LabelSelector) -> Result<Self, Error> {
        let mut requirements = Vec::with_capacity(selector.match_labels.len() + selector.match_expressions.len());
        for (key, value) in &selector.match_labels {
            requirements.push(Requirement::new(key.as_str(), Operator::Equals, vec![value.clone()])?);
        }
        for expression in &selector.match_expressions {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(Error::Operator(other.to_owned())),
            };
            requirements.push(Requirement::new(expression.key.as_str(), operator, expression.values.clone())?);
        }
        Ok(Self::sorted(requirements))
    }

    /// Reads the text form: `a=b,c in (d,e),!f,g!=h,g notin (x),i`.
    ///
    /// # Errors
    /// [`Error::Syntax`] or [`Error::Requirement`] with Kubernetes' text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        syntax::parse(text).map(Self::sorted)
    }

    fn sorted(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements }
    }

    /// The requirements, sorted by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it matches whatever labels there are.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels that are looked up by key meet all requirements.
    #[must_use]
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.is_met_by(label(&requirement.key)))
    }

    /// Whether these labels meet all requirements; the last of equal keys counts.
    #[must_use]
    pub fn matches<'a>(&self, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
        let labels: Vec<(&str, &str)> = labels.into_iter().collect();
        self.matches_by(|key| labels.iter().rev().find(|(known, _)| *known == key).map(|(_, value)| *value))
    }

    /// Whether the `metadata.labels` of an object meet all requirements.
    #[must_use]
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.matches_by(|key| labels.get(key).and_then(Value::as_str))
    }

    /// The structured form, as Velero's `--selector` makes one of its text. `!=` becomes `NotIn`, which means the same.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for `>` and `<`; [`Error::Contradiction`] for two values of one label.
    pub fn to_label_selector(&self) -> Result<LabelSelector, Error> {
        let mut structured = LabelSelector::default();
        for Requirement { key, operator, values } in &self.requirements {
            let name = match operator {
                Operator::Equals | Operator::DoubleEquals => {
                    let value = values.first().cloned().unwrap_or_default();
                    match structured.match_labels.get(key) {
                        Some(first) if *first != value => {
                            let first = first.clone();
                            return Err(Error::Contradiction { key: key.clone(), first, second: value });
                        }
                        _ => structured.match_labels.insert(key.clone(), value),
                    };
                    continue;
                }
                Operator::In => "In",
                Operator::NotIn | Operator::NotEquals => "NotIn",
                Operator::Exists => "Exists",
                Operator::DoesNotExist => "DoesNotExist",
                Operator::GreaterThan | Operator::LessThan => return Err(Error::Unsupported(operator.as_str())),
            };
            let (key, operator, values) = (key.clone(), name.to_owned(), values.clone());
            structured.match_expressions.push(SelectorRequirement { key, operator, values });
        }
        Ok(structured)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
