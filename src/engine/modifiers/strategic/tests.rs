#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The published schemas of v1, cut down to what the tests need; the references are as an API server writes them.
pub(in crate::engine::modifiers) fn openapi() -> Value {
    let of = |name: &str| json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}], "default": {}});
    let list = |items: Value, key: &str, strategy: &str| {
        let mut list = json!({"type": "array", "items": items});
        if !key.is_empty() {
            list["x-kubernetes-patch-merge-key"] = json!(key);
        }
        if !strategy.is_empty() {
            list["x-kubernetes-patch-strategy"] = json!(strategy);
        }
        list
    };
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": text});
    json!({"kind": "OpenAPI", "groupVersion": "v1", "components": {"schemas": {
        "Pod": {"type": "object", "properties": {"apiVersion": text, "kind": text, "metadata": of("Meta"),
            "spec": of("PodSpec"), "extra": {"type": "object"}},
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}]},
        "Meta": {"type": "object", "properties": {"name": text, "labels": texts, "finalizers": list(text.clone(), "", "merge")}},
        "PodSpec": {"type": "object", "properties": {
            "containers": list(of("Container"), "name", "merge"),
            "volumes": list(of("Volume"), "name", "merge,retainKeys"),
            "tolerations": list(json!({"type": "object", "properties": {"key": text}}), "", ""),
            "nodeName": text, "nodeSelector": texts,
            "strategy": {"allOf": [{"$ref": "#/components/schemas/Strategy"}], "x-kubernetes-patch-strategy": "retainKeys"}}},
        "Strategy": {"type": "object", "properties": {"type": text, "rollingUpdate": {"type": "object"}}},
        "Volume": {"type": "object", "properties": {"name": text, "emptyDir": {"type": "object"}, "hostPath": {"type": "object"}}},
        "Container": {"type": "object", "properties": {"name": text, "image": text,
            "args": list(text.clone(), "", ""),
            "env": list(json!({"type": "object", "properties": {"name": text, "value": text}}), "name", "merge")}},
    }}})
}

/// Applies a patch in YAML to a Pod's `spec`.
fn spec(spec: Value, patch: &str) -> Result<Value, String> {
    let patch: Value = serde_yaml_ng::from_str(patch).unwrap();
    patched(&json!({"spec": spec}), &json!({"spec": patch})).map(|mut pod| pod["spec"].take())
}

fn patched(object: &Value, patch: &Value) -> Result<Value, String> {
    let document = Document::new(openapi());
    let schema = document.kind("", "v1", "Pod").unwrap();
    apply(object, patch.as_object().unwrap(), schema).map_err(|failure| failure.to_string())
}

fn named(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name})).collect()
}

#[test]
fn only_kinds_the_document_has_are_found() {
    let document = Document::new(openapi());
    assert!(document.kind("", "v1", "Secret").is_none() && document.kind("apps", "v1", "Pod").is_none());
    assert!(Document::new(json!({"paths": {}})).kind("", "v1", "Pod").is_none());
    assert!(Document::new(json!("text")).kind("", "v1", "Pod").is_none());
}

