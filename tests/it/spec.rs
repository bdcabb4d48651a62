//! The specification in `docs/spec` and the differences from Velero, held against the code and its tests: each section has
//! a test that cites it, each difference has its test, and the lists that the text has in full are the code's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use reprise::controller::validate::NON_RESTORABLE;
use reprise::engine::actions::BUILT_IN;
use reprise::engine::collect::Priorities;
use reprise::engine::strip;
use reprise::model::Phase;
use reprise::storage::Layout;
use serde_json::{Value, json};

/// Sections of 1 to 9 that no test cites, each with its reason.
const UNCITED: &[(&str, &str)] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn spec() -> String {
    read("docs/spec/restore-semantics.md")
}

/// The number of a heading, such as `5.4.1` or `8`.
fn heading(line: &str) -> Option<&str> {
    let title = line.starts_with('#').then(|| line.trim_start_matches('#').trim_start())?;
    let number = title.split_whitespace().next()?.trim_end_matches('.');
    let is_number = number.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    is_number.then_some(number)
}

/// The sections of 1 to 9 that have rules: those with a point, and a chapter that has none of those.
fn sections(spec: &str) -> Vec<String> {
    let numbers: Vec<&str> = spec.lines().filter_map(heading).collect();
    let chapter = |number: &str| number.split('.').next().and_then(|chapter| chapter.parse::<u32>().ok());
    let has_parts = |number: &str| numbers.iter().any(|other| other.starts_with(&format!("{number}.")));
    let wanted = numbers.iter().filter(|number| chapter(number).is_some_and(|chapter| chapter <= 9));
    wanted.filter(|number| number.contains('.') || !has_parts(number)).map(|number| (*number).to_owned()).collect()
}

/// The text of one section, without its subsections.
fn section(number: &str) -> String {
    let spec = spec();
    let lines = spec.lines().skip_while(|line| heading(line) != Some(number)).skip(1);
    let text: Vec<&str> = lines.take_while(|line| heading(line).is_none()).collect();
    assert!(!text.is_empty(), "there is no section {number}");
    text.join("\n")
}

/// The words in backticks between two phrases of a text.
fn quoted<'a>(text: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let text = text.split_once(from).unwrap_or_else(|| panic!("{from:?} is not in the text")).1;
    let text =
        if to.is_empty() { text } else { text.split_once(to).unwrap_or_else(|| panic!("{to:?} is not in it")).0 };
    text.split('`').skip(1).step_by(2).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The tests of each file: of a source what follows `#[cfg(test)]`, of a file that is for tests only all of it.
fn tests() -> BTreeMap<String, String> {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    walk(&root().join("tests/it"), &mut files);
    let mut tests = BTreeMap::new();
    for path in files {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        let text = read(&name);
        let for_tests_only = name.starts_with("tests/")
            || name.ends_with("/tests.rs")
            || name.contains("/tests/")
            // Compiled for tests only, see `engine/mod.rs`.
            || name == "src/engine/recorded.rs";
        let part =
            if for_tests_only { Some(text.as_str()) } else { text.find("#[cfg(test)]\nmod").map(|at| &text[at..]) };
        if let Some(part) = part {
            tests.insert(name, part.to_owned());
        }
    }
    tests
}

/// The sections that comments of this text cite: every number on a line that names the specification.
fn citations(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.trim_start().starts_with("//"));
    let cited = lines.filter_map(|line| line.split_once("restore-semantics").map(|(_, after)| after));
    let words = cited.flat_map(|after| after.split(|letter: char| !letter.is_ascii_digit() && letter != '.'));
    words.map(|word| word.trim_matches('.').to_owned()).filter(|word| !word.is_empty()).collect()
}

#[test]
fn each_section_of_the_specification_has_a_test_that_cites_it() {
    let cited: BTreeSet<String> = tests().values().flat_map(|text| citations(text)).collect();
    let sections = sections(&spec());
    assert!(sections.len() > 50 && sections.contains(&"5.4.1".to_owned()) && sections.contains(&"8".to_owned()));
    let missing: Vec<&String> = sections.iter().filter(|number| !cited.contains(*number)).collect();
    let excused: Vec<&str> = UNCITED.iter().map(|(number, _)| *number).collect();
    assert_eq!(
        missing, excused,
        "sections without a test (left) and those that may be (right): write `restore-semantics N.M` on one"
    );
    // A citation of what is not there misleads. Chapters 10 and 11 are cited, too.
    let text = spec();
    let known: BTreeSet<&str> = text.lines().filter_map(heading).collect();
    let unknown: Vec<&String> =
        cited.iter().filter(|number| number.contains('.') && !known.contains(number.as_str())).collect();
    assert!(unknown.is_empty(), "cited, and in no heading of the specification: {unknown:?}");
}

