//! Whether an object of the backup and its namesake in the cluster are the same (restore-semantics 5.10 step 2).

use serde_json::{Map, Value};

use crate::model::label;

/// Velero's comparison: the whole objects, managedFields included.
///
/// An empty list or object equals null at the same key; a missing key equals nothing; an integer is no float.
#[must_use]
pub fn equals_like_velero(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|o| equals_like_velero(value, o)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equals_like_velero(one, other))
        }
        (Value::Null, Value::Object(object)) | (Value::Object(object), Value::Null) => object.is_empty(),
        (Value::Null, Value::Array(list)) | (Value::Array(list), Value::Null) => list.is_empty(),
        // serde_json tells integers from floats, as Go's types do.
        (one, other) => one == other,
    }
}

/// Our comparison: what a user would call the same object.
///
/// Left aside are managedFields, `status`, the two restore labels and what the API server puts into metadata, because
/// they tell when and by whom an object was written and not what it is. Null and absent are the same, as are absent and
/// empty labels or annotations. Fields that the API server defaults take part: the backup has them too.
#[must_use]
pub fn equals(one: &Value, other: &Value) -> bool {
    essence(one) == essence(other)
}

/// JSON pointers to the first `limit` places where two objects differ, as [`equals`] looks at them; values are not told,
/// as they may be secret.
#[must_use]
pub fn differences(one: &Value, other: &Value, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    gather(&essence(one), &essence(other), &mut String::new(), limit, &mut found);
    found
}

fn gather(one: &Value, other: &Value, at: &mut String, limit: usize, found: &mut Vec<String>) {
    if found.len() >= limit || one == other {
        return;
    }
    let mut below = |step: &str, one: &Value, other: &Value| {
        let end = at.len();
        at.push('/');
        at.push_str(&step.replace('~', "~0").replace('/', "~1"));
        gather(one, other, at, limit, found);
        at.truncate(end);
    };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let more = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(more) {
                let of = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                below(key, &of(one), &of(other));
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                below(&index.to_string(), one, other);
            }
        }
        // One is missing, of another type or length: the place as a whole.
        _ => found.push(at.clone()),
    }
}

/// The part of an object that [`equals`] looks at.
fn essence(object: &Value) -> Value {
    let mut essence = without_nulls(object);
    let Some(object) = essence.as_object_mut() else { return essence };
    object.remove("status");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in ["managedFields", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink"] {
            metadata.remove(key);
        }
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(label::BACKUP_NAME);
            labels.remove(label::RESTORE_NAME);
        }
        for key in ["labels", "annotations"] {
            if metadata.get(key).and_then(Value::as_object).is_some_and(Map::is_empty) {
                metadata.remove(key);
            }
        }
    }
    essence
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
pub(super) mod strategies {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// JSON documents, with or without nulls, small and likely to share keys.
    pub(in crate::engine) fn json(nulls: bool) -> impl Strategy<Value = Value> {
        let mut leaves = vec![
            any::<bool>().prop_map(Value::from).boxed(),
            (-2_i64..3).prop_map(Value::from).boxed(),
            "[a-c]{0,2}".prop_map(Value::from).boxed(),
        ];
        if nulls {
            leaves.push(Just(Value::Null).boxed());
        }
        let leaf = proptest::strategy::Union::new(leaves);
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    /// Documents that are objects.
    pub(in crate::engine) fn object(nulls: bool) -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", json(nulls), 0..4).prop_map(|map| json!(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// restore-semantics 5.10 step 2
    #[test]
    fn veleros_comparison_follows_5_10() {
        for (one, other, expected) in [
            (json!({"a": []}), json!({"a": null}), true),
            (json!({"a": {}}), json!({"a": null}), true),
            (json!({"a": {}}), json!({"a": []}), false),
            (json!({"a": {}}), json!({}), false),
            (json!({"a": null}), json!({}), false),
            (json!({"a": 1}), json!({"a": 1.0}), false),
            (json!({"a": ""}), json!({"a": null}), false),
            (json!({"a": [1, 2]}), json!({"a": [2, 1]}), false),
            (json!({"metadata": {"managedFields": [1]}}), json!({"metadata": {"managedFields": [2]}}), false),
        ] {
            assert_eq!(equals_like_velero(&one, &other), expected, "{one} {other}");
        }
    }

    /// restore-semantics 5.10 step 2; velero-differences: comparison-ignores-managed-fields
    #[test]
    fn our_comparison_leaves_aside_who_wrote_the_object_and_when() {
        let backup = json!({"kind": "Pod", "metadata": {"name": "n", "managedFields": [1]}, "spec": {"x": null}});
        let live = json!({"kind": "Pod", "metadata": {"name": "n", "uid": "u", "annotations": {},
            "labels": {"velero.io/restore-name": "r", "velero.io/backup-name": "b"}}, "spec": {}, "status": {"a": 1}});
        assert!(equals(&backup, &live));
        assert!(!equals_like_velero(&backup, &live));
    }

    #[test]
    fn our_comparison_sees_every_other_difference() {
        let object = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["f"]}, "spec": {"emptyDir": {}, "n": 1}});
        for other in [
            json!({"metadata": {"labels": {"a": "c"}, "finalizers": ["f"]}, "spec": {"emptyDir": {}, "n": 1}}),
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"emptyDir": {}, "n": 1}}),
            json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["f"]}, "spec": {"n": 1}}),
            json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["f"]}, "spec": {"emptyDir": {}, "n": 2}}),
        ] {
            assert!(!equals(&object, &other), "{other}");
        }
    }

    #[test]
    fn differences_are_told_by_their_places_and_not_their_values() {
        let one = json!({"metadata": {"labels": {"a/b": "1"}, "uid": "u"}, "data": {"k": "x", "gone": "y"}, "l": [1, {"m": 2}]});
        let other =
            json!({"metadata": {"labels": {"a/b": "2"}}, "data": {"k": "x"}, "l": [1, {"m": 3}], "new": {"n": 1}});
        let places = ["/data/gone", "/l/1/m", "/metadata/labels/a~1b", "/new"];
        let mut found = differences(&one, &other, 10);
        found.sort();
        assert_eq!(found, places);
        assert_eq!(differences(&one, &other, 2).len(), 2);
        assert_eq!(differences(&json!({"l": [1]}), &json!({"l": [1, 2]}), 9), ["/l"]);
    }

    proptest! {
        #[test]
        fn there_are_differences_exactly_where_objects_are_not_equal(
            a in strategies::object(true), b in strategies::object(true),
        ) {
            prop_assert_eq!(differences(&a, &b, 1).is_empty(), equals(&a, &b));
        }

        #[test]
        fn our_comparison_is_an_equivalence(
            a in strategies::object(true), b in strategies::object(true), c in strategies::object(true),
        ) {
            prop_assert!(equals(&a, &a));
            prop_assert_eq!(equals(&a, &b), equals(&b, &a));
            prop_assert!(!(equals(&a, &b) && equals(&b, &c)) || equals(&a, &c));
        }

        #[test]
        fn veleros_comparison_is_reflexive_symmetric_and_without_nulls_plain_equality(
            a in strategies::object(true), b in strategies::object(true),
            plain in strategies::object(false), other in strategies::object(false),
        ) {
            prop_assert!(equals_like_velero(&a, &a));
            prop_assert_eq!(equals_like_velero(&a, &b), equals_like_velero(&b, &a));
            prop_assert_eq!(equals_like_velero(&plain, &other), plain == other);
        }
    }
}
