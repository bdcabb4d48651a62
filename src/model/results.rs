//! Warnings and errors of a restore, in Velero's buckets (restore-semantics 9.2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whether a finding spoils the restore (`PartiallyFailed`) or only informs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Recorded as a warning; never changes the phase.
    Warning,
    /// Recorded as an error; the restore ends `PartiallyFailed`.
    Error,
}

/// Where a finding is filed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bucket {
    /// Operational problems: storage, plugins, namespaces that cannot be ensured.
    Velero,
    /// Cluster-scoped items.
    Cluster,
    /// Items of one target namespace.
    Namespace(String),
}

impl Bucket {
    /// `namespaces[ns]`, or `cluster` when the namespace is empty.
    #[must_use]
    pub fn of(namespace: &str) -> Self {
        if namespace.is_empty() { Self::Cluster } else { Self::Namespace(namespace.to_owned()) }
    }
}

/// One warning or error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Warning or error.
    pub severity: Severity,
    /// Where it is filed.
    pub bucket: Bucket,
    /// What happened, with the name of the thing.
    pub message: String,
}

/// The messages of one severity: `{"velero"?: [], "cluster"?: [], "namespaces"?: {ns: []}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Messages {
    /// Operational problems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub velero: Vec<String>,
    /// Cluster-scoped items.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<String>,
    /// Namespaced items by target namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, Vec<String>>,
}

impl Messages {
    /// How many messages there are in all buckets.
    #[must_use]
    pub fn count(&self) -> usize {
        self.velero.len() + self.cluster.len() + self.namespaces.values().map(Vec::len).sum::<usize>()
    }
}

/// Content of `restore-<r>-results.gz`: `{"errors": R, "warnings": R}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// The errors.
    pub errors: Messages,
    /// The warnings.
    pub warnings: Messages,
}

impl Results {
    /// Files a finding in its bucket, after those already there.
    pub fn add(&mut self, finding: Finding) {
        let messages = match finding.severity {
            Severity::Warning => &mut self.warnings,
            Severity::Error => &mut self.errors,
        };
        match finding.bucket {
            Bucket::Velero => messages.velero.push(finding.message),
            Bucket::Cluster => messages.cluster.push(finding.message),
            Bucket::Namespace(namespace) => messages.namespaces.entry(namespace).or_default().push(finding.message),
        }
    }
}

impl Messages {
    fn append(&mut self, other: Self) {
        self.velero.extend(other.velero);
        self.cluster.extend(other.cluster);
        for (namespace, messages) in other.namespaces {
            self.namespaces.entry(namespace).or_default().extend(messages);
        }
    }
}

impl Results {
    /// Adds what was found later.
    pub fn append(&mut self, later: Self) {
        self.errors.append(later.errors);
        self.warnings.append(later.warnings);
    }
}

impl Extend<Finding> for Results {
    fn extend<I: IntoIterator<Item = Finding>>(&mut self, findings: I) {
        findings.into_iter().for_each(|finding| self.add(finding));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// restore-semantics 9.2: buckets, the order of occurrence, and nothing for what is empty.
    #[test]
    fn findings_are_kept_by_bucket_in_the_order_they_occurred() {
        let finding = |severity, bucket: &Bucket, message: &str| Finding {
            severity,
            bucket: bucket.clone(),
            message: message.to_owned(),
        };
        assert_eq!((Bucket::of(""), Bucket::of("a")), (Bucket::Cluster, Bucket::Namespace("a".to_owned())));
        let mut results = Results::default();
        for (bucket, message) in [(Bucket::of("b"), "z"), (Bucket::of("a"), "2"), (Bucket::of("b"), "a")] {
            results.add(finding(Severity::Warning, &bucket, message));
        }
        let mut later = Results::default();
        later.extend([Bucket::Velero, Bucket::of(""), Bucket::of("a")].map(|of| finding(Severity::Error, &of, "e")));
        later.add(finding(Severity::Warning, &Bucket::of("a"), "1"));
        results.append(later);
        assert_eq!(
            serde_json::to_value(&results).unwrap(),
            json!({
                "errors": {"velero": ["e"], "cluster": ["e"], "namespaces": {"a": ["e"]}},
                "warnings": {"namespaces": {"a": ["2", "1"], "b": ["z", "a"]}},
            })
        );
        assert_eq!((results.warnings.count(), results.errors.count()), (4, 3));
        assert_eq!(serde_json::to_value(Results::default()).unwrap(), json!({"errors": {}, "warnings": {}}));
    }
}
