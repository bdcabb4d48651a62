//! One service of a team with everything around it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::cluster::CUSTOM_API;
use super::company::{DOMAIN, Service, Team, WORDS, ZONES};
use super::draft::{Draft, Forge};
use super::random::Random;
use crate::model::GroupResource;

/// Seconds in a day.
const DAY: i64 = 86_400;

/// Where a service runs.
pub(super) struct Site<'a> {
    pub(super) forge: &'a Forge,
    pub(super) team: &'a Team,
    pub(super) namespace: &'a str,
    pub(super) environment: &'a str,
    pub(super) service: &'a Service,
    /// Have all there is, whatever chance says: the service that the highlights are in.
    pub(super) is_complete: bool,
}

impl Site<'_> {
    /// All objects of the service.
    pub(super) fn objects(&self) -> Vec<(GroupResource, Value)> {
        let mut random = self.forge.random(&["service", self.namespace, self.service.name]);
        let mut drafts = self.access();
        drafts.extend(self.settings(&mut random));
        if self.service.is_stateful {
            drafts.extend(self.stateful(&mut random));
        } else {
            drafts.extend(self.stateless(&mut random));
        }
        drafts.extend(self.network());
        drafts.extend(self.flags(&mut random));
        if self.is_complete || random.below(3) == 0 {
            drafts.extend(self.scheduled(&mut random));
        }
        drafts.into_iter().map(Draft::finish).collect()
    }

    fn name(&self) -> &str {
        self.service.name
    }

    fn draft(&self, api_version: &str, kind: &str, resource: &str, name: &str) -> Draft {
        self.forge.draft(api_version, kind, resource, self.namespace, name).labels(self.labels())
    }

    fn labels(&self) -> Value {
        json!({
            "app.kubernetes.io/name": self.name(),
            "app.kubernetes.io/instance": self.name(),
            "app.kubernetes.io/managed-by": "Helm",
            "app.kubernetes.io/part-of": self.team.name,
            "team": self.team.name,
            "environment": self.environment,
        })
    }

    fn selector(&self) -> Value {
        json!({"app.kubernetes.io/name": self.name(), "app.kubernetes.io/instance": self.name()})
    }

    fn pod_labels(&self, further: &[(&str, &str)]) -> Value {
        let mut labels = self.selector();
        labels["team"] = json!(self.team.name);
        for (key, value) in further {
            labels[*key] = json!(value);
        }
        labels
    }

    fn access(&self) -> Vec<Draft> {
        let name = self.name();
        let role = format!("{name}-reader");
        vec![
            self.draft("v1", "ServiceAccount", "serviceaccounts", name).with("imagePullSecrets", json!([{"name": format!("{name}-registry")}])),
            self.draft("rbac.authorization.k8s.io/v1", "Role", "roles", &role).with(
                "rules",
                json!([
                    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
                    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [format!("{name}-credentials")], "verbs": ["get"]},
                ]),
            ),
            self.draft("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", name)
                .with("roleRef", json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}))
                .with("subjects", json!([{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}])),
        ]
    }

    fn settings(&self, random: &mut Random) -> Vec<Draft> {
        let name = self.name();
        let mut drafts = Vec::new();
        let config = self
            .draft("v1", "ConfigMap", "configmaps", &format!("{name}-config"))
            .with("data", json!({"application.yaml": yaml(random, 40), "LOG_LEVEL": random.word(&["info", "info", "debug"]), "PORT": "8080"}));
        // Somebody changed one line by hand, as somebody always has.
        drafts.push(config.also_managed_by("kubectl-edit", "Update", json!({"f:data": {"f:LOG_LEVEL": {}}})));
        for part in ["routes", "messages"].into_iter().take(1 + usize::try_from(random.below(2)).unwrap_or(0)) {
            drafts.push(
                self.draft("v1", "ConfigMap", "configmaps", &format!("{name}-{part}"))
                    .managed_by("argocd-controller")
                    .with("data", json!({format!("{part}.yaml"): yaml(random, 25)})),
            );
        }
        for history in 1..=2 + random.below(3) {
            let release = json!({"revision": history.to_string(), "values.yaml": yaml(random, 12)});
            drafts.push(
                self.draft("v1", "ConfigMap", "configmaps", &format!("{name}-release-{history}")).with("data", release),
            );
        }
        let credentials = json!({
            "username": BASE64.encode(name),
            "password": BASE64.encode(BASE64.encode(random.bytes(24))),
            "url": BASE64.encode(format!("postgres://{name}.db.{DOMAIN}:5432/{name}")),
        });
        drafts.push(
            self.draft("v1", "Secret", "secrets", &format!("{name}-credentials"))
                .managed_by("external-secrets")
                .with("data", credentials)
                .with("type", json!("Opaque")),
        );
        let login = BASE64.encode(random.bytes(16));
        let registry =
            json!({"auths": {format!("registry.{DOMAIN}"): {"auth": BASE64.encode(format!("{name}:{login}"))}}});
        drafts.push(
            self.draft("v1", "Secret", "secrets", &format!("{name}-registry"))
                .with("data", json!({".dockerconfigjson": BASE64.encode(registry.to_string())}))
                .with("type", json!("kubernetes.io/dockerconfigjson")),
        );
        drafts.push(
            self.draft("v1", "Secret", "secrets", &format!("sh.helm.release.v1.{name}.v1"))
                .labels(json!({"name": name, "owner": "helm", "status": "deployed", "version": "1"}))
                .with("data", json!({"release": BASE64.encode(BASE64.encode(random.bytes(900)))}))
                .with("type", json!("helm.sh/release.v1")),
        );
        drafts
    }

    /// Deployment, the replica sets of this release and the one before, its pods, autoscaler and disruption budget.
    fn stateless(&self, random: &mut Random) -> Vec<Draft> {
        let name = self.name();
        let replicas = if self.environment == "production" { 2 + random.below(2) } else { 1 };
        let revision = 2 + random.below(40);
        let deployment = self.draft("apps/v1", "Deployment", "deployments", name);
        let created = deployment.created.clone();
        let (old_hash, new_hash) = (random.suffix(10), random.suffix(10));
        let mut drafts = vec![
            deployment
                .annotations(json!({
                    "deployment.kubernetes.io/revision": revision.to_string(),
                    "meta.helm.sh/release-name": name,
                    "meta.helm.sh/release-namespace": self.namespace,
                }))
                .generation(revision)
                .with(
                    "spec",
                    json!({
                        "progressDeadlineSeconds": 600,
                        "replicas": replicas,
                        "revisionHistoryLimit": 10,
                        "selector": {"matchLabels": self.selector()},
                        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                        "template": {"metadata": {"labels": self.pod_labels(&[])}, "spec": self.pod_spec(revision, &[])},
                    }),
                )
                .also_managed_by(
                    "kube-controller-manager",
                    "Update",
                    json!({"f:metadata": {"f:annotations": {"f:deployment.kubernetes.io/revision": {}}}}),
                )
                .status(
                    "kube-controller-manager",
                    json!({
                        "observedGeneration": revision,
                        "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas,
                        "conditions": [
                            condition("Available", "MinimumReplicasAvailable", "Deployment has minimum availability.", &created),
                            condition("Progressing", "NewReplicaSetAvailable", &format!("ReplicaSet \"{name}-{new_hash}\" has successfully progressed."), &created),
                        ],
                    }),
                ),
        ];
        for (hash, replicas, revision) in [(&old_hash, 0, revision - 1), (&new_hash, replicas, revision)] {
            let labels = self.pod_labels(&[("pod-template-hash", hash)]);
            let mut selector = self.selector();
            selector["pod-template-hash"] = json!(hash);
            let status = if replicas == 0 {
                json!({"observedGeneration": 2, "replicas": 0})
            } else {
                json!({"observedGeneration": 2, "replicas": replicas, "fullyLabeledReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas})
            };
            drafts.push(
                self.draft("apps/v1", "ReplicaSet", "replicasets", &format!("{name}-{hash}"))
                    .labels(labels.clone())
                    .annotations(json!({
                        "deployment.kubernetes.io/desired-replicas": replicas.to_string(),
                        "deployment.kubernetes.io/max-replicas": (replicas + 1).to_string(),
                        "deployment.kubernetes.io/revision": revision.to_string(),
                    }))
                    .generation(2)
                    .owned_by(self.forge, ("apps/v1", "Deployment", "deployments", name))
                    .managed_by("kube-controller-manager")
                    .with(
                        "spec",
                        json!({
                            "replicas": replicas,
                            "selector": {"matchLabels": selector},
                            "template": {"metadata": {"labels": labels}, "spec": self.pod_spec(revision, &[])},
                        }),
                    )
                    .status("kube-controller-manager", status),
            );
        }
        let replica_set = format!("{name}-{new_hash}");
        let mut pods = Vec::new();
        for _ in 0..replicas {
            let pod = format!("{replica_set}-{}", random.suffix(5));
            drafts.push(
                self.pod(&pod, &self.pod_spec(revision, &[]), "Running", random)
                    .labels(self.pod_labels(&[("pod-template-hash", &new_hash)]))
                    .generate_name(&format!("{replica_set}-"))
                    .owned_by(self.forge, ("apps/v1", "ReplicaSet", "replicasets", &replica_set)),
            );
            pods.push(pod);
        }
        drafts.push(
            self.draft("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", name)
                .with(
                    "spec",
                    json!({
                        "minReplicas": replicas, "maxReplicas": replicas * 3,
                        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}],
                    }),
                )
                .status("kube-controller-manager", json!({"currentReplicas": replicas, "desiredReplicas": replicas, "currentMetrics": null})),
        );
        drafts.push(self.disruption_budget(replicas));
        drafts.extend(self.service_and_endpoints(&pods, false, random));
        drafts
    }

    /// Stateful set, its pods, claims and volumes.
    fn stateful(&self, random: &mut Random) -> Vec<Draft> {
        let name = self.name();
        let replicas = if self.environment == "production" { 3 } else { 1 };
        let class = if self.environment == "production" { "durable" } else { "standard" };
        let revision = format!("{name}-{}", random.suffix(10));
        let claim_spec = json!({
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}},
            "storageClassName": class, "volumeMode": "Filesystem",
        });
        let volume_mount = [("data", "/var/lib/data")];
        let mut drafts = vec![
            self.draft("apps/v1", "StatefulSet", "statefulsets", name)
                .generation(3)
                .with(
                    "spec",
                    json!({
                        "replicas": replicas,
                        "revisionHistoryLimit": 10,
                        "serviceName": name,
                        "podManagementPolicy": "OrderedReady",
                        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
                        "selector": {"matchLabels": self.selector()},
                        "template": {"metadata": {"labels": self.pod_labels(&[])}, "spec": self.pod_spec(3, &volume_mount)},
                        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                        "volumeClaimTemplates": [{
                            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
                            "spec": claim_spec.clone(), "status": {"phase": "Pending"},
                        }],
                    }),
                )
                .status(
                    "kube-controller-manager",
                    json!({
                        "observedGeneration": 3, "collisionCount": 0, "currentRevision": revision, "updateRevision": revision,
                        "replicas": replicas, "readyReplicas": replicas, "currentReplicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas,
                    }),
                ),
        ];
        let mut pods = Vec::new();
        for ordinal in 0..replicas {
            let pod = format!("{name}-{ordinal}");
            let claim = format!("data-{pod}");
            let mut spec = self.pod_spec(3, &volume_mount);
            if let Some(volumes) = spec["volumes"].as_array_mut() {
                volumes.push(json!({"name": "data", "persistentVolumeClaim": {"claimName": claim}}));
            }
            spec["hostname"] = json!(pod);
            spec["subdomain"] = json!(name);
            let labels = [
                ("controller-revision-hash", revision.as_str()),
                ("statefulset.kubernetes.io/pod-name", pod.as_str()),
                ("apps.kubernetes.io/pod-index", &ordinal.to_string()),
            ];
            drafts.push(
                self.pod(&pod, &spec, "Running", random)
                    .labels(self.pod_labels(&labels))
                    .generate_name(&format!("{name}-"))
                    .owned_by(self.forge, ("apps/v1", "StatefulSet", "statefulsets", name)),
            );
            drafts.extend(self.claim_and_volume(&claim, &claim_spec, class));
            pods.push(pod);
        }
        drafts.push(self.disruption_budget(replicas));
        drafts.extend(self.service_and_endpoints(&pods, true, random));
        drafts
    }

    fn claim_and_volume(&self, claim: &str, spec: &Value, class: &str) -> [Draft; 2] {
        let uid = self.forge.uid("persistentvolumeclaims", self.namespace, claim);
        let volume = format!("pvc-{uid}");
        let driver = format!("disks.csi.{DOMAIN}");
        let mut claim_spec = spec.clone();
        claim_spec["volumeName"] = json!(volume);
        let bound = self
            .draft("v1", "PersistentVolumeClaim", "persistentvolumeclaims", claim)
            .labels(self.selector())
            .annotations(json!({
                "pv.kubernetes.io/bind-completed": "yes",
                "pv.kubernetes.io/bound-by-controller": "yes",
                "volume.kubernetes.io/storage-provisioner": driver,
            }))
            .finalizer("kubernetes.io/pvc-protection")
            .managed_by("kube-controller-manager")
            .with("spec", claim_spec)
            .status(
                "kube-controller-manager",
                json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "20Gi"}, "phase": "Bound"}),
            );
        let policy = if class == "durable" { "Retain" } else { "Delete" };
        let volume = self
            .forge
            .draft("v1", "PersistentVolume", "persistentvolumes", "", &volume)
            .annotations(json!({"pv.kubernetes.io/provisioned-by": driver}))
            .finalizer("kubernetes.io/pv-protection")
            .managed_by("csi-provisioner")
            .with(
                "spec",
                json!({
                    "accessModes": ["ReadWriteOnce"],
                    "capacity": {"storage": "20Gi"},
                    "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim, "namespace": self.namespace, "uid": uid},
                    "csi": {"driver": driver, "fsType": "ext4", "volumeHandle": format!("disk-{}", &uid[..18])},
                    "persistentVolumeReclaimPolicy": policy,
                    "storageClassName": class,
                    "volumeMode": "Filesystem",
                }),
            )
            .status("kube-controller-manager", json!({"phase": "Bound"}));
        [bound, volume]
    }

    fn disruption_budget(&self, replicas: u64) -> Draft {
        let name = self.name();
        self.draft("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", name)
            .generation(1)
            .with("spec", json!({"maxUnavailable": 1, "selector": {"matchLabels": self.selector()}}))
            .status(
                "kube-controller-manager",
                json!({
                    "observedGeneration": 1, "currentHealthy": replicas, "desiredHealthy": replicas.saturating_sub(1),
                    "disruptionsAllowed": 1, "expectedPods": replicas,
                }),
            )
    }

    fn service_and_endpoints(&self, pods: &[String], is_headless: bool, random: &mut Random) -> Vec<Draft> {
        let name = self.name();
        let address = if is_headless {
            "None".to_owned()
        } else {
            format!("10.{}.{}.{}", 96 + random.below(16), random.below(256), 1 + random.below(254))
        };
        let service = self
            .draft("v1", "Service", "services", name)
            .with(
                "spec",
                json!({
                    "type": "ClusterIP",
                    "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                    "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                    "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
                    "selector": self.selector(),
                }),
            )
            .status("", json!({"loadBalancer": {}}));
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|pod| {
                let (node, zone) = node_of(&mut self.forge.random(&["pod", self.namespace, pod]));
                json!({
                    "addresses": [self.pod_address(pod)],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": node, "zone": zone,
                    "targetRef": {"kind": "Pod", "name": pod, "namespace": self.namespace, "uid": self.forge.uid("pods", self.namespace, pod)},
                })
            })
            .collect();
        let slice = self
            .draft("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", &format!("{name}-{}", random.suffix(5)))
            .labels(json!({
                "app.kubernetes.io/name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": name,
            }))
            .generate_name(&format!("{name}-"))
            .generation(7)
            .owned_by(self.forge, ("v1", "Service", "services", name))
            .managed_by("kube-controller-manager")
            .with("addressType", json!("IPv4"))
            .with("endpoints", Value::Array(endpoints))
            .with("ports", json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
        vec![service, slice]
    }

    fn network(&self) -> Vec<Draft> {
        let name = self.name();
        let mut from = vec![json!({"podSelector": {"matchLabels": {"team": self.team.name}}})];
        if self.service.is_public {
            from.push(json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}}));
        }
        let policy = self.draft("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", name).generation(1).with(
            "spec",
            json!({
                "podSelector": {"matchLabels": self.selector()},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": from, "ports": [{"port": 8080, "protocol": "TCP"}]}],
            }),
        );
        let mut drafts = vec![policy];
        if self.service.is_public {
            let host = format!("{name}.{}.{DOMAIN}", self.namespace);
            drafts.push(
                self.draft("networking.k8s.io/v1", "Ingress", "ingresses", name)
                    .annotations(json!({"fernhill.example/rate-limit": "200"}))
                    .generation(1)
                    .with(
                        "spec",
                        json!({
                            "ingressClassName": "edge",
                            "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": name, "port": {"name": "http"}}}}]}}],
                            "tls": [{"hosts": [host], "secretName": format!("{name}-tls")}],
                        }),
                    )
                    .status("edge-proxy", json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}})),
            );
        }
        drafts
    }

    fn flags(&self, random: &mut Random) -> Vec<Draft> {
        let count = 1 + random.below(3);
        (1..=count)
            .map(|number| {
                let (first, second) = (random.word(&WORDS), random.word(&WORDS));
                let audiences = if random.below(2) == 0 { json!(["everyone"]) } else { json!(["staff", "beta"]) };
                self.draft(CUSTOM_API, "FeatureFlag", "featureflags", &format!("{}-{first}-{second}-{number}", self.name()))
                    .managed_by("flag-console")
                    .generation(1 + number)
                    .with(
                        "spec",
                        json!({
                            "enabled": random.below(3) > 0,
                            "description": format!("New {first} {second} of {}", self.name()),
                            "rollout": random.below(11) * 10,
                            "audiences": audiences,
                            "owner": {"team": self.team.name, "contact": format!("{}@{DOMAIN}", self.team.name)},
                        }),
                    )
                    .status("flag-operator", json!({"observedGeneration": 1 + number, "evaluations": random.below(5_000_000), "phase": "Active"}))
            })
            .collect()
    }

    /// A cron job with its last run, which has completed, and the pod of that run.
    fn scheduled(&self, random: &mut Random) -> Vec<Draft> {
        let cron_job = format!("{}-nightly", self.name());
        let run = self.forge.taken_at / 60 - 60;
        let job = format!("{cron_job}-{run}");
        let (started, ended) = (self.forge.time(3600), self.forge.time(3540));
        let mut spec = self.pod_spec(1, &[]);
        spec["restartPolicy"] = json!("Never");
        spec["priorityClassName"] = json!("shop-background");
        spec["containers"][0]["args"] = json!(["nightly"]);
        if let Some(container) = spec["containers"][0].as_object_mut() {
            container.remove("livenessProbe");
            container.remove("readinessProbe");
            container.remove("ports");
        }
        let uid = self.forge.uid("jobs.batch", self.namespace, &job);
        let run_labels = json!({
            "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": job,
            "controller-uid": uid, "job-name": job, "team": self.team.name,
        });
        let job_spec = |template: Value| {
            json!({
                "backoffLimit": 2, "completionMode": "NonIndexed", "completions": 1, "parallelism": 1,
                "podReplacementPolicy": "TerminatingOrFailed", "suspend": false, "template": template,
            })
        };
        let mut run_spec = job_spec(json!({"metadata": {"labels": run_labels}, "spec": spec}));
        run_spec["manualSelector"] = json!(false);
        run_spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "CompletionsReached", "message": "Reached expected number of succeeded pods", "lastProbeTime": ended, "lastTransitionTime": ended});
        vec![
            self.draft("batch/v1", "CronJob", "cronjobs", &cron_job)
                .generation(1)
                .with(
                    "spec",
                    json!({
                        "schedule": format!("{} 1 * * *", random.below(60)),
                        "concurrencyPolicy": "Forbid", "suspend": false, "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1,
                        "jobTemplate": {"metadata": {"labels": {"team": self.team.name}}, "spec": {
                            "backoffLimit": 2,
                            "template": {"metadata": {"labels": {"team": self.team.name}}, "spec": spec},
                        }},
                    }),
                )
                .status("kube-controller-manager", json!({"lastScheduleTime": started, "lastSuccessfulTime": ended})),
            self.draft("batch/v1", "Job", "jobs", &job)
                .labels(run_labels.clone())
                .annotations(json!({"batch.kubernetes.io/cronjob-scheduled-timestamp": started}))
                .generation(1)
                .owned_by(self.forge, ("batch/v1", "CronJob", "cronjobs", &cron_job))
                .managed_by("kube-controller-manager")
                .with("spec", run_spec)
                .status(
                    "",
                    json!({
                        "startTime": started, "completionTime": ended, "succeeded": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {},
                        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
                    }),
                ),
            self.pod(&format!("{job}-{}", random.suffix(5)), &spec, "Succeeded", random)
                .labels(run_labels)
                .generate_name(&format!("{job}-"))
                .owned_by(self.forge, ("batch/v1", "Job", "jobs", &job)),
        ]
    }

    fn pod_address(&self, pod: &str) -> String {
        let mut random = self.forge.random(&["address", self.namespace, pod]);
        format!("10.244.{}.{}", random.below(256), 2 + random.below(250))
    }

    /// The template of a pod, with the API server's defaults.
    fn pod_spec(&self, revision: u64, volume_mounts: &[(&str, &str)]) -> Value {
        let name = self.name();
        let probe = |path: &str, period: u64| {
            json!({
                "httpGet": {"path": path, "port": 8080, "scheme": "HTTP"},
                "failureThreshold": 3, "periodSeconds": period, "successThreshold": 1, "timeoutSeconds": 1,
            })
        };
        let mut mounts = vec![json!({"name": "config", "mountPath": "/etc/service", "readOnly": true})];
        mounts.extend(volume_mounts.iter().map(|(name, path)| json!({"name": name, "mountPath": path})));
        let priority = if self.service.is_public { "shop-critical" } else { "shop-background" };
        json!({
            "containers": [{
                "name": name,
                "image": format!("registry.{DOMAIN}/{}/{name}:1.{revision}.0", self.team.name),
                "imagePullPolicy": "IfNotPresent",
                "env": [
                    {"name": "ENVIRONMENT", "valueFrom": {"configMapKeyRef": {"name": "environment", "key": "ENVIRONMENT"}}},
                    {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": format!("{name}-credentials"), "key": "url"}}},
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                ],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "livenessProbe": probe("/healthz", 10),
                "readinessProbe": probe("/ready", 5),
                "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "50m", "memory": "128Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "volumeMounts": mounts,
            }],
            "dnsPolicy": "ClusterFirst",
            "priorityClassName": priority,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {"runAsNonRoot": true, "runAsUser": 10_001},
            "serviceAccount": name,
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "config", "configMap": {"name": format!("{name}-config"), "defaultMode": 420}}],
        })
    }

    /// A pod as it is after admission, scheduling and start.
    fn pod(&self, name: &str, template: &Value, phase: &str, random: &mut Random) -> Draft {
        let (node, _) = node_of(&mut self.forge.random(&["pod", self.namespace, name]));
        let address = self.pod_address(name);
        let mut spec = template.clone();
        let is_critical = spec["priorityClassName"] == "shop-critical";
        let toleration =
            |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        let token = format!("kube-api-access-{}", random.suffix(5));
        let added = json!({
            "enableServiceLinks": true,
            "imagePullSecrets": [{"name": format!("{}-registry", self.name())}],
            "nodeName": node,
            "preemptionPolicy": "PreemptLowerPriority",
            "priority": if is_critical { 100_000 } else { 1_000 },
            "tolerations": [toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")],
        });
        if let (Some(spec), Value::Object(added)) = (spec.as_object_mut(), added) {
            spec.extend(added);
        }
        if let Some(volumes) = spec["volumes"].as_array_mut() {
            volumes.push(json!({"name": token, "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]}}));
        }
        if let Some(mounts) = spec["containers"][0]["volumeMounts"].as_array_mut() {
            mounts.push(
                json!({"name": token, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}),
            );
        }
        let started = self.forge.time(DAY + i64::try_from(random.below(8 * 86_400)).unwrap_or(0));
        let is_running = phase == "Running";
        let ready = if is_running { "True" } else { "False" };
        let state = if is_running {
            json!({"running": {"startedAt": started}})
        } else {
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": started}})
        };
        let conditions: Vec<Value> = [("PodReadyToStartContainers", ready), ("Initialized", "True"), ("Ready", ready), ("ContainersReady", ready), ("PodScheduled", "True")]
            .into_iter()
            .map(|(kind, status)| json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": started}))
            .collect();
        let image = spec["containers"][0]["image"].clone();
        let status = json!({
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [{
                "name": self.name(), "image": image, "imageID": format!("registry.{DOMAIN}/{}@sha256:{}", self.name(), hex(&random.bytes(32))),
                "containerID": format!("containerd://{}", hex(&random.bytes(32))),
                "ready": is_running, "started": is_running, "restartCount": random.below(3), "lastState": {}, "state": state,
            }],
            "hostIP": "192.0.2.20", "hostIPs": [{"ip": "192.0.2.20"}],
            "podIP": address, "podIPs": [{"ip": address}],
            "qosClass": "Burstable", "startTime": started,
        });
        self.draft("v1", "Pod", "pods", name)
            .managed_by("kube-controller-manager")
            .generation(1)
            .with("spec", spec)
            .status("kubelet", status)
    }
}

fn condition(kind: &str, reason: &str, message: &str, time: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": time, "lastTransitionTime": time})
}

fn node_of(random: &mut Random) -> (String, &'static str) {
    let zone = random.word(&ZONES);
    (format!("node-{zone}-{:02}", random.below(12)), zone)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Settings of so many lines.
fn yaml(random: &mut Random, lines: usize) -> String {
    let mut text = String::new();
    for line in 0..lines {
        if line % 6 == 0 {
            text.push_str(&format!("{}-{}:\n", random.word(&WORDS), random.word(&WORDS)));
        }
        let (name, unit) = (random.word(&WORDS), random.word(&WORDS));
        let value = match random.below(4) {
            0 => random.below(10_000).to_string(),
            1 => (random.below(2) == 0).to_string(),
            2 => format!("{}s", 1 + random.below(300)),
            _ => format!("{}-{}", random.word(&WORDS), random.suffix(6)),
        };
        text.push_str(&format!("  {name}-{unit}: {value}\n"));
    }
    text
}

/// ConfigMaps that fill a sample up to its size.
pub(super) fn filler(forge: &Forge, namespace: &str, team: &Team, number: usize) -> (GroupResource, Value) {
    let name = format!("release-notes-{number:05}");
    let mut random = forge.random(&["filler", namespace, &name]);
    let mut data = Map::new();
    data.insert("notes.yaml".to_owned(), json!(yaml(&mut random, 12)));
    let draft = forge.draft("v1", "ConfigMap", "configmaps", namespace, &name);
    draft.labels(json!({"team": team.name})).with("data", Value::Object(data)).finish()
}
