//! The resources Kubernetes 1.36 serves by default, as data.

/// How a built-in resource is spelled and what it can do.
pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) versions: &'static [&'static str],
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
    pub(super) short: &'static [&'static str],
    pub(super) categories: &'static [&'static str],
    /// Whether there is a `/status` subresource.
    pub(super) status: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub(super) generation: bool,
    /// Whether it only answers creates (reviews), keeping nothing.
    pub(super) review: bool,
}

const fn row(group: &'static str, plural: &'static str, kind: &'static str, namespaced: bool) -> Row {
    Row {
        group,
        versions: &["v1"],
        plural,
        kind,
        namespaced,
        short: &[],
        categories: &[],
        status: false,
        generation: false,
        review: false,
    }
}

/// A namespaced resource.
const fn ns(group: &'static str, plural: &'static str, kind: &'static str) -> Row {
    row(group, plural, kind, true)
}

/// A cluster-scoped resource.
const fn cs(group: &'static str, plural: &'static str, kind: &'static str) -> Row {
    row(group, plural, kind, false)
}

impl Row {
    const fn short(mut self, short: &'static [&'static str]) -> Self {
        self.short = short;
        self
    }
    const fn in_all(mut self) -> Self {
        self.categories = &["all"];
        self
    }
    const fn categories(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = categories;
        self
    }
    const fn status(mut self) -> Self {
        self.status = true;
        self
    }
    const fn generation(mut self) -> Self {
        self.generation = true;
        self
    }
    const fn review(mut self) -> Self {
        self.review = true;
        self
    }
    const fn versions(mut self, versions: &'static [&'static str]) -> Self {
        self.versions = versions;
        self
    }
}

const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";
const NET: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const DRA: &str = "resource.k8s.io";

