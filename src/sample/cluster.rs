//! What is there once: the CRD, classes, cluster roles; and what every namespace begins with.

use serde_json::{Value, json};

use super::company::{DOMAIN, TEAMS, Team, ZONES};
use super::draft::Forge;
use crate::model::GroupResource;

/// The group of the company's own custom resources.
pub(super) const CUSTOM_API: &str = "platform.fernhill.example/v1";

/// The cluster-scoped objects, volumes apart.
pub(super) fn objects(forge: &Forge) -> Vec<(GroupResource, Value)> {
    let labels = json!({"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/part-of": "platform"});
    let mut objects = vec![feature_flags(forge).finish()];
    for (name, kind, policy, is_default) in
        [("standard", "network-ssd", "Delete", true), ("durable", "replicated-ssd", "Retain", false)]
    {
        let class = forge
            .draft("storage.k8s.io/v1", "StorageClass", "storageclasses", "", name)
            .labels(labels.clone())
            .annotations(json!({"storageclass.kubernetes.io/is-default-class": is_default.to_string()}))
            .with("provisioner", json!(format!("disks.csi.{DOMAIN}")))
            .with("parameters", json!({"type": kind, "fsType": "ext4"}))
            .with("reclaimPolicy", json!(policy))
            .with("volumeBindingMode", json!("WaitForFirstConsumer"))
            .with("allowVolumeExpansion", json!(true));
        objects.push(class.finish());
    }
    for (name, value, text) in [
        ("shop-critical", 100_000, "What a customer waits for"),
        ("shop-background", 1_000, "What may wait when the cluster is full"),
    ] {
        let class = forge
            .draft("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "", name)
            .labels(labels.clone())
            .generation(1)
            .with("value", json!(value))
            .with("description", json!(text))
            .with("preemptionPolicy", json!("PreemptLowerPriority"));
        objects.push(class.finish());
    }
    let ingress_class = forge
        .draft("networking.k8s.io/v1", "IngressClass", "ingressclasses", "", "edge")
        .labels(labels.clone())
        .generation(1)
        .with("spec", json!({"controller": format!("{DOMAIN}/edge-proxy")}));
    objects.push(ingress_class.finish());

    let read = json!(["get", "list", "watch"]);
    let write = json!(["create", "delete", "get", "list", "patch", "update", "watch"]);
    for (name, rules) in [
        (
            "fernhill-flag-reader",
            json!([{"apiGroups": [format!("platform.{DOMAIN}")], "resources": ["featureflags"], "verbs": read}]),
        ),
        (
            "fernhill-flag-editor",
            json!([{"apiGroups": [format!("platform.{DOMAIN}")], "resources": ["featureflags"], "verbs": write}]),
        ),
        (
            "fernhill-developer",
            json!([
                {"apiGroups": [""], "resources": ["configmaps", "pods", "pods/log", "services"], "verbs": read},
                {"apiGroups": ["apps"], "resources": ["deployments", "replicasets", "statefulsets"], "verbs": read},
                {"apiGroups": ["batch"], "resources": ["cronjobs", "jobs"], "verbs": write},
            ]),
        ),
        (
            "fernhill-on-call",
            json!([{"apiGroups": ["", "apps", "batch"], "resources": ["*"], "verbs": ["delete", "get", "list", "patch", "watch"]}]),
        ),
    ] {
        let role = forge
            .draft("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", "", name)
            .labels(labels.clone())
            .with("rules", rules);
        objects.push(role.finish());
    }
    for (name, role, group) in [
        ("fernhill-on-call", "fernhill-on-call", "on-call"),
        ("fernhill-flag-editors", "fernhill-flag-editor", "product"),
    ] {
        let binding = forge
            .draft("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", "", name)
            .labels(labels.clone())
            .with("roleRef", json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}))
            .with("subjects", json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": format!("{DOMAIN}:{group}")}]));
        objects.push(binding.finish());
    }
    for team in &TEAMS {
        let binding = forge
            .draft("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", "", &format!("fernhill-flags-{}", team.name))
            .labels(json!({"team": team.name}))
            .with("roleRef", json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "fernhill-flag-reader"}))
            .with("subjects", json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": format!("{DOMAIN}:{}", team.name)}]));
        objects.push(binding.finish());
    }
    objects
}

