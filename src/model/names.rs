//! Names that cannot be wrong once they exist.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a Kubernetes object, in bytes (RFC 1123 subdomain).
pub const MAX_NAME: usize = 253;

/// The name of a Restore: an RFC 1123 subdomain, as Kubernetes wants object names.
///
/// ```
/// use reprise::model::RestoreName;
/// assert!("nightly-20260101.eu".parse::<RestoreName>().is_ok());
/// for refused in ["", "Upper", "-dash", "dash-", "under_score", "a..b"] {
///     assert!(refused.parse::<RestoreName>().is_err(), "{refused}");
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RestoreName(String);

/// A text that is no name of a Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a Kubernetes name: use lower-case letters, digits, '-' and '.', begin and end each part with a \
     letter or digit, and stay within {MAX_NAME} characters"
)]
pub struct InvalidName(String);

impl RestoreName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` is an RFC 1123 subdomain, the form of most Kubernetes object names.
#[must_use]
pub fn is_dns_subdomain(text: &str) -> bool {
    let part_is_valid = |part: &str| {
        let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(&first), Some(&last)) if edge(first) && edge(last))
            && bytes.iter().all(|&byte| edge(byte) || byte == b'-')
    };
    text.len() <= MAX_NAME && text.split('.').all(part_is_valid)
}

impl FromStr for RestoreName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_dns_subdomain(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.to_owned())) }
    }
}

impl TryFrom<String> for RestoreName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RestoreName> for String {
    fn from(name: RestoreName) -> Self {
        name.0
    }
}

impl fmt::Display for RestoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