/// Every built-in resource, groups in the order of the API server's discovery.
pub(super) const ROWS: &[Row] = &[
    ns("", "bindings", "Binding").review(),
    cs("", "componentstatuses", "ComponentStatus").short(&["cs"]),
    ns("", "configmaps", "ConfigMap").short(&["cm"]),
    ns("", "endpoints", "Endpoints").short(&["ep"]),
    ns("", "events", "Event").short(&["ev"]),
    ns("", "limitranges", "LimitRange").short(&["limits"]),
    cs("", "namespaces", "Namespace").short(&["ns"]).status(),
    cs("", "nodes", "Node").short(&["no"]).status(),
    ns("", "persistentvolumeclaims", "PersistentVolumeClaim").short(&["pvc"]).status(),
    cs("", "persistentvolumes", "PersistentVolume").short(&["pv"]).status(),
    ns("", "pods", "Pod").short(&["po"]).in_all().status().generation(),
    ns("", "podtemplates", "PodTemplate").generation(),
    ns("", "replicationcontrollers", "ReplicationController").short(&["rc"]).in_all().status().generation(),
    ns("", "resourcequotas", "ResourceQuota").short(&["quota"]).status(),
    ns("", "secrets", "Secret"),
    ns("", "serviceaccounts", "ServiceAccount").short(&["sa"]),
    ns("", "services", "Service").short(&["svc"]).in_all().status(),
    cs("apiregistration.k8s.io", "apiservices", "APIService").categories(&["api-extensions"]).status(),
    ns("apps", "controllerrevisions", "ControllerRevision"),
    ns("apps", "daemonsets", "DaemonSet").short(&["ds"]).in_all().status().generation(),
    ns("apps", "deployments", "Deployment").short(&["deploy"]).in_all().status().generation(),
    ns("apps", "replicasets", "ReplicaSet").short(&["rs"]).in_all().status().generation(),
    ns("apps", "statefulsets", "StatefulSet").short(&["sts"]).in_all().status().generation(),
    ns("events.k8s.io", "events", "Event").short(&["ev"]),
    cs(AUTHN, "selfsubjectreviews", "SelfSubjectReview").review(),
    cs(AUTHN, "tokenreviews", "TokenReview").review(),
    ns(AUTHZ, "localsubjectaccessreviews", "LocalSubjectAccessReview").review(),
    cs(AUTHZ, "selfsubjectaccessreviews", "SelfSubjectAccessReview").review(),
    cs(AUTHZ, "selfsubjectrulesreviews", "SelfSubjectRulesReview").review(),
    cs(AUTHZ, "subjectaccessreviews", "SubjectAccessReview").review(),
    ns("autoscaling", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
        .versions(&["v2", "v1"])
        .short(&["hpa"])
        .in_all()
        .status(),
    ns("batch", "cronjobs", "CronJob").short(&["cj"]).in_all().status().generation(),
    ns("batch", "jobs", "Job").in_all().status().generation(),
    cs("certificates.k8s.io", "certificatesigningrequests", "CertificateSigningRequest").short(&["csr"]).status(),
    cs(NET, "ingressclasses", "IngressClass").generation(),
    ns(NET, "ingresses", "Ingress").short(&["ing"]).status().generation(),
    cs(NET, "ipaddresses", "IPAddress").short(&["ip"]).generation(),
    ns(NET, "networkpolicies", "NetworkPolicy").short(&["netpol"]).generation(),
    cs(NET, "servicecidrs", "ServiceCIDR").status().generation(),
    ns("policy", "poddisruptionbudgets", "PodDisruptionBudget").short(&["pdb"]).status().generation(),
    cs(RBAC, "clusterrolebindings", "ClusterRoleBinding"),
    cs(RBAC, "clusterroles", "ClusterRole"),
    ns(RBAC, "rolebindings", "RoleBinding"),
    ns(RBAC, "roles", "Role"),
    cs(STORAGE, "csidrivers", "CSIDriver"),
    cs(STORAGE, "csinodes", "CSINode"),
    ns(STORAGE, "csistoragecapacities", "CSIStorageCapacity"),
    cs(STORAGE, "storageclasses", "StorageClass").short(&["sc"]),
    cs(STORAGE, "volumeattachments", "VolumeAttachment").status(),
    cs(STORAGE, "volumeattributesclasses", "VolumeAttributesClass").short(&["vac"]),
    cs(ADMISSION, "mutatingadmissionpolicies", "MutatingAdmissionPolicy").categories(&["api-extensions"]).generation(),
    cs(ADMISSION, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding")
        .categories(&["api-extensions"])
        .generation(),
    cs(ADMISSION, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration")
        .categories(&["api-extensions"])
        .generation(),
    cs(ADMISSION, "validatingadmissionpolicies", "ValidatingAdmissionPolicy")
        .categories(&["api-extensions"])
        .status()
        .generation(),
    cs(ADMISSION, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding")
        .categories(&["api-extensions"])
        .generation(),
    cs(ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
        .categories(&["api-extensions"])
        .generation(),
    cs("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition")
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .status()
        .generation(),
    cs("scheduling.k8s.io", "priorityclasses", "PriorityClass").short(&["pc"]).generation(),
    ns("coordination.k8s.io", "leases", "Lease"),
    cs("node.k8s.io", "runtimeclasses", "RuntimeClass"),
    ns("discovery.k8s.io", "endpointslices", "EndpointSlice").generation(),
    cs(DRA, "deviceclasses", "DeviceClass").generation(),
    ns(DRA, "resourceclaims", "ResourceClaim").status(),
    ns(DRA, "resourceclaimtemplates", "ResourceClaimTemplate"),
    cs(DRA, "resourceslices", "ResourceSlice").generation(),
    cs("flowcontrol.apiserver.k8s.io", "flowschemas", "FlowSchema").status().generation(),
    cs("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", "PriorityLevelConfiguration")
        .status()
        .generation(),
];

/// The kind of a list of `kind`.
pub(super) fn list_kind(kind: &str) -> String {
    format!("{kind}List")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_resource_is_listed_twice() {
        let mut seen = HashSet::new();
        assert!(ROWS.iter().all(|row| seen.insert((row.group, row.plural))));
    }

    #[test]
    fn the_namespaced_ones_of_the_core_group_are_those_of_kubernetes() {
        let cluster: Vec<_> = ROWS.iter().filter(|r| r.group.is_empty() && !r.namespaced).map(|r| r.plural).collect();
        assert_eq!(cluster, ["componentstatuses", "namespaces", "nodes", "persistentvolumes"]);
    }
}
