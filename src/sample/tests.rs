#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;

use flate2::read::GzDecoder;

use super::*;
use crate::archive::{Archive, ReadOptions, testing::group_resource_of};
use crate::model::names::is_dns_subdomain;

fn all(items: usize) -> Vec<(GroupResource, Value)> {
    objects(&SampleOptions { items, ..SampleOptions::default() }).collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Decodes an object as the type that Kubernetes has for it, so that a field of a wrong type or a missing one fails.
fn decode<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<Value, String> {
    let decoded: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(decoded).map_err(|error| error.to_string())
}

/// What of `object` is not in `decoded`: fields that Kubernetes does not know.
fn unknown_fields(path: &str, object: &Value, decoded: &Value, unknown: &mut BTreeSet<String>) {
    match (object, decoded) {
        (Value::Object(object), Value::Object(decoded)) => {
            for (key, value) in object {
                match decoded.get(key) {
                    Some(known) => unknown_fields(&format!("{path}.{key}"), value, known, unknown),
                    None if value.is_null() => {}
                    None => {
                        unknown.insert(format!("{path}.{key}"));
                    }
                }
            }
        }
        (Value::Array(object), Value::Array(decoded)) => {
            for (value, known) in object.iter().zip(decoded) {
                unknown_fields(&format!("{path}[]"), value, known, unknown);
            }
        }
        _ => {}
    }
}

#[test]
fn the_same_options_make_the_same_objects_and_another_seed_others() {
    let first = all(400);
    assert_eq!(first, all(400));
    let other: Vec<_> = objects(&SampleOptions { seed: 2, items: 400, ..SampleOptions::default() }).collect();
    assert_ne!(first, other);
}

#[test]
fn there_are_as_many_objects_as_asked_for_and_no_two_alike() {
    for items in [100, 101, 150, 1000, 3000, 6001] {
        let objects = all(items);
        assert_eq!(objects.len(), items);
        let mut keys = BTreeSet::new();
        let mut uids = BTreeSet::new();
        for (group_resource, object) in &objects {
            let key = (group_resource.clone(), text(object, "/metadata/namespace"), text(object, "/metadata/name"));
            assert!(keys.insert(key.clone()), "{key:?} twice");
            assert!(uids.insert(text(object, "/metadata/uid")), "{key:?} has the uid of another");
        }
    }
    assert!(all(0).len() < 100);
}

#[test]
fn every_object_is_in_its_group_resource_with_a_valid_name_in_a_namespace_that_is_there() {
    let objects = all(3000);
    let namespaces: BTreeSet<&str> = objects
        .iter()
        .filter(|(group_resource, _)| *group_resource == "namespaces")
        .map(|(_, object)| text(object, "/metadata/name"))
        .collect();
    for (group_resource, object) in &objects {
        assert_eq!(group_resource_of(object), *group_resource);
        assert!(is_dns_subdomain(text(object, "/metadata/name")), "{object}");
        let namespace = text(object, "/metadata/namespace");
        assert!(namespace.is_empty() || namespaces.contains(namespace), "{object}");
        for (key, value) in object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten() {
            assert!(value.as_str().unwrap().len() <= 63, "{key}: {value}");
        }
    }
}

#[test]
fn owners_claims_accounts_and_classes_are_there() {
    let objects = all(3000);
    let uids: HashMap<&str, &Value> =
        objects.iter().map(|(_, object)| (text(object, "/metadata/uid"), object)).collect();
    let has = |resource: &str, namespace: &str, name: &str| {
        objects.iter().any(|(group_resource, object)| {
            group_resource.as_str() == resource
                && text(object, "/metadata/namespace") == namespace
                && text(object, "/metadata/name") == name
        })
    };
    let mut owned = 0;
    for (group_resource, object) in &objects {
        let namespace = text(object, "/metadata/namespace");
        for owner in object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten() {
            owned += 1;
            let found = uids[text(owner, "/uid")];
            assert_eq!(
                (text(found, "/kind"), text(found, "/metadata/name")),
                (text(owner, "/kind"), text(owner, "/name"))
            );
            assert_eq!(text(found, "/metadata/namespace"), namespace);
        }
        match group_resource.as_str() {
            "persistentvolumeclaims" => assert!(has("persistentvolumes", "", text(object, "/spec/volumeName"))),
            "persistentvolumes" => {
                let claim = uids[text(object, "/spec/claimRef/uid")];
                assert_eq!(text(claim, "/metadata/name"), text(object, "/spec/claimRef/name"));
            }
            "pods" => {
                assert!(has("serviceaccounts", namespace, text(object, "/spec/serviceAccountName")));
                let class = text(object, "/spec/priorityClassName");
                let class = objects.iter().find(|(_, found)| text(found, "/metadata/name") == class).unwrap();
                assert_eq!(class.1["value"], object["spec"]["priority"]);
                for volume in object["spec"]["volumes"].as_array().unwrap() {
                    if let Some(claim) = volume.pointer("/persistentVolumeClaim/claimName") {
                        assert!(has("persistentvolumeclaims", namespace, claim.as_str().unwrap()));
                    }
                    if let Some(config_map) = volume.pointer("/configMap/name") {
                        assert!(has("configmaps", namespace, config_map.as_str().unwrap()));
                    }
                }
            }
            _ => {}
        }
    }
    assert!(owned > 300, "{owned}");
}

#[test]
fn selectors_select_the_templates() {
    for (_, object) in all(3000) {
        let Some(selector) = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object) else { continue };
        let Some(labels) = object.pointer("/spec/template/metadata/labels") else { continue };
        assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)), "{object}");
    }
}