#[test]
fn references_in_a_circle_end() {
    let circle = json!({"components": {"schemas": {"A": {"$ref": "#/components/schemas/A",
        "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "A"}]}}}});
    let document = Document::new(circle);
    let schema = document.kind("", "v1", "A").unwrap();
    let patch = json!({"list": [2]});
    assert_eq!(apply(&json!({"list": [1]}), patch.as_object().unwrap(), schema), Ok(patch));
}

#[test]
fn objects_are_merged_nulls_delete_and_lists_without_a_strategy_are_replaced() {
    let before = json!({"nodeName": "n", "nodeSelector": {"a": "1", "b": "2"}, "tolerations": [{"key": "x"}]});
    let after = spec(before, "{nodeName: null, nodeSelector: {b: '3', c: null, d: '4'}, tolerations: [{key: y}]}");
    assert_eq!(after, Ok(json!({"nodeSelector": {"a": "1", "b": "3", "d": "4"}, "tolerations": [{"key": "y"}]})));
}

#[test]
fn elements_are_merged_by_key_and_new_ones_stand_where_the_patch_has_them() {
    let before = json!({"containers": [{"name": "c", "image": "old", "args": ["a"]}, {"name": "side"}]});
    let after = spec(before.clone(), "containers: [{name: c, image: new, args: [b]}, {name: third, image: null}]");
    let third = json!({"name": "third"});
    assert_eq!(
        after,
        Ok(json!({"containers": [{"name": "c", "image": "new", "args": ["b"]}, third, {"name": "side"}]}))
    );
    let names = |patch: &str| {
        let after = spec(before.clone(), patch).unwrap();
        let names = after["containers"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("containers: [{name: new}]"), "new c side");
    assert_eq!(names("containers: [{name: side}]"), "c side");
    assert_eq!(names("containers: [{name: side}, {name: c}]"), "side c");
    assert_eq!(names("containers: [{name: side}, {name: new}]"), "c side new");
    assert_eq!(names("{$setElementOrder/containers: [{name: side}, {name: c}]}"), "side c");
    assert_eq!(
        names("{$setElementOrder/containers: [{name: side}, {name: new}, {name: c}], containers: [{name: new}]}"),
        "side new c"
    );
}

#[test]
fn lists_of_plain_values_are_merged_as_sets() {
    let pod = json!({"metadata": {"finalizers": ["a", "b", "a"]}});
    let after = |patch: Value| patched(&pod, &json!({"metadata": patch})).unwrap()["metadata"]["finalizers"].take();
    assert_eq!(after(json!({"finalizers": ["c", "b", "c"]})), json!(["c", "a", "b"]));
    assert_eq!(after(json!({"$deleteFromPrimitiveList/finalizers": ["a", "none"]})), json!(["b"]));
    assert_eq!(
        after(json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
            "$setElementOrder/finalizers": ["b", "c"]})),
        json!(["b", "c"])
    );
    let none = patched(&json!({}), &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}));
    assert!(none.unwrap().pointer("/metadata/finalizers").is_none());
}

#[test]
fn directives_delete_and_replace() {
    let before = json!({"containers": named(&["a", "b"]), "nodeSelector": {"x": "1", "y": "2"}});
    for (patch, key, value) in [
        ("containers: [{name: a, $patch: delete}]", "containers", named(&["b"])),
        ("containers: [{name: none, $patch: delete}]", "containers", named(&["a", "b"])),
        ("containers: [{$patch: replace}, {name: c}]", "containers", named(&["c"])),
        ("containers: [{$patch: replace}]", "containers", json!([])),
        ("nodeSelector: {$patch: replace, z: '3'}", "nodeSelector", json!({"z": "3"})),
        ("nodeSelector: {$patch: delete}", "nodeSelector", json!({})),
        ("volumes: [{name: v}, {name: gone, $patch: delete}]", "volumes", named(&["v"])),
        ("strategy: {$patch: delete}", "strategy", Value::Null),
    ] {
        assert_eq!(spec(before.clone(), patch).unwrap()[key], value, "{patch}");
    }
    let strategy = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "volumes": [{"name": "v", "emptyDir": {}}]});
    let patch = "{strategy: {$retainKeys: [type], type: Recreate}, \
                  volumes: [{$retainKeys: [name, hostPath], name: v, hostPath: {path: /}}]}";
    assert_eq!(
        spec(strategy, patch),
        Ok(json!({"strategy": {"type": "Recreate"}, "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}))
    );
}

#[test]
fn patches_that_contradict_the_schema_or_themselves_name_the_field() {
    let before = json!({"containers": [{"name": "a", "env": []}], "nodeSelector": {"x": "1"}, "unknown": {},
        "strategy": {"type": "x"}});
    for (patch, message) in [
        ("containers: [{image: i}]", "spec.containers: an element lacks the merge key \"name\""),
        ("containers: [{$patch: delete}]", "spec.containers: an element lacks the merge key \"name\""),
        (
            "containers: [{name: a, $patch: merge}]",
            "spec.containers: unknown directive $patch: \"merge\" of an element, use delete or replace",
        ),
        ("containers: [text]", "must be all objects or all plain values"),
        (
            "containers: [{name: a, env: [{value: v}]}]",
            "spec.containers.a.env: an element lacks the merge key \"name\"",
        ),
        (
            "nodeSelector: {$patch: merge}",
            "spec.nodeSelector: unknown directive $patch: \"merge\", use delete or replace",
        ),
        ("unknown: {a: b}", "spec.unknown: the schema has no such field"),
        ("strategy: {$retainKeys: [type], rollingUpdate: {}}", "spec.strategy: $retainKeys lacks \"rollingUpdate\""),
        ("strategy: {$retainKeys: type}", "$retainKeys is no list"),
        ("$setElementOrder/containers: text", "spec.containers: no list"),
        ("{$setElementOrder/containers: [{name: a}], containers: [{name: b}]}", "not in the order that the patch sets"),
        ("$setElementOrder/containers: [{x: a}]", "lacks the merge key \"name\""),
        ("$deleteFromPrimitiveList/containers: [{name: a}]", "only a list of plain values"),
    ] {
        let error = spec(before.clone(), patch).unwrap_err();
        assert!(error.contains(message), "{patch}: {error}");
    }
}

fn elements() -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[a-d]", "[x-z]", 0..4);
    let env =
        env.prop_map(|all| all.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Value>());
    let element = (prop::option::of("[p-r]"), prop::option::of(env));
    prop::collection::btree_map("[a-f]", element, 0..5)
        .prop_map(|all| {
            let one = |(name, (image, env)): (String, (Option<String>, Option<Value>))| {
                let mut one = json!({"name": name});
                one["image"] = image.map_or(Value::Null, Value::from);
                one["env"] = env.unwrap_or(Value::Null);
                Value::Object(without_nulls(one.as_object().unwrap()))
            };
            all.into_iter().map(one).collect::<Vec<_>>()
        })
        .prop_shuffle()
        .prop_map(Value::Array)
}

fn pods() -> impl Strategy<Value = Value> {
    (elements(), prop::collection::vec("[a-d]", 0..4)).prop_map(
        |(containers, finalizers)| json!({"metadata": {"finalizers": finalizers}, "spec": {"containers": containers}}),
    )
}

/// Any JSON, with keys that mean something here.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        prop::sample::select(vec!["delete", "replace", "merge", "a", "name"]).prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$setElementOrder/finalizers",
        "$deleteFromPrimitiveList/finalizers",
        "metadata",
        "finalizers",
        "spec",
        "containers",
        "name",
        "env",
        "extra",
    ]);
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect()
}