#[test]
fn the_guide_to_the_tests_of_the_specification_has_every_section_and_names_what_is_there() {
    let guide = read("docs/spec/README.md");
    let rows: BTreeMap<&str, &str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .filter_map(|(number, rest)| heading(&format!("# {number}")).is_some().then_some((number.trim(), rest)))
        .collect();
    for number in sections(&spec()) {
        let row = rows.get(number.as_str()).unwrap_or_else(|| panic!("docs/spec/README.md has no row for {number}"));
        let files = row.split('`').skip(1).step_by(2).filter(|word| word.contains('/') && word.ends_with(".rs"));
        let files: Vec<&str> = files.collect();
        assert!(!files.is_empty(), "the row of {number} names no file");
        for file in files {
            assert!(root().join(file).is_file(), "the row of {number} names {file}, which is not there");
        }
    }
}

#[test]
fn each_difference_from_velero_has_a_test_that_is_there() {
    let document = read("docs/velero-differences.md");
    let all: String = tests().into_values().collect();
    let cases: BTreeSet<String> = fs::read_dir(root().join("tests/conformance/cases"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let entries: Vec<&str> = document.split("\n## ").skip(1).collect();
    assert!(entries.len() > 20);
    for entry in entries {
        let id = entry.lines().next().unwrap_or_default();
        let entry = entry.split("\n# ").next().unwrap_or_default();
        let test = entry.split_once("- **Test**:").unwrap_or_else(|| panic!("{id} has no test")).1;
        let names = test.split('`').skip(1).step_by(2).filter(|word| word.contains('_') && !word.contains('/'));
        let names: Vec<&str> = names.collect();
        let numbers = test.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| digits.len() == 2);
        let recorded: Vec<&str> = numbers.filter(|_| test.contains("conformance case")).collect();
        let elsewhere = test.contains("the same as for ") || test.contains("property tests in ");
        assert!(!names.is_empty() || !recorded.is_empty() || elsewhere, "{id} names no test: {test}");
        for name in names {
            assert!(all.contains(&format!("fn {name}(")), "{id} names the test {name}, which is not there");
        }
        for number in recorded {
            let begin = format!("{number}-");
            assert!(cases.iter().any(|case| case.starts_with(&begin)), "{id} names case {number}, which is not there");
        }
    }
}

/// restore-semantics 1.1
#[test]
fn the_phases_are_those_of_the_text() {
    let text = section("1.1");
    let row = text.lines().find(|line| line.starts_with("| `phase`")).unwrap();
    let named: Vec<&str> = quoted(row, "| enum |", ";");
    let ours: Vec<&str> = Phase::ALL.iter().map(|phase| phase.as_str()).collect();
    assert_eq!(named.iter().collect::<BTreeSet<_>>(), ours.iter().collect::<BTreeSet<_>>());
    let terminal: BTreeSet<&str> =
        Phase::ALL.iter().filter(|phase| phase.is_terminal()).map(|phase| phase.as_str()).collect();
    assert_eq!(terminal, ["Completed", "Failed", "FailedValidation", "PartiallyFailed"].into());
}

/// restore-semantics 1.1
#[test]
fn the_fields_of_a_restore_are_those_of_the_tables() {
    let crds = serde_json::to_value(reprise::velero::crds()).unwrap();
    let restore = crds.as_array().unwrap().iter().find(|crd| crd["spec"]["names"]["kind"] == "Restore").unwrap();
    let version = &restore["spec"]["versions"][0];
    assert!(version.get("subresources").is_none_or(|subresources| subresources.get("status").is_none()));
    let text = section("1.1");
    let (spec, status) = text.split_once("#### status").unwrap();
    for (part, table) in [("spec", spec), ("status", status)] {
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | ")).map(|(names, _)| names);
        let named = rows.flat_map(|names| names.split(['`', '/', ' ']).filter(|word| !word.is_empty()));
        // `restoreItemOperationsAttempted` / `...Completed` / `...Failed`
        let named: BTreeSet<String> = named.map(|name| name.replace("...", "restoreItemOperations")).collect();
        let schema = &version["schema"]["openAPIV3Schema"]["properties"][part]["properties"];
        let ours: BTreeSet<String> = schema.as_object().unwrap().keys().cloned().collect();
        assert_eq!(ours, named, "{part}");
    }
}

/// restore-semantics 1.4 rule 1
#[test]
fn the_non_restorable_resources_are_those_of_the_text() {
    let text = section("1.4");
    assert_eq!(quoted(&text, "in this order:", "(Persisted"), NON_RESTORABLE);
}

/// restore-semantics 2.1
#[test]
fn the_keys_of_the_storage_are_those_of_the_table() {
    let text = section("2.1");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let keys =
        rows.flat_map(|(keys, _)| keys.trim_end_matches('`').split("`, `").map(str::to_owned).collect::<Vec<_>>());
    let keys: BTreeSet<String> = keys.map(|key| key.replace("...", "backups/<b>/<b>")).collect();
    let layout = Layout::new("");
    let (b, r) = ("<b>", "<r>");
    let ours = [
        layout.backup_metadata(b),
        layout.backup_contents(b),
        layout.backup_log(b),
        layout.backup_pod_volume_backups(b),
        layout.backup_volume_snapshots(b),
        layout.backup_item_operations(b),
        layout.backup_resource_list(b),
        layout.backup_results(b),
        layout.backup_volume_info(b),
        layout.backup_csi_volume_snapshots(b),
        layout.backup_csi_volume_snapshot_contents(b),
        layout.backup_csi_volume_snapshot_classes(b),
        layout.restore_log(r),
        layout.restore_results(r),
        layout.restore_resource_list(r),
        layout.restore_item_operations(r),
        layout.restore_volume_info(r),
    ];
    assert_eq!(BTreeSet::from(ours), keys);
}

/// restore-semantics 4.1
#[test]
fn the_default_priorities_are_those_of_the_text() {
    let text = section("4.1");
    let default = Priorities::default();
    assert_eq!(default.high, quoted(&text, "\nHigh:", "\nLow:"));
    assert_eq!(default.low, quoted(&text, "\nLow:", "\nFlag syntax"));
}

/// restore-semantics 5.3 step 8
#[test]
fn stripping_removes_the_keys_of_the_text_and_keeps_those_it_names() {
    let text = section("5.3");
    let removed: Vec<&str> = quoted(&text, "delete metadata keys", ", and the whole `status`");
    let kept = ["name", "namespace", "labels", "annotations", "finalizers", "managedFields"];
    assert!(removed.len() == 9 && text.contains(&format!("**Kept: {}.**", kept.join(", "))));
    let metadata: BTreeMap<&str, Value> = removed.iter().chain(&kept).map(|key| (*key, json!("x"))).collect();
    let mut object = json!({"metadata": metadata, "status": {"phase": "x"}, "spec": {"uid": "x"}});
    assert_eq!(strip::strip(&mut object).unwrap(), Some(json!({"phase": "x"})));
    let left: BTreeMap<&str, &str> = kept.iter().map(|key| (*key, "x")).collect();
    assert_eq!(object, json!({"metadata": left, "spec": {"uid": "x"}}));
}

/// restore-semantics 7.0
#[test]
fn the_built_in_actions_are_those_of_the_text_in_its_order() {
    let text = section("7.0");
    let named = quoted(&text, "Concretely:", "\n\nSo a Pod");
    let ours: Vec<&str> = BUILT_IN.iter().map(|action| action.name).collect();
    assert_eq!(ours, named);
}

/// restore-semantics 9.4
#[test]
fn the_kinds_of_download_requests_are_those_of_the_text() {
    let crds = serde_json::to_value(reprise::velero::crds()).unwrap();
    let request =
        crds.as_array().unwrap().iter().find(|crd| crd["spec"]["names"]["kind"] == "DownloadRequest").unwrap();
    let properties = &request["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let text = section("9.4");
    assert_eq!(properties["target"]["properties"]["kind"]["enum"], json!(quoted(&text, "kinds:", ".\n`status")));
}
