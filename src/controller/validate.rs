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
