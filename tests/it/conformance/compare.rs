//! What an engine did against what Velero did.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::differences::{self, KNOWING, Knowing};
use super::normalize::{self, Context};
use super::values::{entries, items, short, text};

/// What a case left behind, normalised; `expected/` holds the same of Velero.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// By Restore (and `DownloadRequest/<name>`).
    pub(super) status: Value,
    /// By Restore.
    pub(super) results: Value,
    /// By Restore.
    pub(super) resource_lists: Value,
    /// By Restore.
    pub(super) volumeinfo: Value,
    /// By Restore.
    pub(super) itemoperations: Value,
    /// By `group-resource/namespace/name`.
    pub(super) objects: BTreeMap<String, Value>,
    /// By the same keys.
    pub(super) managed_fields: BTreeMap<String, Value>,
    /// Group-resources in the order of the first create request.
    pub(super) order: Vec<String>,
    /// Why the case could not be run to its end.
    pub(super) broken: Option<String>,
}

impl Default for Seen {
    fn default() -> Self {
        let (order, objects) = (vec![], BTreeMap::new());
        Self {
            status: json!({}),
            results: json!({}),
            resource_lists: json!({}),
            volumeinfo: json!({}),
            itemoperations: json!({}),
            managed_fields: objects.clone(),
            objects,
            order,
            broken: None,
        }
    }
}

impl Seen {
    /// What Velero did.
    pub(super) fn expected(case: &str) -> Self {
        let folder = super::folder().join("cases").join(case).join("expected");
        let json = |name: &str| -> Value { parse(&folder.join(name), &read(&folder.join(name))) };
        let by_key = |name: &str, field: &str| {
            let path = folder.join(name);
            let lines = read(&path);
            let lines = lines.lines().map(|line| parse(&path, line));
            lines.map(|line| (text(&line, &["key"]).to_string(), line[field].clone())).collect::<BTreeMap<_, _>>()
        };
        let mut managed_fields = by_key("managed-fields.jsonl", "managedFields");
        // Sorted again, so that a tie is broken on both sides in the same way.
        for fields in managed_fields.values_mut().filter_map(Value::as_array_mut) {
            normalize::sort_managed_fields(fields);
        }
        let mut volumeinfo = json("volumeinfo.json");
        for volumes in volumeinfo.as_object_mut().into_iter().flat_map(|m| m.values_mut()) {
            *volumes = normalize::volumeinfo(volumes);
        }
        Self {
            status: json("status.json"),
            results: json("results.json"),
            resource_lists: json("resource-list.json"),
            volumeinfo,
            itemoperations: json("itemoperations.json"),
            objects: by_key("objects.jsonl", "object"),
            managed_fields,
            order: items(&json("order.json")).filter_map(Value::as_str).map(str::to_string).collect(),
            broken: None,
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()))
}

fn parse(path: &Path, text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the comparison found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Any of these fails the case.
    pub(super) differences: Vec<String>,
    /// Differences in what is compared loosely.
    pub(super) notes: Vec<String>,
    /// Differences that the project chose.
    pub(super) knowing: Vec<String>,
}

/// Compares with Velero, the chosen differences excused.
pub(super) fn verdict(case: &str, got: &Seen, strict: bool) -> Verdict {
    let knowing: Vec<Knowing> = KNOWING.iter().filter(|k| k.case == super::number(case)).copied().collect();
    verdict_with(case, got, strict, &knowing)
}

/// Compares with Velero, these differences excused.
pub(super) fn verdict_with(case: &str, got: &Seen, strict: bool, knowing: &[Knowing]) -> Verdict {
    let mut want = Seen::expected(case);
    let mut verdict = Verdict::default();
    let mut used = vec![false; knowing.len()];
    for (entry, used) in knowing.iter().zip(&mut used) {
        let excused = differences::adapt(entry, &mut want, got);
        *used = !excused.is_empty();
        verdict.knowing.extend(excused);
    }
    let mut found = Verdict::default();
    found.differences.extend(got.broken.clone());
    compare(&want, got, &Context::of(case), strict, &mut found);
    let mut excused = false;
    for line in found.differences {
        // Indented lines belong to the one above them.
        if excused && line.starts_with("    ") {
            verdict.knowing.push(line);
            continue;
        }
        excused = false;
        match knowing.iter().position(|k| differences::excuses_line(k, &line)) {
            Some(at) => {
                used[at] = true;
                excused = true;
                verdict.knowing.push(format!("{}: {line}", knowing[at].entry));
            }
            None => verdict.differences.push(line),
        }
    }
    for (entry, _) in knowing.iter().zip(used).filter(|(_, used)| !used) {
        let line =
            format!("the knowing difference {:?} of {} excuses nothing: take it out", entry.entry, entry.restore);
        verdict.differences.push(line);
    }
    verdict.notes = found.notes;
    verdict
}