fn feature_flags(forge: &Forge) -> super::draft::Draft {
    let schema = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "required": ["enabled"],
                "properties": {
                    "enabled": {"type": "boolean"},
                    "description": {"type": "string"},
                    "rollout": {"type": "integer", "minimum": 0, "maximum": 100},
                    "audiences": {"type": "array", "items": {"type": "string"}},
                    "owner": {"type": "object", "properties": {"team": {"type": "string"}, "contact": {"type": "string"}}},
                },
            },
            "status": {
                "type": "object",
                "properties": {
                    "observedGeneration": {"type": "integer", "format": "int64"},
                    "evaluations": {"type": "integer", "format": "int64"},
                    "phase": {"type": "string"},
                },
            },
        },
    });
    let names = json!({"kind": "FeatureFlag", "listKind": "FeatureFlagList", "plural": "featureflags", "singular": "featureflag", "shortNames": ["ff"]});
    let draft = forge.draft(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "",
        &format!("featureflags.platform.{DOMAIN}"),
    );
    let created = draft.created.clone();
    draft
        .labels(json!({"app.kubernetes.io/managed-by": "Helm"}))
        .generation(1)
        .with(
            "spec",
            json!({
                "conversion": {"strategy": "None"},
                "group": format!("platform.{DOMAIN}"),
                "names": names,
                "scope": "Namespaced",
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": "Enabled", "type": "boolean", "jsonPath": ".spec.enabled"},
                        {"name": "Rollout", "type": "integer", "jsonPath": ".spec.rollout"},
                    ],
                }],
            }),
        )
        .status(
            "kube-apiserver",
            json!({
                "acceptedNames": names,
                "conditions": [
                    {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found", "lastTransitionTime": created},
                    {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "the initial names have been accepted", "lastTransitionTime": created},
                ],
                "storedVersions": ["v1"],
            }),
        )
}

/// What a namespace has before any service is in it.
pub(super) fn namespace(forge: &Forge, team: &Team, name: &str, environment: &str) -> Vec<(GroupResource, Value)> {
    let labels = json!({
        "kubernetes.io/metadata.name": name,
        "team": team.name,
        "environment": environment,
        "cost-centre": team.cost_centre,
        "pod-security.kubernetes.io/warn": "baseline",
    });
    let namespace = forge
        .draft("v1", "Namespace", "namespaces", "", name)
        .labels(labels)
        .annotations(json!({"fernhill.example/contact": format!("{}@{DOMAIN}", team.name)}))
        .managed_by("terraform")
        .with("spec", json!({"finalizers": ["kubernetes"]}))
        .status("", json!({"phase": "Active"}));
    let root_ca = forge
        .draft("v1", "ConfigMap", "configmaps", name, "kube-root-ca.crt")
        .annotations(json!({"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints."}))
        .managed_by("kube-controller-manager")
        .with("data", json!({"ca.crt": "-----BEGIN CERTIFICATE-----\nmade up, of no use\n-----END CERTIFICATE-----\n"}));
    let limits = forge
        .draft("v1", "LimitRange", "limitranges", name, "defaults")
        .labels(json!({"team": team.name}))
        .managed_by("terraform")
        .with(
            "spec",
            json!({"limits": [{
                "type": "Container",
                "default": {"cpu": "500m", "memory": "256Mi"},
                "defaultRequest": {"cpu": "50m", "memory": "64Mi"},
            }]}),
        );
    let deny = forge
        .draft("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", name, "default-deny")
        .labels(json!({"team": team.name}))
        .generation(1)
        .managed_by("terraform")
        .with("spec", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    let developers = forge
        .draft("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", name, "developers")
        .labels(json!({"team": team.name}))
        .managed_by("terraform")
        .with("roleRef", json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "fernhill-developer"}))
        .with("subjects", json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": format!("{DOMAIN}:{}", team.name)}]));
    let default_account = forge.draft("v1", "ServiceAccount", "serviceaccounts", name, "default").managed_by("");
    let settings =
        forge.draft("v1", "ConfigMap", "configmaps", name, "environment").labels(json!({"team": team.name})).with(
            "data",
            json!({"ENVIRONMENT": environment, "REGION": "north-1", "ZONES": ZONES.join(","), "TEAM": team.name}),
        );
    [namespace, root_ca, limits, deny, developers, default_account, settings].map(super::draft::Draft::finish).into()
}