#[test]
fn kubernetes_knows_every_field() {
    use k8s_openapi::api::{
        apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch, core::v1 as core,
        discovery::v1 as discovery, networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac,
        scheduling::v1 as scheduling, storage::v1 as storage,
    };
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
    let mut kinds = BTreeSet::new();
    let mut unknown = BTreeSet::new();
    for (_, object) in all(6000) {
        let kind = text(&object, "/kind").to_owned();
        let decoded = match kind.as_str() {
            "FeatureFlag" => continue,
            "ClusterRole" => decode::<rbac::ClusterRole>(&object),
            "ClusterRoleBinding" => decode::<rbac::ClusterRoleBinding>(&object),
            "ConfigMap" => decode::<core::ConfigMap>(&object),
            "CronJob" => decode::<batch::CronJob>(&object),
            "CustomResourceDefinition" => decode::<apiextensions::CustomResourceDefinition>(&object),
            "Deployment" => decode::<apps::Deployment>(&object),
            "EndpointSlice" => decode::<discovery::EndpointSlice>(&object),
            "HorizontalPodAutoscaler" => decode::<autoscaling::HorizontalPodAutoscaler>(&object),
            "Ingress" => decode::<networking::Ingress>(&object),
            "IngressClass" => decode::<networking::IngressClass>(&object),
            "Job" => decode::<batch::Job>(&object),
            "LimitRange" => decode::<core::LimitRange>(&object),
            "Namespace" => decode::<core::Namespace>(&object),
            "NetworkPolicy" => decode::<networking::NetworkPolicy>(&object),
            "PersistentVolume" => decode::<core::PersistentVolume>(&object),
            "PersistentVolumeClaim" => decode::<core::PersistentVolumeClaim>(&object),
            "Pod" => decode::<core::Pod>(&object),
            "PodDisruptionBudget" => decode::<policy::PodDisruptionBudget>(&object),
            "PriorityClass" => decode::<scheduling::PriorityClass>(&object),
            "ReplicaSet" => decode::<apps::ReplicaSet>(&object),
            "Role" => decode::<rbac::Role>(&object),
            "RoleBinding" => decode::<rbac::RoleBinding>(&object),
            "Secret" => decode::<core::Secret>(&object),
            "Service" => decode::<core::Service>(&object),
            "ServiceAccount" => decode::<core::ServiceAccount>(&object),
            "StatefulSet" => decode::<apps::StatefulSet>(&object),
            "StorageClass" => decode::<storage::StorageClass>(&object),
            other => panic!("{other} is not looked at"),
        };
        let decoded = decoded.unwrap_or_else(|error| panic!("{error}: {object}"));
        unknown_fields(&kind, &object, &decoded, &mut unknown);
        kinds.insert(kind);
    }
    assert_eq!(unknown, BTreeSet::new());
    assert_eq!(kinds.len(), 27, "{kinds:?}");
}

