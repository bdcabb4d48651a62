//! Is this a Restore that can run? The rules of restore-semantics 1.4 that need nothing but the specification, in
//! Velero's order and words.

use serde_json::Value;

use super::convert;
use crate::model::includes;
use crate::model::selector::Selector;
use crate::velero::RestoreSpec;

/// Resources that are never restored; each is added to the excluded ones unless it is there (rule 1).
pub const NON_RESTORABLE: [&str; 9] = [
    "nodes",
    "events",
    "events.events.k8s.io",
    "backups.velero.io",
    "restores.velero.io",
    "resticrepositories.velero.io",
    "csinodes.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
    "backuprepositories.velero.io",
];

/// What the specification alone tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Everything that is wrong, in Velero's words.
    pub errors: Vec<String>,
    /// Whether the backup cannot even be looked for: the source is not one, or is two.
    pub stop: bool,
}

/// Writes the defaults that are kept in the object, also when validation fails: rule 1, and the time given to
/// asynchronous operations.
pub fn complete(spec: &mut RestoreSpec, default_item_operation_timeout: &str) {
    for resource in NON_RESTORABLE {
        if !spec.excluded_resources.iter().any(|excluded| excluded == resource) {
            spec.excluded_resources.push(resource.to_owned());
        }
    }
    if matches!(spec.item_operation_timeout.as_str(), "" | "0" | "0s") {
        default_item_operation_timeout.clone_into(&mut spec.item_operation_timeout);
    }
}

/// Rules 2 to 8, over a specification that was [`complete`]d.
#[must_use]
pub fn validate(spec: &RestoreSpec) -> Verdict {
    let mut verdict = Verdict::default();
    let errors = &mut verdict.errors;
    for resource in &spec.included_resources {
        if NON_RESTORABLE.contains(&resource.as_str()) {
            errors.push(format!("{resource} are non-restorable resources"));
        }
    }
    let lists = [
        ("resource", &spec.included_resources, &spec.excluded_resources),
        ("namespace", &spec.included_namespaces, &spec.excluded_namespaces),
    ];
    for (what, included, excluded) in lists {
        let problems = includes::validate(included, excluded);
        errors.extend(problems.into_iter().map(|problem| format!("Invalid included/excluded {what} lists: {problem}")));
    }
    if spec.or_label_selectors.is_some() && spec.label_selector.is_some() {
        let message =
            "encountered labelSelector as well as orLabelSelectors in restore spec, only one can be specified";
        errors.push(message.to_owned());
    }
    if spec.backup_name.is_empty() == spec.schedule_name.is_empty() {
        let message = "Either a backup or schedule must be specified as a source for the restore, but not both";
        errors.push(message.to_owned());
        verdict.stop = true;
        return verdict;
    }
    errors.extend(hook_errors(spec));
    if !matches!(spec.existing_resource_policy.as_str(), "" | "none" | "update") {
        errors.push(format!("Invalid ExistingResourcePolicy: {}", spec.existing_resource_policy));
    }
    verdict
}

/// Rule 7: every selector parses, every init container is one.
fn hook_errors(spec: &RestoreSpec) -> Vec<String> {
    let hooks = &spec.hooks.resources;
    let selectors = hooks.iter().filter_map(|hook| hook.label_selector.as_ref());
    let wrong_selectors = selectors
        .filter_map(|selector| Selector::new(&convert::label_selector(selector)).err())
        .map(|error| error.to_string());
    let containers = hooks
        .iter()
        .flat_map(|hook| &hook.post_hooks)
        .filter_map(|hook| hook.init.as_ref())
        .flat_map(|init| &init.init_containers);
    let wrong_containers = containers
        .filter(|container| !is_init_container(container))
        .map(|_| "invalid InitContainer in restore hook, it doesn't have Command, Name or Image field".to_owned());
    wrong_selectors.chain(wrong_containers).collect()
}

