//! Init restore hooks (restore-semantics 5.12): init containers put into a pod, by its annotations or by the
//! restore's specification.

use serde_json::{Value, json};

use super::{Context, Error, Input, Output, fields};
use crate::model::LabelSelector;
use crate::model::glob::Glob;
use crate::model::includes::IncludesExcludes;
use crate::model::selector::Selector;

const IMAGE: &str = "init.hook.restore.velero.io/container-image";
const NAME: &str = "init.hook.restore.velero.io/container-name";
const COMMAND: &str = "init.hook.restore.velero.io/command";

/// Puts the hooks' init containers first, though after a leading `restore-wait`.
pub(super) fn add_init_containers(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    let mut notes = Vec::new();
    let hooks = match by_annotation(&item)? {
        Some(container) => vec![container],
        None => by_spec(&item, input.context, &mut notes)?,
    };
    if !hooks.is_empty() {
        let existing = fields::list(&item, "spec.initContainers")?;
        let waits = existing.first().is_some_and(|first| first["name"] == super::pod_volume::RESTORE_WAIT);
        let (first, rest) = existing.split_at(usize::from(waits));
        let containers: Vec<Value> = first.iter().chain(&hooks).chain(rest).cloned().collect();
        fields::set(&mut item, "spec.initContainers", Value::Array(containers))?;
    }
    Ok(Output { notes, ..Output::of(item) })
}

/// The container that the pod's own annotations ask for; they are active only with an image.
fn by_annotation(item: &Value) -> Result<Option<Value>, Error> {
    let Some(image) = fields::annotation(item, IMAGE)?.filter(|image| !image.is_empty()) else { return Ok(None) };
    let name = match fields::annotation(item, NAME)? {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => {
            let unique = uuid::Uuid::new_v4().to_string();
            format!("velero-restore-init-{}", unique.split('-').next().unwrap_or_default())
        }
    };
    let command = fields::annotation(item, COMMAND)?.unwrap_or_default();
    if command.is_empty() {
        return Err(Error::Missing {
            path: format!("metadata.annotations[{COMMAND:?}]"),
            purpose: "its init hook (an image without a command)",
        });
    }
    Ok(Some(json!({"name": name, "image": image, "command": parse_command(command), "resources": {}})))
}

/// A JSON list of texts, or else one text as it stands.
fn parse_command(text: &str) -> Vec<String> {
    let list = text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten();
    list.unwrap_or_else(|| vec![text.to_owned()])
}

/// The containers of the specification's hooks that apply to the pod. Namespace lists are matched against the
/// target namespace, resource lists of a hook have no meaning.
fn by_spec(item: &Value, context: &Context<'_>, notes: &mut Vec<String>) -> Result<Vec<Value>, Error> {
    let namespace = context.spec.target_namespace(fields::namespace(item)?);
    let mut containers = Vec::new();
    for hook in &context.spec.hooks {
        let name = hook["name"].as_str().unwrap_or_default();
        let failed = |error: &dyn std::fmt::Display| Error::Hook { hook: name.to_owned(), message: error.to_string() };
        let selector: Option<LabelSelector> =
            serde_json::from_value(hook["labelSelector"].clone()).map_err(|error| failed(&error))?;
        let selector = Selector::new(&selector.unwrap_or_default()).map_err(|error| failed(&error))?;
        let list = |key| names(hook, key).map_err(|error| failed(&error));
        let (includes, excludes) = (list("includedNamespaces")?, list("excludedNamespaces")?);
        // Velero takes a pattern that is no glob for one that matches nothing, and says nothing.
        for (pattern, error) in includes.iter().chain(&excludes).filter_map(|one| Some((one, Glob::new(one).err()?))) {
            notes.push(format!("hook {name:?}: namespace pattern {pattern:?} matches nothing: {error}"));
        }
        let namespaces = IncludesExcludes::new(includes, excludes);
        let applies = namespaces.should_include(namespace) && selector.matches_object(item);
        if applies {
            fields::each(hook, "postHooks", |post| {
                fields::each(post, "init.initContainers", |container| {
                    containers.push(container.clone());
                    Ok(())
                })
            })
            .map_err(|error| failed(&error))?;
        }
    }
    Ok(containers)
}

