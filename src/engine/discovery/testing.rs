//! A small API server's discovery, for tests.

use super::{Discovery, ServedGroup, ServedResource, ServedVersion};

/// Lines `group version resource Kind scope [short,names]`; the first version of a group is preferred, `-` is the core group.
/// A `!` before the resource leaves out the verb `create`.
pub(crate) fn discovery(lines: &str) -> Discovery {
    let mut groups: Vec<ServedGroup> = Vec::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (group, version) = (words[0].trim_start_matches('-'), words[1]);
        let is_creatable = !words[2].starts_with('!');
        let mut verbs: Vec<String> = ["get", "list", "delete", "watch"].map(String::from).into();
        verbs.extend(is_creatable.then(|| "create".to_owned()));
        let resource = ServedResource {
            name: words[2].trim_start_matches('!').to_owned(),
            singular: words[3].to_lowercase(),
            kind: words[3].to_owned(),
            namespaced: words[4] == "ns",
            short_names: words.get(5).map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default(),
            verbs,
            ..ServedResource::default()
        };
        if groups.iter().all(|served| served.name != group) {
            let (name, preferred_version) = (group.to_owned(), version.to_owned());
            groups.push(ServedGroup { name, preferred_version, versions: Vec::new() });
        }
        let Some(group) = groups.iter_mut().find(|served| served.name == group) else { continue };
        if group.versions.iter().all(|served| served.version != version) {
            group.versions.push(ServedVersion { version: version.to_owned(), resources: Vec::new() });
        }
        let Some(version) = group.versions.iter_mut().find(|served| served.version == version) else { continue };
        version.resources.push(resource);
    }
    Discovery::new(groups)
}

/// The part of a Kubernetes API server that the tests speak of.
pub(crate) fn kubernetes() -> Discovery {
    discovery(KUBERNETES)
}

const KUBERNETES: &str = "
    - v1 !bindings Binding ns
    - v1 configmaps ConfigMap ns cm
    - v1 endpoints Endpoints ns ep
    - v1 events Event ns ev
    - v1 limitranges LimitRange ns limits
    - v1 namespaces Namespace cluster ns
    - v1 nodes Node cluster no
    - v1 persistentvolumeclaims PersistentVolumeClaim ns pvc
    - v1 persistentvolumes PersistentVolume cluster pv
    - v1 pods Pod ns po
    - v1 pods/status Pod ns
    - v1 secrets Secret ns
    - v1 serviceaccounts ServiceAccount ns sa
    - v1 services Service ns svc
    apiregistration.k8s.io v1 apiservices APIService cluster
    apps v1 deployments Deployment ns deploy
    apps v1 replicasets ReplicaSet ns rs
    apps v1 statefulsets StatefulSet ns sts
    events.k8s.io v1 events Event ns ev
    autoscaling v2 horizontalpodautoscalers HorizontalPodAutoscaler ns hpa
    autoscaling v1 horizontalpodautoscalers HorizontalPodAutoscaler ns hpa
    batch v1 cronjobs CronJob ns cj
    batch v1 jobs Job ns
    networking.k8s.io v1 ingressclasses IngressClass cluster
    networking.k8s.io v1 ingresses Ingress ns ing
    networking.k8s.io v1 networkpolicies NetworkPolicy ns netpol
    networking.k8s.io v1beta1 oldpolicies OldPolicy ns
    node.k8s.io v1 runtimeclasses RuntimeClass cluster
    rbac.authorization.k8s.io v1 clusterrolebindings ClusterRoleBinding cluster
    rbac.authorization.k8s.io v1 clusterroles ClusterRole cluster
    rbac.authorization.k8s.io v1 rolebindings RoleBinding ns
    rbac.authorization.k8s.io v1 roles Role ns
    storage.k8s.io v1 storageclasses StorageClass cluster sc
    scheduling.k8s.io v1 priorityclasses PriorityClass cluster pc
    apiextensions.k8s.io v1 customresourcedefinitions CustomResourceDefinition cluster crd,crds
    metrics.k8s.io v1beta1 !pods PodMetrics ns
    velero.io v1 backups Backup ns
    velero.io v1 restores Restore ns
";