fn compare(want: &Seen, got: &Seen, context: &Context, strict: bool, out: &mut Verdict) {
    let names: BTreeSet<&String> = entries(&want.status).chain(entries(&got.status)).map(|(name, _)| name).collect();
    for name in names {
        match (want.status.get(name), got.status.get(name)) {
            (None, _) => out.differences.push(format!("status: restore {name} unexpected")),
            (_, None) => out.differences.push(format!("status: restore {name} not finished")),
            (Some(w), Some(g)) => {
                if !compare_status(name, w, g, strict, out) {
                    continue;
                }
                compare_results(name, &want.results[name], &got.results[name], context, strict, out);
                for (what, w, g) in [
                    ("resource-list", &want.resource_lists, &got.resource_lists),
                    ("volumeinfo", &want.volumeinfo, &got.volumeinfo),
                    ("itemoperations", &want.itemoperations, &got.itemoperations),
                ] {
                    diff(&w[name], &g[name], &format!("{what} {name}"), &mut out.differences);
                }
            }
        }
    }
    for key in want.objects.keys().chain(got.objects.keys()).collect::<BTreeSet<_>>() {
        match (want.objects.get(key), got.objects.get(key)) {
            (Some(w), Some(g)) => diff_under(w, g, &format!("object {key}: "), &mut out.differences),
            (Some(_), None) => out.differences.push(format!("object {key}: missing")),
            (None, _) => out.differences.push(format!("object {key}: not there with velero")),
        }
    }
    for (key, w) in &want.managed_fields {
        // An object that is on one side only was reported above.
        if let Some(g) = got.managed_fields.get(key) {
            diff_under(w, g, &format!("managed fields of {key}: "), &mut out.differences);
        }
    }
    let w: Vec<_> = want.order.iter().filter(|k| got.order.contains(k)).collect();
    let g: Vec<_> = got.order.iter().filter(|k| want.order.contains(k)).collect();
    if w != g {
        loosely(strict, out).push(format!("creation order of kinds: velero {w:?}, engine {g:?}"));
    }
}

fn loosely(strict: bool, out: &mut Verdict) -> &mut Vec<String> {
    if strict { &mut out.differences } else { &mut out.notes }
}

/// Whether there are files to compare too: not for download requests and for Restores that went away.
fn compare_status(name: &str, want: &Value, got: &Value, strict: bool, out: &mut Verdict) -> bool {
    if want.get("validationErrors").is_none() || got.get("validationErrors").is_none() {
        diff(want, got, &format!("status {name}"), &mut out.differences);
        return false;
    }
    let (mut w, mut g) = (want.clone(), got.clone());
    let mut take = |key: &str| {
        let of = |v: &mut Value| v.as_object_mut().and_then(|m| m.remove(key)).unwrap_or_default();
        (of(&mut w), of(&mut g))
    };
    let (want_errors, got_errors) = take("validationErrors");
    let (want_reason, got_reason) = take("failureReason");
    diff(&w, &g, &format!("status {name}"), &mut out.differences);
    let (wanted, found) = (items(&want_errors).count(), items(&got_errors).count());
    if wanted != found {
        out.differences.push(format!(
            "status {name}: velero has {wanted} validation errors {}, engine {found} {}",
            short(&want_errors),
            short(&got_errors)
        ));
    } else if want_errors != got_errors {
        loosely(strict, out).push(format!(
            "status {name}: validation error texts differ: velero {}, engine {}",
            short(&want_errors),
            short(&got_errors)
        ));
    }
    let is_empty = |v: &Value| text(v, &[]).is_empty();
    if is_empty(&want_reason) != is_empty(&got_reason) {
        let line =
            format!("status {name}: failureReason: velero {}, engine {}", short(&want_reason), short(&got_reason));
        out.differences.push(line);
    } else if want_reason != got_reason {
        loosely(strict, out).push(format!(
            "status {name}: failureReason text differs: velero {}, engine {}",
            short(&want_reason),
            short(&got_reason)
        ));
    }
    true
}

/// Messages by `severity/bucket`.
fn buckets(results: &Value) -> BTreeMap<String, Vec<&str>> {
    let messages = |list| items(list).filter_map(Value::as_str).collect::<Vec<_>>();
    let mut out = BTreeMap::new();
    for (severity, found) in entries(results) {
        for (bucket, list) in entries(found) {
            if bucket == "namespaces" {
                for (namespace, list) in entries(list) {
                    out.insert(format!("{severity}/namespaces[{namespace}]"), messages(list));
                }
            } else {
                out.insert(format!("{severity}/{bucket}"), messages(list));
            }
        }
    }
    out
}