fn names<'a>(hook: &'a Value, key: &str) -> Result<Vec<&'a str>, Error> {
    let text = |value: &'a Value| value.as_str().ok_or_else(|| fields::wrong_type(key, value, "a list of strings"));
    fields::list(hook, key)?.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::Bench;
    use super::*;

    const ACTION: &str = "velero.io/init-restore-hook";

    fn pod(annotations: &Value, init: &[&str]) -> Value {
        let init: Vec<_> = init.iter().map(|name| json!({"name": name})).collect();
        json!({"metadata": {"namespace": "app", "labels": {"app": "db"}, "annotations": annotations},
            "spec": {"initContainers": init}})
    }

    fn init_names(item: &Value) -> Vec<&str> {
        item["spec"]["initContainers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect()
    }

    fn hook(name: &str, scope: Value) -> Value {
        let mut hook = json!({"name": name, "postHooks": [{"init": {"initContainers":
            [{"name": name, "image": "i", "command": ["x"]}]}}, {"exec": {"command": ["y"]}}]});
        hook.as_object_mut().unwrap().extend(scope.as_object().unwrap().clone());
        hook
    }

    /// restore-semantics 5.12, init hooks
    #[test]
    fn annotations_make_one_container_before_the_others() {
        let annotations = json!({IMAGE: "alpine", NAME: "fix", COMMAND: r#"["/bin/sh", "-c", "true"]"#});
        let output = Bench::new().run(ACTION, pod(&annotations, &["existing"])).unwrap();
        assert_eq!(init_names(&output.item), ["fix", "existing"]);
        let container = &output.item["spec"]["initContainers"][0];
        assert_eq!(container["command"], json!(["/bin/sh", "-c", "true"]));
        assert_eq!(container["image"], "alpine");
    }

    /// restore-semantics 5.12, init hooks
    #[test]
    fn a_name_is_made_and_a_plain_command_is_one_word() {
        let annotations = json!({IMAGE: "alpine", COMMAND: "[broken"});
        let output = Bench::new().run(ACTION, pod(&annotations, &[])).unwrap();
        let name = init_names(&output.item)[0].strip_prefix("velero-restore-init-").unwrap().to_owned();
        assert!(name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        assert_eq!(output.item["spec"]["initContainers"][0]["command"], json!(["[broken"]));
    }

    /// restore-semantics 5.12, init hooks
    #[test]
    fn an_image_without_a_command_fails_the_pod_and_a_command_without_an_image_is_not_active() {
        let error = Bench::new().run(ACTION, pod(&json!({IMAGE: "alpine"}), &[])).unwrap_err().to_string();
        assert!(error.contains("init.hook.restore.velero.io/command"), "{error}");
        let inactive = pod(&json!({COMMAND: "/bin/true"}), &["existing"]);
        assert_eq!(Bench::new().run(ACTION, inactive.clone()).unwrap().item, inactive);
    }

    /// restore-semantics 5.12, first paragraph
    #[test]
    fn hooks_of_the_specification_apply_by_target_namespace_and_labels_in_their_order() {
        let bench = Bench::new().mapping("app", "dst").hooks(json!([
            hook("one", json!({"includedNamespaces": ["d*"], "labelSelector": {"matchLabels": {"app": "db"}}})),
            hook("two", json!({"excludedNamespaces": ["app"], "includedResources": ["deployments"]})),
            hook("source", json!({"includedNamespaces": ["app"]})),
            hook("labels", json!({"labelSelector": {"matchLabels": {"app": "web"}}})),
        ]));
        let output = bench.run(ACTION, pod(&json!({}), &["restore-wait", "existing"])).unwrap();
        assert_eq!(init_names(&output.item), ["restore-wait", "one", "two", "existing"]);
        let annotated = pod(&json!({IMAGE: "a", COMMAND: "b", NAME: "own"}), &[]);
        assert_eq!(init_names(&bench.run(ACTION, annotated).unwrap().item), ["own"], "annotations replace the hooks");
    }

    #[test]
    fn a_namespace_pattern_that_is_no_glob_matches_nothing_and_is_noted() {
        let bench = Bench::new().hooks(json!([hook("mine", json!({"includedNamespaces": ["[", "app"]}))]));
        let output = bench.run(ACTION, pod(&json!({}), &[])).unwrap();
        assert_eq!(output.notes.len(), 1, "{:?}", output.notes);
        assert!(output.notes[0].starts_with("hook \"mine\": namespace pattern \"[\""), "{:?}", output.notes);
    }

    #[test]
    fn a_broken_hook_fails_the_pod_and_is_named() {
        for scope in [
            json!({"includedNamespaces": "app"}),
            json!({"labelSelector": {"matchExpressions": [{"key": "a", "operator": "Has"}]}}),
            json!({"labelSelector": 3}),
            json!({"postHooks": [{"init": {"initContainers": ["c"]}}]}),
        ] {
            let bench = Bench::new().hooks(json!([hook("mine", scope.clone())]));
            let error = bench.run(ACTION, pod(&json!({}), &[])).unwrap_err().to_string();
            assert!(error.starts_with("hook \"mine\": "), "{scope}: {error}");
        }
    }
}