proptest! {
    #[test]
    fn a_patch_without_directives_applied_again_changes_nothing_and_keys_stay_unique(pod in pods(), patch in pods()) {
        let once = patched(&pod, &patch).unwrap();
        prop_assert_eq!(&patched(&once, &patch).unwrap(), &once);
        let merged = names(&once["spec"]["containers"]);
        let all = names(&pod["spec"]["containers"]).into_iter().chain(names(&patch["spec"]["containers"]));
        let all: std::collections::BTreeSet<_> = all.collect();
        prop_assert_eq!(merged.len(), all.len());
        prop_assert!(merged.iter().all(|name| all.contains(name)));
        // The order of the patch holds, and so does that of what only the object had.
        let of_patch = names(&patch["spec"]["containers"]);
        let (patched, others): (Vec<&str>, Vec<&str>) = merged.iter().partition(|name| of_patch.contains(name));
        prop_assert_eq!(&patched, &of_patch);
        let own = names(&pod["spec"]["containers"]).into_iter().filter(|name| !of_patch.contains(name));
        prop_assert_eq!(others, own.collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_patch_changes_nothing(pod in pods()) {
        prop_assert_eq!(patched(&pod, &json!({})).unwrap(), pod);
    }

    #[test]
    fn no_patch_panics(object in anything(), patch in anything()) {
        let (object, patch) = (json!({"spec": object, "metadata": object}), json!({"spec": patch, "metadata": patch}));
        let _ = patched(&object, &patch);
    }
}
