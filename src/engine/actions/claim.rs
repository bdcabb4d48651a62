//! PersistentVolumeClaims (restore-semantics 7.1, `pvc`).

use super::{Error, Input, ItemIdentifier, Output, fields};

/// Annotations that tie a claim to the volume, node or snapshot it had.
const REMOVED_ANNOTATIONS: [&str; 7] = [
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    super::csi::VOLUME_SNAPSHOT_NAME,
    super::csi::DATA_UPLOAD_NAME,
];

/// Unties the claim, and has the volume it was bound to restored before it.
pub(super) fn claim(input: Input<'_>) -> Result<Output, Error> {
    let mut item = input.item;
    fields::remove_annotations(&mut item, &REMOVED_ANNOTATIONS)?;
    let mut output = Output::of(item);
    let volume = fields::text_or_empty(input.item_from_backup, "spec.volumeName")?;
    if fields::text_or_empty(input.item_from_backup, "status.phase")? == "Bound" && !volume.is_empty() {
        output.additional_items.push(ItemIdentifier::new("persistentvolumes", "", volume));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::testing::Bench;
    use super::*;

    fn backup(phase: &str) -> Value {
        json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "node-a",
            "pv.kubernetes.io/bind-completed": "yes", "keep": "me"}},
            "spec": {"volumeName": "pv-1"}, "status": {"phase": phase}})
    }

    /// restore-semantics 7.1 `pvc`
    #[test]
    fn a_bound_claim_brings_its_volume_and_loses_its_ties() {
        let output = Bench::new().backed_up_as(backup("Bound")).run("velero.io/pvc", backup("Bound")).unwrap();
        assert_eq!(output.item["metadata"]["annotations"], json!({"keep": "me"}));
        assert_eq!(output.item["spec"]["volumeName"], "pv-1", "5.6 decides about the volume name");
        assert_eq!(output.additional_items, [ItemIdentifier::new("persistentvolumes", "", "pv-1")]);
    }

    /// restore-semantics 7.1 `pvc`
    #[test]
    fn a_claim_that_was_not_bound_brings_no_volume() {
        let output = Bench::new().backed_up_as(backup("Pending")).run("velero.io/pvc", backup("Pending")).unwrap();
        assert!(output.additional_items.is_empty());
    }

    #[test]
    fn a_volume_name_that_is_no_text_fails_the_item() {
        let broken = json!({"spec": {"volumeName": 3}, "status": {"phase": "Bound"}});
        let error = Bench::new().backed_up_as(broken.clone()).run("velero.io/pvc", broken).unwrap_err();
        assert!(error.to_string().contains("spec.volumeName is a number"), "{error}");
    }
}
