//! Pods (restore-semantics 7.1, `add-pvc-from-pod` and `pod`).

use serde_json::Value;

use super::{Error, Input, ItemIdentifier, Output, fields};

/// Has every claim that the pod mounts restored before it.
pub(super) fn add_claims(input: Input<'_>) -> Result<Output, Error> {
    let mut claims = Vec::new();
    let namespace = fields::namespace(&input.item)?;
    fields::each(&input.item, "spec.volumes", |volume| {
        if let Some(source) = fields::get(volume, "persistentVolumeClaim")? {
            let claim =
                fields::text_or_empty(source, "claimName").map_err(|error| error.within("persistentVolumeClaim"))?;
            claims.push(ItemIdentifier::new("persistentvolumeclaims", namespace, claim));
        }
        Ok(())
    })?;
    Ok(Output { additional_items: claims, ..Output::of(input.item) })
}

/// Frees the pod of its node, its resolved priority and its old token volume; its PriorityClass comes before it.
pub(super) fn pod(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    fields::object(&item, "spec")?;
    fields::remove(&mut item, "spec.nodeName")?;
    fields::remove(&mut item, "spec.priority")?;

    let token_volume = format!("{}-token-", fields::text_or_empty(&item, "spec.serviceAccountName")?);
    remove_named(&mut item, "spec.volumes", &token_volume)?;
    for containers in ["spec.containers", "spec.initContainers"] {
        fields::each_mut(&mut item, containers, |container| remove_named(container, "volumeMounts", &token_volume))?;
    }

    let mut output = Output::default();
    let priority_class = fields::text_or_empty(&item, "spec.priorityClassName")?;
    if !priority_class.is_empty() {
        output.additional_items.push(ItemIdentifier::new("priorityclasses.scheduling.k8s.io", "", priority_class));
    }
    output.item = item;
    Ok(output)
}

/// Removes the elements of a list whose `name` begins with `prefix`.
fn remove_named(item: &mut Value, path: &str, prefix: &str) -> Result<(), Error> {
    fields::each(item, path, |element| fields::text(element, "name").map(|_| ()))?;
    if let Some(list) = fields::list_mut(item, path)? {
        let before = list.len();
        list.retain(|element| !element["name"].as_str().is_some_and(|name| name.starts_with(prefix)));
        if list.len() < before {
            fields::remove_if_empty(item, path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::Bench;
    use super::*;

    /// restore-semantics 7.1 `add-pvc-from-pod`
    #[test]
    fn every_mounted_claim_is_an_additional_item_of_the_source_namespace() {
        let item = json!({"metadata": {"namespace": "app"}, "spec": {"volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "one"}}, {"name": "b", "emptyDir": {}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "two"}}]}});
        let output = Bench::new().run("velero.io/add-pvc-from-pod", item.clone()).unwrap();
        assert_eq!(output.item, item);
        assert_eq!(
            output.additional_items,
            ["one", "two"].map(|name| ItemIdentifier::new("persistentvolumeclaims", "app", name))
        );
    }

    /// restore-semantics 7.1 `pod`
    #[test]
    fn a_pod_loses_node_priority_and_the_token_volume_of_its_own_account() {
        let item = json!({"spec": {"nodeName": "node-a", "priority": 7, "priorityClassName": "high",
            "serviceAccountName": "app", "nodeSelector": {"disk": "ssd"},
            "initContainers": [{"name": "i", "volumeMounts": [{"name": "app-token-abcde"}]}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "data"}, {"name": "app-token-abcde"}]}],
            "volumes": [{"name": "data"}, {"name": "app-token-abcde"}, {"name": "other-token-abcde"}]}});
        let output = Bench::new().run("velero.io/pod", item).unwrap();
        assert_eq!(
            output.item,
            json!({"spec": {"priorityClassName": "high", "serviceAccountName": "app", "nodeSelector": {"disk": "ssd"},
                "initContainers": [{"name": "i"}], "containers": [{"name": "c", "volumeMounts": [{"name": "data"}]}],
                "volumes": [{"name": "data"}, {"name": "other-token-abcde"}]}})
        );
        assert_eq!(output.additional_items, [ItemIdentifier::new("priorityclasses.scheduling.k8s.io", "", "high")]);
    }

    #[test]
    fn wrong_types_in_a_pod_fail_it_and_name_the_field() {
        for (spec, message) in [
            (json!("text"), "spec is a string, want an object"),
            (json!({"containers": "c"}), "spec.containers is a string, want a list"),
            (json!({"containers": [{"volumeMounts": 1}]}), "spec.containers[0].volumeMounts is a number, want a list"),
            (json!({"volumes": [{"name": {}}]}), "spec.volumes[0].name is an object, want a string"),
            (json!({"serviceAccountName": []}), "spec.serviceAccountName is a list, want a string"),
        ] {
            let error = Bench::new().run("velero.io/pod", json!({"spec": spec})).unwrap_err().to_string();
            assert_eq!(error, format!("cannot convert the item: {message}"));
        }
    }
}
