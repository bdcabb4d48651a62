//! Claims and snapshots of CSI volumes (restore-semantics 7.4); these actions run only with the feature `EnableCSI`.
//!
//! Data that was moved into the backup storage is [`super::data_mover`]'s, snapshots that were taken in a group are
//! [`super::group_snapshot`]'s.

use futures::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Context, Error, Input, ItemIdentifier, Output, data_mover, fields, group_snapshot};
use crate::model::Target;

/// Annotation of a claim that names the VolumeSnapshot taken of it.
pub(super) const VOLUME_SNAPSHOT_NAME: &str = "velero.io/volume-snapshot-name";
/// Annotation of a claim that names the DataUpload made of it.
pub(super) const DATA_UPLOAD_NAME: &str = "velero.io/data-upload-name";

const GROUP: &str = "snapshot.storage.k8s.io";
const SNAPSHOTS: &str = "volumesnapshots.snapshot.storage.k8s.io";
const CONTENTS: &str = "volumesnapshotcontents.snapshot.storage.k8s.io";

/// The name that a restored VolumeSnapshot shares with its content.
pub(super) fn shared_name(context: &Context<'_>, snapshot: &str) -> String {
    let digest = Sha256::digest(format!("{}/{snapshot}", context.restore_uid).as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A claim is filled from the snapshot taken of it, unless it exists already.
pub(super) fn claim(input: Input<'_>) -> BoxFuture<'_, Result<Output, Error>> {
    async move {
        let (mut item, context) = (input.item, input.context);
        let source = fields::namespace(input.item_from_backup)?;
        let target_namespace = context.spec.target_namespace(source);
        let target = Target::new("", "v1", "persistentvolumeclaims", target_namespace);
        let name = fields::name(&item)?;
        let existing = context.lookup.cluster().get(&target, name).await;
        if let Some(live) = existing.map_err(|error| Error::api(format!("get persistentvolumeclaim {name}"), &error))? {
            let operation_id = data_mover::resumed(&live, input.item_from_backup, context).await?;
            return Ok(Output { operation_id, ..Output::of(item) });
        }
        if !context.spec.restores_volumes() {
            for field in ["spec.volumeName", "spec.dataSource", "spec.dataSourceRef"] {
                fields::remove(&mut item, field)?;
            }
            return Ok(Output::of(item));
        }
        if context.snapshot_move_data {
            return match fields::annotation(input.item_from_backup, DATA_UPLOAD_NAME)? {
                Some(_) => {
                    let id = data_mover::fill(&mut item, input.item_from_backup, target_namespace, context).await?;
                    Ok(Output { operation_id: Some(id), ..Output::of(item) })
                }
                None => Ok(Output::of(item)),
            };
        }
        let snapshot = fields::annotation(input.item_from_backup, VOLUME_SNAPSHOT_NAME)?.unwrap_or_default();
        if snapshot.is_empty() {
            return Ok(Output::of(item));
        }
        fields::remove(&mut item, "spec.volumeName")?;
        fields::remove(&mut item, "spec.dataSourceRef")?;
        let source_of_data =
            json!({"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": shared_name(context, snapshot)});
        fields::set(&mut item, "spec.dataSource", source_of_data)?;
        let snapshot = ItemIdentifier::new(SNAPSHOTS, source, snapshot);
        Ok(Output { additional_items: vec![snapshot], ..Output::of(item) })
    }
    .boxed()
}

/// A snapshot is bound to the content that is restored with it; before that, the stub of its group is seen to.
pub(super) fn volume_snapshot(input: Input<'_>) -> BoxFuture<'_, Result<Output, Error>> {
    async move {
        if !input.context.spec.restores_volumes() {
            return Ok(Output::skip(input.item));
        }
        let note = group_snapshot::ensure_stub(input.item_from_backup, input.context).await?;
        bind(input, note.into_iter().collect())
    }
    .boxed()
}

fn bind(input: Input<'_>, notes: Vec<String>) -> Result<Output, Error> {
    let (mut item, context) = (input.item, input.context);
    let content = fields::text_or_empty(input.item_from_backup, "status.boundVolumeSnapshotContentName")?;
    if content.is_empty() {
        return Err(Error::Missing {
            path: "status.boundVolumeSnapshotContentName".to_owned(),
            purpose: "restoring a volume snapshot",
        });
    }
    let name = shared_name(context, fields::name(&item)?);
    fields::set(&mut item, "metadata.name", json!(name))?;
    fields::remove(&mut item, "spec.source.persistentVolumeClaimName")?;
    fields::set(&mut item, "spec.source.volumeSnapshotContentName", json!(name))?;
    fields::remove(&mut item, "spec.volumeSnapshotClassName")?;
    fields::ensure(&mut item, Some("metadata.annotations"))?
        .insert("velero.io/csi-vsc-deletion-policy".to_owned(), json!("Retain"));
    let additional_items = vec![ItemIdentifier::new(CONTENTS, "", content)];
    Ok(Output { additional_items, notes, ..Output::of(item) })
}

/// A snapshot content is made from the handle that the backup knows, and kept whatever becomes of its snapshot.
pub(super) fn volume_snapshot_content(input: Input<'_>) -> BoxFuture<'_, Result<Output, Error>> {
    async move {
        let (mut item, context) = (input.item, input.context);
        if !context.spec.restores_volumes() {
            return Ok(Output::skip(item));
        }
        let handle = fields::text_or_empty(input.item_from_backup, "status.snapshotHandle")?;
        if handle.is_empty() {
            return Err(Error::Missing {
                path: "status.snapshotHandle".to_owned(),
                purpose: "restoring a volume snapshot content",
            });
        }
        const REFERENCE: &str = "spec.volumeSnapshotRef";
        let namespace = fields::text_or_empty(&item, "spec.volumeSnapshotRef.namespace")?;
        let namespace = context.spec.target_namespace(namespace).to_owned();
        let name = shared_name(context, fields::text_or_empty(&item, "spec.volumeSnapshotRef.name")?);
        fields::set(&mut item, "metadata.name", json!(name))?;
        let reference = fields::ensure(&mut item, Some(REFERENCE))?;
        reference.insert("name".to_owned(), json!(name));
        reference.insert("namespace".to_owned(), json!(namespace));
        reference.remove("uid");
        reference.remove("resourceVersion");
        fields::set(&mut item, "spec.deletionPolicy", json!("Retain"))?;
        fields::set(&mut item, "spec.source", json!({"snapshotHandle": handle}))?;
        match class_of_driver(fields::text_or_empty(&item, "spec.driver")?, context).await? {
            Some(class) => fields::set(&mut item, "spec.volumeSnapshotClassName", json!(class))?,
            None => drop(fields::remove(&mut item, "spec.volumeSnapshotClassName")?),
        }
        let additional_items = secret(
            &item,
            "csi.storage.k8s.io/snapshotter-secret-name",
            "csi.storage.k8s.io/snapshotter-secret-namespace",
        )?;
        Ok(Output { additional_items, ..Output::of(item) })
    }
    .boxed()
}

/// The first VolumeSnapshotClass of the cluster that has this driver.
async fn class_of_driver(driver: &str, context: &Context<'_>) -> Result<Option<String>, Error> {
    let target = Target::new(GROUP, "v1", "volumesnapshotclasses", "");
    let classes = context.lookup.cluster().list(&target, "").await;
    let classes = classes.map_err(|error| Error::api("list volumesnapshotclasses", &error))?;
    let class = classes.iter().find(|class| class["driver"] == driver);
    Ok(class.and_then(|class| class["metadata"]["name"].as_str()).map(str::to_owned))
}

/// A snapshot class brings the Secret that lists its snapshots.
pub(super) fn volume_snapshot_class(input: Input<'_>) -> Result<Output, Error> {
    let item = input.item;
    if !input.context.spec.restores_volumes() {
        return Ok(Output::skip(item));
    }
    let additional_items = secret(
        &item,
        "csi.storage.k8s.io/snapshotter-list-secret-name",
        "csi.storage.k8s.io/snapshotter-list-secret-namespace",
    )?;
    Ok(Output { additional_items, ..Output::of(item) })
}

/// The Secret that two annotations name.
fn secret(item: &Value, name: &str, namespace: &str) -> Result<Vec<ItemIdentifier>, Error> {
    let (name, namespace) = (fields::annotation(item, name)?, fields::annotation(item, namespace)?);
    Ok(match (name.filter(|name| !name.is_empty()), namespace.filter(|namespace| !namespace.is_empty())) {
        (Some(name), Some(namespace)) => vec![ItemIdentifier::new("secrets", namespace, name)],
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::Bench;
    use super::*;

    const CLAIM: &str = "velero.io/csi-pvc-restorer";
    /// SHA-256 of `11111111-2222-4333-8444-555555555555/snap`, by another tool.
    const SHARED: &str = "590da286966959ab22b062fb09bae2a95d056b3da4a9f49bca70ca4f983dfc47";

    fn pvc(annotations: Value) -> Value {
        json!({"metadata": {"name": "data", "namespace": "app", "annotations": annotations},
            "spec": {"volumeName": "pv-1", "dataSourceRef": {"name": "x"}, "dataSource": {"name": "x"}}})
    }

    /// restore-semantics 7.4
    #[test]
    fn a_claim_is_filled_from_its_snapshot_under_the_shared_name() {
        let snapped = pvc(json!({VOLUME_SNAPSHOT_NAME: "snap"}));
        let output = Bench::new().backed_up_as(snapped).run(CLAIM, pvc(json!({}))).unwrap();
        assert_eq!(
            output.item["spec"],
            json!({"dataSource": {"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": SHARED}})
        );
        assert_eq!(output.additional_items, [ItemIdentifier::new(SNAPSHOTS, "app", "snap")]);
        let plain = Bench::new().run(CLAIM, pvc(json!({}))).unwrap();
        assert_eq!(plain.item, pvc(json!({})), "a claim without a snapshot stays");
    }

    /// restore-semantics 7.4
    #[test]
    fn a_claim_that_exists_in_the_target_namespace_stays() {
        let existing = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "dst"}});
        let bench = Bench::new().mapping("app", "dst").with(existing);
        let snapped = pvc(json!({VOLUME_SNAPSHOT_NAME: "snap"}));
        assert_eq!(bench.run(CLAIM, snapped.clone()).unwrap().item, snapped);
    }

    /// restore-semantics 7.4
    #[test]
    fn without_volumes_a_claim_keeps_no_source_and_snapshots_are_skipped() {
        let bench = Bench::new().without_volumes();
        assert_eq!(bench.run(CLAIM, pvc(json!({}))).unwrap().item["spec"], json!({}));
        for kind in ["snapshot", "snapshotclass", "snapshotcontent"] {
            assert!(bench.run(&format!("velero.io/csi-volume{kind}-restorer"), json!({})).unwrap().skip, "{kind}");
        }
    }

    #[test]
    fn of_a_backup_that_moved_data_a_claim_without_an_upload_stays() {
        let snapped = pvc(json!({VOLUME_SNAPSHOT_NAME: "snap"}));
        let output = Bench::new().moving_data().run(CLAIM, snapped.clone()).unwrap();
        assert_eq!((output.item, output.operation_id, output.additional_items.len()), (snapped, None, 0));
    }

    /// restore-semantics 7.4: the stub of the group, made for the first snapshot and extended for the second.
    #[test]
    fn a_snapshot_of_a_group_has_a_stub_of_the_group_s_content() {
        let snapshot = json!({"metadata": {"name": "snap", "namespace": "app", "annotations": {
                "velero.io/csi-volumegroupsnapshot-handle": "g", "velero.io/csi-volumesnapshot-handle": "h1",
                "velero.io/csi-driver-name": "d"}},
            "spec": {"source": {}}, "status": {"boundVolumeSnapshotContentName": "content-1"}});
        let class = json!({"kind": "VolumeGroupSnapshotClass", "metadata": {"name": "c"}, "driver": "d", "parameters": {
            "csi.storage.k8s.io/group-snapshotter-secret-name": "s",
            "csi.storage.k8s.io/group-snapshotter-secret-namespace": "n"}});
        let action = "velero.io/csi-volumesnapshot-restorer";
        let bench = Bench::new().with(class);
        let output = bench.run(action, snapshot.clone()).unwrap();
        assert_eq!(output.item["metadata"]["name"], SHARED);
        let [stub] = bench.created().try_into().unwrap();
        // SHA-256 of `11111111-2222-4333-8444-555555555555/g`, by another tool.
        let name = "2a04ca889f5ed35971c29a7bbf03b25eb69fe829a3cf65481d3e78d97afee7a4";
        assert_eq!(stub["metadata"]["name"], name);
        assert_eq!(stub["metadata"]["labels"], json!({"velero.io/restore-name": "r"}));
        assert_eq!(
            stub["metadata"]["annotations"],
            json!({"groupsnapshot.storage.kubernetes.io/deletion-secret-name": "s",
                "groupsnapshot.storage.kubernetes.io/deletion-secret-namespace": "n"})
        );
        assert_eq!(
            stub["spec"],
            json!({"deletionPolicy": "Retain", "driver": "d",
                "source": {"groupSnapshotHandles": {"volumeGroupSnapshotHandle": "g", "volumeSnapshotHandles": ["h1"]}},
                "volumeGroupSnapshotRef": {"name": format!("stub-vgs-{}", &name[..8]), "namespace": "app"}})
        );
        // A failure, here of the status, is logged and stops nothing.
        assert!(output.notes[0].contains("stub VolumeGroupSnapshotContent"), "{:?}", output.notes);

        let live = json!({"kind": "VolumeGroupSnapshotContent", "metadata": {"name": name},
            "spec": {"source": {"groupSnapshotHandles": {"volumeSnapshotHandles": ["h1"]}}}});
        let known = Bench::new().with(live.clone());
        assert_eq!(known.run(action, snapshot.clone()).unwrap().notes, [""; 0]);
        assert_eq!(known.requests(), [format!("get volumegroupsnapshotcontents  {name}")]);
        let mut second = snapshot;
        second["metadata"]["annotations"]["velero.io/csi-volumesnapshot-handle"] = json!("h2");
        let extended = Bench::new().with(live);
        extended.run(action, second).unwrap();
        let handles = json!(["h1", "h2"]);
        let patch = json!({"spec": {"source": {"groupSnapshotHandles": {"volumeSnapshotHandles": handles}}}});
        assert_eq!(extended.requests()[1], format!("patch volumegroupsnapshotcontents {name} {patch}"));
    }

    /// restore-semantics 7.4
    #[test]
    fn a_snapshot_is_bound_to_its_content_by_the_shared_name() {
        let snapshot = json!({"metadata": {"name": "snap", "namespace": "app"},
            "spec": {"volumeSnapshotClassName": "c", "source": {"persistentVolumeClaimName": "data"}},
            "status": {"boundVolumeSnapshotContentName": "content-1"}});
        let action = "velero.io/csi-volumesnapshot-restorer";
        let output = Bench::new().run(action, snapshot.clone()).unwrap();
        assert_eq!(output.item["metadata"]["name"], SHARED);
        assert_eq!(output.item["spec"], json!({"source": {"volumeSnapshotContentName": SHARED}}));
        assert_eq!(output.item["metadata"]["annotations"], json!({"velero.io/csi-vsc-deletion-policy": "Retain"}));
        assert_eq!(output.additional_items, [ItemIdentifier::new(CONTENTS, "", "content-1")]);
        let unbound = Bench::new().backed_up_as(json!({"metadata": {}})).run(action, snapshot).unwrap_err();
        assert!(unbound.to_string().contains("status.boundVolumeSnapshotContentName"), "{unbound}");
    }

    /// restore-semantics 7.4
    #[test]
    fn a_content_is_made_from_its_handle_and_refers_to_the_renamed_snapshot() {
        let content = json!({"metadata": {"name": "content-1", "annotations": {
                "csi.storage.k8s.io/snapshotter-secret-name": "s", "csi.storage.k8s.io/snapshotter-secret-namespace": "n"}},
            "spec": {"driver": "d", "deletionPolicy": "Delete", "source": {"volumeHandle": "v"},
                "volumeSnapshotClassName": "old",
                "volumeSnapshotRef": {"name": "snap", "namespace": "app", "uid": "u", "resourceVersion": "1"}},
            "status": {"snapshotHandle": "h"}});
        let class = json!({"kind": "VolumeSnapshotClass", "metadata": {"name": "mine"}, "driver": "d"});
        let action = "velero.io/csi-volumesnapshotcontent-restorer";
        let output = Bench::new().mapping("app", "dst").with(class).run(action, content.clone()).unwrap();
        assert_eq!(output.item["metadata"]["name"], SHARED);
        assert_eq!(
            output.item["spec"],
            json!({"driver": "d", "deletionPolicy": "Retain", "source": {"snapshotHandle": "h"},
                "volumeSnapshotClassName": "mine", "volumeSnapshotRef": {"name": SHARED, "namespace": "dst"}})
        );
        assert_eq!(output.additional_items, [ItemIdentifier::new("secrets", "n", "s")]);
        let other = Bench::new().run(action, content.clone()).unwrap().item;
        assert!(other["spec"].get("volumeSnapshotClassName").is_none());
        let without_handle = Bench::new().backed_up_as(json!({"metadata": {}})).run(action, content).unwrap_err();
        assert!(without_handle.to_string().contains("status.snapshotHandle"), "{without_handle}");
    }

    /// restore-semantics 7.1 `csi-volumesnapshotclass-restorer`
    #[test]
    fn a_snapshot_class_brings_the_secret_that_lists_its_snapshots() {
        let class = json!({"metadata": {"annotations": {"csi.storage.k8s.io/snapshotter-list-secret-name": "s",
            "csi.storage.k8s.io/snapshotter-list-secret-namespace": "n"}}});
        let output = Bench::new().run("velero.io/csi-volumesnapshotclass-restorer", class.clone()).unwrap();
        assert_eq!(output.item, class);
        assert_eq!(output.additional_items, [ItemIdentifier::new("secrets", "n", "s")]);
    }
}
