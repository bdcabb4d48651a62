//! PersistentVolumes and their claims (restore-semantics 5.4 and 5.6).

use serde_json::{Value, json};

use super::world::{World, namespace};
use crate::archive::testing::Backup;
use crate::engine::{BackupMethod, BackupVolumes, NativeSnapshot};
use crate::model::Reason;

fn volume(reclaim: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pv", "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
        "spec": {"persistentVolumeReclaimPolicy": reclaim,
            "claimRef": {"namespace": "shop", "name": "data", "uid": "u", "resourceVersion": "7"}}})
}

fn claim() -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "shop", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}})
}

fn world(reclaim: &str, volumes: BackupVolumes) -> World {
    World::of(Backup::new().with(volume(reclaim)).with(claim()))
        .job(|job| job.volumes = volumes)
        .live(&namespace("store"))
        .spec(|spec| _ = spec.namespace_mapping.insert("shop".to_owned(), "store".to_owned()))
}

fn with_method(method: BackupMethod) -> BackupVolumes {
    BackupVolumes { methods: [("pv".to_owned(), method)].into(), ..BackupVolumes::default() }
}

fn of_claim() -> [(String, String); 1] {
    [("shop".to_owned(), "data".to_owned())]
}

/// restore-semantics 5.4, both tables, and 5.6: what is provisioned anew is skipped and its claim names no volume; what is
/// restored as it is follows the mapping, untied.
#[tokio::test(start_paused = true)]
async fn a_volume_is_provisioned_anew_or_restored_as_it_is_by_what_the_backup_tells() {
    let csi = BackupVolumes { csi_claims: of_claim().into(), ..BackupVolumes::default() };
    let pod_volume = BackupVolumes { pod_volume_claims: of_claim().into(), ..BackupVolumes::default() };
    let elsewhere = BackupVolumes {
        csi_claims: [("shop".to_owned(), "other".to_owned())].into(),
        pod_volume_claims: [("store".to_owned(), "data".to_owned())].into(),
        ..BackupVolumes::default()
    };
    for (reclaim, volumes, dynamic) in [
        ("Retain", with_method(BackupMethod::PodVolumeBackup), true),
        ("Retain", with_method(BackupMethod::CsiSnapshot), true),
        ("Delete", with_method(BackupMethod::None), true),
        ("Retain", with_method(BackupMethod::None), false),
        // The entry of the volume wins over everything an older backup would have.
        ("Retain", BackupVolumes { csi_claims: of_claim().into(), ..with_method(BackupMethod::None) }, false),
        ("Retain", csi, true),
        ("Retain", pod_volume, true),
        ("Retain", elsewhere, false),
        ("Retain", BackupVolumes::default(), false),
        ("Delete", BackupVolumes::default(), true),
    ] {
        let done = world(reclaim, volumes.clone()).run().await;
        assert!(done.is_clean(), "{volumes:?}");
        let restored = done.object("persistentvolumes", "", "pv");
        let claim = done.object("persistentvolumeclaims", "store", "data");
        assert!(claim["metadata"]["annotations"].get("pv.kubernetes.io/bind-completed").is_none(), "{volumes:?}");
        if dynamic {
            assert!(restored.is_null(), "{volumes:?}");
            assert_eq!(done.ended("v1/PersistentVolume pv").reason, Some(Reason::DynamicVolume));
            assert_eq!(done.listed()[0], "v1/PersistentVolume pv(skipped)");
            assert!(claim["spec"].get("volumeName").is_none(), "{volumes:?}");
        } else {
            assert_eq!(restored["spec"]["claimRef"], json!({"namespace": "store", "name": "data"}), "{volumes:?}");
            assert_eq!(restored["metadata"]["annotations"], json!({}));
            assert_eq!(claim["spec"]["volumeName"], "pv", "{volumes:?}");
        }
    }
}

fn native() -> BackupVolumes {
    let snapshot = NativeSnapshot { location: "gp3".to_owned(), snapshot_id: "snap-1".to_owned() };
    BackupVolumes { native_snapshots: [("pv".to_owned(), snapshot)].into(), ..BackupVolumes::default() }
}

/// restore-semantics 5.4.1 steps 1, 2 and 5: the name is taken and the claim moves, so the volume gets another name.
#[tokio::test(start_paused = true)]
async fn a_volume_whose_name_is_taken_and_whose_claim_moves_is_renamed_and_its_claim_follows() {
    // With `restorePVs: false` no snapshot is asked for (step 4), which leaves the renaming.
    let done =
        world("Retain", native()).spec(|spec| spec.restore_pvs = Some(false)).live(&volume("Retain")).run().await;
    assert!(done.is_clean(), "{:?}", done.errors());
    let create = done.requested("create persistentvolumes/").pop().unwrap();
    let name = create.trim_start_matches("create persistentvolumes/");
    assert!(name.starts_with("velero-clone-") && name.len() == "velero-clone-".len() + 36, "{name}");
    let made = done.object("persistentvolumes", "", name);
    assert_eq!(made["metadata"]["annotations"], json!({"velero.io/original-pv-name": "pv"}));
    assert_eq!(made["spec"]["claimRef"], json!({"namespace": "store", "name": "data"}));
    assert_eq!(done.object("persistentvolumeclaims", "store", "data")["spec"]["volumeName"], name);
    assert!(done.listed().contains(&format!("v1/PersistentVolume {name}(created)")), "{:?}", done.listed());
}

/// restore-semantics 5.4.1 step 1: without a namesake in the cluster the name stays.
#[tokio::test(start_paused = true)]
async fn a_volume_whose_name_is_free_keeps_it() {
    let done = world("Retain", native()).spec(|spec| spec.restore_pvs = Some(false)).run().await;
    assert!(done.is_clean());
    assert_eq!(done.requested("create persistentvolumes/"), ["create persistentvolumes/pv"]);
}

/// restore-semantics 5.4.1 step 3: E when the namesake is still going at the end of the wait; nothing is created.
#[tokio::test(start_paused = true)]
async fn a_namesake_that_does_not_go_in_time_is_an_error() {
    let mut going = volume("Retain");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let world = World::of(Backup::new().with(volume("Retain"))).job(|job| job.volumes = native());
    let done = world.live(&going).run().await;
    let message = "error waiting on in-cluster persistentvolume pv: context deadline exceeded";
    assert_eq!(done.errors(), [("cluster".to_owned(), message.to_owned())]);
    assert!((600..660).contains(&done.took.as_secs()), "{:?}", done.took);
    assert_eq!(done.requested("create persistentvolumes/"), [""; 0]);
}

/// restore-semantics 5.4.1 step 3: "do not restore" goes on with the object as it is, which meets its namesake (5.10).
#[tokio::test(start_paused = true)]
async fn a_namesake_in_use_stays_and_the_volume_is_compared_with_it() {
    let world =
        World::of(Backup::new().with(volume("Retain")).with(namespace("shop"))).job(|job| job.volumes = native());
    let mut live = volume("Retain");
    live["spec"]["capacity"] = json!({"storage": "1Gi"});
    let done = world.live(&live).live(&namespace("shop")).live(&claim()).run().await;
    assert_eq!(done.errors(), []);
    assert_eq!(done.warnings().len(), 1, "{:?}", done.warnings());
    assert_eq!(done.listed(), ["v1/PersistentVolume pv(failed)"]);
    assert_eq!(done.object("persistentvolumes", "", "pv")["spec"], live["spec"]);
}
