//! The conformance cases: recorded restores by Velero, run again with Reprise as the controller, and compared.
//!
//! `tests/conformance/cases` holds, per case, the backup as Velero wrote it, the state of the target cluster, the Restore
//! objects, and what Velero did with them (`expected/`). The runner gives an engine the same inputs on a real API server
//! and compares what it did: the whole status, the number of messages per severity and bucket, resource list, volume info,
//! item operations, objects, and managed fields exactly; texts of messages and the order of first creation loosely.
//!
//! - [`normalize`]: which values are dropped or replaced because no two runs agree on them (rules N1 to N12);
//! - [`compare`]: what counts as a difference;
//! - [`differences`]: the differences the project chose, each documented in `docs/velero-differences.md`;
//! - [`cluster`] and [`run`]: the cluster of the recordings, and a case run on it.
//!
//! `REPRISE_CONFORMANCE_CASES=01,05` selects cases; the other variables are listed in `tests/it/support/mod.rs`. One line per
//! case goes to standard error as it finishes, all differences to `conformance-report.txt` in the folder that cargo gives
//! to integration tests (`target/tmp`), the first ones of each case also to standard output (`-- --nocapture`).

mod cluster;
mod compare;
mod differences;
mod normalize;
mod run;
mod values;

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::support;

/// The cases that must match, by number. A case that is not here is run and reported, and may differ.
const REQUIRED: &[&str] = &[
    "01", "02", "04", "06", "08", "09", "10", "11", "13", "15", "16", "18", "19", "21", "22", "25", "26", "28", "29",
    "30", "31", "32", "34", "35",
];

/// Differences printed per case, as compare lines can run into the thousands for an engine that did nothing.
const MAX_LINES: usize = 40;

/// The folder with the cases and the manifests of the recordings' cluster.
fn folder() -> PathBuf {
    support::tests_dir().join("conformance")
}

/// The names of the cases to run, e.g. `01-basic-workload`.
fn selected() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder().join("cases"))
        .expect("tests/conformance/cases")
        .map(|entry| entry.expect("an entry of the folder").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let wanted = std::env::var("REPRISE_CONFORMANCE_CASES").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
    if !wanted.is_empty() {
        let is_wanted = |name: &String| wanted.iter().any(|w| name == w || number(name) == format!("{w:0>2}"));
        names.retain(is_wanted);
        assert!(!names.is_empty(), "REPRISE_CONFORMANCE_CASES={} names no case", wanted.join(","));
    }
    names
}

fn number(case: &str) -> &str {
    case.split('-').next().unwrap_or(case)
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_cases_match() {
    if !support::cluster_tests_enabled() {
        return;
    }
    let strict = std::env::var_os("REPRISE_CONFORMANCE_STRICT").is_some();
    let limit = if std::env::var_os("REPRISE_CONFORMANCE_ALL_LINES").is_some() { usize::MAX } else { MAX_LINES };
    let cases = selected();
    let mut report = String::new();
    let (mut matched, mut missed) = (0, vec![]);
    run::run_cases(&cases, |case, seconds, seen| {
        let verdict = compare::verdict(case, seen, strict);
        let passed = verdict.differences.is_empty();
        let required = REQUIRED.contains(&number(case));
        let mark = if passed { "PASS" } else { "FAIL" };
        let note = if required || passed { "" } else { ", not required yet" };
        let count = if passed { String::new() } else { format!(", {} lines of difference", verdict.differences.len()) };
        support::tools::say(&format!("{mark} {case} ({seconds:.1} s{count}{note})"));
        let _ = writeln!(report, "{mark} {case}");
        for line in &verdict.differences {
            let _ = writeln!(report, "    {line}");
        }
        for line in &verdict.knowing {
            let _ = writeln!(report, "    knowing: {line}");
        }
        for line in &verdict.notes {
            let _ = writeln!(report, "    note: {line}");
        }
        println!("{mark} {case}");
        for line in verdict.differences.iter().take(limit) {
            println!("    {line}");
        }
        if verdict.differences.len() > limit {
            println!("    … {} more lines", verdict.differences.len() - limit);
        }
        for line in verdict.knowing.iter().map(|l| format!("knowing: {l}")) {
            println!("    {line}");
        }
        for line in verdict.notes.iter().take(10).map(|l| format!("note: {l}")) {
            println!("    {line}");
        }
        if passed {
            matched += 1;
        } else if required {
            missed.push(case.to_string());
        }
    })
    .await;
    let sum = format!("{matched} of {} cases match", cases.len());
    let _ = writeln!(report, "{sum}");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("conformance-report.txt");
    std::fs::write(&path, report).unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
    println!("{sum}");
    support::tools::say(&format!("{sum}; differences in {}", path.display()));
    assert!(missed.is_empty(), "required cases that do not match: {}", missed.join(", "));
}

#[test]
fn the_recordings_match_themselves() {
    for case in selected() {
        let expected = compare::Seen::expected(&case);
        let verdict = compare::verdict_with(&case, &expected, true, &[]);
        assert!(verdict.differences.is_empty(), "{case}: {:#?}", verdict.differences);
        assert!(verdict.notes.is_empty(), "{case}: {:#?}", verdict.notes);
    }
}

#[test]
fn required_cases_exist_and_knowing_differences_are_documented() {
    let cases: Vec<String> = std::fs::read_dir(folder().join("cases"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    for required in REQUIRED {
        assert!(cases.iter().any(|c| number(c) == *required), "no case {required}");
    }
    differences::check_documented();
}
