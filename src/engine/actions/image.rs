//! Container images by plugin configuration (restore-semantics 7.1, `change-image-name`).

use serde_json::{Value, json};

use super::config::PluginConfig;
use super::{Error, Input, Output, fields};

pub(super) const NAME: &str = "velero.io/change-image-name";

/// Pods and everything that has a template of one.
pub(super) const APPLIES_TO: &[&str] = &[
    "deployments.apps",
    "statefulsets.apps",
    "daemonsets.apps",
    "replicasets.apps",
    "replicationcontrollers",
    "jobs.batch",
    "cronjobs.batch",
    "pods",
];

/// Replaces parts of image names as the rows `old,new` of the configuration say.
pub(super) fn change_image_name(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    let Some(config) = input.context.lookup.config(NAME)? else { return Ok(Output::of(item)) };
    let rows = rows(config);
    let pod_spec = match fields::text_or_empty(&item, "kind")? {
        "Pod" => "spec",
        "CronJob" => "spec.jobTemplate.spec.template.spec",
        _ => "spec.template.spec",
    };
    for containers in ["containers", "initContainers"] {
        fields::each_mut(&mut item, &format!("{pod_spec}.{containers}"), |container| change(container, &rows))?;
    }
    Ok(Output::of(item))
}

/// The rows in the order of their keys: Velero takes them in no order at all, so this is one of its possible answers.
fn rows(config: &PluginConfig) -> Vec<(&str, &str)> {
    let split = |row: &'_ str| row.find(',').map(|comma| (comma, comma + 1));
    config
        .values()
        .filter_map(|row| split(row).map(|(end, start)| (row[..end].trim(), &row[start..])))
        // An empty old part would be found everywhere; an absent new part is no rule for Velero either.
        .filter(|(old, new)| !old.is_empty() && !new.is_empty())
        .map(|(old, new)| (old, new.trim()))
        .collect()
}

fn change(container: &mut Value, rows: &[(&str, &str)]) -> Result<(), Error> {
    let image = fields::text_or_empty(container, "image")?;
    if let Some((old, new)) = rows.iter().find(|(old, _)| image.contains(old)) {
        let changed = image.replace(old, new);
        fields::set(container, "image", json!(changed))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::testing::{Bench, plugin_config};
    use super::*;

    fn bench() -> Bench {
        let rows = json!({"case1": "old.example.com , new.example.com:5000", "case2": "repeat,once", "case3": "never",
            "case4": ",everywhere", "case5": "gone,"});
        Bench::new().with(plugin_config("images", NAME, rows))
    }

    fn pod(images: &[&str]) -> Value {
        let containers: Vec<_> = images.iter().map(|image| json!({"image": image})).collect();
        json!({"kind": "Pod", "spec": {"containers": containers}})
    }

    /// restore-semantics 7.1 `change-image-name`; velero-differences: image-rules-in-the-order-of-their-keys
    #[test]
    fn the_first_row_whose_old_part_occurs_replaces_all_occurrences() {
        let before = ["old.example.com/a", "x/old.example.com/b:1", "repeat/repeat/d", "other/c", "gone/e", ""];
        let after = ["new.example.com:5000/a", "x/new.example.com:5000/b:1", "once/once/d", "other/c", "gone/e", ""];
        assert_eq!(bench().run(NAME, pod(&before)).unwrap().item, pod(&after));
    }

    /// restore-semantics 7.1 `change-image-name`
    #[test]
    fn containers_are_found_where_the_kind_has_them() {
        let spec = |image: &str| json!({"initContainers": [{"image": image}], "containers": [{"image": image}]});
        let items = |image: &str| {
            [
                json!({"kind": "Pod", "spec": spec(image)}),
                json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": spec(image)}}}}}),
                json!({"kind": "Deployment", "spec": {"template": {"spec": spec(image)}}}),
                json!({"kind": "ReplicationController", "spec": {"template": {"spec": spec(image)}}}),
            ]
        };
        for (before, after) in items("repeat:1").into_iter().zip(items("once:1")) {
            assert_eq!(bench().run(NAME, before).unwrap().item, after);
        }
        let without_template = json!({"kind": "ReplicationController", "spec": {"template": null}});
        assert_eq!(bench().run(NAME, without_template.clone()).unwrap().item, without_template);
    }

    #[test]
    fn without_configuration_nothing_changes() {
        assert_eq!(Bench::new().run(NAME, pod(&["old.example.com/a"])).unwrap().item, pod(&["old.example.com/a"]));
    }

    /// restore-semantics 7.0, plugin config
    #[test]
    fn two_configurations_fail_every_item_with_veleros_words() {
        let bench = bench().with(plugin_config("second", NAME, json!({"a": "b,c"})));
        assert_eq!(
            bench.run(NAME, pod(&["x"])).unwrap_err().to_string(),
            "found more than one ConfigMap matching label selector \
             \"velero.io/plugin-config,velero.io/change-image-name=RestoreItemAction\": [images second]"
        );
    }

    #[test]
    fn containers_that_are_a_string_fail_the_item() {
        let error = bench().run(NAME, json!({"kind": "Pod", "spec": {"containers": "c"}})).unwrap_err();
        assert_eq!(error.to_string(), "cannot convert the item: spec.containers is a string, want a list");
        let error = bench().run(NAME, json!({"kind": "Pod", "spec": {"containers": [{"image": 1}]}})).unwrap_err();
        assert!(error.to_string().contains("spec.containers[0].image is a number"), "{error}");
    }
}
