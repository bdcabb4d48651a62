//! Making an object of the backup ready to be created: what the old cluster put into it goes, what ties it to old
//! volumes goes, and the restore's labels come (restore-semantics 5.3 to 5.8).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::actions::{Error, fields};
use crate::model::label;

/// What the API server fills in; name, namespace, labels, annotations, finalizers and managedFields stay.
const SERVER_METADATA: [&str; 9] = [
    "generateName",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
];

/// Removes what belongs to the old cluster, and hands out the status (restore-semantics 5.3 step 8).
///
/// # Errors
///
/// The object has no metadata, or one that is no object.
pub fn strip(object: &mut Value) -> Result<Option<Value>, Error> {
    let metadata = fields::object_mut(object, "metadata")?
        .ok_or_else(|| Error::Missing { path: "metadata".to_owned(), purpose: "every object" })?;
    for key in SERVER_METADATA {
        metadata.remove(key);
    }
    Ok(fields::remove(object, "status")?.filter(|status| !status.is_null()))
}

/// Unties a volume or a claim from its old counterpart (restore-semantics 5.4).
///
/// # Errors
///
/// A field on the way has a wrong type.
pub fn reset_binding(object: &mut Value) -> Result<(), Error> {
    for field in ["spec.claimRef.uid", "spec.claimRef.resourceVersion"] {
        fields::remove(object, field)?;
    }
    if let Some(annotations) = fields::object_mut(object, "metadata.annotations")? {
        for key in ["pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"] {
            annotations.remove(key);
        }
    }
    Ok(())
}

/// Lets the claim that a volume is bound to follow the namespace mapping (restore-semantics 5.4).
///
/// # Errors
///
/// A field on the way has a wrong type.
pub fn map_claim_namespace(volume: &mut Value, mapping: &BTreeMap<String, String>) -> Result<(), Error> {
    const NAMESPACE: &str = "spec.claimRef.namespace";
    if let Some(target) = mapping.get(fields::text_or_empty(volume, NAMESPACE)?) {
        fields::set(volume, NAMESPACE, json!(target))?;
    }
    Ok(())
}

/// Fixes a claim after its actions ran (restore-semantics 5.6): it is untied; the name of a volume that will be
/// provisioned anew goes, that of a renamed one is replaced.
///
/// # Errors
///
/// A field on the way has a wrong type.
pub fn fix_claim(
    claim: &mut Value,
    to_provision: &BTreeSet<String>,
    renamed: &BTreeMap<String, String>,
) -> Result<(), Error> {
    const VOLUME: &str = "spec.volumeName";
    let volume = fields::text_or_empty(claim, VOLUME)?.to_owned();
    if volume.is_empty() {
        return Ok(());
    }
    reset_binding(claim)?;
    if to_provision.contains(&volume) {
        fields::remove(claim, VOLUME)?;
    } else if let Some(name) = renamed.get(&volume) {
        fields::set(claim, VOLUME, json!(name))?;
    }
    Ok(())
}

/// Puts a namespaced object into its target namespace (restore-semantics 5.8).
///
/// # Errors
///
/// The metadata has a wrong type.
pub fn set_namespace(object: &mut Value, namespace: &str) -> Result<(), Error> {
    fields::set(object, "metadata.namespace", json!(namespace))
}

/// Labels an object with its backup and restore, over labels of these keys (restore-semantics 5.8).
///
/// # Errors
///
/// The labels have a wrong type.
pub fn set_restore_labels(object: &mut Value, backup_name: &str, restore_name: &str) -> Result<(), Error> {
    let labels = fields::ensure(object, Some("metadata.labels"))?;
    labels.insert(label::BACKUP_NAME.to_owned(), json!(label::valid_name(backup_name)));
    labels.insert(label::RESTORE_NAME.to_owned(), json!(label::valid_name(restore_name)));
    Ok(())
}

/// Gives the object `to` the restore labels that `from` has (restore-semantics 5.10 step 1); a label that `from` lacks
/// goes.
///
/// # Errors
///
/// The labels of either have a wrong type.
pub fn copy_restore_labels(from: &Value, to: &mut Value) -> Result<(), Error> {
    for key in [label::BACKUP_NAME, label::RESTORE_NAME] {
        match fields::object(from, "metadata.labels")?.and_then(|labels| labels.get(key)) {
            Some(value) => {
                fields::ensure(to, Some("metadata.labels"))?.insert(key.to_owned(), value.clone());
            }
            None => {
                if let Some(labels) = fields::object_mut(to, "metadata.labels")? {
                    labels.remove(key);
                }
            }
        }
    }
    Ok(())
}

