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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    /// Kubernetes' own form of a version, and what is compared of it: GA before beta before alpha, then the numbers.
    fn naive(version: &str) -> Option<(u8, u64, u64)> {
        let form = Regex::new("^v([0-9]+)(?:(alpha|beta)([0-9]+))?$").unwrap();
        let parts = form.captures(version)?;
        let number = |at: usize| parts.get(at).map_or(Some(0), |digits| digits.as_str().parse().ok());
        let stability = match parts.get(2).map(|word| word.as_str()) {
            None => 2,
            Some("beta") => 1,
            Some(_) => 0,
        };
        Some((stability, number(1)?, number(3)?))
    }

    fn versions() -> impl Strategy<Value = String> {
        prop_oneof![3 => "v[0-9]{1,2}((alpha|beta)[0-9]{1,2})?", 1 => "v[0-9]?(alpha|beta)?[0-9]?", 1 => "[a-c0-9v]{1,4}"]
    }

    proptest! {
        /// restore-semantics 3.4
        #[test]
        fn versions_are_in_the_order_of_kubernetes(a in versions(), b in versions(), c in versions()) {
            let expected = match (naive(&a), naive(&b)) {
                (Some(of_a), Some(of_b)) => of_b.cmp(&of_a),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => a.cmp(&b),
            };
            prop_assert_eq!(compare_versions(&a, &b), expected, "{} {}", a, b);
            prop_assert_eq!(compare_versions(&b, &a), expected.reverse());
            let in_order = |a: &str, b: &str| compare_versions(a, b).is_le();
            prop_assert!(!(in_order(&a, &b) && in_order(&b, &c)) || in_order(&a, &c), "{} {} {}", a, b, c);
        }
    }
}