/// It has a name, an image and a command.
fn is_init_container(container: &Value) -> bool {
    let is_text = |key: &str| container.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let has_command = container
        .get("command")
        .and_then(Value::as_array)
        .is_some_and(|command| !command.is_empty() && command.iter().all(Value::is_string));
    is_text("name") && is_text("image") && has_command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// A specification as it comes from the API, completed.
    fn spec(spec: Value) -> RestoreSpec {
        let mut spec: RestoreSpec = serde_json::from_value(spec).unwrap();
        complete(&mut spec, "4h0m0s");
        spec
    }

    fn errors(wrong: Value) -> Vec<String> {
        let verdict = validate(&spec(wrong));
        assert!(!verdict.stop);
        verdict.errors
    }

    /// restore-semantics 1.4 rule 1: in this order, after what is there, and none twice.
    #[test]
    fn the_non_restorable_resources_are_excluded_unless_they_are_already() {
        let spec = spec(json!({"backupName": "b", "excludedResources": ["pods", "events", "Nodes"]}));
        let expected = [
            "pods",
            "events",
            "Nodes",
            "nodes",
            "events.events.k8s.io",
            "backups.velero.io",
            "restores.velero.io",
            "resticrepositories.velero.io",
            "csinodes.storage.k8s.io",
            "volumeattachments.storage.k8s.io",
            "backuprepositories.velero.io",
        ];
        assert_eq!(spec.excluded_resources, expected);
        let mut again = spec.clone();
        complete(&mut again, "4h0m0s");
        assert_eq!(again, spec);
    }

    /// restore-semantics 1.1, `itemOperationTimeout`
    #[test]
    fn the_default_timeout_of_operations_is_written_and_a_given_one_keeps_its_text() {
        for (given, expected) in [("", "4h0m0s"), ("0s", "4h0m0s"), ("1h", "1h"), ("90m", "90m")] {
            let spec = spec(json!({"backupName": "b", "itemOperationTimeout": given}));
            assert_eq!(spec.item_operation_timeout, expected, "{given:?}");
        }
        assert_eq!(spec(json!({"backupName": "b"})).item_operation_timeout, "4h0m0s");
    }

    /// restore-semantics 1.4 rules 2 and 3 (c): one message each.
    #[test]
    fn a_non_restorable_resource_that_is_included_is_wrong_twice() {
        assert_eq!(
            errors(json!({"backupName": "b", "includedResources": ["pods", "nodes"]})),
            [
                "nodes are non-restorable resources",
                "Invalid included/excluded resource lists: excludes list cannot contain an item in the includes list: nodes"
            ]
        );
        // Literally only: a name that discovery would resolve to it is not looked at.
        assert_eq!(errors(json!({"backupName": "b", "includedResources": ["no"]})), [""; 0]);
    }

    /// restore-semantics 1.4 rules 3 and 4
    #[test]
    fn lists_that_contradict_themselves_are_wrong_and_globs_are_not_looked_at() {
        let lead = "Invalid included/excluded namespace lists: ";
        assert_eq!(
            errors(json!({"backupName": "b", "includedNamespaces": ["*", "a"], "excludedNamespaces": ["*", "a"]})),
            [
                format!("{lead}includes list must either contain '*' only, or a non-empty list of items"),
                format!("{lead}excludes list cannot contain '*'"),
                format!("{lead}excludes list cannot contain an item in the includes list: *"),
                format!("{lead}excludes list cannot contain an item in the includes list: a"),
            ]
        );
        let star = errors(json!({"backupName": "b", "excludedResources": ["*"]}));
        assert_eq!(star, ["Invalid included/excluded resource lists: excludes list cannot contain '*'"]);
        assert_eq!(errors(json!({"backupName": "b", "includedNamespaces": ["[", "a**", "No Name"]})), [""; 0]);
    }

    /// restore-semantics 1.4 rule 5: an explicitly empty list is one.
    #[test]
    fn both_kinds_of_selectors_are_one_too_many_also_when_the_list_is_empty() {
        let message =
            "encountered labelSelector as well as orLabelSelectors in restore spec, only one can be specified";
        for (all, one_of, wrong) in [
            (json!({}), json!([]), true),
            (json!({"matchLabels": {"a": "b"}}), json!([{}]), true),
            (json!({}), Value::Null, false),
            (Value::Null, json!([]), false),
            (Value::Null, json!([{}]), false),
        ] {
            let found = errors(json!({"backupName": "b", "labelSelector": all, "orLabelSelectors": one_of}));
            assert_eq!(found, if wrong { vec![message] } else { vec![] }, "{all} {one_of}");
        }
    }

    /// restore-semantics 1.4 rule 6: and what comes after is not looked at.
    #[test]
    fn without_one_source_validation_stops_there() {
        let message = "Either a backup or schedule must be specified as a source for the restore, but not both";
        for source in [json!({}), json!({"backupName": "b", "scheduleName": "s"})] {
            let mut wrong = source.clone();
            wrong["existingResourcePolicy"] = json!("sometimes");
            let verdict = validate(&spec(wrong));
            assert_eq!((verdict.errors, verdict.stop), (vec![message.to_owned()], true), "{source}");
        }
        assert_eq!(errors(json!({"scheduleName": "s"})), [""; 0]);
    }

    /// restore-semantics 1.4 rule 7
    #[test]
    fn hooks_have_selectors_that_parse_and_containers_with_name_image_and_command() {
        let hook = |selector: Value, containers: Value| {
            let post = json!([{"init": {"initContainers": containers}}]);
            json!({"backupName": "b", "hooks": {"resources": [{"name": "h", "labelSelector": selector, "postHooks": post}]}})
        };
        let whole = json!({"name": "n", "image": "i", "command": ["c"]});
        assert_eq!(errors(hook(json!({"matchLabels": {"a": "b"}}), json!([whole]))), [""; 0]);
        let message = "invalid InitContainer in restore hook, it doesn't have Command, Name or Image field";
        for key in ["name", "image", "command"] {
            let mut part = whole.clone();
            part.as_object_mut().unwrap().remove(key);
            assert_eq!(errors(hook(Value::Null, json!([part, whole]))), [message], "{key}");
        }
        assert_eq!(
            errors(hook(Value::Null, json!([{"name": "n", "image": "i", "command": []}, "text"]))),
            [message; 2]
        );
        let no_selector = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
        let found = errors(hook(no_selector, json!([])));
        assert!(found.len() == 1 && found[0].contains("Like"), "{found:?}");
    }

    /// restore-semantics 1.4 rule 8
    #[test]
    fn a_policy_is_one_of_three() {
        for (policy, wrong) in [("", false), ("none", false), ("update", false), ("None", true), ("recreate", true)] {
            let found = errors(json!({"backupName": "b", "existingResourcePolicy": policy}));
            let expected = if wrong { vec![format!("Invalid ExistingResourcePolicy: {policy}")] } else { vec![] };
            assert_eq!(found, expected);
        }
    }

    /// restore-semantics 1.4: messages accumulate in the order of the rules; a bad selector of the Restore itself is none.
    #[test]
    fn messages_accumulate_in_the_order_of_the_rules() {
        let found = errors(json!({
            "backupName": "b", "existingResourcePolicy": "x", "orLabelSelectors": [], "includedResources": ["nodes"],
            "includedNamespaces": ["*", "a"], "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]},
        }));
        let starts = [
            "nodes are",
            "Invalid included/excluded resource",
            "Invalid included/excluded namespace",
            "encountered",
            "Invalid Existing",
        ];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        assert!(found.iter().zip(starts).all(|(message, start)| message.starts_with(start)), "{found:?}");
    }
}