/// Blanks both restore labels, so that a patch away from the object always has something to say
/// (restore-semantics 5.10 steps 3 and 5).
///
/// # Errors
///
/// The labels have a wrong type.
pub fn blank_restore_labels(object: &mut Value) -> Result<(), Error> {
    let labels = fields::ensure(object, Some("metadata.labels"))?;
    for key in [label::BACKUP_NAME, label::RESTORE_NAME] {
        labels.insert(key.to_owned(), json!(""));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// restore-semantics 5.3 step 8
    #[test]
    fn stripping_keeps_what_5_3_names_and_hands_out_the_status() {
        let mut object = json!({"kind": "Pod", "spec": {"uid": "kept"}, "status": {"phase": "Running"}, "metadata": {
            "name": "n", "namespace": "ns", "labels": {"a": "b"}, "annotations": {}, "finalizers": ["f"],
            "managedFields": [{}], "generateName": "n-", "selfLink": "/x", "uid": "u", "resourceVersion": "1",
            "generation": 2, "creationTimestamp": "t", "deletionTimestamp": "t", "deletionGracePeriodSeconds": 0,
            "ownerReferences": [{"uid": "o"}]}});
        assert_eq!(strip(&mut object).unwrap(), Some(json!({"phase": "Running"})));
        let metadata = json!({"name": "n", "namespace": "ns", "labels": {"a": "b"}, "annotations": {},
            "finalizers": ["f"], "managedFields": [{}]});
        assert_eq!(object, json!({"kind": "Pod", "spec": {"uid": "kept"}, "metadata": metadata}));
        assert_eq!(strip(&mut object).unwrap(), None);
    }

    /// restore-semantics 5.3 step 8
    #[test]
    fn an_object_without_metadata_is_an_error_that_says_so() {
        for broken in [json!({}), json!({"metadata": null}), json!({"metadata": "text"}), json!([])] {
            assert!(strip(&mut broken.clone()).is_err(), "{broken}");
        }
    }

    /// restore-semantics 5.4, resetting the binding
    #[test]
    fn a_volume_forgets_its_claim_but_not_where_it_is() {
        let mut volume = json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes", "x": "y"}},
            "spec": {"claimRef": {"namespace": "app", "name": "data", "uid": "u", "resourceVersion": "7"}}});
        reset_binding(&mut volume).unwrap();
        map_claim_namespace(&mut volume, &BTreeMap::from([("app".to_owned(), "dst".to_owned())])).unwrap();
        assert_eq!(
            volume,
            json!({"metadata": {"annotations": {"x": "y"}}, "spec": {"claimRef": {"namespace": "dst", "name": "data"}}})
        );
        assert!(reset_binding(&mut json!({"spec": {"claimRef": "text"}})).is_err());
    }

    /// restore-semantics 5.6
    #[test]
    fn a_claim_loses_a_volume_to_be_provisioned_and_follows_a_renamed_one() {
        let claim = |volume: &str| json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}});
        let fixed = |volume: &str| {
            let mut claim = claim(volume);
            let renamed = BTreeMap::from([("old".to_owned(), "new".to_owned())]);
            fix_claim(&mut claim, &BTreeSet::from(["gone".to_owned()]), &renamed).unwrap();
            claim
        };
        let untied = |spec: Value| json!({"metadata": {"annotations": {}}, "spec": spec});
        assert_eq!(fixed("gone"), untied(json!({})));
        assert_eq!(fixed("old"), untied(json!({"volumeName": "new"})));
        assert_eq!(fixed("kept"), untied(json!({"volumeName": "kept"})));
        assert_eq!(fixed(""), claim(""), "without a volume name nothing is done");
    }

    /// restore-semantics 5.8 and 5.10 steps 1 and 3
    #[test]
    fn restore_labels_overwrite_and_are_cut_as_5_8_says() {
        let mut object = json!({"metadata": {"labels": {"velero.io/restore-name": "earlier", "a": "b"}}});
        let long = "r".repeat(70);
        set_restore_labels(&mut object, "b", &long).unwrap();
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["velero.io/backup-name"], "b");
        assert_eq!(labels["velero.io/restore-name"], json!(label::valid_name(&long)));

        let mut live = json!({"metadata": {"name": "n"}});
        copy_restore_labels(&object, &mut live).unwrap();
        assert_eq!(live["metadata"]["labels"]["velero.io/backup-name"], "b");
        blank_restore_labels(&mut live).unwrap();
        assert_eq!(live["metadata"]["labels"], json!({"velero.io/backup-name": "", "velero.io/restore-name": ""}));
        let mut bare = json!({"metadata": null});
        set_restore_labels(&mut bare, "b", "r").unwrap();
        assert_eq!(bare["metadata"]["labels"]["velero.io/restore-name"], "r");
    }
}