#[test]
fn managed_fields_name_only_what_is_there() {
    fn check(fields: &Value, object: &Value, path: &str) {
        for (key, fields) in fields.as_object().unwrap() {
            if let Some(name) = key.strip_prefix("f:") {
                let value = object.get(name).unwrap_or_else(|| panic!("{path}.{name} is not there"));
                check(fields, value, &format!("{path}.{name}"));
            } else if let Some(key) = key.strip_prefix("k:") {
                let key: Value = serde_json::from_str(key).unwrap();
                let is_item =
                    |item: &&Value| key.as_object().unwrap().iter().all(|(name, value)| item.get(name) == Some(value));
                let item = object.as_array().unwrap().iter().find(is_item).unwrap_or_else(|| panic!("{path}[{key}]"));
                check(fields, item, path);
            }
        }
    }
    let mut by_managers: BTreeMap<usize, usize> = BTreeMap::new();
    for (_, object) in all(3000) {
        let managers = object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
        for manager in &managers {
            check(&manager["fieldsV1"], &object, text(&object, "/kind"));
        }
        *by_managers.entry(managers.len()).or_default() += 1;
    }
    assert!(by_managers[&1] > 1500, "{by_managers:?}");
    assert!(by_managers[&2] > 300, "{by_managers:?}");
    assert!(by_managers[&3] > 20, "{by_managers:?}");
}

#[test]
fn highlights_are_in_the_sample() {
    let options = SampleOptions::default();
    let highlights = highlights(&options);
    assert_eq!(highlights.len(), 6, "{highlights:?}");
    let small = super::highlights(&SampleOptions { items: 200, ..options });
    assert_eq!(small.len(), 5, "{small:?}");
    assert!(
        highlights
            .iter()
            .filter(|highlight| !highlight.namespace.is_empty())
            .all(|highlight| highlight.namespace == "checkout")
    );
}

#[test]
fn a_backup_folder_has_all_files_and_reads_back() {
    let store = tempfile::tempdir().unwrap();
    let options = SampleOptions { items: 700, ..SampleOptions::default() };
    let summary = write_backup(store.path(), &options).unwrap();
    assert_eq!((summary.items, summary.group_resources.values().sum::<usize>()), (700, 700));

    let archive = Archive::read(std::fs::File::open(&summary.tarball).unwrap(), &ReadOptions::default()).unwrap();
    assert_eq!((archive.stats().items, archive.stats().skipped_copies), (700, 700));
    let expected: HashMap<String, Value> =
        objects(&options).map(|(_, object)| (text(&object, "/metadata/uid").to_owned(), object)).collect();
    for group_resource in archive.group_resources() {
        for (_, ids) in archive.scopes(group_resource) {
            for id in ids {
                assert!(archive.entry(id).header.is_ok());
                let object = archive.load(id).unwrap();
                assert_eq!(expected[text(&object, "/metadata/uid")], object);
            }
        }
    }

    let mut files: Vec<_> = std::fs::read_dir(&summary.folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "fernhill-nightly-itemoperations.json.gz",
            "fernhill-nightly-logs.gz",
            "fernhill-nightly-podvolumebackups.json.gz",
            "fernhill-nightly-resource-list.json.gz",
            "fernhill-nightly-results.gz",
            "fernhill-nightly-volumeinfo.json.gz",
            "fernhill-nightly-volumesnapshots.json.gz",
            "fernhill-nightly.tar.gz",
            "velero-backup.json",
        ]
    );
    for file in files.iter().filter(|file| file.ends_with(".json.gz")) {
        let mut json = String::new();
        GzDecoder::new(std::fs::File::open(summary.folder.join(file)).unwrap()).read_to_string(&mut json).unwrap();
        assert!(json.ends_with('\n') && serde_json::from_str::<Value>(&json).is_ok(), "{file}");
    }
    let backup: Value =
        serde_json::from_slice(&std::fs::read(summary.folder.join("velero-backup.json")).unwrap()).unwrap();
    assert_eq!(backup["status"]["completionTimestamp"], "2026-03-02T02:00:00Z");
    assert_eq!(backup["status"]["progress"]["totalItems"], 700);

    let again = tempfile::tempdir().unwrap();
    let second = write_backup(again.path(), &options).unwrap();
    assert_eq!(std::fs::read(&summary.tarball).unwrap(), std::fs::read(&second.tarball).unwrap());
}

#[test]
fn a_name_that_is_no_folder_is_refused() {
    let store = tempfile::tempdir().unwrap();
    for name in ["../x", "", "Upper", "a/b"] {
        let options = SampleOptions { name: name.to_owned(), ..SampleOptions::default() };
        assert!(matches!(write_backup(store.path(), &options), Err(Error::Name(_))), "{name:?}");
    }
}
