//! The table of all built-in actions, in the order they run.

use super::{Action, Run};
use super::{admission, claim, crd, csi, data_upload, image, init_hook, job, pod, pod_volume, rbac, secret, service};
use super::{fields, storage_class};
use crate::model::GroupResource;
use serde_json::Value;

const fn pure(
    name: &'static str,
    applies_to: &'static [&'static str],
    run: fn(super::Input<'_>) -> Result<super::Output, super::Error>,
) -> Action {
    Action { name, applies_to, label_key: None, needs_csi: false, run: Run::Pure(run) }
}

const fn cluster(
    name: &'static str,
    applies_to: &'static [&'static str],
    run: for<'a> fn(super::Input<'a>) -> futures::future::BoxFuture<'a, Result<super::Output, super::Error>>,
) -> Action {
    Action { name, applies_to, label_key: None, needs_csi: false, run: Run::Cluster(run) }
}

const fn with_csi(action: Action) -> Action {
    Action { needs_csi: true, ..action }
}

/// All built-in actions, in Velero's order (restore-semantics 7.0): first version 1 by name, then version 2 by name.
pub static BUILT_IN: &[Action] = &[
    pure("velero.io/add-pvc-from-pod", &["pods"], pod::add_claims),
    pure(
        "velero.io/admission-webhook-configuration",
        &[
            "mutatingwebhookconfigurations.admissionregistration.k8s.io",
            "validatingwebhookconfigurations.admissionregistration.k8s.io",
        ],
        admission::webhook_configuration,
    ),
    Action {
        label_key: Some("kube-aggregator.kubernetes.io/automanaged"),
        ..pure("velero.io/apiservice", &["apiservices.apiregistration.k8s.io"], admission::api_service)
    },
    pure("velero.io/change-image-name", image::APPLIES_TO, image::change_image_name),
    cluster(
        "velero.io/change-storage-class",
        &["persistentvolumeclaims", "persistentvolumes", "statefulsets.apps"],
        storage_class::change_storage_class,
    ),
    pure("velero.io/cluster-role-bindings", &["clusterrolebindings.rbac.authorization.k8s.io"], rbac::map_subjects),
    pure(
        "velero.io/crd-preserve-fields",
        &["customresourcedefinitions.apiextensions.k8s.io"],
        crd::preserve_unknown_fields,
    ),
    cluster("velero.io/dataupload", &["datauploads.velero.io"], data_upload::remember),
    pure("velero.io/init-restore-hook", &["pods"], init_hook::add_init_containers),
    pure("velero.io/job", &["jobs.batch"], job::job),
    pure("velero.io/pod", &["pods"], pod::pod),
    cluster("velero.io/pod-volume-restore", &["pods"], pod_volume::add_restore_wait),
    pure("velero.io/pvc", &["persistentvolumeclaims"], claim::claim),
    pure("velero.io/role-bindings", &["rolebindings.rbac.authorization.k8s.io"], rbac::map_subjects),
    cluster("velero.io/secret", &["secrets"], secret::secret),
    pure("velero.io/service", &["services"], service::service),
    pure("velero.io/service-account", &["serviceaccounts"], secret::service_account),
    with_csi(cluster("velero.io/csi-pvc-restorer", &["persistentvolumeclaims"], csi::claim)),
    with_csi(cluster(
        "velero.io/csi-volumesnapshot-restorer",
        &["volumesnapshots.snapshot.storage.k8s.io"],
        csi::volume_snapshot,
    )),
    with_csi(pure(
        "velero.io/csi-volumesnapshotclass-restorer",
        &["volumesnapshotclasses.snapshot.storage.k8s.io"],
        csi::volume_snapshot_class,
    )),
    with_csi(cluster(
        "velero.io/csi-volumesnapshotcontent-restorer",
        &["volumesnapshotcontents.snapshot.storage.k8s.io"],
        csi::volume_snapshot_content,
    )),
];

/// The actions that take items of this group-resource, in order; [`Action::selects`] is asked per item.
pub fn applicable(group_resource: &GroupResource, csi: bool) -> impl Iterator<Item = &'static Action> {
    BUILT_IN.iter().filter(move |action| action.takes(group_resource, csi))
}

/// Whether Velero's conversion to a Go type leaves an empty `status` on the item (restore-semantics 5.10 step 2),
/// so that Velero never finds it equal to what is in the cluster.
///
/// The actions here leave no such stub.
#[must_use]
pub fn leaves_status_stub(group_resource: &GroupResource, item: &Value) -> bool {
    match group_resource.as_str() {
        "pods" | "services" | "jobs.batch" | "persistentvolumeclaims" => true,
        "customresourcedefinitions.apiextensions.k8s.io" => {
            fields::text_or_empty(item, "apiVersion").is_ok_and(|version| version == crd::V1)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(group_resource: &str, csi: bool) -> Vec<&'static str> {
        applicable(&GroupResource::parse(group_resource), csi)
            .map(|action| action.name.trim_start_matches("velero.io/"))
            .collect()
    }

    /// restore-semantics 7.0, and 5.5 step 2 for those of CSI
    #[test]
    fn a_pod_and_a_claim_pass_their_actions_in_the_order_of_7_0() {
        assert_eq!(
            names("pods", true),
            ["add-pvc-from-pod", "change-image-name", "init-restore-hook", "pod", "pod-volume-restore"]
        );
        assert_eq!(names("persistentvolumeclaims", true), ["change-storage-class", "pvc", "csi-pvc-restorer"]);
        assert_eq!(names("persistentvolumeclaims", false), ["change-storage-class", "pvc"]);
        assert_eq!(names("volumesnapshots.snapshot.storage.k8s.io", false), [""; 0]);
        assert_eq!(names("configmaps", true), [""; 0]);
    }

    /// restore-semantics 7.0
    #[test]
    fn the_table_is_sorted_by_name_within_version_1_and_version_2() {
        let split = BUILT_IN.iter().position(|action| action.needs_csi).unwrap_or(BUILT_IN.len());
        let (first, second) = BUILT_IN.split_at(split);
        // `pod` sorts before `pod-volume-restore`, `service` before `service-account`.
        for part in [first, second] {
            assert!(
                part.is_sorted_by_key(|action| action.name),
                "{:?}",
                part.iter().map(|a| a.name).collect::<Vec<_>>()
            );
        }
        assert_eq!(BUILT_IN.len(), 21);
        assert!(second.iter().all(|action| action.needs_csi && action.name.contains("velero.io/csi-")));
    }

    /// restore-semantics 7.1 `apiservice`, and 5.5 step 1
    #[test]
    fn only_automanaged_api_services_are_selected_by_their_action() {
        let action = applicable(&GroupResource::parse("apiservices.apiregistration.k8s.io"), false).next();
        let selects =
            |labels: Value| action.is_some_and(|action| action.selects(&json!({"metadata": {"labels": labels}})));
        assert!(selects(json!({"kube-aggregator.kubernetes.io/automanaged": "true"})));
        assert!(selects(json!({"kube-aggregator.kubernetes.io/automanaged": ""})));
        assert!(!selects(json!({"other": "x"})));
        assert!(!selects(Value::Null));
    }
}
