//! JSON merge patches (RFC 7386), and the merge of ServiceAccounts (restore-semantics 5.10).

use serde_json::{Map, Value, json};

use super::actions::{Error, fields};

/// The merge patch that makes `to` of `from`; an empty object if there is nothing to do.
///
/// A merge patch cannot set a null: a null in `to` where `from` has a value removes it, as Velero's patches do.
/// Lists are replaced whole.
#[must_use]
pub fn merge_patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    Value::Object(object_patch(from, to))
}

fn object_patch(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, wanted) in to {
        match (from.get(key), wanted) {
            (Some(Value::Object(present)), Value::Object(wanted)) => {
                let inner = object_patch(present, wanted);
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (Some(present), wanted) if same(present, wanted) => {}
            (_, wanted) => {
                patch.insert(key.clone(), wanted.clone());
            }
        }
    }
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    patch
}

/// Equality of values as JSON has it: 1 and 1.0 are the same number.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || ((one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64())
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}

/// Applies a merge patch.
pub fn apply_merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                apply_merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// The ServiceAccount that policy or no policy makes of two (restore-semantics 5.10 step 4): the one in the cluster, with
/// the backup's secrets, pull secrets, labels and annotations that it lacks.
///
/// # Errors
///
/// A field of either has a wrong type.
pub fn merge_service_account(live: &Value, backup: &Value) -> Result<Value, Error> {
    let mut merged = live.clone();
    for list in ["secrets", "imagePullSecrets"] {
        let present: Vec<&str> = fields::list(live, list)?.iter().filter_map(|entry| entry["name"].as_str()).collect();
        let lacking: Vec<&Value> = fields::list(backup, list)?
            .iter()
            .filter(|entry| !present.contains(&entry["name"].as_str().unwrap_or_default()))
            .collect();
        if !lacking.is_empty() {
            let all: Vec<&Value> = fields::list(live, list)?.iter().chain(lacking).collect();
            fields::set(&mut merged, list, json!(all))?;
        }
    }
    for map in ["metadata.labels", "metadata.annotations"] {
        for (key, value) in fields::object(backup, map)?.into_iter().flatten() {
            fields::ensure(&mut merged, Some(map))?.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::compare::strategies;
    use super::*;

    /// restore-semantics 8, merge patches
    #[test]
    fn applying_gives_what_the_appendix_of_rfc_7386_says() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), Value::Null, Value::Null),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut patched = target.clone();
            apply_merge_patch(&mut patched, &patch);
            assert_eq!(patched, result, "{target} {patch}");
        }
    }

    /// restore-semantics 5.10 step 5
    #[test]
    fn a_null_that_is_wanted_removes_and_one_that_is_there_is_no_difference() {
        assert_eq!(merge_patch(&json!({"a": 1}), &json!({"a": null})), json!({"a": null}));
        assert_eq!(merge_patch(&json!({"a": null}), &json!({"a": null})), json!({}));
        assert_eq!(merge_patch(&json!({}), &json!({"a": null})), json!({"a": null}));
        assert_eq!(merge_patch(&json!({"a": 1}), &json!({"a": 1.0})), json!({}));
        assert_eq!(merge_patch(&json!({"l": [1, 2], "x": 1}), &json!({"l": [1]})), json!({"l": [1], "x": null}));
    }

    /// restore-semantics 5.10 step 4
    #[test]
    fn a_service_account_gets_what_it_lacks_and_keeps_what_it_has() {
        let names = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        let live = json!({"metadata": {"labels": {"team": "target", "only-target": "1"}}, "secrets": names(&["shared", "t"]),
            "imagePullSecrets": names(&["pull-shared", "pull-target"])});
        let backup = json!({"metadata": {"labels": {"team": "backup", "only-backup": "1"}, "annotations": {"a": "b"}},
            "secrets": names(&["extra", "shared"]), "imagePullSecrets": names(&["pull-a", "pull-shared"]),
            "automountServiceAccountToken": false});
        assert_eq!(
            merge_service_account(&live, &backup).unwrap(),
            json!({"metadata": {"labels": {"team": "target", "only-target": "1", "only-backup": "1"},
                "annotations": {"a": "b"}}, "secrets": names(&["shared", "t", "extra"]),
                "imagePullSecrets": names(&["pull-shared", "pull-target", "pull-a"])})
        );
        let merged = merge_service_account(&live, &live).unwrap();
        assert_eq!(merge_patch(&live, &merged), json!({}), "no difference is no patch");
        assert!(merge_service_account(&live, &json!({"secrets": "s"})).is_err());
    }

    /// What RFC 7386 says of each member, put together from both sides anew.
    fn naive(target: Option<&Value>, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let none = Map::new();
        let target = target.and_then(Value::as_object).unwrap_or(&none);
        let keys: std::collections::BTreeSet<&String> = target.keys().chain(patch.keys()).collect();
        let member = |key: &String| match (target.get(key), patch.get(key)) {
            (_, Some(Value::Null)) => None,
            (old, Some(new)) => Some(naive(old, new)),
            (old, None) => old.cloned(),
        };
        keys.into_iter().filter_map(|key| Some((key.clone(), member(key)?))).collect::<Map<_, _>>().into()
    }

    proptest! {
        /// restore-semantics 8, merge patches: against the text of the RFC.
        #[test]
        fn a_merge_patch_does_what_the_rfc_says(target in strategies::json(true), patch in strategies::json(true)) {
            let mut patched = target.clone();
            apply_merge_patch(&mut patched, &patch);
            prop_assert_eq!(patched, naive(Some(&target), &patch));
        }

        /// restore-semantics 5.10 step 5
        #[test]
        fn the_patch_between_two_documents_makes_the_second_of_the_first(
            from in strategies::object(false), to in strategies::object(false),
        ) {
            let patch = merge_patch(&from, &to);
            let mut patched = from.clone();
            apply_merge_patch(&mut patched, &patch);
            prop_assert_eq!(&patched, &to);
            prop_assert_eq!(merge_patch(&to, &to), json!({}));
            prop_assert_eq!(patch == json!({}), from == to);
        }

        #[test]
        fn a_patch_applied_twice_changes_nothing_more(
            from in strategies::json(true), patch in strategies::json(true),
        ) {
            let mut once = from;
            apply_merge_patch(&mut once, &patch);
            let mut twice = once.clone();
            apply_merge_patch(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }
    }
}
