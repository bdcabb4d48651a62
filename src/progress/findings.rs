//! Warnings and errors: complete for the results file up to a bound, with typed reasons for the first of them.

use std::collections::HashMap;

use crate::model::{Bucket, Finding, Reason, Results, Severity, TypedFinding};

/// Findings that are kept at all, and so stand in the results file. At 200 bytes each this is 20 MB.
pub const MAX_FINDINGS: usize = 100_000;

/// Findings that `GetResults` tells with their reason.
pub const MAX_TYPED: usize = 10_000;

/// Warnings and errors with typed reasons, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptFindings {
    /// The warnings that are kept, in the order they occurred.
    pub warnings: Vec<TypedFinding>,
    /// The errors that are kept, in the order they occurred.
    pub errors: Vec<TypedFinding>,
    /// All warnings, kept or not.
    pub all_warnings: u64,
    /// All errors, kept or not.
    pub all_errors: u64,
}

#[derive(Debug)]
struct Kept {
    message: Box<str>,
    bucket: u32,
    severity: Severity,
    reason: Reason,
}

/// The findings of one restore, in the order they occurred.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Kept>,
    buckets: Vec<Bucket>,
    numbers: HashMap<Bucket, u32>,
    warnings: u64,
    errors: u64,
    warnings_left_out: u64,
    errors_left_out: u64,
}

impl Findings {
    /// Takes a finding; `false` when it is only counted, as there are too many.
    pub(super) fn add(&mut self, finding: &Finding, reason: Reason) -> bool {
        let full = self.kept.len() >= MAX_FINDINGS;
        let (count, left_out) = match finding.severity {
            Severity::Warning => (&mut self.warnings, &mut self.warnings_left_out),
            Severity::Error => (&mut self.errors, &mut self.errors_left_out),
        };
        *count += 1;
        if full {
            *left_out += 1;
            return false;
        }
        let bucket = match self.numbers.get(&finding.bucket) {
            Some(&number) => number,
            None => {
                let number = u32::try_from(self.buckets.len()).unwrap_or(u32::MAX);
                self.buckets.push(finding.bucket.clone());
                self.numbers.insert(finding.bucket.clone(), number);
                number
            }
        };
        let message = Box::from(finding.message.as_str());
        self.kept.push(Kept { message, bucket, severity: finding.severity, reason });
        true
    }

    pub(super) fn warnings(&self) -> u64 {
        self.warnings
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    /// The content of the results file (restore-semantics 9.2). Where findings were left out, one line says so.
    pub(super) fn results(&self) -> Results {
        let mut results = Results::default();
        results.extend(self.kept.iter().map(|kept| Finding {
            severity: kept.severity,
            bucket: self.bucket(kept),
            message: kept.message.to_string(),
        }));
        let left_out = [
            (Severity::Warning, self.warnings_left_out, "warnings"),
            (Severity::Error, self.errors_left_out, "errors"),
        ];
        for (severity, count, what) in left_out {
            if count > 0 {
                let message = format!("{count} more {what} are not listed here; the log of the restore has them");
                results.add(Finding { severity, bucket: Bucket::Velero, message });
            }
        }
        results
    }

    /// The first findings with their reasons.
    pub(super) fn typed(&self) -> KeptFindings {
        let mut found =
            KeptFindings { all_warnings: self.warnings, all_errors: self.errors, ..KeptFindings::default() };
        for kept in self.kept.iter().take(MAX_TYPED) {
            let list = match kept.severity {
                Severity::Warning => &mut found.warnings,
                Severity::Error => &mut found.errors,
            };
            list.push(TypedFinding {
                bucket: self.bucket(kept),
                reason: kept.reason,
                message: kept.message.to_string(),
            });
        }
        found
    }

    fn bucket(&self, kept: &Kept) -> Bucket {
        self.buckets.get(kept.bucket as usize).cloned().unwrap_or(Bucket::Velero)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn finding(severity: Severity, bucket: Bucket, message: &str) -> Finding {
        Finding { severity, bucket, message: message.to_owned() }
    }

    #[test]
    fn results_keep_the_order_within_each_bucket() {
        let mut findings = Findings::default();
        findings.add(&finding(Severity::Error, Bucket::of("shop"), "first"), Reason::Quota);
        findings.add(&finding(Severity::Warning, Bucket::Cluster, "differs"), Reason::Conflict);
        findings.add(&finding(Severity::Error, Bucket::of("shop"), "second"), Reason::Invalid);
        let results = findings.results();
        assert_eq!(results.errors.namespaces["shop"], ["first", "second"]);
        assert_eq!(results.warnings.cluster, ["differs"]);
        let typed = findings.typed();
        assert_eq!((typed.all_warnings, typed.all_errors), (1, 2));
        assert_eq!(typed.errors[1].reason, Reason::Invalid);
    }

    #[test]
    fn beyond_a_hundred_thousand_findings_one_line_says_how_many_more() {
        let mut findings = Findings::default();
        let one = finding(Severity::Error, Bucket::of("shop"), "no");
        for _ in 0..MAX_FINDINGS + 7 {
            findings.add(&one, Reason::Other);
        }
        let results = findings.results();
        assert_eq!(results.errors.namespaces["shop"].len(), MAX_FINDINGS);
        assert_eq!(results.errors.velero, ["7 more errors are not listed here; the log of the restore has them"]);
        assert!(results.warnings.velero.is_empty());
        assert_eq!(findings.errors(), 100_007);
        assert_eq!(findings.typed().errors.len(), MAX_TYPED);
    }
}
