//! The differences from Velero that the project chose.
//!
//! Each is documented under a heading in `docs/velero-differences.md`, and each line here excuses as little as it can. What
//! a restore leaves in the cluster (objects and managed fields) is never excused. An entry that excuses nothing any more is
//! itself a difference, so that this list cannot outlive its reasons.

use serde_json::{Value, json};

use super::compare::Seen;
use super::values::{items, text};

/// One chosen difference.
#[derive(Debug, Clone, Copy)]
pub(super) struct Knowing {
    /// The heading in `docs/velero-differences.md`.
    pub(super) entry: &'static str,
    /// The number of the case.
    pub(super) case: &'static str,
    /// The Restore it shows in.
    pub(super) restore: &'static str,
    /// What is excused.
    pub(super) excuse: Excuse,
}

/// What is excused.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "the variants wait for the first entry")]
pub(super) enum Excuse {
    /// For each of these items (as `(v1/ConfigMap, namespace/name)`, the way the resource list writes them) Velero warns that
    /// it "already exists" and lists it as failed, where the engine finds it unchanged: no warning, listed as skipped.
    UnchangedIsNoWarning(&'static [(&'static str, &'static str)]),
    /// Lines of difference that begin so, e.g. `status c01-a.hookStatus`. Not for objects and managed fields.
    Lines(&'static str),
}

/// The table.
pub(super) const KNOWING: &[Knowing] = &[];

/// Changes what Velero did into what it would have done with the chosen difference, where the engine shows exactly that.
/// Returns what was excused.
pub(super) fn adapt(knowing: &Knowing, want: &mut Seen, got: &Seen) -> Vec<String> {
    let Excuse::UnchangedIsNoWarning(listed) = knowing.excuse else { return vec![] };
    let mut excused = vec![];
    for (kind, item) in listed {
        let (failed, skipped) = (json!(format!("{item}(failed)")), json!(format!("{item}(skipped)")));
        let engine_skips = items(&got.resource_lists[knowing.restore][kind]).any(|e| *e == skipped);
        let bare_kind = kind.rsplit('/').next().unwrap_or(kind);
        let (namespace, name) = item.split_once('/').unwrap_or(("", item));
        let list = want.resource_lists.get_mut(knowing.restore).and_then(|l| l.get_mut(*kind)?.as_array_mut());
        let warnings = want.results.get_mut(knowing.restore).and_then(|r| r.get_mut("warnings"));
        let bucket = warnings.and_then(|w| {
            if namespace.is_empty() { w.get_mut("cluster") } else { w.get_mut("namespaces")?.get_mut(namespace) }
        });
        let (Some(list), Some(bucket)) = (list, bucket) else { continue };
        let Some(entry) = list.iter_mut().find(|e| **e == failed) else { continue };
        let warned = bucket.as_array().and_then(|messages| {
            messages.iter().filter_map(Value::as_str).position(|m| {
                m.contains("already exists")
                    && m.contains("different than the backed-up version")
                    && (m.contains(&format!("{bare_kind}:{name} ")) || m.contains(&format!("{bare_kind} \"{name}\" ")))
            })
        });
        let count = want.status[knowing.restore]["warnings"].as_i64();
        let (true, Some(warned), Some(count @ 1..)) = (engine_skips, warned, count) else { continue };
        *entry = skipped;
        list.sort_by_key(Value::to_string);
        if let Some(messages) = bucket.as_array_mut() {
            messages.remove(warned);
        }
        want.status[knowing.restore]["warnings"] = json!(count - 1);
        excused.push(format!("{}: {kind} {item}: unchanged, so no warning", knowing.entry));
    }
    excused
}

/// Whether this line of difference is excused.
pub(super) fn excuses_line(knowing: &Knowing, line: &str) -> bool {
    match knowing.excuse {
        Excuse::Lines(begin) => line.starts_with(begin) && !is_about_the_cluster(line),
        Excuse::UnchangedIsNoWarning(_) => false,
    }
}

fn is_about_the_cluster(line: &str) -> bool {
    line.starts_with("object ") || line.starts_with("managed fields ")
}

/// Panics for an entry that `docs/velero-differences.md` has no heading for, or that would excuse the cluster's state.
pub(super) fn check_documented() {
    if KNOWING.is_empty() {
        return;
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/velero-differences.md");
    let document = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
    let headings: Vec<&str> =
        document.lines().filter(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#').trim()).collect();
    for Knowing { entry, excuse, case, .. } in KNOWING {
        assert!(headings.contains(entry), "docs/velero-differences.md has no heading {entry:?} (case {case})");
        if let Excuse::Lines(begin) = excuse {
            assert!(!is_about_the_cluster(begin) && begin.contains(' '), "{entry}: {begin:?} excuses too much");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::{Seen, verdict_with};
    use super::*;

    const CASE: &str = "06-existing-none";
    const UNCHANGED: Knowing = Knowing {
        entry: "unchanged-is-no-warning",
        case: "06",
        restore: "c06-unset",
        excuse: Excuse::UnchangedIsNoWarning(&[("v1/ConfigMap", "c06-app/same")]),
    };

    /// What an engine that finds `same` unchanged would show.
    fn engine() -> Seen {
        let mut seen = Seen::expected(CASE);
        let warnings = &mut seen.results["c06-unset"]["warnings"]["namespaces"]["c06-app"];
        warnings.as_array_mut().unwrap().retain(|m| !m.as_str().unwrap().contains("ConfigMap:same "));
        seen.status["c06-unset"]["warnings"] = json!(text_count(&seen));
        let list = seen.resource_lists["c06-unset"]["v1/ConfigMap"].as_array_mut().unwrap();
        list.iter_mut().filter(|e| **e == "c06-app/same(failed)").for_each(|e| *e = json!("c06-app/same(skipped)"));
        seen
    }

    fn text_count(seen: &Seen) -> usize {
        items(&seen.results["c06-unset"]["warnings"]["namespaces"]["c06-app"]).count()
    }

    #[test]
    fn a_chosen_difference_is_excused_and_without_the_entry_it_is_not() {
        let bare = verdict_with(CASE, &engine(), true, &[]);
        assert_eq!(bare.differences.iter().filter(|l| !l.starts_with("    ")).count(), 3, "{:#?}", bare.differences);
        let excused = verdict_with(CASE, &engine(), true, &[UNCHANGED]);
        assert!(excused.differences.is_empty(), "{:#?}", excused.differences);
        assert_eq!(excused.knowing.len(), 1);
    }

    #[test]
    fn an_entry_that_excuses_nothing_is_a_difference() {
        let verdict = verdict_with(CASE, &Seen::expected(CASE), true, &[UNCHANGED]);
        assert_eq!(verdict.differences.len(), 1, "{:#?}", verdict.differences);
        assert!(verdict.differences[0].contains("unchanged-is-no-warning"), "{:#?}", verdict.differences);
    }

    #[test]
    fn objects_are_never_excused() {
        let lines = Knowing { excuse: Excuse::Lines("object configmaps/c06-app/same"), ..UNCHANGED };
        let mut seen = Seen::expected(CASE);
        seen.objects.remove("configmaps/c06-app/same").unwrap();
        let verdict = verdict_with(CASE, &seen, true, &[lines]);
        assert!(verdict.differences.contains(&"object configmaps/c06-app/same: missing".to_string()));
    }

    #[test]
    fn only_the_warning_about_the_item_itself_is_excused() {
        let mut seen = engine();
        let warnings = seen.results["c06-unset"]["warnings"]["namespaces"]["c06-app"].as_array_mut().unwrap();
        warnings.retain(|m| !text(m, &[]).contains("Deployment:web "));
        let verdict = verdict_with(CASE, &seen, false, &[UNCHANGED]);
        assert!(!verdict.differences.is_empty());
    }
}