fn compare_results(name: &str, want: &Value, got: &Value, context: &Context, strict: bool, out: &mut Verdict) {
    if want.is_null() != got.is_null() {
        let what = if want.is_null() { "not written by velero" } else { "missing" };
        out.differences.push(format!("results {name}: file {what}"));
    }
    let (want, got) = (buckets(want), buckets(got));
    for bucket in want.keys().chain(got.keys()).collect::<BTreeSet<_>>() {
        let none = vec![];
        let (w, g) = (want.get(bucket).unwrap_or(&none), got.get(bucket).unwrap_or(&none));
        if w.len() != g.len() {
            let lines = &mut out.differences;
            lines.push(format!("results {name} {bucket}: velero {} messages, engine {}", w.len(), g.len()));
            let cut = |m: &str| m.chars().take(240).collect::<String>();
            lines.extend(w.iter().take(8).map(|m| format!("    velero: {}", cut(m))));
            lines.extend(g.iter().take(8).map(|m| format!("    engine: {}", cut(m))));
            continue;
        }
        let subjects = |list: &[&str]| {
            let mut all: Vec<_> = list.iter().map(|m| context.subjects(m)).collect();
            all.sort();
            all
        };
        let (ws, gs) = (subjects(w), subjects(g));
        if ws != gs {
            loosely(strict, out).push(format!(
                "results {name} {bucket}: messages name other objects: velero {}, engine {}",
                short(&json!(ws)),
                short(&json!(gs))
            ));
        } else if strict && w != g {
            let first = |list: &[&str]| short(&json!(list.first()));
            out.notes.push(format!(
                "results {name} {bucket}: message texts differ, e.g. velero {}, engine {}",
                first(w),
                first(g)
            ));
        }
    }
}

fn same_type(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// Equal as values: 1 and 1.0 are.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64() && (x.is_f64() || y.is_f64()),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}

fn diff_under(want: &Value, got: &Value, heading: &str, out: &mut Vec<String>) {
    let mut lines = vec![];
    diff(want, got, "", &mut lines);
    out.extend(lines.into_iter().map(|line| format!("{heading}{line}")));
}

/// One line for each place where the two differ.
fn diff(want: &Value, got: &Value, path: &str, out: &mut Vec<String>) {
    let whole = |out: &mut Vec<String>| out.push(format!("{path}: velero {}, engine {}", short(want), short(got)));
    match (want, got) {
        _ if !same_type(want, got) => whole(out),
        (Value::Object(w), Value::Object(g)) => {
            for key in w.keys().chain(g.keys()).collect::<BTreeSet<_>>() {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (w.get(key), g.get(key)) {
                    (Some(w), Some(g)) => diff(w, g, &at, out),
                    (Some(w), None) => out.push(format!("{at}: missing, velero has {}", short(w))),
                    (None, g) => {
                        out.push(format!("{at}: not in velero's, engine has {}", short(g.unwrap_or(&Value::Null))))
                    }
                }
            }
        }
        (Value::Array(w), Value::Array(g)) => {
            let nested = w.iter().chain(g).all(|v| v.is_object() || v.is_array());
            if w.len() == g.len() && nested {
                for (n, (w, g)) in w.iter().zip(g).enumerate() {
                    diff(w, g, &format!("{path}[{n}]"), out);
                }
            } else if !equal(want, got) {
                whole(out);
            }
        }
        _ if !equal(want, got) => whole(out),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_that_differs_has_a_line_of_its_own() {
        let want = json!({"a": 1, "b": [{"c": "x"}], "d": ["p", "q"], "e": null, "f": true, "g": 1});
        let got = json!({"a": 1.0, "b": [{"c": "y"}], "d": ["q", "p"], "e": {}, "f": 1, "h": 2});
        let mut lines = vec![];
        diff(&want, &got, "s", &mut lines);
        let wanted = [
            r#"s.b[0].c: velero "x", engine "y""#,
            r#"s.d: velero ["p","q"], engine ["q","p"]"#,
            "s.e: velero null, engine {}",
            "s.f: velero true, engine 1",
            "s.g: missing, velero has 1",
            "s.h: not in velero's, engine has 2",
        ];
        assert_eq!(lines, wanted);
    }

    type Change = fn(&mut Seen);

    #[test]
    fn a_change_anywhere_in_what_is_compared_exactly_is_found() {
        let case = "01-basic-workload";
        let changes: [(&str, Change); 6] = [
            ("status", |s| s.status["c01-restore"]["progress"]["itemsRestored"] = json!(-1)),
            ("results", |s| s.results["c01-restore"]["errors"]["velero"] = json!(["one more"])),
            ("resource-list", |s| s.resource_lists["c01-restore"]["v1/Nothing"] = json!(["x(created)"])),
            ("volumeinfo", |s| s.volumeinfo["c01-restore"] = json!("?")),
            ("object", |s| drop(s.objects.pop_first())),
            ("managed fields of", |s| *s.managed_fields.values_mut().next().unwrap() = json!([{"manager": "?"}])),
        ];
        let whole = Seen::expected(case);
        let restores: Vec<&String> = entries(&whole.status).map(|(name, _)| name).collect();
        assert!(restores.contains(&&"c01-restore".to_string()), "{restores:?}");
        for (what, change) in changes {
            let mut seen = whole.clone();
            change(&mut seen);
            let lines = verdict_with(case, &seen, false, &[]).differences;
            assert!(lines.iter().any(|l| l.starts_with(what)), "{what}: {lines:#?}");
        }
    }
}
