//! The order of API versions.

use std::cmp::{Ordering, Reverse};

/// How stable a version is, from the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stability {
    Alpha,
    Beta,
    Stable,
}

/// `v2beta1` in its parts, to be compared: stability, major, minor.
fn parts(version: &str) -> Option<(Stability, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    for (word, stability) in [("alpha", Stability::Alpha), ("beta", Stability::Beta)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, number(major)?, number(minor)?));
        }
    }
    Some((Stability::Stable, number(rest)?, 0))
}

/// Orders API versions as Kubernetes does, the one to prefer first: stable, beta, alpha; then the higher number; names of another
/// form last, by the alphabet (restore-semantics 3.4).
///
/// ```
/// use reprise::engine::discovery::compare_versions;
/// let mut versions = ["foo", "v1alpha1", "v1", "v2beta1", "v10", "v1beta2", "bar"];
/// versions.sort_by(|a, b| compare_versions(a, b));
/// assert_eq!(versions, ["v10", "v1", "v2beta1", "v1beta2", "v1alpha1", "bar", "foo"]);
/// ```
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parts(a), parts(b)) {
        (Some(a), Some(b)) => Reverse(a).cmp(&Reverse(b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}
